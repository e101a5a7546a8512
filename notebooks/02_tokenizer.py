# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. The speech tokenizer: audio to codes and back
#
# The 12 Hz tokenizer turns 80 ms of speech into one code of each of Q codebooks (16 in the released
# checkpoints, 22 in nano). Each residual codebook quantizes what the ones before it left, so a
# prefix of the codebooks is already speech, only coarser.

# %%
import matplotlib.pyplot as plt
import numpy as np
import soundfile
from IPython.display import Audio, display

from qtts_jax import QwenTTS

tts = QwenTTS.from_pretrained()
codec = tts.speech_tokenizer
text = "The tokenizer keeps the words, the voice and the room."
wave = tts.generate_custom_voice(text, "af_heart", seed=2)[0][0]


def listen(wave, name):
    soundfile.write(f"{name}.ogg", wave, codec.sample_rate, subtype="VORBIS")
    display(Audio(f"{name}.ogg"))


listen(wave, "original")

# %% [markdown]
# ## Codes as a picture
#
# One column is a frame of 80 ms, one row a codebook.

# %%
codes = codec.encode((wave, codec.sample_rate))[0]  # int32 [T, Q]
print("codes", codes.shape, codes.dtype)
figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
axes.imshow(codes.T, aspect="auto", interpolation="nearest")
axes.set(xlabel="frame (80 ms)", ylabel="codebook")
plt.show()

# %% [markdown]
# ## Reconstruction against the number of codebooks
#
# The quantizer adds one vector a codebook. Setting the entries of the last codebooks to zero leaves
# them out; parameters are a plain tree of arrays, so that is one `.at[...].set(0)`. The error is the
# mean distance of log-mel spectra, in decibels.

# %%
import librosa


Q = codes.shape[1]


def with_codebooks(number):
    """The tokenizer with the entries of all codebooks from `number` on set to zero."""
    quantizer = codec.params["decoder"]["quantizer"]
    acoustic = quantizer["acoustic"]  # codebooks 1 ... Q - 1
    kept = acoustic["embed_sum"].at[number - 1 :].set(0)  # [Q - 1, entries, D]
    quantizer = quantizer | {"acoustic": dict(acoustic) | {"embed_sum": kept}}
    decoder = dict(codec.params["decoder"]) | {"quantizer": quantizer}
    return type(codec)(codec.config, {"encoder": {}, "decoder": decoder})


def log_mel(samples):
    mel = librosa.feature.melspectrogram(y=samples, sr=codec.sample_rate, n_mels=80)
    return librosa.power_to_db(mel, top_db=80)  # [80, frames]


numbers = [1, 2, 4, 8, 16, Q]
decoded = {n: with_codebooks(n).decode(codes)[0][0] for n in numbers}
target = log_mel(wave)
errors = [np.abs(log_mel(decoded[n][: len(wave)]) - target).mean() for n in numbers]

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(numbers, errors, marker="o")
axes.set(xlabel="codebooks kept", ylabel="log-mel error, dB", ylim=(0, None), xscale="log")
axes.set_xticks(numbers, [str(n) for n in numbers])
plt.show()
for number in (1, 4, Q):
    print(f"{number} of {Q} codebooks")
    listen(decoded[number], f"codebooks_{number}")

# %% [markdown]
# ## Streaming equals the whole
#
# Every layer carries its state, so decoding in chunks gives the audio of decoding at once.

# %%
chunks = list(codec.stream_decode([codes[:1], codes[1:4], codes[4:]]))
whole = codec.decode(codes)[0][0]
print([len(c) for c in chunks], "samples")
print("largest difference", np.abs(np.concatenate(chunks) - whole).max())

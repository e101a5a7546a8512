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
# # 1. Quickstart: speak, stream, clone, describe
#
# Everything here runs on a laptop without a download: the package carries *nano*, a 30 MB
# checkpoint that reads English. Install with `pip install -e '.[notebook]'` in the repository.
#
# For other languages, dialects and higher quality, convert a released checkpoint once,
#
# ```
# pip install -e '.[hub]'
# python -m convert Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice models/0.6B-CustomVoice
# ```
#
# and load it with `QwenTTS.from_pretrained("models/0.6B-CustomVoice")`. Nothing else changes.

# %%
import librosa
import matplotlib.pyplot as plt
import numpy as np
import soundfile
from IPython.display import Audio, display

from qtts_jax import QwenTTS

tts = QwenTTS.from_pretrained()
for name, value in tts.describe().items():
    print(f"{name:12} {value}")


# %%
def listen(wave, name):
    """An audio player for float32 samples; Ogg keeps the notebook small."""
    soundfile.write(f"{name}.ogg", wave, tts.sample_rate, subtype="VORBIS")
    display(Audio(f"{name}.ogg"))


# %% [markdown]
# ## A preset speaker
#
# A request with a seed gives the same codes every time: alone, in a batch or streamed.

# %%
waves, rate = tts.generate_custom_voice("Hello there. How are you today?", "af_heart", seed=1)
wave = waves[0]
print(f"{len(wave) / rate:.2f} s at {rate} Hz")
listen(wave, "hello")

# %%
mel = librosa.feature.melspectrogram(y=wave, sr=rate, n_fft=1024, hop_length=240, n_mels=80)
figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
axes.imshow(
    librosa.power_to_db(mel, ref=np.max, top_db=80),
    origin="lower",
    aspect="auto",
    extent=(0, len(wave) / rate, 0, 80),
)
axes.set(xlabel="seconds", ylabel="mel bin", title="Hello there. How are you today?")
plt.show()

# %% [markdown]
# Several texts are one batch, and every row gives what it would give alone:

# %%
waves, rate = tts.generate_custom_voice(
    ["The first of two.", "The second one has another speaker."], ["joe", "bf_emma"], seed=[1, 2]
)
for number, wave in enumerate(waves):
    listen(wave, f"batch_{number}")

# %% [markdown]
# ## A stream
#
# The text may arrive in parts, such as the words of a language model. Audio starts before the text
# has ended.


# %%
def arriving():
    for part in ("Text may ", "come in pie", "ces, ", "like this."):
        print("text ", repr(part))
        yield part


chunks = []
for chunk in tts.stream_custom_voice(arriving(), "af_heart", seed=1):
    print(f"audio {len(chunk) / tts.sample_rate:.2f} s")
    chunks.append(chunk)
listen(np.concatenate(chunks), "stream")

# %% [markdown]
# ## A clone
#
# The x-vector of a recording carries the timbre. Here the recording is a sentence that a preset
# speaker spoke; a path, bytes or `(array, rate)` of your own work the same way.

# %%
recording = tts.generate_custom_voice(
    "This is my voice, and it is rather low.", "bm_george", seed=1
)
voice = tts.create_voice_clone_prompt((recording[0][0], recording[1]), x_vector_only_mode=True)
waves, _ = tts.generate_voice_clone(
    "New words in the same voice.", voice_clone_prompt=voice, seed=1
)
listen(recording[0][0], "recording")
listen(waves[0], "clone")

# %% [markdown]
# ## A description
#
# nano understands sex, pitch and speed; released VoiceDesign checkpoints much more.

# %%
for number, instruct in enumerate(
    ("A woman with a high voice, speaking fast.", "A man with a low voice, speaking slowly.")
):
    waves, _ = tts.generate_voice_design("Good evening to everybody.", instruct, seed=1)
    print(instruct)
    listen(waves[0], f"design_{number}")

# %% [markdown]
# Next: [the speech tokenizer](02_tokenizer.ipynb), [streaming](03_streaming.ipynb),
# [changing the model](04_change_the_model.ipynb).

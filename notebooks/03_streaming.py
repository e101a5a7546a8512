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
# # 3. Streaming: when audio comes, and what is remembered
#
# A stream is the same computation as the whole utterance, cut into chunks: many frames run in one
# device program, and everything that a later chunk needs is an explicit state.

# %%
import time

import jax
import matplotlib.pyplot as plt
import numpy as np

from qtts_jax import QwenTTS

tts = QwenTTS.from_pretrained()
TEXT = "Streaming means that you can listen to the first words while the last ones are being made."


# %% [markdown]
# ## A time line
#
# The first run compiles; the second one is timed. Chunks grow (1, 1, 2, 4, ... frames of 80 ms), so
# that the first sound comes early and later programs are efficient. Playback starts with the first
# chunk: as long as the blue line (audio made) stays above the grey one (audio played), there is no
# gap.


# %%
def stream():
    started, made = time.perf_counter(), []
    for chunk in tts.stream_custom_voice(TEXT, "af_heart", seed=3):
        made.append((time.perf_counter() - started, chunk))
    return made


stream()
made = stream()
times = np.array([t for t, _ in made])  # seconds since the request
audio = np.cumsum([len(c) for _, c in made]) / tts.sample_rate  # seconds of audio made
print(
    f"first audio after {1000 * times[0]:.0f} ms, {audio[-1]:.2f} s of speech in {times[-1]:.2f} s"
)

figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
axes.step(times, audio, where="post", label="made")
played = np.clip(np.linspace(0, audio[-1] + times[0], 200) - times[0], 0, audio[-1])
axes.plot(np.linspace(0, audio[-1] + times[0], 200), played, color="grey", label="played")
axes.set(xlabel="seconds since the request", ylabel="seconds of audio")
axes.legend()
plt.show()

# %% [markdown]
# ## Streamed equals whole
#
# Same seed, same codes; the audio differs by rounding only, whatever the chunks are.

# %%
whole = tts.generate_custom_voice(TEXT, "af_heart", seed=3)[0][0]
for sizes in ((1,), (3,), (1, 2, 4, 8)):
    chunks = list(tts.stream_custom_voice(TEXT, "af_heart", seed=3, chunk_frames=sizes))
    difference = np.abs(np.concatenate(chunks) - whole).max()
    print(f"chunks of {sizes}: {len(chunks)} chunks, largest difference {difference:.1e}")

# %% [markdown]
# ## What is remembered
#
# The state of a stream is a tree of arrays with the batch first: keys and values of the talker, and
# the memory of the codec (a few past inputs of each convolution and a window of keys). The codec's
# part does not grow with the length of the speech; the talker's grows in few sizes.

# %%
from qtts_jax.generation.session import Session


def megabytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / 1e6


request = tts.prepare_custom_voice(TEXT, "af_heart", seed=3)
session = Session(tts.config, tts.params, [request])
frames, sizes = [], []
while not session.exhausted and len(frames) < 8:
    session.advance()
    frames.append(session.frames_asked)
    sizes.append(megabytes(session.state.talker.layers))
codec_state = megabytes(
    tts.speech_tokenizer.programs.decoder_state(tts.speech_tokenizer.part("decoder"), 1)
)

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.step(frames, sizes, where="post", label="talker: keys and values")
axes.axhline(codec_state, color="tab:orange", label="codec decoder")
axes.set(xlabel="frames asked for", ylabel="MB a row", ylim=(0, None))
axes.legend()
plt.show()
print(f"codec {codec_state:.2f} MB, whatever the length")

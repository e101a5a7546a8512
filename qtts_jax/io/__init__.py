"""Files in and out: audio, log-mel features, text and checkpoints.

The rooms here stand on floor 0 only. Import what you need from its own module:
`qtts_jax.io.audio`, `qtts_jax.dsp.mel`, `qtts_jax.text.bpe`, `qtts_jax.io.checkpoint`.
"""

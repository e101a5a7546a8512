"""Files in and out: audio, log-mel features, text and checkpoints.

The rooms here stand on floor 0 only. Import what you need from its own module:
`qtts_jax.io.audio`, `qtts_jax.io.mel`, `qtts_jax.io.text`, `qtts_jax.io.checkpoint`.
"""

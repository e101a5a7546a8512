"""Files in and out: audio, checkpoints and atomic writes.

Import what you need from its own module, such as `qtts_jax.io.audio` (reading), `audio_writer`,
`checkpoint` or `config_file`; the room imports `errors` and `checks` only.
"""

"""What a checkpoint is: frozen dataclasses, read from and written to config.json; presets."""

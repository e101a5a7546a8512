"""The public object: text, speaker and options to audio."""

"""Conversion between the released torch layout and Orbax; `python -m convert --help`."""

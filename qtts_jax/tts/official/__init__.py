"""The verbs of the official package, each a thin layer over the requests of `voices.py`."""

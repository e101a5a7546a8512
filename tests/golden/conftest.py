"""Lets the tests of this folder import the scripts beside them by name, as those do themselves."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

"""`python -m qtts_jax` is the `qtts` command."""

import sys

from qtts_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

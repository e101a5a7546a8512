"""Run by test_kill.py: trains the small task without end, with a checkpoint every few steps.

python killed_run.py DIRECTORY
"""

import sys
from pathlib import Path

from tests.training.test_trainer import trainer


def main():
    trainer(Path(sys.argv[1]), steps=10**6, save_every=3, keep=2).run()


if __name__ == "__main__":
    main()

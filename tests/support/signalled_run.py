"""Run by test_stop_signals.py: trains without end and never saves before its end.

python -m tests.support.signalled_run DIRECTORY [hang]

A line on stdout follows the first step. With "hang" the checkpoint is never written.
"""

import sys
import time
from pathlib import Path

from qtts_jax.training import checkpoints
from qtts_jax.training.trainer import Hook
from tests.training.test_trainer import trainer


def main():
    directory, *hang = sys.argv[1:]
    if hang:
        checkpoints.save = lambda *_: time.sleep(600)
    hook = Hook(1, lambda state, log: print("step", flush=True))
    trainer(Path(directory), hooks=[hook], steps=10**6, save_every=10**6).run()


if __name__ == "__main__":
    main()

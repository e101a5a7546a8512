"""Library of the ablations: the scales that `--scale` names.

| scale | recordings | a run |
|---|---|---|
| `tiny` | 64 clips that the shipped voice speaks (`speech.py`) | a minute on two cores |
| `small` | a prepared dataset of short clips (`--data`), teacher as below | 4 minutes on an H200 |
| `nano` | a prepared dataset (`--data`), semantic teacher (`--teacher`) | 75 minutes on an H100 |

All talkers have preset speakers and no speaker encoder, so that a variation is judged without the
noise of cloning.
"""

from __future__ import annotations

from experiments import command
from experiments.runner.scale_nano import NANO
from experiments.runner.scale_small import SMALL
from experiments.runner.scale_tiny import TINY

SCALES = {scale.name: scale for scale in (TINY, SMALL, NANO)}


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))

"""Peak memory of a checkpoint conversion, relative to its largest parameter.

    python -m experiments.bench.conversion_memory

Makes a checkpoint of the released 1.7B sizes with random bits (4.5 GB on disk), converts it to
Orbax and back, each in a process of its own, and prints how far the resident memory rises above
that of the process before the conversion. Expected: at most 1.2 times the largest parameter, the
text embedding of 622 MB, both ways; about two minutes and 14 GB of disk.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np

from convert.faults import Faults
from convert.models import build_model
from convert.rules import plan
from convert.safetensors_stream import SINGLE_FILE, write_file
from experiments import command

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tests" / "golden" / "configs"
MODEL = CONFIGS / "Qwen3-TTS-12Hz-1.7B-Base.config.json"
TOKENIZER = CONFIGS / "Qwen3-TTS-Tokenizer-12Hz.config.json"

CHILD = """
import resource, runpy, sys
from pathlib import Path
import convert.__main__

lines = Path("/proc/self/status").read_text().splitlines()
before = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
try:
    runpy.run_module("convert", run_name="__main__", alter_sys=True)
except SystemExit as done:
    assert not done.code
print(before, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make(folder: Path, config: Path, dtype: np.dtype) -> int:
    """Write a random checkpoint for a config; returns the bytes of its largest parameter."""
    folder.mkdir(parents=True)
    shutil.copyfile(config, folder / "config.json")
    model = build_model(json.loads(config.read_text()), str(config))
    parts = plan(model.rules, model.shapes, Faults())
    noise = np.random.default_rng(0).standard_normal(1 << 22, np.float32).astype(dtype)
    with write_file(folder / SINGLE_FILE, {p.source: (p.shape, dtype) for p in parts}) as file:
        for part in parts:
            file.write(part.source, np.resize(noise, part.shape))
    return max(int(np.prod(shape)) for shape in model.shapes.values()) * dtype.itemsize


def measure(*arguments: str | Path) -> tuple[int, int]:
    """Resident bytes before `python -m convert ARGUMENTS` and at its peak."""
    argv = [sys.executable, "-c", CHILD, *map(str, arguments)]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    before, peak = done.stdout.split()[-2:]
    return int(before), int(peak)


def main() -> None:
    """Make the checkpoint, convert it both ways and print one line each."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "--folder",
        type=Path,
        help="parent of the temporary folder, with 14 GB free (default: that of the system)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        largest = max(
            make(work / "released", MODEL, np.dtype(ml_dtypes.bfloat16)),
            make(work / "released" / "speech_tokenizer", TOKENIZER, np.dtype(np.float32)),
        )
        for direction, arguments in {
            "to Orbax": (work / "released", work / "orbax"),
            "to torch": ("--to-torch", work / "orbax", work / "torch"),
        }.items():
            before, peak = measure(*arguments)
            print(
                f"{direction}: {before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at the peak; "
                f"rise {(peak - before) / 1e6:.0f} MB = {(peak - before) / largest:.3f} x "
                f"the largest parameter ({largest / 1e6:.0f} MB)"
            )
        released = work / "released" / SINGLE_FILE
        same = subprocess.run(["cmp", released, work / "torch" / SINGLE_FILE]).returncode == 0
        print(f"round trip of {released.stat().st_size} bytes is identical: {same}")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

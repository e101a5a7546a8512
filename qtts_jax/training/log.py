"""Logs of a run: `metrics.jsonl`, TensorBoard events, audio and pictures."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax.numpy as jnp
import numpy as np
import soundfile

from qtts_jax import processes
from qtts_jax.dsp.mel import MelConfig, log_mel
from qtts_jax.errors import TrainingError
from qtts_jax.extras import import_extra
from qtts_jax.io.atomic_files import sweep, write_whole

METRICS = "metrics.jsonl"
SAMPLES = "samples"
EVENTS = "tensorboard"
PARTIAL = "partial"


class RunLog:
    """Writes the logs in a run's directory, and continues them after a restart.

    Of several processes that train together, process 0 writes; in the others this does nothing.

        metrics.jsonl                   one object a line: step, time (Unix seconds), scalars;
                                        "partial" where a session ended between two lines
        samples/00001000/NAME.wav|png   audio and pictures of a step
        tensorboard/                    the same for TensorBoard

    Args:
        directory: of the run; created if absent.
        step: steps already done; lines of an interrupted run beyond it are dropped, and so are
            partial lines, whose steps are in the next one (TensorBoard keeps their points).
        tensorboard: also write TensorBoard events (package tensorboardX, extra `train`).

    Raises:
        MissingExtraError: `tensorboard` without the package.
    """

    def __init__(self, directory: Path, step: int = 0, *, tensorboard: bool = True) -> None:
        self.directory, self._writes = directory, processes.writes()
        if not self._writes:
            return
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS
        sweep(directory)
        if path.exists():
            write_whole(path, _until(path, step))
        self._events = _event_writer(directory / EVENTS, step) if tensorboard else None
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._writes:
            return
        self._file.close()
        if self._events is not None:
            self._events.close()

    def scalars(self, step: int, values: Mapping[str, float], *, partial: bool = False) -> None:
        """Record the scalars of a step; on disk when this returns.

        Args:
            partial: they are means over a part of their steps so far; a run that goes on records
                them again, over all.
        """
        if not self._writes:
            return
        row = {"step": step, "time": round(time.time(), 3), **values}
        if partial:
            row[PARTIAL] = True
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def audio(self, step: int, name: str, wave: np.ndarray, sample_rate: int) -> None:
        """Record a wave, float32 [T] in [-1, 1], with a picture of its log-mel spectrogram."""
        if not self._writes:
            return
        content = io.BytesIO()
        soundfile.write(content, wave, sample_rate, format="WAV", subtype="FLOAT")
        self._sample(step, f"{name}.wav").write_bytes(content.getvalue())
        if self._events is not None:
            self._events.add_audio(name, wave[:, None], step, sample_rate)
        mel = MelConfig(sample_rate=sample_rate, fmax=sample_rate / 2)
        if len(wave) >= mel.min_samples:
            self.picture(
                step, name, mel_picture(np.asarray(log_mel(jnp.asarray(wave), mel)[0]), mel)
            )

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Record a picture, uint8 [H, W, 3]."""
        if not self._writes:
            return
        import_extra("matplotlib.image", "train", "pictures in the log").imsave(
            self._sample(step, f"{name}.png"), pixels
        )
        if self._events is not None:
            self._events.add_image(name, pixels, step, dataformats="HWC")

    def _sample(self, step: int, name: str) -> Path:
        path = self.directory / SAMPLES / f"{step:08d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def mel_picture(mel: np.ndarray, config: MelConfig) -> np.ndarray:
    """A log-mel spectrogram [T, M] with its axes as pixels, uint8 [H, W, 3]."""
    # Imported here: matplotlib is slow to import, and only audio samples need it.
    purpose = "pictures in the log"
    backend = import_extra("matplotlib.backends.backend_agg", "train", purpose)
    figure = import_extra("matplotlib.figure", "train", purpose).Figure((8, 3), layout="tight")
    canvas = backend.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seconds = len(mel) * config.hop / config.sample_rate
    image = axes.imshow(
        mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, mel.shape[1]), cmap="magma"
    )
    axes.set(xlabel="seconds", ylabel="mel bin")
    figure.colorbar(image, ax=axes, label="natural log")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The recorded rows of a run, in order: step, time and scalars.

    Raises:
        TrainingError: there is no such log, or it is damaged.
    """
    try:
        text = (directory / METRICS).read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{directory} has no readable {METRICS}; give the folder of a run."
        ) from error
    return [{name: x for name, x in row.items() if name != PARTIAL} for row in rows]


def _until(path: Path, step: int) -> bytes:
    """The full lines of steps up to `step`; a killed process may leave half a line."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step and PARTIAL not in row and line.endswith(b"\n"):
            kept.append(line)
    return b"".join(kept)


def _event_writer(directory: Path, step: int) -> Any:
    library = import_extra("tensorboardX", "train", "TensorBoard logs")
    # Also at step 0: a run that was killed before its first checkpoint has curves too.
    return library.SummaryWriter(str(directory), purge_step=step + 1)

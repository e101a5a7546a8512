"""Synthesise the clips of a job file with numpy, onnxruntime and soundfile alone.

    python cpu_worker.py --jobs jobs.jsonl --models DIR... --out DIR [--workers 16] [--seconds 540]

The builder runs this same file on its own machine; copied elsewhere (`build --export`) it fills
the cores of any other one. A job is a line `{"id", "engine", "voice", "tokens", "speed"}` (of Piper
also `"pitch"`) with phoneme ids, so that no phonemiser is needed. The folders of the models have
`kokoro.onnx` or its xz-compressed parts `kokoro.onnx.xz.part0`, ..., which are joined once;
`voices.npz` (float16 or float32 [510, 256] for each voice, none for drawn ones, `af~017`);
`piper.onnx` with `piper.json`. Each clip becomes `OUT/ID.ogg` (Opus, 24 kHz, mono, trimmed),
written whole or not at all; clips that are there are not made again, so that a killed run goes on.
`--seconds` starts no clip after so many seconds; `--pack` then collects the clips in tar files of
at most 15 MiB.
"""

from __future__ import annotations

import argparse
import json
import lzma
import multiprocessing
import os
import queue
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATE = 24000
# libsndfile maps level 0..1 to 256..6 kbit/s for one channel.
OPUS_LEVEL = 1 - (32 - 6) / 250
PACK_BYTES = 15 << 20
SILENCE_DB = -45.0
MARGIN_SECONDS = 0.1
# In the name of a voice that is drawn from others: accent, sex, `~`, number.
DRAWN = "~"
# Two women and two men, American and British: never trained on nor drawn from, for the cloning
# test.
UNSEEN_VOICES = frozenset({"af_nova", "am_eric", "bf_lily", "bm_fable"})

Job = dict[str, Any]
Engine = Callable[[Job], np.ndarray]


def resample(wave: np.ndarray, rate: int, target: int = RATE) -> np.ndarray:
    """Band-limited resampling of a whole clip, float32 [T] -> [T * target / rate] (by FFT)."""
    if rate == target:
        return wave
    divisor = int(np.gcd(rate, target))
    period, length = rate // divisor, len(wave)
    wave = np.pad(wave, (0, -length % period))
    samples = len(wave) // period * (target // divisor)
    spectrum = np.fft.rfft(wave)
    kept = np.zeros(samples // 2 + 1, complex)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    wave = np.fft.irfft(kept, samples) * (samples / len(wave))
    return wave[: round(length * target / rate)].astype(np.float32)


def trim_bounds(wave: np.ndarray, rate: int = RATE) -> tuple[int, int]:
    """What is left without silence at both ends: [first, last) sample.

    Silence is 45 dB below the loudest 10 ms; a margin of 0.1 s stays.
    """
    hop = rate // 100
    frames = wave[: len(wave) // hop * hop].reshape(-1, hop)
    if not len(frames):
        return 0, len(wave)
    level = np.sqrt((frames.astype(np.float64) ** 2).mean(1))
    loud = np.flatnonzero(level > level.max() * 10 ** (SILENCE_DB / 20))
    if not len(loud):
        return 0, 0
    margin = round(MARGIN_SECONDS * rate)
    last = (int(loud[-1]) + 1) * hop + margin
    return max(0, int(loud[0]) * hop - margin), min(last, len(wave))


def trim(wave: np.ndarray, rate: int = RATE) -> np.ndarray:
    """The part of a wave within `trim_bounds`."""
    first, last = trim_bounds(wave, rate)
    return wave[first:last]


def write_audio(path: Path, wave: np.ndarray) -> None:
    """Write float [T] at 24 kHz, whole or not at all.

    The name decides: Ogg Opus of about 32 kbit/s, or FLAC, a hundred times faster and ten times
    larger.
    """
    import soundfile

    partial = path.with_name(f".{path.name}.partial")
    peak = np.abs(wave).max(initial=0.0)
    if peak > 0.99:
        wave = wave * (0.99 / peak)
    kind: dict[str, Any] = {"format": "OGG", "subtype": "OPUS", "compression_level": OPUS_LEVEL}
    if path.suffix == ".flac":
        kind = {"format": "FLAC", "subtype": "PCM_16"}
    with open(partial, "wb") as file:
        soundfile.write(file, wave, RATE, **kind)
    os.replace(partial, path)


def read_jobs(path: Path) -> list[Job]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def end_cut_line(file: Path) -> None:
    """Drop what a kill left of a last line."""
    if not file.exists():
        return
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        file.write_bytes(whole)


def find(models: Sequence[Path], name: str) -> Path:
    """The model file `name` in the first folder that has it; joins xz-compressed parts once."""
    for folder in models:
        if (folder / name).exists():
            return folder / name
    parts = sorted(
        (part for folder in models for part in folder.glob(f"{name}.xz.part*")),
        key=lambda part: part.name,
    )
    if not parts:
        folders = ", ".join(map(str, models))
        raise FileNotFoundError(f"no {name} in {folders}; `build` or `build --export` writes it")
    whole = models[0] / name
    partial = whole.with_name(f".{name}.{os.getpid()}.partial")
    partial.write_bytes(lzma.decompress(b"".join(part.read_bytes() for part in parts)))
    os.replace(partial, whole)
    return whole


def open_model(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def style_of(styles: Mapping[str, np.ndarray], voice: str, tokens: int) -> np.ndarray:
    """Kokoro's style for so many tokens, float32 [1, 256].

    A drawn voice is one of the normal distribution that the voices of its sex have, so that it is
    as unlike each of them as they are unlike each other. The halves of a style, timbre and
    prosody, are drawn apart.
    """
    if DRAWN not in voice:
        return _style_row(styles[voice], tokens).reshape(1, -1).astype(np.float32)
    names = sorted(name for name in styles if name[1] == voice[1] and name not in UNSEEN_VOICES)
    rows = np.stack([_style_row(styles[name], tokens) for name in names]).astype(np.float32)
    mean = rows.mean(0)
    # The older generator, for it alone is sure to give the same numbers with any numpy.
    chance = np.random.RandomState(zlib.crc32(voice.encode()))
    weights = chance.standard_normal((len(names), 2, 1)) / np.sqrt(len(names) - 1)
    return (mean + (weights * (rows - mean)).sum(0)).reshape(1, -1).astype(np.float32)


def _style_row(table: np.ndarray, tokens: int) -> np.ndarray:
    """[2, 128], timbre and prosody."""
    return table[min(tokens, len(table)) - 1].reshape(2, -1)


def kokoro(models: Sequence[Path], threads: int) -> Engine:
    """Kokoro-82M: tokens int [N <= 510], one style row of the voice by N -> float32 [T], 24 kHz."""
    session = open_model(find(models, "kokoro.onnx"), threads)
    voices = dict(np.load(find(models, "voices.npz")))

    def speak(job: Job) -> np.ndarray:
        tokens = job["tokens"]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style_of(voices, job["voice"], len(tokens)),
            "speed": np.array([job["speed"]], np.float32),
        }
        return session.run(None, inputs)[0].ravel()

    return speak


def piper(models: Sequence[Path], threads: int) -> Engine:
    """Piper (VITS): tokens int [N] with pads between -> float32 [T], resampled to 24 kHz.

    A pitch other than 1 is that of a tape at another pace, so the voice speaks slower before.
    """
    session = open_model(find(models, "piper.onnx"), threads)
    config = json.loads(find(models, "piper.json").read_text("utf-8"))
    chance, rate = config["inference"], config["audio"]["sample_rate"]

    def speak(job: Job) -> np.ndarray:
        length = chance["length_scale"] * job["pitch"] / job["speed"]
        scales = [chance["noise_scale"], length, chance["noise_w"]]
        inputs = {
            "input": np.array([job["tokens"]], np.int64),
            "input_lengths": np.array([len(job["tokens"])], np.int64),
            "scales": np.array(scales, np.float32),
        }
        return resample(session.run(None, inputs)[0].ravel(), round(rate * job["pitch"]))

    return speak


ENGINES: dict[str, Callable[[Sequence[Path], int], Engine]] = {"kokoro": kokoro, "piper": piper}


def work(
    jobs: Sequence[Job],
    models: Sequence[Path],
    out: Path,
    threads: int,
    deadline: float,
    done: Any,
) -> None:
    """Make clips one by one; put (id, seconds of audio), at the end None, or an error in `done`."""
    engines: dict[str, Engine] = {}
    job_id, parent = "?", os.getppid()
    try:
        for job in jobs:
            if time.time() >= deadline or os.getppid() != parent:  # out of time, or left alone
                break
            job_id, name = job["id"], job["engine"]
            target = out / f"{job_id}.ogg"
            if name not in engines:
                engines[name] = ENGINES[name](models, threads)
            wave = trim(engines[name](job))
            write_audio(target, wave)
            done.put((job_id, len(wave) / RATE))
        done.put(None)
    except Exception as error:
        done.put(f"clip {job_id}: {type(error).__name__}: {error}")


def run(
    jobs: Sequence[Job],
    models: Sequence[Path],
    out: Path,
    workers: int,
    threads: int = 1,
    seconds: float | None = None,
) -> Iterator[tuple[str, float]]:
    """Make the clips that are missing in parallel processes; yield (id, seconds) of each.

    Raises:
        RuntimeError: a worker failed or died; names the clip.
    """
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + seconds if seconds is not None else float("inf")
    there = made(out)
    missing = [job for job in jobs if job["id"] not in there]
    if any(job["engine"] == "kokoro" for job in missing):
        find(models, "kokoro.onnx")  # parts are joined before the workers race for it
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Queue()
    processes = [
        spawn.Process(
            target=work,
            args=(missing[index::workers], models, out, threads, deadline, done),
            daemon=True,
        )
        for index in range(min(workers, len(missing)))
    ]
    for process in processes:
        process.start()
    running = len(processes)
    try:
        while running:
            try:
                item = done.get(timeout=5)
            except queue.Empty:
                if all(process.is_alive() or process.exitcode == 0 for process in processes):
                    continue
                raise RuntimeError("a worker process died; run again to go on") from None
            if item is None:
                running -= 1
            elif isinstance(item, str):
                raise RuntimeError(item)
            else:
                yield item
    finally:
        for process in processes:
            if running:
                process.terminate()
            process.join()


def made(out: Path) -> set[str]:
    """The ids of the clips in a folder and in the tar files there."""
    names = {path.name for kind in ("*.ogg", "*.flac") for path in out.glob(kind)}
    for path in out.glob("clips-*.tar"):
        with tarfile.open(path) as archive:
            names |= set(archive.getnames())
    return {name.removesuffix(".ogg").removesuffix(".flac") for name in names}


def pack(out: Path, limit: int = PACK_BYTES) -> list[Path]:
    """Move the clips of `out` into tar files of at most `limit` bytes; return the tar files."""
    first = len(list(out.glob("clips-*.tar")))
    packs: list[Path] = []
    batch: list[Path] = []
    size = 0

    def close() -> None:
        path = out / f"clips-{first + len(packs):04d}.tar"
        partial = path.with_name(f".{path.name}.partial")
        with tarfile.open(partial, "w") as archive:
            for clip in batch:
                archive.add(clip, clip.name)
        os.replace(partial, path)
        for clip in batch:
            clip.unlink()
        packs.append(path)

    for clip in sorted(out.glob("*.ogg")):
        cost = 512 + -(-clip.stat().st_size // 512) * 512
        if batch and size + cost > limit - 20480:
            close()
            batch, size = [], 0
        batch.append(clip)
        size += cost
    if batch:
        close()
    return packs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--seconds", type=float, help="start no clip after so many seconds")
    parser.add_argument("--pack", action="store_true", help="collect the clips in tar files")
    options = parser.parse_args()
    start, clips, audio = time.time(), 0, 0.0
    results = run(
        read_jobs(options.jobs),
        options.models,
        options.out,
        options.workers,
        options.threads,
        options.seconds,
    )
    for _, seconds in results:
        clips, audio = clips + 1, audio + seconds
        if clips % 50 == 0:
            print(f"{clips} clips, {audio / 60:.1f} min in {time.time() - start:.0f} s", flush=True)
    spent = time.time() - start
    print(f"{clips} clips, {audio / 60:.1f} min, {audio / spent:.2f} s of audio a second")
    if options.pack:
        print(f"{len(pack(options.out))} tar files in {options.out}")


if __name__ == "__main__":
    main()

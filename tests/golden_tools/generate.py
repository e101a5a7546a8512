"""Make golden cases with the official package: varied small checkpoints, requests, outputs.

    python -m tests.golden_tools.generate OUT [--seed N] [--spec NAME] [--thin] [--min-margin X]

Run it where the official package is installed (`qwen-tts` 0.1.1, transformers 4.57.3, torch).
For each `Spec` of `specs.py` it writes OUT/NAME/ with

    checkpoint/       released layout; weights as manifest.json (see detweights.py)
    audio/            reference recordings
    requests.jsonl    lines of the `qtts batch` format
    outputs.npz       ID/codes [T, Q], ID/wave [N], ID/prompt [S, D]; tokenizer/... arrays
    index.json        seeds, versions, which requests ran together, frames, margins, strides

`--thin` stores every 23rd sample of a wave and every 4th channel of a prompt, so that the result
is small enough to be committed.
A checkpoint is made again with the next seed until its smallest margin reaches `--min-margin`, so
that codes can be compared exactly in any arithmetic of float32 quality, and until some requests
end by themselves while others run to max_new_tokens.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from tests.golden_tools import cases, detweights, official
from tests.golden_tools.small_checkpoints import Spec, write_checkpoint
from tests.golden_tools.specs import SPECS

PACKAGES = ("qwen-tts", "transformers", "torch", "numpy", "librosa")
ATTEMPTS = 40


def generate(spec: Spec, out: Path, seed: int, strides: tuple[int, int]) -> dict[str, Any]:
    """Write one checkpoint with its cases; return the index that was written.

    `strides` thins the stored waves over samples and the stored prompts over channels.
    """
    wave_stride, prompt_stride = strides
    write_checkpoint(spec, out / "checkpoint", seed)
    write_audio(spec, out / "audio", seed)
    groups = cases.generation_groups(spec)
    (out / "requests.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for g in groups for r in g.requests),
        encoding="utf-8",
    )
    arrays: dict[str, np.ndarray] = {}
    described: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # Weights are derived in a copy, so that OUT holds no large file.
        whole = Path(scratch, "checkpoint")
        shutil.copytree(out / "checkpoint", whole)
        detweights.materialize(whole)
        model = official.load_model(whole)
        for group in groups:
            results = official.run_together(model, group.requests, out, group.joint_references)
            for request, result in zip(group.requests, results, strict=True):
                name = request["id"]
                arrays[f"{name}/codes"] = result.codes.astype(np.int16)
                arrays[f"{name}/wave"] = result.wave[::wave_stride]
                arrays[f"{name}/prompt"] = result.prompt[:, ::prompt_stride]
                described[name] = {
                    "frames": len(result.codes),
                    "samples": len(result.wave),
                    "prompt_length": len(result.prompt),
                    "stopped": result.stopped,
                    "talker_margin": round(result.talker_margin, 7),
                    "predictor_margin": round(result.predictor_margin, 7),
                }
        tokenizer, gap = run_tokenizer(spec, model.model.speech_tokenizer, seed, wave_stride)
    arrays.update(tokenizer)
    np.savez_compressed(out / "outputs.npz", **arrays)  # type: ignore[arg-type]
    margins = [min(d["talker_margin"], d["predictor_margin"]) for d in described.values()]
    index = {
        "spec": asdict(spec),
        "seed": seed,
        "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
        "wave_stride": wave_stride,
        "prompt_stride": prompt_stride,
        "min_margin": min(margins),
        "min_codeword_gap": round(gap, 7),
        "groups": [
            {"ids": [r["id"] for r in g.requests], "joint_references": g.joint_references}
            for g in groups
        ],
        "requests": described,
        "tokenizer": cases.tokenizer_cases(spec),
        "texts": token_ids(model, out / "checkpoint"),
    }
    (out / "index.json").write_text(json.dumps(index, ensure_ascii=False, indent=1) + "\n")
    return index


def fault(index: dict[str, Any], min_margin: float) -> str | None:
    """Say why a generated set should be made again with another seed, if it should."""
    smallest = min(index["min_margin"], index["min_codeword_gap"])
    if smallest < min_margin:
        return f"smallest margin {smallest:.1e}"
    stopped = [r["stopped"] for r in index["requests"].values()]
    if all(stopped) or not any(stopped):
        return "all requests ended alike"
    return None


def write_audio(spec: Spec, directory: Path, seed: int) -> None:
    """Write the reference recordings as 16-bit files, which every reader scales alike."""
    for name, (samples, rate, channels) in cases.recordings(spec).items():
        directory.mkdir(parents=True, exist_ok=True)
        sides = [detweights.wave(seed, f"{name}/{side}", samples, rate) for side in range(channels)]
        soundfile.write(directory / name, np.stack(sides, 1), rate, subtype="PCM_16")


def run_tokenizer(
    spec: Spec, tokenizer: Any, seed: int, stride: int
) -> tuple[dict[str, np.ndarray], float]:
    """Encode and decode the tokenizer cases; return arrays by name and the codeword gap."""
    plan = cases.tokenizer_cases(spec)
    arrays: dict[str, np.ndarray] = {}
    smallest = math.inf
    waves = [detweights.wave(seed, f"encode/{n}", n, 24000) for n in plan["encode_samples"]]
    for wave in waves:
        codes, gap = official.encode_with_gap(tokenizer, [wave], 24000)
        arrays[f"tokenizer/encode/{len(wave)}"] = codes[0].astype(np.int16)
        smallest = min(smallest, gap)
    codes, gap = official.encode_with_gap(tokenizer, waves, 24000)
    for wave, item in zip(waves, codes, strict=True):
        arrays[f"tokenizer/encode_batch/{len(wave)}"] = item.astype(np.int16)
    drawn = [
        detweights.integers(seed, f"decode/{t}", (t, spec.books), spec.entries)
        for t in plan["decode_frames"]
    ]
    for item in drawn:
        decoded, _ = tokenizer.decode([{"audio_codes": item}])
        step = stride if len(item) <= 50 else plan["long_stride"]
        arrays[f"tokenizer/decode/{len(item)}"] = decoded[0][::step]
    short = [item for item in drawn if len(item) <= 50]
    decoded, _ = tokenizer.decode([{"audio_codes": item} for item in short])
    for item, wave in zip(short, decoded, strict=True):
        arrays[f"tokenizer/decode_batch/{len(item)}"] = wave[::stride]
    return arrays, min(smallest, gap)


def token_ids(model: Any, checkpoint: Path) -> list[dict[str, Any]]:
    """Return the token ids of awkward texts, as loaded and as with a vocabulary of full size."""
    own = [model.processor(text=text)["input_ids"][0] for text in cases.TEXTS]
    large = official.large_vocabulary_ids(checkpoint, cases.TEXTS)
    rows = zip(cases.TEXTS, own, large, strict=True)
    return [{"text": t, "ids": a, "large_vocabulary_ids": b} for t, a, b in rows]


def main() -> None:
    """Generate every chosen spec below OUT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--thin", action="store_true", help="store strided waves and prompts")
    parser.add_argument("--spec", action="append", help="only this one (may be repeated)")
    parser.add_argument("--min-margin", type=float, default=1e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    strides = (23, 4) if args.thin else (1, 1)
    for number, name in enumerate(SPECS):
        if args.spec and name not in args.spec:
            continue
        for attempt in range(ATTEMPTS):
            seed = args.seed + 100 * number + 2 * attempt
            shutil.rmtree(args.out / name, ignore_errors=True)
            why = fault(generate(SPECS[name], args.out / name, seed, strides), args.min_margin)
            print(f"{name}: seed {seed}: {why or 'kept'}", flush=True)
            if why is None:
                break
        else:
            parser.error(f"{name}: none of {ATTEMPTS} seeds would do")


if __name__ == "__main__":
    main()

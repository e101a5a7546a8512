"""Drafts of the code predictor: how often they are right, and what they save or cost.

    python -m experiments.bench.draft_acceptance --out experiments/results/drafts

writes NAME.json and NAME.md. The preset voices speak sentences of `experiments/nano/everyday.jsonl`
in turns, with three settings of the sampler, and the predictor runs again over every frame:

- acceptance by depth: head s + t on the output that gives codebook s drafts codebook s + t, with
  the noise of that codebook. The share of drafts that equal the code of the frame, given that all
  codes up to s are those of the frame; per codebook too.
- passes a frame: counted by `generation/speculative_codes.py` for every draft window, beside one
  pass a residual codebook of the plain loop. The codes must be those of the plain loop: frames that
  differ are counted, and the command fails unless the two best scores (logit with noise) of the
  first code that differs are equal to 1e-5, which the rounding of a logit explains.
- milliseconds a frame, batch 1: of the predictor alone over the same frames, and of a whole
  utterance with the talker (codes only). Windows take turns, and figures are medians.
- the time of one pass over 1 to 4 positions with its heads, for this predictor and for one of the
  released size (5 layers of width 1024, random weights): acceptance depends on trained weights, the
  time of a pass does not.

About three minutes on two cores. Expected of nano: 13 to 15 passes instead of 21 and no gain in
time on a CPU, where its pass over several positions costs three times one over a single position.
At the released size, with weights kept in bfloat16, it costs about as much as one over a single
position. Run it on an idle machine: the load is in the results, and times vary with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.bench.draft_table import table
from experiments.bench.draft_times import medians, pass_times, seconds_of, utterance_time
from experiments.bench.predictor_frames import PredictorFrames, generated_frames
from qtts_jax.configs.presets import tts_12hz
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import QTTSError
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.residual_codes import residual_codes, residual_noise
from qtts_jax.generation.sampling import (
    HeadSampling,
    SamplerParams,
    batch_sampler,
    filter_logits,
    sample_codebooks,
)
from qtts_jax.generation.speculative_codes import speculative_codes
from qtts_jax.layers.quantized_weights import dense
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.tts.qwen_tts import QwenTTS

TEXTS = Path(__file__).parents[1] / "nano" / "everyday.jsonl"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "checkpoint": {},
    "official": {
        "temperature": 0.9,
        "top_k": 50,
        "repetition_penalty": 1.05,
        "subtalker_temperature": 0.9,
        "subtalker_top_k": 50,
    },
    "greedy": {"do_sample": False, "subtalker_dosample": False},
}
# Frames that run through the predictor together; the last group is filled up with copies.
GROUP = 32
# Scores this near, relative to their size, are a tie.
TIE = 1e-5


def predictor_of(config: TTSConfig, params: Params) -> CodePredictor:
    """The predictor of a model that has one."""
    model = bind(abstract(TTSModel, config)[0], params)
    assert isinstance(model.code_predictor, CodePredictor)
    return model.code_predictor


def groups_of(frames: PredictorFrames, size: int) -> tuple[PredictorFrames, int]:
    """Frames as [groups, size, ...], and how many of them are real."""
    count = len(frames.codes)
    at = np.minimum(np.arange(-(-count // size) * size), count - 1).reshape(-1, size)
    return jax.tree.map(lambda x: x[at], frames), count


@partial(jax.jit, static_argnames=("config", "method", "depths"))
def right_drafts(
    params: Params,
    frames: PredictorFrames,
    sampler: SamplerParams,
    *,
    config: TTSConfig,
    method: HeadSampling,
    depths: int,
) -> jax.Array:
    """Which drafts equal the codes of the frames.

    Args:
        frames: [groups, size, ...].

    Returns:
        [groups, size, depths, Q-1] bool; at depth 1 + t of place q, the draft of codebook q + 1 by
        the output t + 1 codes before. False where no output precedes so far.
    """
    with matmul_precision(params):
        predictor = predictor_of(config, params)

        def of_group(frames: PredictorFrames) -> jax.Array:
            hidden, first, codes = frames.hidden, frames.first, frames.codes
            y = predictor.forced_outputs(hidden, first, codes)  # [size, Q-1, D]
            noise, right = residual_noise(predictor, frames.keys), []  # [Q-1, size, V]
            # CPUs with bfloat16 matrices hold them in that type.
            all_heads = dense(predictor.heads[...])  # [Q-1, V, D]
            for depth in range(1, depths + 1):
                heads = all_heads[depth:]  # [Q-1-depth, V, D]
                logits = jnp.einsum("bqd,qvd->bqv", y[:, :-depth], heads).astype(jnp.float32)
                drafts = sample_codebooks(logits, noise[depth:], sampler, method)
                right.append(jnp.pad(drafts == codes[:, depth:], ((0, 0), (depth, 0))))
            return jnp.stack(right, axis=1)

        return jax.lax.map(of_group, frames)


@partial(jax.jit, static_argnames=("config", "method", "window"))
def codes_and_passes(
    params: Params,
    frames: PredictorFrames,
    sampler: SamplerParams,
    *,
    config: TTSConfig,
    method: HeadSampling,
    window: int,
) -> tuple[jax.Array, jax.Array]:
    """Residual codes [groups, size, Q-1] and passes [groups, size], one group after the other."""
    with matmul_precision(params):
        predictor = predictor_of(config, params)

        def of_group(frames: PredictorFrames) -> tuple[jax.Array, jax.Array]:
            inputs = predictor, frames.hidden, frames.first
            if window == 1:
                codes, _ = residual_codes(*inputs, frames.keys, sampler, method)
                return codes, jnp.full(len(codes), codes.shape[1])
            noise = residual_noise(predictor, frames.keys)
            return speculative_codes(*inputs, noise, sampler, method, window)

        return jax.lax.map(of_group, frames)


def differing_frames(
    tts: QwenTTS, frames: PredictorFrames, codes: np.ndarray, settings: SamplingParams
) -> int:
    """How many frames have other codes [N, Q-1] than those of the plain loop, all by ties.

    Raises:
        QTTSError: scores of a code that differs are further apart than rounding explains.
    """
    plain = np.asarray(frames.codes)
    sampler, method = batch_sampler([settings], "subtalker_")
    differing = np.flatnonzero((codes != plain).any(axis=1))
    for frame in differing:
        codebook = int(np.argmax(codes[frame] != plain[frame]))
        one = jax.tree.map(lambda x, at=frame: x[at : at + 1], frames)
        with matmul_precision(tts.params):
            predictor = predictor_of(tts.config, tts.params)
            logits = predictor.teacher_forced(one.hidden, one.first, one.codes)[:, codebook]
            noise = residual_noise(predictor, one.keys)[codebook]  # [1, V]
        scores = logits
        if method.sample:
            scores = filter_logits(logits, sampler, method) + noise
        pair = scores[0, np.asarray([plain[frame, codebook], codes[frame, codebook]])]
        if not abs(pair[0] - pair[1]) <= TIE * abs(pair[0]):
            raise QTTSError(f"drafts changed codebook {codebook + 1} of a frame: scores {pair}.")
    return len(differing)


def measure(
    tts: QwenTTS, texts: Sequence[str], given: Mapping[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """All figures of one setting of the sampler.

    Raises:
        QTTSError: a draft window gave other codes than the plain loop, not by a tie.
    """
    frames = generated_frames(tts, texts, given, args.frames, args.batch_size)
    settings = tts.defaults.merge(given)
    sampler, method = batch_sampler([settings] * GROUP, "subtalker_")
    groups, count = groups_of(frames, GROUP)
    fixed = {"config": tts.config, "method": method}
    right = right_drafts(tts.params, groups, sampler, depths=args.depths, **fixed)
    right = np.asarray(right).reshape(-1, *right.shape[2:])[:count]  # [N, depths, Q-1]
    result: dict[str, Any] = {"frames": count, "acceptance": {}, "by_codebook": {}}
    for depth in range(1, args.depths + 1):
        drafted = right[:, depth - 1, depth:].mean(axis=0)  # [Q-1-depth]
        result["acceptance"][str(depth)] = round(float(drafted.mean()), 3)
        first = depth + 1  # the first residual codebook has no draft of this depth
        result["by_codebook"][str(depth)] = {
            str(first + i): round(float(share), 3) for i, share in enumerate(drafted)
        }
    passes, differing = {}, {}
    for window in args.windows:
        codes, each = codes_and_passes(tts.params, groups, sampler, window=window, **fixed)
        found = np.asarray(codes).reshape(-1, codes.shape[-1])[:count]  # [N, Q-1]
        differing[str(window)] = differing_frames(tts, frames, found, settings)
        passes[str(window)] = round(float(jnp.mean(each.reshape(-1)[:count])), 2)
    result |= {"passes": passes, "differing_frames": differing}
    one_sampler, one_method = batch_sampler([settings], "subtalker_")
    one = groups_of(jax.tree.map(lambda x: x[: args.timed_frames], frames), 1)[0]

    def predictor_time(window: int) -> float:
        run = partial(
            codes_and_passes, tts.params, one, one_sampler, config=tts.config, method=one_method
        )
        return seconds_of(lambda: run(window=window)) / len(one.codes)

    load = os.getloadavg()[0]
    runs = {window: partial(predictor_time, window) for window in args.windows}
    whole = {window: partial(utterance_time, tts, texts[0], given, window) for window in runs}
    return result | {
        "predictor_ms_a_frame": medians(runs, args.repeats),
        "whole_ms_a_frame": medians(whole, args.repeats),
        "load_before": round(load, 1),
    }


def main() -> None:
    """Measure every setting and write the figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--model", type=Path, help="converted checkpoint (default: nano)")
    parser.add_argument("--texts", type=int, default=24, help="sentences of everyday.jsonl")
    parser.add_argument("--frames", type=int, default=96, help="most frames of a sentence")
    parser.add_argument("--batch-size", type=int, default=8, help="sentences at once")
    parser.add_argument("--depths", type=int, default=4, help="codebooks that heads look ahead")
    parser.add_argument(
        "--windows", type=int, nargs="+", default=[1, 2, 3, 4], help="draft windows; 1 is plain"
    )
    parser.add_argument(
        "--settings", nargs="+", choices=SETTINGS, default=[*SETTINGS], help="of sampling"
    )
    parser.add_argument(
        "--timed-frames", type=int, default=64, help="frames of the predictor alone"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns of each median")
    parser.add_argument("--no-released", action="store_true", help="no pass of the released size")
    parser.add_argument("--out", type=Path, help="NAME of the results (default: printed only)")
    args = parser.parse_args()
    tts = QwenTTS.from_pretrained(args.model)
    predictor = tts.config.talker.code_predictor
    if predictor is None or predictor.pattern != "sequential":
        raise QTTSError("this checkpoint's code predictor has no drafts; use a sequential one.")
    texts = [json.loads(line)["text"] for line in TEXTS.read_text("utf-8").splitlines()]
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}",
        "model": "nano" if args.model is None else args.model.name,
        "residual_codebooks": predictor.codebooks - 1,
        "texts": args.texts,
        "settings": {},
    }
    for name in args.settings:
        result["settings"][name] = measure(tts, texts[: args.texts], SETTINGS[name], args)
        print(json.dumps({name: result["settings"][name]}), flush=True)
    sizes = {f"{result['model']}, float32": (predictor, False)}
    if not args.no_released:
        released = tts_12hz("0b6", "custom_voice").talker.code_predictor
        assert released is not None
        sizes |= {
            "0.6B, float32": (released, False),
            "0.6B, bfloat16 values in float32 products": (released, True),
        }
    result["pass"] = {
        name: pass_times(config, halved, args.windows, args.repeats)
        for name, (config, halved) in sizes.items()
    }
    print(json.dumps(result["pass"]), flush=True)
    if args.out is not None:
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(table(result))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

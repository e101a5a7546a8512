"""Accuracy of int8, fp8 and int4 weights: logits against float32, and codes that change.

    python -m experiments.bench.weight_quantization \
        --out experiments/results/weight_quantization.json

Reported are the relative error (norm of the difference over norm) of the logits of codebook 0 and
of the other codebooks, and how often the most probable code differs. Figures of other sizes in the
file are kept. `--sizes`:

- 0.6B, 1.7B, tiny: random weights on the CPU (about 12 GB and three minutes for 0.6B). The talker
  reads a prompt of 51 positions and the code predictor one frame of given codes at each.
- nano: the shipped voice, whose weights are trained, in a minute. It speaks some of
  `everyday.jsonl` in float32, and every kind of weights reads these prompts and frames; `codes` is
  how many codes differ where it speaks the texts itself, with the same seeds, up to the shorter
  end, and in the first second. Once one code differs, most that follow do.

Random weights are drawn from a normal distribution, which trained ones resemble row by row;
outliers of trained weights make grids of rows and groups coarser.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.bench.random_models import build
from experiments.bench.streams import request
from qtts_jax import QwenTTS
from qtts_jax.functional import abstract, bind, cast
from qtts_jax.generation.batch import stack_prompts
from qtts_jax.generation.frame_step import embed_prompt
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.layers.quantized_weights import STORED, Quantized, dense, quantize_params
from qtts_jax.models.tts_model import TTSModel

KINDS = ("bfloat16", *STORED)
TEXTS = Path(__file__).parents[1] / "nano" / "everyday.jsonl"
EVERY, MOST_FRAMES, FRAMES_A_SECOND = 19, 60, 12
PARTS = ("codebook 0", "other codebooks")


class Forced(NamedTuple):
    """Positions that every kind of weights reads, and the codes at the last `frames` of them."""

    prompt: Prompt
    codes: np.ndarray  # [frames, Q]


def logits(tts: QwenTTS, params: Any, given: list[Forced]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of codebook 0 [N, V] and of the other codebooks [N, Q-1, V] at N frames."""
    graph, _ = abstract(TTSModel, tts.config)
    width, positions = tts.config.talker.transformer.width, max(len(g.prompt) for g in given)
    batch = stack_prompts([g.prompt for g in given], len(given), positions, width)
    at = [np.arange(len(g.prompt) - len(g.codes), len(g.prompt)) for g in given]
    rows = np.concatenate([np.full(len(a), i) for i, a in enumerate(at)])
    columns, codes = np.concatenate(at), np.concatenate([g.codes for g in given])

    @jax.jit
    def run(params: Any) -> tuple[jax.Array, jax.Array]:
        model = bind(graph, params)
        x = embed_prompt(model, batch)
        state = model.talker.init_state(len(x), x.dtype, positions)
        y, _ = model.talker.step(x, state, batch.lengths)
        hidden = y[rows, columns]
        first = model.talker.embed_codec(codes[:, 0])
        rest = model.code_predictor.teacher_forced(hidden, first, codes[:, 1:])
        return model.talker.logits(hidden), rest

    with jax.default_matmul_precision("highest"):
        return tuple(np.asarray(x, np.float32) for x in run(params))  # type: ignore[return-value]


def random_frames(tts: QwenTTS) -> list[Forced]:
    """One prompt, and random codes at all of its positions."""
    prompt, codebooks = request(tts, 0, 8).prompt, tts.config.talker.codebooks
    codes = jax.random.randint(jax.random.key(1), (len(prompt), codebooks), 0, 2048)
    return [Forced(prompt, np.asarray(codes))]


def everyday_requests(tts: QwenTTS) -> list[Request]:
    """Requests for some everyday texts, the voices in turns."""
    lines = TEXTS.read_text("utf-8").splitlines()[::EVERY]
    names = tts.supported_speakers
    return [
        tts.prepare_custom_voice(
            json.loads(line)["spoken"],
            names[i % len(names)],
            "english",
            non_streaming_mode=True,
            seed=i,
            max_new_tokens=MOST_FRAMES + 1,
        )
        for i, line in enumerate(lines)
    ]


def with_frames(asked: Request, codes: np.ndarray, pad: int) -> Forced:
    """The prompt of a request and its frames but the last: the inputs that gave `codes`."""
    prompt, spoken = asked.prompt, codes[:-1]
    text = np.full(len(spoken), pad, prompt.text.dtype)
    text[: len(prompt.trailing)] = prompt.trailing[: len(spoken)]
    longer = replace(
        prompt,
        text=np.concatenate([prompt.text, text]),
        codec=np.concatenate([prompt.codec, spoken[:, 0]]),
        residual=np.concatenate([prompt.residual, spoken[:, 1:]]),
        speaker=np.concatenate([prompt.speaker, np.zeros(len(spoken), bool)]),
    )
    return Forced(longer, codes)


def compare(got: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Relative error, and the share of rows whose most probable code differs."""
    return {
        "relative_error": float(np.linalg.norm(got - true) / np.linalg.norm(true)),
        "best_code_differs": float(np.mean(got.argmax(-1) != true.argmax(-1))),
    }


def differing(got: list[np.ndarray], true: list[np.ndarray]) -> dict[str, float]:
    """The share of codes that differ: up to the shorter end of each text, and in a second."""

    def share(frames: int | None) -> float:
        pairs = [
            (a[: len(b)][:frames], b[: len(a)][:frames]) for a, b in zip(got, true, strict=True)
        ]
        return float(np.mean(np.concatenate([np.ravel(a != b) for a, b in pairs])))

    return {"all": share(None), "first_second": share(FRAMES_A_SECOND)}


def measure(size: str) -> dict[str, Any]:
    """The figures of a size, by kind of weights."""
    speaks = size == "nano"
    tts = QwenTTS.from_pretrained(dtype="float32") if speaks else build(size, jnp.float32)
    exact = jax.tree.map(dense, tts.params, is_leaf=lambda x: isinstance(x, Quantized))
    if speaks:
        asked = everyday_requests(tts)
        spoken = generate_codes(Session(tts.config, exact, asked))
        pad = tts.config.tts_pad_id
        given = [with_frames(a, codes, pad) for a, codes in zip(asked, spoken, strict=True)]
    else:
        asked, spoken, given = [], [], random_frames(tts)
    true, rough = logits(tts, exact, given), cast(exact, jnp.bfloat16)
    result: dict[str, Any] = {"frames": sum(len(g.codes) for g in given)}
    for name in KINDS:
        params = rough
        if name != "bfloat16":
            params = quantize_params(TTSModel, tts.config, rough, name)  # type: ignore[arg-type]
        got = logits(tts, params, given)
        result[name] = {part: compare(g, t) for part, g, t in zip(PARTS, got, true, strict=True)}
        if speaks:
            own = generate_codes(Session(tts.config, params, asked))
            result[name]["codes"] = differing(own, spoken)
        print(size, name, result[name], flush=True)
    return result


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--sizes", default="0.6B,nano", help="0.6B, 1.7B, tiny, nano, by comma")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    about = {"python": platform.python_version(), "jax": jax.__version__}
    for size in args.sizes.split(","):
        device = f"{os.cpu_count()} CPU cores, {platform.machine()}"
        figures = {"device": device, "versions": about} | measure(size)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            before = json.loads(args.out.read_text()) if args.out.exists() else {}
            args.out.write_text(json.dumps(before | {size: figures}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

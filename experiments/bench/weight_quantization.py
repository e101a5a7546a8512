"""Accuracy of int8 and fp8 weights: logits against float32.

    python -m experiments.bench.weight_quantization \
        --out experiments/results/weight_quantization.json

A released size with random weights on the CPU (about 12 GB and two minutes for 0.6B). The talker
reads a prompt of 51 positions and the code predictor one frame of given codes; reported
are the relative error (norm of the difference over norm) of the logits of codebook 0 and of the
other codebooks, and how often the most probable code differs.

Random weights are drawn from a normal distribution, which trained ones resemble row by row;
outliers of trained weights would make int8 coarser.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

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
from qtts_jax.layers.quantized_weights import quantize_params
from qtts_jax.models.tts_model import TTSModel


def logits(tts: QwenTTS, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits of codebook 0 at every position [T, V] and of the other codebooks [T, Q-1, V]."""
    graph, _ = abstract(TTSModel, tts.config)
    prompt = request(tts, 0, 8).prompt
    width, codebooks = tts.config.talker.transformer.width, tts.config.talker.codebooks
    batch = stack_prompts([prompt], 1, len(prompt), width)
    codes = jax.random.randint(jax.random.key(1), (len(prompt), codebooks), 0, 2048)

    @jax.jit
    def run(params: Any) -> tuple[jax.Array, jax.Array]:
        model = bind(graph, params)
        x = embed_prompt(model, batch)
        hidden, _ = model.talker.step(x, model.talker.init_state(1, x.dtype, x.shape[1]))
        first = model.talker.embed_codec(codes[:, 0])
        rest = model.code_predictor.teacher_forced(hidden[0], first, codes[:, 1:])
        return model.talker.logits(hidden[0]), rest

    with jax.default_matmul_precision("highest"):
        return tuple(np.asarray(x, np.float32) for x in run(params))  # type: ignore[return-value]


def compare(got: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Relative error, and the share of rows whose most probable code differs."""
    return {
        "relative_error": float(np.linalg.norm(got - true) / np.linalg.norm(true)),
        "best_code_differs": float(np.mean(got.argmax(-1) != true.argmax(-1))),
    }


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--size", default="0.6B", help="0.6B, 1.7B or tiny")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    tts = build(args.size, jnp.float32)
    true = logits(tts, tts.params)
    rough = cast(tts.params, jnp.bfloat16)
    result: dict[str, Any] = {
        "device": "cpu",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "size": args.size,
    }
    for name in ("bfloat16", "int8", "fp8"):
        params = rough
        if name != "bfloat16":
            params = quantize_params(TTSModel, tts.config, rough, name)
        got = logits(tts, params)
        result[name] = {
            part: compare(g, t)
            for part, g, t in zip(("codebook 0", "other codebooks"), got, true, strict=True)
        }
        print(name, result[name], flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

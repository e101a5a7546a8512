"""Library of the draft benchmark: times of passes of the code predictor and of whole utterances."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments import command
from qtts_jax.configs.tts import CodePredictorConfig
from qtts_jax.functional import Params, abstract, bind, cast, initialize
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.layers.quantized_weights import halver
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.voices import CustomVoice


@partial(jax.jit, static_argnames=("config", "positions", "passes"))
def repeated_pass(
    params: Params, state: Any, *, config: CodePredictorConfig, positions: int, passes: int
) -> jax.Array:
    """`passes` passes over so many positions with a head at each, one after the other."""
    with jax.default_matmul_precision("highest"):
        predictor = bind(abstract(predictor_alone, config)[0], params)

        def body(codes: jax.Array, _: None) -> tuple[jax.Array, None]:
            codebook = jnp.arange(positions)[None]
            y, _ = predictor.extend(codes, codebook, state)  # [1, n, D]
            best = jnp.argmax(predictor.logits_at(y, codebook), axis=-1)  # [1, n]
            return best.astype(jnp.int32), None

        out = jax.lax.scan(body, jnp.zeros((1, positions), jnp.int32), None, length=passes)
        return out[0]


def predictor_alone(config: CodePredictorConfig, *, rngs: Any) -> CodePredictor:
    """A predictor of a talker as wide as itself."""
    return CodePredictor(config, config.transformer.width, rngs=rngs)


def medians(runs: Mapping[int, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Milliseconds of each run, which take turns after one unmeasured turn."""
    for run in runs.values():
        run()
    turns = [{name: run() for name, run in runs.items()} for _ in range(repeats)]
    return {
        str(name): round(1e3 * statistics.median(turn[name] for turn in turns), 3) for name in runs
    }


def seconds_of(run: Callable[[], Any]) -> float:
    """Wall-clock time of a run, its results included."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def pass_times(
    config: CodePredictorConfig, halved: bool, sizes: Sequence[int], repeats: int
) -> dict[str, Any]:
    """Milliseconds of a pass by its positions, computed in float32, random weights.

    Args:
        halved: weights of bfloat16 values, like the released ones, which a CPU keeps in two bytes.
    """
    passes = 10
    params = initialize(predictor_alone, config, 0)
    if halved:
        params = cast(cast(params, jnp.bfloat16), jnp.float32)
        store = halver(predictor_alone, config)
        params = jax.tree_util.tree_map_with_path(
            lambda path, x: store(tuple(str(key.key) for key in path), x), params
        )
    predictor = bind(abstract(predictor_alone, config)[0], params)
    width, layers = config.transformer.width, config.transformer.layers
    state = predictor.transformer.init_state(1, jnp.dtype(jnp.float32), config.codebooks + 4)

    def run(positions: int) -> float:
        once = partial(
            repeated_pass, params, state, config=config, positions=positions, passes=passes
        )
        return seconds_of(once) / passes

    figures = medians({size: partial(run, size) for size in sizes}, repeats)
    return {"width": width, "layers": layers, "ms_by_positions": figures}


def utterance_time(tts: QwenTTS, text: str, given: Mapping[str, Any], window: int) -> float:
    """Seconds a frame of a whole utterance, codes only."""
    sampling = {**given, "draft_window": window}
    request = tts.prepare(
        CustomVoice(text, tts.default_speaker, "english", seed=0, sampling=sampling)
    )
    begin = time.perf_counter()
    (codes,) = generate_codes(Session(tts.config, tts.params, [request]))
    return (time.perf_counter() - begin) / len(codes)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.draft_acceptance"))

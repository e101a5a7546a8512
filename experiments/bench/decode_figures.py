"""Where the time of a frame goes, the bytes that it reads, and the codes that rounding changes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.bench.streams import BATCH_CHUNK, CHUNK, request, run_stream, start, timed
from qtts_jax import QwenTTS
from qtts_jax.functional import abstract, bind
from qtts_jax.generation.frame_step import SamplingPlan
from qtts_jax.generation.sampling import gumbel_noise, sample
from qtts_jax.generation.session import FRAMES_PER_CALL, Session
from qtts_jax.layers.preprojected_table import Projected
from qtts_jax.layers.streamed_weights import plain
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.programs_speech import frames_and_audio_program


def late_over_early(tts: QwenTTS, last: int) -> dict[str, float]:
    """Milliseconds a frame around frame 100 and around frame `last` of one request."""
    stream = start(tts, range(1), last + 200)

    def until(frame: int) -> None:
        while stream.session.frames_asked < frame:
            run_stream(stream, 4, CHUNK)

    until(64)
    early = timed(lambda: run_stream(stream, 16, CHUNK)) * 1e3 / (16 * CHUNK)
    until(last - 64)
    late = timed(lambda: run_stream(stream, 16, CHUNK)) * 1e3 / (16 * CHUNK)
    return {"early_ms": early, "late_ms": late, "late_over_early": late / early}


def codec_step_ms(tts: QwenTTS, rows: int, frames: int) -> float:
    """Milliseconds a frame of the audio decoder alone, in chunks of `frames`."""
    programs, params = tts.speech_tokenizer.programs, tts.speech_tokenizer.params["decoder"]
    state = programs.decoder_state(params, rows)
    codes = jnp.zeros((rows, frames, tts.config.talker.codebooks), jnp.int32)

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            wave, state = programs.decode(params, codes, state)
        wave.block_until_ready()

    run(2)
    return statistics.median(timed(lambda: run(20)) for _ in range(3)) * 1e3 / (20 * frames)


def per_step_ms(step: Callable[..., Any], params: Any, carry: Any) -> float:
    """Milliseconds of one of FRAMES_PER_CALL steps `carry -> carry` in one program."""

    @jax.jit
    def run(params: Any, carry: Any) -> Any:
        def body(c: Any, _: None) -> tuple[Any, None]:
            return step(params, c), None

        return jax.lax.scan(body, carry, None, length=FRAMES_PER_CALL)[0]

    jax.block_until_ready(run(params, carry))
    return timed(lambda: jax.block_until_ready(run(params, carry))) * 1e3 / FRAMES_PER_CALL


def parts_ms(tts: QwenTTS, total: float, codec: float) -> dict[str, float]:
    """Milliseconds of a frame at batch 1 by part; the code predictor is the remainder."""
    graph, _ = abstract(TTSModel, tts.config)
    session = Session(tts.config, tts.params, [request(tts, 0, 4 * FRAMES_PER_CALL)])
    session.advance().block_until_ready()
    codes = timed(lambda: session.advance().block_until_ready()) * 1e3 / FRAMES_PER_CALL
    state, conditions, methods = session.state, session.conditions, session.methods

    def talker(params: Any, carry: Any) -> Any:
        x, memory = carry
        model = bind(graph, params).talker
        y, memory = model.step(x, memory)
        return y + model.logits(y[:, 0])[0, 0].astype(y.dtype), memory

    def sampling(_: Any, logits: jax.Array) -> jax.Array:
        return logits + sample_codebooks(
            tts, methods, conditions.predictor, conditions.keys, logits
        )

    vocab = tts.config.talker.code_predictor.vocab_size
    alone = {
        "talker": per_step_ms(talker, tts.params, (state.hidden[:, None], state.talker)),
        "sampling": per_step_ms(sampling, (), jnp.zeros((1, vocab), jnp.float32)),
        "codec": codec,
    }
    return {
        **alone,
        "code predictor": codes - alone["talker"] - alone["sampling"],
        "transfer and host": total - codes - codec,
    }


def sample_codebooks(
    tts: QwenTTS, methods: SamplingPlan, sampler: Any, keys: jax.Array, logits: jax.Array
) -> jax.Array:
    """Samples one code per codebook, each depending on the one before, as in a frame."""
    for codebook in range(tts.config.talker.codebooks):
        noise = gumbel_noise(
            jax.vmap(jax.random.fold_in, (0, None))(keys, codebook), logits.shape[1]
        )
        drawn = sample(logits, noise, sampler, methods.predictor)
        logits = logits + drawn[:, None] * 1e-6
    return logits


def differing_codes(tts: QwenTTS, frames: int) -> dict[str, float]:
    """The share of codes that differ between two ways to compute the same requests.

    Sampling amplifies rounding: after the first different code everything may differ, so the share
    depends on how early that happens. Random weights give nearly flat logits, where rounding
    matters far more often than in a trained model.
    """
    chunks = frames // CHUNK
    alone = [
        np.concatenate(run_stream(start(tts, range(i, i + 1), frames), chunks, CHUNK), axis=1)[0]
        for i in range(8)
    ]
    batch = run_stream(start(tts, range(8), frames), frames // BATCH_CHUNK, BATCH_CHUNK)
    together = np.concatenate(batch, axis=1)[:8]
    session = Session(tts.config, tts.params, [request(tts, 0, frames)])
    whole = np.asarray(session.advance())[0, :frames]
    return {
        "streamed and whole, batch 1": float(np.mean(alone[0][: len(whole)] != whole)),
        "batch 1 and batch 8": float(np.mean(np.stack(alone) != together)),
        "batch 1 and batch 8, first frame": float(np.mean(np.stack(alone)[:, 0] != together[:, 0])),
    }


def bytes_per_frame(tts: QwenTTS) -> int:
    """Weight bytes read for one frame at batch 1, each once a pass (tables: one row)."""

    def size(tree: Any) -> int:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    talker, predictor = tts.params["talker"], tts.params["code_predictor"]
    codebooks = tts.config.talker.codebooks
    head = plain(talker["codec_head"]["kernel"])
    once = size(talker["transformer"]) + size(head) + size(plain(predictor["heads"]))
    projection = size(predictor.get("input_projection", {}))
    # With a preprojected table only the two inputs from the talker are projected.
    passes = 1 if isinstance(predictor["embeddings"], Projected) else codebooks
    return once + codebooks * size(predictor["transformer"]) + passes * projection


def bandwidth() -> float:
    """Device memory bandwidth, bytes read and written per second, of a large copy."""
    n = (1 << 31 if jax.default_backend() != "cpu" else 1 << 27) // 4
    x = jax.random.normal(jax.random.key(0), (n,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(x).block_until_ready()

    def run() -> None:
        for _ in range(10):
            y = copy(x)
        y.block_until_ready()

    return 10 * 2 * 4 * n / timed(run)


def memory_gb(*names: str) -> list[float | None]:
    """Statistics of the device's allocator in GB; None where there are none."""
    stats = jax.devices()[0].memory_stats() or {}
    return [stats[name] / 1e9 if name in stats else None for name in names]


def peak_gb() -> float | None:
    return memory_gb("peak_bytes_in_use")[0]


def temporaries_gb(tts: QwenTTS) -> float:
    """Temporary memory in GB of the compiled chunk at batch 1."""
    codec, session = tts.speech_tokenizer, start(tts, range(1), 64).session
    decoder = codec.part("decoder")
    chunk = frames_and_audio_program(tts.config, codec.config).lower(
        tts.params,
        decoder,
        session.conditions,
        session.state,
        codec.programs.decoder_state(decoder, 1),
        methods=session.methods,
        frames=CHUNK,
    )
    return chunk.compile().memory_analysis().temp_size_in_bytes / 1e9


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.decode"))

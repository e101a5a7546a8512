"""Prefill in pieces: the same state as in one piece, and bounded memory at real sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tts_12hz
from qtts_jax.functional import abstract, bind
from qtts_jax.generation import frame_step
from qtts_jax.generation.batch import stack_prompts
from qtts_jax.generation.state import PromptBatch
from qtts_jax.models.tts_model import TTSModel


def test_pieces_give_the_state_of_one_piece(tts, monkeypatch):
    model = tts("custom_voice", exact_reference=False)
    texts = ["Short.", "A longer text of some more words, for several pieces of positions."]
    requests = [model.prepare_custom_voice(t, "ryan", "english", seed=0) for t in texts]
    prompts = [r.prompt for r in requests]
    width = model.config.talker.transformer.width
    batch = stack_prompts(prompts, 2, 128, width)
    graphdef, _ = abstract(TTSModel, model.config)

    def run():
        # A new function each time: the limits are read when a program is traced.
        return jax.jit(lambda p: frame_step.prefill(bind(graphdef, p), batch, 256))(model.params)

    whole = run()
    monkeypatch.setattr(frame_step, "SCORES", 1)
    pieces = run()
    np.testing.assert_array_equal(pieces.talker.position, whole.talker.position)
    np.testing.assert_allclose(pieces.hidden, whole.hidden, rtol=0, atol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5),
        pieces.talker.layers,
        whole.talker.layers,
    )


def test_prompts_of_usual_lengths_are_one_piece():
    assert frame_step._piece_length(1, 512, 1024, 16) == 512
    assert frame_step._piece_length(8, 128, 256, 16) == 128
    assert frame_step._piece_length(1, 8192, 16384, 16) == 128


@pytest.mark.slow
def test_a_prompt_of_8000_positions_takes_a_gigabyte_beside_its_cache():
    config = tts_12hz("0b6", "custom_voice")
    graphdef, shapes = abstract(TTSModel, config)
    c, t, capacity = config.talker, 8192, 16384

    def of(shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(shape, dtype)

    batch = PromptBatch(
        text=of((1, t)),
        codec=of((1, t)),
        residual=of((1, t, c.codebooks - 1)),
        speaker=of((1, t), jnp.bool_),
        embedding=of((1, c.transformer.width), jnp.float32),
        lengths=of((1,)),
    )
    params = jax.tree.map(lambda x: of(x.shape, jnp.float32), shapes)
    run = jax.jit(lambda p, b: frame_step.prefill(bind(graphdef, p), b, capacity))
    memory = run.lower(params, batch).compile().memory_analysis()
    cache = 2 * c.transformer.layers * capacity * c.transformer.kv_heads * c.transformer.head_dim
    assert memory.output_size_in_bytes < 4 * cache + 2**20
    # The caches are updated in place: temporary memory holds at most a copy of one layer.
    assert memory.temp_size_in_bytes < 2**30

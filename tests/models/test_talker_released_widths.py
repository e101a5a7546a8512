"""Two talker layers and the whole code predictor at the released 0.6B widths."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import abstract, bind
from qtts_jax.models.tts_model import TTSModel
from tests.support.helpers import GOLDEN, assert_close, released_params


def test_released_widths(golden, golden_index, detweights):
    seed, file = golden_index["seed"], golden("real_talker")
    data = json.loads((GOLDEN / "real_configs" / "talker_slice_config.json").read_text())
    config = TTSConfig.from_hf(data)
    params = released_params(data, TTSModel, config, detweights, seed + 21)
    graphdef, _ = abstract(TTSModel, config)
    width = config.talker.transformer.width
    prompt = detweights.symmetric(seed, "real/emb", (1, 12, width), 1.5)
    first = detweights.integers(seed, "real/tok", (1, 1), 2048)[0]

    @jax.jit
    def run(params):
        model = bind(graphdef, params)
        text = model.talker.embed_text(jnp.arange(5))
        hidden, state = model.talker.step(prompt, model.talker.init_state(1, jnp.float32, 16))
        row = model.talker.embed_codec(first)
        codes, total = model.code_predictor.generate(
            hidden[:, -1], row, lambda logits, _: jnp.argmax(logits, -1)
        )
        books = model.code_predictor.teacher_forced(hidden[:, -1], row, codes)
        y, _ = model.talker.step((row + total)[:, None], state)
        return (
            text,
            hidden,
            model.talker.logits(hidden[0, -1]),
            codes,
            books,
            model.talker.logits(y),
        )

    with jax.default_matmul_precision("highest"):
        text, hidden, logits, codes, books, step_logits = run(params)
    assert_close(text[:, ::4], file["text_proj"])
    assert_close(hidden[0, :, ::8], file["prefill_hidden"])
    assert_close(logits, file["prefill_logits"])
    np.testing.assert_array_equal(codes[0], file["step_codes"][0, 1:])
    assert_close(books[0, 0], file["cp_scores_first"])
    assert_close(books[0, -1], file["cp_scores_last"])
    assert_close(step_logits[0, 0], file["step_logits"])

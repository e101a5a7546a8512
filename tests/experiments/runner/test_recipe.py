"""Variations are changes of a recipe by path; those of all questions fit the scales."""

from types import SimpleNamespace

import pytest

from experiments.runner import ablation
from experiments.runner.recipe import changed, codebooks, flow_25hz, strides_25hz, twice
from experiments.runner.scale_nano import NANO
from experiments.runner.scale_small import SMALL
from experiments.runner.scale_tiny import TINY
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.training.tokenizer.params import check_trainable
from qtts_jax.training.tokenizer_25hz.config import check_trainable_25hz

RECORDS = [
    SimpleNamespace(text=f"The old sailor sold {n} boats.", language="english", speaker=f"voice{n}")
    for n in (1, 2)
]


def test_the_talker_follows_from_the_changed_tokenizer():
    changes = codebooks(8) | strides_25hz() | {"tokenizer.encoder.quantizer.entries": 32}
    recipe = TINY.recipe(changes | {"tokenizer.decoder.quantizer.entries": 32}, RECORDS)
    check_trainable(recipe.tokenizer)
    assert (recipe.frame_rate, recipe.bit_rate) == (25, 25 * 8 * 5)
    assert (recipe.model.talker.codebooks, recipe.model.talker.codebook_size) == (8, 32)
    assert recipe.talker_batches.frame_rate == 25


@pytest.mark.parametrize("name", ablation.names())
@pytest.mark.parametrize("scale", [TINY, SMALL, NANO], ids=lambda scale: scale.name)
def test_every_variation_is_a_recipe_of_its_own(name, scale):
    recipes = [scale.recipe(c, RECORDS) for c in ablation.load(name).variations.values()]
    for recipe in recipes:
        flow = isinstance(recipe.tokenizer, Tokenizer25HzConfig)
        (check_trainable_25hz if flow else check_trainable)(recipe.tokenizer)
    assert len(set(map(repr, recipes))) == len(recipes)


def test_the_arms_of_rate_have_one_bit_rate_and_as_many_frames_a_step():
    low, high, flow = (SMALL.recipe(c, RECORDS) for c in ablation.load("rate").variations.values())
    assert low.bit_rate == high.bit_rate and 2 * low.frame_rate == high.frame_rate
    assert flow.frame_rate == high.frame_rate and flow.tokenizer.codebooks == 1
    assert flow.talker_batches == high.talker_batches
    assert low.sentences_per_clip * low.talker_batches.batch_positions == (
        high.sentences_per_clip * high.talker_batches.batch_positions
    )


def test_questions_of_the_talker_at_scale_small_share_the_tokenizer_of_rate():
    of_rate = SMALL.recipe(ablation.load("rate").variations["12.5 Hz x 16"], RECORDS)
    for name in ("mtp", "text_layout"):
        recipes = [SMALL.recipe(c, RECORDS) for c in ablation.load(name).variations.values()]
        assert {repr((r.tokenizer, r.stages)) for r in recipes} == {
            repr((of_rate.tokenizer, of_rate.stages))
        }


@pytest.mark.parametrize("scale", [TINY, SMALL, NANO], ids=lambda scale: scale.name)
def test_the_25_hz_family_has_a_talker_with_one_codebook(scale):
    recipe = scale.recipe(flow_25hz() | {"tokenizer.encoder.entries": 128}, RECORDS)
    talker = recipe.model.talker
    assert [stage.name for stage in recipe.stages] == ["encoder", "mel", "flow", "vocoder"]
    assert (recipe.frame_rate, recipe.bit_rate) == (25, 25 * 7)
    assert (talker.codebooks, talker.codebook_size, talker.code_predictor) == (1, 128, None)
    assert recipe.model.tokenizer_type == TOKENIZER_25HZ
    assert set(recipe.talker_trainer.optimizers) == {"talker"}


def test_changes_reach_every_item_or_one():
    stages = {"stages.*.rows": 3, "stages.0.trainer.steps": 7, "talker_options.dtype": "bfloat16"}
    recipe = NANO.recipe(stages | {"talker_batches.batch_positions": twice}, RECORDS)
    assert [stage.rows for stage in recipe.stages] == [3, 3]
    assert [stage.trainer.steps == 7 for stage in recipe.stages] == [True, False]
    assert recipe.talker_options["dtype"] == "bfloat16"
    assert recipe.talker_batches.batch_positions == 2 * NANO.talker_batches.batch_positions


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("model.talkr.codebooks", r"Recipe\.model\.talkr, which does not exist; .* talker"),
        ("stages.2.rows", r"Recipe\.stages\.2, .* \*, 0"),
        ("model.speaker_encoder.channels", r"speaker_encoder\.channels, .*because it is None"),
    ],
)
def test_a_path_that_names_no_field_is_named(path, fault):
    with pytest.raises(ConfigError, match=fault):
        TINY.recipe({path: 1}, RECORDS)


def test_an_impossible_value_is_refused_with_its_reason():
    with pytest.raises(ConfigError, match="probability"):
        changed(TINY.recipe({}, RECORDS), {"talker_batches.mix.stream_text": 2.0})

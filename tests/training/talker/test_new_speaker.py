"""A preset speaker made from x-vectors, trained and exported to a checkpoint that speaks."""

import dataclasses

import numpy as np
import pytest

from qtts_jax import QwenTTS
from qtts_jax.configs.presets import tts_12hz
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.errors import CheckpointError, ConfigError
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.training.export import export_checkpoint
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.talker.new_speaker import add_speaker, free_codec_id
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem

GREEDY = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": 7}


@pytest.fixture(scope="module")
def vectors(tts):
    width = tts("base").config.talker.transformer.width
    return np.random.default_rng(0).standard_normal((3, width)).astype(np.float32)


@pytest.fixture(scope="module")
def made(tts, vectors):
    """Configuration and parameters with the new speaker."""
    base = tts("base")
    return add_speaker(base.config, base.params, "Ada", vectors)


@pytest.fixture(scope="module")
def exported(made, converted, tmp_path_factory):
    destination = tmp_path_factory.mktemp("exported") / "ada"
    export_checkpoint(converted("base"), destination, *made)
    return QwenTTS.from_pretrained(destination, dtype="float32", exact_reference=True)


def test_the_new_speaker_begins_as_the_clone_of_the_mean_x_vector(exported, tts, vectors):
    assert exported.mode == "custom_voice" and exported.supported_speakers == ["ada"]
    item = VoiceClonePromptItem(None, vectors.mean(axis=0), True, False)
    clone = tts("base").prepare_voice_clone(
        "Hello there.", item, "english", False, seed=0, **GREEDY
    )
    preset = exported.prepare_custom_voice(
        "Hello there.", "Ada", "english", None, False, seed=0, **GREEDY
    )
    wanted = tts("base").synthesize([clone])[0]
    found = exported.synthesize([preset])[0]
    assert len(wanted.codes) > 2
    np.testing.assert_array_equal(found.codes, wanted.codes)
    waves, rate = exported.generate_custom_voice("Hello there.", "ada", seed=1, max_new_tokens=4)
    assert rate == 24000 and len(waves[0]) > 0


def test_the_model_that_it_came_from_is_unchanged(made, tts):
    config, params = made
    base = tts("base")
    assert "speaker_encoder" in base.params and "speaker_encoder" not in params
    assert base.config.talker.speakers == () and config.speaker_encoder is None
    row = dict(config.talker.speakers)["ada"]
    tables = [p["talker"]["codec_embedding"]["table"] for p in (base.params, params)]
    different = np.flatnonzero(np.any(np.asarray(tables[0] != tables[1]), axis=1))
    assert different.tolist() == [row]


def test_a_model_of_several_types_does_all_but_clone(tts, vectors):
    base = tts("base")
    several = dataclasses.replace(
        base.config, model_type="voice_design", further_types=("base", "custom_voice")
    )
    config, _ = add_speaker(several, base.params, "ada", vectors)
    assert config.types == ("custom_voice", "voice_design")


@pytest.mark.slow
def test_training_to_a_new_speaker_from_data_to_speech(made, converted, exported, tmp_path):
    config, params = made
    ids = exported.text_tokenizer.assistant_ids("Hello there.")
    codes = np.arange(6 * config.talker.codebooks).reshape(6, -1) % 64
    examples = [
        layout_example(
            config,
            build_prompt(config, *ids, voice=SpeakerCondition(speaker="ada"), language=language,
                         stream_text=stream),
            codes,
        )
        for language in ("english", "auto")
        for stream in (False, True)
    ]  # fmt: skip
    batch = collate(config, examples, Bucket(48, 6))

    class Same:
        def __next__(self):
            return batch

        def state(self):
            return {}

        def restore(self, state):
            pass

    rule = OptimizerConfig(2e-3, warmup_steps=10, weight_decay=0.0)
    trainer = Trainer(
        TalkerTask(TalkerTaskConfig(config, dtype="float32"), params),
        Same(),
        TrainerConfig(
            150, {"talker": rule, "code_predictor": rule}, tensorboard=False, progress=False
        ),
        tmp_path / "run",
    )
    assert trainer.run().finished
    state = trainer.newest()
    trained = trainer.task.model_params(state.params, state.extras)
    export_checkpoint(converted("base"), tmp_path / "model", config, trained)
    model = QwenTTS.from_pretrained(tmp_path / "model", dtype="float32")
    options = GREEDY | {"max_new_tokens": 20, "repetition_penalty": 1.0}
    for stream in (False, True):
        request = model.prepare_custom_voice(
            "Hello there.", "ada", "english", None, not stream, seed=0, **options
        )
        np.testing.assert_array_equal(model.synthesize([request])[0].codes, codes)


def test_free_ids_are_reserved_and_unused():
    talker = tts_12hz("0b6", "custom_voice").talker
    assert free_codec_id(talker) == 3071
    taken = tuple((str(i), i) for i in range(2048, 3072))
    with pytest.raises(ConfigError, match="every reserved codec id"):
        free_codec_id(dataclasses.replace(talker, speakers=taken))
    few = tuple(t for t in taken if t[1] not in (2148, 2200))
    assert free_codec_id(dataclasses.replace(talker, speakers=few)) == 2200


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("", (64,), "empty or taken"), ("ada", (3, 5), "x-vectors of width"), ("x", (0, 0), "width")],
)
def test_bad_speakers_are_one_clear_error(tts, name, shape, message):
    base = tts("base")
    with pytest.raises(ConfigError, match=message):
        add_speaker(base.config, base.params, name, np.zeros(shape))


def test_an_export_replaces_nothing_unasked(made, converted, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="already exists"):
        export_checkpoint(converted("base"), tmp_path / "there", *made)
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        export_checkpoint(tmp_path / "nowhere", tmp_path / "new", *made)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]

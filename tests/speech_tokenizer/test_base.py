"""The families of speech tokenizers behind one interface."""

import re
from pathlib import Path

import pytest

import qtts_jax
from qtts_jax import SpeechTokenizer
from qtts_jax.errors import ConfigError
from qtts_jax.speech_tokenizer.codec_12hz import SpeechTokenizer12Hz
from qtts_jax.speech_tokenizer.codec_25hz import SpeechTokenizer25Hz
from qtts_jax.speech_tokenizer.stream import SpeechStream

PACKAGE = Path(qtts_jax.__file__).parent


def test_the_checkpoint_chooses_the_family(converted):
    for name, family in (("base", SpeechTokenizer12Hz), ("tokenizer_25hz", SpeechTokenizer25Hz)):
        loaded = SpeechTokenizer.from_pretrained(converted(name))
        made = SpeechTokenizer.from_params(loaded.config, loaded.params)
        assert type(loaded) is type(made) is family
        assert isinstance(loaded, SpeechTokenizer)


def test_an_unknown_model_type_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(ConfigError, match=r"'other'; a .* has qwen3_tts_tokenizer_12hz or qwen3"):
        SpeechTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("base", [SpeechTokenizer, SpeechStream])
def test_an_unfinished_family_cannot_be_made(base):
    class Unfinished(base):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Unfinished()


def test_nothing_outside_the_room_names_a_family():
    family = re.compile(r"SpeechTokenizer(12|25)Hz|codec_(12|25)hz|stream_(12|25)hz")
    files = [p for p in PACKAGE.rglob("*.py") if p.parent.name != "speech_tokenizer"]
    assert [p.name for p in files if family.search(p.read_text())] == []

"""Library of the ablations: one training recipe, and changes of its fields by dotted path."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import command
from experiments.train.recipe_25hz import Recipe25Hz
from experiments.train.recipe_25hz import Stage as Name25Hz
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data import TalkerBatchConfig
from qtts_jax.errors import ConfigError
from qtts_jax.training.tokenizer.config import TokenizerTraining
from qtts_jax.training.trainer_config import TrainerConfig

Changes = Mapping[str, Any]
"""New values by the path of a field of `Recipe`: {"model.talker.code_predictor.vocab_size": 64}.

`*` stands for every item of a tuple, a number for one of them. A function as the new value gets the
old one, for changes that depend on the scale. `FAMILY` comes first: it chooses between the base
recipes of the scale.
"""
FAMILY = "family"


@dataclass(frozen=True)
class Stage:
    """One stage of tokenizer training.

    Attributes:
        training: losses and the parts that are trained.
        trainer: steps and optimizers.
        rows: crops of a batch.
    """

    training: TokenizerTraining
    trainer: TrainerConfig
    rows: int


@dataclass(frozen=True)
class Stage25Hz:
    """One stage of the training of a 25 Hz tokenizer.

    Attributes:
        name: its part of the tokenizer.
        settings: losses and crops; the tokenizer's sizes are those of the recipe.
        trainer: steps and optimizers.
        from_teacher: its encoder begins as the Whisper encoder that is the teacher.
    """

    name: Name25Hz
    settings: Recipe25Hz
    trainer: TrainerConfig
    from_teacher: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run but its seed and its recordings.

    Attributes:
        tokenizer: sizes of the speech tokenizer.
        stages: of its training, each from the weights of the one before.
        crop_seconds: length of a crop.
        model: sizes and ids of the talker.
        talker_options: arguments of `TalkerTaskConfig` besides the model.
        talker_batches: layouts, lengths and rows.
        talker_trainer: steps and optimizers.
        sentences_per_clip: consecutive clips of a speaker that are joined into one for the talker,
            so that codes of a low frame rate come in clips of as many frames as those of a high one
            (clips of one duration favour the high rate, arXiv:2606.16969). The talker speaks as
            many at once when it is scored.
        sentences_scored: consecutive clips of a speaker whose scores are one of the talker's, a
            multiple of `sentences_per_clip`: the same for all variations, so that they are compared
            on the same texts. Clips of a speaker beyond the last so many do not count.
    """

    tokenizer: Tokenizer12HzConfig | Tokenizer25HzConfig
    stages: tuple[Stage, ...] | tuple[Stage25Hz, ...]
    crop_seconds: float
    model: TTSConfig
    talker_options: Mapping[str, Any]
    talker_batches: TalkerBatchConfig
    talker_trainer: TrainerConfig
    sentences_per_clip: int = 1
    sentences_scored: int = 1

    def __post_init__(self) -> None:
        if self.sentences_per_clip < 1 or self.sentences_scored % self.sentences_per_clip:
            raise ConfigError(
                f"{self.sentences_scored} sentences of one score are no whole number of clips of "
                f"{self.sentences_per_clip}; set sentences_scored to a multiple."
            )

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.tokenizer.output_sample_rate / self.tokenizer.samples_per_frame

    @property
    def bit_rate(self) -> float:
        """Bits a second of the codes, if every entry is equally likely."""
        t = self.tokenizer
        flow = isinstance(t, Tokenizer25HzConfig)
        entries = t.encoder.entries if flow else t.decoder.quantizer.entries
        return t.codebooks * (entries - 1).bit_length() * self.frame_rate


def codebooks(count: int) -> Changes:
    """Changes to `count` codebooks a frame."""
    return {
        "tokenizer.codebooks": count,
        "tokenizer.encoder.quantizer.books": count,
        "tokenizer.decoder.quantizer.books": count,
    }


def strides_25hz() -> Changes:
    """Changes of the 12.5 Hz strides to those of 25 frames a second (960 samples at 24 kHz).

    Crops given in frames, and batches given in positions, have as much speech as before.
    """
    return {
        "tokenizer.encoder.ratios": (4, 5, 6, 4),
        "tokenizer.decoder.upsampling_ratios": (2,),
        "stages.*.training.decoded_frames": twice,
        "talker_batches.batch_positions": twice,
    }


def flow_25hz() -> Changes:
    """Changes to the 25 Hz tokenizer of the scale: one codebook, flow matching and a vocoder.

    Batches given in positions have as much speech as before.
    """
    return {FAMILY: "25 Hz", "talker_batches.batch_positions": twice}


def twice(value: int | None) -> int | None:
    """Two times the value of the scale; None stays None."""
    return None if value is None else 2 * value


def changed(value: Any, changes: Changes, where: str = "Recipe") -> Any:
    """A frozen dataclass (or mapping, or tuple) with new values of some fields.

    Args:
        changes: paths below `value` and their new values.
        where: name of `value` in an error.

    Raises:
        ConfigError: a path names no field, or the new values are impossible.
    """
    groups: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        name, _, rest = path.partition(".")
        groups.setdefault(name, {})[rest] = new
    if isinstance(value, tuple):
        items = list(value)
        for name, below in groups.items():
            places = range(len(items)) if name == "*" else [int(name)] if name.isdigit() else []
            if not all(i < len(items) for i in places) or not places:
                raise _no_field(where, name, ["*", *map(str, range(len(items)))])
            for i in places:
                items[i] = _below(items[i], below, f"{where}.{i}")
        return tuple(items)
    if isinstance(value, Mapping):
        # A mapping may get a key that it has not: arguments that have defaults.
        return dict(value) | {
            name: _below(value.get(name), below, f"{where}.{name}")
            for name, below in groups.items()
        }
    fields = [field.name for field in dataclasses.fields(value)] if value is not None else []
    for name in groups:
        if name not in fields:
            raise _no_field(where, name, fields)
    return dataclasses.replace(
        value,
        **{
            name: _below(getattr(value, name), below, f"{where}.{name}")
            for name, below in groups.items()
        },
    )


def _below(value: Any, changes: dict[str, Any], where: str) -> Any:
    if "" in changes:
        new = changes[""]
        value = new(value) if callable(new) else new
    deeper = {path: new for path, new in changes.items() if path}
    return changed(value, deeper, where) if deeper else value


def _no_field(where: str, name: str, fields: list[str]) -> ConfigError:
    return ConfigError(
        f"a variation changes {where}.{name}, which does not exist; the fields of {where} are "
        f"{', '.join(fields) or 'none, because it is None'}."
    )


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))

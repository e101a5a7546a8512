"""Library of the ablations: the recipes that variations change, from seconds on a CPU to the GPU.

| scale | recordings | a run |
|---|---|---|
| `tiny` | 64 clips that the shipped voice speaks (`speech.py`) | a minute on two cores |
| `nano` | a prepared dataset (`--data`), semantic teacher (`--teacher`) | 75 minutes on an H100 |

All talkers have preset speakers and no speaker encoder, so that a variation is judged without the
noise of cloning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from experiments import command
from experiments.nano.talker_recipe import (
    NANO_ALIGNMENT_WEIGHT,
    NANO_BATCH_POSITIONS,
    NANO_CODE_NOISE,
    NANO_MERGES,
    NANO_MIX,
    NANO_POSITIONS,
    NANO_PREDICTOR_FRAMES,
    NANO_PREDICTOR_WEIGHT,
    NANO_TALKER_TRAINER,
    NANO_TOKEN_LETTERS,
    nano_talker,
)
from experiments.nano.text_vocabulary import Merge, TextIds, learn_merges, text_ids
from experiments.nano.tokenizer_recipe import (
    NANO_TOKENIZER_FRAMES,
    NANO_TOKENIZER_ROWS,
    NANO_TOKENIZER_TRAINER,
    NANO_TOKENIZER_TRAINING,
    nano_tokenizer,
)
from experiments.runner.recipe import (
    FAMILY,
    Changes,
    Recipe,
    Stage,
    Stage25Hz,
    changed,
    codebooks,
)
from experiments.train.recipe_25hz import PRESETS, STAGES, TRAINERS
from qtts_jax.configs.presets import tiny_tokenizer, tokenizer_12hz
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data import Record, TalkerBatchConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import CodebookTraining, SpectrumConfig, TokenizerTraining
from qtts_jax.training.trainer import TrainerConfig

# Preset speakers and no descriptions: what a talker of an ablation is trained on and speaks as.
_PRESETS = replace(NANO_MIX, preset=1.0, no_speaker=0.0, in_context=0.0, instruct=0.0)


@dataclass(frozen=True)
class Scale:
    """Sizes, schedules and recordings of all runs of a scale.

    Attributes:
        name: as in `--scale`.
        tokenizer, stages, crop_seconds, talker_options, talker_batches, talker_trainer: see
            `Recipe`.
        tokenizer_25hz, stages_25hz: the same for the 25 Hz family.
        talker: the talker for a tokenizer, text ids, languages and speakers.
        merges: of the text vocabulary.
        judges: kinds of `evaluation.panel` that score by default.
        test_clips: clips that are scored.
        seconds: longest utterance that is generated.
        own_speech: the shipped voice makes the recordings; otherwise `--data` names them.
    """

    name: str
    tokenizer: Tokenizer12HzConfig
    stages: tuple[Stage, ...]
    tokenizer_25hz: Tokenizer25HzConfig
    stages_25hz: tuple[Stage25Hz, ...]
    crop_seconds: float
    talker: Callable[[Tokenizer12HzConfig, TextIds, Sequence[str], Sequence[str]], TTSConfig]
    talker_options: dict[str, object]
    talker_batches: TalkerBatchConfig
    talker_trainer: TrainerConfig
    merges: int
    judges: tuple[str, ...]
    test_clips: int
    seconds: float
    own_speech: bool = False

    def vocabulary(self, records: Iterable[Record]) -> list[Merge]:
        """The merges that the training texts teach."""
        return learn_merges([r.text for r in records], self.merges, NANO_TOKEN_LETTERS)

    def recipe(self, changes: Changes, records: Sequence[Record]) -> Recipe:
        """The recipe of a variation.

        The talker follows from the changed tokenizer, and further changes may follow on it.

        Args:
            changes: of the base recipe.
            records: training clips, whose texts, languages and speakers the talker has.

        Raises:
            ConfigError: a change names no field, or is impossible.
        """
        mine = {p: x for p, x in changes.items() if p.startswith("tokenizer.")}
        flow = changes.get(FAMILY) == "25 Hz"
        family = self.tokenizer_25hz if flow else self.tokenizer
        tokenizer = changed({"tokenizer": family}, mine)["tokenizer"]
        model = (self.talker_25hz if flow else self.talker)(
            tokenizer,
            text_ids(self.vocabulary(records)),
            sorted({r.language for r in records}),
            sorted({r.speaker for r in records}),
        )
        base = Recipe(
            tokenizer,
            self.stages_25hz if flow else self.stages,
            self.crop_seconds,
            model,
            self.talker_options,
            self.talker_batches,
            _for_model(self.talker_trainer, model),
        )
        recipe = changed(base, {p: x for p, x in changes.items() if p not in mine and p != FAMILY})
        rate = recipe.frame_rate
        return replace(recipe, talker_batches=replace(recipe.talker_batches, frame_rate=rate))

    def talker_25hz(
        self,
        tokenizer: Tokenizer25HzConfig,
        text: TextIds,
        languages: Sequence[str],
        speakers: Sequence[str],
    ) -> TTSConfig:
        """The talker of the scale with one codebook and no code predictor."""
        entries = tokenizer.encoder.entries
        stand_in = changed(self.tokenizer, {
            "encoder.quantizer.entries": entries, "decoder.quantizer.entries": entries,
        })  # fmt: skip
        config = self.talker(stand_in, text, languages, speakers)
        talker = replace(config.talker, code_predictor=None, codebooks=1, positions_per_second=25)
        return replace(config, tokenizer_type=TOKENIZER_25HZ, talker=talker)


def _for_model(trainer: TrainerConfig, model: TTSConfig) -> TrainerConfig:
    """The trainer without an optimizer for a code predictor that the talker has not."""
    if model.talker.code_predictor is not None:
        return trainer
    rules = {name: rule for name, rule in trainer.optimizers.items() if name != "code_predictor"}
    return replace(trainer, optimizers=rules)


def _nano_presets(
    tokenizer: Tokenizer12HzConfig, text: TextIds, languages: Sequence[str], speakers: Sequence[str]
) -> TTSConfig:
    """The nano talker with preset speakers instead of a speaker encoder."""
    config = nano_talker(tokenizer, text, tuple(languages), tuple(speakers))
    return replace(config, model_type="custom_voice", speaker_encoder=None)


def _tiny_talker(
    tokenizer: Tokenizer12HzConfig, text: TextIds, languages: Sequence[str], speakers: Sequence[str]
) -> TTSConfig:
    """A talker of some hundred thousand parameters."""
    config = _nano_presets(tokenizer, text, languages, speakers)
    talker = config.talker
    stack = replace(
        talker.transformer, width=96, layers=2, heads=3, kv_heads=3, head_dim=32, ffn_width=192
    )
    assert talker.code_predictor is not None
    inner = replace(
        talker.code_predictor.transformer,
        width=64, layers=3, heads=2, kv_heads=2, head_dim=32, ffn_width=128,
    )  # fmt: skip
    talker = replace(
        talker,
        transformer=stack,
        code_predictor=replace(talker.code_predictor, transformer=inner),
        text_width=64,
        mrope_section=(6, 5, 5),
    )
    return replace(config, talker=talker)


def _tiny_tokenizer() -> Tokenizer12HzConfig:
    """12.5 Hz, 16 codebooks of 64 entries: 1200 bit/s."""
    config = changed(tiny_tokenizer(tokenizer_12hz()), {
        "encoder.quantizer.entries": 64, "decoder.quantizer.entries": 64,
        "encoder.quantizer.width": 16, "encoder.filters": 4, "decoder.decoder_width": 32,
        "encoder.transformer.layers": 1, "decoder.transformer.layers": 1,
    })  # fmt: skip
    return changed({"tokenizer": config}, codebooks(16))["tokenizer"]


def _quiet(trainer: TrainerConfig, steps: int, **settings: object) -> TrainerConfig:
    """A trainer of a fixed number of steps, without TensorBoard, progress bars or a time limit."""
    options = {"keep": 1, "tensorboard": False, "progress": False, **settings}
    return dataclasses.replace(trainer, steps=steps, **options)


def _stages_25hz(preset: str, steps: int, **settings: object) -> tuple[Stage25Hz, ...]:
    """All stages of a preset, `steps` each."""
    recipe = PRESETS[preset]()
    return tuple(
        Stage25Hz(name, recipe, _quiet(TRAINERS[name], steps, **settings)) for name in STAGES
    )


def _tiny_stages_25hz() -> tuple[Stage25Hz, ...]:
    """Short stages without discriminators, as the other tokenizer of the scale."""
    quick = OptimizerConfig(2e-3, warmup_steps=20, b2=0.98)
    return tuple(
        replace(
            stage,
            settings=replace(
                stage.settings, vocoder=replace(stage.settings.vocoder, discriminator=None)
            ),
            trainer=replace(
                stage.trainer,
                optimizers={
                    name: quick for name in stage.trainer.optimizers if name != "discriminator"
                },
            ),
        )
        for stage in _stages_25hz("tiny", 120, average_decay=0.95, log_every=10, save_every=50)
    )


_TINY_RULE = OptimizerConfig(2e-3, warmup_steps=20, b1=0.8, b2=0.99, clip_norm=10.0)
_TINY_TRAINER = TrainerConfig(
    steps=120,
    optimizers={"generator": _TINY_RULE},
    average_decay=0.95,
    log_every=10,
    save_every=50,
    keep=1,
    tensorboard=False,
    progress=False,
)
TINY = Scale(
    name="tiny",
    tokenizer=_tiny_tokenizer(),
    stages=(
        Stage(
            TokenizerTraining(
                spectra=(SpectrumConfig(),),
                noise_floor=5e-4,
                decoded_frames=4,
                mel_scales=((256, 40), (1024, 80)),
                balance=None,
                codebook=CodebookTraining(dropout=0.0),
                discriminator=None,
                teacher_width=64,
            ),
            _TINY_TRAINER,
            rows=4,
        ),
    ),
    tokenizer_25hz=PRESETS["tiny"]().tokenizer,
    stages_25hz=_tiny_stages_25hz(),
    crop_seconds=0.96,
    talker=_tiny_talker,
    talker_options={
        "dtype": "float32",
        "predictor_weight": 3.0,
        "predictor_frames": 8,
        "alignment_weight": 1.0,
        "code_noise": 0.3,
    },
    talker_batches=TalkerBatchConfig(mix=_PRESETS, positions=(192,), batch_positions=1536),
    talker_trainer=dataclasses.replace(
        _TINY_TRAINER,
        steps=80,
        optimizers={
            name: OptimizerConfig(3e-3, warmup_steps=20, b2=0.98)
            for name in ("talker", "code_predictor")
        },
    ),
    merges=128,
    judges=("stoi", "pesq"),
    test_clips=12,
    seconds=5.0,
    own_speech=True,
)

# At the steps a second of the shipped voice's sessions (experiments/nano/README.md): 14 minutes for
# the codes, 30 for the decoder, 30 for the talker.
NANO = Scale(
    name="nano",
    tokenizer=nano_tokenizer(),
    stages=(
        Stage(
            NANO_TOKENIZER_TRAINING["codes"],
            _quiet(NANO_TOKENIZER_TRAINER["codes"], 40_000),
            NANO_TOKENIZER_ROWS["codes"],
        ),
        Stage(
            NANO_TOKENIZER_TRAINING["decoder"],
            _quiet(NANO_TOKENIZER_TRAINER["decoder"], 40_000),
            NANO_TOKENIZER_ROWS["decoder"],
        ),
    ),
    tokenizer_25hz=PRESETS["nano"]().tokenizer,
    stages_25hz=_stages_25hz("nano", 20_000),
    crop_seconds=NANO_TOKENIZER_FRAMES / 12.5,
    talker=_nano_presets,
    talker_options={
        "dtype": "bfloat16",
        "predictor_weight": NANO_PREDICTOR_WEIGHT,
        "predictor_chunk": 16384,
        "predictor_frames": NANO_PREDICTOR_FRAMES,
        "code_noise": NANO_CODE_NOISE,
        "alignment_weight": NANO_ALIGNMENT_WEIGHT,
    },
    talker_batches=TalkerBatchConfig(
        mix=_PRESETS,
        positions=NANO_POSITIONS,
        batch_positions=NANO_BATCH_POSITIONS,
        batches_per_bucket_run=NANO_TALKER_TRAINER.steps_per_call,
    ),
    talker_trainer=_quiet(
        dataclasses.replace(
            NANO_TALKER_TRAINER,
            optimizers={
                name: rule
                for name, rule in NANO_TALKER_TRAINER.optimizers.items()
                if name != "speaker_encoder"
            },
        ),
        60_000,
    ),
    merges=NANO_MERGES,
    judges=("stoi", "pesq", "asr", "speaker"),
    test_clips=100,
    seconds=20.0,
)
SCALES = {scale.name: scale for scale in (TINY, NANO)}


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))

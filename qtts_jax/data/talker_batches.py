"""Batches for talker training: all layouts mixed, in buckets of length."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.alignment import token_ends, tokens_of_frames
from qtts_jax.data.codes import Codes
from qtts_jax.data.dataset import Dataset, Waves
from qtts_jax.data.loader import Loader, digest_of
from qtts_jax.data.mels import log_mels
from qtts_jax.data.splits import TRAIN
from qtts_jax.data.talker_examples import Bucket, Example, Utterance, collate, layout_utterance
from qtts_jax.data.talker_layout import LayoutChoice, LayoutChoices, LayoutMix
from qtts_jax.data.talker_plan import (
    ClipTable,
    PlannedBatch,
    draw_choices,
    example_positions,
    longest_positions,
    plan_batches,
    references_of,
    repeated,
    speaker_flags,
)
from qtts_jax.data.voice_descriptions import VoiceDescriptions
from qtts_jax.errors import DataError
from qtts_jax.generation.prompt import AUTO, prompt_positions, supported_languages
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.speaker_embedder import mel_config

_ROW_MULTIPLE = 8


@dataclass(frozen=True)
class TalkerBatchConfig:
    """How clips become batches.

    Attributes:
        mix: probabilities of the layouts.
        rare_speaker_repeats: how often the clips of rare speakers come in an epoch (`repeated`);
            others come once.
        positions: lengths of the batches, ascending; each is compiled once.
        batch_positions: positions of a whole batch; a length has that many rows, a multiple of 8.
        mel_frames: longest mel of a voice; a longer clip is cut anew each time.
        reference_seconds: longest clip that is the voice of another.
        frame_rate: of the codes, frames a second; only alignments need it.
        batches_per_bucket_run: so many batches in a row have one length, for a trainer that takes
            as many in a call (`TrainerConfig.steps_per_call`).
        seed: of all choices.

    Raises:
        DataError: `rare_speaker_repeats` or `batches_per_bucket_run` is below 1.
    """

    mix: LayoutMix = field(default_factory=LayoutMix)
    rare_speaker_repeats: int = 1
    positions: Sequence[int] = (128, 192, 256, 384, 640)
    batch_positions: int = 16384
    mel_frames: int = 256
    reference_seconds: float = 8.0
    frame_rate: float = 12.5
    batches_per_bucket_run: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rare_speaker_repeats < 1:
            raise DataError(
                f"clips of rare speakers cannot come {self.rare_speaker_repeats} times in an "
                "epoch; use 1 or more."
            )
        if self.batches_per_bucket_run < 1:
            raise DataError(
                f"{self.batches_per_bucket_run} batches cannot follow one another; use 1 or more."
            )


class _Epoch(NamedTuple):
    first: int
    choices: LayoutChoices
    batches: list[PlannedBatch]


class TalkerBatches(Loader):
    """Endless batches of `collate`; an epoch is every clip, in a layout drawn anew each time.

    The voice of an example is another clip of its speaker: its log-mel for the speaker encoder in
    training, and its codes and text for in-context cloning. A speaker that the model has as a
    preset can be that instead. Instructions come from the manifest or from `voices`. The text token
    of each frame comes from the manifest's `alignment`, else from a constant speaking rate.

    Args:
        model: configuration of the talker.
        codes: of the dataset.
        text: tokenizer of the talker.
        config: lengths, layouts and seed of the batches.
        split: of the clips; or `indices`, their numbers.
        waves: clips in memory that are the voices of others of their speakers, for a speaker
            encoder; None for no clones.
        voices: descriptions; None for those of the manifest alone.
        threads, stop: see `Loader`.

    Attributes:
        shapes: rows and bucket of the batches.

    Raises:
        DataError: there are no clips, a clip is longer than the last length, codes of a clip are
            missing, or one with an alignment has codes of another frame rate.
        TextError: a text is empty.
    """

    def __init__(
        self,
        model: TTSConfig,
        dataset: Dataset,
        codes: Codes,
        text: TextTokenizer,
        config: TalkerBatchConfig,
        *,
        split: str | None = TRAIN,
        indices: Sequence[int] | None = None,
        waves: Waves | None = None,
        voices: VoiceDescriptions | None = None,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        chosen = dataset.select(split) if indices is None else list(indices)
        missing = [i for i in chosen if i not in codes]
        if missing or not chosen:
            raise DataError(
                f"clip {missing[0]} has no codes; encode the whole dataset."
                if missing
                else "there are no clips to train with; choose another split."
            )
        self._model, self.config = model, config
        self._records = [dataset.records[i] for i in chosen]
        self._codes = [codes[i] for i in chosen]
        self._languages = set(supported_languages(model.talker)) - {AUTO}
        self._role: list[int] = []
        self._text, self._reference_text = [], []
        for record in self._records:
            self._role, ids = text.assistant_ids(record.text)
            self._text.append(tuple(ids))
            self._reference_text.append(tuple(text.reference_ids(record.text)))
        self._spoken = self._all_spoken(text, dataset.sample_rate, config.frame_rate)
        self._instructions = self._all_instructions(text, voices)
        usable = self._usable(dataset.sample_rate, config.reference_seconds, waves)
        self._mels: dict[int, np.ndarray] = {}
        if waves is not None:
            self._mels = self._make_mels(waves, usable)
        self._table = self._make_table(usable)
        self.shapes = self._make_shapes(config.mel_frames if waves is not None else 0)
        self._check_lengths()
        self._clips = repeated(self._records, config.rare_speaker_repeats)
        self._lock = threading.Lock()
        self._epochs: list[_Epoch] = []
        self._ends: list[int] = []
        super().__init__(
            self._make,
            clips=len(chosen),
            digest=digest_of(self._contents()),
            seed=config.seed,
            threads=threads,
            stop=stop,
        )

    def _contents(self) -> Iterator[bytes]:
        """Codes, texts and voices of the clips, which a resumed run must find unchanged."""
        for r, codes in zip(self._records, self._codes, strict=True):
            about = (codes.shape, r.text, r.speaker, r.language, r.instruction)
            yield repr(about).encode()
            yield codes.tobytes()

    def _make(self, number: int) -> dict[str, Any]:
        epoch, batch = self._planned(number)
        examples = [self._example(epoch.choices.row(int(i))) for i in batch.examples]
        return collate(self._model, examples, self.shapes[batch.bucket][1])

    def _example(self, choice: LayoutChoice) -> Example:
        """The clip of a planned layout, laid out accordingly."""
        clip, reference = choice.clip, choice.reference
        record, has_reference = self._records[clip], choice.reference >= 0
        utterance = Utterance(
            text_ids=self._text[clip],
            codes=self._codes[clip],
            language=record.language,
            speaker=record.speaker,
            mel=self._mel(reference, choice.crop) if has_reference else None,
            reference_codes=self._codes[reference] if has_reference else None,
            reference_ids=self._reference_text[reference] if has_reference else (),
            instruct_ids=self._instructions[clip][choice.instruction] if choice.instruct else (),
            spoken=self._spoken[clip],
        )
        return layout_utterance(self._model, self._role, utterance, choice)

    def _mel(self, position: int, crop: float) -> np.ndarray:
        """Log-mel [M, mels] float16 of a clip, cut to `mel_frames` at `crop` if it is longer."""
        mel, longest = self._mels[position], self.config.mel_frames
        start = int(crop * max(len(mel) - longest + 1, 1))
        return mel[start : start + longest]

    def _planned(self, number: int) -> tuple[_Epoch, PlannedBatch]:
        with self._lock:
            while not self._ends or self._ends[-1] <= number:
                self._ends.append(self._plan(len(self._ends)))
            which = int(np.searchsorted(self._ends, number, side="right"))
            epoch = next((e for e in self._epochs if e.first == self._first(which)), None)
            if epoch is None:  # an earlier one, after `restore`
                self._plan(which)
                epoch = self._epochs[-1]
        return epoch, epoch.batches[number - epoch.first]

    def _first(self, epoch: int) -> int:
        return self._ends[epoch - 1] if epoch else 0

    def _plan(self, epoch: int) -> int:
        """Plan an epoch; the number of the batch after its last."""
        config = self.config
        rng = np.random.default_rng([config.seed, epoch])
        choices = draw_choices(self._table, config.mix, rng, self._clips)
        lengths = example_positions(self._table, choices)
        # An example that is too long with a reference recording goes without.
        long = (lengths > config.positions[-1]) & choices.in_context
        choices = choices._replace(in_context=choices.in_context & ~long)
        lengths = example_positions(self._table, choices)
        rows = [rows for rows, _ in self.shapes]
        batches = plan_batches(lengths, config.positions, rows, rng, config.batches_per_bucket_run)
        first = self._first(epoch)
        self._epochs = [*self._epochs[-2:], _Epoch(first, choices, batches)]
        return first + len(batches)

    def _make_shapes(self, mel_frames: int) -> list[tuple[int, Bucket]]:
        """Rows and bucket of each length; frames have what the shortest prompt leaves."""
        prompt = int(
            prompt_positions(role=len(self._role), text=0, speaker=False, stream_text=True)
        )
        shapes = []
        for positions in self.config.positions:
            rows = max(self.config.batch_positions // positions // _ROW_MULTIPLE, 1) * _ROW_MULTIPLE
            shapes.append((rows, Bucket(positions, positions - prompt, mel_frames)))
        return shapes

    def _all_spoken(
        self, text: TextTokenizer, sample_rate: int, frame_rate: float
    ) -> list[np.ndarray | None]:
        """Text token of each frame [F] int32 of every clip; None for one without an alignment."""
        out: list[np.ndarray | None] = []
        for record, ids, codes in zip(self._records, self._text, self._codes, strict=True):
            alignment = record.extra.get("alignment")
            if alignment is None:
                out.append(None)
                continue
            frames, seconds = len(codes), record.samples / sample_rate
            # The last frame may be padded; more than that is another rate.
            if abs(frames - seconds * frame_rate) > 1:
                raise DataError(
                    f"the clip of line {record.line} of the manifest has {frames} frames in "
                    f"{seconds:.2f} s, which are not {frame_rate:g} a second; give the frame rate "
                    "of the speech tokenizer, by which its alignment is read."
                )
            ends = token_ends(text, record.text, ids)
            out.append(tokens_of_frames(ids, ends, alignment, frames, frame_rate))
        return out

    def _all_instructions(
        self, text: TextTokenizer, voices: VoiceDescriptions | None
    ) -> list[list[tuple[int, ...]]]:
        """The ids of all instructions of each clip."""
        known: dict[str, tuple[int, ...]] = {}
        out = []
        for record in self._records:
            words = [] if voices is None else voices.sentences(record.index)
            if record.instruction is not None:
                words = [record.instruction]
            for sentence in words:
                if sentence not in known:
                    known[sentence] = tuple(text.instruct_ids(sentence))
            out.append([known[sentence] for sentence in words])
        return out

    def _usable(self, sample_rate: int, longest: float, waves: Waves | None) -> list[bool]:
        """Which clips can be the voice of another: in memory, not too long, nor too short."""
        encoder, least = self._model.speaker_encoder, 0
        if encoder is not None:
            mel = mel_config(encoder)
            least = max(mel.min_samples, mel.n_fft - 2 * mel.pad + min_frames(encoder) * mel.hop)
        fits = [least <= r.samples <= longest * sample_rate for r in self._records]
        if waves is None:
            return fits
        return [
            fit and r.index in waves.positions for fit, r in zip(fits, self._records, strict=True)
        ]

    def _make_mels(self, waves: Waves, usable: Sequence[bool]) -> dict[int, np.ndarray]:
        """Log-mels of the usable clips, by their position in the selection."""
        encoder = self._model.speaker_encoder
        if encoder is None:
            raise DataError("this talker has no speaker encoder; leave the waves out.")
        if encoder.sample_rate != waves.sample_rate:
            raise DataError(
                f"the speaker encoder takes audio of {encoder.sample_rate} Hz, and the waves have "
                f"{waves.sample_rate} Hz; prepare the dataset at the rate of the encoder."
            )
        places = {
            waves.positions[record.index]: i for i, record in enumerate(self._records) if usable[i]
        }
        mels = log_mels(waves, list(places), mel_config(encoder))
        return {places[place]: mel for place, mel in mels.items()}

    def _make_table(self, usable: Sequence[bool]) -> ClipTable:
        preset, dialect = speaker_flags(self._model, self._records)
        return ClipTable(
            text=np.asarray([len(ids) for ids in self._text]),
            reference_text=np.asarray([len(ids) for ids in self._reference_text]),
            frames=np.asarray([len(codes) for codes in self._codes]),
            references=references_of(self._records, usable),
            preset=preset,
            tagged=np.asarray([r.language in self._languages for r in self._records]),
            dialect=dialect,
            instructions=[
                np.asarray([len(ids) for ids in instructions])
                for instructions in self._instructions
            ],
            role=len(self._role),
            cloning=bool(self._mels),
        )

    def _check_lengths(self) -> None:
        """Raise DataError unless every clip fits, in every layout without a reference recording."""
        needed, longest = longest_positions(self._table), self.config.positions[-1]
        over = np.flatnonzero(needed > longest)
        if len(over):
            worst = int(np.argmax(needed))
            raise DataError(
                f"{len(over)} clips need up to {needed[worst]} positions, and the longest batch "
                f"has {longest}; add a longer one or leave those clips out (the worst "
                f"is of line {self._records[worst].line} of the manifest)."
            )

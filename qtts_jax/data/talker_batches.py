"""Batches for talker training: all layouts mixed, in buckets of length."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.alignment import token_ends, tokens_of_frames
from qtts_jax.data.codes import Codes
from qtts_jax.data.dataset import Dataset, Waves
from qtts_jax.data.loader import Loader, digest_of
from qtts_jax.data.manifest import TRAIN
from qtts_jax.data.mels import log_mels
from qtts_jax.data.talker_examples import (
    Bucket,
    Example,
    LayoutMix,
    Utterance,
    collate,
    draw_layout,
)
from qtts_jax.data.talker_plan import (
    Choices,
    ClipTable,
    PlannedBatch,
    draw_choices,
    example_positions,
    plan_batches,
    references_of,
    repeated,
    speaker_flags,
)
from qtts_jax.data.voice_descriptions import VoiceDescriptions
from qtts_jax.errors import DataError
from qtts_jax.generation.prompt import AUTO, supported_languages
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.speaker_embedder import mel_config

# Positions of an example that are no frames, at the least: opening, tags, two beginnings.
_LEAST_PROMPT = 8
_ROW_MULTIPLE = 8
_DEFAULT_MIX = LayoutMix()


class _Epoch(NamedTuple):
    first: int
    choices: Choices
    batches: list[PlannedBatch]


class TalkerBatches(Loader):
    """Endless batches of `collate`; an epoch is every clip, in a layout drawn anew each time.

    The voice of an example is another clip of its speaker: its log-mel for the speaker encoder in
    training, and its codes and text for in-context cloning. A speaker that the model has as a
    preset can be that instead. An instruction is that of the manifest, or one of the sentences
    that `voices` makes. What is spoken in a frame is as the `alignment` of the manifest has it,
    and at constant pace where there is none.

    Args:
        config: of the talker.
        codes: of the dataset.
        text: tokenizer of the talker.
        split: of the clips; or `indices`, their numbers.
        waves: clips in memory that are the voices of others of their speakers, for a speaker
            encoder; None for no clones.
        voices: descriptions; None for those of the manifest alone.
        mix: probabilities of the layouts.
        rare_speaker_repeats: how often the clips of rare speakers come in an epoch (`repeated`);
            others come once.
        positions: lengths of the batches, ascending; each is compiled once.
        batch_positions: positions of a whole batch; a length has that many rows, a multiple of 8.
        mel_frames: longest mel of a voice; a longer clip is cut anew each time.
        reference_seconds: longest clip that is the voice of another.
        frame_rate: of the codes, frames a second; only alignments need it.
        together: so many batches in a row have one length, for a trainer that takes as many in a
            call (`TrainerConfig.steps_per_call`).
        seed: of all choices.
        threads, stop: see `Loader`.

    Attributes:
        shapes: rows and bucket of the batches.

    Raises:
        DataError: there are no clips, a clip is longer than the last length, codes of a clip are
            missing, one with an alignment has codes of another frame rate, or
            `rare_speaker_repeats` or `together` is below 1.
        TextError: a text is empty.
    """

    def __init__(
        self,
        config: TTSConfig,
        dataset: Dataset,
        codes: Codes,
        text: TextTokenizer,
        *,
        split: str | None = TRAIN,
        indices: Sequence[int] | None = None,
        waves: Waves | None = None,
        voices: VoiceDescriptions | None = None,
        mix: LayoutMix = _DEFAULT_MIX,
        rare_speaker_repeats: int = 1,
        positions: Sequence[int] = (128, 192, 256, 384, 640),
        batch_positions: int = 16384,
        mel_frames: int = 256,
        reference_seconds: float = 8.0,
        frame_rate: float = 12.5,
        together: int = 1,
        seed: int = 0,
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
        self._config, self._mix, self._plan_seed = config, mix, seed
        self._mel_frames = mel_frames
        self._records = [dataset.records[i] for i in chosen]
        self._codes = [codes[i] for i in chosen]
        self._languages = set(supported_languages(config.talker)) - {AUTO}
        self._role: list[int] = []
        self._text, self._reference_text = [], []
        for record in self._records:
            self._role, ids = text.assistant_ids(record.text)
            self._text.append(tuple(ids))
            self._reference_text.append(tuple(text.reference_ids(record.text)))
        self._spoken = self._all_spoken(text, dataset.sample_rate, frame_rate)
        self._instructions = self._all_instructions(text, voices)
        usable = self._usable(dataset.sample_rate, reference_seconds, waves)
        self._mels: dict[int, np.ndarray] = {}
        if waves is not None:
            self._mels = self._make_mels(waves, usable)
        self._table = self._make_table(usable)
        self._positions = list(positions)
        size = [max(batch_positions // p // _ROW_MULTIPLE, 1) * _ROW_MULTIPLE for p in positions]
        mels = mel_frames if waves is not None else 0
        self.shapes = [
            (rows, Bucket(p, p - _LEAST_PROMPT, mels))
            for rows, p in zip(size, positions, strict=True)
        ]
        self._check_lengths()
        if rare_speaker_repeats < 1:
            raise DataError(
                f"clips of rare speakers cannot come {rare_speaker_repeats} times in an epoch; "
                "use 1 or more."
            )
        if together < 1:
            raise DataError(f"{together} batches cannot follow one another; use 1 or more.")
        self._clips = repeated(self._records, rare_speaker_repeats)
        self._together = together
        self._lock = threading.Lock()
        self._epochs: list[_Epoch] = []
        self._ends: list[int] = []
        # Layouts are decided by the plan, so that nothing is drawn when an example is made.
        self._rng = np.random.default_rng(0)
        super().__init__(
            self._make,
            clips=len(chosen),
            digest=digest_of(self._contents()),
            seed=seed,
            threads=threads,
            stop=stop,
        )

    def _contents(self) -> Iterator[bytes]:
        """What a run must find again to go on: codes, words and voices of its clips."""
        for r, codes in zip(self._records, self._codes, strict=True):
            about = (codes.shape, r.text, r.speaker, r.language, r.instruction)
            yield repr(about).encode()
            yield codes.tobytes()

    def _make(self, number: int) -> dict[str, Any]:
        epoch, batch = self._planned(number)
        examples = [self._example(epoch.choices, int(i)) for i in batch.places]
        return collate(self._config, examples, self.shapes[batch.bucket][1])

    def _example(self, c: Choices, i: int) -> Example:
        """The clip at a place of the epoch, laid out as planned."""
        clip, reference = int(c.clip[i]), int(c.reference[i])
        record = self._records[clip]
        cloned = reference >= 0 and not c.preset[i] and not c.voiceless[i]
        in_context = bool(c.in_context[i])
        instruct = self._instructions[clip][c.instruct[i]] if c.instruct[i] >= 0 else ()
        utterance = Utterance(
            text_ids=self._text[clip],
            codes=self._codes[clip],
            language=record.language if c.tag[i] else AUTO,
            speaker=record.speaker if c.preset[i] else None,
            mel=self._mel(reference, float(c.place[i])) if cloned else None,
            reference_codes=self._codes[reference] if in_context else None,
            reference_ids=self._reference_text[reference] if in_context else (),
            instruct_ids=instruct,
            spoken=self._spoken[clip],
        )
        mix = _CERTAIN[bool(c.stream[i]), bool(c.voiceless[i])]
        return draw_layout(self._config, self._role, utterance, mix, self._rng)

    def _mel(self, position: int, place: float) -> np.ndarray:
        """Log-mel [M, mels] float16 of a part of a clip, the whole one if it is short."""
        mel = self._mels[position]
        start = int(place * max(len(mel) - self._mel_frames + 1, 1))
        return mel[start : start + self._mel_frames]

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
        rng = np.random.default_rng([self._plan_seed, epoch])
        choices = draw_choices(self._table, self._mix, rng, self._clips)
        lengths = example_positions(self._table, choices)
        # An example that is too long with a reference recording goes without.
        long = (lengths > self._positions[-1]) & choices.in_context
        choices = choices._replace(in_context=choices.in_context & ~long)
        lengths = example_positions(self._table, choices)
        rows = [rows for rows, _ in self.shapes]
        batches = plan_batches(lengths, self._positions, rows, rng, self._together)
        first = self._first(epoch)
        self._epochs = [*self._epochs[-2:], _Epoch(first, choices, batches)]
        return first + len(batches)

    def _all_spoken(
        self, text: TextTokenizer, sample_rate: int, frame_rate: float
    ) -> list[np.ndarray | None]:
        """What is spoken in the frames of each clip; None for a clip without an alignment."""
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
        encoder, least = self._config.speaker_encoder, 0
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
        encoder = self._config.speaker_encoder
        if encoder is None:
            raise DataError("this talker has no speaker encoder; leave the waves out.")
        if encoder.sample_rate != waves.sample_rate:
            raise DataError(
                f"the speaker encoder hears {encoder.sample_rate} Hz, and the waves have "
                f"{waves.sample_rate} Hz; prepare the dataset at the rate of the encoder."
            )
        places = {
            waves.positions[record.index]: i for i, record in enumerate(self._records) if usable[i]
        }
        mels = log_mels(waves, list(places), mel_config(encoder))
        return {places[place]: mel for place, mel in mels.items()}

    def _make_table(self, usable: Sequence[bool]) -> ClipTable:
        preset, dialect = speaker_flags(self._config, self._records)
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
            opening=len(self._role),
            cloning=bool(self._mels),
        )

    def _check_lengths(self) -> None:
        """Every clip fits in every layout but that with a reference recording."""
        t = self._table
        longest = np.asarray([max(n, default=0) for n in t.instructions])
        needed = longest + t.opening + 5 + 2 + t.text + 1 + t.frames
        over = np.flatnonzero(needed > self._positions[-1])
        if len(over):
            worst = int(np.argmax(needed))
            raise DataError(
                f"{len(over)} clips need up to {needed[worst]} positions, and the longest batch "
                f"has {self._positions[-1]}; add a longer one or leave those clips out (the worst "
                f"is of line {self._records[worst].line} of the manifest)."
            )


# Layouts without chance, by (stream_text, voiceless); the rest is decided by what is given.
_CERTAIN = {
    (stream, voiceless): LayoutMix(
        stream_text=float(stream),
        tag_language=1.0,
        preset=1.0,
        voiceless=float(voiceless),
        in_context=1.0,
        instruct=1.0,
    )
    for stream in (False, True)
    for voiceless in (False, True)
}

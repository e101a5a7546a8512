"""The public 25 Hz tokenizer: one code for every 40 ms, decoded with the voice of a speaker."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qtts_jax.configs.tokenizer_25hz import Quirks25Hz, Tokenizer25HzConfig
from qtts_jax.configs.tts import TalkerConfig
from qtts_jax.errors import AudioError, CheckpointError, RequestError
from qtts_jax.functional import Params
from qtts_jax.generation.request import MAX_SEED
from qtts_jax.generation.session import FRAMES_PER_CALL
from qtts_jax.io.audio import AudioSource
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.models.tokenizer_25hz.schedule import schedule
from qtts_jax.speech_tokenizer.base import SpeechTokenizer, check_chunk, check_codes
from qtts_jax.speech_tokenizer.live_decoder_25hz import DeviceStreamDecoder
from qtts_jax.speech_tokenizer.programs_12hz import group
from qtts_jax.speech_tokenizer.programs_25hz_decode import GUIDANCE, STEPS, decode_programs
from qtts_jax.speech_tokenizer.programs_25hz_encode import encode_programs
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice, ReferenceVoiceExtractor
from qtts_jax.speech_tokenizer.voice_files import VOICES, read_voices

# The voice of `voices.npz` for everyone who has none of their own.
DEFAULT_VOICE = "default"
# Tells the keys of the noise from those of sampling, which fold in frame numbers.
NOISE = np.uint32(2**32 - 1)


class SpeechTokenizer25Hz(SpeechTokenizer):
    """Codes int [T]: T frames of `samples_per_frame` samples, one codebook.

    Decoding draws noise and needs a `ReferenceVoice`, which is given, computed from a recording
    (`reference_voice`), or read from the checkpoint's `voices.npz`.

    Args:
        config: sizes of the model.
        params: `{"encoder": ..., "decoder": ...}`, the tree of `Tokenizer25Hz`.
        quirks: departures of the official code to reproduce; None for none.

    Attributes:
        voices: the checkpoint's own voices by name.
        steps, guidance: of the flow, where a call does not say otherwise. `steps` counts points in
            time from noise to speech, as in the official code, so the network runs steps - 1 times.
        look_ahead: blocks that a stream waits for behind the one it gives out; None for all that
            the block depends on, which gives the audio of whole decoding.
    """

    config: Tokenizer25HzConfig
    quirks: Quirks25Hz
    model, quirks_class = Tokenizer25Hz, Quirks25Hz
    needs_voice = True

    def __init__(
        self, config: Tokenizer25HzConfig, params: Params, *, quirks: Quirks25Hz | None = None
    ) -> None:
        super().__init__(config, params, quirks=quirks)
        self.voices: Mapping[str, ReferenceVoice] = {}
        self.steps, self.guidance = STEPS, GUIDANCE
        self.look_ahead: int | None = 1
        self._encode = encode_programs(config.encoder, self.quirks)
        self._decode = decode_programs(config.decoder)
        self._extractor: ReferenceVoiceExtractor | None = None
        self._misfit = config.inconsistency()

    def read_side_files(self, directory: Path) -> None:
        """Read `voices.npz` and remember where `campplus.onnx` is.

        Raises:
            CheckpointError: `voices.npz` is damaged, or a voice does not fit the decoder.
        """
        dit = self.config.decoder.dit
        shortest = min_frames(dit.reference_encoder)
        self._extractor = ReferenceVoiceExtractor(directory, dit.n_mels, shortest)
        try:
            self.voices = {k: self.check_voice(v) for k, v in read_voices(directory).items()}
        except RequestError as error:
            raise CheckpointError(f"{directory / VOICES}: {error}") from error

    @property
    def codebooks(self) -> int:
        """One."""
        return 1

    @property
    def input_sample_rate(self) -> int:
        """Rate that audio is encoded at, Hz: what the encoder is made for."""
        return self.config.encoder.sample_rate

    @property
    def min_samples(self) -> int:
        """One code."""
        return self.config.encoder.samples_per_code

    @property
    def first_chunks(self) -> tuple[int, ...]:
        """Frames until a first block can be given out, then a block each (16 and 8)."""
        block = self._decode.block_codes
        ahead = self._decode.module.flow.delay_blocks(self.steps - 1, self.look_ahead)
        return (min(block * (1 + ahead), FRAMES_PER_CALL), min(block, FRAMES_PER_CALL))

    def set_flow(self, steps: int | None = None, guidance: float | None = None) -> None:
        """Change `steps` and `guidance`; None leaves one as it is.

        Raises:
            RequestError: fewer than 2 steps, negative or infinite guidance.
        """
        self.steps, self.guidance = self._flow(steps, guidance)

    def misfit(self, talker: TalkerConfig) -> str | None:
        """See the base class; a code that the decoder does not know would be another's sound."""
        entries = self.config.decoder.dit.code_entries
        if talker.codebook_size > entries:
            return (
                f"the talker makes codes 0 ... {talker.codebook_size - 1} but the decoder of the "
                f"speech tokenizer knows 0 ... {entries - 1}"
            )
        return super().misfit(talker)

    # ------------------------------------------------------------------ voices

    def decoder_voice(
        self, given: ReferenceVoice | None, speaker: str | None = None
    ) -> ReferenceVoice:
        """See the base class; `voices` are asked for the speaker, then for "default"."""
        if given is not None:
            return self.check_voice(given)
        for name in (speaker, DEFAULT_VOICE):
            if name is not None and name in self.voices:
                return self.voices[name]
        raise RequestError(
            f"the 25 Hz decoder does not know the voice{f' of {speaker}' if speaker else ''}: give "
            f"an x-vector and a reference mel, a recording, or a checkpoint with a {VOICES}."
        )

    def reference_voice(self, audio: AudioSource, name: str = "audio") -> ReferenceVoice:
        """X-vector and reference mel of a recording.

        Raises:
            AudioError: the recording cannot be used or is too short.
            CheckpointError: the checkpoint has no usable `campplus.onnx`.
            RequestError: onnxruntime is not installed.
        """
        if self._extractor is None:
            raise CheckpointError(
                "this tokenizer was made without a checkpoint folder, so there is no campplus.onnx "
                "to compute an x-vector with; give the x-vector and the reference mel."
            )
        return self.check_voice(self._extractor(audio, name))

    def check_voice(self, voice: Any) -> ReferenceVoice:
        """A voice as float32 arrays of the decoder's sizes.

        Raises:
            RequestError: anything else.
        """
        if not isinstance(voice, ReferenceVoice):
            raise RequestError(
                f"a decoder's voice must be a ReferenceVoice, not {type(voice).__name__}."
            )
        dit = self.config.decoder.dit
        xvector, mel = np.asarray(voice.xvector), np.asarray(voice.ref_mel)
        if xvector.shape != (dit.xvector_width,):
            raise RequestError(
                f"the x-vector must have the shape [{dit.xvector_width}], not "
                f"{list(xvector.shape)}."
            )
        shortest = min_frames(dit.reference_encoder)
        if mel.ndim != 2 or mel.shape[1] != dit.n_mels or len(mel) < shortest:
            raise RequestError(
                f"the reference mel must have the shape [frames, {dit.n_mels}] with at least "
                f"{shortest} frames, not {list(mel.shape)}."
            )
        return ReferenceVoice(_finite("the x-vector", xvector), _finite("the reference mel", mel))

    # ------------------------------------------------------------------ audio to codes

    def encode(
        self,
        audio: AudioSource | np.ndarray | Sequence[AudioSource | np.ndarray],
        sample_rate: int | None = None,
    ) -> list[np.ndarray]:
        """Codes of one recording or of each of a list.

        Args:
            audio: path, URL, bytes, base64 or `(array, rate)`; a bare array with `sample_rate`.
                Anything but 16 kHz is resampled.
            sample_rate: rate of bare arrays, Hz.

        Returns:
            A list of int32 [ceil(samples / samples per code)].

        Raises:
            AudioError: audio that cannot be read or used, or is shorter than one code.
        """
        items = audio if isinstance(audio, list) else [audio]
        waves = self.load(items, sample_rate)
        self._warn_once()
        return self._encode.encode(self.part("encoder"), waves)

    def stream_encode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes while audio arrives, a window (2 s) at a time.

        Args:
            chunks: float arrays [n], any n, mono at 16 kHz.

        Yields:
            int32 [t]. Together they are what `encode` gives, unless the recording gets more than
            80 dB louder: the loudness floor can follow the peak only as far as it is known.

        Raises:
            AudioError: NaN or infinite samples, a wrong shape, or less than one code in all.
        """
        self._warn_once()
        heard = 0

        def checked() -> Iterator[np.ndarray]:
            nonlocal heard
            for chunk in chunks:
                array = check_chunk(chunk)
                heard += array.size
                yield array
            if heard < self.min_samples:
                raise AudioError(
                    f"the audio stream is too short: {heard} samples, at least "
                    f"{self.min_samples} are needed."
                )

        yield from self._encode.stream(self.part("encoder"), checked())

    # ------------------------------------------------------------------ codes to audio

    def decode(
        self,
        codes: np.ndarray | Sequence[np.ndarray],
        voice: ReferenceVoice | Sequence[ReferenceVoice | None] | None = None,
        *,
        noise: np.ndarray | Sequence[np.ndarray] | None = None,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> tuple[list[np.ndarray], int]:
        """Audio of one utterance or of each of a list.

        Args:
            codes: int [T] or [T, 1], or a list of such.
            voice: one for all or one for each; None for the checkpoint's default.
            noise: float [frames, M], at least the mel frames of the codes; for a list of codes a
                list. None draws it.
            seed: of drawn noise, one for all or one for each. Every mel frame draws by its
                position, so a stream or a batch draws what one utterance draws.
            steps, guidance: of the flow; None for the tokenizer's own.

        Returns:
            A list of float32 [T * samples_per_frame], and the sample rate.

        Raises:
            RequestError: codes, voice, noise or settings that do not fit.
        """
        single = not isinstance(codes, list | tuple) and np.ndim(codes) != 3
        items = [self._check(item) for item in ([codes] if single else codes)]
        if not items:
            raise RequestError("there are no codes to decode: the list is empty.")
        voices = [self.decoder_voice(v) for v in _each("voice", voice, len(items))]
        seeds = _each("seed", seed, len(items))
        noises = [noise] if single else _each("noise", noise, len(items))
        steps, guidance = self._flow(steps, guidance)
        lengths = [len(item) for item in items]
        seen, heard = lengths, [len(v.ref_mel) for v in voices]
        if self.quirks.pad_to_longest:
            seen, heard = [max(seen)] * len(items), [max(heard)] * len(items)
        drawn = [self._check_noise(n, size) for n, size in zip(noises, seen, strict=True)]
        if any(n is None for n in drawn) != all(n is None for n in drawn):
            raise RequestError("noise is given for some of the codes only; give all of it or none.")
        self._warn_once()
        waves: list[Any] = [None] * len(items)
        for rows in group(seen):
            batch = self._decode.decode_whole(
                self.part("decoder"),
                _stack([items[i] for i in rows], seen[rows[0]]),
                np.array([seen[i] for i in rows]),
                np.stack([voices[i].xvector for i in rows]),
                _stack([voices[i].ref_mel for i in rows], max(heard[i] for i in rows)),
                _keys([seeds[i] for i in rows])
                if drawn[0] is None
                else _stack([drawn[i] for i in rows], seen[rows[0]] * self._repeats),
                steps=steps,
                guidance=guidance,
                reference_lengths=np.array([heard[i] for i in rows]),
            )
            for wave, i in zip(batch, rows, strict=True):
                waves[i] = wave[: self._samples(lengths[i], seen[i])]
        return waves, self.sample_rate

    def stream_decode(
        self,
        chunks: Iterable[np.ndarray],
        voice: ReferenceVoice | None = None,
        *,
        noise: np.ndarray | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        look_ahead: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Audio while codes arrive.

        Args:
            chunks: int arrays [t] or [t, 1], any t >= 1.
            voice, noise, seed, steps, guidance: as `decode`; noise for all codes to come.
            look_ahead: blocks to wait for behind the one that is given out. None waits for all
                that a block depends on, steps - 1 times as many as the network looks ahead, and
                gives together what `decode` gives; a small number (1) is soon and not the same.

        Yields:
            float32 [n], whenever blocks are complete; the rest after the end.

        Raises:
            RequestError: as `decode`.
            ConfigError: attention blocks that do not hold whole codes cannot be streamed.
        """
        found = self.decoder_voice(voice)
        steps, guidance = self._flow(steps, guidance)
        array, keys = self._check_noise(noise, 0), _keys([seed])
        self._warn_once()
        state = self._decode.init_stream(
            self.part("decoder"),
            found.xvector[None],
            found.ref_mel[None],
            steps=steps,
            guidance=guidance,
            look_ahead=look_ahead,
        )
        done = 0

        def take(codes: np.ndarray, final: bool) -> np.ndarray:
            nonlocal state, done
            start, done = done, done + len(codes)
            piece: Any = keys
            if array is not None:
                self._check_noise(array, done)
                piece = array[None, start * self._repeats : done * self._repeats]
            wave, state = self._decode.step(
                self.part("decoder"), codes[None], state, piece, final=final
            )
            return wave[0]

        for chunk in chunks:
            wave = take(self._check(chunk), False)
            if wave.size:
                yield wave
        wave = take(np.zeros((0,), np.int32), True)
        if wave.size:
            yield wave

    def blocks(
        self, voices: Sequence[ReferenceVoice | None], seeds: Sequence[int]
    ) -> DeviceStreamDecoder:
        """A decoder for codes that are still being generated, with the tokenizer's own settings.

        Raises:
            RequestError: a voice is missing.
        """
        found = [self.decoder_voice(v) for v in voices]
        self._warn_once()
        lengths = np.array([len(v.ref_mel) for v in found])
        conditioning = self._decode.voice(
            self.part("decoder"),
            np.stack([v.xvector for v in found]),
            _stack([v.ref_mel for v in found], int(lengths.max())),
            lengths,
        )
        return DeviceStreamDecoder(
            self._decode,
            self.part("decoder"),
            conditioning,
            _keys(seeds),
            schedule(self.steps),
            self.guidance,
            self.look_ahead,
        )

    # ------------------------------------------------------------------ inside

    def _warn_once(self) -> None:
        """Say at the first use, after all checks, that the halves of this tokenizer do not fit."""
        if self._misfit is not None:
            warnings.warn(
                f"the halves of this 25 Hz tokenizer do not fit each other ({self._misfit}), so "
                "decoding what it encoded does not give the same speech back; use a checkpoint "
                "whose config.json pairs them.",
                stacklevel=3,
            )
        self._misfit = None

    @property
    def _repeats(self) -> int:
        """Mel frames of a code."""
        return self.config.decoder.dit.repeats

    def _samples(self, length: int, seen: int) -> int:
        """Samples of so many codes, decoded together with padding to `seen` codes."""
        if not self.quirks.declared_cut:
            return length * self.samples_per_frame
        return min(length * self.config.decode_upsample_rate, seen * self.samples_per_frame)

    def _flow(self, steps: int | None, guidance: float | None) -> tuple[int, float]:
        steps = self.steps if steps is None else steps
        guidance = self.guidance if guidance is None else guidance
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 2:
            raise RequestError(f"steps must be a whole number of at least 2, not {steps!r}.")
        number = isinstance(guidance, numbers.Real) and not isinstance(guidance, bool)
        if not number or not 0 <= guidance < np.inf:
            raise RequestError(f"guidance must be a number from 0 up, not {guidance!r}.")
        return int(steps), float(guidance)

    def _check(self, codes: Any) -> np.ndarray:
        """Codes as int32 [T], or one clear error."""
        array = np.asarray(codes)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise RequestError(f"codes must have the shape [frames], not {list(array.shape)}.")
        return check_codes(array, self.config.decoder.dit.code_entries)

    def _check_noise(self, noise: Any, codes: int) -> np.ndarray | None:
        """Noise float32 [frames, M] for so many codes, or one clear error; None stays None."""
        if noise is None:
            return None
        array, n_mels = np.asarray(noise), self.config.decoder.dit.n_mels
        if array.ndim == 3 and len(array) == 1:
            array = array[0]
        needed = codes * self._repeats
        if array.ndim != 2 or array.shape[1] != n_mels or len(array) < needed:
            raise RequestError(
                f"noise must have the shape [frames, {n_mels}] with at least {needed} frames, "
                f"{self._repeats} for a code, not {list(array.shape)}."
            )
        return _finite("noise", array)


def _finite(what: str, array: np.ndarray) -> np.ndarray:
    """Floats as float32, or one clear error; what float32 cannot hold is no number either."""
    with np.errstate(over="ignore"):
        if np.issubdtype(array.dtype, np.floating):
            single = array.astype(np.float32)
            if np.isfinite(single).all():
                return single
    raise RequestError(f"{what} must hold finite floating point numbers.")


def _each(name: str, value: Any, count: int) -> list[Any]:
    """One value for all, or a list of one for each."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise RequestError(f"{name} has {len(value)} entries for {count} items; give one or each.")
    return list(value)


def _stack(arrays: Sequence[Any], length: int) -> np.ndarray:
    """Arrays [n, ...] as [B, length, ...], filled up with zeros or cut."""
    out = np.zeros((len(arrays), length, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array[:length]
    return out


def _keys(seeds: Sequence[int]) -> jax.Array:
    """Random keys [B] of the noise; those of generation come from the same seeds."""
    for seed in seeds:
        whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if not whole or not 0 <= seed <= MAX_SEED:
            raise RequestError(f"seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}.")
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, NOISE)

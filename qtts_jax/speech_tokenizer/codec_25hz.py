"""The public 25 Hz tokenizer: one code for every 40 ms, decoded with the voice of a speaker."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.configs.tokenizer_25hz import Quirks25Hz, Tokenizer25HzConfig
from qtts_jax.configs.tts import TalkerConfig
from qtts_jax.errors import AudioError, CheckpointError, RequestError
from qtts_jax.functional import Params
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import FRAMES_PER_CALL, Session
from qtts_jax.io.audio import AudioSource
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.models.tokenizer_25hz.schedule import schedule
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.batch_shapes import group
from qtts_jax.speech_tokenizer.checks import check_chunk
from qtts_jax.speech_tokenizer.host_decoder_25hz import HostStreamDecoder
from qtts_jax.speech_tokenizer.inputs_25hz import (
    check_flow,
    check_frames,
    check_noise,
    check_voice,
    each,
    noise_keys,
    stack,
)
from qtts_jax.speech_tokenizer.live_decoder_25hz import DeviceStreamDecoder
from qtts_jax.speech_tokenizer.programs_25hz_decode import GUIDANCE, STEPS, decode_programs
from qtts_jax.speech_tokenizer.programs_25hz_encode import encode_programs
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice, ReferenceVoiceExtractor
from qtts_jax.speech_tokenizer.stream_25hz import SpeechStream25Hz
from qtts_jax.speech_tokenizer.voice_files import VOICES, read_voices
from qtts_jax.speech_tokenizer.whole_decode_25hz import decode_whole

# The voice of `voices.npz` for every speaker without an entry.
DEFAULT_VOICE = "default"


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
        steps, guidance: defaults of the flow. `steps` counts points in time from noise to speech,
            as in the official code, so the network runs steps - 1 times.
        look_ahead: blocks that a stream of generated speech decodes after a block before it returns
            that block; None for all that the block depends on, which gives the audio of whole
            decoding.
    """

    config: Tokenizer25HzConfig
    quirks: Quirks25Hz
    model, config_class, quirks_class = Tokenizer25Hz, Tokenizer25HzConfig, Quirks25Hz
    needs_voice = True

    def __init__(
        self, config: Tokenizer25HzConfig, params: Params, *, quirks: Quirks25Hz | None = None
    ) -> None:
        super().__init__(config, params, quirks=quirks)
        self.codebooks = 1
        self.input_sample_rate = config.encoder.sample_rate
        self.min_samples = config.encoder.samples_per_code
        self._dit = config.decoder.dit
        self.steps, self.guidance = STEPS, GUIDANCE
        self.look_ahead: int | None = 1
        self._encode = encode_programs(config.encoder, self.quirks, self.mesh)
        self._decode = decode_programs(config.decoder, self.mesh)
        self._extractor: ReferenceVoiceExtractor | None = None
        self._misfit = config.inconsistency()

    def read_side_files(self, directory: Path) -> None:
        """Read `voices.npz` and remember where `campplus.onnx` is.

        Raises:
            CheckpointError: `voices.npz` is damaged, or a voice does not fit the decoder.
        """
        shortest = min_frames(self._dit.reference_encoder)
        self._extractor = ReferenceVoiceExtractor(directory, self._dit.n_mels, shortest)
        try:
            found = read_voices(directory)
            self.voices = {name: check_voice(voice, self._dit) for name, voice in found.items()}
        except RequestError as error:
            raise CheckpointError(f"{directory / VOICES}: {error}") from error

    @property
    def first_chunks(self) -> tuple[int, ...]:
        """The frames that complete the first block of audio, then a block each (16 and 8)."""
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
        """See the base class; the decoder's codebook must have all codes of the talker."""
        entries = self._dit.code_entries
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
        """See the base class; in `voices` the speaker is looked up, then "default"."""
        if given is not None:
            return check_voice(given, self._dit)
        for name in (speaker, DEFAULT_VOICE):
            if name is not None and name in self.voices:
                return self.voices[name]
        raise RequestError(
            f"the 25 Hz decoder does not know the voice{f' of {speaker}' if speaker else ''}: give "
            f"an x-vector and a reference mel, a recording, or a checkpoint with a {VOICES}."
        )

    def placeholder_voice(self) -> ReferenceVoice:
        """See the base class: the checkpoint's default voice, or silence of a usual length, 3 s."""
        if DEFAULT_VOICE in self.voices:
            return self.voices[DEFAULT_VOICE]
        silence = np.zeros((300, self._dit.n_mels), np.float32)
        return ReferenceVoice(np.ones(self._dit.xvector_width, np.float32), silence)

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
        return check_voice(self._extractor(audio, name), self._dit)

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
        """Codes while audio arrives, one window (2 s) at a time.

        Args:
            chunks: float arrays [n], any n, mono at 16 kHz.

        Yields:
            int32 [t]. Their concatenation is what `encode` gives, unless the recording becomes more
            than 80 dB louder later: the loudness floor lies 80 dB below the peak so far.

        Raises:
            AudioError: NaN or infinite samples, a wrong shape, or less than one code in all.
        """
        self._warn_once()
        received = 0

        def checked() -> Iterator[np.ndarray]:
            nonlocal received
            for chunk in chunks:
                array = check_chunk(chunk)
                received += array.size
                yield array
            if received < self.min_samples:
                raise AudioError(
                    f"the audio stream is too short: {received} samples, at least "
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
        items = [check_frames(item, self._dit) for item in ([codes] if single else codes)]
        if not items:
            raise RequestError("there are no codes to decode: the list is empty.")
        voices = [self.decoder_voice(v) for v in each("voice", voice, len(items))]
        seeds = each("seed", seed, len(items))
        noises = [noise] if single else each("noise", noise, len(items))
        steps, guidance = self._flow(steps, guidance)
        lengths = [len(item) for item in items]
        # Codes and reference frames that the decoder is given of each row.
        padded, references = lengths, [len(v.ref_mel) for v in voices]
        if self.quirks.pad_to_longest:
            padded = [max(padded)] * len(items)
            references = [max(references)] * len(items)
        given = [check_noise(n, size, self._dit) for n, size in zip(noises, padded, strict=True)]
        if any(n is None for n in given) != all(n is None for n in given):
            raise RequestError("noise is given for some of the codes only; give all of it or none.")
        self._warn_once()
        waves: list[Any] = [None] * len(items)
        for rows in group(padded, self.devices):
            longest = padded[rows[0]]
            batch = decode_whole(
                self._decode,
                self.part("decoder"),
                stack([items[i] for i in rows], longest),
                np.array([padded[i] for i in rows]),
                np.stack([voices[i].xvector for i in rows]),
                stack([voices[i].ref_mel for i in rows], max(references[i] for i in rows)),
                noise_keys([seeds[i] for i in rows])
                if given[0] is None
                else stack([given[i] for i in rows], longest * self._dit.repeats),
                steps=steps,
                guidance=guidance,
                reference_lengths=np.array([references[i] for i in rows]),
            )
            for wave, i in zip(batch, rows, strict=True):
                waves[i] = wave[: self._samples(lengths[i], padded[i])]
        return waves, self.sample_rate

    def decode_requests(
        self, codes: Sequence[np.ndarray], requests: Sequence[Request]
    ) -> list[np.ndarray]:
        """See the base class.

        Raises:
            RequestError: a voice is missing or wrong.
        """
        voices = [request.decoder_voice for request in requests]
        return self.decode(list(codes), voices, seed=[request.seed for request in requests])[0]

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
            look_ahead: blocks that must have arrived after a block before it is returned. None
                waits for all that a block depends on, steps - 1 times the network's own look-ahead;
                the concatenation is then what `decode` gives. A small number (1) has less delay,
                but not the same audio.

        Yields:
            float32 [n], whenever blocks are complete; the rest after the end.

        Raises:
            RequestError: as `decode`.
            ConfigError: attention blocks that do not hold whole codes cannot be streamed.
        """
        options: dict[str, Any] = {"steps": steps, "guidance": guidance, "look_ahead": look_ahead}
        decoder = self.host_decoder(voice, noise=noise, seed=seed, **options)
        for chunk in chunks:
            wave = decoder.push(check_frames(chunk, self._dit))
            if wave.size:
                yield wave
        wave = decoder.finish()
        if wave.size:
            yield wave

    def host_decoder(
        self,
        voice: ReferenceVoice | None = None,
        *,
        noise: np.ndarray | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        look_ahead: int | None = None,
    ) -> HostStreamDecoder:
        """A decoder of one utterance whose codes arrive on the host.

        Args:
            voice, noise, seed, steps, guidance, look_ahead: as `stream_decode`.

        Raises:
            RequestError, ConfigError: as `stream_decode`.
        """
        found = self.decoder_voice(voice)
        steps, guidance = self._flow(steps, guidance)
        array, keys = check_noise(noise, 0, self._dit), noise_keys([seed] * self.devices)
        self._warn_once()
        return HostStreamDecoder(
            self._decode,
            self.part("decoder"),
            found,
            keys if array is None else array,
            steps=steps,
            guidance=guidance,
            look_ahead=look_ahead,
        )

    def open_stream(self, session: Session, requests: Sequence[Request]) -> SpeechStream25Hz:
        """See the base class; `steps`, `guidance` and `look_ahead` are the tokenizer's own."""
        # Padding rows of the session repeat the last request; their audio is discarded.
        batch = session.conditions.pad.shape[0]
        rows = [*requests, *[requests[-1]] * (batch - len(requests))]
        decoder = self.device_decoder([r.decoder_voice for r in rows], [r.seed for r in rows])
        return SpeechStream25Hz(session, requests, decoder, self.samples_per_frame)

    def device_decoder(
        self, voices: Sequence[ReferenceVoice | None], seeds: Sequence[int]
    ) -> DeviceStreamDecoder:
        """A decoder of codes that stay on the device while they are generated, one row a voice.

        Raises:
            RequestError: a voice is missing.
        """
        found = [self.decoder_voice(v) for v in voices]
        self._warn_once()
        lengths = np.array([len(v.ref_mel) for v in found])
        params = self.part("decoder")
        conditioning = self._decode.condition_padded(
            params,
            np.stack([v.xvector for v in found]),
            stack([v.ref_mel for v in found], int(lengths.max())),
            lengths,
        )
        return DeviceStreamDecoder(
            self._decode,
            params,
            conditioning,
            noise_keys(seeds),
            schedule(self.steps),
            self.guidance,
            self.look_ahead,
        )

    # ------------------------------------------------------------------ inside

    def _warn_once(self) -> None:
        """Warn at the first use, after all checks, if encoder and decoder do not fit each other."""
        if self._misfit is not None:
            warnings.warn(
                f"the halves of this 25 Hz tokenizer do not fit each other ({self._misfit}), so "
                "decoding what it encoded does not give the same speech back; use a checkpoint "
                "whose config.json pairs them.",
                stacklevel=3,
            )
        self._misfit = None

    def _samples(self, length: int, seen: int) -> int:
        """Samples of so many codes, decoded together with padding to `seen` codes."""
        if not self.quirks.declared_cut:
            return length * self.samples_per_frame
        return min(length * self.config.decode_upsample_rate, seen * self.samples_per_frame)

    def _flow(self, steps: int | None, guidance: float | None) -> tuple[int, float]:
        """Checked settings of the flow, None being the tokenizer's own."""
        return check_flow(
            self.steps if steps is None else steps, self.guidance if guidance is None else guidance
        )

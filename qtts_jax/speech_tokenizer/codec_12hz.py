"""The public 12 Hz tokenizer: 16 codes for every 80 ms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.errors import AudioError, RequestError
from qtts_jax.functional import Params
from qtts_jax.generation.batch import bucket
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session
from qtts_jax.io.audio import AudioSource
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.placement import fetch
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.batch_shapes import batches, cover, split
from qtts_jax.speech_tokenizer.checks import check_chunk, check_codes
from qtts_jax.speech_tokenizer.programs_12hz import BATCH_BLOCKS, BLOCKS, programs_12hz
from qtts_jax.speech_tokenizer.stream_12hz import SpeechStream12Hz

# Frames that the caches of a stream without an attention window hold at first, and the factor by
# which they grow; every size is compiled once.
FIRST_CAPACITY, GROWTH = 128, 4


class SpeechTokenizer12Hz(SpeechTokenizer):
    """Codes int [T, Q]: T frames of `samples_per_frame` samples, Q codebooks.

    Args:
        config: sizes of the model.
        params: `{"encoder": ..., "decoder": ...}`, the tree of `Tokenizer12Hz`.
        quirks: departures of the official code to reproduce; None for none.
    """

    config: Tokenizer12HzConfig
    quirks: Quirks12Hz
    model, config_class, quirks_class = Tokenizer12Hz, Tokenizer12HzConfig, Quirks12Hz
    # One frame, so that audio starts at once, then four each.
    first_chunks: tuple[int, ...] = (1, 4)
    # Less than a frame gives one code, as from the official encoder.
    min_recording: int = 1

    def __init__(
        self, config: Tokenizer12HzConfig, params: Params, *, quirks: Quirks12Hz | None = None
    ) -> None:
        super().__init__(config, params, quirks=quirks)
        self.programs = programs_12hz(config, self.quirks, self.mesh)
        self.codebooks = config.decoder.quantizer.books
        self.input_sample_rate = config.input_sample_rate
        self.min_samples = config.encoder.samples_per_frame
        # Whether the encoder's attention has a window, so that its memory is constant.
        self._has_window = self.quirks.encoder_window and config.encoder.transformer.window
        self._codebook_size = config.decoder.quantizer.entries

    def reference_samples(self, reference: int, total: int, samples: int) -> int:
        """See the base class."""
        if self.quirks.proportional_cut:
            return int(reference / total * samples)
        return reference * self.samples_per_frame

    def encode(
        self,
        audio: AudioSource | np.ndarray | Sequence[AudioSource | np.ndarray],
        sample_rate: int | None = None,
    ) -> list[np.ndarray]:
        """Codes of one recording or of each of a list.

        Args:
            audio: path, URL, bytes, base64 or `(array, rate)`; a bare array with `sample_rate`.
                Anything but the model's rate is resampled.
            sample_rate: rate of bare arrays, Hz.

        Returns:
            A list of int32 [ceil(samples / samples per frame), Q].

        Raises:
            AudioError: audio that cannot be read or used, or is shorter than one frame.
        """
        items = audio if isinstance(audio, list) else [audio]
        waves = self.load(items, sample_rate)
        lengths = [wave.size for wave in waves]
        # Samples that the encoder is given of each row.
        padded = [max(lengths)] * len(waves) if self.quirks.pad_to_longest else lengths
        frames = [-(-n // self.min_samples) for n in padded]
        codes: list[Any] = [None] * len(waves)
        for rows, sizes in batches(frames, BATCH_BLOCKS, self.devices):
            batch = self._encode_batch([waves[i] for i in rows], [padded[i] for i in rows], sizes)
            for i, row in zip(rows, batch, strict=True):
                codes[i] = row[: -(-lengths[i] // self.min_samples)]
        return codes

    def decode(self, codes: np.ndarray | Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
        """Audio of one utterance or of each of a list.

        Args:
            codes: int [T, Q], a list of such, or [B, T, Q] whose shorter rows end in frames of -1.

        Returns:
            A list of float32 [T * samples_per_frame], and the sample rate.

        Raises:
            RequestError: codes of a wrong shape or type, empty, or out of range.
        """
        single = not isinstance(codes, list | tuple) and np.ndim(codes) != 3
        if not single and not isinstance(codes, list | tuple):
            codes = [_without_padding(row) for row in np.asarray(codes)]
        items = [self._check(item) for item in ([codes] if single else codes)]
        if not items:
            raise RequestError("there are no codes to decode: the list is empty.")
        lengths = [len(item) for item in items]
        waves: list[Any] = [None] * len(items)
        for rows, sizes in batches(lengths, BATCH_BLOCKS, self.devices):
            batch = np.zeros((len(rows), lengths[rows[0]], items[0].shape[1]), np.int32)
            for row, i in zip(batch, rows, strict=True):
                row[: lengths[i]] = items[i]
            for wave, i in zip(self._decode_batch(batch, sizes), rows, strict=True):
                waves[i] = wave[: lengths[i] * self.samples_per_frame]
        return waves, self.sample_rate

    def decode_requests(
        self, codes: Sequence[np.ndarray], requests: Sequence[Request]
    ) -> list[np.ndarray]:
        """See the base class; this decoder needs neither voice nor seed."""
        return self.decode(list(codes))[0]

    def stream_encode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes while audio arrives; their concatenation is what `encode` gives for the whole.

        The encoder attends to all earlier audio, as the official one does, so its caches grow with
        the stream: 2 * layers * kv_heads * head_dim values for each position, two positions a
        frame (49 MB a minute in float32 at the released sizes). With the option
        `Quirks12Hz(encoder_window=True)` memory is constant, for streams without end.

        Args:
            chunks: float arrays [n], any n, mono at `config.input_sample_rate`.

        Yields:
            int32 [t, Q] as soon as frames are complete; the last, partial frame after the end.

        Raises:
            AudioError: NaN or infinite samples, a wrong shape, or less than one frame in all.
        """
        frame, params = self.min_samples, self.part("encoder")
        capacity = None if self._has_window else FIRST_CAPACITY
        state = self.programs.encoder_state(params, self.devices, capacity)
        waiting, done = np.zeros(0, np.float32), 0

        def encode(samples: np.ndarray, frames: int) -> np.ndarray:
            nonlocal state, done, capacity
            done += frames
            if capacity is not None and done > capacity:
                capacity = bucket(done, capacity, GROWTH)
                state = self.programs.grow_encoder(state, capacity)
            # On a mesh every device works on the one row.
            padded = np.zeros((self.devices, frames * frame), np.float32)
            padded[:, : samples.size] = samples
            lengths = np.full((self.devices,), samples.size, np.int32)
            codes, state = self.programs.encode(params, self._samples(padded), lengths, state)
            return fetch(codes)[0]

        for chunk in chunks:
            waiting = np.concatenate([waiting, check_chunk(chunk)])
            for frames in split(waiting.size // frame, BLOCKS[0]):
                yield encode(waiting[: frames * frame], frames)
                waiting = waiting[frames * frame :]
        if done == 0 and waiting.size < frame:
            raise AudioError(
                f"the audio stream is too short: {waiting.size} samples, at least {frame} are "
                "needed."
            )
        if waiting.size:
            yield encode(waiting, 1)

    def stream_decode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Audio while codes arrive; their concatenation is what `decode` gives for the whole.

        Args:
            chunks: int arrays [t, Q], any t >= 1.

        Yields:
            float32 [t * samples_per_frame] for every chunk.

        Raises:
            RequestError: codes of a wrong shape or type, empty, or out of range.
        """
        params, quirks = self.part("decoder"), self.quirks
        state = self.programs.decoder_state(params, self.devices)
        history = np.zeros((0, self.codebooks), np.int32)
        done = 0

        def decode(codes: np.ndarray) -> np.ndarray:
            nonlocal state
            waves = []
            for frames in split(len(codes), BLOCKS[0]):
                block = np.repeat(codes[None, :frames], self.devices, 0)  # [B, frames, Q]
                wave, state = self.programs.decode(params, block, state)
                waves.append(wave)
                codes = codes[frames:]
            return np.concatenate(fetch(waves), axis=1)[0].astype(np.float32)

        for chunk in chunks:
            codes, waves = self._check(chunk), []
            while len(codes):
                frames = len(codes)
                if quirks.decode_chunk is not None:
                    # The official windows restart here, warmed up by the frames before.
                    if done and done % quirks.decode_chunk == 0:
                        state = self.programs.decoder_state(params, self.devices)
                        if len(history):
                            decode(history)
                    frames = min(frames, quirks.decode_chunk - done % quirks.decode_chunk)
                    kept = np.concatenate([history, codes[:frames]])
                    history = kept[max(0, len(kept) - quirks.decode_context) :]
                waves.append(decode(codes[:frames]))
                codes, done = codes[frames:], done + frames
            yield np.concatenate(waves)

    def open_stream(self, session: Session, requests: Sequence[Request]) -> SpeechStream12Hz:
        """See the base class; the audio has no seam, whatever `quirks.decode_chunk` is."""
        return SpeechStream12Hz(session, requests, self.programs, self.part("decoder"))

    def _encode_batch(
        self, waves: list[np.ndarray], lengths: list[int], sizes: list[int]
    ) -> np.ndarray:
        """Codes [B, T, Q] of rows that have (or are filled with zeros to) `lengths` samples.

        Args:
            sizes: frames of the programs.
        """
        frame, capacity = self.min_samples, None
        if not self._has_window:
            # A power of two, so that recordings of similar length share a program.
            capacity = 1 << (sum(sizes) - 1).bit_length()
        params = self.part("encoder")
        state = self.programs.encoder_state(params, len(waves), capacity)
        codes, start = [], 0
        for frames in sizes:
            stop = start + frames * frame
            block = np.zeros((len(waves), stop - start), np.float32)
            for row, wave in zip(block, waves, strict=True):
                samples = wave[start:stop]
                row[: samples.size] = samples
            left = np.clip(np.array(lengths) - start, 0, stop - start).astype(np.int32)
            # out [B, frames, Q]
            out, state = self.programs.encode(params, self._samples(block), left, state)
            codes.append(out)
            start = stop
        return np.concatenate(fetch(codes), axis=1)

    def _decode_batch(self, codes: np.ndarray, sizes: list[int]) -> np.ndarray:
        """Samples float32 [B, T * samples_per_frame] of codes [B, T, Q].

        Args:
            sizes: frames of the programs, where the official chunks are not reproduced.
        """
        (rows, total, _), chunk = codes.shape, self.quirks.decode_chunk
        if chunk is None:
            return self._decode_fresh(codes, sizes)
        waves = []
        for start in range(0, total, chunk):
            context = min(start, self.quirks.decode_context)
            block = codes[:, start - context : start + chunk]
            sizes = cover(block.shape[1], BATCH_BLOCKS[rows // self.devices])
            wave = self._decode_fresh(block, sizes)
            waves.append(wave[:, context * self.samples_per_frame :])
        return np.concatenate(waves, axis=1)

    def _decode_fresh(self, codes: np.ndarray, sizes: list[int]) -> np.ndarray:
        """As `_decode_batch`, with one state carried from the first frame to the last."""
        rows, total, codebooks = codes.shape
        params = self.part("decoder")
        state = self.programs.decoder_state(params, rows)
        waves, start = [], 0
        for frames in sizes:
            block = np.zeros((rows, frames, codebooks), np.int32)  # [B, frames, Q]
            real = codes[:, start : start + frames]
            block[:, : real.shape[1]] = real
            wave, state = self.programs.decode(params, block, state)  # [B, frames * samples]
            waves.append(wave)
            start += frames
        samples = np.concatenate(fetch(waves), axis=1)[:, : total * self.samples_per_frame]
        return samples.astype(np.float32)

    def _samples(self, block: np.ndarray) -> Any:
        """Samples in the dtype of the parameters, on their devices."""
        dtype = self.params["encoder"]["downsample"]["kernel"].dtype
        return jax.device_put(jnp.asarray(block, dtype), self.row_sharding)

    def _check(self, codes: Any) -> np.ndarray:
        """Codes as int32 [T, Q], or one clear error."""
        array = np.asarray(codes)
        if array.ndim != 2 or array.shape[1] != self.codebooks:
            raise RequestError(
                f"codes must have the shape [frames, {self.codebooks}], not {list(array.shape)}."
            )
        return check_codes(array, self._codebook_size)


def _without_padding(codes: np.ndarray) -> np.ndarray:
    """Codes [T, Q] without the trailing frames whose first code is -1 (batch padding)."""
    if not codes.size:
        return codes
    real = np.flatnonzero(codes[:, 0] != -1)
    return codes[: real[-1] + 1 if real.size else 0]

"""The public speech tokenizer: audio to codes and codes to audio, whole or in a stream.

`SpeechTokenizer` is what both families share. Making or loading one gives the class of its
configuration: `SpeechTokenizer12Hz` or `SpeechTokenizer25Hz`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Quirks25Hz, Tokenizer25HzConfig
from qtts_jax.configs.tts import TOKENIZER_12HZ, TalkerConfig
from qtts_jax.errors import AudioError, ConfigError, RequestError
from qtts_jax.functional import Params, abstract
from qtts_jax.io.audio import AudioSource, is_array, load_audio
from qtts_jax.io.config_file import read_config
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice

# The tokenizer's folder inside a whole checkpoint.
FOLDER = "speech_tokenizer"

TokenizerConfig = Tokenizer12HzConfig | Tokenizer25HzConfig
Quirks = Quirks12Hz | Quirks25Hz
_CONFIGS: dict[str, Any] = {
    TOKENIZER_12HZ: Tokenizer12HzConfig,
    TOKENIZER_25HZ: Tokenizer25HzConfig,
}


class SpeechTokenizer:
    """A tokenizer with its parameters.

    Waveforms are float32 [N] in [-1, 1]. Items of a list are processed in batches; every item gets
    what it would get alone (unless `quirks.pad_to_longest`).

    Args:
        config: sizes of the model; its type chooses the family.
        params: `{"encoder": ..., "decoder": ...}`, the tree of `model`. Their dtype is that of the
            computation; products of float32 parameters are full float32 everywhere.
        quirks: departures of the official code to reproduce; None for none.

    Attributes:
        model: the module that `params` belong to.
        quirks_class: the named quirks of the family.
        needs_voice: the decoder wants to know who speaks.
    """

    model: ClassVar[Any]
    quirks_class: ClassVar[Any]
    needs_voice: ClassVar[bool] = False

    config: Any
    params: Params
    quirks: Any

    def __new__(cls, config: TokenizerConfig, *_: Any, **__: Any) -> SpeechTokenizer:
        return super().__new__(family(config) if cls is SpeechTokenizer else cls)

    def __init__(
        self, config: TokenizerConfig, params: Params, *, quirks: Quirks | None = None
    ) -> None:
        self.config, self.params = config, params
        self._homes: dict[str, Any] = {}
        self.quirks = self.quirks_class() if quirks is None else quirks
        if not isinstance(self.quirks, self.quirks_class):
            raise RequestError(
                f"quirks of this tokenizer are {self.quirks_class.__name__}, not "
                f"{type(quirks).__name__}."
            )

    def part(self, name: str) -> Params:
        """The parameters of the "encoder" or of the "decoder", on the device."""
        home = self._homes.get(name)
        if home is not None:  # several threads may come here; each makes the same arrays
            arrays = jax.device_put(self.params[name], home)
            self.params = self.params | {name: arrays}
            self._homes = {k: v for k, v in self._homes.items() if k != name}
        return self.params[name]

    def keep_on_host(self, name: str) -> None:
        """Hold the parameters of a part in the host's memory until they are asked for."""
        arrays = self.params[name]
        self._homes = self._homes | {name: jax.tree.map(lambda x: x.sharding, arrays)}
        self.params = self.params | {name: jax.device_get(arrays)}

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        *,
        dtype: Any = jnp.float32,
        exact_reference: bool = False,
        quirks: Quirks | None = None,
        sharding: Any = None,
    ) -> SpeechTokenizer:
        """Load a converted checkpoint.

        Args:
            directory: folder of a tokenizer, or of a whole checkpoint with `speech_tokenizer/`.
            dtype: of parameters and computation.
            exact_reference: reproduce the official code in every quirk (`quirks.official()`).
            quirks: single quirks to reproduce, instead of `exact_reference`.
            sharding: where to put the parameters; None for the default device.

        Raises:
            CheckpointError: no converted checkpoint there, or one that does not fit its config.
            ConfigError: the config is not that of a tokenizer.
            RequestError: both `exact_reference` and `quirks` are given, or those of another family.
        """
        if exact_reference and quirks is not None:
            raise RequestError("give either exact_reference or quirks, not both.")
        # Orbax is slow to import, so it comes when weights do.
        from qtts_jax.io.checkpoint import load_params

        root = Path(directory)
        if (root / FOLDER).is_dir():
            root = root / FOLDER
        config = _read_config(root)
        kind = family(config)
        params = load_params(root, abstract(kind.model, config)[1], dtype, sharding)
        if exact_reference:
            quirks = kind.quirks_class.official()
        tokenizer = kind(config, params, quirks=quirks)
        tokenizer.read_side_files(root)
        return tokenizer

    def read_side_files(self, directory: Path) -> None:
        """Take what the folder of a checkpoint holds besides configuration and parameters."""

    def misfit(self, talker: TalkerConfig) -> str | None:
        """Why this tokenizer cannot decode the codes of a talker; None if it can."""
        if self.codebooks == talker.codebooks:
            return None
        return (
            f"the talker makes {talker.codebooks} codebooks but the speech tokenizer has "
            f"{self.codebooks}"
        )

    @property
    def codebooks(self) -> int:
        """Codebooks Q of a frame."""
        raise NotImplementedError

    @property
    def input_sample_rate(self) -> int:
        """Rate that audio is encoded at, Hz."""
        return self.config.input_sample_rate

    @property
    def sample_rate(self) -> int:
        """Rate of decoded audio, Hz."""
        return self.config.output_sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Samples of decoded audio per frame of codes."""
        return self.config.samples_per_frame

    @property
    def first_chunks(self) -> tuple[int, ...]:
        """Frames of the chunks of a stream; the last number is repeated."""
        raise NotImplementedError

    @property
    def min_samples(self) -> int:
        """The least samples at `input_sample_rate` that can be encoded."""
        raise NotImplementedError

    def encode(
        self,
        audio: AudioSource | np.ndarray | Sequence[AudioSource | np.ndarray],
        sample_rate: int | None = None,
    ) -> list[np.ndarray]:
        """Codes of one recording or of each of a list; see the families for their shape."""
        raise NotImplementedError

    def decode(self, codes: Any) -> tuple[list[np.ndarray], int]:
        """Audio of one utterance or of each of a list, and its sample rate."""
        raise NotImplementedError

    def stream_encode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes while audio arrives."""
        raise NotImplementedError

    def stream_decode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Audio while codes arrive."""
        raise NotImplementedError

    def decoder_voice(
        self, given: ReferenceVoice | None, speaker: str | None = None
    ) -> ReferenceVoice | None:
        """The voice to decode with: the one given, or the checkpoint's own for a preset speaker.

        Raises:
            RequestError: the decoder takes none, or needs one and there is none or a wrong one.
        """
        if given is not None:
            raise RequestError(
                "this tokenizer decodes without a voice: leave decoder_voice (x-vector and "
                "reference mel) out."
            )
        return None

    def reference_voice(self, audio: AudioSource, name: str = "audio") -> ReferenceVoice:
        """What the decoder wants to know of the speaker of a recording.

        Raises:
            RequestError: the decoder takes no voice.
        """
        raise RequestError("this tokenizer decodes without a voice, so none is computed.")

    def reference_samples(self, reference: int, total: int, samples: int) -> int:
        """Where the generated speech begins in audio that was decoded after its reference.

        Args:
            reference: frames of the reference.
            total: frames of both.
            samples: samples of both.
        """
        return reference * self.samples_per_frame

    @property
    def min_recording(self) -> int:
        """The least samples of a whole recording at `input_sample_rate`."""
        return self.min_samples

    def load(self, items: Sequence[Any], sample_rate: int | None) -> list[np.ndarray]:
        """Recordings as float32 [n] at `input_sample_rate`.

        Raises:
            AudioError: the faulty one of several is named.
        """
        if not items:
            raise AudioError("there is no audio to encode: the list is empty.")
        waves = []
        for index, item in enumerate(items):
            name = "audio" if len(items) == 1 else f"audio {index}"
            if is_array(item):
                if sample_rate is None:
                    raise AudioError(
                        f"{name} is a bare array: give its sample_rate, or pass (array, rate)."
                    )
                item = (item, sample_rate)
            waves.append(
                load_audio(item, self.input_sample_rate, min_samples=self.min_recording, name=name)
            )
        return waves


def family(config: TokenizerConfig) -> type[SpeechTokenizer]:
    """The class for a configuration."""
    # The families stand on this module, so they are imported when they are asked for.
    if isinstance(config, Tokenizer25HzConfig):
        from qtts_jax.speech_tokenizer.codec_25hz import SpeechTokenizer25Hz

        return SpeechTokenizer25Hz
    from qtts_jax.speech_tokenizer.codec_12hz import SpeechTokenizer12Hz

    return SpeechTokenizer12Hz


def check_codes(array: np.ndarray, entries: int) -> np.ndarray:
    """Codes of the right shape as int32.

    Raises:
        RequestError: no integers, none at all, or one that no codebook has.
    """
    if not np.issubdtype(array.dtype, np.integer):
        raise RequestError(f"codes must be integers, not {array.dtype}.")
    if not len(array):
        raise RequestError("codes are empty: give at least one frame.")
    if array.min() < 0 or array.max() >= entries:
        wrong = array.min() if array.min() < 0 else array.max()
        raise RequestError(f"codes must lie in 0 ... {entries - 1}, but one is {wrong}.")
    return array.astype(np.int32)


def check_chunk(chunk: Any) -> np.ndarray:
    """One piece of streamed audio as float32 [n].

    Raises:
        AudioError: a wrong shape or type, NaN or infinite samples.
    """
    array = np.asarray(chunk)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"streamed audio must be float arrays of shape [n] (mono), not {array.dtype} "
            f"{list(array.shape)}."
        )
    if not np.isfinite(array).all():
        raise AudioError("streamed audio holds NaN or infinite samples: repair it first.")
    return array.astype(np.float32)


def _read_config(root: Path) -> TokenizerConfig:
    data = read_config(root)
    kind = data.get("model_type")
    if kind not in _CONFIGS:
        raise ConfigError(
            f"{root / 'config.json'} has model_type {kind!r}; a speech tokenizer has "
            f"{' or '.join(_CONFIGS)}."
        )
    return _CONFIGS[kind].from_hf(data)

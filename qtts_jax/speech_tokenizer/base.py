"""The public speech tokenizer: audio to codes and codes to audio, whole or in a stream.

`SpeechTokenizer` is what both families share. `from_pretrained` and `from_params` return the class
that belongs to the configuration: `SpeechTokenizer12Hz` or `SpeechTokenizer25Hz`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from qtts_jax import compilation_cache
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import Quirks25Hz, Tokenizer25HzConfig
from qtts_jax.configs.tts import TalkerConfig
from qtts_jax.errors import AudioError, ConfigError, RequestError
from qtts_jax.functional import Params, abstract
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session
from qtts_jax.io.audio import AudioSource, load_audio
from qtts_jax.io.config_file import check_converted, read_config
from qtts_jax.placement import row_count, row_sharding
from qtts_jax.sharding import check_mesh, mesh_of, whole
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.speech_tokenizer.stream import SpeechStream

# The tokenizer's folder inside a whole checkpoint.
FOLDER = "speech_tokenizer"

TokenizerConfig = Tokenizer12HzConfig | Tokenizer25HzConfig
Quirks = Quirks12Hz | Quirks25Hz


class SpeechTokenizer(ABC):
    """A tokenizer with its parameters.

    Waveforms are float32 [N] in [-1, 1]. Items of a list are processed in batches; the result of
    every item is what it would be alone (unless `quirks.pad_to_longest`).

    Args:
        config: sizes of the model.
        params: `{"encoder": ..., "decoder": ...}`, the tree of `model`. Their dtype is that of the
            computation; products of float32 parameters are full float32 everywhere.
        quirks: departures of the official code to reproduce; None for none.

    Attributes:
        model: the module that `params` belong to.
        mesh: devices over which the rows of batches are split; None for a single one.
        devices: into how many parts rows are split.
        row_sharding: of arrays with the rows first; None for a single device.
        config_class, quirks_class: configuration and named quirks of the family.
        needs_voice: the decoder is conditioned on the speaker.
        families: the class of each `model_type` (`load.py`).
        codebooks: codebooks Q of a frame.
        input_sample_rate, sample_rate: of audio to encode and of decoded audio, Hz.
        samples_per_frame: samples of decoded audio per frame of codes.
        voices: the checkpoint's own voices by name, where the decoder needs one.
        min_samples: the least samples at `input_sample_rate` that can be encoded.
    """

    model: ClassVar[Any]
    config_class: ClassVar[Any]
    quirks_class: ClassVar[Any]
    needs_voice: ClassVar[bool] = False
    families: ClassVar[dict[str, type[SpeechTokenizer]]] = {}

    config: Any
    params: Params
    quirks: Any
    codebooks: int
    input_sample_rate: int
    min_samples: int

    def __init__(self, config: Any, params: Params, *, quirks: Any = None) -> None:
        self.config, self.params = config, params
        self.mesh: Mesh | None = mesh_of(params)
        self.devices: int = row_count(self.mesh)
        self.row_sharding = row_sharding(self.mesh)
        self.sample_rate: int = config.output_sample_rate
        self.samples_per_frame: int = config.samples_per_frame
        self.voices: Mapping[str, ReferenceVoice] = {}
        # Shardings of the parts whose parameters are in host memory (`keep_on_host`).
        self._shardings: dict[str, Any] = {}
        self.quirks = self.quirks_class() if quirks is None else quirks
        if not isinstance(self.quirks, self.quirks_class):
            raise RequestError(
                f"quirks of this tokenizer are {self.quirks_class.__name__}, not "
                f"{type(quirks).__name__}."
            )

    @staticmethod
    def from_params(
        config: TokenizerConfig, params: Params, *, quirks: Quirks | None = None
    ) -> SpeechTokenizer:
        """The tokenizer of the family that `config` belongs to; arguments as the class."""
        kinds = SpeechTokenizer.families.values()
        kind = next(k for k in kinds if isinstance(config, k.config_class))
        return kind(config, params, quirks=quirks)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        *,
        dtype: Any = jnp.float32,
        exact_reference: bool = False,
        quirks: Quirks | None = None,
        mesh: Mesh | None = None,
    ) -> SpeechTokenizer:
        """Load a converted checkpoint of any family.

        This process then keeps its compiled programs for later ones (`compilation_cache.py`).

        Args:
            directory: folder of a tokenizer, or of a whole checkpoint with `speech_tokenizer/`.
            dtype: of parameters and computation.
            exact_reference: reproduce the official code in every quirk (`quirks.official()`).
            quirks: single quirks to reproduce, instead of `exact_reference`.
            mesh: devices over which the rows of batches are split (`sharding.make_mesh`); each has
                all parameters. None for the default device.

        Raises:
            CheckpointError: no converted checkpoint there, or one that does not fit its config.
            ConfigError: the config is not that of a tokenizer, or the mesh lacks an axis.
            RequestError: both `exact_reference` and `quirks` are given, or those of another family.
        """
        if exact_reference and quirks is not None:
            raise RequestError("give either exact_reference or quirks, not both.")
        if mesh is not None:
            check_mesh(mesh)
        # Orbax is slow to import, so it is imported only when weights are read.
        from qtts_jax.io.checkpoint import load_params

        compilation_cache.enable()
        root = Path(directory)
        check_converted(root)
        if (root / FOLDER).is_dir():
            root = root / FOLDER
        data = read_config(root)
        kind = cls.families.get(str(data.get("model_type")))
        if kind is None:
            raise ConfigError(
                f"{root / 'config.json'} has model_type {data.get('model_type')!r}; a speech "
                f"tokenizer has {' or '.join(cls.families)}."
            )
        config = kind.config_class.from_hf(data)
        place = None if mesh is None else whole(mesh)
        params = load_params(root, abstract(kind.model, config)[1], dtype, place)
        if exact_reference:
            quirks = kind.quirks_class.official()
        tokenizer = kind(config, params, quirks=quirks)
        tokenizer.read_side_files(root)
        return tokenizer

    def read_side_files(self, directory: Path) -> None:  # noqa: B027 (most families have none)
        """Read the files of a checkpoint folder other than configuration and parameters."""

    def part(self, name: str) -> Params:
        """The parameters of the "encoder" or of the "decoder", on the device."""
        sharding = self._shardings.get(name)
        if sharding is not None:  # several threads may come here; each makes the same arrays
            arrays = jax.device_put(self.params[name], sharding)
            self.params = self.params | {name: arrays}
            self._shardings = {k: v for k, v in self._shardings.items() if k != name}
        return self.params[name]

    def keep_on_host(self, name: str) -> None:
        """Move the parameters of a part to host memory until their first use."""
        arrays = self.params[name]
        self._shardings = self._shardings | {name: jax.tree.map(lambda x: x.sharding, arrays)}
        self.params = self.params | {name: jax.device_get(arrays)}

    def misfit(self, talker: TalkerConfig) -> str | None:
        """Why this tokenizer cannot decode the codes of a talker; None if it can."""
        if self.codebooks == talker.codebooks:
            return None
        return (
            f"the talker makes {talker.codebooks} codebooks but the speech tokenizer has "
            f"{self.codebooks}"
        )

    @property
    @abstractmethod
    def first_chunks(self) -> tuple[int, ...]:
        """Frames of the first chunks of a stream; the last number is repeated."""

    @abstractmethod
    def encode(
        self,
        audio: AudioSource | np.ndarray | Sequence[AudioSource | np.ndarray],
        sample_rate: int | None = None,
    ) -> list[np.ndarray]:
        """Codes of one recording or of each of a list; see the families for their shape."""

    @abstractmethod
    def decode(self, codes: Any) -> tuple[list[np.ndarray], int]:
        """Audio of one utterance or of each of a list, and its sample rate."""

    @abstractmethod
    def decode_requests(
        self, codes: Sequence[np.ndarray], requests: Sequence[Request]
    ) -> list[np.ndarray]:
        """Audio of generated codes [T, Q], with the decoder's voice and the seed of each request.

        Returns:
            a float32 [samples] for each.
        """

    @abstractmethod
    def stream_encode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Codes while audio arrives."""

    @abstractmethod
    def stream_decode(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Audio while codes arrive."""

    @abstractmethod
    def open_stream(self, session: Session, requests: Sequence[Request]) -> SpeechStream:
        """A stream that generates the requests of a session and decodes their frames as they come.

        Args:
            session: of the requests, no frame of which has been generated.
            requests: only the first may have a reference, and then it must be the only one.

        Raises:
            RequestError: a decoder that needs a voice has none.
        """

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

    def placeholder_voice(self) -> ReferenceVoice | None:
        """Any voice that the decoder accepts, for compiling its programs; None if it takes none."""
        return None

    def reference_voice(self, audio: AudioSource, name: str = "audio") -> ReferenceVoice:
        """The features of a recorded speaker that the decoder is conditioned on.

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
            # Samples without a rate: an array of any library, or a list.
            if isinstance(item, list) or hasattr(item, "__array__"):
                if sample_rate is None:
                    raise AudioError(
                        f"{name} is a bare array: give its sample_rate, or pass (array, rate)."
                    )
                item = (item, sample_rate)
            waves.append(
                load_audio(item, self.input_sample_rate, min_samples=self.min_recording, name=name)
            )
        return waves

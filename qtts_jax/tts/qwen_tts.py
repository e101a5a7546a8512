"""The public object: a checkpoint that speaks, clones and designs voices."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from qtts_jax import compilation_cache, embedded
from qtts_jax.checks import is_whole_number
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import AudioError, CheckpointError, RequestError
from qtts_jax.functional import Params, abstract, computation_dtype, logical_axes
from qtts_jax.generation.device_params import inference_params, load_shapes
from qtts_jax.generation.prompt import supported_languages
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import FRAMES_PER_CALL
from qtts_jax.io.audio import AudioSource
from qtts_jax.io.config_file import check_converted, read_config
from qtts_jax.layers.quantized_weights import Weights, storage
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import check_mesh, shardings
from qtts_jax.speech_tokenizer.base import FOLDER, Quirks, SpeechTokenizer
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem, clone_voices
from qtts_jax.tts.mesh_report import mesh_report, whole_attention
from qtts_jax.tts.official.custom_voice import CustomVoiceVerbs
from qtts_jax.tts.official.voice_clone import VoiceCloneVerbs
from qtts_jax.tts.official.voice_design import VoiceDesignVerbs
from qtts_jax.tts.requests import Arriving, Plan, RequestBuilder
from qtts_jax.tts.sampling_defaults import read_sampling_defaults
from qtts_jax.tts.speaker_embedder import SpeakerEmbedder
from qtts_jax.tts.speaking import speak
from qtts_jax.tts.synthesis import Chunks, Speech, decode, stream_parts, synthesize
from qtts_jax.tts.voices import VoiceRequest

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class QwenTTS(CustomVoiceVerbs, VoiceDesignVerbs, VoiceCloneVerbs):
    """A Qwen3-TTS checkpoint.

    `generate` and `stream` take the request objects of `voices.py`; the verbs of `official/` do the
    same with the arguments of the official package. The same request with the same seed gives the
    same codes alone, in a batch or streamed. Without a seed, each request draws its own.

    A 25 Hz decoder is conditioned on the speaker, too: clones take these features from the
    recording, preset speakers from the checkpoint's `voices.npz`, and every other request takes
    them as `decoder_voice` (`speech_tokenizer.reference_voice` computes them from a recording).

    Args:
        config: of the checkpoint.
        params: nested dict of arrays (see `TTSModel`).
        speech_tokenizer: decodes frames to audio and encodes reference audio.
        text_tokenizer: the checkpoint's own.
        defaults: sampling settings for arguments not given.
        exact_reference: leave out by default what the official package does not do: normalising
            and splitting texts, and the runaway guard.

    Attributes:
        modes: what the checkpoint does, of "custom_voice", "voice_design" and "voice_clone"; more
            than one only if it was trained so, as nano was.
        sample_rate: samples per second of all audio returned.
    """

    def __init__(
        self,
        config: TTSConfig,
        params: Params,
        speech_tokenizer: SpeechTokenizer,
        text_tokenizer: TextTokenizer,
        defaults: SamplingParams,
        exact_reference: bool = False,
    ) -> None:
        self.config = config
        self.params = params
        self.speech_tokenizer = speech_tokenizer
        self.text_tokenizer = text_tokenizer
        self.defaults = defaults
        self._requests = RequestBuilder(
            config, text_tokenizer, speech_tokenizer, defaults, exact_reference
        )
        self.modes = self._requests.checker.modes
        self.sample_rate = speech_tokenizer.sample_rate
        self._embedder = (
            None
            if config.speaker_encoder is None
            else SpeakerEmbedder(config.speaker_encoder, params["speaker_encoder"])
        )

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path | None = None,
        *,
        dtype: Any = None,
        exact_reference: bool = False,
        quirks: Quirks | None = None,
        mesh: Mesh | None = None,
        weights: Weights | None = None,
    ) -> QwenTTS:
        """Load a converted checkpoint (`python -m convert SRC DST` makes one).

        This process then keeps its compiled programs for later ones (`compilation_cache.py`).

        Args:
            directory: its folder; None for the small checkpoint inside the package (nano).
            dtype: of parameters and activations; by default bfloat16, the type of the released
                weights, on an accelerator, and float32 on a CPU, where bfloat16 is slow.
            exact_reference: set every option to the official form (see `Quirks12Hz` and
                `Quirks25Hz`); texts are not normalised or split, and there is no runaway guard.
            quirks: the options one by one, instead.
            mesh: devices to split the work over (`sharding.make_mesh`): the rows of batches, their
                caches and states over its axis `data`, heads, feed-forward width and the text table
                over `model`. The speech tokenizer is small and whole on each. None for the default
                device.
            weights: store the matrices of the language models in one byte per value: "int8", or
                "fp8", which is coarser. That halves the memory of bfloat16 and the bytes read per
                frame, and changes the audio (`experiments/bench/weight_quantization.py`). "int4"
                stores most of them in four bits: a third of the memory, and more change.

        Raises:
            CheckpointError: absent, a hub id, truncated, not converted, or not matching its config.
            ConfigError: `config.json` has missing, unknown or impossible fields, or the mesh lacks
                an axis.
            RequestError: no such kind of weights.
        """
        compilation_cache.enable()
        directory = _local_folder(directory)
        if mesh is not None:
            check_mesh(mesh)
        config = TTSConfig.from_hf(read_config(directory))
        if dtype is None:
            dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        # Orbax is slow to import, so it is imported only to load weights.
        from qtts_jax.io.checkpoint import load_params

        _, tree = abstract(TTSModel, config)
        # Exact storage in fewer bytes pays on one device only (`storage_policy.py`).
        stored = mesh is None or weights is not None
        store = storage(TTSModel, config, dtype, weights) if stored else None
        speech = SpeechTokenizer.from_pretrained(
            directory / FOLDER,
            dtype=dtype,
            exact_reference=exact_reference,
            quirks=quirks,
            mesh=mesh,
        )
        if "base" not in config.types:
            # Only cloning encodes; without it the encoder would waste device memory.
            speech.keep_on_host("encoder")
        if misfit := speech.misfit(config.talker):
            raise CheckpointError(f"{directory}: {misfit}; use the tokenizer that belongs to it.")
        if mesh is None:
            params = load_params(directory, load_shapes(tree), dtype=dtype, store=store)
            params = inference_params(config, params)
        else:
            if warning := whole_attention(config.talker, mesh):
                warnings.warn(warning, stacklevel=2)
            split = shardings(mesh, logical_axes(TTSModel, config), tree)
            params = load_params(directory, tree, dtype=dtype, sharding=split, store=store)
        text = TextTokenizer.from_dir(directory, exact_reference=exact_reference)
        defaults = read_sampling_defaults(directory)
        return cls(config, params, speech, text, defaults, exact_reference)

    @property
    def mode(self) -> str:
        """The first of `modes`."""
        return self.modes[0]

    @property
    def supported_speakers(self) -> list[str]:
        """Names of the preset speakers, sorted; empty unless this is a CustomVoice checkpoint."""
        return sorted(name for name, _ in self.config.talker.speakers)

    @property
    def default_speaker(self) -> str | None:
        """The checkpoint's first preset speaker, which the command line uses; None without any."""
        speakers = self.config.talker.speakers
        return speakers[0][0] if speakers else None

    @property
    def supported_languages(self) -> list[str]:
        """Names of the languages, sorted, "auto" among them; dialects follow from the speaker."""
        return sorted(supported_languages(self.config.talker))

    def generate(self, requests: Sequence[VoiceRequest]) -> list[Speech]:
        """Generate a batch of requests of any kinds, lengths and settings.

        Texts that are longer than the model handles are split (`VoiceRequest.split`). Speech that
        was cut has `Speech.ended` False.

        Raises:
            RequestError: there is no request, the checkpoint does not do one of them, a name or a
                setting is wrong, or a prompt is longer than the model's context.
            TextError: a text is empty or no string.
        """
        return self.speak([self.plan(request) for request in requests])

    def stream(self, request: VoiceRequest, chunk_frames: Sequence[int] | None = None) -> Chunks:
        """Generate one request in chunks of audio, writable float32 [n].

        The request is checked now; generation starts when the first chunk is taken. The decoder
        carries its exact state from chunk to chunk, also with `exact_reference=True`: a stream has
        none of the quirks of the official decoder (chunks of 300 frames, the proportional cut).
        The return value of the generator (`StopIteration.value`) is `Speech.ended`.

        Args:
            request: its text may be an iterator, whose parts are used as they arrive.
            chunk_frames: frames of the first chunks; the last number is repeated. By default 1
                frame, then 4; at 25 Hz, where the decoder looks ahead, 16, then 8.

        Raises:
            RequestError, TextError: as `generate`.
        """
        sizes = self.speech_tokenizer.first_chunks
        if chunk_frames is not None:
            sizes = _chunk_sizes(chunk_frames)
        parts, carries_voice = self._requests.open_parts(request)
        decoder_voice = getattr(request, "decoder_voice", None)
        voice_of = (lambda wave: self.voice_of(wave, decoder_voice)) if carries_voice else None
        return stream_parts(self.config, self.params, self.speech_tokenizer, parts, sizes, voice_of)

    def plan(self, request: VoiceRequest) -> Plan:
        """Check one request and split its text into parts, for `speak`.

        Raises:
            RequestError, TextError: as `generate`.
        """
        return self._requests.plan(request)

    def speak(self, plans: Sequence[Plan]) -> list[Speech]:
        """Generate planned requests: the second half of `generate`.

        Raises:
            RequestError: there is no request, or a prompt is longer than the model's context.
        """
        return speak(
            plans,
            self.synthesize,
            lambda wave, request: self.voice_of(wave, request.decoder_voice),
            self.sample_rate,
        )

    def voice_of(
        self, wave: np.ndarray, decoder_voice: ReferenceVoice | None
    ) -> VoiceClonePromptItem | None:
        """The timbre of generated audio, for the further parts of its text.

        None for audio that is too short or silent.
        """
        assert self._embedder is not None
        try:
            vector = self._embedder((wave, self.sample_rate), "the first part")
        except AudioError:
            return None
        return VoiceClonePromptItem(None, vector, True, False, decoder_voice=decoder_voice)

    def prepare(self, request: VoiceRequest) -> Request:
        """Check one request and lay out its prompt, not split, for `synthesize`.

        Raises:
            RequestError, TextError: as `generate`.
        """
        return self._requests.prepare(request)

    def open(self, request: VoiceRequest) -> Callable[[], Arriving]:
        """Check one request whose text may arrive in parts.

        Returns:
            a function that waits for enough text and returns the prepared request and the text ids
            still to come, None when the text is complete.

        Raises:
            RequestError, TextError: as `generate`.
        """
        return self._requests.open(request)

    def synthesize(self, requests: Sequence[Request]) -> list[Speech]:
        """Generate a batch of prepared requests.

        Raises:
            RequestError: there is no request, or a prompt is longer than the model's context.
            DeviceMemoryError: the batch does not fit in the device's memory.
        """
        return synthesize(self.config, self.params, self.speech_tokenizer, requests)

    def decode(self, requests: Sequence[Request], codes: list[np.ndarray]) -> list[Speech]:
        """The results of prepared requests whose frames int32 [T, Q] have been generated.

        Raises:
            RequestError: a decoder that needs a voice has none.
        """
        return decode(self.config, self.speech_tokenizer, requests, codes)

    def require(self, mode: str) -> None:
        """Check that the checkpoint does `mode`.

        Raises:
            RequestError: it does not.
        """
        self._requests.checker.require(mode)

    def encode_references(
        self,
        audios: Sequence[AudioSource],
        texts: Sequence[str | None],
        x_vector_only: Sequence[bool],
        decoder_voices: Sequence[ReferenceVoice | None],
    ) -> list[VoiceClonePromptItem]:
        """Encode reference recordings (Base checkpoints); see `clone_voices`."""
        self.require("voice_clone")
        assert self._embedder is not None
        return clone_voices(
            self.speech_tokenizer, self._embedder, audios, texts, x_vector_only, decoder_voices
        )

    def embed_speaker(self, audio: AudioSource, name: str = "audio") -> np.ndarray:
        """The x-vector [D] float32 of a recording (Base checkpoints).

        Raises:
            RequestError: this checkpoint has no speaker encoder.
            AudioError: the recording cannot be used.
        """
        self.require("voice_clone")
        assert self._embedder is not None
        return self._embedder(audio, name)

    def describe(self) -> dict[str, Any]:
        """Kind, sizes, speakers, languages and defaults of the checkpoint, for `qtts info`."""
        c = self.config.talker
        count = sum(x.size for x in jax.tree.leaves(abstract(TTSModel, self.config)[1]))
        codec = sum(x.size for x in jax.tree.leaves(self.speech_tokenizer.params))
        return {
            "type": f"{self.config.model_type} ({', '.join(self.modes)}), size {self.config.size}",
            "parameters": f"{count:,} + {codec:,} in the speech tokenizer",
            "dtype": str(computation_dtype(self.params)),
            "talker": f"{c.transformer.layers} layers of width {c.transformer.width}",
            "codes": f"{c.codebooks} codebook{'s' * (c.codebooks > 1)} of {c.codebook_size}, "
            f"{self.sample_rate / self.speech_tokenizer.samples_per_frame:g} frames a second",
            "sample rate": self.sample_rate,
            "speakers": ", ".join(self.supported_speakers) or "none",
            "languages": ", ".join(self.supported_languages),
            "sampling": self.defaults,
            "devices": ", ".join(str(d) for d in jax.devices()),
        } | mesh_report(self.config, self.params, self.speech_tokenizer.params)


def _local_folder(directory: str | Path | None) -> Path:
    """The folder of a converted checkpoint, None for the embedded one.

    Raises:
        CheckpointError: it is a hub id or a torch checkpoint; the message has the convert command.
    """
    if directory is None:
        return embedded.DIRECTORY
    folder = Path(directory)
    if not folder.exists() and _HUB_ID.fullmatch(str(directory)):
        raise CheckpointError(
            f"there is no folder {directory}; if this is a hub id, convert it first with `python "
            f"-m convert {directory} DESTINATION` and use DESTINATION."
        )
    check_converted(folder)
    return folder


def _chunk_sizes(given: Any) -> tuple[int, ...]:
    """Frames of the first chunks; a sequence or an array of integers is accepted."""
    sizes = list(given) if isinstance(given, Sequence) or np.ndim(given) == 1 else []
    if not sizes or not all(is_whole_number(n, 1, FRAMES_PER_CALL) for n in sizes):
        raise RequestError(
            f"chunk_frames must be a sequence of whole numbers from 1 to {FRAMES_PER_CALL}, not "
            f"{given!r}."
        )
    return tuple(int(n) for n in sizes)

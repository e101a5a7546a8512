"""The public object: a checkpoint that speaks, clones and designs voices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import CheckpointError, RequestError, TextError
from qtts_jax.functional import Params, abstract, computation_dtype, logical_axes
from qtts_jax.generation.device_params import inference_params, load_shapes
from qtts_jax.generation.loops import FRAMES_PER_CALL
from qtts_jax.generation.prompt import SpeakerCondition, supported_languages
from qtts_jax.io.audio import AudioSource, fetch_url
from qtts_jax.io.config_file import read_config
from qtts_jax.layers.quantized_weights import Weights, storage
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import shardings
from qtts_jax.speech_tokenizer.base import FOLDER, Quirks, SpeechTokenizer
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem, clone_voices
from qtts_jax.tts.requests import Layout, RequestBuilder, SpeechRequest, read_sampling_defaults
from qtts_jax.tts.speaker_embedder import SpeakerEmbedder
from qtts_jax.tts.synthesis import Chunks, Speech, stream, synthesize

MODE_OF_TYPE = {
    "custom_voice": "custom_voice",
    "voice_design": "voice_design",
    "base": "voice_clone",
}


class QwenTTS:
    """A Qwen3-TTS checkpoint with the verbs of the official package.

    The `generate_` verbs take one text or a list and return `(list of float32 waves, sample
    rate)`; the `stream_` verbs take one text, or an iterator of pieces of it, and yield float32
    chunks. Sampling arguments (`do_sample`, `temperature`, `top_k`, `top_p`,
    `repetition_penalty`, `subtalker_...`, `max_new_tokens`) mean what they mean there and default
    to the checkpoint's `generation_config.json`. `seed` is one number or one for each text; the
    same request with the same seed gives the same codes alone, in a batch or streamed. Without a
    seed, each request draws its own.

    A 25 Hz checkpoint needs to know the speaker's voice a second time, for its decoder: clones take
    it from the recording, preset speakers from the checkpoint's `voices.npz`, and every verb takes
    one as `decoder_voice` (`speech_tokenizer.reference_voice` makes one of a recording).

    Args:
        config: what `config.json` says.
        params: nested dict of arrays (see `TTSModel`).
        speech_tokenizer: decodes frames to audio and encodes reference audio.
        text_tokenizer: the checkpoint's own.
        defaults: sampling settings for arguments not given.
    """

    def __init__(
        self,
        config: TTSConfig,
        params: Params,
        speech_tokenizer: SpeechTokenizer,
        text_tokenizer: TextTokenizer,
        defaults: SamplingParams,
    ) -> None:
        self.config = config
        self.params = params
        self.speech_tokenizer = speech_tokenizer
        self.text_tokenizer = text_tokenizer
        self.defaults = defaults
        self._requests = RequestBuilder(config, text_tokenizer, defaults)
        self._embedder = (
            None
            if config.speaker_encoder is None
            else SpeakerEmbedder(config.speaker_encoder, params["speaker_encoder"])
        )

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        dtype: Any = None,
        exact_reference: bool = False,
        quirks: Quirks | None = None,
        mesh: Mesh | None = None,
        weights: Weights | None = None,
    ) -> QwenTTS:
        """Load a converted checkpoint (`python -m convert SRC DST` makes one).

        Args:
            dtype: of parameters and activations; by default bfloat16, the type of the released
                weights, on an accelerator, and float32 on a CPU, where bfloat16 is slow.
            exact_reference: set every option to the official form (see `Quirks12Hz` and
                `Quirks25Hz`).
            quirks: the options one by one, instead.
            mesh: devices to split the language models over (`sharding.make_mesh`); the speech
                tokenizer is small and whole on each.
            weights: store the matrices of the language models in one byte a value: "int8", or
                "fp8", which is coarser. Half the memory of bfloat16 and less to read for every
                frame; the audio is no longer the same (`experiments/bench/weight_quantization.py`).

        Raises:
            CheckpointError: absent, truncated, not converted, or not matching its config.
            ConfigError: `config.json` has missing, unknown or impossible fields.
            RequestError: no such kind of weights, or one together with a mesh.
        """
        directory = Path(directory)
        if weights is not None and mesh is not None:
            raise RequestError("weights of one byte are for one device: leave out weights or mesh.")
        config = TTSConfig.from_hf(read_config(directory))
        if dtype is None:
            dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        # Orbax is slow to import, so it comes when weights do.
        from qtts_jax.io.checkpoint import load_params

        _, tree = abstract(TTSModel, config)
        store = None if mesh is not None else storage(TTSModel, config, dtype, weights)
        speech = SpeechTokenizer.from_pretrained(
            directory / FOLDER,
            dtype=dtype,
            exact_reference=exact_reference,
            quirks=quirks,
            sharding=None if mesh is None else NamedSharding(mesh, PartitionSpec()),
        )
        if "base" not in config.types:
            # Only cloning encodes; without it the encoder would fill the device for nothing.
            speech.keep_on_host("encoder")
        if misfit := speech.misfit(config.talker):
            raise CheckpointError(f"{directory}: {misfit}; use the tokenizer that belongs to it.")
        if mesh is None:
            params = load_params(directory, load_shapes(tree), dtype=dtype, store=store)
            params = inference_params(params)
        else:
            split = shardings(mesh, logical_axes(TTSModel, config), tree)
            params = load_params(directory, tree, dtype=dtype, sharding=split)
        text = TextTokenizer.from_dir(directory, exact_reference=exact_reference)
        return cls(config, params, speech, text, read_sampling_defaults(directory))

    @property
    def mode(self) -> str:
        """What this checkpoint does: "custom_voice", "voice_design" or "voice_clone"."""
        return self.modes[0]

    @property
    def modes(self) -> tuple[str, ...]:
        """All that it does, `mode` first; more than one only if it was trained so, as nano was."""
        return tuple(MODE_OF_TYPE[each] for each in self.config.types)

    @property
    def sample_rate(self) -> int:
        """Samples a second of all audio given out."""
        return self.speech_tokenizer.sample_rate

    @property
    def supported_speakers(self) -> list[str]:
        """Names of the preset speakers, sorted; empty unless this is a CustomVoice checkpoint."""
        return sorted(name for name, _ in self.config.talker.speakers)

    @property
    def supported_languages(self) -> list[str]:
        """Names of the languages, sorted, "auto" among them; dialects follow from the speaker."""
        return sorted(supported_languages(self.config.talker))

    # ------------------------------------------------------------------ whole utterances

    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str],
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | list[int] | None = None,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        **sampling: Any,
    ) -> tuple[list[np.ndarray], int]:
        """Speak with a preset speaker, optionally following an instruction.

        Args:
            text: one text or a list.
            speaker: a name of `supported_speakers`, any case; one or one for each text.
            language: a name of `supported_languages`; None is "auto".
            instruct: how to speak; None or "" for nothing. 0.6B checkpoints ignore it.
            non_streaming_mode: give the model the whole text before the first frame; False feeds
                it along with the frames.
            decoder_voice: for a 25 Hz decoder, instead of the speaker's own in the checkpoint.

        Raises:
            RequestError: wrong checkpoint type, unknown speaker or language, unequal lengths.
            TextError: a text is empty.
        """
        texts = _texts(text)
        n = len(texts)
        requests = [
            self.prepare_custom_voice(
                t, s, la, i, non_streaming_mode, seed=r, decoder_voice=v, **sampling
            )
            for t, s, la, i, r, v in zip(
                texts,
                _spread("speaker", speaker, n),
                _spread("language", language, n),
                _spread("instruct", instruct, n),
                _spread("seed", seed, n),
                _spread("decoder_voice", decoder_voice, n),
                strict=True,
            )
        ]
        return self._waves(requests)

    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | list[int] | None = None,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        **sampling: Any,
    ) -> tuple[list[np.ndarray], int]:
        """Speak with a voice that `instruct` describes; arguments as in `generate_custom_voice`."""
        texts = _texts(text)
        n = len(texts)
        requests = [
            self.prepare_voice_design(
                t, i, la, non_streaming_mode, seed=r, decoder_voice=v, **sampling
            )
            for t, i, la, r, v in zip(
                texts,
                _spread("instruct", instruct, n),
                _spread("language", language, n),
                _spread("seed", seed, n),
                _spread("decoder_voice", decoder_voice, n),
                strict=True,
            )
        ]
        return self._waves(requests)

    def generate_voice_clone(
        self,
        text: str | list[str],
        language: str | list[str] | None = None,
        ref_audio: AudioSource | list[AudioSource] | None = None,
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
        voice_clone_prompt: VoiceClonePromptItem | list[VoiceClonePromptItem] | None = None,
        non_streaming_mode: bool = False,
        *,
        seed: int | list[int] | None = None,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        **sampling: Any,
    ) -> tuple[list[np.ndarray], int]:
        """Speak with the voice of a reference recording.

        Give either `ref_audio` (with `ref_text`, or with `x_vector_only_mode=True`) or the
        `voice_clone_prompt` made from it once by `create_voice_clone_prompt`. `decoder_voice`
        belongs to `ref_audio`, as there.

        Raises:
            RequestError: wrong checkpoint type, no reference, missing `ref_text`, unequal lengths.
            AudioError: the reference cannot be used.
            TextError: a text is empty.
        """
        texts = _texts(text)
        n = len(texts)
        self._require("voice_clone")
        items = self._clone_items(
            voice_clone_prompt, ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )
        requests = [
            self.prepare_voice_clone(t, v, la, non_streaming_mode, seed=r, **sampling)
            for t, v, la, r in zip(
                texts,
                _spread("voice_clone_prompt", items, n),
                _spread("language", language, n),
                _spread("seed", seed, n),
                strict=True,
            )
        ]
        return self._waves(requests)

    def create_voice_clone_prompt(
        self,
        ref_audio: AudioSource | list[AudioSource],
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        *,
        allow_url: bool = False,
    ) -> list[VoiceClonePromptItem]:
        """Encode reference recordings for `generate_voice_clone`.

        Args:
            ref_audio: a path, bytes, base64, a URL or `(array, rate)`; one or a list.
            ref_text: what is said in it; needed unless `x_vector_only_mode`.
            x_vector_only_mode: copy only the timbre (x-vector), not the recording itself.
            decoder_voice: what a 25 Hz decoder is to know of the voice; by default it is computed
                from the recording.
            allow_url: fetch recordings that are named by a URL.

        Raises:
            RequestError: wrong checkpoint type, missing `ref_text`, unequal lengths.
            AudioError: a recording is unreadable, empty, too short or holds NaN.
            CheckpointError: `decoder_voice` is needed and the checkpoint cannot compute it.
        """
        self._require("voice_clone")
        assert self._embedder is not None
        given = ref_audio if isinstance(ref_audio, list) else [ref_audio]
        audios = [fetch_url(a, allow_url, f"ref_audio {i}") for i, a in enumerate(given)]
        return clone_voices(
            self.speech_tokenizer,
            self._embedder,
            audios,
            _spread("ref_text", ref_text, len(audios)),
            _spread("x_vector_only_mode", x_vector_only_mode, len(audios)),
            _spread("decoder_voice", decoder_voice, len(audios)),
        )

    def embed_speaker(self, audio: AudioSource, name: str = "audio") -> np.ndarray:
        """The x-vector [D] float32 of a recording (Base checkpoints).

        Raises:
            RequestError: this checkpoint has no speaker encoder.
            AudioError: the recording cannot be used.
        """
        self._require("voice_clone")
        assert self._embedder is not None
        return self._embedder(audio, name)

    def describe(self) -> dict[str, Any]:
        """What this checkpoint is, for people: kind, sizes, voices, languages, defaults."""
        c = self.config.talker
        count = sum(x.size for x in jax.tree.leaves(abstract(TTSModel, self.config)[1]))
        codec = sum(x.size for x in jax.tree.leaves(self.speech_tokenizer.params))
        return {
            "type": f"{self.config.model_type} ({', '.join(self.modes)}), size {self.config.size}",
            "parameters": f"{count:,} + {codec:,} in the speech tokenizer",
            "dtype": str(computation_dtype(self.params)),
            "talker": f"{c.transformer.layers} layers of width {c.transformer.width}",
            "codes": f"{c.codebooks} book{'s' * (c.codebooks > 1)} of {c.codebook_size}, "
            f"{self.sample_rate / self.speech_tokenizer.samples_per_frame:g} frames a second",
            "sample rate": self.sample_rate,
            "speakers": ", ".join(self.supported_speakers) or "none",
            "languages": ", ".join(self.supported_languages),
            "sampling": self.defaults,
            "devices": ", ".join(str(d) for d in jax.devices()),
        }

    # ------------------------------------------------------------------ one request at a time

    def prepare_custom_voice(
        self,
        text: str,
        speaker: str | None,
        language: str | None = None,
        instruct: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        decoder_voice: ReferenceVoice | None = None,
        **sampling: Any,
    ) -> SpeechRequest:
        """Lay out one request for `synthesize`; arguments as in `generate_custom_voice`."""
        layout = self._custom_voice(speaker, language, instruct, seed, decoder_voice, sampling)
        return self._requests.whole(layout, text, not non_streaming_mode)

    def prepare_voice_design(
        self,
        text: str,
        instruct: str | None,
        language: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        decoder_voice: ReferenceVoice | None = None,
        **sampling: Any,
    ) -> SpeechRequest:
        """Lay out one request for `synthesize`; arguments as in `generate_voice_design`."""
        layout = self._voice_design(language, instruct, seed, decoder_voice, sampling)
        return self._requests.whole(layout, text, not non_streaming_mode)

    def prepare_voice_clone(
        self,
        text: str,
        voice: VoiceClonePromptItem,
        language: str | None = None,
        non_streaming_mode: bool = False,
        *,
        seed: int | None = None,
        **sampling: Any,
    ) -> SpeechRequest:
        """Lay out one request for `synthesize`; arguments as in `generate_voice_clone`."""
        layout = self._voice_clone(voice, language, seed, sampling)
        return self._requests.whole(layout, text, not non_streaming_mode)

    def synthesize(self, requests: Sequence[SpeechRequest]) -> list[Speech]:
        """Generate a batch of prepared requests of any lengths and settings.

        Raises:
            RequestError: there is no request, or a prompt is longer than the model's context.
        """
        return synthesize(self.config, self.params, self.speech_tokenizer, requests)

    # ------------------------------------------------------------------ streams

    def stream_custom_voice(
        self,
        text: str | Iterable[str],
        speaker: str,
        language: str | None = None,
        instruct: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        chunk_frames: Sequence[int] | None = None,
        decoder_voice: ReferenceVoice | None = None,
        **sampling: Any,
    ) -> Chunks:
        """`generate_custom_voice` for one text, in chunks.

        The decoder carries its exact state from chunk to chunk, also with `exact_reference=True`:
        of the quirks of the official decoder (chunks of 300 frames, the proportional cut) a stream
        has none. What the generator returns (`StopIteration.value`) is `Speech.ended`.

        Args:
            text: a text, or an iterator of pieces of it (words, tokens, any cut). Pieces are fed
                along with the frames, so the voice starts before the text has ended, and the
                codes are those of the whole text with `non_streaming_mode=False`.
            chunk_frames: frames of the first chunks; the last number is repeated. By default one
                frame at once, then 4; at 25 Hz, where the decoder looks ahead, 16, then 8.
        """
        layout = self._custom_voice(speaker, language, instruct, seed, decoder_voice, sampling)
        return self._stream(text, layout, not non_streaming_mode, chunk_frames)

    def stream_voice_design(
        self,
        text: str | Iterable[str],
        instruct: str,
        language: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        chunk_frames: Sequence[int] | None = None,
        decoder_voice: ReferenceVoice | None = None,
        **sampling: Any,
    ) -> Chunks:
        """`generate_voice_design` for one text, in chunks, the decoder's state exact.

        See `stream_custom_voice`, also for what `exact_reference=True` does not do here.
        """
        layout = self._voice_design(language, instruct, seed, decoder_voice, sampling)
        return self._stream(text, layout, not non_streaming_mode, chunk_frames)

    def stream_voice_clone(
        self,
        text: str | Iterable[str],
        language: str | None = None,
        ref_audio: AudioSource | None = None,
        ref_text: str | None = None,
        x_vector_only_mode: bool = False,
        voice_clone_prompt: VoiceClonePromptItem | list[VoiceClonePromptItem] | None = None,
        non_streaming_mode: bool = False,
        *,
        seed: int | None = None,
        chunk_frames: Sequence[int] | None = None,
        decoder_voice: ReferenceVoice | None = None,
        **sampling: Any,
    ) -> Chunks:
        """`generate_voice_clone` for one text, in chunks, the decoder's state exact.

        See `stream_custom_voice`, also for what `exact_reference=True` does not do here.
        """
        self._require("voice_clone")
        items = self._clone_items(
            voice_clone_prompt, ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )
        item = _spread("voice_clone_prompt", items, 1)[0]
        layout = self._voice_clone(item, language, seed, sampling)
        return self._stream(text, layout, not non_streaming_mode, chunk_frames)

    # ------------------------------------------------------------------ inside

    def _require(self, mode: str) -> None:
        if mode not in self.modes:
            able = ", ".join(self.modes)
            raise RequestError(
                f"this is a {self.config.model_type} checkpoint, which does {able}, not {mode}; "
                f"load a checkpoint of the other type or use the verbs of {able}."
            )

    def _clone_items(
        self,
        prompt: Any,
        ref_audio: Any,
        ref_text: Any,
        x_vector_only_mode: Any,
        decoder_voice: Any,
    ) -> VoiceClonePromptItem | list[VoiceClonePromptItem]:
        if prompt is not None:
            if decoder_voice is not None:
                raise RequestError(
                    "decoder_voice belongs to the recording: give it to create_voice_clone_prompt."
                )
            return prompt
        if ref_audio is None:
            raise RequestError(
                "voice cloning needs a reference: give ref_audio or voice_clone_prompt."
            )
        return self.create_voice_clone_prompt(
            ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )

    def _custom_voice(
        self,
        speaker: str | None,
        language: str | None,
        instruct: str | None,
        seed: int | None,
        decoder_voice: ReferenceVoice | None,
        sampling: dict[str, Any],
    ) -> Layout:
        self._require("custom_voice")
        voice, instruct = self._requests.preset(speaker, instruct)
        decoder_voice = self.speech_tokenizer.decoder_voice(decoder_voice, voice.speaker)
        return self._requests.layout(voice, language, instruct, seed, sampling, decoder_voice)

    def _voice_design(
        self,
        language: str | None,
        instruct: str | None,
        seed: int | None,
        decoder_voice: ReferenceVoice | None,
        sampling: dict[str, Any],
    ) -> Layout:
        self._require("voice_design")
        decoder_voice = self.speech_tokenizer.decoder_voice(decoder_voice)
        return self._requests.layout(
            SpeakerCondition(), language, instruct, seed, sampling, decoder_voice
        )

    def _voice_clone(
        self,
        item: VoiceClonePromptItem,
        language: str | None,
        seed: int | None,
        sampling: dict[str, Any],
    ) -> Layout:
        self._require("voice_clone")
        voice = self._requests.cloned(item)
        decoder_voice = self.speech_tokenizer.decoder_voice(item.decoder_voice)
        return self._requests.layout(voice, language, None, seed, sampling, decoder_voice)

    def _waves(self, requests: Sequence[SpeechRequest]) -> tuple[list[np.ndarray], int]:
        return [speech.wave for speech in self.synthesize(requests)], self.sample_rate

    def _stream(
        self,
        text: str | Iterable[str],
        layout: Layout,
        stream_text: bool,
        chunk_frames: Sequence[int] | None,
    ) -> Chunks:
        """Check the request now, generate when the first chunk is asked for."""
        sizes = _chunk_sizes(
            self.speech_tokenizer.first_chunks if chunk_frames is None else chunk_frames
        )
        if isinstance(text, str):
            return self._chunks(self._requests.whole(layout, text, stream_text), sizes)
        if not isinstance(text, Iterable):
            raise TextError(f"text must be a string or an iterator, not {type(text).__name__}.")

        def arriving(pieces: Iterator[str]) -> Chunks:
            request, later = self._requests.arriving(layout, pieces)
            return (yield from self._chunks(request, sizes, later))

        return arriving(iter(text))

    def _chunks(
        self,
        request: SpeechRequest,
        chunk_frames: Sequence[int],
        arriving: Iterator[list[int]] | None = None,
    ) -> Chunks:
        return stream(
            self.config, self.params, self.speech_tokenizer, request, chunk_frames, arriving
        )


def _texts(text: str | list[str]) -> list[str]:
    texts = text if isinstance(text, list) else [text]
    if not texts:
        raise RequestError("the list of texts is empty; give at least one text.")
    return texts


def _chunk_sizes(given: Any) -> list[int]:
    """Frames of the first chunks: some whole numbers, in a sequence or an array."""
    sizes = list(given) if isinstance(given, Sequence) or np.ndim(given) == 1 else []
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes)
    if not sizes or not whole or not all(1 <= n <= FRAMES_PER_CALL for n in sizes):
        raise RequestError(
            f"chunk_frames must be a sequence of whole numbers from 1 to {FRAMES_PER_CALL}, not "
            f"{given!r}."
        )
    return [int(n) for n in sizes]


def _spread(name: str, value: Any, n: int) -> list[Any]:
    """One value, or a list of one, for all n texts; otherwise a list of n."""
    values = value if isinstance(value, list) else [value]
    if len(values) == 1:
        return values * n
    if len(values) != n:
        raise RequestError(f"{name} has {len(values)} entries for {n} texts; give one or {n}.")
    return values

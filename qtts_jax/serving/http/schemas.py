"""Bodies of requests, checked by pydantic."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qtts_jax.configs.sampling import SamplingParams

# Utterances of one batch.
MOST_ITEMS = 32
# A longer wait for the first sound is a mistake.
MOST_PREBUFFER_MS = 10_000


class Voicing(BaseModel):
    """How to speak: fields that HTTP requests and WebSocket sessions share.

    Attributes:
        voice: a preset speaker, an uploaded voice, or "design", which makes a voice from
            `instructions`; None is the first preset speaker.
        language: a language of the checkpoint or "auto".
        instructions: how to speak, or the voice to design.
        ref_audio: base64 of a recording whose voice is cloned, instead of `voice`.
        ref_text: its words; needed unless `x_vector_only`.
        x_vector_only: copy the timbre of `ref_audio` alone.
        seed: 0 ... 2^32 - 1; with the other fields it determines the codes.
        max_new_tokens ... subtalker_temperature: as in `SamplingParams`.
        initial_chunk_frames: frames of the first chunk.
        chunk_frames: the most frames of a later chunk.
        prebuffer_ms: audio that is made before the first of it is sent.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    voice: str | None = None
    language: str | None = None
    instructions: str | None = Field(default=None, max_length=4096)
    ref_audio: str | None = None
    ref_text: str | None = Field(default=None, max_length=4096)
    x_vector_only: bool = False
    seed: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    subtalker_dosample: bool | None = None
    subtalker_temperature: float | None = None
    subtalker_top_k: int | None = None
    subtalker_top_p: float | None = None
    max_new_tokens: int | None = None
    initial_chunk_frames: int | None = Field(default=None, ge=1)
    chunk_frames: int | None = Field(default=None, ge=1)
    prebuffer_ms: float | None = Field(default=None, ge=0, le=MOST_PREBUFFER_MS)

    @property
    def sampling(self) -> dict[str, Any]:
        """The given settings of `SamplingParams`.

        All but `draft_window`: rows that are batched continuously are generated without drafts.
        """
        names = SamplingParams.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class SpeechRequest(Voicing):
    """Body of `POST /v1/audio/speech`.

    Attributes:
        input: the text.
        response_format: see `encoders.FORMATS`.
        speed: only 1; the model has no control of speed.
        stream: send audio as it is made; otherwise all at once.
        stream_format: "audio" bytes or "sse" events.
        include_codes: send the codes of each chunk with its audio; in events alone.
        stream_text: feed the text along with the frames instead of all before the first.
    """

    input: str = Field(min_length=1)
    response_format: str = "mp3"
    speed: float = Field(default=1.0, ge=1.0, le=1.0)
    stream: bool = True
    stream_format: Literal["audio", "sse"] = "audio"
    include_codes: bool = False
    stream_text: bool | None = None

    @model_validator(mode="after")
    def _codes_have_a_place(self) -> Self:
        if self.include_codes and self.stream_format != "sse":
            raise ValueError('include_codes needs `"stream_format": "sse"`.')
        return self


class PlainRequest(BaseModel):
    """Body of `POST /tts/stream`."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1)
    language: str | None = None
    voice: str | None = None
    seed: int | None = None


class BatchItem(Voicing):
    """One utterance of a batch.

    Attributes:
        input, response_format, stream_text: as in `SpeechRequest`.
    """

    input: str = Field(min_length=1)
    response_format: str = "mp3"
    stream_text: bool | None = None


class BatchRequest(BaseModel):
    """Body of `POST /v1/audio/speech/batch`."""

    model_config = ConfigDict(extra="forbid")

    items: list[BatchItem] = Field(min_length=1, max_length=MOST_ITEMS)

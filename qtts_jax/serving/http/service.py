"""What all routes share: engine, voices, metrics, and the way from a request body to events."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

from starlette.concurrency import run_in_threadpool

from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.http.metrics import Metrics
from qtts_jax.serving.http.order import ClientOrder
from qtts_jax.serving.http.schemas import Voicing
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.serving.uploads import check_recording, decode_base64
from qtts_jax.serving.utterance import Done, Event, Failed, Pace
from qtts_jax.serving.voices import VoiceStore
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.voices import CustomVoice, VoiceClone, VoiceDesign, VoiceRequest

# The name of the voice that instructions describe.
DESIGN = "design"


class Service:
    """Everything behind the routes.

    Args:
        engine: generates the speech; it need not have been started.
        settings: of the server.
    """

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine, self.settings, self.tts = engine, settings, engine.tts
        self.presets = self.tts.supported_speakers
        reserved = [*self.presets, DESIGN]
        self.voices = VoiceStore(settings.voices, settings.max_voices, reserved)
        self.metrics = Metrics(engine)
        self.order = ClientOrder(settings.max_ordered)

    async def voice_request(
        self, body: Voicing, text: str | Iterable[str], stream_text: bool | None = None
    ) -> VoiceRequest:
        """The request that a body describes; it encodes the recording if there is one.

        Raises:
            QTTSError: a field does not fit the checkpoint or the limits.
        """
        if isinstance(text, str) and len(text) > self.settings.max_characters:
            raise RequestError(
                f"the text has {len(text)} characters, at most {self.settings.max_characters} are "
                "allowed; split it into several requests."
            )
        common: dict[str, Any] = {
            "language": body.language,
            "seed": body.seed,
            "sampling": body.sampling,
        }
        if stream_text is not None:
            common["stream_text"] = stream_text
        if body.ref_audio is not None:
            content = decode_base64(body.ref_audio, self.settings.max_upload_bytes)
            item = await self.encode(content, body.ref_text, body.x_vector_only)
            return VoiceClone(text, item, **common)
        if body.voice is not None and (uploaded := self.voices.get(body.voice)) is not None:
            return VoiceClone(text, uploaded, **common)
        if body.voice == DESIGN or (body.voice is None and not self.presets):
            return VoiceDesign(text, body.instructions, **common)
        speaker = self.tts.default_speaker if body.voice is None else body.voice
        return CustomVoice(text, speaker, instruct=body.instructions, **common)

    async def encode(
        self, content: bytes, ref_text: str | None, x_vector_only: bool
    ) -> VoiceClonePromptItem:
        """A voice of a recording.

        Raises:
            QTTSError: the checkpoint does not clone, or the recording cannot be used.
        """
        self.tts.require("voice_clone")
        most_bytes, most_seconds = (
            self.settings.max_upload_bytes,
            self.engine.settings.max_reference_seconds,
        )
        await run_in_threadpool(check_recording, content, most_bytes, most_seconds)
        encoded = self.engine.call(
            lambda: self.tts.encode_references([content], [ref_text], [x_vector_only], [None])
        )
        return (await asyncio.wrap_future(encoded))[0]

    def pace(self, body: Voicing, whole: bool = False) -> Pace:
        """When the audio of a request is to be delivered; `whole` as of `Pace`."""
        wished = self.settings.prebuffer_ms if body.prebuffer_ms is None else body.prebuffer_ms
        prebuffer = math.ceil(wished / 1e3 / self.engine.seconds_per_frame)
        return Pace(self._chunk_frames(body), prebuffer, whole)

    def _chunk_frames(self, body: Voicing) -> list[int] | None:
        """Wished frames of the first chunks, if the body wishes any."""
        if body.initial_chunk_frames is None and body.chunk_frames is None:
            return None
        sizes = self.engine.settings.chunk_frames
        first = body.initial_chunk_frames or sizes[0]
        most = max(body.chunk_frames or sizes[-1], first)
        return [first, *[size for size in sizes if first < size < most], most]


class Events:
    """Events of one utterance for a coroutine; its instance is a `Deliver`.

    Attributes:
        finished: set once the last event is there.
        outcome: then "stop", "length", "cancelled" or "failed".
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.finished = asyncio.Event()
        self.outcome = ""

    def __call__(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Event) -> None:
        self._events.put_nowait(event)
        if isinstance(event, Done | Failed):
            self.outcome = event.reason if isinstance(event, Done) else "failed"
            self.finished.set()

    async def next(self) -> Event:
        """The next event."""
        return await self._events.get()


def fault(error: Exception) -> str:
    """The sentence that a client gets; that of an internal error stays in the server's log."""
    return str(error) if isinstance(error, QTTSError) else "internal error; see the server's log."

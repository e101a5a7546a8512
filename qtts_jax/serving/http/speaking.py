"""One utterance as an HTTP answer: audio bytes or server-sent events, cancelled when cut off."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from qtts_jax.generation.request import Request
from qtts_jax.serving.encoders import Encoder
from qtts_jax.serving.http.service import Events, Service, fault
from qtts_jax.serving.utterance import Chunk, Done, Event, Failed, Utterance

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class SpeakingError(Exception):
    """The utterance failed after its answer began; the connection is closed without an end."""


class Speaking:
    """An utterance that runs for an HTTP client; `begin` makes one."""

    def __init__(self, service: Service, utterance: Utterance, events: Events) -> None:
        self._service, self._utterance, self._events = service, utterance, events
        self._first: Event
        # What is left when the answer ends: the client's turn.
        self._stack = AsyncExitStack()

    @classmethod
    async def begin(
        cls,
        service: Service,
        request: Request,
        chunk_frames: Sequence[int] | None,
        client: str | None,
        receive: Receive,
    ) -> Speaking:
        """Submit a request when it is its client's turn, and wait for its first event.

        The wait makes a status code of an early fault.

        Args:
            service: runs and counts it.
            request: prepared.
            chunk_frames: as of `Engine.submit`.
            client: whose turn is waited for; None does not wait.
            receive: of the connection, whose body has been read.

        Raises:
            ClientDisconnect: the client left before the first event.
            QTTSError: the engine refuses it.
            Exception: what made the utterance fail.
        """
        async with AsyncExitStack() as stack:
            await _unless_left(stack.enter_async_context(service.order.turn(client)), receive)
            events = Events()
            utterance = service.engine.submit(request, events, chunk_frames=chunk_frames)
            speaking = cls(service, utterance, events)
            stack.push_async_callback(speaking._leave)
            speaking._first = await _unless_left(events.next(), receive)
            if isinstance(speaking._first, Failed):
                raise speaking._first.error
            speaking._stack = stack.pop_all()
        return speaking

    async def events(self) -> AsyncIterator[Event]:
        """All events, the last of which is `Done` or `Failed`."""
        event = self._first
        yield event
        while isinstance(event, Chunk):
            event = await self._events.next()
            yield event

    async def end(self) -> None:
        """Free the row if it is still running, count the utterance, and end the client's turn."""
        await self._stack.aclose()

    async def _leave(self) -> None:
        self._service.engine.cancel(self._utterance)
        await self._events.finished.wait()
        self._service.metrics.finished(self._utterance, self._events.outcome)


async def _unless_left(result: Awaitable[Result], receive: Receive) -> Result:
    """Wait for a result as long as the client is there.

    Raises:
        ClientDisconnect: it left.
    """

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waiting, leaving = asyncio.ensure_future(result), asyncio.ensure_future(left())
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise ClientDisconnect
    finally:
        waiting.cancel()
        leaving.cancel()


class SpeakingResponse(StreamingResponse):
    """A streamed answer; however it ends, its row is free within one device program.

    Args:
        content: as of `StreamingResponse`.
        speaking: what the content reads.
    """

    def __init__(self, content: AsyncIterator[bytes], speaking: Speaking, media_type: str) -> None:
        super().__init__(content, media_type=media_type, headers={"Cache-Control": "no-store"})
        self._speaking = speaking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        try:
            await super().__call__(scope, receive, send)
        except SpeakingError as error:
            # The server closes a connection whose answer has no end, which a client notices.
            log.error("an utterance failed: %s", error)
            raise
        finally:
            await self._speaking.end()


async def audio_bytes(speaking: Speaking, encoder: Encoder) -> AsyncIterator[bytes]:
    """The encoded audio as it is made.

    Raises:
        SpeakingError: the utterance failed.
    """
    async for event in speaking.events():
        if isinstance(event, Failed):
            raise SpeakingError(str(event.error)) from event.error
        data = encoder.encode(event.wave) if isinstance(event, Chunk) else encoder.finish()
        if data:
            yield data


async def whole(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """All parts joined into one, once they are complete."""
    yield b"".join([part async for part in parts])


async def server_sent_events(
    speaking: Speaking, encoder: Encoder, include_codes: bool
) -> AsyncIterator[bytes]:
    """`speech.audio.delta` events with base64 audio, then `speech.audio.done` or `error`.

    Args:
        include_codes: add the chunk's codes, a list of Q for each frame. An encoder that holds
            audio back makes an event of codes alone.
    """
    frames = 0
    async for event in speaking.events():
        if isinstance(event, Failed):
            log.error("an utterance failed: %s", event.error)
            yield _sse({"type": "error", "error": {"message": fault(event.error)}})
            return
        data = encoder.encode(event.wave) if isinstance(event, Chunk) else encoder.finish()
        codes = {}
        if include_codes and isinstance(event, Chunk):
            codes["codes"] = event.codes.tolist()  # [T, Q]
        if data or codes:
            audio = base64.b64encode(data).decode()
            yield _sse({"type": "speech.audio.delta", "audio": audio, **codes})
        if isinstance(event, Chunk):
            frames += len(event.codes)
    assert isinstance(event, Done)
    yield _sse({"type": "speech.audio.done", "reason": event.reason, "frames": frames})


def _sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()

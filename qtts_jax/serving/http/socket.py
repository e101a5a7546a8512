"""`WS /v1/audio/speech/stream`: text as it arrives in, audio out, cancelled without reconnecting.

Messages of the client are JSON:
    {"type": "session.config", ...}      fields of `Voicing`, for the utterances that follow
    {"type": "input.text", "text": ...}  more text of the current utterance, or begins one
    {"type": "input.done"}               the text of this utterance is complete
    {"type": "input.cancel"}             stop speaking and forget what waits (barge-in)
    {"type": "session.close"}            speak what there is, then close

Messages of the server: {"type": "audio.start", "utterance", "sample_rate"}, binary 16-bit samples,
{"type": "audio.done", "utterance", "reason", "frames"}, {"type": "error", "message"} and
{"type": "session.done"}. Utterances are spoken in order.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.serving.encoders import PCM
from qtts_jax.serving.http.schemas import Voicing
from qtts_jax.serving.http.service import Events, Service, fault
from qtts_jax.serving.text_feed import ArrivingSpeech, TextParts
from qtts_jax.serving.utterance import Chunk, Failed


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.websocket("/v1/audio/speech/stream")
    async def speak(websocket: WebSocket) -> None:
        await websocket.accept()
        await Session(service, websocket).run()

    return routes


@dataclass(eq=False)
class _Utterance:
    """One utterance of a connection, from its first text on."""

    voicing: Voicing
    text: TextParts = field(default_factory=TextParts)
    characters: int = 0
    cancelled: bool = False
    speech: ArrivingSpeech | None = None

    def cancel(self) -> None:
        self.cancelled = True
        self.text.end()
        if self.speech is not None:
            self.speech.cancel()


class Session:
    """One connection: a task reads messages, another one speaks the utterances in order.

    Args:
        service: speaks.
        websocket: accepted.
    """

    def __init__(self, service: Service, websocket: WebSocket) -> None:
        self._service, self._websocket = service, websocket
        self._voicing = Voicing()
        # The utterance whose text is arriving; all that are not finished, in order.
        self._open: _Utterance | None = None
        self._unfinished: list[_Utterance] = []
        self._queue: asyncio.Queue[_Utterance | None] = asyncio.Queue()
        self._numbers = 0

    async def run(self) -> None:
        """Serve until the client closes or leaves."""
        speaker = asyncio.create_task(self._speak())
        try:
            await self._read()
            self._end_text()
            self._queue.put_nowait(None)
            await speaker
            await self._websocket.close()
        except (WebSocketDisconnect, RuntimeError):  # it has left
            pass
        finally:
            self._cancel()
            speaker.cancel()

    async def _read(self) -> None:
        """Take messages until the client is done."""
        while True:
            try:
                text = await asyncio.wait_for(
                    self._websocket.receive_text(), self._service.settings.idle_seconds
                )
            except TimeoutError:
                await self._send("error", message="the connection was idle for too long.")
                return
            except KeyError:
                await self._send("error", message="messages must be text, not binary.")
                continue
            try:
                message = json.loads(text)
                if not isinstance(message, dict):
                    raise RequestError("a message must be a JSON object.")
                if message.get("type") == "session.close":
                    return
                await self._take(message)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                await self._send("error", message=f"{where}: {first['msg']}")
            except (ValueError, RecursionError) as error:  # QTTSErrors of requests, too
                await self._send("error", message=str(error))

    async def _take(self, message: dict[str, Any]) -> None:
        """Carry out one message.

        Raises:
            ValueError: it cannot be done.
        """
        kind = message.pop("type", None)
        if kind == "session.config":
            self._voicing = Voicing(**message)
        elif kind == "input.text":
            await self._add_text(message.get("text"))
        elif kind == "input.done":
            self._end_text()
        elif kind == "input.cancel":
            self._cancel()
        else:
            raise RequestError(f"unknown message type {kind!r}.")

    async def _add_text(self, text: Any) -> None:
        if not isinstance(text, str):
            raise RequestError("input.text needs a string `text`.")
        settings = self._service.settings
        if self._open is None:
            if len(self._unfinished) > settings.max_ordered:
                raise RequestError("too many utterances are waiting; wait for audio.done.")
            self._open = _Utterance(self._voicing)
            self._unfinished.append(self._open)
            self._queue.put_nowait(self._open)
        self._open.characters += len(text)
        if self._open.characters > settings.max_characters:
            raise RequestError("the text of this utterance is too long; send input.done earlier.")
        self._open.text.push(text)

    def _end_text(self) -> None:
        if self._open is not None:
            self._open.text.end()
            self._open = None

    def _cancel(self) -> None:
        """Stop what is spoken and forget what waits."""
        self._open = None
        for utterance in self._unfinished:
            utterance.cancel()

    async def _speak(self) -> None:
        """Speak the utterances one after the other."""
        while (utterance := await self._queue.get()) is not None:
            try:
                if not utterance.cancelled:
                    await self._play(utterance)
            except QTTSError as error:
                await self._send("error", message=str(error))
            finally:
                utterance.cancel()
                self._unfinished.remove(utterance)
        await self._send("session.done")

    async def _play(self, utterance: _Utterance) -> None:
        """Speak one utterance.

        Raises:
            QTTSError: its voicing does not fit the checkpoint.
        """
        service, events = self._service, Events()
        voicing, number, frames = utterance.voicing, self._numbers, 0
        request = await service.voice_request(voicing, utterance.text, True)
        speech = ArrivingSpeech(service.engine, request, events, service.pace(voicing))
        utterance.speech = speech
        if utterance.cancelled:
            speech.cancel()
        self._numbers += 1
        encode = PCM(service.tts.sample_rate)
        await self._send("audio.start", utterance=number, sample_rate=encode.sample_rate)
        try:
            while isinstance(event := await events.next(), Chunk):
                frames += len(event.codes)
                if not utterance.cancelled:
                    await self._websocket.send_bytes(encode.encode(event.wave))
        finally:
            speech.cancel()
            await events.finished.wait()
            if speech.utterance is not None:
                service.metrics.finished(speech.utterance, events.outcome)
        if isinstance(event, Failed):
            await self._send("error", message=fault(event.error))
        await self._send("audio.done", utterance=number, reason=events.outcome, frames=frames)

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._websocket.send_json({"type": kind, **fields})

"""`POST /v1/audio/speech` and `POST /tts/stream`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from qtts_jax.serving.encoders import FORMATS, encoder
from qtts_jax.serving.http.schemas import PlainRequest, SpeechRequest
from qtts_jax.serving.http.service import Service
from qtts_jax.serving.http.speaking import (
    Speaking,
    SpeakingResponse,
    audio_bytes,
    server_sent_events,
    whole,
)

# Requests with the same value of this header are spoken in order.
CLIENT = "x-client-id"
# Texts of up to this many characters are prepared at once; longer ones in another thread, because
# the event loop would stand still.
SHORT = 1000


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.post("/v1/audio/speech")
    async def speech(body: SpeechRequest, request: Request) -> Response:
        encode = encoder(body.response_format, service.tts.sample_rate)
        speaking = await _begin(service, body, request)
        if body.stream_format == "sse":
            events = server_sent_events(speaking, encode, body.include_codes)
            return SpeakingResponse(events, speaking, "text/event-stream")
        content = audio_bytes(speaking, encode)
        media_type = FORMATS[body.response_format].media_type
        return SpeakingResponse(content if body.stream else whole(content), speaking, media_type)

    @routes.post("/tts/stream")
    async def plain(body: PlainRequest, request: Request) -> Response:
        """Bare 16-bit samples as they are made."""
        same = SpeechRequest(
            input=body.text, language=body.language, voice=body.voice, seed=body.seed
        )
        speaking = await _begin(service, same, request)
        encode = encoder("pcm", service.tts.sample_rate)
        return SpeakingResponse(audio_bytes(speaking, encode), speaking, encode.media_type)

    return routes


async def _begin(service: Service, body: SpeechRequest, request: Request) -> Speaking:
    """Submit a request when it is its client's turn, and wait for its first audio."""
    wanted = await service.voice_request(body, body.input, body.stream_text)
    if len(body.input) <= SHORT:
        prepared = service.tts.prepare(wanted)
    else:
        prepared = await run_in_threadpool(service.tts.prepare, wanted)
    at_once = not body.stream and body.stream_format == "audio"
    client, pace = request.headers.get(CLIENT), service.pace(body, whole=at_once)
    return await Speaking.begin(service, prepared, pace, client, request.receive)

"""`POST /v1/audio/speech/batch`: several utterances, generated together and answered whole."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import Message

from qtts_jax.errors import BusyError
from qtts_jax.serving.encoders import encoder
from qtts_jax.serving.http.schemas import BatchItem, BatchRequest
from qtts_jax.serving.http.service import Service, fault
from qtts_jax.serving.http.speaking import Speaking, unless_left
from qtts_jax.serving.utterance import Chunk, Done, Failed

Result = dict[str, Any]


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/audio/speech/batch")
    async def batch(body: BatchRequest, request: Request) -> dict[str, list[Result]]:
        """One result for each item, in their order: base64 audio, or the item's own fault."""
        return {"results": await unless_left(_all(service, body.items), request.receive)}

    return routes


async def _all(service: Service, items: Sequence[BatchItem]) -> list[Result]:
    """The results of all items.

    Raises:
        BusyError: the queue has no room for all of them; none is spoken.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(service, item)) for item in items]
    except* BusyError as errors:
        busy = errors
    else:
        return [task.result() for task in tasks]
    raise BusyError(str(busy.exceptions[0]))


async def _one(service: Service, item: BatchItem) -> Result:
    """The result of one item.

    Raises:
        BusyError: the queue is full, which is the fault of no item.
    """
    try:
        encode = encoder(item.response_format, service.tts.sample_rate)
        wanted = await service.voice_request(item, item.input, item.stream_text)
        prepared = await run_in_threadpool(service.tts.prepare, wanted)
        pace = service.pace(item, whole=True)
        speaking = await Speaking.begin(service, prepared, pace, None, _never_leaves)
    except BusyError:
        raise
    except Exception as error:
        return _failed(error)
    audio, frames = b"", 0
    try:
        async for event in speaking.events():
            if isinstance(event, Failed):
                return _failed(event.error)
            audio += encode.encode(event.wave) if isinstance(event, Chunk) else encode.finish()
            frames += len(event.codes) if isinstance(event, Chunk) else 0
    finally:
        await speaking.end()
    assert isinstance(event, Done)
    data = base64.b64encode(audio).decode()
    return {"audio": data, "reason": event.reason, "frames": frames}


async def _never_leaves() -> Message:
    """The connection of one item: that of the whole batch is watched once, for all of them."""
    return await asyncio.get_running_loop().create_future()


def _failed(error: Exception) -> Result:
    return {"error": {"message": fault(error)}}

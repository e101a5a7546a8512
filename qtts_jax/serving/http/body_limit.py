"""Refuses bodies that are too large while they arrive, whatever their headers claim."""

from __future__ import annotations

import json

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware that answers 413 once a body is larger than allowed.

    Args:
        app: the application.
        most_bytes: of one body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        message = f"the body is larger than the {self.most_bytes} bytes that are allowed."
        size = 0

        async def limited() -> Message:
            nonlocal size
            part = await receive()
            size += len(part.get("body", b""))
            if size > self.most_bytes:
                # FastAPI makes any other exception while it reads a body a 400.
                raise HTTPException(413, message)
            return part

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most_bytes:
            body = json.dumps({"error": {"message": message, "type": "invalid_request"}}).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, limited, send)

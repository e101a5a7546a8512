"""Refuses bodies that are too large while they arrive, whatever their headers claim."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _TooLarge(Exception):
    """The body is larger than allowed."""


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
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most_bytes:
                raise _TooLarge
            return message

        length = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length) > self.most_bytes:
                raise _TooLarge
            await self.app(scope, limited, send)
        except _TooLarge:
            message = f"the body is larger than the {self.most_bytes} bytes that are allowed."
            body = json.dumps({"error": {"message": message, "type": "invalid_request"}}).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": body})

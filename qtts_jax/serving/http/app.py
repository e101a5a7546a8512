"""The application: routes, limits, keys and error answers."""

from __future__ import annotations

import hmac
import math

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect, HTTPConnection

from qtts_jax.errors import BusyError, QTTSError
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.http import batch, socket, speech, voices, web_page
from qtts_jax.serving.http.body_limit import BodyLimit
from qtts_jax.serving.http.service import Service
from qtts_jax.serving.http.settings import ServerSettings


def create_app(engine: Engine, settings: ServerSettings) -> FastAPI:
    """The ASGI application in front of an engine, which is started and stopped by the caller."""
    service = Service(engine, settings)

    async def check_key(connection: HTTPConnection) -> None:  # another thread would take longer
        given = connection.headers.get("authorization", "")
        wanted = f"Bearer {settings.api_key}"
        if settings.api_key is not None and not hmac.compare_digest(
            given.encode(), wanted.encode()
        ):
            raise HTTPException(401, "send the key of this server as `Authorization: Bearer KEY`.")

    app = FastAPI(title="qtts", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit, most_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
        )
    for routes in (speech, batch, voices, socket):
        app.include_router(routes.router(service), dependencies=[Depends(check_key)])
    app.include_router(web_page.router())

    @app.get("/v1/models", dependencies=[Depends(check_key)])
    def models() -> dict[str, object]:
        name = engine.tts.config.size
        model = {"id": f"qwen3-tts-{name}", "object": "model", "owned_by": "qtts"}
        abilities = {
            "modes": list(engine.tts.modes),
            "languages": engine.tts.supported_languages,
            "sample_rate": engine.tts.sample_rate,
        }
        return {"object": "list", "data": [model | abilities]}

    @app.get("/health")
    def health() -> JSONResponse:
        """Whether the process works; also while it warms up."""
        return JSONResponse(
            {"status": "ok" if engine.healthy else "broken"}, 200 if engine.healthy else 500
        )

    @app.get("/ready")
    def ready() -> JSONResponse:
        """Whether requests are taken: every program is compiled."""
        return JSONResponse({"ready": engine.ready}, 200 if engine.ready else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(QTTSError)
    async def refused(_: Request, error: QTTSError) -> JSONResponse:
        if not isinstance(error, BusyError):
            return _error(400, str(error))
        if not engine.ready:
            return _error(503, str(error), {"Retry-After": "5"})
        seconds = math.ceil(service.metrics.mean_seconds / engine.settings.rows[-1])
        return _error(429, str(error), {"Retry-After": str(max(1, seconds))})

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _error(400, f"{where}: {first['msg']}" if where else str(first["msg"]))

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    return app


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "code": status}}
    return JSONResponse(body, status, headers)

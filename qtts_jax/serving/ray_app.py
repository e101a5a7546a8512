"""A Ray Serve application: replicas of the server behind one address, one a GPU or TPU chip.

    serve run qtts_jax/serving/deploy/ray.yaml

Ray places replicas, balances requests between them and replaces broken ones; everything else is the
application of `qtts serve`, which each replica runs whole.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from qtts_jax import embedded
from qtts_jax.extras import import_extra
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.http.app import create_app
from qtts_jax.serving.http.settings import API_KEY, ServerSettings
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.tts.qwen_tts import QwenTTS

# Requests of a replica besides those that are spoken or wait: lists of voices, uploads, health.
OTHER_REQUESTS = 32


class Arguments(BaseModel):
    """What `args` of a Serve configuration may say.

    Attributes:
        model: folder of a converted checkpoint, on every node; None is nano.
        dtype, weights: as of `QwenTTS.from_pretrained`.
        replicas: servers.
        actor: `ray_actor_options` of a replica: the devices that it has for itself.
        engine: fields of `EngineSettings`, of each replica.
        server: fields of `ServerSettings`. A folder `voices` that all nodes share makes an upload
            known to every replica.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    weights: Literal["int8", "fp8", "int4"] | None = None
    replicas: int = Field(default=1, ge=1)
    actor: dict[str, Any] = {}
    engine: EngineSettings = EngineSettings()
    server: ServerSettings = ServerSettings()


class Server:
    """One replica; Ray sends it requests once it is made, which is when all is compiled.

    Args:
        arguments: of the application. The key of clients is that of the replica's environment.
    """

    def __init__(self, arguments: Arguments) -> None:
        tts = QwenTTS.from_pretrained(
            arguments.model or embedded.DIRECTORY, dtype=arguments.dtype, weights=arguments.weights
        )
        key = os.environ.get(API_KEY) or arguments.server.api_key
        self._settings = dataclasses.replace(arguments.server, api_key=key)
        self._engine = Engine(tts, arguments.engine)
        self._engine.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that answers this replica's requests."""
        return create_app(self._engine, self._settings)

    def check_health(self) -> None:
        """Raise if the engine broke, so that Ray replaces the replica."""
        if not self._engine.healthy:
            raise RuntimeError("the engine broke; see the log of this replica.")


def application(arguments: dict[str, Any]) -> Any:
    """The `ray.serve.Application` that `arguments`, fields of `Arguments`, describe.

    Raises:
        MissingExtraError: Ray is not installed.
        ValueError: a field is unknown or impossible.
    """
    serve = import_extra("ray.serve", "ray", "The application of several replicas")
    checked = Arguments.model_validate(arguments)
    # Ray holds back what is above; below, the engine's own bound answers 429.
    most = checked.engine.rows[-1] + checked.engine.max_waiting + OTHER_REQUESTS
    deploy = serve.deployment(
        num_replicas=checked.replicas,
        ray_actor_options=checked.actor,
        max_ongoing_requests=most,
        graceful_shutdown_timeout_s=checked.engine.max_seconds,
    )
    return deploy(serve.ingress()(Server)).bind(checked)

"""`qtts serve`: speech over HTTP and WebSocket for many clients at once."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

from qtts_jax.cli.common import add_flow, add_model, load_tts, note, positive, set_flow
from qtts_jax.extras import import_extra
from qtts_jax.serving.http.settings import API_KEY

# Seconds that speech in progress is given after SIGTERM.
DRAIN_SECONDS = 60


def add_command(commands: Any) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "serve",
        help="serve speech over HTTP",
        description="Serve speech to many clients at once. The environment variable "
        f"{API_KEY} is a bearer key that they must then send.",
    )
    add_model(parser)
    add_options(parser)
    parser.set_defaults(run=_serve)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the server, which `serve` reads; those of the model are `add_model`'s."""
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=9000, help="default: %(default)s")
    parser.add_argument("--voices", type=Path, help="folder that keeps uploaded voices")
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        help="a web origin that may use the server (default: none)",
    )
    group = parser.add_argument_group("device")
    group.add_argument(
        "--rows", type=positive, default=8, help="utterances together (default: %(default)s)"
    )
    group.add_argument(
        "--chunk-frames", type=positive, default=4, help="frames of a chunk (default: %(default)s)"
    )
    group.add_argument(
        "--prebuffer-ms",
        type=float,
        default=0.0,
        help="audio that is made before the first of it is sent (default: %(default)s)",
    )
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--max-seconds", type=float, default=60.0, help="of an utterance (default: %(default)s)"
    )
    group.add_argument(
        "--max-reference-seconds",
        type=float,
        default=15.0,
        help="of a recording whose voice is cloned (default: %(default)s)",
    )
    group.add_argument(
        "--max-prompt", type=positive, default=512, help="positions (default: %(default)s)"
    )
    group.add_argument(
        "--max-waiting", type=positive, default=64, help="requests (default: %(default)s)"
    )
    add_flow(parser.add_argument_group("decoder of a 25 Hz tokenizer"))


def _serve(args: argparse.Namespace) -> int:
    import_extras()
    return serve(load_tts(args), args)


def import_extras() -> None:
    """Import the optional packages of the server, before a model is loaded in vain.

    Raises:
        MissingExtraError: one is not installed.
    """
    for module in ("uvicorn", "fastapi", "multipart", "prometheus_client", "websockets", "av"):
        import_extra(module, "serve", "the server")


def serve(tts: Any, args: argparse.Namespace) -> int:
    """Serve a loaded `QwenTTS` until SIGINT or SIGTERM.

    Args:
        args: with the options of `add_options`.

    Returns:
        The exit status.
    """
    import uvicorn

    from qtts_jax.serving.engine import Engine
    from qtts_jax.serving.http.app import create_app
    from qtts_jax.serving.http.settings import ServerSettings
    from qtts_jax.serving.settings import EngineSettings, sizes_up_to

    set_flow(args, tts.speech_tokenizer, {})
    engine = Engine(
        tts,
        EngineSettings(
            rows=sizes_up_to(args.rows, 4),
            chunk_frames=sizes_up_to(args.chunk_frames, 4),
            prefill_rows=(1, 4, 16) if args.rows >= 64 else (1, 4),
            max_prompt=args.max_prompt,
            max_seconds=args.max_seconds,
            max_reference_seconds=args.max_reference_seconds,
            max_waiting=args.max_waiting,
        ),
    )
    settings = ServerSettings(
        api_key=os.environ.get(API_KEY) or None,
        cors_origins=tuple(args.cors_origin),
        voices=args.voices,
        prebuffer_ms=args.prebuffer_ms,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(engine, settings),
            host=args.host,
            port=args.port,
            log_level="warning",
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    faults: list[Exception] = []

    def start() -> None:
        try:
            engine.start()
        except Exception as error:  # raised again by the main thread
            faults.append(error)
            server.should_exit = True
        else:
            note(f"note: ready at http://{args.host}:{args.port}")

    warming = threading.Thread(target=start, daemon=True)
    warming.start()
    # uvicorn raises SIGTERM again once it has stopped, which must not end the process at once.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run()  # until SIGINT or SIGTERM, and then until the answers in progress are complete
    if faults:
        raise faults[0]
    if engine.ready:
        engine.stop(DRAIN_SECONDS)
    return 0

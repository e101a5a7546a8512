"""A server of an engine, in a thread of this process."""

import contextlib
import socket
import threading

import uvicorn

from qtts_jax.serving.http.app import create_app


@contextlib.contextmanager
def live_server(engine, settings):
    """host:port of a server that runs until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(engine, settings), log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()

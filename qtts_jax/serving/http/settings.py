"""Settings of the HTTP server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# The environment variable with the key that clients must send.
API_KEY = "QTTS_API_KEY"


@dataclass(frozen=True)
class ServerSettings:
    """Limits and options of the HTTP server; those of the device are in `EngineSettings`.

    Attributes:
        api_key: the bearer key that clients must send; None lets everyone in.
        cors_origins: origins of web pages that may use the server.
        voices: folder of uploaded voices; None keeps them in memory alone.
        max_voices: uploaded voices.
        max_characters: of one text.
        max_upload_bytes: of one recording.
        max_ordered: requests of one client that wait for their turn.
        prebuffer_ms: audio of an utterance that is made before the first of it is sent, unless its
            request says otherwise.
        idle_seconds: after which a WebSocket without messages is closed.
    """

    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    voices: Path | None = None
    max_voices: int = 100
    max_characters: int = 4096
    max_upload_bytes: int = 5_000_000
    max_ordered: int = 16
    prebuffer_ms: float = 0.0
    idle_seconds: float = 300.0

    @property
    def max_body_bytes(self) -> int:
        """Of a request: a recording as base64 and all other fields."""
        return self.max_upload_bytes * 4 // 3 + 16 * self.max_characters + 65_536

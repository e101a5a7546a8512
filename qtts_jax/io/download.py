"""Bytes behind an http(s) URL, with bounds on size, time and where redirects lead."""

import contextlib
import http.client
import ipaddress
import socket
import threading
import time
from urllib.parse import urljoin, urlsplit

from qtts_jax.errors import AudioError

MAX_BYTES = 50_000_000
MAX_SECONDS = 30.0
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


def download(
    url: str, name: str, *, max_bytes: int = MAX_BYTES, max_seconds: float = MAX_SECONDS
) -> bytes:
    """The body of the answer to a GET request; no proxy is used.

    Args:
        url: http or https. Its redirects are followed to public addresses only, judged by the
            address that is really connected, so that a foreign server cannot lead into this
            network.
        name: what messages call the audio.
        max_bytes: limit of the body.
        max_seconds: limit for all redirects and the body together.

    Raises:
        AudioError: another scheme, a redirect to a private address, an answer that is too large or
            too slow, or any fault of the network.
    """
    deadline = time.monotonic() + max_seconds
    try:
        for hop in range(_MAX_REDIRECTS + 1):
            content, target = _get(url, name, hop > 0, max_bytes, deadline)
            if target is None:
                return content
            url = urljoin(url, target)
        raise AudioError(f"{name} cannot be fetched from {url}: it redirects too often.")
    except AudioError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        _check_time(name, url, deadline, max_seconds)
        fault = " ".join(str(error).split()) or type(error).__name__
        raise AudioError(f"{name} cannot be fetched from {url}: {fault}.") from error


def _get(
    url: str, name: str, redirected: bool, max_bytes: int, deadline: float
) -> tuple[bytes, str | None]:
    """One request: (body, None), or (nothing, where it redirects to)."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in _CONNECTIONS or not parts.hostname:
        raise AudioError(f"{name} cannot be fetched from {url}: only http and https are.")
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    connection = _CONNECTIONS[parts.scheme.lower()](parts.hostname, parts.port, timeout=left)
    try:
        connection.connect()
        link = connection.sock
        if redirected and not ipaddress.ip_address(link.getpeername()[0]).is_global:
            raise AudioError(
                f"{name} cannot be fetched: it redirects to the private address of {url}; give "
                "the audio itself."
            )
        # Ends slow headers and bodies, whose single reads would each start a new timeout.
        watchdog = threading.Timer(max(deadline - time.monotonic(), 0), _shut, [link])
        watchdog.daemon = True
        watchdog.start()
        try:
            target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
            connection.request("GET", target, headers={"User-Agent": "qtts_jax"})
            response = connection.getresponse()
            location = response.getheader("Location")
            if response.status in _REDIRECTS and location:
                return b"", location
            if response.status != 200:
                raise OSError(f"HTTP status {response.status} {response.reason}")
            content = _read(response, name, url, max_bytes)
        finally:
            watchdog.cancel()
        if time.monotonic() >= deadline:
            raise TimeoutError("timed out")
        return content, None
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, name: str, url: str, max_bytes: int) -> bytes:
    content = bytearray()
    while block := response.read1(1 << 16):
        content += block
        if len(content) > max_bytes:
            raise AudioError(
                f"{name} cannot be fetched from {url}: it is larger than {max_bytes / 1e6:g} MB."
            )
    if response.length:
        raise http.client.IncompleteRead(bytes(content), response.length)
    return bytes(content)


def _check_time(name: str, url: str, deadline: float, max_seconds: float) -> None:
    if time.monotonic() >= deadline:
        raise AudioError(
            f"{name} cannot be fetched from {url}: it took longer than {max_seconds:g} s."
        )


def _shut(link: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        link.shutdown(socket.SHUT_RDWR)

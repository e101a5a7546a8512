"""Bytes behind an http(s) URL."""

import http.client
import urllib.error
import urllib.request

from qtts_jax.errors import AudioError

_SECONDS = 60


def download(url: str, name: str) -> bytes:
    """The answer of a URL.

    Raises:
        AudioError: it cannot be fetched; `name` is what the message calls the audio.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            return response.read()
    except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException) as error:
        raise AudioError(f"{name} cannot be fetched from {url}: {error}.") from error

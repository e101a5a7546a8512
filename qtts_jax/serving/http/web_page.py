"""The web page at `/` and the script of its audio thread; both are the same for everyone."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

_FOLDER = Path(__file__).parent / "page"


def router() -> APIRouter:
    """The routes of the page, which need no key; those that the page calls do."""
    routes = APIRouter()
    page = (_FOLDER / "index.html").read_bytes()
    script = (_FOLDER / "player.js").read_bytes()
    headers = {
        "Content-Security-Policy": _policy(page.decode()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # a new version of the server has a new page
    }

    @routes.get("/")
    def index() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    @routes.get("/player.js")
    def player() -> Response:
        return Response(script, media_type="text/javascript; charset=utf-8", headers=headers)

    return routes


def _policy(page: str) -> str:
    """A content security policy: own scripts and styles, named by their hashes; requests to here.

    Nothing that gets into the page by mistake runs, and nothing leaves for another host.
    """
    sources = {}
    for element in ("script", "style"):
        blocks = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in blocks]
        sources[element] = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'self' {sources['script']}; style-src {sources['style']}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

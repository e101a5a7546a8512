"""What a URL may lead to: http(s) only, public redirects only, bounded size and time."""

import http.server
import threading
import time

import pytest

from qtts_jax.errors import AudioError
from qtts_jax.io.download import download

BODY = bytes(range(256)) * 400


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        target = self.path.partition("?to=")[2]
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.end_headers()
        if self.path == "/slow":
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                pass
        elif not target:
            self.wfile.write(BODY)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        served.daemon_threads = True
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_the_body_is_returned_whole(server):
    assert download(f"{server}/a.wav?x=1#part", "audio") == BODY


@pytest.mark.parametrize("host", ["{server}/b.wav", "/b.wav"])
def test_a_redirect_to_a_private_address_is_refused(server, host):
    with pytest.raises(AudioError, match="redirects to the private address of http://127"):
        download(f"{server}/a.wav?to={host.format(server=server)}", "audio")


@pytest.mark.parametrize("target", ["ftp://example.com/a.wav", "file:///etc/hostname"])
def test_a_redirect_to_another_scheme_is_refused(server, target):
    with pytest.raises(AudioError, match="only http and https"):
        download(f"{server}/a.wav?to={target}", "audio")


def test_a_body_that_is_too_large_is_refused(server):
    with pytest.raises(AudioError, match=r"larger than 0\.05 MB"):
        download(f"{server}/a.wav", "audio", max_bytes=50_000)


def test_an_answer_that_drips_ends_at_the_total_time(server):
    start = time.monotonic()
    with pytest.raises(AudioError, match=r"took longer than 0\.3 s"):
        download(f"{server}/slow", "audio", max_seconds=0.3)
    assert time.monotonic() - start < 3

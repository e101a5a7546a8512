"""Audio in from every kind of source, the faults it may have, and audio out."""

import base64
import http.server
import io
import os
import socketserver
import sys
import threading

import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile

from qtts_jax.errors import AudioError, QTTSError
from qtts_jax.io.audio import load_audio
from qtts_jax.io.audio_writer import AudioWriter, PcmWriter, save_audio

RATE = 24000


@pytest.fixture
def noise():
    """Stereo float32 [T, 2] in (-1, 1)."""
    return np.random.default_rng(0).uniform(-0.9, 0.9, (4000, 2)).astype(np.float32)


def wav_bytes(samples, rate, subtype="FLOAT"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def as_path(content, tmp_path):
    path = tmp_path / "in.wav"
    path.write_bytes(content)
    return path


SOURCES = {
    "path": as_path,
    "string path": lambda content, tmp_path: str(as_path(content, tmp_path)),
    "bytes": lambda content, _: content,
    "base64": lambda content, _: base64.b64encode(content).decode(),
    "base64 in lines": lambda content, _: base64.encodebytes(content).decode(),
    "data URL": lambda content, _: "data:audio/wav;base64," + base64.b64encode(content).decode(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_samples(kind, noise, tmp_path):
    source = SOURCES[kind](wav_bytes(noise[:, 0], RATE), tmp_path)
    loaded = load_audio(source, RATE)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, noise[:, 0])


@pytest.mark.parametrize("kind", SOURCES)
def test_stereo_is_averaged_and_other_rates_are_resampled(kind, noise, tmp_path):
    source = SOURCES[kind](wav_bytes(noise, 16000), tmp_path)
    expected = librosa.resample(noise.mean(axis=1), orig_sr=16000, target_sr=RATE)
    np.testing.assert_array_equal(load_audio(source, RATE), expected)


def test_relative_path_is_read(noise, tmp_path, monkeypatch):
    as_path(wav_bytes(noise[:, 0], RATE), tmp_path)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load_audio("in.wav", RATE), noise[:, 0])


def test_url_is_fetched_unless_forbidden(noise, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    content = wav_bytes(noise[:, 0], RATE)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/in.wav" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        np.testing.assert_array_equal(
            load_audio(f"{url}/in.wav", RATE, allow_url=True), noise[:, 0]
        )
        with pytest.raises(AudioError, match="404"):
            load_audio(f"{url}/absent.wav", RATE, allow_url=True)
        with pytest.raises(AudioError, match="not accepted"):
            load_audio(f"{url}/in.wav", RATE)
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "IncompleteRead"),
        (b"hello\r\n\r\n", "hello"),
    ],
    ids=["cut", "no HTTP"],
)
def test_answer_that_breaks_the_protocol_is_one_clear_error(answer, fault, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Broken(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            self.wfile.write(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(AudioError, match=f"cannot be fetched from .*{fault}"):
            load_audio(f"http://127.0.0.1:{server.server_address[1]}/in.wav", RATE, allow_url=True)
        server.shutdown()


def test_url_with_a_space_is_one_clear_error():
    with pytest.raises(AudioError, match="cannot be fetched from"):
        load_audio("http://127.0.0.1:1/a file.wav", RATE, allow_url=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_array_is_taken_as_it_is(dtype, noise):
    loaded = load_audio((noise[:, 0].astype(dtype), RATE), RATE)
    np.testing.assert_array_equal(loaded, noise[:, 0])


def test_array_channels_come_last(noise):
    np.testing.assert_array_equal(load_audio((noise, RATE), RATE), noise.mean(axis=1))
    with pytest.raises(AudioError, match="transpose"):
        load_audio((noise.T, RATE), RATE)


def test_device_array_is_taken(noise):
    loaded = load_audio((jnp.asarray(noise[:, 0], jnp.bfloat16), RATE), RATE)
    np.testing.assert_allclose(loaded, noise[:, 0], rtol=2**-8)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
    ],
)
def test_integer_array_is_scaled_as_pcm(samples, expected):
    np.testing.assert_array_equal(load_audio((samples, RATE), RATE), np.float32(expected))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("no/such/file.wav", "no file"),
        ("x" * 300 + ".wav", "no file"),
        ("a\0b", "no file"),
        (b"", "not audio"),
        (b"RIFF but not really", "not audio"),
        ("data:audio/wav;base64,A", "not valid base64"),
        ("QUJD" * 100, "base64 is not audio"),
        ("http://127.0.0.1:9/a.wav", "is a URL, which is not accepted"),
        ((np.zeros(0, np.float32), RATE), "empty"),
        ((np.zeros((0, 2), np.float32), RATE), "empty"),
        ((np.array([0.1, np.nan, 0.2]), RATE), "NaN"),
        ((np.array([0.1, np.inf, 0.2]), RATE), "NaN or infinite"),
        ((np.zeros((2, 3, 4)), RATE), "shape"),
        ((np.float32(1), RATE), "shape"),
        (([[0.0], [0.0, 1.0]], RATE), "shape"),
        ((np.zeros(100, np.int64), RATE), "int64"),
        ((np.zeros(100, bool), RATE), "bool"),
        ((np.zeros(100), 0), "sample rate"),
        ((np.zeros(100), -24000), "sample rate"),
        ((np.zeros(100), 24), "from 1000"),
        ((np.zeros(100), 10**7), "sample rate"),
        ((np.zeros(100), 22050.5), "whole number"),
        ((np.zeros(100), float("nan")), "sample rate"),
        ((np.zeros(100), "24000"), "must be a number"),
        (np.zeros(100), "array, rate"),
        (None, "is missing: it must be .* NoneType"),
        (io.BytesIO(b"RIFF"), r"file object \(BytesIO\): give the bytes"),
        ((np.full(100, 3e38, np.float32), RATE), "samples up to 3e.38, far beyond full scale"),
        ((np.float32([[0.5, -0.5]] * 100), RATE), "opposite phase"),
    ],
)
def test_bad_audio_is_one_clear_sentence(source, fault):
    with pytest.raises(AudioError, match=fault) as caught:
        load_audio(source, RATE, name="ref_audio")
    message = str(caught.value)
    assert "ref_audio" in message
    assert "\n" not in message
    assert len(message) < 300


def test_files_that_are_not_audio_are_refused(tmp_path):
    text = tmp_path / "notes.wav"
    text.write_text("not audio at all")
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    with pytest.raises(AudioError, match="not audio in a known format"):
        load_audio(text, RATE)
    with pytest.raises(AudioError, match="empty file"):
        load_audio(str(empty), RATE)
    with pytest.raises(AudioError, match="no file"):
        load_audio(tmp_path, RATE)


def test_file_without_samples_is_empty():
    with pytest.raises(AudioError, match="empty"):
        load_audio(wav_bytes(np.zeros(0, np.float32), RATE), RATE)


def test_too_short_audio_says_how_much_is_needed_at_the_wanted_rate():
    source = (np.zeros(960, np.float32), 12000)
    assert load_audio(source, RATE, min_samples=1920).shape == (1920,)
    with pytest.raises(AudioError, match=r"1920 samples \(0\.080 s\).*at least 1921 \(0\.080 s\)"):
        load_audio(source, RATE, min_samples=1921)


@pytest.mark.parametrize("suffix", [".wav", ".npy"])
def test_saved_audio_is_the_same_float32(suffix, noise, tmp_path):
    path = tmp_path / f"out{suffix}"
    save_audio(path, noise[:, 0] * 3, RATE)
    save_audio(path, jnp.asarray(noise[:, 0]), RATE)
    if suffix == ".npy":
        saved = np.load(path)
    else:
        saved, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        assert soundfile.info(path).subtype == "FLOAT"
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, noise[:, 0])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_samples_beyond_one_are_not_clipped(tmp_path):
    save_audio(tmp_path / "loud.wav", np.array([1.5, -2.0], np.float32), RATE)
    np.testing.assert_array_equal(load_audio(tmp_path / "loud.wav", RATE), [1.5, -2.0])


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_save_keeps_the_old_file_and_leaves_nothing(fault, noise, tmp_path, monkeypatch):
    path = tmp_path / "out.wav"
    save_audio(path, noise[:, 0], RATE)
    before = path.read_bytes()

    def fail(*args):
        raise fault

    monkeypatch.setattr("os.replace", fail)
    expected = KeyboardInterrupt if isinstance(fault, KeyboardInterrupt) else QTTSError
    with pytest.raises(expected):
        save_audio(path, noise[:, 1], RATE)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.wav"]


@pytest.mark.parametrize(
    ("name", "wave", "fault"),
    [
        ("out.mp3", np.zeros(4), "name it .wav or .npy"),
        ("absent/out.wav", np.zeros(4), "does not exist"),
        ("out.wav", np.zeros((4, 2)), "shape"),
        ("out.wav", np.zeros(4, np.int16), "int16"),
    ],
)
def test_impossible_save_is_refused(name, wave, fault, tmp_path):
    with pytest.raises(AudioError, match=fault):
        save_audio(tmp_path / name, wave, RATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".wav", ".npy"])
def test_chunks_are_written_as_one_file(suffix, noise, tmp_path):
    whole, chunked = tmp_path / f"whole{suffix}", tmp_path / f"chunked{suffix}"
    save_audio(whole, noise[:, 0], RATE)
    with AudioWriter(chunked, RATE) as writer:
        for chunk in np.split(noise[:, 0], [1, 1, 700]):
            writer.write(chunk)
            if suffix == ".wav" and len(chunk):
                found = soundfile.read(chunked, dtype="float32")[0]  # valid at every moment
                np.testing.assert_array_equal(found[-len(chunk) :], chunk[-len(found) :])
            elif suffix == ".npy":
                assert not chunked.exists()
    read = np.load if suffix == ".npy" else lambda path: soundfile.read(path, dtype="float32")[0]
    np.testing.assert_array_equal(read(chunked), read(whole))


def test_interrupted_chunks_are_kept_as_wav(noise, tmp_path):
    def interrupted(path):
        with AudioWriter(path, RATE) as writer:
            writer.write(noise[:, 0])
            raise KeyboardInterrupt

    for suffix in (".wav", ".npy"):
        with pytest.raises(KeyboardInterrupt):
            interrupted(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav")[0], noise[:, 0])
    assert not (tmp_path / "out.npy").exists()


def test_pcm_for_a_player():
    stream = io.BytesIO()
    with PcmWriter(stream) as writer:
        writer.write(np.float32([0, 0.5]))
        writer.write(np.float32([2, -1]))
    assert np.frombuffer(stream.getvalue(), "<i2").tolist() == [0, 16384, 32767, -32767]


def test_writer_refuses_an_impossible_target_before_any_audio(tmp_path):
    with pytest.raises(AudioError, match="name it"):
        AudioWriter(tmp_path / "out.mp3", RATE)
    with pytest.raises(AudioError, match="does not exist"):
        AudioWriter(tmp_path / "absent" / "out.wav", RATE)
    with pytest.raises(AudioError, match="shape"):
        AudioWriter(tmp_path / "out.wav", RATE).write(np.zeros((3, 2)))


def test_nan_in_a_file_is_named_as_such(noise, tmp_path):
    noise[7, 0] = np.nan
    with pytest.raises(AudioError, match="holds NaN or infinite samples"):
        load_audio(as_path(wav_bytes(noise[:, 0], RATE), tmp_path), RATE)


def test_a_folder_and_a_pipe_have_their_own_sentences(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(str(tmp_path), RATE)
    with pytest.raises(AudioError, match="is a pipe or a device"):
        load_audio(pipe, RATE)


def test_known_formats_are_named():
    with pytest.raises(AudioError, match="give WAV, FLAC, Ogg Vorbis or Opus, MP3, .*M4A, AAC"):
        load_audio(b"RIFF but not really", RATE)


def test_silence_is_refused_where_a_voice_is_needed():
    silence = (np.full(4000, 1e-5, np.float32), RATE)
    assert load_audio(silence, RATE).shape == (4000,)
    with pytest.raises(AudioError, match=r"ref is silent \(peak 1e-05\)"):
        load_audio(silence, RATE, name="ref", audible=True)
    load_audio((np.full(4000, 1e-4, np.float32), RATE), RATE, audible=True)


def aac(wave, container):
    av = pytest.importorskip("av")
    content = io.BytesIO()
    with av.open(content, "w", format=container) as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return content.getvalue()


@pytest.mark.parametrize("container", ["ipod", "adts"])
def test_m4a_and_aac_are_read(container, tmp_path):
    tone = np.float32(0.5 * np.sin(2 * np.pi * 440 / RATE * np.arange(24000)))
    content = aac(tone, container)
    for source in (content, as_path(content, tmp_path)):
        loaded = load_audio(source, RATE)
        assert abs(len(loaded) - len(tone)) <= 3072
        spectrum = np.abs(np.fft.rfft(loaded[:24000], 24000))
        assert abs(int(spectrum.argmax()) - 440) <= 1


def test_m4a_without_pyav_names_the_extra(monkeypatch):
    content = b"\0\0\0\x20ftypM4A " + bytes(100)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"needs PyAV: pip install 'qtts_jax\[audio\]'"):
        load_audio(content, RATE)

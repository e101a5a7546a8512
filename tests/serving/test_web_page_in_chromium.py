"""The web page in headless Chromium: it speaks, sound samples arrive, and Stop frees the row."""

import base64
import shutil
import time

import numpy as np
import pytest
import requests
import soundfile

from qtts_jax.serving.encoders import pcm16
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.tts.voices import CustomVoice
from tests.support.live_server import live_server
from tests.support.recording import recording

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# Keeps the samples on their way to the loudspeaker: the page itself shows what it means to play.
TAP = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function(target) {
  if (target === this.context.destination) {
    window.tap = new AnalyserNode(this.context, {fftSize: 4096});
    connect.call(this, window.tap);
  }
  return connect.call(this, target);
};
"""
LOUDEST = """
if (!window.tap) return 0;
const samples = new Float32Array(4096);
window.tap.getFloatTimeDomainData(samples);
return Math.max(...samples.map(Math.abs));
"""
# Pixels of a picture that something was drawn on.
DRAWN = """
const canvas = document.getElementById(arguments[0]);
const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
return data.filter((value, i) => i % 4 === 3 && value > 0).length / canvas.height;
"""
# Presses Escape with the first samples, however soon the speech is complete.
ESCAPE_WHILE_SPEAKING = """
const status = document.getElementById("status");
window.shown = [];
new MutationObserver(() => {
  window.shown.push(status.textContent);
  if (status.textContent === "Speaking …")
    document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
}).observe(status, {childList: true, characterData: true, subtree: true});
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs a browser: `apt-get install chromium chromium-driver`",
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{option}")
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture
def page(browser):
    """`page(address)` opens the page of a server; faults that the browser logs fail the test."""

    def open_page(address):
        browser.get(f"http://{address}/")
        browser.execute_script(TAP)
        wait_until(lambda: text(browser, "status") == "Ready.")
        return browser

    yield open_page
    assert browser.get_log("browser") == []


def element(browser, name):
    return browser.find_element("id", name)


def text(browser, name):
    return element(browser, name).text


def fill(browser, name, value):
    field = element(browser, name)
    field.clear()
    field.send_keys(value)


def wait_until(condition, seconds=300):  # programs may be compiled first
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def downloaded(browser):
    """Samples of the WAV file that the page offers, int64 [n]."""
    element(browser, "save").click()
    path = browser.downloads / "speech.wav"
    wait_until(path.exists)
    samples, rate = soundfile.read(path, dtype="int16")
    path.unlink()
    assert rate == 24000
    return samples.astype(int)


def assert_speech(browser, wanted):
    """Speak, and compare what is played, drawn and saved with `wanted`, int16 [n]."""
    loudest = 0.0

    def ended():
        nonlocal loudest
        loudest = max(loudest, browser.execute_script(LOUDEST))
        return not element(browser, "stop").is_enabled()

    element(browser, "speak").click()
    wait_until(ended)
    assert text(browser, "status").startswith("Complete")
    seconds = f"{len(wanted) / 24000:.2f} s"
    assert text(browser, "received") == text(browser, "played") == seconds
    assert text(browser, "first").endswith(" ms") and text(browser, "speed").endswith("real time")
    assert loudest > 0.2 * np.max(np.abs(wanted / 32768))
    for picture in ("wave", "spectrum", "codes"):
        # 100 pixels a second; a wave is thin, and lines part the codes
        least = {"wave": 0.01, "spectrum": 0.99, "codes": 0.8}[picture]
        drawn = browser.execute_script(DRAWN, picture) / (100 * len(wanted) / 24000)
        assert least < drawn < 1.01, picture
    got = downloaded(browser)
    assert got.shape == wanted.shape and np.max(np.abs(got - wanted)) <= 1


def test_a_preset_speaker_is_heard_and_drawn(page, engine):
    request = CustomVoice("Hello there.", "ryan", seed=3)
    wanted = pcm16(engine.tts.generate([request])[0].wave).astype(int)
    with live_server(engine, ServerSettings()) as address:
        browser = page(address)
        choices = browser.find_elements("name", "kind")
        assert [choice.is_enabled() for choice in choices] == [True, False, False]
        fill(browser, "text", "Hello there.")
        element(browser, "voice").send_keys("ryan")
        browser.find_element("tag name", "summary").click()
        fill(browser, "seed", "3")
        assert_speech(browser, wanted)
        assert text(browser, "used") == "3"


def test_the_voice_of_an_uploaded_recording(page, clones, tmp_path):
    path = tmp_path / "voice.wav"
    path.write_bytes(recording(0.7))
    sent = {"ref_audio": base64.b64encode(path.read_bytes()).decode(), "ref_text": "Some words."}
    sent |= {"input": "Hi.", "seed": 1, "response_format": "pcm"}
    with live_server(clones, ServerSettings()) as address:
        answer = requests.post(f"http://{address}/v1/audio/speech", json=sent, timeout=60)
        browser = page(address)
        fill(browser, "text", "Hi.")
        element(browser, "recording").send_keys(str(path))
        fill(browser, "words", "Some words.")
        browser.find_element("tag name", "summary").click()
        fill(browser, "seed", "1")
        assert_speech(browser, np.frombuffer(answer.content, "<i2").astype(int))


def test_escape_stops_and_frees_the_row(page, engine):
    with live_server(engine, ServerSettings()) as address:
        browser = page(address)
        browser.execute_script(ESCAPE_WHILE_SPEAKING)
        element(browser, "text").send_keys("\ue009\ue007")  # Ctrl+Enter
        wait_until(lambda: text(browser, "status") == "Stopped.")
        assert "Speaking …" in browser.execute_script("return window.shown")
        wait_until(lambda: engine.running == engine.waiting == 0)


def test_a_missing_key_is_said(browser, engine):
    with live_server(engine, ServerSettings(api_key="secret")) as address:
        browser.get(f"http://{address}/")
        wait_until(lambda: "Authorization" in text(browser, "status"))
        browser.find_element("tag name", "summary").click()
        element(browser, "key").send_keys("secret\t")
        wait_until(lambda: text(browser, "status") == "Ready.")
        browser.get_log("browser")  # the refused requests

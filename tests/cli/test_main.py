"""The command line: every command once, and faults as one line."""

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from qtts_jax import QwenTTS
from qtts_jax.cli import info, speak
from qtts_jax.cli.main import main

SHORT = ["--max-new-tokens", "4", "--seed", "1"]


@pytest.fixture(scope="module")
def model_option(converted):
    """`--model` with a golden checkpoint in float32."""
    return lambda name: ["--model", str(converted(name)), "--dtype", "float32"]


@pytest.fixture
def recording(tmp_path, detweights):
    path = tmp_path / "in.wav"
    soundfile.write(path, detweights.wave(7, "cli", 9000, 24000), 24000, subtype="FLOAT")
    return str(path)


def samples(path):
    return len(soundfile.read(path)[0])


class Pipe:
    """Bytes on stdin, as they arrive."""

    def __init__(self, parts):
        self.buffer = self
        self._parts = iter([*parts, b""])

    def read1(self, _):
        return next(self._parts)


def test_say_with_the_embedded_checkpoint(tmp_path, capsys):
    out = tmp_path / "out.wav"
    assert main(["say", "Hello.", "-o", str(out), *SHORT]) == 0
    assert samples(out) == 3 * 1920
    printed = capsys.readouterr().err
    assert "no --model given" in printed
    assert "0.24 s of speech" in printed


def test_say_streams_text_from_stdin(tmp_path, model_option, monkeypatch, capsys):
    # The second part ends in the middle of a character.
    parts = [b"Hello ", "你".encode()[:2], "你".encode()[2:] + b" there."]
    monkeypatch.setattr(sys, "stdin", Pipe(parts))
    out = tmp_path / "out.wav"
    options = ["--speaker", "ryan", *SHORT, *model_option("custom_voice")]
    assert main(["say", "-", "-o", str(out), *options]) == 0
    assert "first audio after" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello 你 there."))
    again = tmp_path / "again.wav"
    assert main(["say", "-", "-o", str(again), *options]) == 0
    waves = [soundfile.read(path)[0] for path in (out, again)]
    np.testing.assert_allclose(*waves, rtol=0, atol=1e-5)  # other chunks, so another rounding


@pytest.mark.parametrize("parts", [[b"Hello.\n"], [b"Hel", b"lo.\r\n", b"\n"]])
def test_line_breaks_at_the_end_of_stdin_are_not_spoken(tmp_path, model_option, monkeypatch, parts):
    # Frames enough for all of the text.
    options = ["--speaker", "ryan", *SHORT, *model_option("custom_voice")]
    options += ["--max-new-tokens", "16"]
    outs = [tmp_path / "given.npy", tmp_path / "piped.npy"]
    assert main(["say", "Hello.", "-o", str(outs[0]), "--stream-text", *options]) == 0
    monkeypatch.setattr(sys, "stdin", Pipe(parts))
    assert main(["say", "-", "-o", str(outs[1]), *options]) == 0
    np.testing.assert_allclose(*map(np.load, outs), rtol=0, atol=1e-5)


def test_line_breaks_inside_a_text_arrive():
    parts = speak._without_last_breaks(iter(["One\n", "", "\ntwo", "\n", "three\n", "\n"]))
    assert "".join(parts) == "One\n\ntwo\nthree"


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_without_streaming_text_stdin_is_read_to_its_end(
    tmp_path, model_option, monkeypatch, stream
):
    options = ["--speaker", "ryan", *SHORT, "--no-stream-text", *model_option("custom_voice")]
    outs = [tmp_path / "given.npy", tmp_path / "piped.npy"]
    assert main(["say", "Hello there.", "-o", str(outs[0]), *options]) == 0
    monkeypatch.setattr(sys, "stdin", Pipe([b"Hello ", b"there.\n"]))
    assert main(["say", "-", "-o", str(outs[1]), *stream, *options]) == 0
    np.testing.assert_allclose(*map(np.load, outs), rtol=0, atol=1e-5)


def test_say_streamed_equals_whole(tmp_path, model_option):
    outs = [tmp_path / "whole.npy", tmp_path / "streamed.npy"]
    options = ["--speaker", "ryan", "--greedy", *SHORT, *model_option("custom_voice")]
    assert main(["say", "Hello.", "-o", str(outs[0]), *options]) == 0
    assert main(["say", "Hello.", "-o", str(outs[1]), "--stream", *options]) == 0
    waves = [np.load(out) for out in outs]
    assert waves[0].dtype == np.float32
    np.testing.assert_allclose(waves[0], waves[1], rtol=0, atol=1e-5)


def test_design(tmp_path, model_option):
    out = tmp_path / "out.wav"
    options = [*SHORT, *model_option("voice_design")]
    assert main(["design", "Hello.", "--instruct", "calm", "-o", str(out), *options]) == 0
    assert samples(out) == 3 * 1920


def test_clone_and_embed(tmp_path, model_option, recording):
    out, vector = tmp_path / "out.wav", tmp_path / "x.npy"
    options = [*SHORT, *model_option("base")]
    clone = ["clone", "Hello.", "--ref-audio", recording, "-o", str(out)]
    assert main([*clone, "--ref-text", "words", *options]) == 0
    assert samples(out) == 3 * 1920
    assert main(["embed", recording, str(vector), *model_option("base")]) == 0
    assert np.load(vector).shape == (96,)


def test_encode_and_decode(tmp_path, model_option, recording):
    codes, wave = tmp_path / "codes.npy", tmp_path / "wave.npy"
    assert main(["encode", recording, str(codes), *model_option("base")]) == 0
    assert np.load(codes).shape == (5, 16)
    assert main(["decode", str(codes), str(wave), *model_option("base")]) == 0
    assert np.load(wave).shape == (5 * 1920,) and np.load(wave).dtype == np.float32


def test_info(model_option, capsys):
    assert main(["info", *model_option("custom_voice")]) == 0
    out = capsys.readouterr().out
    assert "vivian" in out and "english" in out
    assert "on each device" not in out and "host memory" in out


def test_info_of_a_mesh(model_option, capsys):
    assert main(["info", "--mesh", "data=1", *model_option("custom_voice")]) == 0
    out = capsys.readouterr().out
    assert "data=1, model=1" in out and "on each device" in out and "bytes on its device" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["say", "", "-o", "OUT/a.wav"], "empty"),
        (["say", "Hi.", "-o", "OUT/a.wav", "--mesh", "rows=2"], "data=2,model=2"),
        (["say", "Hi.", "-o", "OUT/a.wav", "--mesh", "model=0"], "model=0"),
        (["say", "Hi.", "-o", "OUT/a.mp3"], "a.mp3"),
        (["say", "Hi.", "-o", "OUT/none/a.wav"], "does not exist"),
        (["say", "Hi.", "-o", "OUT/a.wav", "--speaker", "bob"], "unknown speaker"),
        (["say", "Hi.", "-o", "OUT/a.wav", "--top-k", "-1"], "top_k"),
        (["design", "Hi.", "--instruct", "x", "-o", "OUT/a.wav"], "custom_voice checkpoint"),
        (["clone", "Hi.", "--ref-audio", "x.wav", "-o", "OUT/a.wav"], "custom_voice checkpoint"),
        (["decode", "OUT/none.npy", "OUT/a.wav"], "cannot read codes"),
        (["encode", "OUT/none.wav", "OUT/c.npy"], "none.wav"),
        (["embed", "OUT/none.wav", "OUT/c.npy"], "custom_voice checkpoint"),
        (["batch", "OUT/none.jsonl", "--out", "OUT/b"], "cannot read the requests"),
        (["say", "Hi.", "-o", "OUT/a.wav", "--temperature", "inf"], "temperature must be a finite"),
        (
            ["say", "Hi.", "-o", "OUT/a.wav", "--temperature", "0"],
            "--temperature must be above 0, not 0.0; for greedy decoding use --greedy",
        ),
        (
            ["say", "Hi.", "-o", "OUT/a.wav", "--subtalker-temperature", "-1"],
            "--subtalker-temperature must be above 0",
        ),
        (["serve", "--steps", "3"], "only a 25 Hz tokenizer takes --steps"),
        (["encode", "OUT/none.wav", "OUT"], "is a folder"),
        (["say", "Hi.", "-o", "OUT"], "OUT"),
    ],
)
def test_a_fault_is_one_line_and_leaves_nothing(tmp_path, model_option, capsys, arguments, message):
    arguments = [a.replace("OUT", str(tmp_path)) for a in arguments]
    assert main([*arguments, *model_option("custom_voice")]) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("qtts: ")]
    assert len(lines) == 1 and message.replace("OUT", str(tmp_path)) in lines[0]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_codes_of_the_wrong_shape(tmp_path, model_option, capsys):
    codes = tmp_path / "codes.npy"
    for wrong, message in ((np.zeros((4, 3), int), "shape"), (np.full((4, 16), 99), "0 ... 63")):
        np.save(codes, wrong)
        assert main(["decode", str(codes), str(tmp_path / "a.wav"), *model_option("base")]) == 1
        assert message in capsys.readouterr().err


def test_codes_of_several_utterances_are_refused(tmp_path, model_option, capsys):
    codes, out = tmp_path / "codes.npy", tmp_path / "a.wav"
    np.save(codes, np.ones((2, 4, 16), int))
    assert main(["decode", str(codes), str(out), *model_option("base")]) == 1
    assert "codes of 2 utterances, but one is written" in capsys.readouterr().err
    assert not out.exists()
    np.save(codes, np.ones((1, 4, 16), int))
    assert main(["decode", str(codes), str(out), *model_option("base")]) == 0
    assert samples(out) == 4 * 1920


def test_a_torch_checkpoint_names_the_convert_command(tmp_path, released, capsys):
    out = str(tmp_path / "a.wav")
    assert main(["say", "Hi.", "-o", out, "--model", str(released / "base")]) == 1
    assert "python -m convert" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["info"], ["encode", "a.wav", "a.npy"]])
@pytest.mark.parametrize("whole", ["base", "only its tokenizer is there"])
def test_the_whole_torch_checkpoint_is_to_be_converted(tmp_path, released, capsys, command, whole):
    folder = released / "base"
    if whole != "base":
        folder = tmp_path / "partial"
        (folder / "speech_tokenizer").mkdir(parents=True)
        (folder / "speech_tokenizer" / "model.safetensors").touch()
    assert main([*command, "--model", str(folder)]) == 1
    assert f"`python -m convert {folder} DESTINATION`" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["info"], ["encode", "a.wav", "a.npy"]])
def test_a_model_folder_that_is_not_there(tmp_path, capsys, command):
    assert main([*command, "--model", str(tmp_path / "none")]) == 1
    assert f"{tmp_path / 'none'} is not a checkpoint folder: there is no such folder" in (
        capsys.readouterr().err
    )


def test_an_empty_speaker_is_noted(tmp_path, model_option, capsys):
    options = [*SHORT, *model_option("custom_voice")]
    assert main(["say", "Hello.", "-o", str(tmp_path / "a.wav"), "--speaker", "", *options]) == 0
    assert "note: --speaker is empty, so the model picks a voice" in capsys.readouterr().err


def test_greedy_decoding_reads_no_temperature(tmp_path, model_option):
    options = [*SHORT, "--greedy", "--temperature", "0", *model_option("custom_voice")]
    assert main(["say", "Hello.", "-o", str(tmp_path / "a.wav"), *options]) == 0


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "load_tts", interrupted)
    assert main(["info"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_interrupted_stream_keeps_what_was_spoken(tmp_path, model_option, monkeypatch, capsys):
    def interrupted(self, request, chunk_frames=None):
        yield np.full(2400, 0.5, np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(QwenTTS, "stream", interrupted)
    out = tmp_path / "out.wav"
    options = ["--speaker", "ryan", "--stream", *model_option("custom_voice")]
    assert main(["say", "Hello.", "-o", str(out), *options]) == 130
    assert samples(out) == 2400
    assert "holds the first 0.10 s" in capsys.readouterr().err


def test_text_prints_what_a_checkpoint_will_speak(capsys, converted):
    text, released = "Dr. Lee of the FBI paid $2.", ["--model", str(converted("custom_voice"))]
    capsys.readouterr()  # what the conversion has printed
    for options, spoken in (
        ([], "Doctor Lee of the eff bee eye paid two dollars."),  # as nano was trained
        (["--no-normalize"], text),
        (released, text),
        ([*released, "--normalize"], "Doctor Lee of the F B I paid two dollars."),
    ):
        assert main(["text", text, *options]) == 0
        assert capsys.readouterr().out == f"{spoken}\n"
    assert main(["text", "..."]) == 1
    assert main(["text", "Hi.", "--model", "no/such/folder"]) == 1
    assert "no/such/folder" in capsys.readouterr().err


def test_wrong_usage_exits_with_2():
    for wrong in ([], ["sing"], ["batch", "x", "--out", "y", "--batch-size", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2


def test_module_runs():
    out = subprocess.run(
        [sys.executable, "-m", "qtts_jax", "--help"], capture_output=True, text=True, check=True
    )
    assert "clone" in out.stdout


@pytest.mark.parametrize("command", ["encode", "embed"])
def test_a_recording_is_never_overwritten(command, model_option, recording, tmp_path, capsys):
    with open(recording, "rb") as file:
        before = file.read()
    for target, fault in ((recording, "is the recording to read"), ("out.wav", "name it .npy")):
        assert main([command, recording, target, *model_option("base")]) == 1
        assert fault in capsys.readouterr().err
    with open(recording, "rb") as file:
        assert file.read() == before


def test_urls_are_fetched_only_with_the_option(model_option, tmp_path, capsys):
    arguments = ["encode", "http://127.0.0.1:9/a.wav", str(tmp_path / "c.npy")]
    assert main([*arguments, *model_option("base")]) == 1
    assert "allow URLs" in capsys.readouterr().err
    assert main([*arguments, "--allow-url", *model_option("base")]) == 1
    assert "cannot be fetched" in capsys.readouterr().err

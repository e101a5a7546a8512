"""The command line with a 25 Hz checkpoint: every option of the decoder, and faults as one line."""

import json

import numpy as np
import pytest
import soundfile

from qtts_jax import SpeechTokenizer
from qtts_jax.cli.main import main
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice

SAMPLES = 10
FLOW = ["--steps", "3"]


@pytest.fixture(scope="module")
def custom(converted_25hz):
    return ["--model", str(converted_25hz("custom_voice")), "--dtype", "float32"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, golden, detweights):
    """Inputs of the commands, and `--xvector ... --ref-mel ...`."""
    folder = tmp_path_factory.mktemp("files")
    file = golden("tok25_decode")
    arrays = {
        "x": file["xvectors"][0],
        "mel": file["ref_mels"][0],
        "codes": np.arange(16, dtype=np.int32)[:, None],
        "short": np.zeros((5, 80), np.float32),
        "bad": np.full(4, 96),
        "nan": np.full((31, 80), np.nan, np.float32),
        "noise": np.random.default_rng(0).standard_normal((32, 80)).astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "several.npz", a=arrays["x"], b=arrays["x"])
    (folder / "several.npz").rename(folder / "several.npy")
    (folder / "cut.npy").write_bytes((folder / "several.npy").read_bytes()[:100])
    wave = detweights.wave(7, "cli", 9000, 24000)
    soundfile.write(folder / "in.wav", wave, 24000, subtype="FLOAT")
    return folder


@pytest.fixture
def voice(files):
    return ["--xvector", str(files / "x.npy"), "--ref-mel", str(files / "mel.npy")]


def test_encode_and_decode_with_a_recording(files, custom, converted_25hz, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    folder = str(converted_25hz("custom_voice") / "speech_tokenizer")
    recording, codes = str(files / "in.wav"), tmp_path / "codes.npy"
    assert main(["encode", recording, str(codes), "--model", folder]) == 0
    assert "10 frames of 1 code\n" in capsys.readouterr().err
    made = np.load(codes)
    assert made.shape == (10,)
    np.testing.assert_array_equal(
        made, SpeechTokenizer.from_pretrained(folder).encode(recording)[0]
    )
    options = ["--model", folder, "--ref-audio", recording, "--seed", "3", *FLOW]
    assert main(["decode", str(codes), str(tmp_path / "a.npy"), *options]) == 0
    assert np.load(tmp_path / "a.npy").shape == (10 * SAMPLES,)
    # The same voice by way of its two files.
    x, mel = str(tmp_path / "x.npy"), str(tmp_path / "mel.npy")
    assert main(["voice", recording, x, mel, "--model", folder]) == 0
    options = ["--model", folder, "--xvector", x, "--ref-mel", mel, "--seed", "3", *FLOW]
    assert main(["decode", str(codes), str(tmp_path / "b.npy"), *options]) == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_decode_with_noise_steps_and_guidance(files, custom, converted_25hz, voice, tmp_path):
    out = tmp_path / "out.npy"
    flow = [*FLOW, "--guidance", "0.25", "--noise", str(files / "noise.npy")]
    assert main(["decode", str(files / "codes.npy"), str(out), *custom, *voice, *flow]) == 0
    tokenizer = SpeechTokenizer.from_pretrained(converted_25hz("custom_voice"))
    given = ReferenceVoice(np.load(files / "x.npy"), np.load(files / "mel.npy"))
    waves, _ = tokenizer.decode(
        np.arange(16), given, noise=np.load(files / "noise.npy"), steps=3, guidance=0.25
    )
    np.testing.assert_array_equal(np.load(out), waves[0])


def test_say_whole_and_streamed(custom, voice, tmp_path, capsys):
    options = [*custom, *voice, *FLOW, "--seed", "1", "--max-new-tokens", "17"]
    for name, more in (("whole.npy", []), ("streamed.npy", ["--stream"])):
        out = str(tmp_path / name)
        assert main(["say", "Hello.", "-o", out, "--speaker", "ryan", *options, *more]) == 0
    assert "first audio after" in capsys.readouterr().err
    assert np.load(tmp_path / "whole.npy").shape == np.load(tmp_path / "streamed.npy").shape


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_speech_that_is_cut_is_noted(converted_25hz, voice, tmp_path, capsys, stream):
    """The golden case "ends" stops by itself after 5 frames, so a limit of 4 cuts it."""
    model = converted_25hz("custom_voice", (("codec_eos_token_id", 62),))
    options = ["--model", str(model), "--dtype", "float32", "--greedy", "--stream-text", *FLOW]
    options += ["--speaker", "ryan", "--language", "english", *voice, *stream]
    out, text = tmp_path / "out.npy", "Hello there, this is a test."
    for frames, cut in ((4, True), (6, False)):
        tokens = str(frames + 1)
        assert main(["say", text, "-o", str(out), "--max-new-tokens", tokens, *options]) == 0
        printed = capsys.readouterr().err
        assert ("note: the speech was cut" in printed) == cut
        assert np.load(out).shape == (min(frames, 5) * SAMPLES,)


def test_clone_by_timbre_with_the_decoders_voice_in_files(files, converted_25hz, voice, tmp_path):
    model = ["--model", str(converted_25hz("base")), "--dtype", "float32"]
    options = ["--ref-audio", str(files / "in.wav"), "--x-vector-only", "--max-new-tokens", "17"]
    options += ["--seed", "1"]
    out = tmp_path / "out.npy"
    assert main(["clone", "Hi.", "-o", str(out), *model, *voice, *FLOW, *options]) == 0
    assert np.load(out).shape == (16 * SAMPLES,)


def test_batch_lines_name_the_decoders_voice(files, custom, tmp_path, capsys):
    lines = [
        {"id": "a", "speaker": "ryan", "xvector": "x.npy", "ref_mel": "mel.npy"},
        {"id": "b", "speaker": "ryan", "xvector": "x.npy"},
        {"id": "c", "speaker": "ryan"},
    ]
    common = {"text": "Hello.", "seed": 1, "max_new_tokens": 17}
    path = files / "requests.jsonl"
    path.write_text("\n".join(json.dumps(line | common) for line in lines))
    assert main(["batch", str(path), "--out", str(tmp_path), *custom, *FLOW]) == 1
    printed = capsys.readouterr().err
    assert "line 2 (b): xvector and ref_mel describe a voice together" in printed
    assert "line 3 (c): the 25 Hz decoder does not know the voice of ryan" in printed
    assert np.load(tmp_path / "a.codes.npy").shape == (16,)
    assert len(soundfile.read(tmp_path / "a.wav")[0]) == 16 * SAMPLES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["codes.npy"], "does not know the voice: give an x-vector"),
        (["codes.npy", "--xvector", "x.npy"], "--xvector and --ref-mel describe a voice together"),
        (["codes.npy", "--ref-mel", "mel.npy"], "give both"),
        (
            ["codes.npy", "--xvector", "x.npy", "--ref-mel", "mel.npy", "--ref-audio", "in.wav"],
            "either --ref-audio or --xvector",
        ),
        (
            ["codes.npy", "--xvector", "none.npy", "--ref-mel", "mel.npy"],
            "cannot read the x-vector",
        ),
        (["cut.npy"], "cannot read codes from"),
        (["several.npy"], "holds several arrays; give codes as a .npy file"),
        (["codes.npy", "--xvector", "mel.npy", "--ref-mel", "mel.npy"], "x-vector must have"),
        (["codes.npy", "--xvector", "x.npy", "--ref-mel", "nan.npy"], "must hold finite"),
        (["codes.npy", "--xvector", "x.npy", "--ref-mel", "x.npy"], "reference mel must have"),
        (["bad.npy", "--xvector", "x.npy", "--ref-mel", "mel.npy"], "0 ... 95, but one is 96"),
        (
            ["codes.npy", "--xvector", "x.npy", "--ref-mel", "mel.npy", "--noise", "short.npy"],
            "at least 32 frames, 2 for a code, not [5, 80]",
        ),
        (
            ["codes.npy", "--xvector", "x.npy", "--ref-mel", "mel.npy", "--steps", "1"],
            "steps must be a whole number of at least 2",
        ),
        (
            ["codes.npy", "--xvector", "x.npy", "--ref-mel", "mel.npy", "--guidance", "-1"],
            "guidance must be a number from 0 up",
        ),
    ],
)
def test_a_fault_of_decode_is_one_line_and_leaves_nothing(
    files, custom, tmp_path, capsys, arguments, message
):
    arguments = [str(files / a) if a.endswith((".npy", ".wav")) else a for a in arguments]
    out = tmp_path / "out.wav"
    assert main(["decode", arguments[0], str(out), *arguments[1:], *custom]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not out.exists()


def test_without_its_network_a_checkpoint_says_what_to_do(files, converted, tmp_path, capsys):
    """The golden tokenizer folder has no campplus.onnx."""
    model = ["--model", str(converted("tokenizer_25hz"))]
    arguments = [str(files / "codes.npy"), str(tmp_path / "a.wav")]
    assert main(["decode", *arguments, "--ref-audio", str(files / "in.wav"), *model]) == 1
    assert "campplus.onnx is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--xvector", "x.npy"], ["--ref-audio", "in.wav"], ["--steps", "4"], ["--seed", "4"]],
)
def test_a_12hz_tokenizer_refuses_the_decoders_options(
    files, converted, tmp_path, capsys, arguments
):
    model = ["--model", str(converted("custom_voice"))]
    codes = [str(files / "codes.npy"), str(tmp_path / "a.wav")]
    assert main(["decode", *codes, *arguments, *model]) == 1
    assert f"only a 25 Hz tokenizer takes {arguments[0]}" in capsys.readouterr().err

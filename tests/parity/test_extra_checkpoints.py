"""Codes and audio of the varied checkpoints in `extra/`, through the public API."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from convert.to_orbax import to_orbax
from qtts_jax import QwenTTS
from qtts_jax.text.bpe import TextTokenizer
from tests.golden_tools import detweights
from tests.golden_tools.specs import SPECS
from tests.support.helpers import GOLDEN

EXTRA = GOLDEN / "extra"
QUICK = {"vd_books5_wide_predictor"}
NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SPECS]
SAMPLING = ("max_new_tokens", "repetition_penalty")


@functools.cache
def stored(name):
    """The index, the requests by id and the output arrays of a set."""
    lines = (EXTRA / name / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    requests = {(r := json.loads(line))["id"]: r for line in lines}
    index = json.loads((EXTRA / name / "index.json").read_text(encoding="utf-8"))
    return index, requests, dict(np.load(EXTRA / name / "outputs.npz"))


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    """A set and its checkpoint, converted and loaded in the official form."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(EXTRA / request.param / "checkpoint", folder / "released")
    detweights.materialize(folder / "released")
    to_orbax(folder / "released", folder / "converted")
    tts = QwenTTS.from_pretrained(folder / "converted", dtype="float32", exact_reference=True)
    with jax.default_matmul_precision("highest"):
        yield request.param, tts


def prepare(tts, request, folder, voice):
    """The request of a stored line; `voice` overrides the encoding of its own reference."""
    sampling = {k: request[k] for k in SAMPLING if k in request}
    arguments = {"language": request.get("language"), "do_sample": False, **sampling}
    arguments["subtalker_dosample"] = False
    if "stream_text" in request:
        arguments["non_streaming_mode"] = not request["stream_text"]
    if request["mode"] == "custom_voice":
        names = {"speaker": request["speaker"], "instruct": request.get("instruct")}
        return tts.prepare_custom_voice(request["text"], **names, **arguments)
    if request["mode"] == "voice_design":
        return tts.prepare_voice_design(request["text"], request["instruct"], **arguments)
    voice = voice or references(tts, [request], folder)[0]
    return tts.prepare_voice_clone(request["text"], voice, **arguments)


def references(tts, requests, folder):
    """Encode the references of some requests in one call."""
    return tts.create_voice_clone_prompt(
        [str(folder / r["ref_audio"]) for r in requests],
        [r.get("ref_text") for r in requests],
        [r.get("x_vector_only", False) for r in requests],
    )


def test_greedy_codes_and_waves_equal_the_official_ones(case):
    name, tts = case
    index, requests, outputs = stored(name)
    for group in index["groups"]:
        members = [requests[i] for i in group["ids"]]
        voices = [None] * len(members)
        if group["joint_references"]:
            voices = references(tts, members, EXTRA / name)
        prepared = [prepare(tts, r, EXTRA / name, v) for r, v in zip(members, voices, strict=True)]
        for id_, speech in zip(group["ids"], tts.synthesize(prepared), strict=True):
            np.testing.assert_array_equal(speech.codes, outputs[f"{id_}/codes"], err_msg=id_)
            assert len(speech.wave) == index["requests"][id_]["samples"], id_
            np.testing.assert_allclose(
                speech.wave[:: index["wave_stride"]],
                outputs[f"{id_}/wave"],
                rtol=0,
                atol=1e-4,
                err_msg=id_,
            )


def test_encoded_audio_equals_the_official_codes(case):
    name, tts = case
    index, _, outputs = stored(name)
    counts = index["tokenizer"]["encode_samples"]
    waves = [detweights.wave(index["seed"], f"encode/{n}", n, 24000) for n in counts]
    full = [
        (n, w) for n, w in zip(counts, waves, strict=True) if n >= SPECS[name].samples_per_frame
    ]
    for n, wave in full:
        codes = tts.speech_tokenizer.encode(wave, 24000)[0]
        np.testing.assert_array_equal(codes, outputs[f"tokenizer/encode/{n}"], err_msg=str(n))
    together = tts.speech_tokenizer.encode([wave for _, wave in full], 24000)
    for (n, _), codes in zip(full, together, strict=True):
        np.testing.assert_array_equal(codes, outputs[f"tokenizer/encode_batch/{n}"], err_msg=str(n))


def test_decoded_codes_equal_the_official_waves(case):
    name, tts = case
    index, _, outputs = stored(name)
    spec, plan = SPECS[name], index["tokenizer"]
    for frames in plan["decode_frames"]:
        codes = detweights.integers(
            index["seed"], f"decode/{frames}", (frames, spec.books), spec.entries
        )
        wave = tts.speech_tokenizer.decode([codes])[0][0]
        assert len(wave) == frames * spec.samples_per_frame
        stride = index["wave_stride"] if frames <= 50 else plan["long_stride"]
        np.testing.assert_allclose(
            wave[::stride], outputs[f"tokenizer/decode/{frames}"], rtol=0, atol=1e-4
        )


def test_token_ids_equal_the_official_ones(case):
    name, tts = case
    for row in stored(name)[0]["texts"]:
        assert list(tts.text_tokenizer.encode(row["text"])) == row["ids"], row["text"]


@pytest.mark.parametrize("exact_reference", [True, False])
def test_large_vocabulary_splits_text_as_the_official_code_does(exact_reference, tmp_path):
    name = "vc_books8"
    shutil.copytree(EXTRA / name / "checkpoint", tmp_path, dirs_exist_ok=True)
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    free = len(vocab) + 100  # leaves the ids of the special tokens alone
    vocab.update({f"<unused {i}>": i for i in range(free, free + 100_001)})
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    tokenizer = TextTokenizer.from_dir(tmp_path, exact_reference=exact_reference)
    rows = stored(name)[0]["texts"]
    assert any(row["ids"] != row["large_vocabulary_ids"] for row in rows)
    for row in rows:
        expected = row["large_vocabulary_ids" if exact_reference else "ids"]
        assert list(tokenizer.encode(row["text"])) == expected, row["text"]

"""Lines of all kinds in one batch of `qtts batch`, and faults that end one of them alone."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import soundfile

from qtts_jax import QwenTTS
from qtts_jax.cli.batch import lines
from qtts_jax.cli.batch import run as batch_run
from qtts_jax.cli.batch.run import run_batch
from qtts_jax.cli.batch.voice_cache import VoiceCache
from qtts_jax.errors import QTTSError
from qtts_jax.generation.prompt import speaker_id
from qtts_jax.serving.row_group import RowGroup
from tests.support.batch_lines import SETTINGS, line, results, write_requests


def test_lines_of_every_mode_that_the_checkpoint_has(model, tmp_path):
    config = dataclasses.replace(model.config, further_types=("voice_design",))
    parts = model.params, model.speech_tokenizer, model.text_tokenizer, model.defaults
    path, reports = tmp_path / "requests.jsonl", []
    described = line("b", mode="voice_design", speaker=None, instruct="A calm voice.")
    write_requests(path, [line("a"), described, line("c", mode="voice_clone", speaker=None)])
    assert run_batch(QwenTTS(config, *parts), path, tmp_path, 4, reports.append, SETTINGS) == 1
    assert "does 'custom_voice', 'voice_design'" in reports[0] and "line 3" in reports[0]
    assert results(tmp_path)["a"]["status"] == results(tmp_path)["b"]["status"] == "ok"


def test_clone_lines(tts, converted, detweights, tmp_path):
    wave = detweights.wave(7, "recording", 9000, 24000)
    soundfile.write(tmp_path / "ref.wav", wave, 24000, subtype="FLOAT")
    # A seed: by chance speech would end sooner.
    clone = {"text": "Short one.", "ref_audio": "ref.wav", "max_new_tokens": 4, "seed": 1}
    path = write_requests(
        tmp_path / "requests.jsonl",
        [
            {"id": "x", "x_vector_only": True, **clone},
            {"id": "icl", "ref_text": "Words.", **clone},
            {"id": "no_words", **clone},
            {"id": "no_audio", "text": "Hi."},
            {"id": "lost_audio", **clone, "ref_audio": "lost.wav", "x_vector_only": True},
        ],
    )
    reports = []
    out = tmp_path / "out"
    model = tts("base", exact_reference=False)
    assert run_batch(model, path, out, 8, reports.append, SETTINGS) == 3
    got = results(out)
    assert got["x"]["frames"] == got["icl"]["frames"] == 3
    assert "ref_text is missing" in got["no_words"]["error"]
    assert "ref_audio is missing" in got["no_audio"]["error"]
    assert "lost.wav" in got["lost_audio"]["error"]


def test_sampled_requests_do_not_depend_on_the_batch_size(run):
    lines = [line(f"r{i}", seed=i, max_new_tokens=8) for i in range(5)]
    run(lines, batch_size=5)
    together = [np.load(run.out / f"r{i}.codes.npy") for i in range(5)]
    shutil.rmtree(run.out)
    run(lines, batch_size=1)
    for i, codes in enumerate(together):
        np.testing.assert_array_equal(np.load(run.out / f"r{i}.codes.npy"), codes)


@pytest.mark.slow
def test_lines_of_any_settings_share_the_rows(run, model):
    """Long and short ones, greedy ones and those with other samplers, in any order."""
    some = [
        {"max_new_tokens": 30},
        {"greedy": True},
        {"top_p": 0.5, "max_new_tokens": 12},
        {"stream_text": True, "max_new_tokens": 20, "text": "Some words " * 30},
        {"top_k": 5, "seed": 3},
        {"text": "Text. " * 40, "max_new_tokens": 9},
    ]
    requests = [line(f"r{i}", **{"seed": i} | extra) for i, extra in enumerate(some)]
    assert run(requests, batch_size=3)[0] == 0
    voices = VoiceCache(model, run.out)
    parsed = [lines.Line(1, {"mode": "custom_voice", **each}) for each in requests]
    wanted = model.generate([batch_run.make_request(each, voices) for each in parsed])
    for i, speech in enumerate(wanted):
        np.testing.assert_array_equal(np.load(run.out / f"r{i}.codes.npy"), speech.codes)
        wave, _ = soundfile.read(run.out / f"r{i}.wav", dtype="float32")
        np.testing.assert_allclose(wave, speech.wave, rtol=0, atol=1e-5)


def test_any_fault_of_a_line_is_its_own(run, model, monkeypatch):
    """Unexpected exceptions too, while preparing, generating and saving."""
    prepare, decode, save = batch_run.make_request, model.decode, batch_run.save

    def prepare_badly(bad, voices):
        if bad.id == "b":
            raise ZeroDivisionError("in preparing")
        return prepare(bad, voices)

    def decode_badly(requests, codes):
        if any(r.seed == 7 for r in requests):
            raise OverflowError("in decoding")
        return decode(requests, codes)

    def save_badly(out, line, *rest):
        if line.id == "d":
            raise QTTSError("in saving.")
        save(out, line, *rest)

    monkeypatch.setattr(batch_run, "make_request", prepare_badly)
    monkeypatch.setattr(model, "decode", decode_badly)
    monkeypatch.setattr(batch_run, "save", save_badly)
    failed, reports, got = run([line("a"), line("b"), line("c", seed=7), line("d"), line("e")])
    assert failed == len(reports) == 3
    assert [got[i]["status"] for i in "ae"] == ["ok"] * 2
    assert got["b"]["error"] == "ZeroDivisionError: in preparing"
    assert got["c"]["error"] == "OverflowError: in decoding"
    assert got["d"]["error"] == "in saving."


def test_an_engine_that_breaks_costs_no_line(run, monkeypatch):
    lines = [line(f"r{i}", seed=i) for i in range(6)]
    run(lines)
    wanted = [np.load(run.out / f"r{i}.codes.npy") for i in range(6)]
    shutil.rmtree(run.out)
    frames, calls = RowGroup.run, []

    def break_once(self, n):
        calls.append(n)
        if len(calls) == 1:
            raise MemoryError("too many rows")
        return frames(self, n)

    monkeypatch.setattr(RowGroup, "run", break_once)
    failed, _, _ = run(lines, batch_size=2)
    assert failed == 0 and len(calls) > 1
    for i, codes in enumerate(wanted):
        np.testing.assert_array_equal(np.load(run.out / f"r{i}.codes.npy"), codes)


def test_logits_that_are_not_finite_fail_their_line_alone(model, tmp_path):
    params = jax.tree.map(lambda leaf: leaf, model.params)
    table, row = params["talker"]["codec_embedding"], speaker_id(model.config.talker, "vivian")
    table["table"] = table["table"].at[row].set(np.nan)
    parts = params, model.speech_tokenizer, model.text_tokenizer, model.defaults
    path = write_requests(tmp_path / "r.jsonl", [line("a"), line("b", speaker="vivian")])
    reports = []
    assert run_batch(QwenTTS(model.config, *parts), path, tmp_path, 4, reports.append, {}) == 1
    assert "line 2 (b): the model's logits are NaN or infinite, so" in reports[0]
    assert results(tmp_path)["a"]["status"] == "ok" and (tmp_path / "a.wav").exists()
    assert not (tmp_path / "b.wav").exists()

"""`qtts batch`: golden requests, resuming, and lines that are wrong."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import soundfile

from qtts_jax import QwenTTS
from qtts_jax.cli.batch import command as batch_command
from qtts_jax.cli.batch import lines
from qtts_jax.cli.batch import results as result_files
from qtts_jax.cli.batch import run as batch_run
from qtts_jax.cli.batch.fingerprint import Fingerprints, checkpoint_fingerprint
from qtts_jax.cli.batch.run import run_batch
from qtts_jax.cli.batch.voice_cache import VoiceCache
from qtts_jax.cli.main import main
from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.generation.prompt import speaker_id
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.serving.row_group import RowGroup
from tests.golden_tools import detweights
from tests.support.helpers import GOLDEN

EXTRA = GOLDEN / "extra"
SETTINGS = {"checkpoint": "golden"}
INDEX = json.loads((GOLDEN / "index.json").read_text())


def results(out):
    lines = [json.loads(x) for x in (out / "results.jsonl").read_text().splitlines()]
    return {line["id"]: line for line in lines}


def write_requests(path, requests):
    path.write_text("".join(json.dumps(r) + "\n" for r in requests))
    return path


def golden_requests(kind, folder):
    """The golden calls of a checkpoint, one line for every text."""
    for name, (samples, rate) in {"ref0": (19700, 24000), "ref1": (11520, 24000)}.items():
        wave = detweights.wave(INDEX["seed"], f"case/{name}", samples, rate)
        soundfile.write(folder / f"{name}.wav", wave, rate, subtype="FLOAT")
    for case, spec in INDEX["cases"].items():
        if spec["ckpt"] != kind:
            continue
        kwargs = dict(spec["kwargs"])
        texts = kwargs.pop("text")
        many = isinstance(texts, list)
        for i, text in enumerate(texts if many else [texts]):
            own = {k: v[i] if isinstance(v, list) else v for k, v in kwargs.items()}
            request = {"id": f"{case}-{i}", "text": text, "greedy": True, **own}
            if "x_vector_only_mode" in request:
                request["x_vector_only"] = request.pop("x_vector_only_mode")
            if "non_streaming_mode" in request:
                request["stream_text"] = not request.pop("non_streaming_mode")
            if "ref_audio" in request:
                request["ref_audio"] += ".wav"
            yield request


@pytest.mark.parametrize(
    "kind",
    [
        "custom_voice",
        pytest.param("voice_design", marks=pytest.mark.slow),
        pytest.param("base", marks=pytest.mark.slow),
    ],
)
def test_golden_calls_as_lines(kind, converted, golden, tmp_path):
    requests = list(golden_requests(kind, tmp_path))
    path, out = write_requests(tmp_path / "requests.jsonl", requests), tmp_path / "out"
    options = ["--model", str(converted(kind)), "--dtype", "float32", "--exact-reference"]
    assert main(["batch", str(path), "--out", str(out), "--batch-size", "5", *options]) == 0
    for request in requests:
        case, i = request["id"].rsplit("-", 1)
        data = golden(f"gen_{case}")
        np.testing.assert_array_equal(
            np.load(out / f"{request['id']}.codes.npy"), data[f"codes{i}"]
        )
        wave, rate = soundfile.read(out / f"{request['id']}.wav", dtype="float32")
        stride = 1 if len(data[f"wav{i}"]) == len(wave) else 11
        assert rate == 24000 and len(wave) == data[f"wav{i}_len"][0]
        np.testing.assert_allclose(wave[::stride], data[f"wav{i}"], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def model(tts):
    return tts("custom_voice", exact_reference=False)


@pytest.fixture
def run(model, tmp_path):
    """Run lines through `run_batch`: (failed, reports, results by id)."""
    out = tmp_path / "out"

    def run_lines(lines, batch_size=4):
        path = tmp_path / "requests.jsonl"
        path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
        reports = []
        failed = run_batch(model, path, out, batch_size, reports.append, SETTINGS)
        return failed, reports, results(out)

    run_lines.out = out
    return run_lines


def line(id_, **extra):
    return {"id": id_, "text": "Short one.", "speaker": "ryan", "max_new_tokens": 4} | extra


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ({"id": "b"}, "'text' is missing"),
        ({"text": "Hi."}, "'id' is missing"),
        (line("../b"), "cannot name files"),
        (line("-rf"), "cannot name files"),
        (line("b/c"), "cannot name files"),
        (line("b\\c"), "cannot name files"),
        (line("CON"), "reserved file name"),
        (line("lpt1.x"), "reserved file name"),
        (line("Results.jsonl"), "reserved file name"),
        (line("b", txet="x"), "unknown field 'txet'"),
        (line("b", text=5), "text must be a JSON str"),
        (line("b", seed=True), "seed must be a JSON int"),
        (line("b", speaker="bob"), "unknown speaker"),
        (line("b", language="klingon"), "unknown language"),
        (line("b", text=" "), "empty"),
        (line("b", mode="singing"), "unknown mode"),
        (line("b", mode="voice_design"), "does not fit this checkpoint"),
        (line("b", ref_text="words"), "does not use ref_text"),
        (line("b", temperature=-1), "temperature must be above 0"),
        (line("b", temperature=0), 'for greedy decoding use "greedy": true'),
        (line("b", text="word " * 40000, split=False), "model's context"),
        (line("a"), "used twice"),
        (line("A"), "'A' differs from 'a' in case alone"),
        ('{"id": "b", "text": "Hi.", "top_k": Infinity}', "top_k must be a whole number"),
        ('{"id": "b", "text": "Hi.", "top_k": NaN}', "top_k must be a whole number"),
        ('{"id": "b", "text": "Hi.", "temperature": -Infinity}', "temperature must be a finite"),
        (f'{{"id": "b", "text": "Hi.", "seed": {"1" * 5000}}}', "not JSON"),
        ("[" * 200_000, "not JSON"),
        (line("b" * 240), "the id has 240 characters"),
        ('{"id": "\\ud800"}', "'text' is missing"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_is_kept(run, bad, message):
    failed, reports, got = run([line("a"), bad, line("c")])
    assert failed == 1
    reports = [each for each in reports if not each.startswith("note: ")]
    assert len(reports) == 1 and message in reports[0] and "line 2" in reports[0]
    assert got["a"]["status"] == got["c"]["status"] == "ok"
    assert (run.out / "c.wav").exists() and not (run.out / "b.wav").exists()


def test_lines_of_every_mode_that_the_checkpoint_has(model, tmp_path):
    config = dataclasses.replace(model.config, further_types=("voice_design",))
    parts = model.params, model.speech_tokenizer, model.text_tokenizer, model.defaults
    path, reports = tmp_path / "requests.jsonl", []
    described = line("b", mode="voice_design", speaker=None, instruct="A calm voice.")
    write_requests(path, [line("a"), described, line("c", mode="voice_clone", speaker=None)])
    assert run_batch(QwenTTS(config, *parts), path, tmp_path, 4, reports.append, SETTINGS) == 1
    assert "does 'custom_voice', 'voice_design'" in reports[0] and "line 3" in reports[0]
    assert results(tmp_path)["a"]["status"] == results(tmp_path)["b"]["status"] == "ok"


def test_finished_requests_are_not_made_again(run, model, monkeypatch):
    run([line("a", seed=1), line("b", speaker="bob")])
    kept = (run.out / "a.wav").stat().st_mtime_ns
    with (run.out / "results.jsonl").open("a") as file:
        file.write('{"id": "half')  # an interrupt in the middle of a line
    made = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda r, codes: made.extend(r) or decode(r, codes))
    failed, _, got = run([line("a", seed=1), line("b"), line("c")])
    assert failed == 0 and len(made) == 2
    assert [got[i]["status"] for i in "abc"] == ["ok"] * 3
    assert (run.out / "a.wav").stat().st_mtime_ns == kept


def test_a_lost_file_is_made_again(run):
    run([line("a")])
    (run.out / "a.wav").unlink()
    run([line("a")])
    assert (run.out / "a.wav").exists()


def test_sampled_requests_do_not_depend_on_the_batch_size(run):
    lines = [line(f"r{i}", seed=i, max_new_tokens=8) for i in range(5)]
    run(lines, batch_size=5)
    together = [np.load(run.out / f"r{i}.codes.npy") for i in range(5)]
    shutil.rmtree(run.out)
    run(lines, batch_size=1)
    for i, codes in enumerate(together):
        np.testing.assert_array_equal(np.load(run.out / f"r{i}.codes.npy"), codes)


def test_unreadable_requests(model, tmp_path):
    with pytest.raises(RequestError, match="cannot read the requests"):
        run_batch(model, tmp_path / "no.jsonl", tmp_path / "out", 1, print, SETTINGS)


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


def test_a_huge_top_k_is_all_of_the_vocabulary(run):
    failed, _, got = run([line("a", top_k=5_000_000_000, seed=1), line("b", top_k=0, seed=1)])
    assert failed == 0 and got["a"]["status"] == "ok"
    np.testing.assert_array_equal(*(np.load(run.out / f"{i}.codes.npy") for i in "ab"))


def test_ids_of_the_greatest_length_name_files(run):
    id_ = "a" * lines.LONGEST_ID
    failed, _, got = run([line(id_)])
    assert failed == 0 and (run.out / got[id_]["codes"]).exists()


def test_a_name_that_is_too_long_is_one_clear_error(tmp_path):
    with pytest.raises(QTTSError, match="cannot write"):
        write_whole(tmp_path / ("a" * 250), b"")


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


def test_options_hold_for_the_lines_that_do_not_say_otherwise(
    converted, model, tmp_path, monkeypatch
):
    path = write_requests(tmp_path / "r.jsonl", [line("a"), line("b", normalize=False)])
    monkeypatch.setattr(batch_command, "load_tts", lambda args: model)
    spoken, plan = [], model.plan
    monkeypatch.setattr(model, "plan", lambda r: spoken.append((r.normalize, r.split)) or plan(r))
    options = ["--model", str(converted("custom_voice")), "--normalize", "--no-split"]
    assert main(["batch", str(path), "--out", str(tmp_path / "out"), *options]) == 0
    assert spoken == [(True, False), (False, False)]


def test_results_that_cannot_be_written_are_one_clear_error(run, monkeypatch):
    run([line("a")])
    monkeypatch.setattr(result_files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(QTTSError, match=r"cannot write .*results.jsonl: full"):
        run([line("b")])


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_line_separators_inside_strings_part_no_lines(run, model, tmp_path, monkeypatch, end):
    spoken = []
    plan = model.plan
    monkeypatch.setattr(model, "plan", lambda r: spoken.append(r.text) or plan(r))
    text = "One\u2028two\x85three."
    lines = [json.dumps(line(i, text=text), ensure_ascii=False) for i in "ab"]
    path = tmp_path / "raw.jsonl"
    path.write_bytes(((end or "\n").join(lines) + end).encode())
    assert run_batch(model, path, tmp_path / "raw", 4, print, SETTINGS) == 0
    assert spoken == [text, text]
    assert [r["line"] for r in results(tmp_path / "raw").values()] == [1, 2]


def test_a_result_cut_short_inside_a_character_is_passed_over(run):
    run([line("a")])
    with (run.out / "results.jsonl").open("ab") as file:
        file.write('{"id": "b", "error": "\u00e9'.encode()[:-1])
    failed, _, got = run([line("a"), line("b")])
    assert failed == 0 and got["b"]["status"] == "ok"


def test_results_say_whether_the_speech_ended(run, model, monkeypatch):
    decode = model.decode
    _, _, got = run([line("a")])
    assert got["a"]["ended"] is False and got["a"]["frames"] == 3
    monkeypatch.setattr(
        model, "decode", lambda *a: [dataclasses.replace(s, ended=True) for s in decode(*a)]
    )
    assert run([line("b")])[2]["b"]["ended"] is True


def test_the_output_must_be_a_directory(model, tmp_path):
    path = write_requests(tmp_path / "requests.jsonl", [line("a")])
    with pytest.raises(RequestError, match="cannot make the directory"):
        run_batch(model, path, path, 1, print, SETTINGS)


def test_a_line_without_a_speaker_gets_the_first_preset(run, model, monkeypatch):
    spoken = []
    plan = model.plan
    monkeypatch.setattr(model, "plan", lambda r: spoken.append(r.speaker) or plan(r))
    no_name = {k: v for k, v in line("a").items() if k != "speaker"}
    failed, reports, _ = run([no_name, line("b", speaker=None), line("c"), line("d", speaker="")])
    first = model.config.talker.speakers[0][0]
    assert failed == 0 and spoken == [first, first, "ryan", ""]
    assert len(reports) == 1 and f"2 lines without a speaker as {first}" in reports[0]


def test_what_changed_is_spoken_anew(run, model, monkeypatch):
    kept = [line("a", seed=1), line("b", seed=1)]
    _, _, before = run([*kept, line("c")])
    made = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda r, codes: made.extend(r) or decode(r, codes))
    failed, reports, got = run([*kept, line("c", text="Other words.")])
    assert failed == 0 and len(made) == 1 and "1 line will be spoken anew" in reports[0]
    assert got["c"]["fingerprint"] != before["c"]["fingerprint"]
    assert got["a"] == before["a"] and got["b"] == before["b"]
    assert run(kept)[1] == [] and len(made) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_another_checkpoint_or_option_is_no_match(run, model, tmp_path, strict):
    run([line("a", seed=1)])
    before = (run.out / "a.wav").stat().st_mtime_ns
    other, reports = {"checkpoint": "golden", "dtype": "bfloat16"}, []
    path = tmp_path / "requests.jsonl"
    assert run_batch(model, path, run.out, 4, reports.append, other, strict=strict) == strict
    assert ((run.out / "a.wav").stat().st_mtime_ns == before) == strict
    if strict:
        assert "line 1 (a)" in reports[0] and "leave out --strict" in reports[0]
        # The result is still that of the first settings.
        assert run_batch(model, path, run.out, 4, reports.append, SETTINGS, strict=strict) == 0


def test_results_of_versions_without_fingerprints_are_spoken_anew(run):
    _, _, got = run([line("a", seed=1)])
    del got["a"]["fingerprint"]
    (run.out / "results.jsonl").write_text(json.dumps(got["a"]) + "\n")
    _, reports, got = run([line("a", seed=1)])
    assert "earlier versions" in reports[0] and len(reports) == 1 and got["a"]["fingerprint"]


def test_fingerprints_follow_the_contents_of_reference_files(tts, tmp_path):
    one = lines.Line(1, {"id": "a", "mode": "voice_clone", "text": "Hi.", "ref_audio": "r.wav"})
    moved = lines.Line(2, one.data | {"id": "b", "ref_audio": str(tmp_path / "s.wav")})
    for name in "rs":
        (tmp_path / f"{name}.wav").write_bytes(b"one")

    def prints():
        fingerprint = Fingerprints(VoiceCache(tts("base"), tmp_path), SETTINGS)
        return [fingerprint(one), fingerprint(moved)]

    before = prints()
    assert before[0] == before[1]
    (tmp_path / "r.wav").write_bytes(b"two")
    assert prints()[0] != before[0] and prints()[1] == before[1]


def test_fingerprints_of_checkpoints(converted, tmp_path):
    source, copy = converted("custom_voice"), tmp_path / "copy"
    shutil.copytree(source, copy)
    assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(source)
    assert checkpoint_fingerprint(copy) != checkpoint_fingerprint(converted("base"))
    (copy / "README.md").write_text("Notes.")
    assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(source)
    settings = copy / "generation_config.json"
    settings.write_text(settings.read_text().replace("0.9", "0.8"))
    assert checkpoint_fingerprint(copy) != checkpoint_fingerprint(source)


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

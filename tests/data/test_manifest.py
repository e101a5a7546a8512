"""All lines of a manifest are read, or one sentence names the fault and the line."""

import json

import numpy as np
import pytest
import soundfile

from qtts_jax.data.manifest import read_manifest
from qtts_jax.errors import DataError
from tests.support.speech_files import RATE, byte_tokenizer, corpus, tone, write_manifest


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fields_are_read_and_others_are_carried(tmp_path):
    clips = read_manifest(corpus(tmp_path, 3, instruction="Speak up.", wer=0.5))
    assert [clip.line for clip in clips] == [1, 2, 3]
    assert clips[1].audio == tmp_path / "clip1.wav"
    assert clips[1].speaker == "speaker1" and clips[1].instruction == "Speak up."
    assert clips[1].extra == {"source": "tones", "wer": 0.5} and clips[1].split is None


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = corpus(tmp_path, 3)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [clip.line for clip in read_manifest(path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "none.wav"}, "line 2 of .* does not exist"),
        ({"audio": "clip0.wav"}, "line 2 of .* recording of line 1 again"),
        ({"audio": "text.wav"}, "line 2 of .* no readable audio"),
        ({"audio": "empty.wav"}, "line 2 of .* 0.00 s"),
        ({"text": ""}, "line 2 of .* needs a text"),
        ({"text": "?!"}, "line 2 of .* without words"),
        ({"text": "one ~ two"}, r"line 2 of .* does not know: \['~'\]"),
        ({"text": 3}, "line 2 of .* needs a text"),
        ({"speaker": " "}, "line 2 of .* needs a speaker"),
        ({"language": "klingon"}, "line 2 of .* unknown language 'klingon'"),
        ({"split": "held"}, "line 2 of .* unknown split"),
        ({"instruction": ""}, "line 2 of .* instruction"),
        ({"text": "hello \ud83d there"}, r"line 2 of .* has '\\ud83d', half of a character"),
        ({"speaker": "a\udc00"}, r"line 2 of .* has '\\udc00', half of a character"),
        ({"source": [{"x\ud800": 1}]}, r"line 2 of .* has '\\ud800', half of a character"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, change, message):
    manifest = corpus(tmp_path, 3)
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    lines = lines_of(manifest)
    lines[1] |= change
    write_manifest(tmp_path, lines)
    with pytest.raises(DataError, match=message):
        read_manifest(manifest, text_tokenizer=byte_tokenizer(leave_out="~"))


@pytest.mark.parametrize(
    ("alignment", "message"),
    [
        ({"0": 1}, "no list of at least two pairs"),
        ([[0, 0.1]], "no list of at least two pairs"),
        ([[0, 0.1], [3]], r"\[3\] in its alignment; write pairs"),
        ([[0, 0.1], "ab"], "'ab' in its alignment; write pairs"),
        ([[0, 0.1], [3, "0.2"]], r"\[3, '0.2'\] in its alignment; write pairs"),
        ([[0, 0.1], [True, 0.2]], "write pairs"),
        ([[0, 0.1], [3, float("nan")]], "write pairs"),
        ([[0, 0.1], [3, float("inf")]], "write pairs"),
        ([[-1, 0.1], [3, 0.2]], r"\[-1, 0.1\] in its alignment, outside its text of 15"),
        ([[0, 0.1], [16, 0.2]], r"\[16, 0.2\] in its alignment, outside its text of 15"),
        ([[0, 0.1], [3, 0.3], [2, 0.4]], r"\[2, 0.4\] after \[3, 0.3\] in its alignment"),
        ([[0, 0.1], [3, 0.3], [4, 0.2]], r"\[4, 0.2\] after \[3, 0.3\] in its alignment"),
    ],
)
def test_an_alignment_goes_forward_through_the_text(tmp_path, alignment, message):
    manifest = corpus(tmp_path, 3)
    lines = lines_of(manifest)
    assert len(lines[1]["text"]) == 15
    good = [[0, 0.1], [3, 0.1], [3, 0.25], [15, 1]]
    write_manifest(tmp_path, [lines[0], lines[1] | {"alignment": good}, lines[2]])
    assert read_manifest(manifest)[1].extra["alignment"] == good
    write_manifest(tmp_path, [lines[0], lines[1] | {"alignment": alignment}, lines[2]])
    with pytest.raises(DataError, match=f"line 2 of .* has .*{message}"):
        read_manifest(manifest)


@pytest.mark.parametrize("content", ["{not json", "[1, 2]"])
def test_a_line_that_is_no_object_is_named(tmp_path, content):
    manifest = corpus(tmp_path, 1)
    manifest.write_text(manifest.read_text() + content + "\n")
    with pytest.raises(DataError, match="line 2 of"):
        read_manifest(manifest)


def test_an_empty_or_missing_manifest_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="has no clips"):
        read_manifest(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")


def test_too_long_a_clip_is_refused(tmp_path):
    manifest = corpus(tmp_path, 1)
    soundfile.write(tmp_path / "clip0.wav", tone(100, 61), RATE)
    with pytest.raises(DataError, match="line 1 of .* 61.00 s"):
        read_manifest(manifest)


def test_a_text_in_two_splits_is_refused(tmp_path):
    manifest = corpus(tmp_path, 2)
    lines = lines_of(manifest)
    lines[0] |= {"text": "Hello, world!", "split": "train"}
    lines[1] |= {"text": "hello world", "split": "test"}
    write_manifest(tmp_path, lines)
    with pytest.raises(DataError, match="line 2 of .* line 1 has the same text"):
        read_manifest(manifest)


def test_line_separators_inside_a_text_do_not_end_a_line(tmp_path):
    manifest = corpus(tmp_path, 1)
    (line,) = lines_of(manifest)
    text = json.dumps(line | {"text": "one\u2028two"}, ensure_ascii=False)
    manifest.write_text(text + "\n", encoding="utf-8")
    assert read_manifest(manifest)[0].text == "one\u2028two"

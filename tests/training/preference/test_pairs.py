"""Preference pairs: batches of an epoch, files of human choices, and what is wrong with them."""

import json

import numpy as np
import pytest
import soundfile

from qtts_jax.errors import DataError
from qtts_jax.training.preference.pair_files import read_pairs, read_prompts, write_pairs
from qtts_jax.training.preference.pairs import Pair, PairBatches, Take

PROMPT = {"text": "Hello there.", "speaker": "ryan", "language": "english"}


@pytest.fixture(scope="module")
def custom(tts):
    return tts("custom_voice")


def codes(custom, frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 40, (frames, custom.config.talker.codebooks)).astype(np.int32)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_written_pairs_are_read_as_they_were(custom, tmp_path):
    one, two = Take(codes(custom, 4)), Take(codes(custom, 6, 1), ends=False)
    design = PROMPT | {"instruct": "Slowly."}
    path = write_pairs(tmp_path / "pairs", [(PROMPT, one, two), (design, two, one)])
    first, second = read_pairs(path, custom)
    np.testing.assert_array_equal(first.chosen.codes, one.codes)
    np.testing.assert_array_equal(second.chosen.codes, two.codes)
    assert (first.chosen.ends, first.rejected.ends) == (True, False)
    assert len(second.prompt) > len(first.prompt)


def test_audio_is_encoded_by_the_tokenizer_of_the_model(custom, tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(12_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 24_000)
    np.save(tmp_path / "b.npy", codes(custom, 3))
    row = {"prompt": PROMPT, "chosen": "a.wav", "rejected": "b.npy"}
    (pair,) = read_pairs(write(tmp_path / "p.jsonl", row), custom)
    np.testing.assert_array_equal(
        pair.chosen.codes, custom.speech_tokenizer.encode(str(tmp_path / "a.wav"))[0]
    )


def test_an_epoch_has_every_pair_once(custom):
    prompt = custom.prepare_custom_voice("Hello.", "ryan").prompt
    pairs = [Pair(prompt, Take(codes(custom, 3, i)), Take(codes(custom, 5, -i - 1 + 100)))
             for i in range(5)]  # fmt: skip
    batches = PairBatches(custom.config, pairs, 2, threads=0)
    seen = [next(batches) for _ in range(5)]
    chosen = np.concatenate([batch["codes"][:, 0, :3] for batch in seen])
    assert seen[0]["codes"].shape[:2] == (2, 2)
    for part in (chosen[:5], chosen[5:]):
        assert {tuple(x.ravel()) for x in part} == {tuple(p.chosen.codes.ravel()) for p in pairs}
    position = batches.state()
    after = next(batches)["codes"]
    again = PairBatches(custom.config, pairs, 2, threads=0)
    again.restore(position)
    np.testing.assert_array_equal(next(again)["codes"], after)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("[1", "line 1 .* is no JSON"),
        ({"prompt": PROMPT, "chosen": "a.npy"}, "line 1 .* must be an object with"),
        ({"prompt": {"words": "x"}, "chosen": "a.npy", "rejected": "b.npy"}, "string text"),
        ({"prompt": PROMPT | {"speaker": "nobody"}, "chosen": "a.npy", "rejected": "b.npy"},
         "unknown speaker 'nobody'"),
        ({"prompt": PROMPT, "chosen": "none.npy", "rejected": "b.npy"},
         "chosen in line 1 .* cannot be read"),
        ({"prompt": PROMPT, "chosen": "none.wav", "rejected": "b.npy"},
         "chosen in line 1 .* cannot be read"),
        ({"prompt": PROMPT, "chosen": "a.npy", "rejected": 7}, "rejected in line 1 .* a path"),
        ({"prompt": PROMPT, "chosen": "a.npy", "rejected": "a.npy"}, "are the same speech"),
        ({"prompt": PROMPT, "chosen": "a.npy", "rejected": "narrow.npy"},
         r"must hold whole numbers \[frames, \d+\], not int32 \[4, 3\]"),
        ({"prompt": PROMPT, "chosen": "a.npy", "rejected": "float.npy"}, "not float64"),
    ],
)  # fmt: skip
def test_faulty_lines_are_named(custom, tmp_path, row, fault):
    np.save(tmp_path / "a.npy", codes(custom, 4))
    np.save(tmp_path / "b.npy", codes(custom, 5))
    np.save(tmp_path / "narrow.npy", codes(custom, 4)[:, :3])
    np.save(tmp_path / "float.npy", codes(custom, 4).astype(float))
    path = tmp_path / "p.jsonl"
    path.write_text(row if isinstance(row, str) else json.dumps(row))
    with pytest.raises(DataError, match=fault):
        read_pairs(path, custom)


def test_faulty_files_are_named(custom, tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        read_pairs(tmp_path / "none.jsonl", custom)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no pairs"):
        read_pairs(tmp_path / "empty.jsonl", custom)
    with pytest.raises(DataError, match="has no prompts"):
        read_prompts(tmp_path / "empty.jsonl", custom)
    path = write(tmp_path / "prompts.jsonl", PROMPT, PROMPT | {"text": ""})
    with pytest.raises(DataError, match=r"line 2 of .* cannot be spoken"):
        read_prompts(path, custom)


def test_pairs_that_do_not_fit_are_named(custom):
    prompt = custom.prepare_custom_voice("Hello.", "ryan").prompt
    good = Take(codes(custom, 4))
    with pytest.raises(DataError, match="1 pairs do not fill a batch of 2"):
        PairBatches(custom.config, [Pair(prompt, good, good)], 2)
    short = Take(codes(custom, 1))
    with pytest.raises(DataError, match="pair 0 has speech that ends after 1 frames"):
        PairBatches(custom.config, [Pair(prompt, good, short)], 1)
    high = Take(codes(custom, 4) + 5000)
    with pytest.raises(DataError, match="pair 0 does not fit this model: codes of codebook 0"):
        PairBatches(custom.config, [Pair(prompt, high, good)], 1)

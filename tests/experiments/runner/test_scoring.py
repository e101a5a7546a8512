"""Talkers that speak different numbers of sentences at once are compared on the same texts."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from experiments.runner import intervals
from experiments.runner.joined import joined
from experiments.runner.scale_tiny import TINY
from experiments.runner.scoring import added, groups_of, held_out
from qtts_jax import data
from qtts_jax.errors import ConfigError
from qtts_jax.evaluation import bootstrap

RATE, SPEAKERS, SENTENCES = 24000, ("ann", "bob"), 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Five test clips of two speakers in turn, of 0.1, 0.2, ... s."""
    folder = tmp_path_factory.mktemp("speech")
    lines = []
    for i in range(len(SPEAKERS) * SENTENCES):
        wave = 0.1 * np.sin(np.arange(RATE * (i + 1) // 10) / (5 + i))
        soundfile.write(folder / f"{i}.flac", wave, RATE)
        lines.append({"audio": f"{i}.flac", "text": f"Sentence {i}.", "language": "english",
                      "speaker": SPEAKERS[i % 2], "split": "test"})  # fmt: skip
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data.prepare(manifest, folder / "dataset", progress=False)


def test_pairs_and_single_sentences_have_the_same_groups(dataset, tmp_path):
    single = held_out(dataset, len(dataset), tmp_path / "single")
    pairs = joined(dataset, 2, tmp_path / "joined", [clip.line for clip in single], "test")
    both = held_out(pairs, len(pairs), tmp_path / "pairs")
    words = {False: {}, True: {}}
    for clips, sentences in ((single, 1), (both, 2)):
        groups = groups_of(clips, 2 // sentences)
        texts = {name: [] for name in groups.values()}
        for (_, group), clip in zip(groups.items(), clips, strict=True):
            texts[group].append(clip.text)
        words[sentences == 2] = {name: " ".join(text) for name, text in texts.items()}
    assert words[False] == words[True]
    assert words[True]["ann english 0"] == "Sentence 0. Sentence 2."
    assert words[True]["bob english 2"] == "Sentence 9."
    pause = 0.2
    assert pairs.seconds(0) == pytest.approx(0.1 + pause + 0.3)


def test_scores_of_a_group_are_sums():
    about = {"speaker": "ann", "language": "english"}
    clips = [SimpleNamespace(audio=Path(f"{i}.flac"), line=i, **about) for i in range(3)]
    groups = groups_of(clips, 2)
    scores = {name: [1, 4 + i] for i, name in enumerate(groups)}
    assert added(scores, groups) == {"ann english 0": [2, 9], "ann english 1": [1, 6]}
    last = list(groups)[-1]
    assert added(scores, {name: groups[name] for name in groups if name != last}) == {
        "ann english 0": [2, 9]
    }


def test_groups_that_all_agree_have_the_interval_of_a_share():
    never = [{f"ann {i}": [0.0, 2.0] for i in range(6)}]
    assert intervals.estimate(never) == bootstrap.estimate([(0.0, 1.0)] * 6)
    always = [{f"ann {i}": [2.0, 2.0] for i in range(6)}]
    assert intervals.estimate(always) == bootstrap.estimate([(1.0, 1.0)] * 6)


def test_a_score_of_no_whole_number_of_clips_is_refused():
    records = [SimpleNamespace(text="A boat.", language="english", speaker="ann")]
    with pytest.raises(ConfigError, match="3 sentences .* set sentences_scored to a multiple"):
        TINY.recipe({"sentences_per_clip": 2, "sentences_scored": 3}, records)

import json

import numpy as np
import soundfile

from experiments.corpus.passages import (
    ALIGNMENTS,
    FOLDER,
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    make_passages,
    passage_row,
    planned_passages,
)
from experiments.corpus.split import corpus_split
from experiments.corpus.synthesis.cpu_worker import RATE
from qtts_jax.data.manifest import read_manifest
from qtts_jax.data.splits import TRAIN


def job(number, voice="af_heart", speed=1.0):
    return {
        "id": f"kokoro-{voice}-{number}",
        "engine": "kokoro",
        "voice": voice,
        "speed": speed,
        "text": f"Sentence number {number} is read by somebody at the window.",
        "text_source": "made up",
        "text_licence": "none",
    }


def corpus(tmp_path, jobs, seconds=3.0):
    (tmp_path / "jobs").mkdir()
    audio = tmp_path / "audio/kokoro"
    audio.mkdir(parents=True)
    (tmp_path / "jobs/kokoro.jsonl").write_text("".join(json.dumps(j) + "\n" for j in jobs))
    wave = np.linspace(-0.5, 0.5, round(seconds * RATE), dtype=np.float32)
    with open(audio / ALIGNMENTS, "w") as lines:
        for each in jobs:
            soundfile.write(audio / f"{each['id']}.flac", wave, RATE, subtype="PCM_16")
            row = {"alignment": [[0, 0.1], [len(each["text"]), seconds - 0.1]], "seconds": seconds}
            lines.write(json.dumps({"id": each["id"]} | row) + "\n")
    return tmp_path


def test_passages_are_of_one_voice_at_its_own_speed_and_use_a_sentence_once(tmp_path):
    jobs = [job(n, voice) for n in range(60) for voice in ("af_heart", "bm_george")]
    jobs += [job(n, speed=0.9) for n in range(100, 140)]
    folder = corpus(tmp_path, jobs)
    passages = list(planned_passages(folder))
    assert passages
    parts = [part for each in passages for part in each.parts]
    assert len({part["id"] for part in parts}) == len(parts)
    assert all(len({part["voice"] for part in each.parts}) == 1 for each in passages)
    assert all(part["speed"] == 1.0 for part in parts)
    assert all(corpus_split(part["text"], part["voice"]) == TRAIN for part in parts)
    assert len(list(planned_passages(folder, hours=0.01))) < len(passages)


def test_a_passage_has_the_samples_and_word_times_of_its_sentences(tmp_path):
    folder = corpus(tmp_path, [job(n) for n in range(40)])
    made = make_passages(folder, hours=1.0, workers=1)
    rows = [json.loads(line) for line in (folder / FOLDER / ALIGNMENTS).read_text().splitlines()]
    assert made == len(rows) > 0
    assert make_passages(folder, hours=1.0, workers=1) == 0  # all are there
    passages = {each.name: each for each in planned_passages(folder)}
    manifest = []
    for row in rows:
        passage = passages[row["id"]]
        info = soundfile.info(folder / FOLDER / f"{row['id']}.flac")
        assert abs(info.frames / RATE - row["seconds"]) < 2e-3
        assert SHORTEST_SECONDS <= row["seconds"] <= LONGEST_SECONDS
        starts = row["alignment"][::2]
        for (character, second), k in zip(starts, range(len(passage.parts)), strict=True):
            assert character == sum(len(part["text"]) + 1 for part in passage.parts[:k])
            assert abs(second - (0.1 + 3.0 * k + sum(passage.pauses[:k]))) < 2e-3
        base = {"speaker": "af_heart", "language": "english"}
        manifest.append(passage_row(passage, base) | {"alignment": row["alignment"]})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))
    assert len(read_manifest(folder / "manifest.jsonl")) == len(rows)

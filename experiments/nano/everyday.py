"""How well does a checkpoint speak everyday text: names, numbers, dates, letters, talk, paragraphs?

    python -m experiments.nano.everyday MODEL --out experiments/results/everyday

speaks every text of `everyday.jsonl`, the preset voices in turns, and writes NAME.json and NAME.md:
word error rate by kind against the spoken form (Whisper base, its transcript brought to the spoken
form by the text front end, too, and the nearest of its readings taken), with 95 % bootstrap
intervals, predicted opinion, similarity to the recordings of `--manifest`, and how many did not
end. `--no-normalize` gives the checkpoint the texts as they are written, `--spoken` the spoken
forms of the file; with `--weights int4` it speaks from weights stored in fewer bytes. `--teacher
CORPUS/models` has Kokoro-82M read the spoken forms instead, by those of its voices that MODEL has:
what the judges find wrong in the speech that nano learned from. About 4 CPU minutes for 150 texts
(12 for the teacher). Expected of nano: at most 6 % over all kinds, 3 % for prose, 20 % for names.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments import command
from experiments.nano.teacher_speech import NAME, RATE, teacher_speech, teacher_voices
from qtts_jax.data.manifest import read_manifest
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.bootstrap import Score, estimate
from qtts_jax.evaluation.judges.distill_mos import DistillMOSJudge
from qtts_jax.evaluation.judges.speaker import SpeakerJudge
from qtts_jax.evaluation.judges.whisper import WhisperJudge
from qtts_jax.evaluation.panel import usable
from qtts_jax.evaluation.sample import load_mono_16k
from qtts_jax.evaluation.words import edits, words_of
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.layers.quantized_weights import STORED
from qtts_jax.text.spoken import normalize
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.synthesis import Speech
from qtts_jax.tts.voices import CustomVoice

TESTS = Path(__file__).with_name("everyday.jsonl")
ALL = "all"
# Per cent of words, at most.
GOALS = {ALL: 6.0, "prose": 3.0, "names": 20.0}
LANGUAGE = "english"
_UNMARKED_TIME = re.compile(r"(?<![\d.,:$£€])([01]?\d|2[0-3])\.?([0-5]\d)(?![\d.,]*\d)")


def spoken_words(text: str) -> list[str]:
    """The words of a text or transcript as they are spoken."""
    return words_of(normalize(text), LANGUAGE)


def readings(transcript: str) -> list[str]:
    """The texts that a transcript may stand for: Whisper writes times as 9:30, 9.30 or 930.

    Returns:
        The transcript, and the transcript with such digits as clock times.
    """
    return [transcript, _UNMARKED_TIME.sub(r"\1:\2", transcript)]


def word_errors(spoken: str, transcript: str) -> tuple[int, int]:
    """Word edits to the nearest reading of a transcript, and the words of the spoken form."""
    wanted = spoken_words(spoken)
    errors = min(edits(wanted, spoken_words(reading)) for reading in readings(transcript))
    return errors, len(wanted)


def read_tests(path: Path) -> list[dict[str, str]]:
    """Lines with `kind`, `text` and `spoken`.

    Raises:
        EvaluationError: the file cannot be read or lacks a field.
    """
    try:
        tests = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
        return [{field: test[field] for field in ("kind", "text", "spoken")} for test in tests]
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{path} cannot be read ({error}); a line is an object with kind, text and spoken."
        ) from error


def recordings_by_speaker(manifest: Path | None) -> dict[str, Any]:
    """One recording of each speaker, as the judges take it: at least 3 s if there is one."""
    found: dict[str, Any] = {}
    for clip in read_manifest(manifest) if manifest else []:
        long = clip.extra.get("seconds", 0) >= 3
        if clip.language == LANGUAGE and (clip.speaker not in found or not found[clip.speaker][1]):
            found[clip.speaker] = (clip.audio, long)
    return {speaker: load_mono_16k(audio) for speaker, (audio, _) in found.items()}


def speak(
    tts: QwenTTS, tests: Sequence[dict[str, str]], names: Sequence[str], args: argparse.Namespace
) -> list[Speech]:
    """The speech of every test, the voices in turns; each has its own seed."""
    seconds_a_frame = tts.speech_tokenizer.samples_per_frame / tts.sample_rate
    most = round(args.max_seconds / seconds_a_frame)
    requests = [
        CustomVoice(
            test["spoken"] if args.spoken else test["text"],
            names[i % len(names)],
            LANGUAGE,
            seed=args.seed + i,
            sampling={"max_new_tokens": most},
            normalize=args.normalize,
            split=args.normalize,
        )
        for i, test in enumerate(tests)
    ]
    # Those of one length together: a batch takes as long as its longest.
    order = sorted(range(len(tests)), key=lambda i: len(tests[i]["text"]))
    speech: dict[int, Speech] = {}
    for start in tqdm(range(0, len(order), args.batch), "speak", unit="batch"):
        group = order[start : start + args.batch]
        speech |= zip(group, tts.generate([requests[i] for i in group]), strict=True)
    return [speech[i] for i in range(len(tests))]


def score(args: argparse.Namespace) -> None:
    """Speak, judge and write.

    Raises:
        QTTSError: the model, a package or a file is missing or does not fit.
    """
    tests = read_tests(args.tests)
    tests = tests[:: args.every]
    tts = QwenTTS.from_pretrained(args.model, weights=args.weights)
    whisper = WhisperJudge()
    opinion, likeness = (None, None) if args.words_only else (DistillMOSJudge(), SpeakerJudge())
    voices = recordings_by_speaker(args.manifest)
    names = args.speaker or tts.supported_speakers
    rate = tts.sample_rate
    if args.teacher:
        names, rate = teacher_voices(args.teacher, names), RATE
        turns = [names[i % len(names)] for i in range(len(tests))]
        speech = teacher_speech(args.teacher, [test["spoken"] for test in tests], turns)
    else:
        speech = speak(tts, tests, names, args)
    scores: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    clips = []
    for i, said in enumerate(tqdm(speech, "judge", unit="clip")):
        test, wave = tests[i], load_mono_16k((said.wave.clip(-1, 1), rate))
        transcript = whisper.transcribe(wave, LANGUAGE) if len(wave) else ""
        errors, words = word_errors(test["spoken"], transcript)
        own: dict[str, Score] = {
            "wer": (100.0 * errors, words),
            "no_eos": (float(not said.ended), 1),
        }
        if opinion is not None and likeness is not None and usable(wave):
            own["mos"] = (opinion.score(wave), 1)
            if (voice := voices.get(names[i % len(names)])) is not None:
                own["sim"] = (likeness.similarity(wave, voice), 1)
        for kind in (ALL, test["kind"]):
            for name, value in own.items():
                scores[kind][name].append(value)
        clips.append(
            test | {"speaker": names[i % len(names)], "transcript": transcript, "errors": errors}
        )
    kinds = {
        kind: {name: asdict(estimate(values)) for name, values in by.items()}
        for kind, by in scores.items()
    }
    about = {
        "model": NAME if args.teacher else args.model.name,
        "input": "spoken" if args.spoken or args.teacher else "written",
        "normalize": args.normalize and not args.teacher,
        "seed": args.seed,
    }
    if args.weights:
        about["weights"] = args.weights
    data = {"about": about, "goals": GOALS, "kinds": kinds, "clips": clips}
    table = markdown(about, kinds)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.out.with_suffix(".json"), (json.dumps(data, indent=1) + "\n").encode())
    write_whole(args.out.with_suffix(".md"), table.encode())
    print(table)


def markdown(about: dict[str, Any], kinds: dict[str, dict[str, Any]]) -> str:
    """The table by kind."""
    lines = [
        f"# Everyday text: {about['model']}, {about['input']} form, "
        + ("with" if about["normalize"] else "without") + " text front end"
        + (f", {about['weights']} weights" if "weights" in about else ""),
        "",
        "| kind | texts | words wrong % | 95 % interval | goal | opinion | similarity | no end % |",
        "|---|--:|--:|---|---|--:|--:|--:|",
    ]  # fmt: skip
    for kind, by in kinds.items():
        wer = by["wer"]
        goal = f"at most {GOALS[kind]:g}" if kind in GOALS else ""
        cells = [f"{by[n]['value']:.{d}f}" if n in by else "" for n, d in (("mos", 2), ("sim", 3))]
        lines.append(
            f"| {kind} | {wer['clips']} | {wer['value']:.1f} | {wer['low']:.1f} to "
            f"{wer['high']:.1f} | {goal} | {cells[0]} | {cells[1]} | "
            f"{100 * by['no_eos']['value']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Score a checkpoint."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("model", type=Path, help="a checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, help="result files, without suffix")
    parser.add_argument("--tests", type=Path, default=TESTS, help="JSONL of kind, text, spoken")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="text front end and long text in parts",
    )
    parser.add_argument("--spoken", action="store_true", help="speak the spoken forms of the file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--teacher", type=Path, help="CORPUS/models, to score Kokoro instead")
    source.add_argument("--weights", choices=tuple(STORED), help="how matrices are stored")
    parser.add_argument("--manifest", type=Path, help="recordings of the preset voices")
    parser.add_argument("--words-only", action="store_true", help="no opinion, no similarity")
    parser.add_argument("--speaker", nargs="+", default=[], help="preset speakers; all if none")
    parser.add_argument("--every", type=int, default=1, help="take every so many tests")
    parser.add_argument("--batch", type=int, default=8, help="texts a batch")
    parser.add_argument("--seed", type=int, default=0, help="of the first text")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="longest speech")
    score(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

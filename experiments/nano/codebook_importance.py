"""Which codebooks a talker must predict well: what is understood when the others are recorded ones.

    pip install -e '.[eval]' && pip install --no-deps distillmos==0.9.1
    python -m experiments.nano.codebook_importance MODEL --manifest corpus/manifest.jsonl \
        --out books

Held-out clips of preset speakers are encoded, and the talker is given their frames (teacher
forcing). Of every frame the first N books stay as recorded; each other one becomes the code that is
most probable after those before it. One more row replaces codebook 0 alone. Whisper and a predictor
of opinion judge what decoding makes of them. It prints the table and writes books.json and books.md
beside the scores of the clips. Expected: errors that fall from row to row; the row after which they
hardly fall names the books that generated speech depends on.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.nano.report_command import finish
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.manifest import Clip
from qtts_jax.data.talker_examples import Bucket, Utterance, collate, layout_utterance
from qtts_jax.data.talker_layout import LayoutChoice
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.report import Report
from qtts_jax.evaluation.rows import score_row
from qtts_jax.evaluation.run import MEMO
from qtts_jax.evaluation.sample import Sample, load_mono_16k
from qtts_jax.evaluation.tasks.clips import by_turns, choose, name_of
from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.training.talker.teacher_forcing import forced_frames, forced_hidden, predictor_logits

# Text before the speech, a preset speaker and a language tag: how a preset is mostly used.
_LAYOUT = LayoutChoice(preset=True, language_tag=True)


class Forced(NamedTuple):
    """What a talker makes of recorded frames.

    Attributes:
        codes: [B, F, Q] int32, the recorded ones.
        hidden: [B, F, D], the outputs that predict each frame.
        first: [B, F] int32, the most probable codes of codebook 0.
    """

    codes: np.ndarray
    hidden: jax.Array
    first: np.ndarray


def force(
    config: TTSConfig, params: Params, role: Sequence[int], utterances: Sequence[Utterance]
) -> Forced:
    """Give the talker utterances of preset speakers, all in one batch.

    Args:
        params: float32, of the whole model.
        role: the ids that open the assistant turn.
    """
    examples = [layout_utterance(config, role, u, _LAYOUT) for u in utterances]
    longest = (max(len(e.rows) for e in examples), max(len(e.codes) for e in examples))
    batch = collate(config, examples, Bucket(*longest))

    @jax.jit
    def run(params: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        model = _bind(config, params)
        hidden = forced_frames(forced_hidden(model, batch, attention="plain"), batch)
        logits = model.talker.logits(hidden)[..., : config.talker.codebook_size]
        return hidden, jnp.argmax(logits, axis=-1)

    hidden, first = run(params, batch)
    return Forced(batch["codes"], hidden, np.asarray(first))


def most_probable(config: TTSConfig, params: Params, forced: Forced, given: int) -> np.ndarray:
    """Codes [B, F, Q] whose first `given` books (1 at least) are recorded, the others predicted."""
    rows = forced.codes.reshape(-1, forced.codes.shape[-1])
    hidden = forced.hidden.reshape(len(rows), -1)
    run = _predict(config)
    codes = jnp.asarray(rows)
    for book in range(given, codes.shape[1]):
        codes = codes.at[:, book].set(run(params, hidden, codes)[:, book - 1])
    return np.asarray(codes).reshape(forced.codes.shape)


@functools.cache
def _predict(config: TTSConfig) -> Any:
    @jax.jit
    def run(params: Params, hidden: jax.Array, codes: jax.Array) -> jax.Array:
        model = _bind(config, params)
        first = model.talker.embed_codec(codes[:, 0])
        logits = predictor_logits(
            model.code_predictor, hidden, first, codes[:, 1:], attention="plain"
        )
        return jnp.argmax(logits, axis=-1)

    return run


def _bind(config: TTSConfig, params: Params) -> Any:
    return bind(abstract(TTSModel, config)[0], params)


def preset_clips(config: TTSConfig, args: argparse.Namespace) -> list[Clip]:
    """Held-out clips of the speakers that the model knows by name."""
    known = {name.lower() for name, _ in config.talker.speakers}
    wanted = {name.lower() for name in args.speaker} or known
    found = choose(args.manifest, split=args.split, language=args.language)
    clips = [clip for clip in found if clip.speaker.lower() in wanted & known]
    if not clips:
        raise EvaluationError(
            f"{args.manifest} has no clips of the split {args.split!r} by a preset speaker "
            f"({', '.join(sorted(wanted))}); choose another --speaker or --split."
        )
    return by_turns(clips, args.clips)


def run(args: argparse.Namespace) -> Report:
    """All rows."""
    config = TTSConfig.from_hf(read_config(args.model))
    if config.talker.code_predictor is None:
        raise EvaluationError(f"{args.model} has one codebook only; there is nothing to compare.")
    books = config.talker.codebooks
    if wrong := [n for n in args.books if not 1 <= n <= books]:
        raise EvaluationError(
            f"--books takes numbers from 1 to {books} for this model, not {wrong}."
        )
    clips = preset_clips(config, args)
    args.out.mkdir(parents=True, exist_ok=True)
    panel = Panel.load(args.judges, args.out / MEMO)
    params = cast(load_params(args.model, abstract(TTSModel, config)[1]), jnp.float32)
    text, speech = TextTokenizer.from_dir(args.model), SpeechTokenizer.from_pretrained(args.model)
    role = text.assistant_ids(clips[0].text)[0]
    recorded = speech.encode([clip.audio for clip in clips])
    utterances = [
        Utterance(
            text_ids=tuple(text.assistant_ids(clip.text)[1]),
            codes=codes,
            language=clip.language,
            speaker=clip.speaker,
        )
        for clip, codes in zip(clips, recorded, strict=True)
    ]
    forced = force(config, params, role, utterances)
    variants = {"all recorded": forced.codes}
    alone = forced.codes.copy()
    alone[..., 0] = forced.first
    variants["0 predicted"] = alone
    for given in args.books:
        variants[f"first {given} recorded"] = most_probable(config, params, forced, given)

    def decoded(codes: np.ndarray) -> Iterator[Sample]:
        cut = [row[: len(u.codes)] for row, u in zip(codes, utterances, strict=True)]
        waves, rate = speech.decode(cut)
        for clip, wave in zip(clips, waves, strict=True):
            yield Sample(name_of(clip), load_mono_16k((wave, rate)), clip.text, clip.language)

    recordings = (Sample(name_of(c), load_mono_16k(c.audio), c.text, c.language) for c in clips)
    rows = [score_row("recordings", recordings, panel, len(clips))]
    rows += [score_row(name, decoded(c), panel, len(clips)) for name, c in variants.items()]
    about = {"model": args.model.name, "clips": len(clips), "judges": panel.versions}
    return Report("books", rows, about)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="checkpoint with preset speakers")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--speaker", nargs="+", default=[], help="presets (default: all)")
    parser.add_argument("--split", default="test", help="or all")
    parser.add_argument("--language", help="of the clips (default: all)")
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--books", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--judges", nargs="+", default=["asr", "mos"])
    args = parser.parse_args()
    return finish("books_heard", lambda: run(args), args.out)


if __name__ == "__main__":
    raise SystemExit(main())

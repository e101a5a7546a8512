"""Which codebooks a talker must predict well: scores with the first N codebooks recorded.

    pip install -e '.[eval]' && pip install --no-deps distillmos==0.9.1
    python -m experiments.nano.codebook_importance MODEL --manifest corpus/manifest.jsonl \
        --out books

Held-out clips of preset speakers are encoded, and the talker is given their frames (teacher
forcing). In every frame the first N codebooks keep the recorded codes; each other codebook gets
the most probable code given those before it. One more row replaces codebook 0 alone. Whisper (WER)
and a MOS predictor score the decoded audio. It prints the table and writes books.json and books.md
beside the scores of the clips. Expected: errors that fall from row to row; the row after which they
hardly fall names the codebooks that generated speech depends on.
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

from experiments import command
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

# Text before the speech, a preset speaker and a language tag: the usual layout of a preset.
_LAYOUT = LayoutChoice(preset=True, language_tag=True)


class Forced(NamedTuple):
    """Outputs of a talker for recorded frames (teacher forcing).

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
    """Teacher forcing of utterances of preset speakers, all in one batch.

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
    """Codes [B, F, Q] whose first `given` codebooks (at least 1) are recorded."""
    rows = forced.codes.reshape(-1, forced.codes.shape[-1])
    hidden = forced.hidden.reshape(len(rows), -1)
    run = _predict(config)
    codes = jnp.asarray(rows)
    for codebook in range(given, codes.shape[1]):
        codes = codes.at[:, codebook].set(run(params, hidden, codes)[:, codebook - 1])
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
    """Held-out clips of the preset speakers of the model."""
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
    """The report: one row per set of recorded codebooks."""
    config = TTSConfig.from_hf(read_config(args.model))
    if config.talker.code_predictor is None:
        raise EvaluationError(f"{args.model} has one codebook only; there is nothing to compare.")
    pattern = config.talker.code_predictor.pattern
    if pattern != "sequential":
        raise EvaluationError(
            f"{args.model} has the pattern {pattern!r}, whose codes do not depend on the recorded "
            "ones before them; give a model of the sequential pattern."
        )
    codebooks = config.talker.codebooks
    if wrong := [n for n in args.codebooks if not 1 <= n <= codebooks]:
        raise EvaluationError(
            f"--codebooks takes numbers from 1 to {codebooks} for this model, not {wrong}."
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
    for given in args.codebooks:
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


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("model", type=Path, help="checkpoint with preset speakers")
    parser.add_argument("--manifest", type=Path, required=True, help="JSONL of clips")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--speaker", nargs="+", default=[], help="preset speakers (default: all)")
    parser.add_argument("--split", default="test", help="split of the clips, or all")
    parser.add_argument("--language", help="language of the clips (default: all)")
    parser.add_argument("--clips", type=int, default=30, help="number of clips")
    parser.add_argument(
        "--codebooks",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        help="numbers of recorded codebooks, one row each",
    )
    parser.add_argument("--judges", nargs="+", default=["asr", "mos"], help="metrics")
    args = parser.parse_args()
    report = run(args)
    report.write(args.out, plot=False)
    print(report.markdown())


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

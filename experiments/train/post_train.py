"""Post-train a talker on preferences (dpo) or on rewards of its own speech (gspo, grpo).

    python -m experiments.train.post_train gspo --model MODEL --prompts prompts.jsonl \
        --held-out held.jsonl --out runs/gspo --minutes 20
    python -m experiments.train.post_train dpo --model MODEL --prompts prompts.jsonl --out runs/dpo
    python -m experiments.train.post_train dpo --model MODEL --pairs choices.jsonl --out runs/human

A line of `--prompts` is an object with text, language and perhaps speaker and instruct. gspo and
grpo speak `--samples` times for each of `--group-prompts` prompts a step, score the speech, and
raise the probability of what is better than its group. dpo does that once with the model at hand,
and learns from the best and the worst of each group, or from the human choices of `--pairs` (lines
with prompt, chosen and rejected, see `qtts_jax/training/preference/pair_files.py`).

Rewards: 1 - CER (Whisper base), similarity to the model's voice before training, duration, end of
speech, repeated phrases, predicted opinion; weights by options, 0 leaves a judge out. The judge
`--held-out-judge` is never a reward: with `--held-out` it and the others score the speech of other
prompts every `--held-out-every` steps.

RUN/model is a checkpoint, RUN/draws and RUN/pairs are what dpo drew and learned from, metrics.jsonl
has the curves (reward, score/NAME, kl, held_out/NAME, and seconds/speech and seconds/scores of the
rollouts). The same command again continues the run.
Judging takes most of the time: about 2 CPU seconds a speech, which `--judge-processes` share and
`--judge-on-devices` moves to a GPU. On a GPU each padded length of a batch compiles for a minute or
more, so prompts should be of similar lengths; float32 lacks the fused attention of bfloat16, and
256 rows of 30 s are too many for it (`--accumulate`).
`experiments.nano.post_training` makes the table of the models."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import command
from experiments.train.drawn_pairs import scored_draws, write_best_and_worst
from experiments.train.rollout_judging import Expected, Judging, expectations, seeded
from experiments.train.run import Stopwatch, add_arguments, parse, train
from qtts_jax import QwenTTS
from qtts_jax.cli.batch.fingerprint import checkpoint_fingerprint
from qtts_jax.cli.common import positive
from qtts_jax.errors import ConfigError
from qtts_jax.evaluation.rewards import RewardMix
from qtts_jax.functional import abstract
from qtts_jax.generation.request import Request
from qtts_jax.io.checkpoint import load_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training import checkpoints
from qtts_jax.training.export import export_checkpoint
from qtts_jax.training.hooks import averaged
from qtts_jax.training.log import RunLog
from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.preference.dpo import PreferenceTask, PreferenceTaskConfig
from qtts_jax.training.preference.pair_files import read_pairs, read_prompts
from qtts_jax.training.preference.pairs import PairBatches
from qtts_jax.training.preference.policy_task import PolicyTask, PolicyTaskConfig
from qtts_jax.training.preference.rollout_batches import RolloutBatches, RolloutConfig
from qtts_jax.training.preference.rollouts import Rollouts
from qtts_jax.training.preference.task import PolicyConfig, SpeechPolicyTask
from qtts_jax.training.state import TrainState
from qtts_jax.training.talker.lora import LoraConfig
from qtts_jax.training.task import Batches
from qtts_jax.training.trainer import Hook
from qtts_jax.training.trainer_config import TrainerConfig

METHODS = ("dpo", "gspo", "grpo")
# Without weight decay, since nothing but the reward shall move the weights.
_WHOLE = OptimizerConfig(1e-5, warmup_steps=10, b2=0.98, weight_decay=0.0)
TRAINER = TrainerConfig(
    steps=1_000_000,  # an upper bound
    optimizers={
        "talker": _WHOLE,
        "code_predictor": _WHOLE,
        "lora": dataclasses.replace(_WHOLE, learning_rate=1e-4),
    },
    log_every=1,
    save_every=20,
)
HELD_OUT_SEED = 2**20
WEIGHTS = {name: getattr(RewardMix(), name) for name in RewardMix().weights()}
Prompts = Sequence[Mapping[str, str]]


def main() -> None:
    """Train for one session and write the checkpoint."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("method", choices=METHODS, help="what is learned from")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to begin with")
    parser.add_argument("--prompts", type=Path, help="JSONL of what is spoken")
    parser.add_argument("--pairs", type=Path, help="JSONL of human choices, for dpo")
    parser.add_argument("--held-out", type=Path, help="JSONL of prompts that only measure")
    parser.add_argument("--held-out-every", type=int, default=20, help="steps; 0 for never")
    parser.add_argument(
        "--books", choices=("first", "all"), default="first", help="codebooks of the policy"
    )
    parser.add_argument("--lora", type=int, help="rank of adapters (default: train all weights)")
    parser.add_argument("--temperature", type=float, help="of the policy (default: the model's)")
    parser.add_argument("--top-k", type=int, help="of the policy (default: the model's)")
    parser.add_argument("--samples", type=int, default=16, help="speech of a prompt, a group")
    parser.add_argument("--group-prompts", type=int, default=16, help="prompts of a step")
    parser.add_argument("--updates", type=int, default=1, help="steps of a set of rollouts")
    parser.add_argument("--kl-weight", type=float, default=0.01, help="of the KL to the start")
    parser.add_argument("--beta", type=float, default=0.1, help="of dpo")
    parser.add_argument("--sft-weight", type=float, default=0.0, help="of dpo's chosen speech")
    parser.add_argument("--epochs", type=float, default=1.0, help="of dpo over its pairs")
    parser.add_argument("--batch-pairs", type=int, default=16, help="pairs of a step of dpo")
    parser.add_argument(
        "--pairs-of-prompt", type=positive, default=1, help="most pairs of a prompt's samples"
    )
    parser.add_argument(
        "--least-margin", type=float, default=0.1, help="least difference of rewards in a pair"
    )
    parser.add_argument("--accumulate", type=int, default=1, help="microbatches of a step")
    parser.add_argument(
        "--remat",
        choices=("none", "products", "blocks"),
        default="none",
        help="what the backward pass computes again",
    )
    parser.add_argument("--rows", type=int, default=256, help="most speech generated at once")
    for name, weight in WEIGHTS.items():
        parser.add_argument(
            f"--{name}", type=float, default=weight, help=f"weight of the reward {name}"
        )
    parser.add_argument(
        "--opinion-judge", choices=("mos", "dnsmos"), default="mos", help="whose opinion rewards"
    )
    parser.add_argument(
        "--held-out-judge",
        choices=("asr", "mos", "dnsmos"),
        default="dnsmos",
        help="which judge never rewards",
    )
    parser.add_argument(
        "--judge-processes", type=positive, default=1, help="processes that judge, a core each"
    )
    parser.add_argument(
        "--judge-on-devices",
        action="store_true",
        help="Whisper (without a beam), the speaker encoder and DistillMOS score on the devices",
    )
    add_arguments(parser, TRAINER, several=False)
    args = parse(parser)
    session(args)


def session(args: argparse.Namespace) -> None:
    """One training session.

    Raises:
        QTTSError: the model, prompts, pairs or settings cannot be used, a judge is missing, or
            training cannot go on.
    """
    stopwatch = Stopwatch()
    if args.prompts is None and (args.method != "dpo" or args.pairs is None):
        raise ConfigError("there is nothing to speak; give --prompts, or --pairs for dpo.")
    mix = RewardMix(
        **{name: getattr(args, name) for name in WEIGHTS},
        opinion_judge=args.opinion_judge,
        held_out=args.held_out_judge,
    )
    tts = QwenTTS.from_pretrained(args.model)
    task = make_task(args, tts)
    mesh = TRAINER.mesh if args.mesh is None else MeshConfig.parse(args.mesh)
    rollouts = Rollouts(task, tts.speech_tokenizer, mesh, args.rows)
    base = dataclasses.replace(TRAINER, accumulate=args.accumulate)
    batches: Batches
    if isinstance(task, PreferenceTask):
        path = args.pairs or made_pairs(args, tts, task, mix)
        pairs = read_pairs(path, tts)
        rows = min(args.batch_pairs, len(pairs))
        batches = PairBatches(tts.config, pairs, rows, seed=args.seed, threads=args.threads)
        base = dataclasses.replace(base, steps=max(1, round(args.epochs * len(pairs) / rows)))
        stopwatch.log(f"{len(pairs)} pairs")
    else:
        prompts, requests = drawn_prompts(args.prompts, tts, task)
        expected = expectations(tts, prompts, requests, args.rows, args.out / "start")
        judging = make_judging(args, mix.judges(), prompts, expected, tts)
        groups = RolloutConfig(args.group_prompts, args.samples, args.updates, args.seed)
        batches = RolloutBatches(
            task,
            rollouts,
            requests,
            lambda numbers, spoken: judging.rewards(mix, numbers, spoken),
            groups,
            mesh,
        )
        stopwatch.log(f"{len(prompts)} prompts")
    hooks = []
    if isinstance(batches, RolloutBatches):
        hooks.append(Hook(1, rollout_seconds(batches)))
    if args.held_out is not None and args.held_out_every:
        hooks.append(Hook(args.held_out_every, held_out_scores(args, tts, task, rollouts)))

    def write(state: TrainState) -> None:
        trained = task.model_params(averaged(state), state.extras)
        export_checkpoint(args.model, args.out / "model", tts.config, trained, overwrite=True)

    try:
        train(args, base, task, batches, hooks, stopwatch, write)
    finally:
        if isinstance(batches, PairBatches):
            batches.close()


def make_task(args: argparse.Namespace, tts: QwenTTS) -> PreferenceTask | PolicyTask:
    """The task of a method, from the parameters of the checkpoint."""
    parts = ("talker", "code_predictor") if args.books == "all" else ("talker",)
    policy = PolicyConfig(
        tts.config,
        tts.defaults.merge({"temperature": args.temperature, "top_k": args.top_k}),
        books=args.books,
        dtype=args.dtype,
        train=parts if args.lora is None else (),
        lora=None if args.lora is None else LoraConfig(args.lora, 2.0 * args.lora),
        remat=args.remat,
    )
    params = load_params(args.model, abstract(TTSModel, tts.config)[1])
    if args.method == "dpo":
        return PreferenceTask(PreferenceTaskConfig(policy, args.beta, args.sft_weight), params)
    return PolicyTask(PolicyTaskConfig(policy, args.method, kl_weight=args.kl_weight), params)


def drawn_prompts(
    path: Path, tts: QwenTTS, task: SpeechPolicyTask
) -> tuple[Prompts, list[Request]]:
    """The prompts of a file, and their requests with the sampling of the policy."""
    prompts, requests = read_prompts(path, tts)
    sampling = task.policy.sampling
    return prompts, [dataclasses.replace(r, sampling=sampling) for r in requests]


def make_judging(
    args: argparse.Namespace,
    judges: Sequence[str],
    prompts: Prompts,
    expected: Expected,
    tts: QwenTTS,
) -> Judging:
    """The judges that the options ask for."""
    options = args.judge_processes, args.judge_on_devices
    return Judging(judges, prompts, expected, tts.sample_rate, None, *options)


def made_pairs(
    args: argparse.Namespace, tts: QwenTTS, task: SpeechPolicyTask, mix: RewardMix
) -> Path:
    """The best and worst of drawn speech of every prompt, in RUN/pairs.

    The draws are kept in RUN/draws, from which an interrupted session goes on.
    """
    prompts, requests = drawn_prompts(args.prompts, tts, task)
    expected = expectations(tts, prompts, requests, args.rows, args.out / "start")
    judging = make_judging(args, mix.judges(), prompts, expected, tts)
    repeated = [request for request in requests for _ in range(args.samples)]
    settings = {
        "checkpoint": checkpoint_fingerprint(args.model),
        "prompts": hashlib.sha256(args.prompts.read_bytes()).hexdigest(),
        "sampling": dataclasses.asdict(task.policy.sampling),
        "seed": args.seed,
        "rewards": dataclasses.asdict(mix),
    }
    draws = scored_draws(
        tts.synthesize,
        seeded(repeated, args.seed),
        args.samples,
        lambda numbers, spoken: judging.rewards(mix, numbers, spoken)["reward"],
        args.rows,
        args.out / "draws",
        settings,
    )
    judging.close()
    return write_best_and_worst(
        args.out / "pairs", prompts, draws, args.least_margin, args.pairs_of_prompt
    )


def rollout_seconds(batches: RolloutBatches):
    """The function of a hook that logs what the newest rollouts took."""

    def run(state: TrainState, log: RunLog) -> None:
        seconds = {f"seconds/{name}": value for name, value in batches.seconds.items()}
        log.scalars(int(state.step), seconds)

    return run


def held_out_scores(
    args: argparse.Namespace, tts: QwenTTS, task: SpeechPolicyTask, rollouts: Rollouts
):
    """The function of a hook that speaks the held-out prompts and logs all scores.

    A run that has no checkpoint yet logs those of its start as step 0.
    """
    prompts, requests = drawn_prompts(args.held_out, tts, task)
    requested = seeded(requests, HELD_OUT_SEED)
    kept = args.out / "start_held_out"
    expected: Expected = expectations(tts, prompts, requests, args.rows, kept)
    judges = ("asr", "speaker", "duration", "mos", "dnsmos")
    judging = make_judging(args, judges, prompts, expected, tts)

    def measure(params) -> dict[str, float]:
        found = judging.scores(range(len(requested)), rollouts.speak(params, requested))
        names = dict.fromkeys(name for scores in found for name in scores)
        pairs = {name: [s[name] for s in found if name in s] for name in names}
        return {
            f"held_out/{name}": sum(a for a, _ in values) / sum(b for _, b in values)
            for name, values in pairs.items()
        }

    def run(state: TrainState, log: RunLog) -> None:
        params = rollouts.params(averaged(state), state.extras)
        log.scalars(int(state.step), measure(params))

    if not checkpoints.checkpoints(args.out / "checkpoints"):
        with RunLog(args.out, tensorboard=False) as log:
            log.scalars(0, measure(tts.params))
    return run


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

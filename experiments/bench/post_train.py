"""Memory and seconds of a step of post-training at released sizes: random weights and rewards.

    python -m experiments.bench.post_train --out experiments/results/bench_post_train.NAME.json \
        --variants "method=gspo" "method=gspo lora=16" "method=dpo" "method=gspo fsdp=2"

A step of gspo generates `--rows` utterances of `--frames` frames each with the parameters of the
training, decodes them, lays them out as a batch, and updates the policy of codebook 0 in bfloat16
with float32 master weights and moments; judges are left out, since their time does not depend on
the model. A step of dpo updates on rows / 2 pairs of such utterances. Reported: seconds of the
generation and of the update (median of the steps after the first), of compilation, and the peak of
device memory, the frozen reference and the copy that generates among it. `--size tiny --rows 32
--frames 8 --steps 1` runs on a CPU in a minute. `--variants` measures each in a new process."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.bench.random_models import random_params
from experiments.bench.train import FRAME_SECONDS, SIZES, model_config
from experiments.bench.training_step import begin, peak_gb
from experiments.bench.variants import measure_settings
from qtts_jax.configs.presets import tiny_tokenizer, tokenizer_12hz
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.generation.request import Request
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.preference.dpo import PreferenceTask, PreferenceTaskConfig
from qtts_jax.training.preference.policy_task import PolicyTask, PolicyTaskConfig
from qtts_jax.training.preference.rollout_batches import RolloutBatches, RolloutConfig
from qtts_jax.training.preference.rollouts import Rollouts
from qtts_jax.training.preference.task import PolicyConfig
from qtts_jax.training.talker.lora import LoraConfig
from qtts_jax.training.task import Batch
from qtts_jax.tts.synthesis import Speech

PROMPTS, TEXT = 16, 24  # prompts of a step, and words of each


def policy_of(args: argparse.Namespace) -> PolicyConfig:
    """The policy: codebook 0 of a model that speaks `--frames` frames each time."""
    config = model_config(args.size)
    sampling = SamplingParams(repetition_penalty=1.0, max_new_tokens=args.frames + 1)
    lora = None if args.lora is None else LoraConfig(args.lora, 2.0 * args.lora)
    train = ("talker",) if lora is None else ()
    return PolicyConfig(
        config, sampling, dtype=args.dtype, train=train, lora=lora, remat=args.remat
    )


def first_params(policy: PolicyConfig) -> Params:
    """Random parameters whose speech never ends by itself."""
    params = random_params(TTSModel, policy.model, jnp.dtype(policy.dtype))
    head = params["talker"]["codec_head"]
    # A logit of 0 is far outside the top 50 of 2048 random ones.
    head["kernel"] = head["kernel"].at[policy.model.talker.eos_id].set(0)
    return params


def requests_of(config: TTSConfig, sampling: SamplingParams) -> list[Request]:
    """As many prompts of random words as a step draws."""
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 1000, (PROMPTS, TEXT)).tolist()
    voice = SpeakerCondition()
    return [Request(build_prompt(config, [1, 2, 3], t, voice=voice), sampling, 0) for t in texts]


def in_pairs(batch: Batch) -> Batch:
    """The batch [B, ...] of rollouts as pairs [B / 2, 2, ...]."""
    scores = ("advantage", "weight", "reward")
    return {name: x.reshape(-1, 2, *x.shape[1:]) for name, x in batch.items() if name not in scores}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time `args.steps` steps after the first two.

    Raises:
        ConfigError: the rows are no whole groups.
    """
    if args.rows % PROMPTS or args.rows < 2 * PROMPTS:
        raise ConfigError(
            f"rows must be a multiple of {PROMPTS}, at least {2 * PROMPTS}, since a step draws "
            f"{PROMPTS} prompts and groups of 2 or more; not {args.rows}."
        )
    policy = policy_of(args)
    params = first_params(policy)
    task: PreferenceTask | PolicyTask
    if args.method == "dpo":
        task = PreferenceTask(PreferenceTaskConfig(policy), params)
    else:
        task = PolicyTask(PolicyTaskConfig(policy, args.method), params)
    shape = MeshConfig(data=args.data, fsdp=args.fsdp)
    mesh = TrainingMesh(shape)
    rule = OptimizerConfig(1e-6, weight_decay=0.0)
    begun = begin(task, {"talker" if args.lora is None else "lora": rule}, mesh, args.accumulate)
    state, parameters_m = begun.state, begun.parameters_m()
    tokenizer = tokenizer_12hz()
    tokenizer = tiny_tokenizer(tokenizer) if args.size == "tiny" else tokenizer
    codec = random_params(Tokenizer12Hz, tokenizer, jnp.dtype(args.dtype))
    decoder = SpeechTokenizer.from_params(tokenizer, codec)
    decoder.keep_on_host("encoder")  # as `from_pretrained` does
    rng = np.random.default_rng(1)

    def rewards(numbers: Any, spoken: list[Speech]) -> dict[str, np.ndarray]:
        return {"reward": rng.random(len(spoken))}

    batches = RolloutBatches(
        task,
        Rollouts(task, decoder, shape, args.rows),
        requests_of(policy.model, policy.sampling),
        rewards,
        RolloutConfig(PROMPTS, args.rows // PROMPTS),
        shape,
    )
    compiled, compile_s = None, 0.0
    generation, update = [], []
    for _ in range(args.steps + 2):
        started = time.perf_counter()
        batches.follow(state.params, state.extras)
        rollouts = next(batches)
        generation.append(time.perf_counter() - started)
        host = in_pairs(rollouts) if args.method == "dpo" else rollouts
        batch = jax.tree.map(lambda x: x[0], mesh.put([host], args.accumulate))
        if compiled is None:
            compiled, compile_s = begun.compiled(batch)
        started = time.perf_counter()
        state, metrics = compiled(state, batch)
        loss = float(metrics["loss"])
        update.append(time.perf_counter() - started)
    assert np.isfinite(loss)
    speak_s, update_s = (statistics.median(seconds[2:]) for seconds in (generation, update))
    return {
        "device": jax.devices()[0].device_kind,
        "devices": mesh.mesh.size,
        "trained_parameters_m": parameters_m,
        "generation_compile_s": generation[0] - speak_s,
        "update_compile_s": compile_s,
        "generation_s": speak_s,
        "update_s": update_s,
        "speech_s_per_s": args.rows * args.frames * FRAME_SECONDS / (speak_s + update_s),
        "peak_gb": peak_gb(),
    }


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--size", default="0.6B", choices=(*SIZES, "tiny"), help="of the model")
    parser.add_argument(
        "--method", default="gspo", choices=("gspo", "grpo", "dpo"), help="what is learned from"
    )
    parser.add_argument("--lora", type=int, help="rank of adapters (default: train all weights)")
    parser.add_argument("--rows", type=int, default=256, help="utterances of a step")
    parser.add_argument("--frames", type=int, default=64, help="of each utterance")
    parser.add_argument("--accumulate", type=int, default=1, help="microbatches of a step")
    parser.add_argument(
        "--remat", default="none", choices=("none", "blocks", "products"), help="rematerialisation"
    )
    parser.add_argument("--dtype", default="bfloat16", help="of the computation")
    parser.add_argument("--data", type=int, default=1, help="devices of data parallelism")
    parser.add_argument("--fsdp", type=int, default=1, help="devices that split parameters, too")
    parser.add_argument("--steps", type=int, default=5, help="steps of the median")
    measure_settings(parser, "experiments.bench.post_train", measure)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))

"""Batches of the policy's own speech with advantages, made anew from the newest parameters."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from qtts_jax.data.loader import digest_of
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.errors import ConfigError, DataError, TrainingError
from qtts_jax.generation.batch import bucket
from qtts_jax.generation.request import MAX_SEED, Request
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.preference.groups import group_advantages
from qtts_jax.training.preference.policy_task import SCORE
from qtts_jax.training.preference.rollouts import Rollouts
from qtts_jax.training.preference.task import SpeechPolicyTask
from qtts_jax.training.task import Batch, Extras, Groups
from qtts_jax.tts.synthesis import Speech

Scorer = Callable[[Sequence[int], Sequence[Speech]], Mapping[str, np.ndarray]]
"""(numbers of the prompts, speech of each) -> finite scores [N] by name, `reward` among them."""
REWARD = "reward"
# Smallest padded sizes of a batch; larger ones are these by powers of two.
POSITIONS, FRAMES = 32, 16


@dataclass(frozen=True)
class RolloutConfig:
    """How much the policy speaks, and how often each speech is used.

    Attributes:
        prompts: of a set of rollouts, drawn at random without repeats.
        samples: speech for each prompt (a group).
        updates: batches that a set is split into, one update each. From the second on, the speech
            is that of slightly older parameters.
        seed: of prompts, speech and order.

    Raises:
        ConfigError: a number is too small, or a set does not divide into the updates.
    """

    prompts: int = 16
    samples: int = 16
    updates: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.updates < 1 or self.samples < 2:
            raise ConfigError(
                f"rollouts need at least 1 prompt, 1 update and groups of 2, not {self.prompts}, "
                f"{self.updates} and {self.samples}."
            )
        if self.prompts * self.samples % self.updates:
            raise ConfigError(
                f"{self.prompts} x {self.samples} rollouts do not divide into {self.updates} "
                "updates; choose other numbers."
            )


class RolloutBatches:
    """`training.task.PolicyBatches`: each set of rollouts is spoken by the newest parameters.

    A set is a function of its number and of the parameters, so a run that resumes between two sets
    makes the same again; batches of a set that is not used up are part of the position.

    Args:
        task: whose log-probabilities the batches hold where a set has several updates.
        rollouts: speak.
        prompts: the requests, sampled as `task` has it; their seeds are replaced.
        scorer: scores the speech; its `reward` is what is learned from.
        mesh: of the trainer.

    Attributes:
        seconds: what the speech and the scores of the last set took, by name.

    Raises:
        ConfigError: there are too few prompts, or one is sampled otherwise.
    """

    def __init__(
        self,
        task: SpeechPolicyTask,
        rollouts: Rollouts,
        prompts: Sequence[Request],
        scorer: Scorer,
        config: RolloutConfig,
        mesh: MeshConfig | None = None,
    ) -> None:
        if len(prompts) < config.prompts:
            raise ConfigError(
                f"{len(prompts)} prompts are too few for sets of {config.prompts}; give more, or "
                "draw fewer at once."
            )
        for number, request in enumerate(prompts):
            if _drawing(request) != _drawing(replace(request, sampling=task.policy.sampling)):
                raise ConfigError(
                    f"prompt {number} is sampled by {request.sampling}, and the policy by "
                    f"{task.policy.sampling}; use the same settings."
                )
        self._task, self._rollouts, self._prompts = task, rollouts, prompts
        self._scorer, self._config = scorer, config
        self._mesh = TrainingMesh(mesh or MeshConfig())
        self._log_probs = jax.jit(
            self._mesh.traced(
                lambda p, e, batch: task.log_probs(p, e, {k: x[0] for k, x in batch.items()})[0]
            )
        )
        self._data = {
            "kind": "rollouts",
            "digest": digest_of(r.prompt.text.tobytes() for r in prompts),
            **vars(config),
        }
        self.seconds: dict[str, float] = {}
        self._set = 0
        self._pending: list[Batch] = []
        self._policy: tuple[Groups, Extras] | None = None

    def follow(self, params: Groups, extras: Extras) -> None:
        """Use these parameters for the next set; they are not read after the next batch."""
        self._policy = (params, extras)

    def __next__(self) -> Batch:
        """The next batch, after a new set of rollouts where the one before is used up.

        Raises:
            TrainingError: a set is due, but the parameters are those of the set before.
        """
        policy, self._policy = self._policy, None
        if not self._pending:
            if policy is None:
                raise TrainingError(
                    "rollouts are due for parameters that are not there yet; use steps_per_call=1"
                )
            self._pending = self._speak(*policy)
            self._set += 1
        return self._pending.pop(0)

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        pending = [_to_text(batch) for batch in self._pending]
        return self._data | {"set": self._set, "pending": pending}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` returned.

        Raises:
            DataError: it is that of other prompts, numbers or seed.
        """
        position = {"set": state.get("set"), "pending": state.get("pending")}
        if state != self._data | position:
            raise DataError(
                "the run began with other prompts, numbers of rollouts or another seed; go on with "
                "those, or begin another run with its weights."
            )
        self._set = state["set"]
        self._pending = [_from_text(text) for text in state["pending"]]

    def _speak(self, params: Groups, extras: Extras) -> list[Batch]:
        c = self._config
        rng = np.random.default_rng([c.seed, self._set])
        drawn = rng.choice(len(self._prompts), c.prompts, replace=False)
        numbers = np.repeat(drawn, c.samples).tolist()
        seeds = rng.integers(0, MAX_SEED, len(numbers), endpoint=True).tolist()
        requests = [
            replace(self._prompts[n], seed=seed) for n, seed in zip(numbers, seeds, strict=True)
        ]
        started = time.perf_counter()
        spoken = self._rollouts.speak(self._rollouts.params(params, extras), requests)
        spoken_at = time.perf_counter()
        scores = {name: np.asarray(x, np.float32) for name, x in self._scores(numbers, spoken)}
        self.seconds = {"speech": spoken_at - started, "scores": time.perf_counter() - spoken_at}
        advantage, kept = group_advantages(scores[REWARD], c.samples)
        model = self._task.policy.model
        examples = [
            layout_example(
                model,
                request.prompt,
                speech.codes.reshape(len(speech.codes), -1),
                ends=speech.ended,
            )
            for request, speech in zip(requests, spoken, strict=True)
        ]
        shape = Bucket(
            bucket(max(len(e.rows) for e in examples), POSITIONS),
            bucket(max(len(e.codes) for e in examples), FRAMES),
        )
        batches: list[Batch] = []
        for rows in rng.permutation(len(numbers)).reshape(c.updates, -1):
            batch = collate(model, [examples[i] for i in rows], shape)
            batch["advantage"] = advantage[rows]
            # Losses are means over the rows of groups with differences, whatever the microbatch.
            share = max(kept[rows].mean(), np.finfo(np.float32).tiny)
            batch["weight"] = (kept[rows] / share).astype(np.float32)
            batch[REWARD] = scores[REWARD][rows]
            for name, values in scores.items():
                if name != REWARD:
                    batch[SCORE + name] = values[rows]
            if c.updates > 1:
                put = self._mesh.put([batch], 1)
                batch["drawn_log_probs"] = np.asarray(self._log_probs(params, extras, put))
            batches.append(batch)
        return batches

    def _scores(
        self, numbers: Sequence[int], spoken: Sequence[Speech]
    ) -> list[tuple[str, np.ndarray]]:
        scores = self._scorer(numbers, spoken)
        for name, values in scores.items():
            if np.shape(values) != (len(spoken),) or not np.all(np.isfinite(values)):
                raise TrainingError(
                    f"the score {name} is not one finite number for each of {len(spoken)} rollouts"
                )
        return list(scores.items())


def _drawing(request: Request) -> Any:
    """The settings that determine log-probabilities."""
    return replace(request.sampling, max_new_tokens=2)


def _to_text(batch: Batch) -> str:
    file = io.BytesIO()
    np.savez_compressed(file, **batch)
    return base64.b64encode(file.getvalue()).decode()


def _from_text(text: str) -> Batch:
    with np.load(io.BytesIO(base64.b64decode(text))) as arrays:
        return dict(arrays)

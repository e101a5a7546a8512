"""A small talker that learns from rewards of its codes, with a decoder that makes no sound."""

import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.functional import initialize
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.generation.request import Request
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.preference.policy_task import PolicyTask, PolicyTaskConfig
from qtts_jax.training.preference.rollout_batches import RolloutBatches, RolloutConfig
from qtts_jax.training.preference.rollouts import Rollouts
from qtts_jax.training.preference.task import PolicyConfig
from tests.support.small_talker import BOOKS, ROLE, small

MODEL = small(layers=1)
FRAMES = 6
SAMPLING = SamplingParams(top_k=20, repetition_penalty=1.0, max_new_tokens=FRAMES + 1)
SETS = RolloutConfig(prompts=2, samples=4, updates=2)
LOUD = 1023  # codes of codebook 0 above it are rewarded


class SilentTokenizer:
    """Decodes codes to as many zeros."""

    codebooks = BOOKS

    def decode_requests(self, codes, requests):
        return [np.zeros(len(c), np.float32) for c in codes]


def task():
    config = PolicyTaskConfig(PolicyConfig(MODEL, SAMPLING, dtype="float32"), kl_weight=0.01)
    return PolicyTask(config, initialize(TTSModel, MODEL, 0))


def prompts(sampling=SAMPLING):
    speaker = SpeakerCondition(speaker="ryan")
    texts = ([11, 12], [13, 14, 15], [16])
    return [Request(build_prompt(MODEL, ROLE, t, voice=speaker), sampling, 0) for t in texts]


def share_of_loud_codes(numbers, speech):
    loud = np.asarray([(s.codes[:, 0] > LOUD).mean() for s in speech])
    return {"reward": loud, "prompt": np.asarray(numbers)}


def rollout_batches(
    policy, config=SETS, scorer=share_of_loud_codes, requests=None, mesh=None, rows=256
):
    rollouts = Rollouts(policy, SilentTokenizer(), mesh, rows)
    return RolloutBatches(policy, rollouts, requests or prompts(), scorer, config, mesh)

"""Speech of the policy in training, by the generation of the package on the same devices."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from qtts_jax.functional import Params, abstract, cast, logical_axes
from qtts_jax.generation.device_params import inference_params
from qtts_jax.generation.request import Request
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import make_mesh, shardings
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.preference.task import SpeechPolicyTask
from qtts_jax.training.task import Extras, Groups
from qtts_jax.tts.synthesis import Speech, synthesize


class Rollouts:
    """Generates speech with parameters as training has them.

    Args:
        task: whose model speaks, in its computation dtype.
        tokenizer: decodes the codes.
        mesh: devices of the training, over which the rows are split here.
        rows: most requests in memory at once.
    """

    def __init__(
        self,
        task: SpeechPolicyTask,
        tokenizer: SpeechTokenizer,
        mesh: MeshConfig | None = None,
        rows: int = 256,
    ) -> None:
        c = mesh or MeshConfig()
        self._config, self._tokenizer, self._rows = task.policy.model, tokenizer, rows
        dtype = jnp.dtype(task.policy.dtype)
        self._merged = jax.jit(lambda p, e: cast(task.model_params(p, e), dtype))
        devices = c.data * c.fsdp * c.model
        self._mesh = None if devices == 1 else make_mesh(c.data * c.fsdp, c.model)

    def params(self, params: Groups, extras: Extras) -> Params:
        """Parameters of generation from the groups and extras of a training state."""
        merged = self._merged(params, extras)
        if self._mesh is None:
            return inference_params(self._config, jax.device_put(merged, jax.devices()[0]))
        axes = logical_axes(TTSModel, self._config)
        shapes = abstract(TTSModel, self._config)[1]
        return jax.device_put(merged, shardings(self._mesh, axes, shapes))

    def speak(self, params: Params, requests: Sequence[Request]) -> list[Speech]:
        """Speech of all requests.

        Args:
            params: of the method `params`, or of a `QwenTTS` of the same configuration.

        Raises:
            GenerationError: logits are NaN or infinite.
        """
        spoken: list[Speech] = []
        for first in range(0, len(requests), self._rows):
            group = requests[first : first + self._rows]
            spoken += synthesize(self._config, params, self._tokenizer, group)
        return spoken

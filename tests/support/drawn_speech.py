"""Speech drawn by the generation of the package, with the log-probability of every draw."""

import jax
import numpy as np

from qtts_jax.functional import abstract, bind
from qtts_jax.generation import frame_parts, residual_codes
from qtts_jax.generation.batch import host_batch
from qtts_jax.generation.loops import run_frames, start
from qtts_jax.generation.sampling import filter_logits, sample
from qtts_jax.models.tts_model import TTSModel


def drawn_speech(config, params, requests, frames, monkeypatch):
    """Codes [B, frames, Q] (-1: none), and log-probabilities [B, frames, Q] of what was drawn.

    The frame in which a row draws the end of speech has its log-probability for codebook 0.
    """
    found = []

    def recorded(logits, noise, sampler, method):
        ids = sample(logits, noise, sampler, method)
        kept = jax.nn.log_softmax(filter_logits(logits, sampler, method))
        chosen = jax.numpy.take_along_axis(kept, ids[:, None], axis=1)[:, 0]
        jax.debug.callback(lambda x: found.append(np.asarray(x)), chosen, ordered=True)
        return ids

    for module in (frame_parts, residual_codes):
        monkeypatch.setattr(module, "sample", recorded)
    inputs, methods = host_batch(config, requests)
    graphdef = abstract(TTSModel, config)[0]

    def run(params, inputs):
        model = bind(graphdef, params)
        state, conditions = start(model, inputs, 128)
        return run_frames(model, methods, conditions, state, frames)[0]

    with jax.default_matmul_precision("highest"):
        codes = np.asarray(jax.jit(run)(params, inputs))
    jax.effects_barrier()
    books = config.talker.codebooks
    log_probs = np.stack(found).reshape(frames, books, -1).transpose(2, 0, 1)
    return codes[: len(requests)], log_probs[: len(requests)]

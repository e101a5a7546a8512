"""Requests of any length, whole: their parts are rows of shared batches, then joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.joining import Joiner
from qtts_jax.tts.long_text import pause_after
from qtts_jax.tts.requests import Plan
from qtts_jax.tts.synthesis import Speech, SpokenPart

# Parts of one batch at least, where there are so many; more requests are one batch, too.
ROWS = 8

# The voice of a part's audio, for the parts after it; None if it has none that can be cloned.
VoiceOf = Callable[[np.ndarray, Request], VoiceClonePromptItem | None]


def speak(
    plans: Sequence[Plan],
    synthesize: Callable[[Sequence[Request]], list[Speech]],
    voice_of: VoiceOf,
    sample_rate: int,
) -> list[Speech]:
    """Generate planned requests; those of one part are one batch.

    Args:
        synthesize: generates a batch of prepared parts.
        sample_rate: Hz.

    Raises:
        RequestError: there is no request, or a part cannot be generated.
    """
    done: dict[tuple[int, int], Speech] = {}
    requests: dict[tuple[int, int], Request] = {}
    rows = max(len(plans), ROWS)

    def generate(parts: list[tuple[int, int]], voices: dict[int, VoiceClonePromptItem]) -> None:
        for start in range(0, max(len(parts), not plans), rows):
            group = parts[start : start + rows]
            for i, k in group:
                requests[i, k] = plans[i].prepare(k, voices.get(i))
            speeches = synthesize([requests[part] for part in group])
            done.update(zip(group, speeches, strict=True))
            for i, k in group:
                if k or not plans[i].carries_voice:
                    del requests[i, k]

    now: list[tuple[int, int]] = []
    later: list[tuple[int, int]] = []
    for i, plan in enumerate(plans):
        for k in range(len(plan.texts)):
            (later if k and plan.carries_voice else now).append((i, k))
    generate(now, {})
    if later:
        found = {i: voice_of(done[i, 0].wave, requests[i, 0]) for i in dict(later)}
        generate(later, {i: voice for i, voice in found.items() if voice is not None})
    return [
        joined(plan, [done[i, k] for k in range(len(plan.texts))], sample_rate)
        for i, plan in enumerate(plans)
    ]


def joined(plan: Plan, parts: list[Speech], sample_rate: int) -> Speech:
    """One result of all parts of a request."""
    if len(parts) == 1:
        place = SpokenPart(plan.texts[0], 0, len(parts[0].wave), len(parts[0].codes))
        return replace(parts[0], seed=plan.seed, parts=(place,))
    joiner, waves, places, length = Joiner(sample_rate), [], [], 0
    for k, (text, part) in enumerate(zip(plan.texts, parts, strict=True)):
        if k:
            joiner.pause(pause_after(plan.texts[k - 1]))
        out = joiner.push(part.wave)
        length += len(out)
        waves.append(out)
        places.append(SpokenPart(text, length - len(part.wave), length, len(part.codes)))
    cut = next((part for part in parts if not part.ended), None)
    return Speech(
        codes=np.concatenate([part.codes for part in parts]),
        wave=np.concatenate([*waves, joiner.finish()]),
        ended=cut is None,
        stopped_by=None if cut is None else cut.stopped_by,
        seed=plan.seed,
        parts=tuple(places),
    )

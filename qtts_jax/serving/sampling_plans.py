"""The two samplers that are compiled: one for most requests, and a slower one for any settings."""

from __future__ import annotations

from collections.abc import Iterable

from qtts_jax.generation.sampling import HeadSampling, SamplingPlan

# Without a sort of the vocabulary: `top_k` from 1 to 64 and `top_p` 1, or greedy.
QUICK = SamplingPlan(HeadSampling(sample=True, partial=True), HeadSampling(True, True))
ANY = SamplingPlan(HeadSampling(sample=True, partial=False), HeadSampling(True, False))
PLANS: tuple[SamplingPlan, ...] = (QUICK, ANY)


def plan_of(needs: Iterable[SamplingPlan]) -> SamplingPlan:
    """The quickest plan that does what all rows of a batch need.

    Args:
        needs: of the rows, as `host_batch` returns them.
    """
    heads = [head for plan in needs for head in (plan.talker, plan.predictor)]
    quick = all(head.partial or not head.sample for head in heads)
    return QUICK if quick else ANY

"""Pairs of speech for one prompt, one preferred over the other, and their batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.loader import Loader, digest_of
from qtts_jax.data.talker_examples import Bucket, Example, collate, layout_example
from qtts_jax.errors import DataError, TrainingError
from qtts_jax.generation.batch import bucket
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.sampling import MIN_FRAMES
from qtts_jax.training.preference.rollout_batches import FRAMES, POSITIONS
from qtts_jax.training.task import Batch


@dataclass(frozen=True)
class Take:
    """Speech of a prompt: codes [F, Q] int, and whether it ends with them or was cut."""

    codes: np.ndarray
    ends: bool = True


@dataclass(frozen=True)
class Pair:
    """Two takes of a prompt, of which the first was preferred."""

    prompt: Prompt
    chosen: Take
    rejected: Take


class PairBatches(Loader):
    """Endless batches [B, 2, ...] of pairs, chosen before rejected; each pair once an epoch.

    The last batch of an epoch is filled up with pairs of the next.

    Args:
        model: configuration of the talker.
        pairs: all of them.
        rows: pairs of a batch.
        seed: of their order.
        threads: see `Loader`.

    Raises:
        DataError: there are fewer pairs than rows, codes do not fit the model, or speech ends
            sooner than the model can end it.
    """

    def __init__(
        self,
        model: TTSConfig,
        pairs: Sequence[Pair],
        rows: int,
        *,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        if not 1 <= rows <= len(pairs):
            raise DataError(
                f"{len(pairs)} pairs do not fill a batch of {rows}; make more pairs, or smaller "
                "batches of at least 1."
            )
        self._model, self._rows, self._seed = model, rows, seed
        self._examples = [
            [_example(model, pair.prompt, take, number) for take in (pair.chosen, pair.rejected)]
            for number, pair in enumerate(pairs)
        ]
        super().__init__(
            self._make,
            clips=len(pairs),
            digest=digest_of(
                np.ascontiguousarray(x.codec).tobytes()
                for examples in self._examples
                for x in (e.rows for e in examples)
            ),
            seed=seed,
            threads=threads,
        )

    def _make(self, number: int) -> Batch:
        count = len(self._examples)
        places = np.arange(number * self._rows, (number + 1) * self._rows)
        orders = {
            int(epoch): np.random.default_rng([self._seed, int(epoch)]).permutation(count)
            for epoch in np.unique(places // count)
        }
        chosen = [orders[int(p) // count][int(p) % count] for p in places]
        examples = [e for i in chosen for e in self._examples[i]]
        shape = Bucket(
            bucket(max(len(e.rows) for e in examples), POSITIONS),
            bucket(max(len(e.codes) for e in examples), FRAMES),
        )
        batch = collate(self._model, examples, shape)
        return {name: x.reshape(self._rows, 2, *x.shape[1:]) for name, x in batch.items()}


def _example(model: TTSConfig, prompt: Prompt, take: Take, number: int) -> Example:
    if take.ends and len(take.codes) < MIN_FRAMES:
        raise DataError(
            f"pair {number} has speech that ends after {len(take.codes)} frames, and generation "
            f"makes at least {MIN_FRAMES}; leave the pair out."
        )
    try:
        return layout_example(model, prompt, take.codes, ends=take.ends)
    except TrainingError as error:
        raise DataError(f"pair {number} does not fit this model: {error}") from error

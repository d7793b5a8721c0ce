"""The Bayesian signed-rank test: how probable it is that a method is better, worse, or practically the same.

After Benavoli, Corani, Demšar and Zaffalon (JMLR 2017), section 4.2: a Dirichlet process over the units' differences,
with a prior pseudo-unit of no difference. It answers what a p-value does not, "is it better by more than half a point?",
and it can find two methods equal. It is no licence for few units: with four of them the prior is a ninth of the weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.exact_tests import finite

PRIOR_STRENGTH = 0.5
"""Weight of the pseudo-unit of no difference against 1 of each unit; the paper's."""


@dataclass(frozen=True)
class RopeProbabilities:
    """Posterior probabilities, summing to 1.

    Attributes:
        worse: that the first method is worse by more than the region of practical equivalence (ROPE).
        same: that the difference lies within it.
        better: that the first method is better by more than it.
    """

    worse: float
    same: float
    better: float


def signed_rank_probabilities(
    differences: ArrayLike, generator: np.random.Generator, rope: float = 0.5, n_samples: int = 50_000
) -> RopeProbabilities:
    """Give the probabilities that the mean of two random units' differences lies below, within and above ±`rope`.

    Args:
        differences: shape (units,), first minus second, one mean over trials a unit, in points.
        generator: where the draws come from.
        rope: half width of the region of practical equivalence, in points; 0 for none.
        n_samples: posterior samples; 50,000 give a probability to about ±0.004.

    Raises:
        ValueError: a difference is not finite, there is none, or the rope is negative.
    """
    numbers = finite(differences)
    if len(numbers) == 0 or rope < 0:
        raise ValueError(f"needs at least one unit and a rope of 0 or more, got {len(numbers)} and {rope}")
    values = np.concatenate([[0.0], numbers])
    sums = np.round(values[:, None] + values[None, :], 9)
    better, worse = (sums > 2 * rope).astype(float), (sums < -2 * rope).astype(float)
    weights = generator.dirichlet([PRIOR_STRENGTH, *np.ones(len(numbers))], size=n_samples)
    above, below = _share(weights, better), _share(weights, worse)
    shares = np.stack([below, 1 - above - below, above])
    if rope == 0:
        # Pairs that sum to exactly 0 stand for neither side: without a region they count half for each.
        shares = np.stack([below + shares[1] / 2, np.full(n_samples, -1.0), above + shares[1] / 2])
    largest = shares >= shares.max(axis=0) - 1e-12
    found = (largest / largest.sum(axis=0)).mean(axis=1)
    return RopeProbabilities(*(float(each) for each in found))


def _share(weights: NDArray[np.float64], pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the probability under each sample's weights that a random pair of units is one of `pairs`."""
    return np.asarray(((weights @ pairs) * weights).sum(axis=1))

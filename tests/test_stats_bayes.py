"""The Bayesian signed-rank test: worked out by hand for one unit, drawn one by one for several."""

from __future__ import annotations

import numpy as np
import pytest

from bench.bayes import signed_rank_probabilities


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_one_unit_by_hand() -> None:
    """The prior's weight w is Beta(1/2, 1), so P(w < x) = sqrt(x); the pair of two prior units is always in the rope."""
    far = signed_rank_probabilities([3.0], stream(), rope=1.0)  # better: 1 - w² > 1/2
    assert far.better == pytest.approx(0.5**0.25, abs=0.01)
    near = signed_rank_probabilities([-1.5], stream(), rope=1.0)  # worse: (1 - w)² > 1/2
    assert near.worse == pytest.approx(np.sqrt(1 - np.sqrt(0.5)), abs=0.01)
    assert signed_rank_probabilities([0.5], stream(), rope=1.0).same == 1.0


def test_it_agrees_with_going_through_all_pairs_of_each_sample() -> None:
    differences, rope = np.array([0.2, 1.4, -0.9, 2.2, 0.7]), 0.5
    values = [0.0, *differences]
    draws = stream(1)
    wins = np.zeros(3)
    for _ in range(3000):
        gammas = draws.gamma([0.5, 1, 1, 1, 1, 1])
        weights = gammas / gammas.sum()
        shares = np.zeros(3)
        for one, w in zip(values, weights, strict=True):
            for other, v in zip(values, weights, strict=True):
                mean = (one + other) / 2
                shares[0 if mean < -rope else 2 if mean > rope else 1] += w * v
        wins[shares.argmax()] += 1
    found = signed_rank_probabilities(differences, stream(2), rope)
    assert [found.worse, found.same, found.better] == pytest.approx(wins / 3000, abs=0.03)


@pytest.mark.parametrize("rope", [0.0, 0.5])
def test_probabilities_sum_to_one_and_mirror(rope: float) -> None:
    differences = np.array([0.6, 1.4, -0.9, 2.2, 0.0, 0.4])
    one = signed_rank_probabilities(differences, stream(), rope)
    other = signed_rank_probabilities(-differences[::-1], stream(1), rope)
    assert one.worse + one.same + one.better == pytest.approx(1)
    assert (other.worse, other.better) == pytest.approx((one.better, one.worse), abs=0.01)


def test_without_a_rope_nothing_is_the_same() -> None:
    assert signed_rank_probabilities([0.0, 0.0], stream(), rope=0.0).better == pytest.approx(0.5)
    assert signed_rank_probabilities([0.0, 1.0], stream(), rope=0.0).same == 0.0


def test_many_small_differences_are_found_to_be_the_same() -> None:
    assert signed_rank_probabilities(np.linspace(-0.3, 0.3, 12), stream(), rope=0.5).same > 0.99


@pytest.mark.parametrize(("differences", "rope"), [([], 0.5), ([1.0], -1.0), ([np.nan], 0.5)])
def test_nonsense_is_refused(differences: list[float], rope: float) -> None:
    with pytest.raises(ValueError, match=r"at least one unit|finite"):
        signed_rank_probabilities(differences, stream(), rope)

"""Spotlight and clusters: the slope against finite differences, planted blobs against shuffled
scores.
"""

from __future__ import annotations

import numpy as np
import pytest

from stabutils.analysis import slices
from stabutils.errors import InputError


def blobs(seed: int = 0):
    """Four blobs of 40 in a 5-dimensional space; scores are high in the second."""
    draw = np.random.default_rng(seed)
    centres = 6 * np.eye(5)[:4]
    own = np.repeat(range(4), 40)
    return centres[own] + draw.normal(size=(160, 5)), draw.random(160) + 2 * (own == 1), own


def test_the_slope_is_that_of_finite_differences_on_both_sides_of_the_barrier():
    points, scores, _ = blobs()
    for log_tau, width in ((-2.5, 5.0), (-4.0, 5.0), (-2.5, 120.0)):
        place = np.append(np.full(5, 0.7), log_tau)
        value, slope = slices._objective(points, scores, 20, width, place)
        for i in range(6):
            step = 1e-6 * np.eye(6)[i]
            up, down = (
                slices._objective(points, scores, 20, width, place + s)[0] for s in (step, -step)
            )
            assert slope[i] == pytest.approx((up - down) / 2e-6, abs=1e-5)


def test_the_objective_by_hand():
    points, scores = np.array([[0.0], [1.0], [3.0]]), np.array([1.0, 4.0, 9.0])
    place = np.array([0.0, np.log(0.5)])  # weights 1, 1/2 and none: mean 2; total 1.5
    assert slices._objective(points, scores, 1, 0.5, place)[0] == pytest.approx(2)
    assert slices._objective(points, scores, 2, 0.5, place)[0] == pytest.approx(2 - (1 / 0.5) ** 2)


@pytest.mark.parametrize("higher, blob", [(1.8, 1), (2.2, 3)])
def test_spotlight_finds_the_planted_blob(higher, blob):
    points, scores, own = blobs()
    lit = slices.spotlight(points, scores + higher * (own == 3), 25, steps=2000)
    assert own[lit > 0.3].tolist() == [blob] * np.sum(lit > 0.3) and np.sum(lit > 0.3) > 20
    assert lit.max() == 1 and lit.sum() >= 20


def test_moving_scaling_and_reordering_the_space_change_nothing():
    points, scores, _ = blobs()
    order = np.random.default_rng(1).permutation(160)
    first = slices.spotlight(points, scores, 25, steps=500)
    np.testing.assert_allclose(
        slices.spotlight(7 * points + 3, scores, 25, steps=500), first, atol=1e-6
    )
    moved = slices.spotlight(points[order], scores[order], 25, steps=500)
    np.testing.assert_allclose(moved, first[order], atol=1e-6)


@pytest.mark.parametrize("method", ["mixture", "hdbscan"])
def test_clusters_are_ranked_by_score(method):
    points, scores, own = blobs()
    found = slices.slices(points, scores, method, size=25)
    means = [scores[found == region].mean() for region in range(found.max() + 1)]
    assert means == sorted(means, reverse=True) and len(means) >= 4
    assert np.mean(own[found == 0] == 1) > 0.95


def test_what_is_not_offered_is_refused():
    points, scores, _ = blobs()
    with pytest.raises(InputError, match="method: got 'kmeans'"):
        slices.slices(points, scores, "kmeans")
    with pytest.raises(InputError, match="size: got 160"):
        slices.spotlight(points, scores, 160)

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
        value, slope = slices._objective(points, scores, 20, width, 1.0, place)
        for i in range(6):
            step = 1e-6 * np.eye(6)[i]
            up, down = (
                slices._objective(points, scores, 20, width, 1.0, place + s)[0]
                for s in (step, -step)
            )
            assert slope[i] == pytest.approx((up - down) / 2e-6, abs=1e-5)


def test_the_objective_by_hand():
    points, scores = np.array([[0.0], [1.0], [3.0]]), np.array([1.0, 4.0, 9.0])
    place = np.array([0.0, np.log(0.5)])  # weights 1, 1/2 and none: mean 2; total 1.5
    assert slices._objective(points, scores, 1, 0.5, 1.0, place)[0] == pytest.approx(2)
    assert slices._objective(points, scores, 2, 0.5, 3.0, place)[0] == pytest.approx(
        2 - 3 * (1 / 0.5) ** 2
    )


def test_spotlight_finds_the_planted_blob_and_then_another():
    points, scores, own = blobs()
    first, second = slices.spotlight(points, scores + 1.8 * (own == 3), 25, count=2, steps=2000)
    assert own[first > 0.3].tolist() == [1] * np.sum(first > 0.3) and np.sum(first > 0.3) > 20
    assert own[second > 0.3].tolist() == [3] * np.sum(second > 0.3) and np.sum(second > 0.3) > 20
    assert first.max() == second.max() == 1 and min(first.sum(), second.sum()) >= 20


def test_spotlight_beats_shuffled_scores_only_where_something_is_planted():
    points, scores, _ = blobs()
    lit, null, p = slices.spotlight_test(points, scores, 25, shuffles=9, steps=1000)
    assert p == 0.1 and lit > 2 and null.max() < 1.6
    noise = np.random.default_rng(8).random(160)
    assert slices.spotlight_test(points, noise, 25, shuffles=9, steps=1000)[2] > 0.1


def test_spotlights_from_elsewhere_agree():
    points, scores, _ = blobs()
    found = [slices.spotlight(points, scores, 25, seed=seed, steps=2000)[0] for seed in range(3)]
    assert slices.overlap(found) > 0.9
    np.testing.assert_array_equal(
        found[1], slices.spotlight(points, scores, 25, seed=1, steps=2000)[0]
    )


def test_moving_scaling_and_reordering_the_space_change_nothing():
    points, scores, _ = blobs()
    order = np.random.default_rng(1).permutation(160)
    first = slices.spotlight(points, scores, 25, steps=500)[0]
    np.testing.assert_allclose(
        slices.spotlight(7 * points + 3, scores, 25, steps=500)[0], first, atol=1e-6
    )
    moved = slices.spotlight(points[order], scores[order], 25, steps=500)[0]
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

"""Mixtures with an anchor: by hand, by an independent reference, and what must hold for any
arrays.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.intervals import jackknife
from stabutils.metrics.mixtures import KINDS, WEIGHTS, choose_weight, curve, mix


def probabilities(seed: int, *shape: int, sharp: float = 1.0) -> np.ndarray:
    logits = sharp * np.random.default_rng(seed).normal(size=shape)
    shares = np.exp(logits)
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_a_mixture_is_a_distribution_between_the_two(seed, weight, kind):
    runs, anchor = probabilities(seed, 3, 7, 4), probabilities(seed + 1, 7, 4)
    mixed = mix(runs, anchor, weight, kind)
    assert mixed.shape == runs.shape and np.allclose(mixed.sum(-1), 1, atol=1e-5)
    # Where both prefer the same class, so does the mixture.
    alike = runs.argmax(-1) == anchor.argmax(-1)
    assert np.array_equal(mixed.argmax(-1)[alike], runs.argmax(-1)[alike])
    # Each run by itself: runs do not see one another.
    assert np.allclose(mix(runs[1], anchor, weight, kind), mixed[1], atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_is_the_run_bit_for_bit_and_all_of_it_the_anchor(kind):
    runs, anchor = probabilities(0, 3, 7, 4), probabilities(1, 7, 4)
    assert np.array_equal(mix(runs, anchor, 0.0, kind), runs)
    assert np.array_equal(mix(runs, anchor, 1.0, kind), np.stack([anchor] * 3))


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.8])
def test_the_geometric_mean_equals_scipys(weight):
    run, anchor = probabilities(0, 5, 4), probabilities(1, 5, 4)
    weights = np.array([1 - weight, weight])[:, None, None] * np.ones((2, 5, 4))
    mean = gmean(np.stack([run, anchor]), axis=0, weights=weights)
    by_scipy = mean / mean.sum(-1, keepdims=True)
    assert np.allclose(mix(run, anchor, weight), by_scipy, atol=1e-6)


def test_a_geometric_mixture_survives_what_is_impossible():
    mixed = mix(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 0.5)
    assert mixed.tolist() == [[0.5, 0.5]]


def test_an_anchor_for_each_run():
    runs, own = probabilities(0, 3, 7, 4), probabilities(1, 3, 7, 4)
    pairs = [mix(one, other, 0.3) for one, other in zip(runs, own, strict=True)]
    assert np.array_equal(mix(runs, own, 0.3), np.stack(pairs))


@pytest.mark.parametrize(
    "anchor, weight, kind, message",
    [
        (np.ones((7, 4)), 1.1, "geometric", "weight of the anchor: got 1.1"),
        (np.ones((7, 4)), float("nan"), "geometric", "weight of the anchor: got nan"),
        (np.ones((7, 4)), 0.5, "harmonic", "kind of mixture: got 'harmonic'"),
        (np.ones((6, 4)), 0.5, "geometric", r"shape of the anchor: got \(6, 4\)"),
        (np.ones(()), 0.5, "geometric", r"shape of the anchor: got \(\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(anchor, weight, kind, message):
    with pytest.raises(InputError, match=message):
        mix(probabilities(0, 3, 7, 4), anchor, weight, kind)


# ---- choosing


def binary(*of_class_one: float) -> np.ndarray:
    share = np.array(of_class_one)
    return np.stack([1 - share, share], -1)


def test_one_text_lost_is_within_an_error_and_two_are_not():
    """The error of losing k texts of n is about the root of k over n: one is within it, two are
    not.
    """
    network = binary(*[0.1] * 20)[None]
    gold = np.zeros(20, int)
    one = binary(0.8, *[0.2] * 19)  # wrong on one text, from weight 0.62 on
    two = binary(0.8, 0.8, *[0.2] * 18)
    assert choose_weight(network, one, gold) == 1.0
    assert choose_weight(network, two, gold) == 0.6
    assert choose_weight(network, one, gold, most=0.04) == 0.6
    assert choose_weight(network, two, gold, most=0.1) == 1.0
    with pytest.raises(InputError, match="validation texts: got 1; expected at least 2"):
        choose_weight(network[:, :1], one[:1], gold[:1])


def test_an_anchor_that_knows_nothing_gets_no_weight():
    gold = np.arange(200) % 4
    draw = np.random.default_rng(0)
    logits = 3 * np.eye(4)[gold] + draw.normal(size=(5, 200, 4))
    network = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wrong = np.eye(4)[(gold + 1) % 4] * 0.96 + 0.01
    assert choose_weight(network, wrong, gold) < 0.5
    assert choose_weight(network, network[0], gold, weights=(0.0, 1.0)) == 1.0  # as good as any


def test_the_order_of_runs_and_texts_chooses_nothing():
    gold = np.arange(80) % 4
    network, anchor = probabilities(0, 5, 80, 4), probabilities(1, 80, 4)
    network = mix(network, np.eye(4)[gold] * 0.9 + 0.025, 0.5)
    runs, texts = np.random.default_rng(2).permutation(5), np.random.default_rng(3).permutation(80)
    weight = choose_weight(network, anchor, gold)
    assert choose_weight(network[runs][:, texts], anchor[texts], gold[texts]) == weight


# ---- the curve


def test_a_curve_holds_the_scores_of_every_mixture():
    gold = np.arange(60) % 4
    runs = mix(probabilities(0, 6, 60, 4, sharp=2), np.eye(4)[gold] * 0.6 + 0.1, 0.4)
    anchor = mix(probabilities(1, 60, 4), np.eye(4)[gold] * 0.6 + 0.1, 0.5)
    table = curve(runs, anchor, gold, "arithmetic", weights=(0.0, 0.4, 1.0))
    labels = ((1 - 0.4) * runs + 0.4 * anchor).argmax(-1)
    row, before = table.iloc[1], runs.argmax(-1)
    assert row.weight == 0.4
    assert row.churn.value == pytest.approx(metrics.churn(labels))
    assert row.label_entropy.value == pytest.approx(metrics.label_entropy(labels, 5).mean())
    entropy = [metrics.label_entropy(votes, 5).mean() for votes in (labels, before)]
    assert row.reduction.value == pytest.approx(1 - entropy[0] / entropy[1])
    assert row.accuracy.value == pytest.approx(np.mean(labels == gold))
    assert row.accuracy_change.value == pytest.approx(
        np.mean(labels == gold) - (before == gold).mean()
    )
    alone = (anchor.argmax(-1) == gold).mean()
    assert row.over_anchor.value == pytest.approx(np.mean(labels == gold) - alone)
    by_hand = jackknife(lambda votes: np.mean(votes == gold) - alone, labels)
    over_runs = row.over_anchor.over_runs
    assert (over_runs.low, over_runs.runs) == (pytest.approx(by_hand.low), 6)
    assert row.over_anchor.low < over_runs.low  # other queries would move it too
    first, last = table.iloc[0], table.iloc[2]
    assert first.reduction.value == first.accuracy_change.value == 0
    assert last.churn.value == 0 and last.reduction.value == 1 and last.over_anchor.value == 0


def test_runs_without_any_churn_have_none_to_lose():
    runs = np.stack([probabilities(0, 9, 4)] * 3)
    table = curve(runs, probabilities(1, 9, 4), np.zeros(9, int), weights=(0.0, 0.5))
    assert table.reduction.tolist() == [None, None]


def test_weights_go_from_none_to_all():
    assert WEIGHTS[0] == 0 and WEIGHTS[-1] == 1 and len(WEIGHTS) == 21

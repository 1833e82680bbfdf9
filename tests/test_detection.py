from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from stabutils.detection import auroc, ceiling, planted_auroc, proxy_auroc, proxy_correlation
from stabutils.errors import InputError
from stabutils.metrics import label_entropy


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_that_of_scikit_learn(rows):
    score, positive = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if positive.all() or not positive.any():
        with pytest.raises(InputError, match="positive examples: got"):
            auroc(score, positive)
    else:
        assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


def test_auroc_by_hand():
    assert auroc([1, 2, 3], [False, True, True]) == 1
    assert auroc([3, 2, 1], [False, True, True]) == 0
    assert auroc([1, 1, 1], [False, True, True]) == 0.5  # ties are blind


LABELS = np.array([[0, 1, 2, 0], [0, 1, 3, 0], [0, 2, 2, 0]])  # stable, one flip in run 2, one in run 1, stable


def test_a_run_is_judged_by_the_others_only():
    entropies = [label_entropy(np.delete(LABELS, run, axis=0)) for run in range(3)]
    assert [(e > 0).tolist() for e in entropies] == [
        [False, True, True, False], [False, True, False, False], [False, False, True, False]]
    scores = np.array([[0, 1, 2, 0.5], [3, 1, 0, 0], [0.0, 0, 1, 2]])
    by_hand = [1, 2 / 3, 2 / 3]
    assert proxy_auroc(scores, LABELS) == pytest.approx(np.mean(by_hand))
    rank = np.mean([spearmanr(s, e).statistic for s, e in zip(scores, entropies, strict=True)])
    assert proxy_correlation(scores, LABELS) == pytest.approx(rank)


def test_a_score_that_knows_only_its_own_run_gains_nothing():
    """A run's own flips, independent of the others', must not help: a leak would show as an AUROC above one half."""
    draw = np.random.default_rng(0)
    labels = (draw.random((6, 4000)) < 0.1).astype(int)
    own = np.where(labels == 1, 1.0, draw.random(labels.shape) / 2)
    assert proxy_auroc(own, labels) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scores, labels", [
    (np.zeros((2, 4)), LABELS[:2]), (np.zeros((3, 5)), LABELS), (np.zeros(4), LABELS), (np.zeros(3), np.zeros(3))])
def test_scores_and_labels_must_fit(scores, labels):
    with pytest.raises(InputError, match="scores: got .*at least 3 runs"):
        proxy_auroc(scores, labels)


def planted(runs: int, seed: int = 0):
    """400 examples, the first 100 of which flip a coin in every run."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((runs, 400), int)
    labels[:, :100] = draw.integers(0, 2, (runs, 100))
    return labels, ["noise:strong"] * 100 + ["clear"] * 200 + ["rare:weak"] * 100


def test_a_planted_region_is_found_and_an_absent_one_is_not():
    labels, tags = planted(10)
    assert planted_auroc(labels, tags, "noise:strong") > 0.99
    assert planted_auroc(labels, tags, "rare:weak") == 0.5
    with pytest.raises(InputError, match="positive examples: got 0"):
        planted_auroc(labels, tags, "no such region")


def test_the_ceiling_is_what_halves_say_of_each_other():
    labels, _ = planted(10)
    assert ceiling(labels) > 0.95
    noise = (np.random.default_rng(1).random((10, 4000)) < 0.05).astype(int)
    assert ceiling(noise) == pytest.approx(0.5, abs=0.02)  # nothing about the examples to know
    assert ceiling(labels, seed=3) == ceiling(labels, seed=3)
    with pytest.raises(InputError, match="runs: got 3; expected at least 4"):
        ceiling(labels[:3])
    assert 0.5 < ceiling(planted(5)[0]) < 1  # two halves of two; the fifth run rests

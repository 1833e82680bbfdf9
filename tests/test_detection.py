from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from stabutils.errors import InputError
from stabutils.metrics import checkpoint_entropy, label_entropy
from stabutils.metrics.detection import (
    auroc,
    board,
    ceiling,
    finds,
    judge,
    judgeable,
    planted_auroc,
    proxy_auroc,
    rank_correlation,
    through_training,
)
from stabutils.metrics.detection import planted as planted_intervals
from stabutils.metrics.intervals import jackknife


def _mean_correlation(scores, labels):
    """What the board's rank correlation is the mean of, written out."""
    return np.mean(
        [
            rank_correlation(s, label_entropy(np.delete(labels, r, axis=0)))
            for r, s in enumerate(scores)
        ]
    )


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


LABELS = np.array(
    [[0, 1, 2, 0], [0, 1, 3, 0], [0, 2, 2, 0]]
)  # stable, one flip in run 2, one in run 1, stable


def test_a_run_is_judged_by_the_others_only():
    entropies = [label_entropy(np.delete(LABELS, run, axis=0)) for run in range(3)]
    assert [(e > 0).tolist() for e in entropies] == [
        [False, True, True, False],
        [False, True, False, False],
        [False, False, True, False],
    ]
    scores = np.array([[0, 1, 2, 0.5], [3, 1, 0, 0], [0.0, 0, 1, 2]])
    by_hand = [1, 2 / 3, 2 / 3]
    assert proxy_auroc(scores, LABELS) == pytest.approx(np.mean(by_hand))
    rank = np.mean([spearmanr(s, e).statistic for s, e in zip(scores, entropies, strict=True)])
    assert _mean_correlation(scores, LABELS) == pytest.approx(rank)


def test_a_score_that_knows_only_its_own_run_gains_nothing():
    """A run's own flips, independent of the others', must not help: a leak would show as an AUROC above one half."""
    draw = np.random.default_rng(0)
    labels = (draw.random((6, 4000)) < 0.1).astype(int)
    own = np.where(labels == 1, 1.0, draw.random(labels.shape) / 2)
    assert proxy_auroc(own, labels) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "scores, labels",
    [
        (np.zeros((2, 4)), LABELS[:2]),
        (np.zeros((3, 5)), LABELS),
        (np.zeros((4, 4)), LABELS),
        (np.zeros(4), LABELS),
        (np.zeros(3), np.zeros(3)),
    ],
)
def test_scores_and_labels_must_fit(scores, labels):
    with pytest.raises(InputError, match="scores: got .*at least 3 runs, "):
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
    found = ceiling(labels)
    assert found.value > 0.95 and found.low > 0.9
    noise = (np.random.default_rng(1).random((10, 4000)) < 0.05).astype(int)
    blind = ceiling(noise)
    assert (
        blind.value == pytest.approx(0.5, abs=0.02) and blind.low < 0.5 < blind.high
    )  # nothing to know
    assert ceiling(labels, seed=3) == ceiling(labels, seed=3)
    with pytest.raises(InputError, match="runs: got 3; expected at least 4"):
        ceiling(labels[:3])
    few = ceiling(planted(5)[0])
    assert 0.5 < few.value < 1 and few.note == "these 5 models only"


def test_the_ceiling_leaves_out_a_run_from_the_half_it_was_in():
    labels = np.array(
        [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 2], [0, 1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 2]]
    )
    side = np.random.default_rng(7).permutation(6) % 2

    def by_hand(kept):
        first, second = (
            label_entropy(labels[[r for r in kept if side[r] == one]]) for one in (0, 1)
        )
        return auroc(first, second > 0)

    left_out = [by_hand([r for r in range(6) if r != out]) for out in range(6)]
    found = ceiling(labels, halvings=1, seed=7)
    assert found.value == pytest.approx(by_hand(range(6)))
    error = np.sqrt(5 / 6 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert found.high - found.value == pytest.approx(2.5706 * error, rel=1e-4) and error > 0


# ---- the board


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
def test_rank_correlation_is_that_of_scipy_and_zero_where_there_is_nothing_to_rank(rows):
    score, entropy = np.array(rows, float).T
    if np.ptp(score) and np.ptp(entropy):
        assert rank_correlation(score, entropy) == pytest.approx(
            spearmanr(score, entropy).statistic, abs=1e-12
        )
    else:
        assert rank_correlation(score, entropy) == 0


@pytest.fixture(scope="module")
def voted():
    """Labels of 6 runs on 200 examples, each with a chance of its own to flip, and scores that know of it."""
    draw = np.random.default_rng(3)
    chance = draw.beta(0.3, 2, 200)
    labels = (draw.random((6, 200)) < chance).astype(int)
    return labels, {
        "blind": draw.random((6, 200)),
        "knows": chance + draw.normal(0, 0.05, (6, 200)),
    }


def test_the_board_has_the_best_first_and_intervals_of_the_plain_scores(voted):
    labels, proxies = voted
    found = board(proxies, labels)
    assert list(found) == ["knows", "blind"]
    for name, scores in proxies.items():
        for what, statistic in (("AUROC", proxy_auroc), ("rank correlation", _mean_correlation)):
            assert found[name][what] == jackknife(statistic, scores, labels)
    assert found["knows"]["AUROC"].low > 0.7 and found["blind"]["AUROC"].low < 0.5
    assert board(proxies, labels[:3]) == {}  # too few to judge by


def test_where_halves_of_the_runs_have_nothing_to_find_the_ceiling_is_blind():
    """Fails if a nearly stable system ends in an error after all was trained."""
    labels = np.zeros((10, 30), int)
    labels[[0, 1, 2], [0, 1, 2]] = 1
    assert judgeable(labels) and 0.4 < ceiling(labels).value < 0.6
    assert finds(np.arange(3), np.zeros(3)) == finds(np.arange(3), np.ones(3)) == 0.5


def test_a_few_scored_runs_are_judged_by_all(voted):
    labels, proxies = voted
    few = proxies["knows"][:3]
    by_hand = [
        auroc(few[run], label_entropy(np.delete(labels, run, axis=0)) > 0) for run in range(3)
    ]
    found = judge({"few": few}, labels)["few"]
    assert found.value == pytest.approx(np.mean(by_hand)) == proxy_auroc(few, labels)
    assert found.low < found.value < found.high and found.runs == 3
    shuffled = labels.copy()
    shuffled[0] = np.roll(
        labels[0], 7
    )  # the scored run's own labels do not judge its own scores, only the others'
    assert auroc(few[0], label_entropy(shuffled[1:]) > 0) == by_hand[0]
    assert proxy_auroc(few, shuffled) != found.value


def test_the_ceiling_of_another_agreement(voted):
    labels, _ = voted
    assert 0.1 < ceiling(labels, agreement=rank_correlation).value < 0.5  # three votes say little
    assert ceiling(labels, agreement=lambda score, entropy: 0.25).value == 0.25


# ---- what a changed line would change


def test_positives_may_be_zeros_and_ones():
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75


def test_one_score_is_worth_judging_only_if_some_query_is_unstable_and_some_is_not():
    """Whichever two runs are taken away."""
    once = np.zeros((4, 6), int)
    once[0, 0] = 1  # without run 0 no query is unstable
    everywhere = np.arange(4)[:, None] * np.ones((1, 6), int)
    flips = np.array([[0, 0, 1, 1], [1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]]).T
    some = np.concatenate([flips, flips, np.zeros((4, 2), int)], axis=1)
    some[:, 0] = [0, 1, 2, 3]  # unstable in any two runs
    assert not judgeable(once) and not judgeable(everywhere) and judgeable(some)
    assert not judgeable(some[:3])  # of three runs one would be left


def test_the_ceiling_takes_four_runs_and_by_default_twenty_halvings_from_seed_zero(voted):
    labels, _ = voted
    assert ceiling(labels[:4]).note == "these 4 models only"
    assert ceiling(labels) == ceiling(labels, halvings=20, seed=0)
    assert ceiling(labels) != ceiling(labels, halvings=21, seed=0)
    assert ceiling(labels) != ceiling(labels, halvings=20, seed=1)
    assert ceiling(labels[:5]).note and not ceiling(labels).note  # from six on, over the runs


def test_every_planted_region_has_its_interval_and_strong_ones_come_first():
    draw = np.random.default_rng(0)
    labels = np.zeros((6, 500), int)
    labels[:, :100] = draw.integers(0, 2, (6, 100))
    labels[:, 100:200] = draw.random((6, 100)) < 0.1
    labels[:, 200:300] = draw.random((6, 100)) < 0.03
    kinds = ["noise:strong", "mixed:medium", "rare:weak", "near:absent"]
    tags = [kind for kind in kinds for _ in range(100)] + ["clear"] * 100
    shuffled = draw.permutation(500)
    tags, labels = [tags[i] for i in shuffled], labels[:, shuffled]
    regions = planted_intervals(labels, tags)
    assert list(regions) == kinds
    for region, interval in regions.items():
        own = [tag in (region, "clear") for tag in tags]
        positive = [tag == region for tag in tags if tag in (region, "clear")]
        plain = jackknife(
            lambda votes, of=positive: auroc(label_entropy(votes), of), labels[:, own]
        )
        assert interval == plain
    values = [interval.value for interval in regions.values()]
    assert values == sorted(values, reverse=True) and values[-1] == 0.5 < values[-2]
    assert list(planted_intervals(labels[:, :1], ["clear"])) == []


def test_single_run_entropy_is_judged_from_the_second_checkpoint_on(voted):
    labels, _ = voted
    draw = np.random.default_rng(4)
    noise = draw.random((6, 3, 200)) < 0.1
    checkpoints = np.concatenate([labels[:, None] ^ noise, labels[:, None]], axis=1)
    lines, done = through_training(checkpoints, labels)
    assert done.tolist() == [2 / 4, 3 / 4, 1]
    (line,) = lines.values()
    assert list(lines) == ["label entropy over the checkpoints so far"]
    for first, interval in zip((2, 3, 4), line, strict=True):
        assert interval == jackknife(
            proxy_auroc, checkpoint_entropy(checkpoints[:, :first]), labels
        )

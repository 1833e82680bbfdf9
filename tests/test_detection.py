"""Proxies of instability: agreement by scikit-learn and scipy, judged by the other runs only."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from stabutils.errors import InputError
from stabutils.metrics import checkpoint_entropy, label_entropy
from stabutils.metrics.detection import (
    FINDS,
    ORDERS,
    UNSTABLE,
    auroc,
    board,
    judge,
    judgeable,
    mean_auroc,
    minority_share,
    planted,
    planted_auroc,
    rank_correlation,
    reference,
    references,
    through_training,
)
from stabutils.metrics.intervals import jackknife


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


LABELS = np.array(  # nobody, runs 1 and 3, runs 0 and 2, and run 4 leave the majority
    [[0, 1, 3, 0], [0, 2, 2, 0], [0, 1, 3, 0], [0, 2, 2, 0], [0, 1, 2, 1]]
)


def finds(scores, labels):
    """Mean AUROC of each run's score for what the other runs do, by scikit-learn."""
    found = []
    for run, score in enumerate(scores):
        rest = np.delete(labels, run, axis=0)
        leaves = [1 - np.unique(votes, return_counts=True)[1].max() / len(rest) for votes in rest.T]
        found.append(roc_auc_score(np.array(leaves) >= 0.0999, score))
    return np.mean(found)


def orders(scores, labels):
    """The same by scipy's rank correlation with label entropy."""
    pairs = [(score, np.delete(labels, run, axis=0)) for run, score in enumerate(scores)]
    return np.mean([spearmanr(score, label_entropy(rest)).statistic for score, rest in pairs])


CRITERIA = [pytest.param(FINDS, finds, id="AUROC"), pytest.param(ORDERS, orders, id="rank")]


def test_a_run_is_judged_by_the_others_only():
    """Run 4 alone flips on the last query, so to run 4 that query is stable."""
    unstable = [minority_share(np.delete(LABELS, run, axis=0)) > 0 for run in range(5)]
    assert [row.tolist() for row in unstable] == [[False, True, True, True]] * 4 + [
        [False, True, True, False]
    ]
    scores = np.array([[0, 1, 2, 0.5], [3, 1, 0, 0], [0, 0, 1, 2], [0, 0, 1, 0], [0, 0, 1, 2]])
    by_hand = [1, 0, 2.5 / 3, 2 / 3, 1.5 / 4]
    assert judge({"it": scores}, LABELS)["it"].value == pytest.approx(np.mean(by_hand))
    assert finds(scores, LABELS) == pytest.approx(np.mean(by_hand))


def test_a_score_that_knows_only_its_own_run_gains_nothing():
    """A run's own flips, independent of the others', must not help: a leak would show."""
    draw = np.random.default_rng(0)
    labels = (draw.random((6, 4000)) < 0.1).astype(int)
    own = np.where(labels == 1, 1.0, draw.random(labels.shape) / 2)
    for criterion, blind in ((FINDS, 0.5), (ORDERS, 0.0)):
        interval = judge({"own": own}, labels, criterion)["own"]
        assert interval.value == pytest.approx(blind, abs=0.02)
        assert interval.low < blind < interval.high


@pytest.mark.parametrize("left, unstable", [(1, False), (2, True), (3, True)])
def test_single_votes_do_not_decide(left, unstable):
    """Of 20 other runs at least two, a tenth, have to leave the majority."""
    labels = np.zeros((21, 40), int)
    labels[:10, :10] = 1  # unstable whoever judges
    labels[15 : 15 + left, 10] = 1
    assert UNSTABLE == 0.1
    shares = minority_share(labels[1:])
    assert shares[10] == pytest.approx(left / 20)
    score = np.zeros((21, 40))
    score[:, :10], score[:, 10] = 1, 2
    value = judge({"it": score[:3]}, labels)["it"].value
    assert (value == 1) is unstable  # the highest score is right only if that query counts


@pytest.mark.parametrize(
    "scores, labels",
    [
        (np.zeros((2, 4)), LABELS),
        (np.zeros((5, 5)), LABELS),
        (np.zeros((6, 4)), LABELS),
        (np.zeros(4), LABELS),
    ],
)
def test_scores_and_labels_must_fit(scores, labels):
    with pytest.raises(InputError, match="scores: got .*at least 3 of the runs whose labels are"):
        judge({"it": scores}, labels)


@pytest.mark.parametrize("labels", [LABELS[:3], np.zeros((6, 5), int), np.arange(30).reshape(6, 5)])
def test_where_nothing_can_be_judged_there_is_no_number(labels):
    """Too few runs; nothing unstable; everything unstable."""
    assert not judgeable(labels)
    assert judge({"it": np.zeros(labels.shape)}, labels) == {}


def test_runs_that_without_two_of_them_leave_nothing_unstable_are_not_judgeable():
    labels = np.zeros((5, 6), int)
    labels[:2, 0] = 1
    assert not judgeable(labels)  # without runs 0 and 1 nothing flips
    labels[2, 1] = 1
    assert judgeable(labels)


# ---- intervals


@pytest.fixture
def voted():
    """Labels of 6 runs on 120 queries, each with its own chance to flip, and scores of them."""
    draw = np.random.default_rng(3)
    chance = draw.beta(0.3, 2, 120)
    labels = (draw.random((6, 120)) < chance).astype(int)
    return labels, {
        "blind": draw.random((6, 120)),
        "knows": chance + draw.normal(0, 0.05, (6, 120)),
    }


@pytest.mark.parametrize("criterion, slow", CRITERIA)
def test_the_interval_is_the_plain_one(voted, criterion, slow):
    """A run is left out both as judged and as judge; then blocks of queries are."""
    labels, proxies = voted
    scores = proxies["knows"]
    interval = judge({"knows": scores}, labels, criterion)["knows"]
    assert interval.value == pytest.approx(slow(scores, labels))
    over_runs = jackknife(slow, scores, labels)
    assert interval.over_runs.se == pytest.approx(over_runs.se)
    assert interval.over_runs.df == 5 and interval.runs == 6
    block = np.random.default_rng(0).permutation(120) % 50
    deleted = [slow(scores[:, block != out], labels[:, block != out]) for out in range(50)]
    expected = over_runs.se**2 + plain.variance(deleted)  # conservative: cells count twice
    assert interval.se**2 == pytest.approx(expected)
    low, high = criterion.bounds
    assert low < interval.low < interval.value < interval.high < high


@pytest.mark.parametrize("criterion, slow", CRITERIA)
def test_a_few_scored_runs_are_judged_by_all(voted, criterion, slow):
    labels, proxies = voted
    few = proxies["knows"][:3]
    interval = judge({"few": few}, labels, criterion)["few"]
    assert interval.value == pytest.approx(slow(few, labels)) and interval.runs == 3
    scored = [slow_without(slow, few, labels, run) for run in range(3)]
    judges = [slow_without(slow, few, labels, run) for run in range(3, 6)]
    squares = plain.variance(scored) + plain.variance(judges)
    assert interval.over_runs.se**2 == pytest.approx(squares) and interval.over_runs.df == 2
    shuffled = labels.copy()
    shuffled[5] = np.roll(labels[5], 7)  # a run that only judges
    assert judge({"few": few}, shuffled, criterion)["few"].value != interval.value


def slow_without(slow, scores, labels, run):
    """The mean over the scored runs, without one of all runs."""
    if run < len(scores):
        return slow(np.delete(scores, run, axis=0), np.delete(labels, run, axis=0))
    return slow(scores, np.delete(labels, run, axis=0))


def test_the_board_has_the_best_first(voted):
    labels, proxies = voted
    found = board(proxies, labels)
    assert list(found) == ["knows", "blind"]
    for name, scores in proxies.items():
        for criterion in (FINDS, ORDERS):
            alone = judge({name: scores}, labels, criterion)[name]
            assert found[name][criterion.name] == alone
    assert found["knows"]["AUROC"].low > 0.7 and found["blind"]["AUROC"].low < 0.5
    assert found["blind"]["rank correlation"].low < 0 < found["knows"]["rank correlation"].low
    assert board(proxies, labels[:3]) == {}  # too few to judge by


@pytest.mark.parametrize("kind", ["classes", "runs", "queries", "scale"])
def test_order_names_and_scales_change_nothing(voted, kind):
    labels, proxies = voted
    scores, rng = proxies["knows"], np.random.default_rng(1)
    runs, queries = rng.permutation(6), rng.permutation(120)
    moved = {
        "classes": lambda: (scores, np.array([7, 3])[labels]),
        "runs": lambda: (scores[runs], labels[runs]),
        "queries": lambda: (scores[:, queries], labels[:, queries]),
        "scale": lambda: (np.exp(3 * scores) - 1, labels),
    }[kind]()
    for criterion in (FINDS, ORDERS):
        one = judge({"it": scores}, labels, criterion)["it"]
        other = judge({"it": moved[0]}, moved[1], criterion)["it"]
        assert other.value == pytest.approx(one.value)
        assert other.over_runs.se == pytest.approx(one.over_runs.se)
    turned = judge({"it": -scores}, labels, FINDS)["it"]
    assert turned.value == pytest.approx(1 - judge({"it": scores}, labels)["it"].value)


def test_how_soon_training_knows():
    """From two checkpoints on, each time by the entropy of all so far."""
    draw = np.random.default_rng(0)
    checkpoints = draw.integers(0, 2, (5, 4, 60)) * (np.arange(60) < 30)
    labels = checkpoints[:, -1]
    found, done = through_training(checkpoints, labels)
    assert done.tolist() == [0.5, 0.75, 1.0]
    ((name, intervals),) = found.items()
    assert name == "label entropy over the checkpoints so far"
    for count, interval in zip((2, 3, 4), intervals, strict=True):
        entropy = checkpoint_entropy(checkpoints[:, :count])
        assert interval == judge({"it": entropy}, labels)["it"]


# ---- what halves say of each other


def halves(labels, side, agreement):
    one, other = (labels[[run for run, own in enumerate(side) if own == half]] for half in (0, 1))
    return agreement(one, other)


def find_each_other(one, other):
    return roc_auc_score(minority_share(other) >= 0.0999, minority_share(one))


def order_alike(one, other):
    return spearmanr(label_entropy(one), label_entropy(other)).statistic


@pytest.mark.parametrize(
    "criterion, agreement", [(FINDS, find_each_other), (ORDERS, order_alike)], ids=["AUROC", "rank"]
)
def test_the_reference_leaves_out_a_run_from_the_half_it_was_in(voted, criterion, agreement):
    labels, _ = voted
    side = np.random.default_rng(7).permutation(6) % 2
    found = reference(labels, criterion, halvings=1, seed=7)
    assert found.value == pytest.approx(halves(labels, side, agreement))
    deleted = [
        halves(np.delete(labels, run, axis=0), np.delete(side, run), agreement) for run in range(6)
    ]
    assert found.over_runs.se**2 == pytest.approx(plain.variance(deleted))
    block = np.random.default_rng(0).permutation(120) % 50
    without = [halves(labels[:, block != out], side, agreement) for out in range(50)]
    assert found.se**2 == pytest.approx(plain.variance(deleted) + plain.variance(without))


def test_the_reference_is_a_mean_over_halvings(voted):
    labels, _ = voted
    rng = np.random.default_rng(0)
    sides = [rng.permutation(6) % 2 for _ in range(20)]
    expected = np.mean([halves(labels, side, order_alike) for side in sides])
    assert reference(labels, ORDERS).value == pytest.approx(expected)
    assert reference(labels, ORDERS, seed=3) == reference(labels, ORDERS, seed=3)


def made(runs: int, seed: int = 0):
    """400 queries, the first 100 of which flip a coin in every run."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((runs, 400), int)
    labels[:, :100] = draw.integers(0, 2, (runs, 100))
    return labels, ["noise:strong"] * 100 + ["clear"] * 200 + ["rare:weak"] * 100


def test_the_reference_is_high_where_something_is_planted_and_blind_in_noise():
    labels, _ = made(10)
    found = reference(labels)
    assert found.value > 0.9 and 0.85 < found.low < found.high < 1
    noise = (np.random.default_rng(1).random((10, 4000)) < 0.05).astype(int)
    blind = reference(noise)
    assert blind.value == pytest.approx(0.5, abs=0.02) and blind.low < 0.5 < blind.high
    few = reference(made(5)[0])
    assert 0.5 < few.value < 1 and few.note == "these 5 models only"
    with pytest.raises(InputError, match="runs: got 3; expected at least 4"):
        reference(labels[:3])


def test_where_halves_have_nothing_to_find_the_reference_is_blind():
    """Fails if a nearly stable system ends in an error after all was trained."""
    labels = np.zeros((10, 30), int)
    labels[[0, 1, 2], [0, 1, 2]] = 1
    assert 0.4 < reference(labels).value < 0.6
    assert reference(np.zeros((10, 30), int)).value == 0.5


def test_a_planted_region_is_found_and_an_absent_one_is_not():
    labels, tags = made(10)
    assert planted_auroc(labels, tags, "noise:strong") > 0.99
    assert planted_auroc(labels, tags, "rare:weak") == 0.5
    with pytest.raises(InputError, match="positive examples: got 0"):
        planted_auroc(labels, tags, "no such region")


def test_planted_regions_strong_ones_first_with_intervals_inside_their_bounds():
    labels, tags = made(6)
    found = planted(labels, tags)
    assert list(found) == ["noise:strong", "rare:weak"]
    kept = np.array(tags) != "rare:weak"
    for region, interval in found.items():
        plain_interval = jackknife(
            lambda rows, name=region: planted_auroc(rows, tags, name), labels
        )
        assert (interval.value, interval.se) == pytest.approx(
            (plain_interval.value, plain_interval.se)
        )
        clipped = plain_interval.within(0, 1)
        assert (interval.low, interval.high) == pytest.approx((clipped.low, clipped.high))
    strong = roc_auc_score(np.arange(300) < 100, label_entropy(labels)[kept])
    assert found["noise:strong"].value == pytest.approx(strong)


def test_planted_regions_are_sorted_from_strong_to_weak():
    kinds = ("b:weak", "c:weak", "a:medium", "b:strong", "a:strong")
    tags = np.repeat([*kinds, "clear"], 4)
    labels = (np.random.default_rng(0).random((6, len(tags))) < 0.4).astype(int)
    found = planted(labels, tags.tolist())
    assert list(found) == ["a:strong", "b:strong", "a:medium", "b:weak", "c:weak"]
    assert all(0 <= own.low <= own.high <= 1 for own in found.values())


def test_the_mean_of_runs_is_judged_at_once(voted):
    labels, proxies = voted
    positive = labels.mean(axis=0) > 0.3
    found = mean_auroc(proxies["knows"], positive)
    assert found.value == pytest.approx(roc_auc_score(positive, proxies["knows"].mean(axis=0)))
    slow = jackknife(lambda rows: roc_auc_score(positive, rows.mean(axis=0)), proxies["knows"])
    assert found.se == pytest.approx(slow.se) and 0 <= found.low <= found.high <= 1
    scores = [[0, 1, 2, 3], [0, 1, 2, 3], [0, 4, 2, 3]]  # 1 without the last, else 3/4
    by_hand = mean_auroc(np.array(scores, float), [False, False, True, True])
    assert by_hand.value == 3.5 / 4 and by_hand.high == 1 < by_hand.value + by_hand.se


def test_there_is_a_reference_for_each_criterion(voted):
    found = references(voted[0])
    assert found == {each.name: reference(voted[0], each) for each in (FINDS, ORDERS)}


def test_four_runs_are_enough_and_three_are_not():
    labels = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]])  # any two differ on the first
    scores = np.array([[3.0, 1.0, 2.0]] * 4)
    assert judgeable(labels) and judge({"knows": scores}, labels)["knows"].value == 1
    assert reference(labels).value == 1
    assert not judgeable(labels[:3]) and judge({"knows": scores[:3]}, labels[:3]) == {}
    with pytest.raises(InputError, match="runs: got 3; expected at least 4"):
        reference(labels[:3])


def test_a_query_that_just_a_tenth_of_the_others_answers_otherwise_is_unstable():
    labels = np.zeros((11, 5), int)
    labels[range(4), range(4)] = 1  # 1 of 10 others leaves the majority on queries 0 .. 3
    assert judgeable(labels)


# ---- rank correlation


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


def test_what_is_no_number_has_no_rank_correlation():
    assert np.isnan(rank_correlation([np.nan, 1, 2, 3], [1, 2, 3, 4]))
    assert np.isnan(rank_correlation([1, 2, 3, 4], [1, 2, np.nan, 4]))


def test_positives_may_be_zeros_and_ones():
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75

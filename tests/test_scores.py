"""Scores and their intervals over runs and queries: by hand, and against slow references."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_kappa

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.intervals import jackknife, verdict

bounded = settings(max_examples=60, deadline=None, derandomize=True)
some_labels = arrays(
    np.int64, st.tuples(st.integers(3, 7), st.integers(2, 8)), elements=st.integers(0, 3)
)


def answers(runs: int, queries: int = 30, seed: int = 0, noise: float = 0.4, classes: int = 3):
    """Labels of which the first half of the queries is noisy, and gold labels."""
    rng = np.random.default_rng([seed, runs])
    gold = np.arange(queries) % classes
    share = np.where(np.arange(queries) < queries // 2, noise, 0.05)
    wrong = rng.random((runs, queries)) < share
    return np.where(wrong, rng.integers(0, classes, (runs, queries)), gold), gold


def entropy_at(n: int):
    return lambda labels: metrics.label_entropy(labels, min(n, len(labels)))


def unstable_at(n: int):
    def each(labels):
        columns = labels.T[:, :, None]
        return np.array([metrics.share_unstable(one, min(n, len(labels))) for one in columns])

    return each


PLAIN = {
    "churn": (scores.churn, metrics.disagreement),
    "label entropy": (lambda labels: scores.label_entropy(labels, 4), entropy_at(4)),
    "label entropy of all": (
        lambda labels: scores.label_entropy(labels, len(labels)),
        lambda labels: metrics.label_entropy(labels),
    ),
    "share unstable": (lambda labels: scores.share_unstable(labels, 4), unstable_at(4)),
}


def difference(new, old):
    return new - old


def reduction(new, old):
    return 1 - new / old


# ---- what a score knows


def test_probabilities_are_no_labels():
    """Fails if they are cut to whole numbers and so look perfectly stable."""
    for shares in ([[0.2, 1.4], [0.9, 1.9]], np.full((3, 4), 0.5, np.float32)):
        with pytest.raises(InputError, match="type of labels"):
            scores.churn(shares)


def test_churn_by_hand():
    """Votes 2:1, 3 and 1:1:1; without the odd run 0, without another 1 of 1 pair."""
    score = scores.churn([[0, 5, 1], [0, 5, 2], [1, 5, 3]])
    assert score.each.tolist() == pytest.approx([2 / 3, 0, 1])
    assert score.without.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert score.value == pytest.approx(5 / 9) and score.runs == 3 and score.bounds == (0, 1)
    assert score.without.dtype == float and score.weights.tolist() == [1, 1, 1]
    assert score.moves.dtype == np.float32  # the largest part of a score, in half the memory
    # First query: 1, 1, 0 without each of the runs, variance 2/3 x (1/9 + 1/9 + 4/9); others 0.
    assert np.sum(score.moves**2) == pytest.approx(2 / 3 * (6 / 9) / 9)


def test_accuracy_by_hand():
    """Cells: the textbook variance of each query's mean over runs, over queries squared."""
    score = scores.accuracy([[0, 1], [1, 1], [0, 0], [0, 1]], [0, 1])
    assert (score.value, score.each.tolist()) == (0.75, [0.75, 0.75])
    assert score.bounds == (0, 1) and score.weights.tolist() == [1, 1]
    assert score.without.tolist() == pytest.approx([4 / 6, 5 / 6, 5 / 6, 4 / 6])
    assert np.sum(score.moves**2) == pytest.approx(2 * (0.25 / 4) / 4)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("runs", [4, 5, 9])
def test_a_score_knows_each_query_and_the_value_without_each_run(name, runs):
    fast, slow = PLAIN[name]
    labels, _ = answers(runs)
    score = fast(labels)
    assert score.each == pytest.approx(slow(labels), abs=1e-12)
    assert score.value == pytest.approx(slow(labels).mean())
    without = np.array([slow(np.delete(labels, run, axis=0)).mean() for run in range(runs)])
    if {"churn": 2, "label entropy of all": runs}.get(name, 4) >= runs:  # they have a vote fewer
        without += score.value - without.mean()
    assert score.without.mean() == pytest.approx(score.value)
    assert score.without == pytest.approx(without, abs=1e-12)
    cells = plain.of_cells(lambda mean: mean, slow, [labels], [np.arange(runs)])
    assert np.sum(score.moves**2) == pytest.approx(cells)
    positions = np.arange(runs)
    assert score(positions) == score.value
    assert score(np.delete(positions, 2)) == score.without[2]


@pytest.mark.parametrize("name", PLAIN)
def test_its_interval_is_the_slow_one(name):
    fast, slow = PLAIN[name]
    labels, _ = answers(6)
    expected = plain.interval(lambda mean: mean, slow, [labels])
    plain.alike(fast(labels).interval(), expected.within(*fast(labels).bounds))


def test_the_interval_of_accuracy_is_that_of_two_crossed_random_effects():
    """Mean squares of runs, queries and what is left, the estimator that every textbook has."""
    rng = np.random.default_rng(1)
    chance = rng.beta(2, 1, 400) + 0.1 * rng.normal(size=(8, 1))
    right = (rng.random((8, 400)) < chance).astype(int)
    runs, queries = right.shape
    mean, per_run, per_query = right.mean(), right.mean(axis=1), right.mean(axis=0)
    left = right - per_run[:, None] - per_query + mean
    of_runs = queries * np.sum((per_run - mean) ** 2) / (runs - 1)
    of_queries = runs * np.sum((per_query - mean) ** 2) / (queries - 1)
    of_both = np.sum(left**2) / ((runs - 1) * (queries - 1))
    expected = (of_runs + of_queries - of_both) / (runs * queries)
    interval = scores.accuracy(right, np.ones(queries, int)).interval()
    assert interval.se**2 == pytest.approx(expected, rel=0.01)
    assert interval.over_runs.se == pytest.approx(per_run.std(ddof=1) / np.sqrt(8))


def test_weights_count_queries_as_copies_do():
    labels, _ = answers(5, queries=12)
    weights = np.tile([1, 2, 3], 4)
    weighted = scores.churn(labels, weights)
    copied = scores.churn(np.repeat(labels, weights, axis=1))
    assert weighted.value == pytest.approx(copied.value)
    assert weighted.without == pytest.approx(copied.without)
    deleted = []
    for query in range(12):
        rest = np.delete(np.arange(12), query)
        each = metrics.disagreement(labels)
        deleted.append(np.average(each[rest], weights=weights[rest]))
    over_queries = plain.variance(deleted)
    over_runs = plain.variance(weighted.without)
    cells = np.sum(weighted.moves**2)
    assert cells > np.sum(copied.moves**2)  # copies would be queries of their own
    expected = max(over_runs, over_queries, over_runs + over_queries - cells)
    assert weighted.interval().se ** 2 == pytest.approx(expected)


def test_two_weighted_runs_have_an_interval_over_queries():
    labels, _ = answers(2, queries=12)
    score = scores.churn(labels, np.tile([1, 2, 3], 4))
    copied = scores.churn(np.repeat(labels, np.tile([1, 2, 3], 4), axis=1))
    found = score.interval()
    assert found.value == pytest.approx(copied.value) and found.note == "these two models only"
    assert found.low >= 0 and found.high <= 1 and found.se != scores.churn(labels).interval().se
    assert np.isnan(score.without).all() and score.moves is None


def test_weights_of_half_precision_are_added_up_in_full():
    labels, _ = answers(4, queries=3000)
    weights = np.random.default_rng(0).random(3000).astype(np.float16)
    found, expected = (scores.churn(labels, some) for some in (weights, weights.astype(float)))
    assert found.value == expected.value and found.interval() == expected.interval()


def test_parts_of_churn_of_two_runs():
    labels, gold = answers(2, noise=0.9)
    found = scores.scores(labels, gold, 2)["wrong_to_wrong"]
    expected = metrics.churn_parts(labels, gold)["wrong_to_wrong"]
    assert found.moves is None and found.value == pytest.approx(expected)
    interval = found.interval()
    assert 0 <= interval.low < interval.value < interval.high <= 1


def test_parts_of_churn_add_up_and_have_the_slow_values():
    labels, gold = answers(6)
    found = scores.scores(labels, gold, 4, weights=np.ones(30))
    assert list(found) == [
        "churn",
        "churn_weighted",
        "label_entropy@4",
        "share_unstable@6",
        "right_to_wrong",
        "wrong_to_wrong",
        "accuracy",
    ]
    parts = metrics.churn_parts(labels, gold)
    for name, value in parts.items():
        without = [
            metrics.churn_parts(np.delete(labels, run, axis=0), gold)[name] for run in range(6)
        ]
        assert found[name].value == pytest.approx(value)
        assert found[name].without == pytest.approx(without, abs=1e-12)
    assert found["churn_weighted"].interval() == found["churn"].interval()
    assert found["accuracy"].value == pytest.approx(np.mean(labels == gold))
    assert found["wrong_to_wrong"].bounds == found["share_unstable@6"].bounds == (0, 1)
    assert found["wrong_to_wrong"].weights.tolist() == [1] * 30
    uneven = np.arange(30)
    weighted = scores.scores(labels, None, 4, weights=uneven)["churn_weighted"]
    assert weighted.value == pytest.approx(scores.churn(labels, uneven).value)
    assert weighted.value != pytest.approx(found["churn"].value)
    both = found["right_to_wrong"].each + found["wrong_to_wrong"].each
    assert both == pytest.approx(found["churn"].each)
    assert list(scores.scores(labels, None, 4)) == ["churn", "label_entropy@4", "share_unstable@6"]


def test_wrong_in_two_ways_is_the_slow_one():
    labels, gold = answers(6, noise=0.9)

    def wrong_in_two_ways(some):
        pairs = [
            (one != other) & (one != gold) & (other != gold)
            for place, one in enumerate(some)
            for other in some[:place]
        ]
        return np.mean(pairs, axis=0)

    score = scores.scores(labels, gold, 4)["wrong_to_wrong"]
    cells = plain.of_cells(lambda mean: mean, wrong_in_two_ways, [labels], [np.arange(6)])
    assert np.sum(score.moves**2) == pytest.approx(cells)
    found = score.interval()
    expected = plain.interval(lambda mean: mean, wrong_in_two_ways, [labels])
    plain.alike(found, expected.within(0, 1))


# ---- two arms


@pytest.mark.parametrize("function", [difference, reduction], ids=["difference", "ratio"])
@pytest.mark.parametrize("common", [0, 3, 6])
@pytest.mark.parametrize("name", ["churn", "label entropy"])
def test_a_comparison_is_the_slow_one(name, function, common):
    fast, slow = PLAIN[name]
    labels = [answers(runs, seed=3, noise=noise)[0] for runs, noise in ((6, 0.2), (7, 0.6))]
    seeds = [np.arange(6), 6 - common + np.arange(7)]
    found = scores.compare(function, [fast(some) for some in labels], seeds)
    plain.alike(found, plain.interval(function, slow, labels, seeds), rel=0.02)


def test_without_seeds_no_run_is_shared():
    labels = [answers(5, seed=seed)[0] for seed in (1, 2)]
    both = [scores.churn(some) for some in labels]
    apart = scores.compare(difference, both)
    assert apart == scores.compare(difference, both, [np.arange(5), 50 + np.arange(5)])
    assert apart != scores.compare(difference, both, [np.arange(5), np.arange(5)])
    few = scores.churn(answers(3)[0])  # fewer than those beside it
    one, other = (
        scores.compare(difference, [few, both[0]], s) for s in (None, [[-1, -2, -3], range(5)])
    )
    assert one == other


@pytest.mark.parametrize("runs", [2, 5])
def test_swapping_the_arms_flips_the_sign_and_nothing_else(runs):
    one, other = (answers(runs, seed=seed, noise=noise)[0] for seed, noise in ((1, 0.1), (2, 0.7)))
    pair = [scores.churn(one), scores.churn(other)]
    found, swapped = scores.compare(difference, pair), scores.compare(difference, pair[::-1])
    assert (found.value, found.low, found.high) == pytest.approx(
        (-swapped.value, -swapped.high, -swapped.low)
    )
    assert (
        found.value == pytest.approx(metrics.churn(one) - metrics.churn(other)) and found.high < 0
    )
    assert found.p_value() == pytest.approx(swapped.p_value())


def test_a_seed_that_comes_twice_in_an_arm_is_refused():
    """A score knows its value without one run, not without two."""
    both = [scores.churn(answers(4, seed=seed)[0]) for seed in (1, 2)]
    with pytest.raises(InputError, match=r"seeds: got \[0, 0, 1, 2\]; expected different ones"):
        scores.compare(difference, both, [[3, 4, 5, 6], [0, 0, 1, 2]])


def test_one_run_has_no_churn():
    with pytest.raises(InputError, match="runs in labels: got 1; expected at least 2"):
        scores.churn([[0, 1, 2]])


def test_an_arm_compared_with_itself_has_no_difference():
    labels, gold = answers(6)
    seeds = [np.arange(6)] * 2
    for score in (scores.churn(labels), scores.accuracy(labels, gold)):
        found = scores.compare(difference, [score, score], seeds)
        assert (found.value, found.se, found.low, found.high) == pytest.approx(
            (0, 0, 0, 0), abs=1e-12
        )
        apart = scores.compare(difference, [score, score])  # of other seeds that happen to agree
        assert apart.low < 0 < apart.high


@pytest.mark.parametrize("runs", [3, 5, 6])
def test_nothing_is_saved_of_itself_however_many_runs_vote(runs):
    labels, _ = answers(runs)
    entropy = scores.label_entropy(labels, min(5, runs))
    saved = scores.reduction(entropy, entropy, [np.arange(runs)] * 2)
    apart = scores.reduction(entropy, entropy)  # of other seeds that happen to agree
    assert (
        saved.value == 0 and saved.high < 0.08 * apart.high
    )  # ratios are taken whole: not quite 0


def test_a_reduction_where_all_runs_vote_is_about_as_wide_as_where_one_less_does():
    """Runs of unequal skill: what one of them moves in both arms must cancel in the ratio."""
    widths = {4: 0.0, 3: 0.0}
    for seed in range(40):
        draw = np.random.default_rng(seed)
        before = (draw.random((4, 400)) < draw.uniform(0.02, 0.3, (4, 1))).astype(int)
        after = np.where(draw.random(400) < 0.4, 0, before)
        for votes in widths:
            pair = [scores.label_entropy(labels, votes) for labels in (after, before)]
            over_runs = scores.reduction(*pair, [np.arange(4)] * 2).over_runs
            widths[votes] += over_runs.high - over_runs.low
    assert 0.65 < widths[4] / widths[3] < 1.1  # 1.7 where values of a vote fewer stand beside


def test_two_runs_speak_of_queries_alone():
    """The textbook's interval of a paired difference over queries."""
    one, other = (answers(2, seed=seed)[0] for seed in (1, 2))
    found = scores.compare(difference, [scores.churn(one), scores.churn(other)])
    gaps = metrics.disagreement(one) - metrics.disagreement(other)
    assert found.value == pytest.approx(gaps.mean())
    assert found.se == pytest.approx(gaps.std(ddof=1) / np.sqrt(30)) and found.df == 29
    assert found.note == found.speaks_of == "these two models only" and found.over_runs is None
    mixed = scores.compare(difference, [scores.churn(one), scores.churn(answers(6)[0])])
    assert mixed.note == "these models only" and mixed.runs == 2
    three = scores.churn(answers(3)[0])
    assert scores.compare(difference, [scores.churn(one), three]).note == "these models only"


def test_one_run_has_a_mean_and_an_interval_over_queries():
    values = np.array([[0.0, 1.0, 1.0, 1.0]])
    score = scores.of_runs(values, (0, 1))
    interval = score.interval()
    assert score.moves is None and np.isnan(score.without).all()
    assert interval.value == 0.75 and interval.note == "this model only"
    assert interval.se == pytest.approx(0.5 / np.sqrt(4))
    assert 0 <= interval.low < 0.75 < interval.high <= 1


def test_of_one_query_the_interval_is_over_runs_and_two_runs_have_none():
    labels = np.array([[0], [0], [1], [2]])
    interval = scores.churn(labels).interval()
    assert interval.se == pytest.approx(jackknife(metrics.churn, labels).se)
    assert interval.speaks_of == "new runs on these queries"
    with pytest.raises(InputError, match="queries: got 1; expected at least 2"):
        scores.churn(labels[:2]).interval()
    two = scores.churn([[0, 1], [0, 2]]).interval()  # two queries are enough
    assert two.value == 0.5 and two.note == "these two models only" and two.se == pytest.approx(0.5)


def test_a_share_of_nothing_is_not_a_number():
    still = scores.churn(np.zeros((4, 5), int))
    found = scores.compare(reduction, [still, still])
    assert np.isnan([found.value, found.low, found.high]).all()


# ---- whatever the labels are called


@bounded
@given(some_labels, st.randoms(use_true_random=False))
def test_names_of_classes_and_order_of_runs_and_queries_change_nothing(labels, random):
    names, runs, queries = [9, 4, 30, 1], list(range(len(labels))), list(range(labels.shape[1]))
    for order in (names, runs, queries):
        random.shuffle(order)
    other = np.array(names)[labels][runs][:, queries]
    for score in (scores.churn, lambda some: scores.label_entropy(some, 3)):
        one, moved = score(labels).interval(), score(other).interval()
        assert (moved.value, moved.se) == pytest.approx((one.value, one.se), abs=1e-9)
        assert moved.over_runs.se == pytest.approx(one.over_runs.se, abs=1e-9)
        assert (moved.low, moved.high) == pytest.approx((one.low, one.high), abs=1e-6)


def test_label_entropy_of_n_votes_is_at_most_the_logarithm_of_n():
    labels = np.random.default_rng(0).integers(0, 9, (3, 12))
    found = scores.label_entropy(labels, 3).interval()
    assert found.value < found.high == np.log(3)


@bounded
@given(some_labels)
def test_bounded_scores_stay_within_their_bounds(labels):
    gold = labels[0]
    for score in scores.scores(labels, gold, 3).values():
        interval = score.interval()
        low, high = score.bounds
        assert low <= interval.low <= interval.value + 1e-12
        assert interval.value - 1e-12 <= interval.high <= high
        over_runs = interval.over_runs
        assert low <= over_runs.low <= over_runs.high <= high
        assert interval.se >= over_runs.se - 1e-12


def test_copies_of_the_queries_narrow_only_what_queries_decide():
    """Fails if queries are ignored, or runs are taken for more than they are."""
    labels, gold = answers(8, queries=80)
    one, twice = (
        scores.accuracy(np.tile(labels, copies), np.tile(gold, copies)).interval()
        for copies in (1, 2)
    )
    assert twice.value == pytest.approx(one.value)
    assert twice.over_runs.se == pytest.approx(one.over_runs.se)
    assert twice.se < one.se and twice.se >= one.over_runs.se


def test_what_no_run_changes_still_differs_between_queries():
    right = np.tile([1, 1, 1, 0], (5, 10))
    interval = scores.accuracy(right, np.ones(40, int)).interval()
    assert interval.over_runs.se == 0 < interval.se
    assert interval.se == pytest.approx(right[0].std(ddof=1) / np.sqrt(40))
    assert interval.df == pytest.approx(39)


def test_what_varies_by_single_cells_only_is_counted_once():
    """Fails if cells are not taken off: then the variance would be twice what it is."""
    rng = np.random.default_rng(0)
    ratios = []
    for world in rng.normal(size=(200, 20, 50)):  # no effect of runs or queries
        interval = scores.of_runs(world).interval()
        ratios.append(interval.se**2 * world.size)
    assert np.mean(ratios) == pytest.approx(1.15, abs=0.15)  # a little above 1: never below a part


# ---- numbers that are no mean over queries


def test_kappa_has_the_value_of_statsmodels_and_the_plain_jackknife():
    labels, _ = answers(6)
    interval = scores.kappa(labels)
    table = aggregate_raters(labels.T)[0]
    assert interval.value == pytest.approx(statsmodels_kappa(table, method="fleiss"))
    over_runs = jackknife(metrics.fleiss_kappa, labels)
    assert interval.over_runs.se == pytest.approx(over_runs.se)
    assert interval.se > over_runs.se and interval.high <= 1
    chance = np.sum((np.unique(labels, return_counts=True)[1] / labels.size) ** 2)
    over_queries = plain.variance(
        [1 - metrics.churn(np.delete(labels, query, axis=1)) / (1 - chance) for query in range(30)]
    )
    assert interval.se**2 == pytest.approx(over_runs.se**2 + over_queries)
    two = scores.kappa(labels[:2])
    assert two.note == "these two models only" and two.low < two.value < two.high


def test_kappa_is_at_most_one_and_a_class_may_be_missing_from_a_run():
    labels = np.tile([0, 1] * 6 + [2], (4, 1))
    labels[0, -1] = 1  # the only run without the third class
    for some in (labels, labels[:2]):
        interval = scores.kappa(some)
        assert interval.value == pytest.approx(metrics.fleiss_kappa(some))
        assert interval.low < interval.value and interval.high == 1
        assert interval.value + 2 * interval.se > 1  # what is clipped


@pytest.mark.parametrize("labels", [np.ones((3, 4), int), [[0, 1, 2]] * 3])
def test_kappa_of_runs_that_agree_is_one(labels):
    interval = scores.kappa(labels)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)


def test_jensen_shannon_is_the_plain_jackknife():
    probabilities = np.random.default_rng(0).dirichlet([0.5] * 4, (5, 20))
    found = scores.jensen_shannon(probabilities)
    expected = jackknife(metrics.jensen_shannon, probabilities)
    assert (found.value, found.se, found.df) == pytest.approx(
        (expected.value, expected.se, expected.df)
    )
    assert 0 < found.low < found.high < np.log(2)
    assert scores.jensen_shannon(probabilities[:2]).note == "these two models only"


# ---- pools


def test_ends_of_jensen_shannon_are_those_of_its_range():
    """Two runs that are sure of one class, one of another: no more than log 2, no less than 0."""
    apart = np.zeros((3, 30, 2))
    apart[:2, :, 0] = apart[2, :, 1] = 1
    found = scores.jensen_shannon(apart)
    assert found.value == pytest.approx(np.log(2) * 2 / 3) and found.high == np.log(2)
    two = scores.jensen_shannon(apart[1:])
    assert two.value == pytest.approx(np.log(2)) and two.high <= np.log(2)
    assert two.low == pytest.approx(np.log(2))
    nearly = apart[[0, 0, 0]]
    nearly[2, :3] = [0.5, 0.5]
    assert scores.jensen_shannon(nearly).low == 0
    nearly[2, 1:3] = [1, 0]
    assert scores.jensen_shannon(nearly[1:]).low == 0


def test_change_and_reduction_are_of_the_new_arm_against_the_old():
    rng = np.random.default_rng(4)
    old, new = (
        rng.integers(3, size=(5, 30)) * (rng.random((5, 30)) < share) for share in (0.6, 0.3)
    )
    before, after = scores.churn(old), scores.churn(new)
    change, saved = scores.change(after, before), scores.reduction(after, before)
    expected = plain.interval(lambda a, b: a - b, _churns, [new, old])
    plain.alike(change, expected)
    plain.alike(saved, plain.interval(lambda a, b: 1 - a / b, _churns, [new, old]), rel=0.02)
    assert change.value == pytest.approx(metrics.churn(new) - metrics.churn(old))
    assert change.value < 0 < saved.value
    shared = [np.arange(5), np.arange(5)]
    assert scores.change(after, before, shared).se != change.se
    assert scores.reduction(after, before, shared).se != saved.se
    nothing = scores.churn(np.zeros((5, 30), int))
    assert scores.reduction(after, nothing) is None and scores.reduction(nothing, before).value == 1
    assert saved.high < scores.reduction(nothing, before).high == 1
    odd = np.zeros((5, 30), int)
    odd[0, 0] = 1  # without this run nothing is left to be saved
    assert scores.reduction(after, scores.churn(odd)) is None
    two = [scores.churn(some[:2]) for some in (new, np.zeros((5, 30), int))]
    assert scores.reduction(*two) is None and scores.reduction(*two[::-1]).value == 1
    apart = scores.churn(np.arange(5)[:, None] + np.zeros((5, 30), int))  # all pairs differ
    assert scores.reduction(after, apart).value == pytest.approx(1 - after.value)
    hardly = scores.reduction(scores.churn(odd), before)
    assert hardly.high == 1 < hardly.value + 2 * hardly.se


def _churns(labels):
    """Of each query: the share of pairs of runs that differ on it."""
    pairs = [one != other for i, one in enumerate(labels) for other in labels[i + 1 :]]
    return np.mean(pairs, axis=0)


def test_a_pool_by_hand():
    """Three groups whose rows are means of what is left: twice the interval of a mean."""
    values = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 8.0]])  # of three groups and two queries
    rows = values.mean(axis=0)[None]
    deleted = np.stack([np.delete(values, group, axis=0).mean(axis=0)[None] for group in range(3)])
    interval = scores.of_pool(lambda mean: mean, rows, [deleted], runs=9)
    per_group = values.mean(axis=1)
    over_runs, over_queries = per_group.var(ddof=1) / 3, rows.var(ddof=1) / 2
    cells = values.var(axis=0, ddof=1).sum() / 3 / 4
    assert interval.value == values.mean() and interval.runs == 9
    assert interval.over_runs.se**2 == pytest.approx(over_runs) and interval.over_runs.df == 2
    expected = max(over_runs, over_queries, over_runs + over_queries - cells)
    assert interval.se**2 == pytest.approx(expected) and expected > max(over_runs, over_queries)


def test_churn_beyond_accuracy_by_hand():
    """Accuracies 3/4, 1/4 and 1/2; the three pairs differ on 2, 1 and 1 of the four queries."""
    labels, gold = np.array([[0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1]]), np.zeros(4, int)
    found = scores.churn_beyond_accuracy(labels, gold)
    assert found.value == pytest.approx((2 + 1 + 1) / 12 - (2 / 4 + 1 / 4 + 1 / 4) / 3)
    moved = scores.churn_beyond_accuracy(np.where(labels == 1, [[1], [2], [3]], 0), gold)
    assert moved.value == pytest.approx((3 + 3 + 2) / 12 - 1 / 3)  # other wrong answers are churn


def test_a_ratio_of_a_pool_is_taken_whole_and_divisions_are_averaged():
    rng = np.random.default_rng(2)
    values = rng.uniform(1, 2, (2, 6, 40))  # two rows, six runs
    divisions = [np.arange(6) % 3, np.arange(6) // 2]
    deleted = [
        np.stack([values[:, division != group].mean(axis=1) for group in range(3)])
        for division in divisions
    ]
    interval = scores.of_pool(reduction, values.mean(axis=1), deleted, runs=6)
    plain_variances = []
    for division in divisions:
        means = [values[:, division != group].mean(axis=(1, 2)) for group in range(3)]
        plain_variances.append(plain.variance([reduction(*pair) for pair in means]))
    assert interval.value == pytest.approx(reduction(*values.mean(axis=(1, 2))))
    assert interval.over_runs.se**2 == pytest.approx(np.mean(plain_variances))
    alone = scores.of_pool(reduction, values.mean(axis=1), deleted[:1], runs=6)
    assert alone.over_runs.se**2 == pytest.approx(plain_variances[0])


def test_slopes_are_those_of_the_function():
    function = lambda a, b, c: a**2 / b + 3 * c  # noqa: E731
    found = scores.gradient(function, np.array([2.0, 4.0, 0.0]))
    assert found == pytest.approx([1.0, -0.25, 3.0], rel=1e-6)
    small = scores.gradient(lambda a, b: a / b, np.array([0.002, 0.004]))
    assert small == pytest.approx([250, -125], rel=1e-6)


def test_defaults_are_five_votes_of_entropy_and_ten_of_the_share_unstable():
    labels, gold = answers(12)
    assert scores.label_entropy(labels).value == scores.label_entropy(labels, 5).value
    assert scores.share_unstable(labels).value == scores.share_unstable(labels, 10).value
    assert scores.share_unstable(labels).bounds == (0, 1)
    assert "share_unstable@10" in scores.scores(labels, gold, 5)


def test_values_of_half_precision_are_added_up_in_full():
    values = np.random.default_rng(0).random((3, 3000)).astype(np.float16)
    found, expected = (scores.of_runs(some) for some in (values, values.astype(float)))
    assert found.value == expected.value and np.array_equal(found.each, expected.each)
    two = scores.of_runs([[0, 1], [1, 1]])
    assert two.without.tolist() == [1, 0.5] and two.moves.shape == (2, 2)


def test_class_ids_that_no_float_tells_apart():
    labels, _ = answers(5)
    assert scores.churn(labels + 2**62).value == scores.churn(labels).value


@pytest.mark.parametrize("n", [1, 5, 2.0])
def test_more_votes_than_runs_are_refused(n):
    for call in (scores.label_entropy, scores.share_unstable):
        with pytest.raises(InputError, match="n: got .*; expected an integer from 2 to 4"):
            call(np.zeros((4, 3), int), n)


@pytest.mark.parametrize("queries", [3, 7, 11, 30, 49])
@pytest.mark.parametrize("runs", [(3, 4), (7, 10), (50, 10)])
def test_arms_that_never_flip_and_are_equally_accurate_do_not_differ(queries, runs):
    """Fails where rounding becomes a difference without any spread, which is significant."""
    gold = np.zeros(queries, int)
    old, new = (np.tile(np.r_[1, gold[1:]], (count, 1)) for count in runs)  # one is wrong
    change = scores.change(scores.accuracy(new, gold), scores.accuracy(old, gold))
    assert (change.value, change.se, change.p_value()) == (0, 0, 1)
    assert verdict(change, 0) == "does not hold" == verdict(change, 0, "below")


@given(st.integers(0, 10**6), st.integers(3, 9))
@bounded
def test_what_one_run_alone_makes_is_no_base_of_a_share(seed, runs):
    """Without it there is no churn, up to rounding; a share of it would be of any size."""
    draw = np.random.default_rng(seed)
    labels = np.tile(draw.integers(0, 3, 23), (runs, 1))
    labels[0, draw.integers(23)] += 1
    for score in (scores.churn(labels), scores.label_entropy(labels, runs - 1)):
        assert scores.reduction(score, score) is None

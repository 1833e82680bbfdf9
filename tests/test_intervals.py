"""Intervals against textbook formulas, and their coverage where the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.intervals import (
    GUARD,
    Interval,
    crossed,
    divisions,
    from_deletions,
    from_variance,
    holm,
    jackknife,
    jackknife_arms,
    jeffreys,
    over_both,
    over_examples,
    over_queries,
    runs_and_queries,
    runs_needed,
    runs_to_detect,
    together,
    verdict,
    without_blocks,
)


def mean(values):
    return values.mean()


def difference(a, b):
    return a.mean() - b.mean()


def ratio(a, b):
    return a.mean() / b.mean()


def ends(interval):
    return interval.low, interval.high


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ---- equal to the textbook ----


def test_jackknife_of_a_mean_is_students_interval(rng):
    values = rng.normal(size=8)
    interval = jackknife(mean, values)
    assert ends(interval) == pytest.approx(DescrStatsW(values).tconfint_mean())
    assert (interval.runs, interval.df, interval.note) == (8, 7, "")
    assert interval.p_value(0.3) == pytest.approx(stats.ttest_1samp(values, 0.3).pvalue)


def test_a_statistic_of_several_arrays_loses_the_same_run_in_all(rng):
    a, b = rng.normal(size=(2, 6))
    assert ends(jackknife(difference, a, b)) == pytest.approx(ends(jackknife(mean, a - b)))
    wide = np.stack([b, b], axis=1)  # as many runs are enough, of whatever shape
    assert ends(jackknife(difference, a, wide)) == pytest.approx(ends(jackknife(mean, a - b)))


def test_arms_with_the_same_seeds_in_any_order_are_paired(rng):
    a, b = rng.normal(size=(2, 6))
    shuffled = rng.permutation(6)
    interval = jackknife_arms(difference, [a, b[shuffled]], [np.arange(6), shuffled])
    assert ends(interval) == pytest.approx(DescrStatsW(a - b).tconfint_mean())
    assert interval.df == pytest.approx(5)


def test_arms_without_common_seeds_give_welchs_interval(rng):
    a, b = rng.normal(size=5), rng.normal(0, 3, size=9)
    interval = jackknife_arms(difference, [a, b], [np.arange(5), np.arange(100, 109)])
    expected = CompareMeans(DescrStatsW(a), DescrStatsW(b)).tconfint_diff(usevar="unequal")
    assert ends(interval) == pytest.approx(expected) and interval.runs == 5
    assert interval.p_value() == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_runs_of_one_master_seed_leave_together(rng):
    values = rng.normal(size=10)
    interval = jackknife_arms(mean, [values], [np.arange(10) // 2])
    assert ends(interval) == pytest.approx(ends(jackknife(mean, values.reshape(5, 2).mean(axis=1))))


def test_divisions_are_even_in_every_kind_of_run():
    kinds = np.repeat([3, 1, 2], [20, 31, 7])
    divided = divisions(kinds, 5)
    assert divided.shape == (10, 58) and len({tuple(division) for division in divided}) == 10
    for division in divided:
        assert np.ptp(np.bincount(division)) <= 1
        assert all(
            np.ptp(np.bincount(division[kinds == kind], minlength=5)) <= 1 for kind in set(kinds)
        )


def test_divisions_deal_out_each_kind_in_the_order_that_seed_zero_draws():
    """Fails where the order of equals is left to the sort: it differs from machine to machine."""
    kinds = np.repeat([0, 1], [30, 40])
    drawn = np.random.default_rng(0).permutation(70)
    dealt = [run for kind in (0, 1) for run in drawn if kinds[run] == kind]
    expected = np.argsort(dealt) % 5
    assert divisions(kinds, 5, 5).tolist() == [expected.tolist()]


def test_identical_runs_give_an_interval_of_no_width():
    assert ends(jackknife(metrics.churn, np.ones((4, 9), int))) == (0, 0)
    flat = jackknife_arms(difference, [np.ones(3), np.zeros(3)], [[1, 2, 3], [4, 5, 6]])
    assert ends(flat) == (1, 1) and flat.p_value() == 0 and flat.p_value(1) == 1
    assert flat.df == 2


# ---- two runs, examples ----


def test_two_runs_give_an_interval_over_examples(rng):
    two = (rng.random((2, 400)) < 0.3).astype(int)
    interval = jackknife(metrics.churn, two)
    flips = two[0] != two[1]
    assert interval.note == "these two models only" and interval.runs == 2
    assert (
        interval.se == pytest.approx(flips.std() / 20, rel=0.3) and interval.value == flips.mean()
    )
    arms = jackknife_arms(
        lambda a, b: metrics.churn(a) - metrics.churn(b), [two, two], [[0, 1], [2, 3]]
    )
    assert arms.note == "these two models only" and ends(arms) == (0, 0)
    more = (rng.random((5, 400)) < 0.3).astype(int)
    beside = jackknife_arms(
        lambda a, b: metrics.churn(a) - metrics.churn(b), [two, more], [[0, 1], [2, 3, 4, 5, 6]]
    )
    assert beside.note == "these models only"  # seven of them


def test_gold_labels_lose_the_same_examples(rng):
    gold = rng.integers(0, 3, 40)
    accuracy = lambda labels, gold: metrics.accuracy(labels, gold).mean()  # noqa: E731
    right = over_examples(accuracy, [gold, gold], examples=[gold])
    assert (right.value, *ends(right)) == (1, 1, 1)
    assert jackknife(accuracy, [gold, gold], examples=[gold]) == right  # two runs: over examples
    assert jackknife_arms(accuracy, [[gold, gold]], [[0, 1]], [gold]) == right


@pytest.mark.parametrize("queries, df", [(20, 19), (50, 49), (400, 49)])
def test_blocks_of_examples_are_the_units(rng, queries, df):
    """Fails if queries count where blocks were left out, or one more than there are."""
    values = rng.normal(size=(1, queries))
    interval = over_examples(mean, values)
    assert interval.df == df and interval.runs == 1
    half = (interval.high - interval.low) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, df) * interval.se)
    if queries <= 50:  # blocks of one: the textbook
        assert ends(interval) == pytest.approx(DescrStatsW(values[0]).tconfint_mean())


def test_over_examples_covers(rng):
    hits = [ends(over_examples(mean, rng.random((1, 60)) < 0.4)) for _ in range(300)]
    assert 0.92 <= np.mean([low <= 0.4 <= high for low, high in hits]) <= 0.98


# ---- queries, and both ----


def test_over_queries_is_students_interval(rng):
    row = rng.normal(size=30)
    interval = over_queries(lambda mean: mean, row, runs=4)
    assert ends(interval) == pytest.approx(DescrStatsW(row).tconfint_mean())
    assert (interval.df, interval.runs, interval.note) == (29, 4, "these 4 models only")
    assert interval.speaks_of == "these 4 models only"


def test_over_queries_leaves_a_query_out_of_every_row(rng):
    rows, weights = rng.uniform(1, 2, (2, 12)), rng.uniform(0, 1, 12)
    of_means = lambda one, other: 1 - one / other  # noqa: E731
    interval = over_queries(of_means, *rows, weights=weights, runs=3)
    deleted = []
    for query in range(12):
        rest = np.delete(np.arange(12), query)
        deleted.append(of_means(*(np.average(row[rest], weights=weights[rest]) for row in rows)))
    squares = 11 / 12 * np.sum((deleted - np.mean(deleted)) ** 2)
    assert interval.value == pytest.approx(of_means(*np.average(rows, axis=1, weights=weights)))
    assert interval.se == pytest.approx(np.sqrt(squares))


def test_one_query_cannot_be_left_out():
    alone = over_queries(lambda mean: mean, [0.3], runs=4)
    assert alone.value == 0.3 and math.isnan(alone.low) and math.isnan(alone.se)
    assert math.isnan(alone.high) and (alone.runs, alone.note) == (4, "these 4 models only")
    weighted = over_queries(lambda mean: mean, [0.3, 0.9, 0.4], weights=[1, 0, 0], runs=4)
    assert weighted.value == 0.3 and math.isnan(weighted.se)
    runs = from_variance(0.3, 0.01, 3, runs=4)
    assert runs_and_queries(runs, alone) is runs  # and says whom it speaks of
    assert verdict(alone, 0.1) == "cannot be tested here"


def test_queries_of_no_weight_do_not_count(rng):
    row, weights = rng.normal(size=9), np.array([1, 2, 0, 1, 1, 0, 3, 1, 1])
    counted = weights > 0
    expected = over_queries(lambda mean: mean, row[counted], weights=weights[counted], runs=3)
    assert over_queries(lambda mean: mean, row, weights=weights, runs=3) == expected


def test_numbers_of_half_precision_are_added_up_in_full(rng):
    row, weights = rng.random((2, 3000)).astype(np.float16)
    exact, heavy = row.astype(float), weights.astype(float)
    expected = over_queries(lambda mean: mean, exact, weights=heavy, runs=3)
    assert over_queries(lambda mean: mean, row, weights=weights, runs=3) == expected
    assert over_queries(lambda mean: mean, exact, weights=weights, runs=3) == expected
    assert from_deletions(0.5, row) == from_deletions(0.5, exact)


def both(of_runs, of_queries, cells=0.0):
    parts = [
        from_variance(2.0, variance, df, runs=5)
        for variance, df in ((of_runs, 4), (of_queries, 99))
    ]
    return runs_and_queries(*parts, cells)


def test_the_variances_of_runs_and_queries_add_up_less_the_cells():
    interval = both(0.03, 0.05, cells=0.02)
    assert interval.se**2 == pytest.approx(0.06) and (interval.value, interval.runs) == (2.0, 5)
    assert interval.df == pytest.approx(0.06**2 / (0.03**2 / 4 + 0.05**2 / 99))
    assert interval.high - 2 == pytest.approx(stats.t.ppf(0.975, interval.df) * math.sqrt(0.06))
    assert interval.over_runs == from_variance(2.0, 0.03, 4, runs=5)
    assert interval.speaks_of == "new runs and new queries"
    assert interval.over_runs.speaks_of == "new runs on these queries"


def test_it_is_never_narrower_than_either_part():
    assert both(0.03, 0.05, cells=0.04).se ** 2 == pytest.approx(0.05)
    assert both(0.05, 0.03, cells=1.0).se ** 2 == pytest.approx(0.05)
    assert both(0.05, 0.0).df == pytest.approx(4) and both(0.0, 0.05).df == pytest.approx(99)
    nothing = both(0.0, 0.0)
    assert (nothing.se, nothing.df, *ends(nothing)) == (0, 4, 2, 2)


def test_what_speaks_of_these_models_only_stays_so(rng):
    two = jackknife(metrics.churn, rng.integers(0, 2, (2, 40)))
    assert runs_and_queries(two, over_queries(lambda mean: mean, [0.0, 1.0], runs=2)) is two
    unknown = Interval(math.nan, math.nan, math.nan, 5, se=math.nan, df=4)
    assert runs_and_queries(unknown, both(1, 1)) is unknown


def test_crossed_factors_add_up():
    parts = [from_variance(0.5, variance, df, runs=8) for variance, df in ((0.04, 3), (0.01, 2))]
    interval = crossed(parts)
    assert interval.se**2 == pytest.approx(0.05) and (interval.value, interval.runs) == (0.5, 8)
    assert interval.df == pytest.approx(0.05**2 / (0.04**2 / 3 + 0.01**2 / 2))
    other = replace(parts[1], value=0.7, runs=3)  # of whatever it is: the first says what is asked
    assert crossed([parts[0], other]) == interval
    still = crossed([from_variance(0.5, 0.0, 3, 8)] * 2)
    assert (still.se, still.df, *ends(still)) == (0, 3, 0.5, 0.5)


def test_deletions_are_the_jackknife(rng):
    values = rng.normal(size=6)
    deleted = [np.delete(values, run).mean() for run in range(6)]
    assert from_deletions(values.mean(), deleted) == pytest.approx(jackknife(mean, values))


# ---- bounds ----


def test_a_bounded_interval_is_clipped_and_its_tests_stay():
    plain = from_variance(0.9, 0.05**2, 7, runs=8)
    inside = plain.within(0, 1)
    assert ends(inside) == (plain.low, 1) and plain.high > 1
    assert (inside.value, inside.se, inside.df) == (0.9, 0.05, 7)
    assert inside.p_value(0.5) == plain.p_value(0.5)


@pytest.mark.parametrize("value", [0.004, 0.02, 0.5, 0.97])
def test_a_share_and_what_is_left_have_mirrored_intervals(value):
    share = from_variance(value, 0.01**2, 5, runs=6).within(0, 1)
    rest = from_variance(1 - value, 0.01**2, 5, runs=6).within(0, 1)
    assert ends(rest) == pytest.approx((1 - share.high, 1 - share.low))
    assert 0 <= share.low < value < share.high <= 1


def test_small_intervals_far_from_bounds_hardly_change():
    plain = from_variance(0.4, 0.001**2, 20, runs=21)
    assert ends(plain.within(0, 1)) == pytest.approx(ends(plain), abs=1e-5)


@pytest.mark.parametrize("value, bounds, expected", [
    (0.0, (0, 1), (0, 0.2)),
    (1.0, (0, 1), (0.8, 1)),
    (0.05, (0, math.inf), (0, 0.25)),
    (0.95, (-math.inf, 1), (0.75, 1)),
    (0.5, (-math.inf, math.inf), (0.3, 0.7)),
])  # fmt: skip
def test_an_interval_ends_at_its_bounds(value, bounds, expected):
    interval = Interval(value, value - 0.2, value + 0.2, runs=5, se=0.1, df=4)
    assert ends(interval.within(*bounds)) == pytest.approx(expected)


def test_the_interval_over_runs_keeps_the_same_bounds():
    inside = both(0.01, 0.02).within(0, 2.2)
    over_runs = inside.over_runs
    assert 0 < inside.low < over_runs.low < 2 < over_runs.high == inside.high == 2.2


# ---- coverage: the two published recipes for churn, and ours ----


def pairs_resampled(matrix, rng):
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    return np.quantile(rng.choice(pairs, (200, len(pairs))).mean(axis=1), [0.025, 0.975])


def runs_resampled_with_self_pairs(matrix, rng):
    drawn = rng.integers(0, len(matrix), (200, len(matrix)))
    above = np.triu_indices(len(matrix), 1)
    return np.quantile(matrix[drawn[:, above[0]], drawn[:, above[1]]].mean(axis=1), [0.025, 0.975])


def binomial_entropy(p, n):
    """Expected entropy of n two-class votes, straight from the binomial distribution."""
    return sum(
        comb(n, k) * p**k * (1 - p) ** (n - k) * stats.entropy([k, n - k]) for k in range(n + 1)
    )


def rarefied(labels):
    return metrics.label_entropy(labels, n=min(5, len(labels))).mean()


@pytest.mark.parametrize("runs, shared", [(5, 0.0), (10, 0.0), (10, 1.0)])
def test_only_the_jackknife_covers_churn_and_entropy(rng, runs, shared):
    score, effect = rng.normal(0, 3, 300), stats.norm.ppf((np.arange(100) + 0.5) / 100)
    p = (1 / (1 + np.exp(-score - shared * effect[:, None]))).mean(axis=0)
    churn, entropy = 2 * np.mean(p * (1 - p)), binomial_entropy(p, 5).mean()
    repeats, hits = 200, np.zeros(4)
    for _ in range(repeats):
        chance = 1 / (1 + np.exp(-score - shared * rng.normal(size=(runs, 1))))
        labels = (rng.random((runs, 300)) < chance).astype(np.uint8)
        matrix = metrics.churn_matrix(labels)
        peers = [pairs_resampled(matrix, rng), runs_resampled_with_self_pairs(matrix, rng)]
        ours = [ends(jackknife(metrics.churn, labels)), ends(jackknife(rarefied, labels))]
        truths = [churn, churn, churn, entropy]
        hits += [
            low <= truth <= high for (low, high), truth in zip(peers + ours, truths, strict=True)
        ]
    of_pairs, of_runs, of_churn, of_entropy = hits / repeats
    assert of_pairs < 0.85 and of_runs < 0.85
    assert 0.90 <= of_churn <= 0.995 and 0.90 <= of_entropy <= 0.995


@pytest.mark.parametrize("statistic, sizes, common, spread", [
    (difference, (5, 5), 0, (1, 1)),
    (difference, (5, 5), 5, (1, 1)),
    (difference, (5, 12), 5, (1, 1)),
    (difference, (5, 12), 5, (0.3, 1)),
    (difference, (10, 6), 3, (1, 1)),
    (ratio, (5, 8), 5, (1, 1)),
    (ratio, (8, 8), 0, (1, 1)),
])  # fmt: skip
def test_jackknife_over_arms_covers(rng, statistic, sizes, common, spread):
    seeds, repeats, hits = [np.arange(sizes[0]), sizes[0] - common + np.arange(sizes[1])], 250, 0
    for _ in range(repeats):
        shared = rng.normal(size=50)
        noise = [0.8 * shared[own] + 0.6 * rng.normal(size=len(own)) for own in seeds]
        arms = [level + width * z for level, width, z in zip((10, 8), spread, noise, strict=True)]
        interval = jackknife_arms(statistic, arms, seeds)
        hits += interval.low <= statistic(np.array(10), np.array(8)) <= interval.high
    assert 0.915 <= hits / repeats <= 0.995


def test_ignoring_common_seeds_would_be_wrong(rng):
    shared = rng.normal(size=8)
    arms = [shared + 0.1 * rng.normal(size=8) for _ in range(2)]
    paired = jackknife_arms(difference, arms, [range(8)] * 2)
    apart = jackknife_arms(difference, arms, [range(8), range(8, 16)])
    assert paired.se < apart.se / 3


# ---- the rest ----


def test_jeffreys_is_statsmodels_but_for_the_ends():
    low, high = jeffreys([1, 3, 9], 10)
    expected = proportion_confint(np.array([1, 3, 9]), 10, alpha=0.05, method="jeffreys")
    np.testing.assert_allclose([low, high], expected)
    assert jeffreys(0, 5)[0] == 0 and jeffreys(5, 5)[1] == jeffreys(1, 1)[1] == 1
    assert jeffreys(0, 5)[1] == pytest.approx(stats.beta(0.5, 5.5).ppf(0.975))


def test_holm_is_statsmodels(rng):
    p = rng.random(20) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    assert holm([0.7, 0.9]).tolist() == [1, 1] and holm([0, 1]).tolist() == [0, 1]
    assert holm([0, 1]).dtype == float


@pytest.mark.parametrize("half_width", [0.05, 0.2, 0.4, 0.5, 0.6, 0.9, 1.2, 50])
def test_runs_needed_is_the_smallest_number_that_suffices(half_width):
    interval = Interval(0.0, -1, 1, runs=10, se=0.3, df=9)
    half = lambda n: stats.t.ppf(0.975, n - 1) * 0.3 * math.sqrt(10 / n)  # noqa: E731
    found = runs_needed(interval, half_width)
    assert half(found) <= half_width and (found == 2 or half(found - 1) > half_width)


def test_runs_are_planned_by_what_runs_change():
    """Fails if the width that other queries cause is taken for one that more runs would narrow."""
    interval = both(0.01, 0.5)
    assert runs_needed(interval, 0.1) == runs_needed(interval.over_runs, 0.1)


@pytest.mark.parametrize("difference", [0.5, 0.8, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_runs_to_detect_are_those_of_statsmodels(difference, power):
    """Two arms of spread 1 whose pilot had 5 runs each, without anything that queries change."""
    pilot = from_variance(0.0, 2 / 5, 8, runs=5)
    expected = TTestIndPower().solve_power(difference, power=power, alpha=0.05)
    assert runs_to_detect(pilot, difference, power) == math.ceil(expected)


@pytest.mark.parametrize(
    "difference, stays", [(0.5, 0.0), (0.9, 0.1), (1.4, 0.3), (1.6, 0.3), (3.0, 0.2)]
)
def test_runs_to_detect_is_the_smallest_number_of_enough_power(difference, stays):
    """By the noncentral t of scipy.stats; a pilot of 4 runs and 6 degrees of freedom."""
    pilot = Interval(0.0, -1, 1, 4, se=0.5, df=6)
    pilot = replace(pilot, se=math.sqrt(0.25 + stays**2), over_runs=pilot)

    def power(runs):
        variance = 1.0 / runs + stays**2
        df = 2 * (runs - 1) * (variance * runs) ** 2
        beyond = stats.nct(df, difference / math.sqrt(variance)).cdf(stats.t.ppf(0.975, df))
        return 1 - beyond

    found = runs_to_detect(pilot, difference)
    assert power(found) >= 0.8 and (found == 3 or power(found - 1) < 0.8)


def test_runs_and_queries_of_any_statistic_are_both_left_out(rng):
    """Arms with seeds of their own, and arms whose runs leave together."""
    one, other = rng.random((2, 5, 60))
    seeds, gold = [range(5), range(3, 8)], rng.random(60)
    statistic = lambda a, b, gold: (a.mean(0) * gold).mean() - b.mean()  # noqa: E731
    for given, runs in (
        (seeds, jackknife_arms(statistic, [one, other], seeds, [gold])),
        (None, jackknife(statistic, one, other, examples=[gold])),
    ):
        found = over_both(statistic, one, other, seeds=given, examples=[gold])
        queries = over_examples(statistic, one, other, examples=[gold])
        assert found.over_runs == runs and found.runs == 5
        assert found.se**2 == pytest.approx(runs.se**2 + queries.se**2)


def test_a_single_query_has_no_interval_over_queries():
    found = over_examples(mean, [[1.0], [2.0], [6.0]])
    assert (found.value, found.runs, found.note) == (3.0, 3, "these 3 models only")
    assert math.isnan(found.low) and math.isnan(found.high)
    two = over_examples(mean, [[1.0, 3.0]])  # two queries can be left out
    assert two.low < two.value == 2 < two.high


def test_blocks_of_queries_are_the_same_each_time(rng):
    values = rng.random((2, 200))
    assert over_examples(mean, values) == over_examples(mean, values)
    first = np.flatnonzero(np.random.default_rng(0).permutation(200) % 50 == 0)
    assert np.array_equal(without_blocks(200)[0], np.delete(np.arange(200), first))


def test_what_queries_change_no_number_of_runs_can_tell():
    pilot = both(0.1, 0.02)  # a pilot of 5 runs
    alone = runs_to_detect(pilot.over_runs, 0.5)
    assert alone < runs_to_detect(pilot, 0.5)
    least = math.sqrt(0.02) * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    assert runs_to_detect(pilot, 0.99 * least) is None
    assert runs_to_detect(pilot, 1.1 * least) > runs_to_detect(pilot, 1.5 * least) >= 3
    assert runs_to_detect(pilot, 50) == runs_to_detect(both(0.0, 0.02), 0.5) == 3


def test_so_many_runs_do_find_it_four_times_in_five(rng):
    """The whole way: normal runs on queries that a method changes unevenly."""
    per_run, per_query, gap = 0.3, 0.05, 0.5
    pilot = runs_and_queries(
        from_variance(0, 2 * per_run**2 / 5, 8, runs=5), from_variance(0, per_query**2, 99, runs=5)
    )
    runs = runs_to_detect(pilot, gap)
    found = []
    for _ in range(800):
        shift = gap + per_query * rng.normal()
        arms = [shift + per_run * rng.normal(size=runs), per_run * rng.normal(size=runs)]
        over_runs = jackknife_arms(
            lambda a, b: a.mean() - b.mean(), arms, [range(runs), range(99, 99 + runs)]
        )
        interval = runs_and_queries(over_runs, from_variance(0, per_query**2, 99, runs=runs))
        found.append(interval.p_value() < 0.05)
    assert 0.77 <= np.mean(found) <= 0.9


def test_runs_needed_is_about_what_it_then_takes(rng):
    pilot = np.mean([runs_needed(jackknife(mean, rng.normal(size=10)), 0.3) for _ in range(200)])
    widths = [jackknife(mean, rng.normal(size=round(pilot))) for _ in range(50)]
    assert np.mean([(i.high - i.low) / 2 for i in widths]) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("low, high, direction, expected", [
    (0.2, 0.3, "above", "holds"),
    (0.0, 0.09, "above", "does not hold"),
    (0.0, 0.1, "above", "does not hold"),
    (0.05, 0.2, "above", "undecided at 7 runs"),
    (0.1, 0.2, "above", "undecided at 7 runs"),
    (0.2, 0.3, "below", "does not hold"),
    (0.0, 0.09, "below", "holds"),
    (0.05, 0.2, "below", "undecided at 7 runs"),
    (math.nan, math.nan, "above", "cannot be tested here"),
])  # fmt: skip
def test_verdict_follows_the_rule(low, high, direction, expected):
    assert verdict(Interval(0.1, low, high, runs=7), 0.1, direction) == expected


def test_verdict_without_an_interval():
    assert verdict(None, 0.1) == "cannot be tested here"


@pytest.mark.parametrize("verdicts, expected", [
    (("holds", "holds"), "holds"),
    (("undecided at 5 runs", "undecided at 3 runs"), "undecided at 5 runs"),
    (("undecided at 5 runs", "does not hold", "holds"), "does not hold"),
    (("cannot be tested here", "holds"), "cannot be tested here"),
    (("holds", "undecided at 3 runs"), "undecided at 3 runs"),
    ((), "holds"),
])  # fmt: skip
def test_several_verdicts_are_as_good_as_the_worst(verdicts, expected):
    assert together(*verdicts) == expected


def test_the_guard_is_half_a_point():
    assert GUARD == 0.005


@pytest.mark.parametrize("interval, text", [
    (Interval(1.0, 1.0, 1.0, 3), "1.000 [1.000, 1.000]"),
    (Interval(0.00123, 0.001, 0.00146, 3), "0.00123 [0.00100, 0.00146]"),
    (Interval(math.nan, math.nan, math.nan, 3), "nan [nan, nan]"),
    (Interval(0.5, 0.4989, 0.5011, 3), "0.5000 [0.4989, 0.5011]"),
    (Interval(0.5, 0.4995, 0.5005, 3), "0.50000 [0.49950, 0.50050]"),
    (Interval(0.5, 0.3, 0.7, 3), "0.500 [0.300, 0.700]"),
    (Interval(1e-12, 0.0, 2e-12, 3), "0.000000000 [0.000000000, 0.000000000]"),
    (Interval(0.5, -math.inf, math.inf, 3), "0.500 [-inf, inf]"),
])  # fmt: skip
def test_intervals_print_two_digits_of_their_width(interval, text):
    assert str(interval) == text


some = Interval(0.1, 0.0, 0.2, runs=5, se=0.05, df=4)


@pytest.mark.parametrize("call, thing", [
    (lambda: jackknife(metrics.churn, [[0, 1]]), "runs"),
    (lambda: jackknife(mean, [1.0, 2.0]), "runs"),
    (lambda: jackknife(mean), "arrays"),
    (lambda: jackknife(difference, [1.0, 2.0, 3.0], [1.0, 2.0]), "arrays"),
    (lambda: over_examples(mean, [[1.0], [2.0]]), "runs"),
    (lambda: jackknife_arms(difference, [[1.0, 2.0, 3.0]] * 2, [range(3), range(2)]), "seeds"),
    (lambda: jackknife_arms(difference, [[1.0, 2.0, 3.0]] * 2, [range(3)]), "seeds"),
    (lambda: jackknife_arms(difference, [[1.0, 2.0, 3.0], [1.0]], [range(3), [0]]), "runs"),
    (lambda: jeffreys(3, 2), "successes"),
    (lambda: jeffreys(0, 0), "successes"),
    (lambda: holm([0.5, 1.5]), "p-values"),
    (lambda: holm([math.nan]), "p-values"),
    (lambda: runs_needed(some, 0), "half_width"),
    (lambda: runs_to_detect(some, 0), "difference"),
    (lambda: runs_to_detect(some, 0.1, power=1), "power"),
    (lambda: runs_to_detect(some, 0.1, power=0), "power"),
    (lambda: over_examples(mean), "runs"),
    (lambda: runs_to_detect(Interval(0.1, 0, 0.2, 5), 0.1), "interval"),
    (lambda: runs_needed(Interval(0.1, 0, 0.2, 2, "these two models only", 0.1, 49), 0.1), "interval"),
    (lambda: verdict(some, 0.1, "over"), "direction"),
])  # fmt: skip
def test_wrong_input_is_named(call, thing):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.thing == thing and "\n" not in str(error.value)


@pytest.mark.parametrize("call, message", [
    (lambda: jackknife(difference, [1.0, 2.0, 3.0], [1.0, 2.0]),
     "arrays: got [(3,), (2,)]; expected at least one, all with runs first"),
    (lambda: jackknife(lambda labels: metrics.label_entropy(labels, 3).mean(), [[0, 1]] * 3),
     "runs: got 3; expected one more than the statistic needs (n: got 3; expected an integer from "
     "2 to 2, the number of runs); LE@3 of 3 runs has an interval by "
     "metrics.scores.label_entropy(labels, 3).interval()"),
    (lambda: runs_needed(Interval(0.1, 0, 0.2, 2, "these two models only", 0.1, 49), 0.1),
     "interval: got 'these two models only'; expected an interval over at least 3 runs"),
    (lambda: runs_needed(Interval(0.1, 0, 0.2, 5), 0.1), "interval: got nan; expected"),
    (lambda: over_examples(mean), "runs: got 0; expected at least 3, or else arrays of"),
])  # fmt: skip
def test_a_message_says_what_was_given(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(message)

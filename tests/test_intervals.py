"""Intervals against textbook formulas, and their coverage where the truth is known."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.intervals import (
    Interval,
    delete_a_group,
    divisions,
    holm,
    jackknife,
    jackknife_arms,
    jeffreys,
    over_examples,
    runs_needed,
    verdict,
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
    interval = jackknife(mean, values, level=0.9)
    assert ends(interval) == pytest.approx(DescrStatsW(values).tconfint_mean(0.1))
    assert (interval.runs, interval.df, interval.note) == (8, 7, "")
    assert interval.p_value(0.3) == pytest.approx(stats.ttest_1samp(values, 0.3).pvalue)


def test_a_statistic_of_several_arrays_loses_the_same_run_in_all(rng):
    a, b = rng.normal(size=(2, 6))
    assert ends(jackknife(difference, a, b)) == pytest.approx(ends(jackknife(mean, a - b)))


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


def test_an_arm_of_several_arrays_loses_its_run_in_each(rng):
    a, b, c = rng.normal(size=(3, 5))
    product = lambda pair, other: mean(pair[0] * pair[1]) - mean(other)  # noqa: E731
    interval = jackknife_arms(product, [(a, b), c], [range(5)] * 2)
    assert ends(interval) == pytest.approx(ends(jackknife(mean, a * b - c)))


def test_runs_of_one_master_seed_leave_together(rng):
    values = rng.normal(size=10)
    interval = jackknife_arms(mean, [values], [np.arange(10) // 2])
    assert ends(interval) == pytest.approx(ends(jackknife(mean, values.reshape(5, 2).mean(axis=1))))
    assert ends(delete_a_group(mean, values, groups=np.arange(10) // 2)) == pytest.approx(
        ends(interval)
    )


def test_groups_can_be_a_number(rng):
    values = rng.normal(size=12)
    expected = jackknife(mean, values.reshape(3, 4).mean(axis=0))
    assert ends(delete_a_group(mean, values, groups=4)) == pytest.approx(ends(expected))


def test_divisions_are_even_in_every_kind_of_run():
    kinds = np.repeat([3, 1, 2], [20, 31, 7])
    divided = divisions(kinds, 5)
    assert divided.shape == (10, 58) and len({tuple(division) for division in divided}) == 10
    for division in divided:
        assert np.ptp(np.bincount(division)) <= 1
        assert all(
            np.ptp(np.bincount(division[kinds == kind], minlength=5)) <= 1 for kind in set(kinds)
        )


def test_several_divisions_take_the_luck_out_of_one(rng):
    """Fails if errors are averaged instead of their squares, or one division decides."""
    values, divided = rng.normal(size=50), divisions(np.zeros(50), 5)
    ses = [delete_a_group(mean, values, groups=division).se for division in divided]
    whole = delete_a_group(mean, values, groups=divided)
    assert whole.se == pytest.approx(np.sqrt(np.mean(np.square(ses)))) and whole.df == 4
    truth = jackknife(mean, values).se
    many = [
        delete_a_group(mean, values, groups=divisions(np.zeros(50), 5)).se
        for values in rng.normal(size=(40, 50))
    ]
    one = [delete_a_group(mean, values, groups=5).se for values in rng.normal(size=(40, 50))]
    assert abs(whole.se / truth - 1) < 0.35 and np.std(many) < 0.6 * np.std(one)


def test_identical_runs_give_an_interval_of_no_width():
    assert ends(jackknife(metrics.churn, np.ones((4, 9), int))) == (0, 0)
    flat = jackknife_arms(difference, [np.ones(3), np.zeros(3)], [[1, 2, 3], [4, 5, 6]])
    assert ends(flat) == (1, 1) and flat.p_value() == 0 and flat.p_value(1) == 1


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


def test_gold_labels_lose_the_same_examples(rng):
    gold = rng.integers(0, 3, 40)
    accuracy = lambda labels, gold: metrics.accuracy(labels, gold).mean()  # noqa: E731
    right = over_examples(accuracy, [gold, gold], examples=[gold])
    assert (right.value, *ends(right)) == (1, 1, 1)


def test_over_examples_covers(rng):
    hits = [ends(over_examples(mean, rng.random((1, 60)) < 0.4)) for _ in range(300)]
    assert 0.92 <= np.mean([low <= 0.4 <= high for low, high in hits]) <= 0.98


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
    low, high = jeffreys([1, 3, 9], 10, level=0.9)
    expected = proportion_confint(np.array([1, 3, 9]), 10, alpha=0.1, method="jeffreys")
    np.testing.assert_allclose([low, high], expected)
    assert jeffreys(0, 5)[0] == 0 and jeffreys(5, 5)[1] == 1
    assert jeffreys(0, 5)[1] == pytest.approx(stats.beta(0.5, 5.5).ppf(0.975))


def test_holm_is_statsmodels(rng):
    p = rng.random(20) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    assert holm([0.7, 0.9]).tolist() == [1, 1]


@pytest.mark.parametrize("half_width", [0.05, 0.2, 0.9, 50])
def test_runs_needed_is_the_smallest_number_that_suffices(half_width):
    interval = Interval(0.0, -1, 1, runs=10, se=0.3, df=9)
    half = lambda n: stats.t.ppf(0.975, n - 1) * 0.3 * math.sqrt(10 / n)  # noqa: E731
    found = runs_needed(interval, half_width)
    assert half(found) <= half_width and (found == 2 or half(found - 1) > half_width)


def test_runs_needed_is_about_what_it_then_takes(rng):
    pilot = np.mean([runs_needed(jackknife(mean, rng.normal(size=10)), 0.3) for _ in range(200)])
    widths = [jackknife(mean, rng.normal(size=round(pilot))) for _ in range(50)]
    assert np.mean([(i.high - i.low) / 2 for i in widths]) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("low, high, direction, expected", [
    (0.2, 0.3, "above", "holds"),
    (0.0, 0.09, "above", "does not hold"),
    (0.0, 0.1, "above", "does not hold"),
    (0.05, 0.2, "above", "undecided at 7 runs"),
    (0.2, 0.3, "below", "does not hold"),
    (0.0, 0.09, "below", "holds"),
    (0.05, 0.2, "below", "undecided at 7 runs"),
    (math.nan, math.nan, "above", "cannot be tested here"),
])  # fmt: skip
def test_verdict_follows_the_rule(low, high, direction, expected):
    assert verdict(Interval(0.1, low, high, runs=7), 0.1, direction) == expected


def test_verdict_without_an_interval():
    assert verdict(None, 0.1) == "cannot be tested here"


@pytest.mark.parametrize("interval, text", [
    (Interval(1.0, 1.0, 1.0, 3), "1.000 [1.000, 1.000]"),
    (Interval(0.00123, 0.001, 0.00146, 3), "0.00123 [0.00100, 0.00146]"),
    (Interval(math.nan, math.nan, math.nan, 3), "nan [nan, nan]"),
])  # fmt: skip
def test_intervals_print_two_digits_of_their_width(interval, text):
    assert str(interval) == text


some = Interval(0.1, 0.0, 0.2, runs=5, se=0.05, df=4)


@pytest.mark.parametrize("call, thing", [
    (lambda: jackknife(metrics.churn, [[0, 1]]), "runs"),
    (lambda: jackknife(mean, [1.0, 2.0]), "runs"),
    (lambda: jackknife(mean), "arrays"),
    (lambda: jackknife(difference, [1.0, 2.0, 3.0], [1.0, 2.0]), "arrays"),
    (lambda: jackknife(mean, [1.0, 2.0, 3.0], level=95), "level"),
    (lambda: delete_a_group(mean, [1.0, 2.0, 3.0], groups=1), "groups"),
    (lambda: delete_a_group(mean, [1.0, 2.0, 3.0], groups=[0, 1]), "groups"),
    (lambda: over_examples(mean, [[1.0], [2.0]]), "runs"),
    (lambda: jackknife_arms(difference, [[1.0, 2.0, 3.0]] * 2, [range(3), range(2)]), "seeds"),
    (lambda: jackknife_arms(difference, [[1.0, 2.0, 3.0]] * 2, [range(3)]), "seeds"),
    (lambda: jackknife_arms(difference, [[1.0, 2.0, 3.0], [1.0]], [range(3), [0]]), "runs"),
    (lambda: jeffreys(3, 2), "successes"),
    (lambda: holm([0.5, 1.5]), "p-values"),
    (lambda: holm([math.nan]), "p-values"),
    (lambda: runs_needed(some, 0), "half_width"),
    (lambda: runs_needed(Interval(0.1, 0, 0.2, 2, "these two models only", 0.1, 49), 0.1), "interval"),
    (lambda: verdict(some, 0.1, "over"), "direction"),
])  # fmt: skip
def test_wrong_input_is_named(call, thing):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.thing == thing and "\n" not in str(error.value)

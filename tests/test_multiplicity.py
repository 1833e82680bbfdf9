"""Metrics under their neighbours' names: by hand, by brute force, against others' code, and what
must hold for any input."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from stabutils import metrics
from stabutils.analysis import other_words
from stabutils.errors import InputError
from stabutils.metrics import multiplicity
from stabutils.metrics.intervals import jackknife
from stabutils.study.runs import of_answers

bounded = settings(max_examples=60, deadline=None, derandomize=True)
some_labels = arrays(
    np.int64, st.tuples(st.integers(2, 7), st.integers(1, 8)), elements=st.integers(0, 3)
)
BY_LABELS = [
    lambda labels: metrics.ambiguity(labels, len(labels)),
    lambda labels: metrics.discrepancy(labels, len(labels)),
    metrics.self_consistency,
    metrics.share_inconsistent,
    metrics.consistency,
]


def close(value, reference, atol=1e-10):
    np.testing.assert_allclose(value, reference, rtol=0, atol=atol)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 4, (7, 30)) * (rng.random((7, 30)) < 0.5)


@pytest.fixture
def gold(rng):
    return rng.integers(0, 4, 30)


@pytest.fixture
def probabilities(rng):
    drawn = rng.dirichlet([0.4] * 4, (6, 25))
    drawn[0, :8] = np.eye(4)[np.arange(8) % 4]  # certain runs
    return drawn


# ---- ambiguity and discrepancy, as their authors compute them for one baseline


def marx(baseline, competing):
    """Ambiguity and discrepancy of a set of competing models against one baseline."""
    conflicts = np.array([model != baseline for model in competing])
    return conflicts.any(axis=0).mean(), conflicts.mean(axis=1).max()


@pytest.mark.parametrize("n", range(2, 8))
def test_both_are_the_mean_over_all_subsets_and_all_their_baselines(labels, n):
    subsets = [labels[list(runs)] for runs in itertools.combinations(range(7), n)]
    values = [marx(baseline, subset) for subset in subsets for baseline in subset]
    ambiguity, discrepancy = np.mean(values, axis=0)
    close(metrics.ambiguity(labels, n), ambiguity)
    close(metrics.discrepancy(labels, n), discrepancy)


def test_discrepancy_by_hand():
    labels = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [9, 9, 1, 1]]  # churn .25 .5 1 .25 .75 .5
    close(metrics.discrepancy(labels, 4), (1 + 0.75 + 0.5 + 1) / 4)
    largest = [0.5, 1, 1, 0.25, 0.75, 0.75, 0.5, 0.5, 0.5, 1, 1, 0.75]  # each run, each two others
    close(metrics.discrepancy(labels, 3), np.mean(largest))


@bounded
@given(some_labels)
def test_discrepancy_lies_between_churn_and_ambiguity_and_both_grow_with_n(labels):
    churn = metrics.churn(labels)
    before = (0.0, 0.0)
    for n in range(2, len(labels) + 1):
        ambiguity, discrepancy = metrics.ambiguity(labels, n), metrics.discrepancy(labels, n)
        assert churn - 1e-12 <= discrepancy <= ambiguity + 1e-12
        assert ambiguity >= before[0] - 1e-12 and discrepancy >= before[1] - 1e-12
        before = ambiguity, discrepancy
    close(metrics.ambiguity(labels, 2), churn)
    close(metrics.discrepancy(labels, 2), churn)


def test_the_default_is_ten_runs(rng):
    labels = (rng.random((12, 40)) < 0.05).astype(int)
    table = table_of(labels)
    for metric in ("ambiguity", "discrepancy"):
        value, at_ten, at_eleven = (getattr(metrics, metric)(labels, *n) for n in ((), [10], [11]))
        assert table.loc[metric, ["n", "value"]].tolist() == [10, value]
        assert value == at_ten < at_eleven


# ---- self-consistency, CON, ACC-CON


@pytest.mark.parametrize("ones", range(9))
def test_self_consistency_of_two_classes_is_coopers_formula(ones):
    votes = np.repeat([[1], [0]], [ones, 8 - ones], axis=0)
    close(metrics.self_consistency(votes), [1 - 2 * (8 - ones) * ones / (8 * 7)])


def test_consistency_is_the_loop_over_pairs(labels, gold):
    pairs = list(itertools.combinations(labels, 2))
    close(metrics.self_consistency(labels), np.mean([a == b for a, b in pairs], axis=0))
    close(metrics.consistency(labels), np.mean([a == b for a, b in pairs]))
    close(
        metrics.correct_consistency(labels, gold),
        np.mean([(a == b) & (a == gold) for a, b in pairs]),
    )


@pytest.mark.parametrize(
    "level, share", [(0.2, 0), (0.4, 0.25), (0.6, 0.5), (0.61, 0.75), (1, 0.75)]
)
def test_an_example_at_the_level_is_not_below_it(level, share):
    """Self-consistencies are .2 (2:2:1), .4 (3:2), .6 (4:1) and 1."""
    labels = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [2, 1, 1, 0]]
    close(metrics.self_consistency(labels), [0.2, 0.4, 0.6, 1])
    assert metrics.share_inconsistent(labels, level) == share


def test_levels_are_met_in_spite_of_rounding():
    """Every level that N votes can have, met exactly by a query that has it."""
    for runs in range(2, 30):
        for ones in range(runs // 2 + 1):
            votes = np.repeat([[1], [0]], [ones, runs - ones], axis=0)
            level = 1 - 2 * ones * (runs - ones) / (runs * (runs - 1))
            if level > 0:
                assert metrics.share_inconsistent(votes, level) == 0
            assert metrics.share_inconsistent(votes, min(1.0, level + 1e-6)) == (ones > 0)


# ---- flips and McNemar


def test_flip_rates_are_the_loop_over_cross_pairs_and_parts_of_churn(labels, gold):
    before, after = labels[:3], labels[3:]
    pairs = list(itertools.product(before, after))
    negative = metrics.negative_flip_rate(before, after, gold)
    positive = metrics.positive_flip_rate(before, after, gold)
    close(negative, np.mean([(a == gold) & (b != gold) for a, b in pairs]))
    close(positive, np.mean([(a != gold) & (b == gold) for a, b in pairs]))
    gain = metrics.accuracy(after, gold).mean() - metrics.accuracy(before, gold).mean()
    close(positive - negative, gain)
    assert negative == metrics.positive_flip_rate(after, before, gold) != positive


def two_models(first_only, second_only, both=3, neither=2):
    """Answers of two models to questions whose right answer is 0."""
    right = [(1, 0)] * first_only + [(0, 1)] * second_only + [(1, 1)] * both + [(0, 0)] * neither
    answers = 1 - np.array(right, int).reshape(-1, 2).T
    return answers[0], answers[1], np.zeros(len(right), int)


@pytest.mark.parametrize("first, second", [(0, 1), (1, 7), (7, 1), (6, 16), (25, 2), (40, 41)])
def test_mcnemar_is_the_exact_test_less_half_of_what_was_observed(first, second):
    models = two_models(first, second)
    table = [[3, first], [second, 2]]
    exact = statsmodels_mcnemar(table, exact=True).pvalue
    close(exact, binomtest(first, first + second).pvalue)
    observed = binomtest(first, first + second, alternative="less").pvalue
    if first:
        observed -= binomtest(first - 1, first + second, alternative="less").pvalue
    close(metrics.mcnemar(*models), exact - observed)


@pytest.mark.parametrize("first, second, p", [
    (1, 7, 10 / 256),  # 2 (1 + 8) / 256 - 8 / 256
    (0, 5, 1 / 32),
    (2, 2, 1 - 6 / 16 / 2),
    (1, 1, 0.75),
    (0, 0, 1.0),
])  # fmt: skip
def test_mcnemar_by_hand(first, second, p):
    close(metrics.mcnemar(*two_models(first, second)), p)
    close(metrics.mcnemar(*two_models(second, first)), p)


def test_mcnemar_counts_half_of_the_equally_uneven():
    """The definition, by enumeration: more uneven splits count whole, equally uneven ones half."""
    for total in range(1, 12):
        for first in range(total + 1):
            p = 0
            for split in range(total + 1):
                chance = binomtest(split, total, alternative="less").pvalue
                if split:
                    chance -= binomtest(split - 1, total, alternative="less").pvalue
                uneven, observed = abs(2 * split - total), abs(2 * first - total)
                p += chance * (1 if uneven > observed else 0.5 if uneven == observed else 0)
            close(metrics.mcnemar(*two_models(first, total - first)), p)


def test_mcnemar_of_equally_accurate_models_rejects_about_as_often_as_it_says(rng):
    gold = np.zeros(200, int)
    wrong = rng.random((2000, 2, 200)) < 0.2
    p_values = np.array([metrics.mcnemar(*pair.astype(int), gold) for pair in wrong])
    assert 0.03 < np.mean(p_values < 0.05) < 0.06
    assert 0.4 < np.mean(p_values < 0.5) < 0.6


# ---- selective ensembles


def black(votes, alpha):
    """The published rule for one example: the vote of two, tested as a fair coin."""
    answers, counts = np.unique(votes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    most, second = counts[order[0]], counts[order[1]] if len(counts) > 1 else 0
    significant = binomtest(most, most + second).pvalue <= alpha
    return answers[order[0]] if significant else -1


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("runs", [2, 5, 6, 9, 20])
def test_selective_answers_are_the_published_rule(rng, runs, alpha):
    odds = rng.dirichlet([0.3] * 4, 200).cumsum(axis=1)
    labels = (rng.random((runs, 200, 1)) > odds).sum(axis=2)
    expected = [black(votes, alpha) for votes in labels.T]
    assert metrics.selective_answers(labels, alpha).tolist() == expected
    assert metrics.selective_answers(labels.astype(np.uint8), alpha).tolist() == expected


def test_an_ensemble_answers_at_its_level_exactly_and_with_a_class_id():
    answers = metrics.selective_answers(np.full((6, 2), 7, np.uint8), 2**-5)  # p = 2 / 2^6
    assert answers.tolist() == [7, 7] and answers.dtype.kind == "i"


def test_selective_ensembles_seldom_give_another_answer_than_most_retrainings_would(rng):
    """At odds of .55 to .45 the wrong side wins significantly in less than alpha of the cases."""
    labels = (rng.random((15, 5000)) < 0.45).astype(int)
    answers = metrics.selective_answers(labels, 0.2)
    assert 0.01 < np.mean(answers == 1) < 0.2 and np.mean(answers == -1) > 0.5
    assert set(metrics.selective_answers(labels, 1e-9)) == {-1}


# ---- viable prediction range


@pytest.mark.parametrize("n", range(2, 7))
def test_the_range_at_n_is_the_mean_over_all_subsets(probabilities, rng, n):
    gold = rng.integers(0, 4, 25)
    chosen = np.take_along_axis(probabilities, gold[None, :, None], axis=2)[..., 0]
    subsets = [chosen[list(runs)] for runs in itertools.combinations(range(6), n)]
    low, high = metrics.viable_prediction_range(probabilities, gold, n)
    close(low, np.mean([subset.min(axis=0) for subset in subsets], axis=0))
    close(high, np.mean([subset.max(axis=0) for subset in subsets], axis=0))


def test_the_range_of_all_runs_is_from_the_lowest_to_the_highest(probabilities, rng):
    gold = rng.integers(0, 4, 25)
    chosen = np.take_along_axis(probabilities, gold[None, :, None], axis=2)[..., 0]
    low, high = metrics.viable_prediction_range(probabilities, gold)
    close(low, chosen.min(axis=0)), close(high, chosen.max(axis=0))


def test_the_range_of_two_runs_by_hand():
    two = [[[0.5, 0.5]], [[0.9, 0.1]]]
    for n in (None, 2):
        close(metrics.viable_prediction_range(two, [1], n), [[0.1], [0.5]])


def test_with_two_classes_either_label_has_the_same_width(rng):
    pairs = rng.dirichlet([1, 1], (5, 8))
    ends = [metrics.viable_prediction_range(pairs, np.full(8, label), 3) for label in (0, 1)]
    close(*[high - low for low, high in ends])


# ---- Rashomon capacity


def in_nats(*shares):
    return -sum(share * np.log(share) for share in shares if share)


@pytest.mark.parametrize("rows, capacity", [
    ([[0.2, 0.3, 0.5]] * 4, 0.0),  # all alike
    ([[1, 0], [0, 1]], np.log(2)),  # two certain answers
    ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.log(3)),
    ([[0.9, 0.1], [0.1, 0.9]], np.log(2) - in_nats(0.9, 0.1)),  # binary symmetric channel
    ([[0.7, 0.3, 0], [0, 0.3, 0.7]], 0.7 * np.log(2)),  # binary erasure channel
    ([[1, 0], [0.5, 0.5]], np.log(1.25)),  # Z-channel: log(1 + (1 - p) p^(p / (1 - p)))
    ([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], np.log(3) - in_nats(0.8, 0.1, 0.1)),
])  # fmt: skip
def test_closed_forms(rows, capacity):
    channel = np.array(rows, float)[:, None]
    close(metrics.channel_capacity(channel, 1e-9), [capacity], atol=2e-9)
    close(metrics.rashomon_capacity(channel, 1e-9), [np.exp(capacity)], atol=5e-9)


def information(weights, channel):
    mixture = weights @ channel
    return sum(
        weight * np.sum(row[row > 0] * np.log(row[row > 0] / mixture[row > 0]))
        for weight, row in zip(weights, channel, strict=True)
    )


@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # of scipy before 1.16
def test_no_weights_give_more_information_and_an_optimiser_finds_as_much(probabilities):
    capacities = metrics.channel_capacity(probabilities, 1e-9)
    for example in range(0, 25, 4):
        channel = 0.98 * probabilities[:, example] + 0.005
        capacity = metrics.channel_capacity(channel[:, None], 1e-9)[0]
        uniform = np.full(6, 1 / 6)
        best = minimize(
            lambda weights, channel=channel: -information(weights, channel),
            uniform,
            bounds=[(1e-12, 1)] * 6,
            constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
            tol=1e-12,
        )
        assert best.success and capacity == pytest.approx(-best.fun, abs=1e-6)
        assert capacities[example] >= information(uniform, probabilities[:, example]) - 1e-9


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_the_value_is_below_the_capacity_by_at_most_the_tolerance(rng, tolerance):
    channels = rng.dirichlet([0.1] * 30, (10, 80))  # nearly certain: slow to converge
    exact = metrics.channel_capacity(channels, 1e-9)
    rough = metrics.channel_capacity(channels, tolerance)
    assert (rough <= exact + 1e-9).all() and (exact - rough <= tolerance).all()
    assert tolerance < 1e-3 or (exact - rough).max() > tolerance / 1000  # it does stop early


def test_both_forms_take_a_tolerance_and_have_the_same_default(rng):
    channels = rng.dirichlet([0.1] * 30, (10, 20))
    exact = metrics.channel_capacity(channels, 1e-9)
    for capacity in (
        metrics.channel_capacity(channels),
        np.log(metrics.rashomon_capacity(channels)),
    ):
        assert 1e-9 < (exact - capacity).max() <= 1e-5
    rough = np.log(metrics.rashomon_capacity(channels, 0.2))
    assert 1e-3 < (exact - rough).max() <= 0.2


def test_rows_that_are_off_by_rounding_are_taken_as_shares():
    off = np.array([[[1.0009, 0]], [[0, 0.9992]]])
    close(metrics.channel_capacity(off, 1e-9), [np.log(2)], atol=2e-9)


def test_examples_are_computed_alone_and_in_blocks(probabilities, monkeypatch):
    together = metrics.channel_capacity(probabilities)
    alone = [metrics.channel_capacity(probabilities[:, [i]])[0] for i in range(25)]
    close(together, alone, atol=1e-12)
    for block in (1, 6 * 4 * 7):
        monkeypatch.setattr(multiplicity, "BLOCK", block)
        close(metrics.channel_capacity(probabilities), together, atol=1e-12)
    close(metrics.channel_capacity(probabilities.astype(np.float32)), together, atol=1e-5)


def test_more_runs_never_lower_the_capacity_and_copies_and_mixtures_do_not_raise_it(probabilities):
    capacity = metrics.channel_capacity(probabilities, 1e-7)
    assert (metrics.channel_capacity(probabilities[:4], 1e-7) <= capacity + 1e-7).all()
    mixture = probabilities[:3].mean(axis=0, keepdims=True)
    for more in (probabilities[:2], mixture):
        close(metrics.channel_capacity(np.concatenate([probabilities, more]), 1e-7), capacity, 3e-7)


def test_capacity_is_at_least_the_divergence_of_two_runs_and_has_its_range(probabilities):
    for first, second in itertools.combinations(range(6), 2):
        two = probabilities[[first, second]]
        capacity = metrics.channel_capacity(two).mean()
        assert metrics.jensen_shannon(two) - 1e-5 <= capacity <= np.log(2)
    capacity = metrics.rashomon_capacity(probabilities)
    assert (1 <= capacity).all() and (capacity <= 4).all()


# ---- what holds for any input


@bounded
@given(some_labels, st.randoms(use_true_random=False))
def test_neither_the_order_of_runs_and_examples_nor_the_names_of_classes_matter(labels, random):
    runs, examples, names = list(range(len(labels))), list(range(labels.shape[1])), [5, 17, 400, 2]
    random.shuffle(runs), random.shuffle(examples), random.shuffle(names)
    other = np.array(names)[labels[runs][:, examples]]
    for metric in BY_LABELS:
        value = metric(labels)
        close(metric(other), value[examples] if np.ndim(value) else value)
    gold, other_gold = labels[0], np.array(names)[labels[0][examples]]
    close(metrics.correct_consistency(other, other_gold), metrics.correct_consistency(labels, gold))
    for metric in (metrics.negative_flip_rate, metrics.positive_flip_rate):
        close(metric(other[:1], other[1:], other_gold), metric(
            labels[runs][:1], labels[runs][1:], gold
        ))  # fmt: skip


def test_probabilities_may_be_permuted_in_every_way(probabilities, rng):
    gold, name = rng.integers(0, 4, 25), np.array([2, 0, 3, 1])
    runs, examples = rng.permutation(6), rng.permutation(25)
    other = probabilities[runs][:, examples][..., np.argsort(name)]
    capacity, other_capacity = map(metrics.channel_capacity, (probabilities, other))
    close(other_capacity, capacity[examples], atol=1e-5)
    ends = metrics.viable_prediction_range(probabilities, gold, 3)
    other_ends = metrics.viable_prediction_range(other, name[gold][examples], 3)
    close(np.array(other_ends), np.array(ends)[:, examples])


@bounded
@given(some_labels)
def test_a_second_copy_of_every_run_changes_no_widest_range_and_only_adds_agreement(labels):
    twice = np.concatenate([labels, labels])
    close(metrics.ambiguity(twice, len(twice)), metrics.ambiguity(labels, len(labels)))
    close(metrics.discrepancy(twice, len(twice)), metrics.discrepancy(labels, len(labels)))
    runs = len(labels)
    churn = metrics.churn(labels) * (runs - 1) / (runs - 0.5)  # a pair of copies agrees
    close(metrics.consistency(twice), 1 - churn)


# ---- the table


def table_of(labels, *others, **settings):
    return metrics.multiplicity_table(labels, *others, **settings).set_index("metric")


def test_the_table_holds_the_metrics_with_the_jackknife_over_runs(labels, gold, rng):
    probabilities = rng.dirichlet([0.4] * 4, (7, 30))
    table = table_of(labels, gold, probabilities, n=4, level=0.5, alpha=0.6)
    low, high = metrics.viable_prediction_range(probabilities, gold, 4)
    pairs = [metrics.mcnemar(a, b, gold) for a, b in itertools.combinations(labels, 2)]
    expected = {
        "ambiguity": (4, metrics.ambiguity(labels, 4)),
        "discrepancy": (4, metrics.discrepancy(labels, 4)),
        "consistency": (2, metrics.consistency(labels)),
        "share_inconsistent": (7, metrics.share_inconsistent(labels, 0.5)),
        "abstention": (7, np.mean(metrics.selective_answers(labels, 0.6) == -1)),
        "correct_consistency": (2, metrics.correct_consistency(labels, gold)),
        "negative_flip_rate": (2, metrics.churn_parts(labels, gold)["right_to_wrong"] / 2),
        "mcnemar_significant": (2, np.mean(np.array(pairs) < 0.6)),
        "viable_prediction_range": (4, np.mean(high - low)),
        "rashomon_capacity": (7, metrics.rashomon_capacity(probabilities).mean()),
    }
    assert list(table.index) == list(expected)
    assert table["n"].tolist() == [n for n, _ in expected.values()]
    close(table["value"], [value for _, value in expected.values()])
    assert 0 < table.loc["mcnemar_significant", "value"] < 1
    for metric in ("ambiguity", "discrepancy"):
        interval = jackknife(lambda kept, of=metric: getattr(metrics, of)(kept, 4), labels)
        ends = table.loc[metric, ["low", "high", "se", "df", "runs"]]
        close(list(ends), [interval.low, interval.high, interval.se, interval.df, 7])
    interval = jackknife(metrics.correct_consistency, labels, examples=(gold,))
    close(table.loc["correct_consistency", "low"], interval.low)
    measured = table.drop(index="mcnemar_significant")
    assert (measured["low"] < measured["value"]).all() and (measured["se"] > 0).all()
    assert np.isnan(table.loc["mcnemar_significant", "low"])
    assert table["source"].str.contains("20").all()


def test_the_table_takes_what_there_is(labels, gold, probabilities):
    by_labels = ["ambiguity", "discrepancy", "consistency", "share_inconsistent", "abstention"]
    few = table_of(labels[:3])
    assert list(few.index) == by_labels and few["n"].tolist() == [3, 3, 2, 3, 3]
    close(few.loc["discrepancy", "value"], metrics.discrepancy(labels[:3], 3))
    two = table_of(labels[:2], gold)
    assert two.loc["ambiguity", "note"] == "these two models only"
    answers = probabilities.argmax(axis=2)
    table = table_of(answers, probabilities=probabilities, n=4)
    assert list(table.index) == [*by_labels, "viable_prediction_range", "rashomon_capacity"]
    low, high = metrics.viable_prediction_range(probabilities, metrics.majority(answers)[0], 4)
    close(table.loc["viable_prediction_range", "value"], np.mean(high - low))


def test_the_share_of_pairs_that_differ_significantly_by_hand():
    labels, gold = [[0, 1, 0], [1, 0, 0], [0, 0, 0]], [0, 0, 0]  # p = .75, .5 and .5
    least, most = metrics.mcnemar(labels[0], labels[2], gold), metrics.mcnemar(*labels[:2], gold)
    for alpha, share in ((0.49, 0), (least, 2 / 3), (0.74, 2 / 3), (most, 1)):
        close(table_of(labels, gold, alpha=alpha).loc["mcnemar_significant", "value"], share)


def test_intervals_of_the_table_cover_what_they_speak_of():
    """Exchangeable runs with an effect of their own on all queries; loose, as 40 tables are few."""
    draw = np.random.default_rng(1)
    logits = 2 * draw.normal(size=(1, 20, 3))
    gold, tables = logits[0].argmax(axis=1), []
    for _ in range(40):
        runs = logits + draw.normal(size=(5, 20, 3)) + 0.5 * draw.normal(size=(5, 1, 3))
        probabilities = np.exp(runs) / np.exp(runs).sum(axis=2, keepdims=True)
        tables.append(table_of(probabilities.argmax(axis=2), gold, probabilities, n=4))
    truth = sum(table["value"] for table in tables) / 40
    covered = sum((table["low"] <= truth) & (truth <= table["high"]) for table in tables) / 40
    assert covered.drop("mcnemar_significant").between(0.87, 1).all(), covered


# ---- wrong input

row = [[0.5, 0.5]]


@pytest.mark.parametrize("call, thing", [
    (lambda: metrics.ambiguity([[0, 1]] * 4), "n"),
    (lambda: metrics.discrepancy([[0, 1]] * 4), "n"),
    (lambda: metrics.discrepancy([[0, 1]] * 4, 1), "n"),
    (lambda: metrics.discrepancy([[0, 1]], 2), "runs in labels"),
    (lambda: metrics.self_consistency([[0, 1]]), "runs in labels"),
    (lambda: metrics.share_inconsistent([[0, 1]] * 2, 0), "level"),
    (lambda: metrics.share_inconsistent([[0, 1]] * 2, 1.01), "level"),
    (lambda: metrics.share_inconsistent([[0, 1]] * 2, np.nan), "level"),
    (lambda: metrics.correct_consistency([[0, 1]] * 2, [0]), "examples in gold"),
    (lambda: metrics.negative_flip_rate([[0, 1]], [[0]], [0, 1]), "examples in after"),
    (lambda: metrics.mcnemar([0, 1], [0, 1, 1], [0, 1]), "examples in after"),
    (lambda: metrics.mcnemar([0, 1], [0, 1], [0, 1, 1]), "examples in gold"),
    (lambda: metrics.selective_answers([[0.5, 1]] * 2), "type of labels"),
    (lambda: metrics.selective_answers([[0, 1]]), "runs in labels"),
    (lambda: metrics.selective_answers([[0, 1]], 0), "alpha"),
    (lambda: metrics.selective_answers([[0, 1]], 1), "alpha"),
    (lambda: metrics.viable_prediction_range([row] * 3, [0], 4), "n"),
    (lambda: metrics.viable_prediction_range([row] * 3, [2]), "gold"),
    (lambda: metrics.viable_prediction_range([row], [0]), "runs in probabilities"),
    (lambda: metrics.channel_capacity([row]), "runs in probabilities"),
    (lambda: metrics.rashomon_capacity([[[0.5, 0.6]]] * 2), "row sum of probabilities"),
    (lambda: metrics.channel_capacity([row] * 2, 1e-10), "tolerance"),
    (lambda: metrics.channel_capacity([row] * 2, np.nan), "tolerance"),
    (lambda: metrics.multiplicity_table([[0, 1]]), "runs in labels"),
    (lambda: metrics.multiplicity_table([[0]] * 3, n=1), "n"),
    (lambda: metrics.multiplicity_table([[0, 1]] * 3, [0]), "examples in gold"),
    (lambda: metrics.multiplicity_table([[0]] * 3, None, [row] * 2),
     "runs and examples of probabilities"),
    (lambda: metrics.multiplicity_table([[0]] * 3, level=2), "level"),
])  # fmt: skip
def test_wrong_input_is_named(call, thing):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.thing == thing and "\n" not in str(error.value)


def test_input_is_left_as_it_was(labels, gold, probabilities):
    before = labels.copy(), probabilities.copy()
    metrics.multiplicity_table(labels, gold)
    metrics.channel_capacity(probabilities)
    metrics.viable_prediction_range(probabilities, np.zeros(25, int), 2)
    assert (labels == before[0]).all() and (probabilities == before[1]).all()


def test_the_table_to_read_names_every_metric_and_keeps_its_number():
    """Fails if a metric has no name elsewhere, or a number loses its interval."""
    gold, draw = np.zeros(30, int), np.random.default_rng(3)
    probabilities = draw.dirichlet(np.ones(3), (5, 30))
    labels = probabilities.argmax(-1)
    runs = replace(of_answers("control", labels, gold, np.arange(5)), probabilities=probabilities)
    rows, table = other_words.numbers(runs), metrics.multiplicity_table(labels, gold, probabilities)
    assert rows.metric.tolist() == table.metric.tolist() == list(other_words.MEANINGS)
    for number, row in zip(rows.number, table.itertuples(), strict=True):
        assert (number.metric, number.value, number.n) == (row.metric, row.value, row.n)
        assert number.low is None if row.metric == "mcnemar_significant" else number.low == row.low
    shown = other_words.readable(rows).set_index("elsewhere").here
    value = metrics.consistency(labels)
    assert shown["CON; mean self-consistency"].startswith(f"{100 * value:.1f} % [")
    three = other_words.numbers(runs, n=3)
    assert three.number[0].value == metrics.ambiguity(labels[:3], 3) and three.number[3].runs == 3
    without = other_words.numbers(replace(runs, probabilities=None))
    assert set(rows.metric) - set(without.metric) == {
        "viable_prediction_range",
        "rashomon_capacity",
    }

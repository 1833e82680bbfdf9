"""Every score by hand, against an independent reference, and by what must hold for any input."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import entropy, hypergeom
from sklearn.metrics import accuracy_score, log_loss
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_kappa

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.measures import flips

bounded = settings(max_examples=100, deadline=None, derandomize=True)
some_labels = arrays(
    np.int64, st.tuples(st.integers(2, 7), st.integers(1, 6)), elements=st.integers(0, 3)
)


def close(value, reference):
    np.testing.assert_allclose(value, reference, rtol=0, atol=1e-10)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labels(rng):
    return rng.integers(0, 4, (7, 30)) * (rng.random((7, 30)) < 0.5)


@pytest.fixture
def probabilities(rng):
    drawn = rng.dirichlet([0.3] * 5, (6, 40))
    drawn[0, :10] = np.eye(5)[np.arange(10) % 5]  # zeros
    return drawn


@pytest.fixture
def gold(rng):
    return rng.integers(0, 4, 30)


def by_hand_entropy(votes):
    return entropy(np.unique(votes, return_counts=True)[1])


@pytest.mark.parametrize("runs", [9, 10, 20, 50])
def test_equal_votes_are_equal_entropies_of_whatever_classes(runs):
    """Fails if the last bit orders queries that are tied."""
    few = np.arange(runs) < 1
    tied = metrics.label_entropy(np.stack([few, ~few], axis=1).astype(int))
    assert tied[0] == tied[1] > 0


def test_label_entropy_by_hand():
    close(
        metrics.label_entropy([[1, 0, 5], [1, 0, 6], [1, 1, 7], [1, 1, 8]]),
        [0, np.log(2), np.log(4)],
    )


def test_label_entropy_is_scipys(labels):
    close(metrics.label_entropy(labels), [by_hand_entropy(votes) for votes in labels.T])


@pytest.mark.parametrize("n", range(2, 8))
def test_label_entropy_at_n_is_the_mean_over_all_subsets(labels, n):
    subsets = [labels[list(runs)] for runs in itertools.combinations(range(7), n)]
    close(
        metrics.label_entropy(labels, n),
        np.mean([metrics.label_entropy(s) for s in subsets], axis=0),
    )


def test_label_entropy_at_two_is_churn_times_log_two(labels):
    close(metrics.label_entropy(labels, 2).mean(), metrics.churn(labels) * np.log(2))


def test_label_entropy_at_n_sees_no_reduction_where_only_the_number_of_runs_differs(rng):
    shares = rng.dirichlet([0.4] * 6, 4000)
    answers = (rng.random((85, 4000, 1)) > shares.cumsum(axis=1)).sum(axis=2)
    arms = {5: answers[:5], 10: answers[5:15], 20: answers[15:35], 50: answers[35:]}
    plain = [metrics.label_entropy(arm).mean() for arm in arms.values()]
    fair = [metrics.label_entropy(arm, n=5).mean() for arm in arms.values()]
    assert 1 - plain[0] / plain[3] > 0.15 and plain == sorted(
        plain
    )  # "5 runs are 15 % more stable than 50"
    assert np.ptp(fair) / fair[0] < 0.03


def test_label_entropy_of_very_many_runs():
    entropies = [entropy([k, 600 - k]) for k in range(601)]
    expected = hypergeom(1200, 600, 600).pmf(np.arange(601)) @ entropies
    close(metrics.label_entropy(np.tile([[0], [1]], (600, 1)), 600), [expected])


@pytest.mark.parametrize(
    "dtype, shift", [("u1", 252), ("i2", 30_000), ("i8", 2**62), ("u8", 2**63)]
)
def test_class_ids_of_any_size_give_the_same_scores(labels, dtype, shift):
    shifted = labels.astype(dtype) + np.array(shift, dtype)
    close(metrics.label_entropy(shifted, 5), metrics.label_entropy(labels, 5))
    assert metrics.fleiss_kappa(shifted) == metrics.fleiss_kappa(labels)
    assert (metrics.majority(shifted)[0] == metrics.majority(labels)[0].astype(dtype) + shift).all()


def test_label_entropy_of_more_than_255_classes():
    close(metrics.label_entropy(np.arange(600)[:, None]), [np.log(600)])


def test_fifty_runs_of_a_hundred_thousand_examples_take_well_under_a_second(rng):
    labels = np.where(rng.random((50, 100_000)) < 0.1, rng.integers(0, 150, (50, 100_000)), 7)
    started = time.process_time()
    metrics.label_entropy(labels, n=5)
    assert time.process_time() - started < 1


def test_checkpoint_entropy_is_label_entropy_within_each_run(rng):
    checkpoints = rng.integers(0, 3, (2, 4, 5))
    close(
        metrics.checkpoint_entropy(checkpoints), [metrics.label_entropy(run) for run in checkpoints]
    )


def test_disagreement_and_churn_are_the_loop_over_pairs(labels):
    pairs = [a != b for a, b in itertools.combinations(labels, 2)]
    close(metrics.disagreement(labels), np.mean(pairs, axis=0))
    close(metrics.churn(labels), np.mean(pairs))
    matrix = metrics.churn_matrix(labels)
    close(matrix, [[np.mean(a != b) for b in labels] for a in labels])
    close(matrix[np.triu_indices(7, 1)].mean(), metrics.churn(labels))


def test_churn_parts_are_the_loop_over_pairs(labels, gold):
    pairs = list(itertools.combinations(labels, 2))
    parts = metrics.churn_parts(labels, gold)
    close(parts["right_to_wrong"], np.mean([(a == gold) != (b == gold) for a, b in pairs]))
    close(
        parts["wrong_to_wrong"], np.mean([(a != gold) & (b != gold) & (a != b) for a, b in pairs])
    )
    close(sum(parts.values()), metrics.churn(labels))


def test_churn_between_is_the_loop_over_cross_pairs(labels, gold):
    pairs = list(itertools.product(labels[:3], labels[3:]))
    parts = metrics.churn_between(labels[:3], labels[3:], gold)
    close(parts["churn"], np.mean([a != b for a, b in pairs]))
    positive = [(a != gold) & (b == gold) for a, b in pairs]
    negative = [(a == gold) & (b != gold) for a, b in pairs]
    elsewhere = [(a != gold) & (b != gold) & (a != b) for a, b in pairs]
    close(parts["positive_flips"], np.mean(positive))
    close(parts["negative_flips"], np.mean(negative))
    close(parts["wrong_to_wrong"], np.mean(elsewhere))
    swapped = metrics.churn_between(labels[3:], labels[:3], gold)
    close(swapped["positive_flips"], parts["negative_flips"])
    close(swapped["churn"], parts["churn"])


def test_flips_by_hand_and_as_parts_of_churn(labels, gold):
    changes = flips(np.array([0, 1, 1, 0]), np.array([0, 0, 2, 1]), np.zeros(4, int))
    assert changes["churn"].tolist() == [False, True, True, True]
    assert changes["positive_flips"].tolist() == [False, True, False, False]
    assert changes["negative_flips"].tolist() == [False, False, False, True]
    parts = metrics.churn_between(labels[:1], labels[1:2], gold)
    for name, change in flips(*labels[:2], gold).items():
        close(change.mean(), parts[name])


def test_share_unstable_is_the_mean_over_all_subsets(labels):
    labels[:, :5] = 1
    subsets = [labels[list(runs)] for runs in itertools.combinations(range(7), 4)]
    close(metrics.share_unstable(labels, 4), np.mean([(s != s[0]).any(axis=0) for s in subsets]))
    close(metrics.share_unstable(labels, 2), metrics.churn(labels))


def test_ten_runs_are_the_default_of_the_share_unstable(rng):
    labels = (rng.random((12, 40)) < 0.05).astype(int)
    assert metrics.share_unstable(labels) == metrics.share_unstable(labels, 10)
    assert metrics.share_unstable(labels) < metrics.share_unstable(labels, 11)


def test_majority_breaks_ties_towards_the_lowest_id():
    label, count = metrics.majority([[3, 9, 2], [3, 1, 2], [0, 1, 0], [0, 4, 2]])
    assert label.tolist() == [0, 1, 2] and count.tolist() == [2, 2, 3]


def test_fleiss_kappa_is_statsmodels(labels):
    close(
        metrics.fleiss_kappa(labels),
        statsmodels_kappa(aggregate_raters(labels.T)[0], method="fleiss"),
    )


def test_fleiss_kappa_at_the_edges(rng):
    assert metrics.fleiss_kappa(np.full((3, 4), 7)) == 1
    assert metrics.fleiss_kappa([[0, 1, 2]] * 3) == 1
    assert abs(metrics.fleiss_kappa(rng.integers(0, 10, (10, 5000)))) < 0.01


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_jensen_shannon_is_scipys(probabilities, dtype):
    probabilities = probabilities.astype(dtype)
    pairs = itertools.combinations(probabilities.astype(float), 2)
    expected = np.mean([jensenshannon(a, b, axis=1) ** 2 for a, b in pairs])
    close(metrics.jensen_shannon(probabilities), expected)


@pytest.mark.parametrize("runs", [2, 3, 4, 5, 8, 60])
@pytest.mark.parametrize("smallest", [0.0, 1e-300, 1e-30, 1e-9])
def test_jensen_shannon_is_exact_for_any_number_of_runs_and_any_probabilities(rng, runs, smallest):
    """Products of many sums neither overflow nor underflow, however far probabilities are apart."""
    p = 10.0 ** -rng.uniform(0, 40, (runs, 6, 5)) * (rng.random((runs, 6, 5)) < 0.7)
    p[..., 0] += 0.1
    p = np.maximum(p, smallest)
    p /= p.sum(axis=2, keepdims=True)
    p[0, 0], p[1, 0] = np.eye(5)[0], np.eye(5)[1]
    divergences = [
        (rel_entr(a, (a + b) / 2) + rel_entr(b, (a + b) / 2)).sum(axis=1) / 2
        for a, b in itertools.combinations(p, 2)
    ]
    expected = np.mean(divergences)
    assert metrics.jensen_shannon(p) == pytest.approx(expected, rel=1e-12)
    assert metrics.jensen_shannon(p[::-1]) == pytest.approx(expected, rel=1e-12)


def test_jensen_shannon_is_the_same_in_blocks_and_zero_for_equal_runs(rng):
    wide = rng.dirichlet([0.05] * 300, (2, 1500))  # more than one block
    close(metrics.jensen_shannon(wide), np.mean(jensenshannon(*wide, axis=1) ** 2))
    assert 0 <= metrics.jensen_shannon(np.stack([wide[0]] * 3)) < 1e-12


def test_rows_that_miss_one_a_little_count_as_shares(probabilities):
    off = np.linspace(0.9995, 1.0005, probabilities[..., :1].size)
    scaled = probabilities * off.reshape(probabilities[..., :1].shape)
    close(metrics.jensen_shannon(scaled), metrics.jensen_shannon(probabilities))


def test_gold_confidence_uses_the_population_spread(probabilities, rng):
    gold = rng.integers(0, 5, 40)
    chosen = np.array([[run[i, label] for i, label in enumerate(gold)] for run in probabilities])
    mean, spread = metrics.gold_confidence(probabilities, gold)
    close(mean, chosen.mean(axis=0))
    close(spread, np.sqrt(np.mean((chosen - chosen.mean(axis=0)) ** 2, axis=0)))


def test_accuracy_and_nll_are_sklearns(labels, gold, probabilities, rng):
    close(metrics.accuracy(labels, gold), [accuracy_score(gold, run) for run in labels])
    smooth, gold = 0.9 * probabilities + 0.02, rng.integers(0, 5, 40)
    close(metrics.nll(smooth, gold), [log_loss(gold, run, labels=range(5)) for run in smooth])


def test_nll_of_a_certain_error_is_finite():
    assert metrics.nll([[[1.0, 0.0]]], [1])[0] == pytest.approx(87.34, abs=0.01)


@pytest.mark.parametrize("edge, expected", [(0.5, (0.5 + 0.75) / 2), (0.51, (0.49 - 0.75) / -2)])
def test_a_confidence_on_the_edge_belongs_to_the_lower_bin(edge, expected):
    """Two bins. At 0.5 the right answer stands in the first, the wrong one in the second; just
    above they share the second, where one makes up for the other.
    """
    right, wrong = [edge, 0.49 - (edge - 0.5), 0.01], [0.25, 0.75, 0.0]
    close(metrics.ece([[right, wrong]], [0, 0], bins=2), [expected])


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_ece_is_the_loop_over_bins(probabilities, rng, bins):
    gold = rng.integers(0, 5, 40)
    probabilities[1, 0] = [0.5, 0.3, 0.2, 0, 0]  # on the edge of two bins, and of ten
    expected = []
    for run in probabilities:
        confidence, right, error = run.max(axis=1), run.argmax(axis=1) == gold, 0
        edges = np.linspace(0, 1, bins + 1)
        for low, high in itertools.pairwise(edges):
            inside = (confidence > low) & (confidence <= high)
            if inside.any():
                error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        expected.append(error)
    close(metrics.ece(probabilities, gold, bins), expected)


def test_distribution_variance_is_unbiased_and_below_the_variance_on_the_test_set(rng):
    gold, estimates, observed = np.zeros(50, int), [], []
    for _ in range(400):
        error = 0.3 + 0.1 * rng.choice([-1, 1], (10, 1))  # variance 0.01 on the distribution
        wrong = (rng.random((10, 50)) < error).astype(int)
        estimates.append(metrics.distribution_variance(wrong, gold))
        observed.append(wrong.mean(axis=1).var(ddof=1))
    assert np.mean(estimates) == pytest.approx(0.01, rel=0.08)
    assert np.mean(observed) == pytest.approx(0.01 + (0.24 + 0.16) / 2 / 50, rel=0.08)


def test_distribution_variance_is_the_published_formula(labels, gold):
    wrong, n = (labels != gold).astype(float), 30
    single = sum(np.var(wrong[:, i], ddof=1) for i in range(n))
    expected = n / (n - 1) * (np.var(wrong.mean(axis=1), ddof=1) - single / n**2)
    close(metrics.distribution_variance(labels, gold), expected)


@bounded
@given(some_labels, st.randoms(use_true_random=False))
def test_scores_ignore_the_order_of_runs_and_the_names_of_classes(labels, random):
    runs, names = list(range(len(labels))), [5, 17, 400, 2]
    random.shuffle(runs), random.shuffle(names)
    other = np.array(names)[labels[runs]]
    for score in (metrics.label_entropy, metrics.disagreement, metrics.churn, metrics.fleiss_kappa):
        close(score(other), score(labels))
    assert (metrics.majority(other)[1] == metrics.majority(labels)[1]).all()


@bounded
@given(some_labels)
def test_scores_keep_their_range_and_are_zero_exactly_when_runs_agree(labels):
    unanimous = (labels == labels[0]).all(axis=0)
    for n in range(2, len(labels) + 1):
        score = metrics.label_entropy(labels, n)
        assert ((score == 0) == unanimous).all() and (score <= np.log(min(n, 4)) + 1e-12).all()
        assert 0 <= metrics.share_unstable(labels, n) <= np.mean(~unanimous) + 1e-12
    assert ((metrics.disagreement(labels) == 0) == unanimous).all()
    assert metrics.fleiss_kappa(labels) <= 1
    close(metrics.share_unstable(labels, len(labels)), np.mean(~unanimous))


row = [[0.5, 0.5]]


@pytest.mark.parametrize("call, thing", [
    (lambda: metrics.churn([0, 1]), "shape of labels"),
    (lambda: metrics.churn(np.empty((3, 0), int)), "shape of labels"),
    (lambda: metrics.churn([[0, 1], [1]]), "shape of labels"),
    (lambda: metrics.churn([[0.0, 1.0]] * 2), "type of labels"),
    (lambda: metrics.churn([["a", "b"]] * 2), "type of labels"),
    (lambda: metrics.churn([[0, -1]] * 2), "labels"),
    (lambda: metrics.churn([[0, 1]]), "runs in labels"),
    (lambda: metrics.label_entropy([[0, 1]]), "runs in labels"),
    (lambda: metrics.checkpoint_entropy([[[0, 1]]]), "checkpoints in checkpoints"),
    (lambda: metrics.label_entropy([[0, 1]] * 4, n=5), "n"),
    (lambda: metrics.label_entropy([[0, 1]] * 4, n=1), "n"),
    (lambda: metrics.label_entropy([[0, 1]] * 4, n=2.0), "n"),
    (lambda: metrics.share_unstable([[0, 1]] * 4), "n"),
    (lambda: metrics.accuracy([[0, 1]], [0]), "examples in gold"),
    (lambda: metrics.accuracy([[0, 1]], ["a", "b"]), "type of gold"),
    (lambda: metrics.churn_between([[0, 1]], [[0, 1, 1]], [0, 1]), "examples in after"),
    (lambda: metrics.distribution_variance([[0], [1]], [0]), "examples in labels"),
    (lambda: metrics.nll([row], [2]), "gold"),
    (lambda: metrics.nll([[[np.nan, 1.0]]], [0]), "probabilities"),
    (lambda: metrics.nll([[[-0.5, 1.5]]], [0]), "probabilities"),
    (lambda: metrics.ece([[[0.5, 0.6]]], [0]), "row sum of probabilities"),
    (lambda: metrics.ece([row], [0], bins=0), "bins"),
    (lambda: metrics.jensen_shannon([row]), "runs in probabilities"),
    (lambda: metrics.gold_confidence([row], [0]), "runs in probabilities"),
    (lambda: metrics.jensen_shannon(row), "shape of probabilities"),
])  # fmt: skip
def test_wrong_input_is_named(call, thing):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.thing == thing and "\n" not in str(error.value)


def test_input_is_left_as_it_was(labels, probabilities):
    before = labels.copy(), probabilities.copy()
    one_run = np.arange(5)[None]
    metrics.majority(one_run[:, ::-1]), metrics.churn(labels), metrics.jensen_shannon(probabilities)
    assert (labels == before[0]).all() and (probabilities == before[1]).all() and one_run[0, 0] == 0


# ---- what a changed line would change


def test_tally_counts_the_most_frequent_first_and_equals_in_the_order_of_classes():
    labels = [[2, 0, 1], [2, 1, 1], [0, 1, 1], [2, 0, 1]]
    assert metrics.tally(labels, ["a", "b", "c"]) == ["c ×3, a ×1", "a ×2, b ×2", "b ×4"]
    assert metrics.tally([[1, 0]], ["a", "b"]) == ["b ×1", "a ×1"]  # one run is enough
    names, labels = [f"class {i}" for i in range(200)], [*range(200), *range(0, 200, 2)]
    twice, once = [f"{n} ×2" for n in names[::2]], [f"{n} ×1" for n in names[1::2]]
    assert metrics.tally(np.array(labels)[:, None], names) == [", ".join(twice + once)]
    with pytest.raises(InputError, match="type of labels"):
        metrics.tally([[0.5]], ["a"])


def test_ece_on_the_edges_of_its_bins_by_hand():
    """Bins are closed on the right: each of the four examples is alone in one, errors add up."""
    confidences = [0.25, 0.5, 0.75, 1.0]
    rows = [[high, *[(1 - high) / 3] * 3] for high in confidences]
    gold = [0, 1, 0, 1]  # right, wrong, right, wrong: gaps .75, -.5, .25, -1
    close(metrics.ece([rows], gold, bins=4), [2.5 / 4])
    close(metrics.ece([rows], gold, bins=1), [abs(0.75 - 0.5 + 0.25 - 1) / 4])
    close(metrics.ece([rows, rows], gold, bins=2), [(0.25 + 0.75) / 4] * 2)


def test_ece_has_fifteen_bins_unless_told_and_empty_ones_count_nothing(probabilities, rng):
    gold = rng.integers(0, 5, 40)
    close(metrics.ece(probabilities, gold), metrics.ece(probabilities, gold, 15))
    assert not np.allclose(metrics.ece(probabilities, gold), metrics.ece(probabilities, gold, 16))
    unsure = np.full((2, 3, 5), 0.2)
    close(metrics.ece(unsure, [0, 0, 1]), [2 / 3 - 0.2] * 2)


def test_two_runs_and_two_examples_are_enough_where_two_are_compared():
    mean, spread = metrics.gold_confidence([[[0.5, 0.5]], [[0.9, 0.1]]], [0])
    close([mean[0], spread[0]], [0.7, 0.2])
    close(metrics.distribution_variance([[0, 0], [1, 1]], [0, 0]), 0.5)


def test_counts_are_integers_and_zero_entropy_has_no_sign():
    answer, count = metrics.majority(np.array([[3, 1], [3, 2]]))
    assert count.dtype.kind == answer.dtype.kind == "i"
    assert not np.signbit(metrics.label_entropy([[1, 1], [1, 1], [1, 2]])).any()


@pytest.mark.parametrize("call, message", [
    (lambda: metrics.checkpoint_entropy([[0, 1]]),
     "shape of checkpoints: got (1, 2); expected (runs, checkpoints, examples)"),
    (lambda: metrics.churn([[0, 1], [1]]),
     "shape of labels: got 'rows of different length'; expected (runs, examples)"),
    (lambda: metrics.jensen_shannon([[0.5]]),
     "shape of probabilities: got (1, 1); expected (runs, examples, classes)"),
    (lambda: metrics.churn_between([0, 1], [[0, 1]], [0, 1]),
     "shape of before: got (2,); expected (runs, examples)"),
    (lambda: metrics.churn_between([[0, 1]], [0, 1], [0, 1]),
     "shape of after: got (2,); expected (runs, examples)"),
    (lambda: metrics.accuracy([[0]], [[0]]),
     "shape of gold: got (1, 1); expected (examples)"),
    (lambda: metrics.churn([[0.5]] * 2),
     "type of labels: got 'float64'; expected integer class ids"),
    (lambda: metrics.nll([[[1, 0]]], [0]),
     "type of probabilities: got 'int64'; expected numbers of 0 .. 1 whose rows sum to 1"),
    (lambda: metrics.ece([[[0.5, 0.5]]], [2]),
     "gold: got 2; expected class ids below 2, the number of probabilities"),
])  # fmt: skip
def test_a_message_says_what_was_given_and_what_is_allowed(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("off, fits", [(9e-4, True), (-9e-4, True), (2e-3, False), (-2e-3, False)])
def test_rows_may_be_off_by_rounding_and_no_more(off, fits):
    rows = [[[0.5, 0.5]], [[0.5, 0.5 + off]]]
    if fits:
        assert metrics.jensen_shannon(rows) < 1e-6
    else:
        with pytest.raises(InputError, match=f"row sum of probabilities: got {1 + off}; "):
            metrics.jensen_shannon(rows)


@pytest.mark.parametrize(
    "row, fits",
    [
        ([0.333, 0.333, 0.332, 0.0], True),  # three decimals may miss half a thousandth each
        ([0.333, 0.333, 0.33, 0.0], False),
        ([0.333, 0.3334, 0.3316, 0.0], False),  # four decimals round closer
        ([0.6, 0.25, 0.1, 0.0], False),  # what was left out is no rounding
    ],
)
def test_three_decimals_may_miss_what_their_rounding_takes(row, fits):
    rows = [[row + [0.0] * 96]]
    if fits:
        assert metrics.nll(rows, [0]) == pytest.approx(-np.log(0.333))
    else:
        with pytest.raises(InputError, match="row sum of probabilities: got 0.9"):
            metrics.nll(rows, [0])


def test_each_row_is_allowed_its_own_rounding_and_the_worst_of_the_others_is_named():
    thirds, short = [0.333, 0.333, 0.332, 0.0], [0.333, 0.333, 0.33, 0.0]
    finer = [0.5, 0.49853, 0.0, 0.0]
    with pytest.raises(InputError, match="row sum of probabilities: got 0.9985"):
        metrics.nll([[thirds, finer]], [0, 0])
    with pytest.raises(InputError, match="row sum of probabilities: got 0.996"):
        metrics.nll([[short] * 4], [0] * 4)


def test_many_classes_in_half_precision_still_sum_to_one_in_any_memory_layout(rng):
    halves = rng.dirichlet(np.ones(2000), (2, 3)).astype(np.float16)
    for layout in (halves, np.asfortranarray(halves)):
        close(metrics.nll(layout, [0, 1, 2]), metrics.nll(halves.astype(float), [0, 1, 2]))

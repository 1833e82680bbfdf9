"""Clustering of instability against independent references, by hand, and on data where the truth is
planted.
"""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pandas as pd
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import kstest

from stabutils.analysis import regions
from stabutils.errors import InputError
from stabutils.metrics import disagreement, label_entropy
from stabutils.metrics.intervals import jackknife

bounded = settings(max_examples=50, deadline=None, derandomize=True)


def world(runs: int = 8, planted: bool = True, examples: int = 150, seed: int = 0):
    """Places (examples, 2), labels (runs, examples): flips of 40 % in one corner, or of the same
    number anywhere.
    """
    draw = np.random.default_rng(seed)
    places = draw.random((examples, 2))
    corner = (places < 0.4).all(axis=1)
    where = corner if planted else draw.permutation(corner)
    labels = (draw.random((runs, examples)) < np.where(where, 0.4, 0.05)).astype(int)
    return places, labels, corner


def one_by_one(values: np.ndarray, weights: np.ndarray) -> float:
    """Moran's I as it is written: n/S0 sum_ij w_ij z_i z_j / sum_i z_i^2."""
    z, n = values - values.mean(), len(values)
    top = sum(weights[i, j] * z[i] * z[j] for i in range(n) for j in range(n))
    return n / weights.sum() * top / sum(z**2)


# ---- places ----


def test_the_graph_is_that_of_sorting_all_distances():
    points = np.random.default_rng(0).normal(size=(40, 3))
    graph = regions.neighbours(points, 4).toarray()
    for i in range(40):
        order = [j for j in np.argsort(np.linalg.norm(points - points[i], axis=1)) if j != i]
        assert np.flatnonzero(graph[i]).tolist() == sorted(order[:4])
    np.testing.assert_allclose(graph[graph > 0], 0.25)


def test_copies_are_no_neighbours_and_stand_in_for_each_other():
    graph = regions.neighbours([[0.0, 0], [0, 0], [1, 0], [1, 0], [9, 9]], 1).toarray()
    np.testing.assert_array_equal(
        graph[:2], [[0, 0, 0.5, 0.5, 0]] * 2
    )  # two copies are equally near: both count
    np.testing.assert_array_equal(graph[2:4], [[0.5, 0.5, 0, 0, 0]] * 2)
    np.testing.assert_allclose(graph.sum(axis=1), 1)


@pytest.mark.parametrize("vectors, k", [(np.zeros((5, 2)), 1), (np.eye(4), 4), (np.eye(4), 0)])
def test_too_many_neighbours_are_refused(vectors, k):
    with pytest.raises(InputError, match="k: got"):
        regions.neighbours(vectors, k)


@pytest.mark.parametrize("vectors", [np.zeros(4), np.full((3, 2), np.nan), np.zeros((1, 2))])
def test_vectors_must_be_places(vectors):
    with pytest.raises(InputError, match="vectors: got"):
        regions.neighbours(vectors)


@bounded
@given(st.permutations(range(25)))
def test_the_order_of_examples_does_not_matter(order):
    places, labels, _ = world(examples=25)
    places[3] = places[7]  # a tie to break, if anything did
    graph, moved = (regions.neighbours(p, 4) for p in (places, places[order]))
    np.testing.assert_allclose(moved.toarray(), graph.toarray()[np.ix_(order, order)], atol=1e-12)
    entropy = label_entropy(labels)
    assert regions.morans_i(entropy[order], moved) == pytest.approx(
        regions.morans_i(entropy, graph), abs=1e-10
    )


TRAIN = [
    "play some jazz",
    "play a song",
    "put on jazz",
    "wake me at seven",
    "set an alarm",
    "alarm at six please",
]
KIND = [0, 0, 0, 1, 1, 1]


def test_texts_that_share_words_lie_close_and_unknown_ones_nowhere():
    places = regions.lsa(
        TRAIN, ["play jazz", "jazz please play", "alarm at seven", "xyzzy"], dims=3
    )
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), [1, 1, 1, 0])
    assert places[0] @ places[1] > 0.9 > 0.5 > places[0] @ places[2]
    np.testing.assert_array_equal(
        places[:2], regions.lsa(TRAIN, ["play jazz", "jazz please play"], dims=3)
    )
    with pytest.raises(InputError, match="dims: got 0"):
        regions.lsa(TRAIN, TRAIN, dims=0)


def test_the_discriminant_tells_intents_apart_and_leaves_the_rest():
    places = regions.discriminant(TRAIN, KIND, ["play jazz song", "alarm at seven"])
    assert places.shape == (2, 1) and places[0, 0] * places[1, 0] < 0


def test_the_map_is_the_same_each_time_and_keeps_intents_together():
    draw = np.random.default_rng(0)
    kind = np.repeat(range(5), 20)
    points = 10 * np.eye(5)[kind] + draw.normal(size=(100, 5))
    xy, towns = regions.plane(points, kind)
    np.testing.assert_array_equal(xy, regions.plane(points, kind)[0])
    assert towns.shape == (5, 2)
    nearest = np.argmin(np.linalg.norm(xy[:, None] - towns, axis=2), axis=1)
    assert np.mean(nearest == kind) > 0.9
    with pytest.raises(InputError, match="intents: got 2"):
        regions.plane(points, kind > 2)


# ---- more than chance ----


def test_morans_i_is_the_formula_also_for_uneven_rows():
    draw = np.random.default_rng(1)
    weights = draw.random((12, 12)) * (draw.random((12, 12)) < 0.4)
    values = draw.normal(size=12)
    assert regions.morans_i(values, sparse.csr_array(weights)) == pytest.approx(
        one_by_one(values, weights)
    )
    assert regions.morans_i(np.ones(12), sparse.csr_array(weights)) == 0


def test_morans_i_and_its_local_part_are_those_of_esda():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        esda, libpysal = pytest.importorskip("esda"), pytest.importorskip("libpysal")
        places, labels, _ = world()
        entropy, second = label_entropy(labels[:4]), label_entropy(labels[4:])
        weights = libpysal.weights.KNN.from_array(places, k=6)
        graph = regions.neighbours(places, 6)
        weights.transform = "r"
        np.testing.assert_allclose(weights.sparse.toarray(), graph.toarray())
        assert regions.morans_i(entropy, graph) == pytest.approx(
            esda.Moran(entropy, weights, permutations=0).I
        )
        local = esda.Moran_Local(entropy, weights, permutations=0).Is
        mine = regions.hot_spots(entropy, graph, permutations=9)
        np.testing.assert_allclose(mine.moran, local * len(local) / (len(local) - 1))
        both = [
            esda.Moran_BV(*pair, weights, permutations=0).I
            for pair in ((entropy, second), (second, entropy))
        ]
        expected = (
            np.mean(both) / np.corrcoef(entropy, second)[0, 1]
        )  # what the halves do not share is divided out
        assert regions.cross_morans_i(entropy, second, graph) == pytest.approx(expected)


def test_noise_of_few_runs_shrinks_the_plain_statistic_only():
    draw = np.random.default_rng(2)
    places = draw.random((1500, 2))
    truth = np.sin(6 * places[:, 0])
    graph = regions.neighbours(places, 8)
    noisy = truth + draw.normal(size=(2, 1500))
    exact = regions.morans_i(truth, graph)
    assert regions.morans_i(noisy[0], graph) < 0.5 * exact
    assert regions.cross_morans_i(*noisy, graph) == pytest.approx(exact, rel=0.1)


def test_residuals_leave_nothing_that_groups_and_covariates_explain():
    draw = np.random.default_rng(3)
    groups, slope = np.repeat(["a", "b", "c"], 20), draw.normal(size=60)
    explained = np.array([1.0, 5, -2]).repeat(20) + 3 * slope
    np.testing.assert_allclose(regions.residuals(explained, groups, slope[:, None]), 0, atol=1e-9)
    noise = draw.normal(size=(4, 60))
    left = regions.residuals(
        noise, groups, np.column_stack([slope, slope, np.ones(60)])
    )  # collinear is escape_formula
    np.testing.assert_allclose(left @ slope, 0, atol=1e-9)
    np.testing.assert_allclose([left[:, groups == g].sum(axis=1) for g in "abc"], 0, atol=1e-9)


def test_halves_are_halves_and_do_without_the_run_left_out():
    labels = world(runs=7)[1]
    found = regions.halves(labels, halvings=2)
    assert found.shape == (8, 2, 2, 150)
    triples = {tuple(label_entropy(labels[list(c)]).round(9)) for c in combinations(range(7), 3)}
    assert tuple(found[7, 0, 0].round(9)) in triples
    changed = labels.copy()
    changed[2] = 1 - changed[2]
    again = regions.halves(changed, halvings=2)
    np.testing.assert_array_equal(
        again[2], found[2]
    )  # without run 2, what it says is of no account
    assert not np.array_equal(again[7], found[7])
    with pytest.raises(InputError, match="runs: got 5; expected at least 6"):
        regions.halves(labels[:5])


def test_a_planted_corner_is_found_and_scattered_flips_are_not():
    for planted in (True, False):
        places, labels, _ = world(runs=16, planted=planted, examples=400)
        test = regions.clustering(
            regions.halves(labels), regions.neighbours(places), permutations=199
        )
        assert (test.p < 0.01) == planted == (test.observed.low > 0)
        assert abs(test.null.mean()) < 0.02 and test.observed.runs == 16


def test_what_intents_or_covariates_explain_is_no_clustering():
    places, labels, corner = world(examples=300)
    entropies, graph = regions.halves(labels), regions.neighbours(places)
    far = np.where(corner, "in", "out")
    assert regions.clustering(entropies, graph, permutations=99).p == 0.01
    assert regions.clustering(entropies, graph, groups=far, permutations=99).p > 0.05
    assert (
        regions.clustering(entropies, graph, covariates=corner[:, None], permutations=99).p > 0.05
    )
    other = np.where(places[:, 0] < 0.5, "left", "right")
    assert regions.clustering(entropies, graph, groups=other, permutations=99).p == 0.01


def test_where_halves_have_nothing_in_common_nothing_is_tested():
    """Fails if it counts as a test that found no clustering."""
    places, labels, _ = world(runs=6)
    entropies, graph = regions.halves(labels), regions.neighbours(places)
    entropies[:, 1] = entropies[:, 0].max() - entropies[:, 0]  # each the other's opposite
    found = regions.clustering(entropies, graph, permutations=99)
    for unknown in (found.observed, found.chance):
        assert np.isnan([unknown.value, unknown.low, unknown.high]).all() and unknown.runs == 6
    assert np.isnan(found.p) and found.null.size == 0


def test_chance_is_what_shuffled_places_give():
    """Fails if a verdict is held against 0, where residuals need not lie, or against another share
    of the shuffles.
    """
    places, labels, corner = world(examples=300)
    found = regions.clustering(regions.halves(labels), regions.neighbours(places), permutations=99)
    assert [found.chance.low, found.chance.high] == np.quantile(found.null, [0.025, 0.975]).tolist()
    assert found.chance.value == pytest.approx(found.null.mean()) and len(found.null) == 99
    assert found.observed.value > found.chance.high and found.p == 0.01  # what was planted


def test_the_interval_is_the_jackknife_over_whole_runs():
    places, labels, _ = world(runs=6)
    entropies, graph = regions.halves(labels), regions.neighbours(places)
    found = [regions.cross_morans_i(*sides, graph) for sides in entropies]
    test = regions.clustering(entropies, graph, permutations=1)
    assert test.observed.value == pytest.approx(found[6])
    assert test.observed.over_runs.se == pytest.approx(np.sqrt(5 * np.var(found[:6])))
    assert test.observed.over_runs.df == 5 and test.observed.runs == 6


def test_it_also_leaves_out_blocks_of_queries_with_their_neighbourhoods():
    places, labels, _ = world(runs=6, examples=40)
    entropies, graph = regions.halves(labels, halvings=1), regions.neighbours(places, 5)
    test = regions.clustering(entropies, graph, permutations=1)
    first, second = (side[0] - side[0].mean() for side in entropies[-1])
    weights = graph.toarray() + graph.toarray().T
    weights = weights * 40 / weights.sum()
    deleted = []
    for left_out in range(40):  # as few queries as this are left out one by one
        rest = np.delete(np.arange(40), left_out)
        lag = weights[np.ix_(rest, rest)] @ second[rest] * 40 / 39
        deleted.append(first[rest] @ lag / (first[rest] @ second[rest]))
    expected = test.observed.over_runs.se**2 + plain.variance(deleted)
    assert test.observed.se**2 == pytest.approx(expected)
    assert test.observed.speaks_of == "new runs and new queries" and test.observed.high <= 1


@pytest.mark.parametrize("grouped", [False, True])
def test_p_values_are_uniform_where_places_mean_nothing(grouped):
    draw, p = np.random.default_rng(4), []
    graph, groups = (
        regions.neighbours(draw.random((60, 2)), 5),
        np.arange(60) % 3 if grouped else None,
    )
    for seed in range(120):
        entropies = np.broadcast_to(draw.normal(size=60), (4, 2, 1, 60)) + draw.normal(
            size=(4, 2, 1, 60)
        )
        p.append(regions.clustering(entropies, graph, groups, permutations=49, seed=seed).p)
    assert kstest(p, "uniform").pvalue > 0.05


def test_shuffling_within_groups_stays_there():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    draws = [regions._shuffled(6, groups, np.random.default_rng(seed)) for seed in range(100)]
    assert all(sorted(d) == list(range(6)) and (groups[d] == groups).all() for d in draws)
    assert len({tuple(d) for d in draws}) == 12  # 3! 2! 1! orders, all of them


# ---- hot spots ----


def test_local_p_values_are_those_of_all_sets_of_neighbours():
    draw = np.random.default_rng(5)
    values, graph = draw.exponential(size=11), regions.neighbours(draw.random((11, 2)), 3)
    found = regions.hot_spots(values, graph, permutations=9_999)
    for i in range(11):
        others = np.delete(values, i)
        sums = np.array([others[list(c)].sum() for c in combinations(range(10), 3)])
        near = np.flatnonzero(graph.toarray()[i])
        exact = np.mean(sums >= values[near].sum() - 1e-9)
        assert found.p[i] == pytest.approx(exact, abs=0.02)
        assert found.neighbours[i] == pytest.approx(values[near].mean())


def test_hot_spots_are_the_planted_corner_and_nowhere_in_noise():
    places, labels, corner = world(runs=20, examples=400)
    graph = regions.neighbours(places)
    found = regions.hot_spots(label_entropy(labels), graph)
    assert found.hot[corner].mean() > 0.6 > 0.05 > found.hot[~corner].mean()
    assert not regions.hot_spots(np.random.default_rng(0).random(400), graph, 999).hot.any()
    assert not regions.hot_spots(np.zeros(400), graph, 99).hot.any()
    parts = regions.hot_regions(found.hot, graph)
    assert (parts == 0).sum() > 0.6 * corner.sum() and corner[parts == 0].mean() > 0.8


def test_a_text_as_near_to_all_as_to_any_is_nowhere_in_particular():
    draw = np.random.default_rng(6)
    circle = draw.normal(size=(80, 2))
    points = np.vstack([np.zeros(2), circle / np.linalg.norm(circle, axis=1)[:, None]])
    graph = regions.neighbours(points, 5)
    assert np.diff(graph.indptr)[0] == 80
    assert regions.hot_spots(draw.random(81), graph, 99).p[0] == 1


def test_regions_need_mutual_neighbours_and_size():
    graph = sparse.csr_array([[0, 1, 0, 0.0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    assert regions.hot_regions(np.ones(4, bool), graph, least=1).tolist() == [0, 0, 1, 2]
    assert regions.hot_regions(np.ones(4, bool), graph, least=2).tolist() == [0, 0, -1, -1]
    assert regions.hot_regions(np.zeros(4, bool), graph).tolist() == [-1] * 4


# ---- in words ----


def test_a_region_is_named_by_its_words_and_its_confusion():
    texts = ["play jazz", "play jazz loud", "set alarm", "alarm now", "weather today", "rain today"]
    labels = np.array([[0, 0, 1, 1, 2, 2], [1, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 1]])
    table = regions.describe(
        np.array([0, 0, -1, -1, 1, 1]), labels, texts, ["music", "alarm", "weather"], words=2
    )
    for found, some in zip(table.disagreement, (labels[:, :2], labels[:, 4:]), strict=True):
        expected = plain.interval(lambda mean: mean, disagreement, [some])
        plain.alike(found, expected.within(0, 1))
    assert [found.value for found in table.disagreement] == pytest.approx([2 / 3, 1 / 3])
    expected = pd.DataFrame(
        {"region": [0, 1], "queries": [2, 2], "confused": ["music / alarm", "alarm / weather"]}
    )
    pd.testing.assert_frame_equal(table[list(expected)], expected)
    assert sorted(table.words[0].split(", ")) == ["jazz", "play"] and table.words[1].startswith(
        "today"
    )
    assert table.example.tolist() == ["play jazz", "rain today"]
    assert regions.describe(np.full(6, -1), labels, texts, ["a", "b", "c"]).empty


def test_confusions_add_up_and_count_pairs_of_runs():
    labels = np.array([[0, 2, 1], [1, 2, 1], [1, 2, 0], [2, 2, 1]])
    shares = regions.confusions(
        labels, ["a", "b", "c"]
    )  # first example: ab 2, ac 1, bc 2; last: ab 3
    assert shares.to_dict() == {"a / b": 5 / 8, "b / c": 2 / 8, "a / c": 1 / 8}
    assert regions.confusions(np.zeros((3, 2), int), ["a", "b"]).empty


def test_the_most_confused_pairs_have_the_interval_of_their_share():
    labels, names = np.random.default_rng(0).integers(0, 3, (6, 20)), ["a", "b", "c"]
    shares = regions.confusions(labels, names)
    found = regions.confused(labels, names, most=2)
    assert list(found) == list(shares.index[:2])
    for pair, interval in found.items():  # the plain way: everything counted anew without each run
        over_runs = jackknife(
            lambda votes, pair=pair: regions.confusions(votes, names)[pair], labels
        )
        left = [np.delete(labels, query, axis=1) for query in range(20)]
        over_queries = plain.variance([regions.confusions(some, names)[pair] for some in left])
        assert interval.value == pytest.approx(over_runs.value)
        assert interval.over_runs.se == pytest.approx(over_runs.se)
        assert interval.se**2 == pytest.approx(over_runs.se**2 + over_queries)
        assert 0 < interval.low < interval.high < 1
    two = regions.confused(labels[:2], names)
    assert [interval.value for interval in two.values()] == pytest.approx(
        regions.confusions(labels[:2], names).tolist()
    ) and all(interval.note for interval in two.values())
    once = regions.confused([[0, 1], [0, 1], [1, 1]], names)[
        "a / b"
    ]  # without the odd run nothing differs
    assert (once.value, once.runs) == (1.0, 3)
    assert regions.confused(np.zeros((3, 2), int), names) == {}

"""Attributes, criticisms and enrichment by hand, and against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plain
import pytest
from scipy.stats import spearmanr

from stabutils.analysis import enrichment
from stabutils.errors import InputError
from stabutils.metrics import label_entropy
from stabutils.metrics.intervals import jackknife

DRAW = np.random.default_rng(0)
LABELS = (DRAW.random((7, 60)) < np.linspace(0, 0.5, 60)).astype(int)


def test_attributes_by_hand():
    train = ["play jazz", "play jazz", "play jazz now", "set alarm"]
    found = enrichment.attributes(train, [0, 0, 1, 1], ["jazz play", "set the oven", "xyzzy", ""])
    assert found.words.tolist() == [2, 3, 1, 0]
    assert found.rare.tolist() == [0, 1, 1, 1]  # "set" occurs once, the rest of it never
    assert found.duplicate.tolist() == [1, 0, 0, 0] and found.nearness[0] == pytest.approx(1)
    assert 0 < found.nearness[1] < 1 and found.nearness[2:].tolist() == [0, 0]
    assert found.conflict.tolist() == [0.5] * 4  # of fewer than ten all are near: two of each label


def test_conflict_looks_at_the_nearest_only():
    train = [f"play jazz {i}" for i in range(10)] + [f"set alarm {i}" for i in range(10)]
    found = enrichment.attributes(train, [0] * 7 + [1] * 3 + [2] * 10, ["play jazz", "set alarm"])
    assert found.conflict.round(9).tolist() == [0.3, 0]


def test_prototypes_and_criticisms_by_hand():
    points = np.array([[0.0], [1], [5], [10], [2], [2], [3]])  # the first intent's centre is at 4
    entropy = np.array([0.0, 0.5, 0, 0.5, 0, 0, 0])
    found = enrichment.criticism(points, entropy, ["a", "a", "a", "a", "b", "b", "b"], each=2)
    chosen = {key: part.example.tolist() for key, part in found.groupby(["intent", "kind"])}
    assert chosen == {
        ("a", "prototype"): [2, 0],
        ("a", "criticism"): [3, 1],
        ("b", "prototype"): [4, 5],
    }
    assert found.distance[0] == 1 and found.entropy.tolist() == [0, 0, 0.5, 0.5, 0, 0]


def test_the_most_unstable_criticism_comes_first():
    found = enrichment.criticism(np.zeros((3, 1)), [0.1, 0.7, 0.3], [0, 0, 0], each=2)
    assert found.example.tolist() == [1, 2] and set(found.kind) == {"criticism"}


def test_groups_are_those_of_the_jackknife_worst_first():
    groups = np.repeat(["calm", "middle", "wild"], 20)
    found = enrichment.by_group(LABELS, groups)
    assert list(found) == ["wild", "middle", "calm"]
    for group, interval in found.items():
        some = LABELS[:, groups == group]
        expected = plain.interval(lambda mean: mean, lambda rows: label_entropy(rows, 5), [some])
        plain.alike(interval, expected.within(0, np.inf))
    two = enrichment.by_group(LABELS[:2], groups)  # two runs speak of queries alone
    assert {interval.note for interval in two.values()} == {"these two models only"}


def test_a_group_of_one_query_speaks_of_new_runs_alone():
    groups = np.repeat(["many", "single"], [59, 1])
    found = enrichment.by_group(LABELS, groups)
    direct = jackknife(lambda labels: label_entropy(labels[:, -1:], 5).mean(), LABELS)
    assert (found["single"].value, found["single"].se) == pytest.approx((direct.value, direct.se))
    assert found["single"].speaks_of == "new runs on these queries"
    assert found["many"].speaks_of == "new runs and new queries"


def test_gradients_are_spearmans_and_a_constant_has_none():
    table = pd.DataFrame({"rising": np.arange(60) // 5, "constant": np.zeros(60)})
    found = enrichment.gradients(LABELS, table)

    def rising(labels, rows=slice(None)):
        return spearmanr(label_entropy(labels, 5), table.rising[rows]).statistic

    over_runs = jackknife(rising, LABELS)
    block = np.random.default_rng(0).permutation(60) % 50
    over_queries = plain.variance(
        [rising(LABELS[:, block != left_out], block != left_out) for left_out in range(50)]
    )
    interval = found["rising"]
    assert interval.value == pytest.approx(over_runs.value)
    assert interval.over_runs.se == pytest.approx(over_runs.se)
    assert interval.se**2 == pytest.approx(over_runs.se**2 + over_queries)
    assert -1 < interval.low < interval.high < 1
    falling = enrichment.gradients(LABELS, -table)["rising"]
    assert (falling.low, falling.high) == pytest.approx((-interval.high, -interval.low))
    with pytest.raises(InputError, match="runs: got 2; expected at least 3"):
        enrichment.gradients(LABELS[:2], table)
    assert (found["constant"].value, found["constant"].se) == (0, 0)


def test_reordering_examples_changes_no_number():
    order = DRAW.permutation(60)
    groups, table = np.arange(60) % 4, pd.DataFrame({"x": DRAW.random(60)})
    moved = enrichment.by_group(LABELS[:, order], groups[order])
    assert {g: i.value for g, i in moved.items()} == pytest.approx(
        {g: i.value for g, i in enrichment.by_group(LABELS, groups).items()}
    )
    assert enrichment.gradients(LABELS[:, order], table.iloc[order])["x"].value == pytest.approx(
        enrichment.gradients(LABELS, table)["x"].value
    )


def test_a_text_with_an_unknown_word_is_no_duplicate():
    """Its vector is that of the others, as no word of it was seen in training."""
    found = enrichment.attributes(
        ["call", "play jazz"], [0, 1], ["call", "call wojtek", "jazz play"]
    )
    assert found.nearness.tolist() == pytest.approx([1, 1, 1])
    assert found.duplicate.tolist() == [1, 0, 1]

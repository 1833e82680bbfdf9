"""Who pays: groups by hand, the test against an independent one, and how often it errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stabutils import metrics
from stabutils.analysis.subgroups import (
    groups_of,
    harmed,
    numbers,
    size_classes,
    subgroup_changes,
    who_pays,
)
from stabutils.data.datasets import Dataset, Split
from stabutils.errors import InputError
from stabutils.study.runs import of_answers

GROUPS = np.repeat(["a", "b", "c", "d"], 25)
GOLD = np.repeat([0, 1, 2, 3], 25)


def answers(runs, seed, wrong=0.1, gold=GOLD):
    """Runs that are wrong on a random share of the examples; wrong: a number or one an example."""
    draw = np.random.default_rng(seed)
    missed = draw.random((runs, len(gold))) < wrong
    return np.where(missed, (gold + draw.integers(1, 4, missed.shape)) % 4, gold)


def test_columns_are_those_of_the_metrics_group_by_group():
    control, arm = answers(5, 0), answers(4, 1, 0.2)
    table = subgroup_changes(control, arm, GOLD, GROUPS).set_index("group")
    for name in "abcd":
        here = name == GROUPS
        old, new, gold = control[:, here], arm[:, here], GOLD[here]
        row = table.loc[name]
        assert row.examples == 25
        assert row.accuracy == pytest.approx(np.mean(new == gold))
        assert row.control_churn == pytest.approx(metrics.churn(old))
        assert row.churn == pytest.approx(metrics.churn(new))
        between = metrics.churn_between(old, new, gold)["negative_flips"]
        assert row.negative_flips == pytest.approx(between)
        alone = metrics.churn_parts(old, gold)["right_to_wrong"] / 2
        assert row.control_negative_flips == pytest.approx(alone)
    change = table.accuracy - table.control_accuracy
    assert change.is_monotonic_increasing


def test_a_group_that_pays_is_found_and_the_others_are_not():
    control = answers(10, 0)
    harmed = np.where(GROUPS == "b", 0.3, 0.1)
    table = subgroup_changes(control, answers(10, 1, harmed), GOLD, GROUPS).set_index("group")
    assert table.p_accuracy["b"] < 0.05 and table.p_negative_flips["b"] < 0.05
    assert (table.p_accuracy[["a", "c", "d"]] > 0.05).all()
    assert table.index[0] == "b"


def test_one_group_alone_is_the_permutation_test_of_scipy():
    control, arm = answers(6, 0), answers(6, 1, 0.13)
    one = np.zeros(100, int)
    ours = subgroup_changes(control, arm, GOLD, one, shuffles=4999).p_accuracy[0]
    right = [(labels == GOLD).mean(axis=1) for labels in (arm, control)]
    theirs = stats.permutation_test(
        right, lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), vectorized=True
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.03)


def test_where_nothing_differs_a_false_finding_is_as_rare_as_its_level_says():
    smallest = []
    for seed in range(200):
        control, arm = answers(5, 2 * seed), answers(5, 2 * seed + 1)
        table = subgroup_changes(control, arm, GOLD, GROUPS, shuffles=99, seed=seed)
        smallest.append([table[f"p_{name}"].min() for name in ("accuracy", "churn")])
    false_findings = (np.array(smallest) <= 0.05).mean(axis=0)
    assert (false_findings < 0.1).all() and (false_findings > 0.005).all()


def test_the_correction_is_for_all_groups():
    """The same group among others has a larger p than alone."""
    control, arm = answers(6, 0), answers(6, 1, np.where(GROUPS == "a", 0.18, 0.1))
    among = subgroup_changes(control, arm, GOLD, GROUPS).set_index("group").p_accuracy["a"]
    here = GROUPS == "a"
    alone = subgroup_changes(control[:, here], arm[:, here], GOLD[here], GROUPS[here])
    assert among > alone.p_accuracy[0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100))
def test_the_order_of_runs_and_examples_does_not_matter(seed):
    draw = np.random.default_rng(seed)
    control, arm = answers(4, seed), answers(3, seed + 1, 0.3)
    table = subgroup_changes(control, arm, GOLD, GROUPS, shuffles=99)
    order, runs = draw.permutation(100), draw.permutation(4)
    other = subgroup_changes(
        control[runs][:, order], arm[:, order], GOLD[order], GROUPS[order], shuffles=99
    )
    for name in ("accuracy", "control_churn", "churn", "negative_flips"):
        one, two = (t.set_index("group")[name].sort_index() for t in (table, other))
        assert np.allclose(one, two)


def test_arms_that_answer_alike_differ_in_nothing():
    same = np.tile(GOLD, (3, 1))
    table = subgroup_changes(same, same, GOLD, GROUPS)
    assert (table[["p_accuracy", "p_churn", "p_negative_flips"]] == 1).all(axis=None)


def test_bad_input_is_refused_by_name():
    fine = answers(3, 0)
    for given_, thing in [
        ((fine[:2], fine, GOLD, GROUPS), "labels of control"),
        ((fine, fine[:, :5], GOLD, GROUPS), "labels of the arm"),
        ((fine, fine, GOLD, GROUPS[:5]), "groups"),
    ]:
        with pytest.raises(InputError, match=thing):
            subgroup_changes(*given_)
    with pytest.raises(InputError, match="shuffles: got 20"):
        subgroup_changes(fine, fine, GOLD, GROUPS, shuffles=20)


# ---- sizes


def test_size_classes_have_as_many_intents_each():
    train = np.repeat(np.arange(6), [10, 60, 20, 50, 30, 40])
    classes = size_classes(train, np.arange(6))
    by_hand = ["rare", "frequent", "rare", "frequent", "middle", "middle"]
    assert classes.tolist() == by_hand
    assert size_classes(train, np.array([1, 0]), ("few", "many")).tolist() == ["many", "few"]


def test_who_pays_is_said_for_each_method_and_group_with_intervals():
    """Fails if a method is held against another, or the intent that pays is not named."""
    wrong = [0.1, 0.1, np.where(GOLD == 1, 0.5, 0.1)]
    labels = [answers(8, seed, own) for seed, own in enumerate(wrong)]
    control, same, harm = (of_answers("arm", own, GOLD, np.arange(8)) for own in labels)
    table = who_pays(control, {"same": same, "harm": harm}, GROUPS)
    assert table.arm.tolist() == ["same"] * 4 + ["harm"] * 4
    worst = table[table.arm == "harm"].iloc[0]
    assert worst.group == "b" and worst.p_accuracy < 0.05 and worst.accuracy_change.high < 0
    alone = subgroup_changes(control.labels, harm.labels, GOLD, GROUPS).iloc[0]
    assert worst.p_accuracy == pytest.approx(2 * alone.p_accuracy)  # of two methods
    assert table.p_accuracy.max() == 1
    change = harm.labels[:, GOLD == 1] == 1, control.labels[:, GOLD == 1] == 1
    assert worst.accuracy_change.value == pytest.approx(change[0].mean() - change[1].mean())
    assert harmed(control, harm, ("a", "b", "c", "d")) == ["b"]
    assert harmed(control, same, ("a", "b", "c", "d")) == []
    keys = {number.key: number.value for number in numbers(table)}
    assert len(keys) == 16
    assert keys["accuracy_change, harm; b"] == worst.accuracy_change.value


def test_groups_are_what_was_planted_else_the_sizes_of_intents():
    labels, texts = np.array([2, 0, 1]), ("one", "two", "three")
    train = Split(tuple("abcdefghijklm"), np.repeat([0, 1, 2], [9, 3, 1]))
    test = Split(texts, labels)
    sized = Dataset("toy", train, test, test, ("x", "y", "z"))
    assert groups_of(sized).tolist() == ["rare intents", "frequent intents", "middle intents"]
    tags = ("clear", "rare:strong", "noise:weak")
    planted = replace(sized, test=Split(texts, labels, tags))
    assert groups_of(planted).tolist() == ["clear queries", "rare queries", "noise queries"]
    alike = replace(sized, train=Split(texts, labels))
    assert groups_of(alike) is None

"""The vote model, the frontier of what stability costs, and abstaining from what is uncertain."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import plain
import pytest
import tiny
from test_ensembles import labels_only, pool

from stabutils import metrics
from stabutils.analysis import ensembles, frontier, reliability
from stabutils.analysis.board import board, numbers, over_linear
from stabutils.analysis.ensembles import Pool, ensemble
from stabutils.analysis.frontier import choose, significant_sign
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, from_variance, jackknife, over_examples
from stabutils.metrics.votes import vote, vote_model
from stabutils.mitigations import Mitigation
from stabutils.study.runs import of_answers
from stabutils.study.study import Study
from stabutils.training.loop import train
from stabutils.training.probes import PROBES
from stabutils.training.state import Seeds

RUNS = pool(12, 80)


# ---- the vote model


def odds(labels, size):
    """Of each query, the probability of each answer of an ensemble: every draw of `size` runs in
    every order.
    """
    runs, found = len(labels), np.zeros((labels.shape[1], labels.max() + 1))
    for members in itertools.product(range(runs), repeat=size):
        for query, answer in enumerate(vote(labels[list(members)])):
            found[query, answer] += runs**-size
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_vote_model_agrees_with_all_outcomes(size):
    """Fails if votes are drawn without replacement, shared between queries, or ties are not a fair
    coin.
    """
    labels = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 2, 1], [0, 1, 2, 0], [0, 1, 1, 2]])
    expected = odds(labels, size)
    drawn = vote_model(labels, size, 2000, np.random.default_rng(0))
    found = (drawn[..., None] == np.arange(3)).mean(0)
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 2000)
    assert metrics.churn(drawn) == pytest.approx((1 - (expected**2).sum(1)).mean(), abs=0.03)
    if size == 2:  # a tie is as good as one vote: two voters are no steadier than one
        assert expected == pytest.approx(odds(labels, 1))


def test_the_vote_model_tells_what_votes_of_other_runs_do():
    """Independent retrainings are independent votes; fails if the model is of something else."""
    many = pool(60, 200, seed=3)
    some = replace(
        labels_only(many),
        doubt=np.zeros_like(many.doubt),
        labels=many.labels[:30],
        validation_labels=many.validation_labels[:30],
    )
    for size in (3, 5):
        real = Pool(some, "vote").rows(np.arange(30), size, 5).mean(1)[1]
        model = metrics.churn(vote_model(many.labels[30:], size, 20, np.random.default_rng(0)))
        assert model == pytest.approx(real, rel=0.12) and real < 0.9 * metrics.churn(many.labels)


def test_the_vote_model_refuses_nothing_to_draw():
    with pytest.raises(InputError, match="size and draws"):
        vote_model(RUNS.labels, 0, 5, np.random.default_rng(0))


# ---- the frontier


def interval(value, se=0.01):
    return from_variance(value, se**2, 20, runs=8)


def rows(*entries):
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "runs": 8,
                "trainings": trainings,
                "passes": passes,
                "reduction": None if arm == "control" else interval(saved),
                "accuracy_change": None if arm == "control" else interval(accuracy, 0.001),
                "churn": interval(0.1 * (1 - saved), 0.001),
            }
            for arm, trainings, passes, saved, accuracy in entries
        ]
    )


ROWS = rows(
    ("control", 1, 1, 0.0, 0.0),
    ("calm", 1, 1, 0.2, 0.0),
    ("a bit", 1, 1, 0.02, 0.0),  # not significant
    ("twice", 2, 1, 0.2, 0.0),
    ("rash", 1, 1, 0.5, -0.1),
    ("five", 5, 5, 0.4, 0.01),
    ("dear", 10, 10, 0.41, 0.01),
    ("best", 10, 10, 0.6, 0.02),
)


def dominators(*tables, **more):
    found = frontier.frontier(list(tables), **more).set_index("arm")
    return found.dominated.to_dict()


def test_domination_by_hand():
    """Fails if a cost counts as a gain, if what is not significant decides, or accuracy is left
    out.
    """
    assert dominators(ROWS) == {
        "best": "",
        "rash": "",  # nothing as cheap saves as much; it dominates nothing, for it answers worse
        "dear": "best",
        "five": "",  # dear and best cost more
        "calm": "",
        "twice": "",  # calm is cheaper and as good, but not better
        "a bit": "calm",
        "control": "calm",
    }


@pytest.mark.parametrize("trainings, passes, expected", [
    (1, 1, "better"),
    (2, 1, "better"),
    (1, 2, "better"),
    (0.5, 1, ""),
    (1, 0.5, ""),
])  # fmt: skip
def test_only_what_costs_no_more_dominates(trainings, passes, expected):
    """Fails if either price is left out, or counts the other way round."""
    table = rows(
        ("control", 1, 1, 0.0, 0.0), ("better", 1, 1, 0.5, 0.0), ("it", trainings, passes, 0.1, 0.0)
    )
    assert dominators(table)["it"] == expected


@pytest.mark.parametrize("saved, accuracy, expected", [
    (0.5, 0.0, "it"),  # significantly more stable, as accurate
    (0.1, 0.05, "it"),  # as stable, significantly more accurate
    (0.5, -0.05, ""),  # more stable, less accurate
    (0.0, 0.05, ""),  # less stable, more accurate
    (0.11, 0.0005, ""),  # neither significant
    (0.5, -0.0005, "it"),  # less accurate, not significantly
])  # fmt: skip
def test_a_dominator_is_better_in_one_thing_and_worse_in_none(saved, accuracy, expected):
    table = rows(
        ("control", 1, 1, 0.0, 0.0), ("row", 1, 1, 0.1, 0.0), ("it", 1, 1, saved, accuracy)
    )
    assert dominators(table)["row"] == expected


def test_an_anchored_arm_of_weight_1_is_the_linear_model_and_stands_on_no_frontier():
    """Fails if it is counted as a network; a constant network is one, however still it is."""
    still = rows(
        ("anchored", 1, 2, 1.0, 0.0),
        ("ensemble of 2 with anchor, weight 1", 2, 3, 1.0, 0.0),
        ("anchored at a half", 1, 2, 0.99, 0.0),
        ("constant", 1, 1, 1.0, -0.5),
        ("anchored, steady on few queries", 1, 2, 1.0, 0.02),
        ("linear (TF-IDF)", 0, 0, 1.0, 0.0),
    )
    gone = {"anchored", "ensemble of 2 with anchor, weight 1"}
    assert set(dominators(ROWS, still)) == {*ROWS.arm, *still.arm} - gone


def test_equals_do_not_dominate_one_another_and_of_several_the_best_is_named():
    table = rows(("control", 1, 1, 0.0, 0.0), ("one", 1, 1, 0.4, 0.0), ("same", 1, 1, 0.4, 0.0))
    assert dominators(table) == {"one": "", "same": "", "control": "same"}
    more = rows(("top", 1, 1, 0.6, 0.0))
    assert dominators(table, more) == {"top": "", "one": "top", "same": "top", "control": "top"}


def test_a_difference_is_significant_by_welchs_test():
    rng = np.random.default_rng(0)
    for gap in (0.2, 0.8, 1.2, 2.0):
        one, other = rng.normal(size=7), rng.normal(gap, 2, size=9)
        intervals = [jackknife(np.mean, values) for values in (one, other)]
        p = plain.stats.ttest_ind(one, other, equal_var=False).pvalue
        expected = int(np.sign(one.mean() - other.mean())) if p < 0.05 else 0
        assert significant_sign(*intervals) == expected == -significant_sign(*intervals[::-1])
    still = Interval(0.3, 0.3, 0.3, 1, se=0.0)
    assert significant_sign(still, replace(still, value=0.2)) == 1
    assert significant_sign(still, still) == significant_sign(still, Interval(0.1, 0, 0, 3)) == 0


def test_choosing_by_hand():
    """Only what is significantly more stable and keeps the accuracy is ever recommended."""
    table = frontier.frontier([ROWS])
    assert choose(table, 1, 1).arm.tolist() == ["calm"]  # no control, no rash, nothing undecided
    assert choose(table, 100, 100).arm.tolist() == ["best", "dear", "five", "calm", "twice"]
    assert choose(table, 0.5, 1).empty


@pytest.mark.parametrize("saved, accuracy", [(0.01, 0.0), (0.3, -0.005), (0.3, -0.02)])
def test_nothing_is_recommended_where_nothing_passed(saved, accuracy):
    """Fails if undecided methods, or ones that may cost accuracy, are recommended for want of
    better.
    """
    table = rows(("control", 1, 1, 0.0, 0.0), ("calm", 1, 1, saved, accuracy))
    assert choose(frontier.frontier([table]), 10, 10).empty


def test_several_tables_are_one_family_and_later_rows_replace_earlier_ones():
    first = rows(("control", 1, 1, 0.0, 0.0), ("calm", 1, 1, 0.03, 0.0), ("old", 1, 1, 0.9, 0.0))
    second = rows(("old", 3, 1, 0.1, 0.0), ("new", 1, 1, 0.2, 0.0))
    found = frontier.frontier([first, second]).set_index("arm")
    assert found.trainings["old"] == 3 and found.reduction["old"].value == 0.1
    raw = {name: found.reduction[name].p_value() for name in ("calm", "old", "new")}
    assert found.p["calm"] == pytest.approx(raw["calm"])  # the largest of three
    assert found.p[["old", "new"]].max() <= 3 * max(raw["old"], raw["new"])
    alone = frontier.frontier([first[:2]]).set_index("arm")
    assert found.p["new"] == pytest.approx(min(1, 3 * raw["new"]))
    assert alone.p["calm"] == pytest.approx(raw["calm"])


def test_the_frontier_of_a_study():
    control = pool(12, 80)
    arms = {"calm": replace(ensemble(control, 2), arm="calm")}
    own = board(
        control,
        arms,
        placebo=replace(pool(5, 80, seed=9), seeds=np.arange(100, 105)),
        linear={"linear (TF-IDF)": control.gold},
        costs={"calm": (2.0, 1.0)},
    )
    tables = [own, ensembles.table(Pool(control), [2, 4])]
    found = frontier.frontier(tables, {"calm": 1.5})
    assert found.arm.tolist()[0] == "linear (TF-IDF)" and found.arm.tolist()[-1] == "control"
    assert "placebo" not in set(found.arm)
    rows = found.set_index("arm")
    assert rows.cpu_ratio["calm"] == 1.5 and rows.cpu_ratio.notna().sum() == 1
    expected = ["linear (TF-IDF)", "ensemble of 4", "ensemble of 2", "calm", "control"]
    assert set(rows.index) == set(expected)
    assert rows.behind["ensemble of 4"] == "3 ensembles of 12 runs"
    assert rows.n.to_dict() == {name: 5 for name in expected} | {"ensemble of 4": 3}
    kept = {number.key: number for number in numbers(found)}
    assert kept["reduction, ensemble of 4"].n == 3 and kept["reduction, calm"].n == 5
    assert (rows.trainings["linear (TF-IDF)"], rows.passes["linear (TF-IDF)"]) == (0, 0)
    assert rows.dominated["linear (TF-IDF)"] == "" and "linear (TF-IDF)" not in set(rows.dominated)
    assert rows.linear_dominates.to_dict() == dict.fromkeys(rows.index, "linear (TF-IDF)") | {
        "linear (TF-IDF)": ""
    }
    assert rows.dominated["control"] == ""  # nothing is as cheap
    assert rows.p[["linear (TF-IDF)", "control"]].isna().all() and rows.p.notna().sum() == 3
    assert rows.better["linear (TF-IDF)"] == "holds" and rows.better["control"] == ""
    raw = rows.reduction["ensemble of 4"].p_value()
    assert raw <= rows.p["ensemble of 4"] <= min(1, 3 * raw) + 1e-12


def test_a_linear_model_of_an_encoders_vectors_costs_its_pass():
    linear = {"linear (TF-IDF)": RUNS.gold, "linear (both)": RUNS.gold}
    rows = frontier.frontier([board(RUNS, {}, linear=linear)]).set_index("arm")
    assert rows.trainings[list(linear)].tolist() == [0, 0]
    assert rows.passes[list(linear)].tolist() == [0, 1]


def test_ensembles_of_two_replicas_are_undecided():
    own = board(RUNS, {"calm": replace(ensemble(RUNS, 2), arm="calm")})
    found = frontier.frontier([own, ensembles.table(Pool(RUNS), [6])]).set_index("arm")
    assert found.reduction["ensemble of 6"].low > 0
    assert found.better["ensemble of 6"] == "undecided at 2 runs"


@pytest.mark.parametrize("processors, expected", [
    ((["a"] * 4, ["a"] * 4), 2.0),
    ((["a", "a", "b", "b"], ["a", "a", "b", "b"]), (1.5 + 20 / 7) / 2),
    ((["a", "a", "b", "b"], ["b"] * 4), 4 / 3.5),
    ((["a"] * 4, ["b"] * 4), np.nan),
    (([""] * 4, [""] * 4), np.nan),
])  # fmt: skip
def test_seconds_are_compared_within_one_kind_of_machine(processors, expected):
    """Fails if another machine's seconds stand in a ratio."""
    control, arm = pool(4, 20), pool(4, 20)
    seconds = [np.array([1.0, 3, 3, 4]), np.array([2.0, 4, 8, 12])]
    if processors[1] == ["b"] * 4:
        seconds[1] = np.full(4, 4.0)
    elif processors[0] == ["a"] * 4:
        seconds[1] = np.full(4, 5.5)
    control, arm = (
        replace(runs, cpu_seconds=own, processors=np.array(names))
        for runs, own, names in zip((control, arm), seconds, processors, strict=True)
    )
    assert frontier.cpu_ratio(control, arm) == pytest.approx(expected, nan_ok=True)


# ---- doubt


def test_foreign_texts_by_hand():
    """Fails if doubt points the wrong way, or queries and foreign texts change places."""
    runs = replace(pool(3, 4), doubt=np.array([[0.1, 0.2, 0.3, 0.4]] * 3))
    foreign = np.array(
        [[[0.5, 0.5], [0.75, 0.25]], [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]], np.float16
    )
    assert reliability.detects(replace(runs, extras={"out_of_scope": foreign})).tolist() == [
        0.75,
        1.0,
        0.0,
    ]
    for kept in ({}, {"out_of_scope": foreign[:, :0]}):
        with pytest.raises(InputError, match="out-of-scope texts"):
            reliability.detects(replace(runs, extras=kept))


def test_foreign_texts_are_answered_by_runs():
    """Fails if they disturb the training."""
    data = tiny.dataset()
    beside = replace(
        data,
        out_of_scope={"test": ("a wholly other zebra", "rain the lamp"), "train": ("never read",)},
    )
    task, plain_task = tiny.task(data=beside), tiny.task(data=data)
    probe = [PROBES["out_of_scope"]]
    kept, plain = (
        train(each, Mitigation(), Seeds(0, 1, 2), keep=probe) for each in (task, plain_task)
    )
    assert np.array_equal(kept["probabilities"], plain["probabilities"])
    assert kept["kept.out_of_scope"].shape == (2, 4) and plain["kept.out_of_scope"].shape == (0, 4)


def test_refusing_by_hand():
    values = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    doubt = np.array([[0.9, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
    found = [reliability.selective(values, doubt, share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0, (0 + 0.5) / 2, (1 / 3 + 2 / 3) / 2, (0.5 + 0.75) / 2])
    with pytest.raises(InputError, match="coverage: got 0; expected a share above 0"):
        reliability.selective(values, doubt, 0)


def test_to_abstain_is_an_answer_that_users_see():
    """Three runs, three queries; each abstains on one, which is the fourth label."""
    labels = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 2]])
    doubt = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    seen = np.array([[3, 1, 2], [0, 3, 2], [0, 2, 3]])
    found = reliability.served(labels, doubt, 2 / 3)
    assert found == pytest.approx(metrics.churn(seen)) and found > metrics.churn(labels)
    assert reliability.served(labels, doubt, 1.0) == pytest.approx(metrics.churn(labels))


def test_the_curve_ends_at_churn_and_error():
    """Fails if churn among the answered is not churn when all is answered, or the doubted come
    first.
    """
    runs = pool(8, 200)
    table = reliability.curve(runs)
    assert reliability.otherwise(runs.labels).mean() == pytest.approx(metrics.churn(runs.labels))
    last = table.iloc[-1]
    assert last.churn.value == pytest.approx(metrics.churn(runs.labels))
    expected = {
        "churn": (metrics.churn, runs.labels),
        "served_churn": (metrics.churn, runs.labels),
        "error": (np.mean, (runs.labels != runs.gold).astype(float)),
    }
    for name, (statistic, values) in expected.items():
        over_runs, over_queries = jackknife(statistic, values), over_examples(statistic, values)
        assert last[name].over_runs.se == pytest.approx(over_runs.se)
        assert last[name].se ** 2 == pytest.approx(over_runs.se**2 + over_queries.se**2)
        assert 0 < last[name].low < last[name].high < 1
    assert table.churn[0].high < last.churn.low and table.error[0].high < last.error.low
    with pytest.raises(InputError, match="runs: got 2; expected at least 3"):
        reliability.curve(ensemble(runs, 4))


def spread(value, se):
    return from_variance(value, se**2, 30.0, 9)


@pytest.mark.parametrize(("lead", "dominator"), [(4e-3, ""), (1e-3, "linear"), (-3e-2, "linear")])
def test_a_linear_model_dominates_no_arm_that_is_more_accurate_pair_by_pair(lead, dominator):
    """Taken as independent, both arms' changes from control cannot be told apart."""
    sure, unsure = (partial(spread, se=se) for se in (0.001, 0.02))
    arm = {"reduction": sure(0.5), "accuracy_change": unsure(lead), "over_linear": sure(lead)}
    still = {"reduction": sure(1.0), "accuracy_change": unsure(0.0), "over_linear": None}
    costs = {"runs": 9, "trainings": 1.0, "passes": 1.0}
    table = pd.DataFrame([{"arm": "calm", **arm, **costs}, {"arm": "linear", **still, **costs}])
    found = frontier.pareto(table).set_index("arm")
    assert found.linear_dominates["calm"] == dominator
    blind = frontier.pareto(table.drop(columns="over_linear")).set_index("arm")
    assert blind.linear_dominates["calm"] == "linear"


@pytest.mark.parametrize(("lost", "dominator"), [(0.0, "calm"), (0.004, "calm"), (0.008, "")])
def test_nothing_dominates_at_the_price_of_more_than_half_a_point(lost, dominator):
    """Arms share control and queries: independent tests of their accuracies see too little."""
    arms = {"calm": (0.6, 0.0), "right": (0.2, lost)}
    table = pd.DataFrame(
        {"arm": name, "reduction": spread(saved, 0.05), "accuracy_change": spread(gained, 0.02)}
        | {"runs": 9, "trainings": 1.0, "passes": 1.0}
        for name, (saved, gained) in arms.items()
    )
    assert frontier.pareto(table).set_index("arm").dominated["right"] == dominator


def test_over_linear_is_the_mean_difference_on_the_same_queries():
    gold = np.zeros(4, int)
    labels = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]])
    control = of_answers("control", labels, gold, np.arange(3))
    worse, better = np.array([1, 1, 0, 0]), np.array([0, 1, 0, 0])
    found = over_linear(control, {"linear (a)": worse, "linear (b)": better})
    assert found.value == pytest.approx((0.75 + 0.5 + 1.0) / 3 - 0.75)


# ---- reliability beside stability


def test_the_table_of_reliability_is_the_plain_computation_arm_by_arm():
    control, few = RUNS, pool(4, 80)
    foreign = np.tile([[0.5, 0.5], [0.75, 0.25]], (12, 1, 1)).astype(np.float16)
    kept = replace(control, extras={"out_of_scope": foreign})
    table = reliability.table({"control": kept, "few": few})
    assert table.n.tolist() == [4, 4] and table.runs.tolist() == [12, 4]
    [at] = reliability.curve(few, (0.9,)).itertuples()
    row = table.set_index("arm").loc["few"]
    assert row.selective_error.value == at.error.value and row.auroc is None
    assert row.churn.value == pytest.approx(metrics.churn(few.labels))
    assert table.auroc[0].value == pytest.approx(reliability.detects(kept).mean())
    keys = {number.key for number in reliability.numbers(table, ["few"])}
    assert {"selective_error, control", "accuracy, control; few"} < keys
    assert "accuracy, control" not in keys  # it is the board's


def test_few_texts_of_each_intent_are_the_same_for_all_runs(tmp_path, monkeypatch):
    study = Study(dataset=str(tiny.project(tmp_path, monkeypatch)), workers=1, runs=3)
    few = reliability.few_shot(study, 2)
    assert np.bincount(few.data.train.labels).tolist() == [2] * 4
    pairs = set(zip(study.data.train.texts, study.data.train.labels, strict=True))
    assert set(zip(few.data.train.texts, few.data.train.labels, strict=True)) <= pairs
    assert few.data.train.texts == reliability.few_shot(study, 2).data.train.texts
    assert few.data.test is study.data.test
    assert few.identify(Mitigation(), Seeds(0, 0, 0)) != study.identify(
        Mitigation(), Seeds(0, 0, 0)
    )
    runs = few.retrain("control")
    assert runs.labels.shape == (3, 20) and runs.accuracy.mean() < study.retrain().accuracy.mean()
    assert len(reliability.few_shot(study, 99).data.train) == len(study.data.train)


@pytest.mark.parametrize("text", ["five", "2.5", "0, 5", "-1"])
def test_numbers_of_texts_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="few_shot: got"):
        reliability.sizes_of(text)

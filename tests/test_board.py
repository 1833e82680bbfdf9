"""Boards: every cell by the plain computation, one family for Holm, verdicts, words, records."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import plain
import pytest
from statsmodels.stats.multitest import multipletests

from stabutils import metrics, records
from stabutils.analysis import board as module
from stabutils.analysis.board import (
    answer,
    better,
    board,
    churn_change,
    described,
    entropy_change,
    entropy_changes,
    named,
    numbers,
    over_linear,
    readable,
    reduction,
    reduction_gap,
    unstable,
    who_pays,
    with_verdicts,
)
from stabutils.errors import InputError
from stabutils.figures import per_intent
from stabutils.metrics.intervals import Interval, jackknife, jackknife_arms
from stabutils.study.runs import Runs, of_answers

EXAMPLES, CLASSES = 60, 4
GOLD = np.arange(EXAMPLES) % CLASSES
HARD = np.arange(EXAMPLES) < 20


def arm(
    flip: float,
    runs: int = 6,
    start: int = 0,
    name: str = "arm",
    hurt: float = 0.0,
    probabilities: bool = True,
    queries: int = 1,
):
    """Runs that are wrong on a hard example with chance `flip`, on the last intent with `hurt`.

    queries : how many times as many of them
    """
    draw = np.random.default_rng([start, runs, int(100 * flip), int(100 * hurt)])
    gold, hard = np.tile(GOLD, queries), np.tile(HARD, queries)
    shape = (runs, len(gold))
    wrong = draw.random(shape) < np.where(hard, flip, 0.02)
    wrong |= (draw.random(shape) < hurt) & (gold == CLASSES - 1)
    labels = np.where(wrong, (gold + draw.integers(1, CLASSES, shape)) % CLASSES, gold)
    shares = 0.1 + 0.6 * np.eye(CLASSES, dtype=np.float32)[labels]
    zeros = np.zeros(shape)
    return Runs(
        arm=name,
        names=tuple(f"{name}-{s}" for s in range(start, start + runs)),
        seeds=np.arange(start, start + runs),
        gold=gold,
        labels=labels,
        validation_labels=labels,
        accuracy=metrics.accuracy(labels, gold),
        nll=metrics.nll(shares, gold),
        ece=metrics.ece(shares, gold),
        cpu_seconds=np.ones(runs),
        doubt=zeros,
        checkpoint_entropy=zeros,
        confidence_mean=zeros,
        confidence_spread=zeros,
        probabilities=shares if probabilities else None,
    )


CONTROL, PLACEBO = arm(0.5, name="control"), arm(0.5, start=100, name="control")
ARMS = {
    "calm": arm(0.1, name="calm"),
    "idle": arm(0.5, start=3, name="idle"),
    "rash": arm(0.9, runs=5, name="rash"),
}


@pytest.fixture  # of each test anew: mutmut sees which code a test runs
def table():
    linear = np.where(np.arange(EXAMPLES) < 6, (GOLD + 1) % CLASSES, GOLD)
    return board(
        CONTROL,
        ARMS,
        placebo=PLACEBO,
        linear={"linear": linear},
        costs={"calm": (2.0, 1.0)},
    ).set_index("arm")


def entropy_at(n):
    return lambda labels: metrics.label_entropy(labels, min(n, len(labels)))


def right(labels):
    return (labels == GOLD[: labels.shape[1]]).mean(axis=0)


def saved(old, new):
    return 1 - new / old


def test_rows_and_their_order(table):
    assert list(table.index) == [
        "calm",
        *sorted(["idle", "rash"], key=lambda name: -table.reduction[name].value),
        "placebo",
        "linear",
        "control",
    ]
    assert table.runs.tolist() == [6] + [len(ARMS[name]) for name in table.index[1:3]] + [6, 1, 6]
    assert (table.trainings["calm"], table.trainings["control"]) == (2, 1)
    assert np.isnan(table.trainings["rash"])
    for name in ("control", "placebo"):
        assert (table.trainings[name], table.passes[name]) == (1, 1)
    assert table.columns[1] == "label_entropy" and table.p.dtype == float
    nothing = board(CONTROL, {}).iloc[0]
    assert nothing.arm == "control" and nothing.reduction is None and np.isnan(nothing.p)


def test_the_placebo_stands_behind_methods_that_are_worse():
    lucky = arm(0.2, start=100, name="control")
    rows = board(CONTROL, {"rash": ARMS["rash"]}, placebo=lucky)
    assert rows.reduction[0].value < rows.reduction[1].value
    assert rows.arm.tolist() == ["rash", "placebo", "control"]


def test_label_entropy_is_quoted_at_five_runs_or_as_many_as_all_have(table):
    few, calm = arm(0.3, runs=3, start=40), ARMS["calm"]
    assert table.attrs["n"] == board(CONTROL, {"calm": calm}).attrs["n"] == 5
    assert board(CONTROL, {"calm": calm}, n=4).attrs["n"] == 4
    assert board(CONTROL, {"few": few}).attrs["n"] == board(few, {"calm": calm}).attrs["n"] == 3


@pytest.mark.parametrize("name", [*ARMS, "placebo"])
def test_reduction_is_the_plain_computation(table, name):
    runs = (ARMS | {"placebo": PLACEBO})[name]
    seeds = [CONTROL.seeds, runs.seeds]
    found = board(CONTROL, {"it": runs}, n=4).reduction[0]
    expected = plain.interval(saved, entropy_at(4), [CONTROL.labels, runs.labels], seeds)
    plain.alike(found, expected, rel=0.02)
    assert found.high <= 1
    if name != "placebo":
        some = unstable(PLACEBO.labels)
        labels = [arm.labels[:, some] for arm in (CONTROL, runs)]
        expected = plain.interval(saved, entropy_at(5), labels, seeds).within(-np.inf, 1)
        plain.alike(table.reduction_unstable[name], expected, rel=0.1)


@pytest.mark.parametrize("name", ARMS)
def test_an_arms_own_numbers(table, name):
    runs, row = ARMS[name], table.loc[name]
    own = {"churn": metrics.disagreement, "accuracy": right, "label_entropy": entropy_at(5)}
    for column, score in own.items():
        bounds = (0, np.inf) if column == "label_entropy" else (0, 1)
        expected = plain.interval(lambda mean: mean, score, [runs.labels]).within(*bounds)
        plain.alike(row[column], expected)
    parts = metrics.churn_parts(runs.labels, GOLD)
    for part, value in parts.items():
        assert row[part].value == pytest.approx(value)
        over_runs = jackknife(
            lambda labels, part=part: metrics.churn_parts(labels, GOLD)[part], runs.labels
        )
        assert row[part].over_runs.se == pytest.approx(over_runs.se, abs=1e-12)
    over_runs = {
        "nll": jackknife(np.mean, runs.nll),
        "ece": jackknife(np.mean, runs.ece),
        "jensen_shannon": jackknife(metrics.jensen_shannon, runs.probabilities),
    }
    for column, expected in over_runs.items():
        assert row[column].value == pytest.approx(expected.value)
        assert row[column].se == pytest.approx(expected.se)
        assert 0 <= row[column].low and row[column].speaks_of == "new runs on these queries"
        if column != "jensen_shannon":
            clipped = expected.within(0, 1 if column == "ece" else np.inf)
            assert (row[column].low, row[column].high) == (clipped.low, clipped.high)
    wild = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    ends = board(CONTROL, {"wild": replace(ARMS["calm"], ece=wild, nll=wild)}).iloc[0]
    sure = board(CONTROL, {"sure": replace(ARMS["calm"], ece=1 - wild)}).iloc[0]
    assert ends.ece.low == ends.nll.low == 0 and sure.ece.high == 1


@pytest.mark.parametrize("name", ARMS)
def test_what_changes_from_control_is_the_plain_computation(table, name):
    labels, seeds = [CONTROL.labels, ARMS[name].labels], [CONTROL.seeds, ARMS[name].seeds]
    expected = plain.interval(saved, metrics.disagreement, labels, seeds)
    plain.alike(table.churn_reduction[name], expected, rel=0.02)
    change = plain.interval(lambda old, new: new - old, right, labels, seeds)
    plain.alike(table.accuracy_change[name], change)
    assert table.accuracy_change[name].speaks_of == "new runs and new queries"


@pytest.mark.parametrize("part", ["positive_flips", "negative_flips"])
def test_flips_from_control_are_the_plain_computation(table, part):
    """The variances over runs and over queries together; nothing is taken off."""
    labels, seeds = [CONTROL.labels, ARMS["rash"].labels], [CONTROL.seeds, ARMS["rash"].seeds]

    def share(old, new, gold=GOLD):
        return metrics.churn_between(old, new, gold)[part]

    over_runs = jackknife_arms(share, labels, seeds)
    deleted = [
        share(*(np.delete(some, query, axis=1) for some in labels), np.delete(GOLD, query))
        for query in range(EXAMPLES)
    ]
    found = table[part]["rash"]
    assert found.value == pytest.approx(share(*labels))
    assert found.over_runs.se == pytest.approx(over_runs.se)
    assert found.se**2 == pytest.approx(over_runs.se**2 + plain.variance(deleted))
    assert 0 < found.low < found.high < 1


def test_swapping_control_and_arm_swaps_what_is_fixed_and_what_regresses():
    there, back = module.flips(CONTROL, ARMS["calm"]), module.flips(ARMS["calm"], CONTROL)
    assert there["positive_flips"].value == pytest.approx(back["negative_flips"].value)
    assert there["negative_flips"].se == pytest.approx(back["positive_flips"].se)
    gain = there["positive_flips"].value - there["negative_flips"].value
    assert gain == pytest.approx(ARMS["calm"].accuracy.mean() - CONTROL.accuracy.mean())


def test_shares_of_flips_end_at_nothing_and_all():
    """Two of three runs correct every answer, one none: 2/3 +- more than 1/3."""
    wrong = np.tile((GOLD + 1) % CLASSES, (3, 1))
    mostly = np.stack([GOLD, GOLD, wrong[0]])
    old, new = (replace(arm(0.5, runs=3), labels=labels) for labels in (wrong, mostly))
    found = module.flips(old, replace(new, seeds=new.seeds + 9))["positive_flips"]
    assert found.value == pytest.approx(2 / 3) and (found.low, found.high) == (0, 1)


def test_p_is_adjusted_over_the_methods_only(table):
    raw = [table.reduction[name].p_value() for name in ARMS]
    assert [table.p[name] for name in ARMS] == pytest.approx(multipletests(raw, method="holm")[1])
    assert table.p[["placebo", "linear", "control"]].isna().all()


def test_tables_put_together_are_one_family(table):
    """Fails if p-values of each table stand beside one another, as if little had been tried."""
    other = board(CONTROL, {f"idle {i}": arm(0.5, start=20 + 10 * i) for i in range(4)})
    together = with_verdicts(pd.concat([table.reset_index(), other[other.arm != "control"]]))
    methods = together[together.arm.map(module.is_method)]
    assert "index" not in together and together.index.tolist() == list(range(10))
    assert len(methods) == 7 and together.arm.iloc[-1] == "control"
    raw = [reduction.p_value() for reduction in methods.reduction]
    assert methods.p.tolist() == pytest.approx(multipletests(raw, method="holm")[1])
    by_name = methods.set_index("arm").p
    assert by_name["calm"] == pytest.approx(7 / 3 * table.p["calm"])
    assert methods.reduction.map(lambda each: -each.value).is_monotonic_increasing


def test_verdicts(table):
    assert table.better["calm"] == table.guard["calm"] == "holds"
    assert table.better["rash"] == table.guard["rash"] == "does not hold"
    assert table.better["idle"] != "holds"
    assert table.better["placebo"] == table.better["control"] == table.guard["control"] == ""


def test_what_only_holds_unadjusted_is_undecided():
    slightly = arm(0.4, start=30, name="slightly", queries=5)
    control = arm(0.5, name="control", queries=5)
    alone = board(control, {"slightly": slightly})
    crowd = {f"idle {i}": arm(0.5, start=10 * i, queries=5) for i in range(4, 44)}
    among = board(control, {"slightly": slightly, **crowd}).set_index("arm").loc["slightly"]
    assert alone.p[0] < 0.05 < among.p and alone.better[0] == "holds"
    assert among.better == "undecided at 6 runs" and among.reduction.low > 0


@pytest.mark.parametrize("change, guard", [
    (0.004, "holds"),
    (-0.004, "holds"),
    (-0.0049, "holds"),
    (-0.005, "does not hold"),
    (-0.006, "does not hold"),
])  # fmt: skip
def test_half_a_point_of_accuracy_may_be_lost_and_no_more(change, guard):
    """Fails if the guard lies at 0, or on the other side of it."""
    row = {
        "arm": "calm",
        "reduction": Interval(0.5, 0.4, 0.6, runs=6, se=0.05, df=5),
        "accuracy_change": Interval(change, change, change, runs=6, se=0.0, df=5),
    }
    found = with_verdicts(pd.DataFrame([row]))
    assert (found.guard[0], found.better[0]) == (guard, guard)


def test_a_guard_that_is_not_decided_leaves_the_method_undecided():
    row = {
        "arm": "calm",
        "reduction": Interval(0.5, 0.4, 0.6, runs=6, se=0.05, df=5),
        "accuracy_change": Interval(0.002, -0.008, 0.012, runs=6, se=0.004, df=5),
    }
    assert with_verdicts(pd.DataFrame([row])).better[0] == "undecided at 6 runs"


def test_an_interval_over_queries_alone_decides_nothing_about_runs():
    two = Interval(0.5, 0.4, 0.6, 2, "these two models only", se=0.05, df=49)
    row = {"arm": "two", "reduction": two, "accuracy_change": two}
    assert with_verdicts(pd.DataFrame([row])).better[0] == "undecided at 2 runs"


def test_stable_but_wrong_is_not_better():
    constant = replace(
        ARMS["calm"], labels=np.where(HARD, (GOLD + 1) % CLASSES, GOLD) + np.zeros((6, 1), int)
    )
    row = board(CONTROL, {"constant": constant}).iloc[0]
    assert row.reduction.value == 1 and row.label_entropy.value == 0
    assert row.guard == row.better == "does not hold"


def test_linear_models(table):
    row = table.loc["linear"]
    for column in ("label_entropy", "churn", "right_to_wrong", "wrong_to_wrong"):
        assert (row[column].value, row[column].se) == (0, 0)
        assert row[column].note == "no seed changes it"
        assert (row[column].low, row[column].high, row[column].runs) == (0, 0, 1)
    for whole in (row.reduction, row.churn_reduction):
        assert (whole.value, whole.low, whole.high, whole.se, whole.runs) == (1, 1, 1, 0, 1)
        assert whole.note == "no seed changes it"
    is_right = np.arange(EXAMPLES) >= 6
    assert row.accuracy.value == 0.9 and row.accuracy.runs == 1
    assert row.accuracy.se == pytest.approx(is_right.std(ddof=1) / np.sqrt(EXAMPLES))
    answers = np.tile(np.where(is_right, GOLD, (GOLD + 1) % CLASSES), (6, 1))
    change = plain.interval(lambda old, new: new - old, right, [CONTROL.labels, answers])
    assert row.accuracy_change.value == pytest.approx(change.value)
    assert row.accuracy_change.se == pytest.approx(change.se)
    assert row.accuracy_change.over_runs.df == pytest.approx(5)  # control's runs alone
    for column in ("accuracy_change", "positive_flips", "negative_flips"):
        assert row[column].runs == row[column].over_runs.runs == 6  # control's
    correct = CONTROL.labels == GOLD
    assert row.negative_flips.value == pytest.approx(correct[:, :6].sum() / correct.size)
    assert row.positive_flips.value == pytest.approx((~correct[:, 6:]).sum() / correct.size)
    assert row.better == row.guard == "holds"


def test_what_a_network_is_more_accurate_than_the_best_linear_model(table):
    wrong = {
        name: np.arange(EXAMPLES) < count for name, count in (("linear a", 9), ("linear b", 6))
    }
    models = {name: np.where(where, (GOLD + 1) % CLASSES, GOLD) for name, where in wrong.items()}
    runs = ARMS["calm"]
    answers = np.tile(models["linear b"], (6, 1))
    expected = plain.interval(
        lambda own, other: own - other, right, [runs.labels, answers], [runs.seeds] * 2
    )
    plain.alike(over_linear(runs, models), expected)
    with pytest.raises(InputError, match="seeds: got .*; expected different ones within an arm"):
        over_linear(replace(runs, seeds=runs.seeds // 2), models)
    assert table.over_linear["calm"] == over_linear(runs, {"linear": models["linear b"]})
    shown = readable(table.reset_index(), {"over_linear": "more"}).more[0]
    assert shown.startswith(f"{100 * expected.value:+.2f} points")


def test_several_linear_models_have_a_row_each():
    found = board(CONTROL, ARMS, linear={"linear": GOLD, "linear (char)": np.roll(GOLD, 1)})
    assert found.arm.tolist()[-3:] == ["linear", "linear (char)", "control"]
    assert found.better.tolist()[-3:] == ["holds", "does not hold", ""]


def test_unstable_examples_are_chosen_on_runs_that_are_not_scored(table):
    assert table.reduction_unstable.isna()[["placebo", "control", "linear"]].all()
    chooser = arm(0.9, start=200, name="chooser")
    some = unstable(chooser.labels, 0.2)
    for n in (5, 3):
        found = board(CONTROL, ARMS, placebo=chooser, n=n, top=0.2)
        entropies = [entropy_at(n)(runs.labels[:, some]).mean() for runs in (CONTROL, ARMS["calm"])]
        expected = 1 - entropies[1] / entropies[0]
        assert found.reduction_unstable.iloc[0].value == pytest.approx(expected)
    assert "reduction_unstable" not in board(CONTROL, ARMS)
    assert HARD[unstable(chooser.labels, 0.2)].all() and len(unstable(chooser.labels, 0.2)) == 12
    for wrong in (0, 1.5):
        with pytest.raises(InputError, match="top: got"):
            unstable(PLACEBO.labels, wrong)


def test_what_is_refused():
    with pytest.raises(InputError, match="runs of few: got 2; expected at least 3"):
        board(CONTROL, {"few": arm(0.1, runs=2)})
    with pytest.raises(InputError, match="runs of control: got 2; expected at least 3"):
        board(arm(0.5, runs=2), ARMS)
    with pytest.raises(InputError, match="runs of placebo: got 2; expected at least 3"):
        board(CONTROL, ARMS, placebo=arm(0.9, runs=2, start=200))
    with pytest.raises(InputError, match="gold labels of other"):
        board(CONTROL, {"other": replace(ARMS["calm"], gold=GOLD[::-1])})
    with pytest.raises(InputError, match="seeds of placebo: got .*; expected fresh runs"):
        board(CONTROL, ARMS, placebo=arm(0.5, start=5))
    with pytest.raises(InputError, match="seeds of placebo: got .*; expected runs that choose"):
        board(CONTROL, {"late": arm(0.1, start=100)}, placebo=PLACEBO)
    with pytest.raises(
        InputError, match="control runs that answer otherwise than most: got 0; expected at least 2"
    ):
        board(replace(CONTROL, labels=np.tile(GOLD, (6, 1))), ARMS)
    for name in ("placebo", "control", "linear one"):
        with pytest.raises(InputError, match=f"name of an arm: got '{name}'"):
            board(CONTROL, {name: ARMS["calm"]})
    with pytest.raises(InputError, match="shape of a linear model's labels"):
        board(CONTROL, ARMS, linear={"linear": [0, 1]})
    with pytest.raises(InputError, match="name of a linear model: got 'convex'"):
        board(CONTROL, ARMS, linear={"convex": GOLD})


def test_published_runs_have_no_probabilities():
    table = board(arm(0.5, probabilities=False), {"calm": arm(0.1, probabilities=False)})
    assert "jensen_shannon" not in table and table.nll[0].value > 0


@pytest.mark.parametrize("kind", ["names of classes", "order of queries", "order of runs"])
def test_what_means_nothing_changes_no_number(kind):
    def moved(runs):
        if kind == "names of classes":
            names = np.array([3, 0, 2, 1])
            return replace(runs, labels=names[runs.labels], gold=names[runs.gold])
        if kind == "order of queries":
            order = np.random.default_rng(0).permutation(EXAMPLES)
            return replace(runs, labels=runs.labels[:, order], gold=runs.gold[order])
        turned = {name: getattr(runs, name)[::-1] for name in ("labels", "seeds", "accuracy")}
        return replace(runs, **turned)

    arms = {"calm": ARMS["calm"], "rash": ARMS["rash"]}
    one = board(CONTROL, arms)
    other = board(moved(CONTROL), {name: moved(runs) for name, runs in arms.items()})
    for column in ("label_entropy", "reduction", "churn", "accuracy_change", "negative_flips"):
        for place in range(2):
            own, same = one[column][place], other[column][place]
            assert (own.value, own.se, own.df) == pytest.approx((same.value, same.se, same.df))
    assert one.p[:2].tolist() == pytest.approx(other.p[:2].tolist())


def test_an_intent_of_few_queries_is_not_judged():
    hurt = arm(0.1, hurt=0.6, name="hurt")
    names = np.array(["alarm", "light", "music", "weather"])
    rare = np.arange(EXAMPLES) >= 50  # ten queries less of each intent
    few, other = (replace(runs, gold=np.where(rare, 0, GOLD)) for runs in (CONTROL, hurt))
    sizes = np.bincount(few.gold)
    assert (
        set(who_pays(few, other, names, least=sizes.min() + 1).intent)
        == set(names[sizes > sizes.min()])
        < {*names}
    )


def test_an_intent_of_five_queries_is_judged_unless_told_otherwise():
    gold = np.repeat([0, 1, 2], [51, 5, 4])
    pair = [replace(runs, gold=gold) for runs in (CONTROL, ARMS["calm"])]
    assert {*who_pays(*pair, ["many", "five", "four"]).intent} == {"many", "five"}


def test_where_no_intent_has_enough_queries_nobody_is_seen_to_pay():
    labels = CONTROL.labels.max() + 1
    table = who_pays(CONTROL, CONTROL, list(map(str, range(labels))), least=10**6)
    assert len(table) == 0 and list(table.intent[table.harmed]) == []
    axis = per_intent(table).axes[0]
    titles = axis.get_title("left") + axis.get_title()  # on the left where a style was set
    assert "0 intents" in titles


def test_who_pays_names_the_intent_that_is_hurt():
    names = np.array(["alarm", "light", "music", "weather"])
    hurt = arm(0.1, hurt=0.6, name="hurt")
    table = who_pays(CONTROL, hurt, names)
    first = table.iloc[0]
    assert (
        first.intent == "weather"
        and first.harmed
        and table.harmed.sum() == 1
        and first.examples == 15
    )
    here = GOLD == 3
    change = (hurt.labels == GOLD)[:, here].mean() - (CONTROL.labels == GOLD)[:, here].mean()
    assert first.accuracy_change.value == pytest.approx(change)
    entropy = [metrics.label_entropy(runs.labels[:, here], 5).mean() for runs in (CONTROL, hurt)]
    assert first.label_entropy_change.value == pytest.approx(entropy[1] - entropy[0])
    assert first.label_entropy.value == pytest.approx(entropy[0])
    assert table.accuracy_change.map(lambda each: each.value).is_monotonic_increasing
    raw = [row.accuracy_change.p_value() for row in table.itertuples()]
    assert table.p.tolist() == pytest.approx(multipletests(raw, method="holm")[1])


def test_an_intent_that_gains_is_not_harmed():
    """Fails if a change that is significant counts as harm whatever its sign."""
    names = np.array(["alarm", "light", "music", "weather"])
    hurt = arm(0.1, hurt=0.6, name="hurt")
    back = who_pays(hurt, replace(CONTROL, seeds=CONTROL.seeds + 50), names).set_index("intent")
    gain = back.loc["weather"]
    assert gain.accuracy_change.value > 0 and gain.p < 0.05
    assert not gain.harmed and back.index[-1] == "weather"


def test_a_record_keeps_every_interval(table):
    table = table.reset_index()
    table.attrs["n"] = 5
    kept = {number.key: number for number in numbers(table)}  # every name has a unit
    reduced = kept["reduction, calm"]
    assert reduced.interval.value == table.reduction[0].value
    assert (reduced.se, reduced.df, reduced.n) == (table.reduction[0].se, table.reduction[0].df, 5)
    assert reduced.over_runs == (
        table.reduction[0].over_runs.low,
        table.reduction[0].over_runs.high,
    )
    price = kept["trainings, calm"]
    assert (price.value, price.low, price.se, price.runs) == (2, None, None, None)
    assert "trainings, rash" not in kept and kept["label_entropy, control"].runs == 6
    assert kept["churn, calm"].n is None and kept["label_entropy, calm"].n == 5
    expected = {
        "churn, linear",
        "reduction, placebo",
        "reduction_unstable, rash",
        "positive_flips, idle",
    }
    assert expected <= kept.keys() and not any(key.startswith("p,") for key in kept)
    assert kept["reduction_unstable, calm"].n == 5
    of_ensembles = table.iloc[:1].assign(n=3, behind="2 ensembles of 6 runs")
    told = {number.key: number for number in numbers(of_ensembles)}
    assert told["reduction, calm"].n == told["label_entropy, calm"].n == 3
    assert (
        told["churn, calm"].behind == "2 ensembles of 6 runs" and kept["churn, calm"].behind == ""
    )
    only = numbers(table, ["churn"])
    assert [number.key for number in only] == [f"churn, {name}" for name in table.arm]


def test_a_board_can_be_tested_again_from_its_record(table):
    """se and df are enough to make p-values and Holm's correction anew."""
    kept = {number.key: number for number in numbers(table.reset_index())}
    raw = [kept[f"reduction, {name}"].interval.p_value() for name in ARMS]
    assert multipletests(raw, method="holm")[1] == pytest.approx([table.p[name] for name in ARMS])


def test_a_board_in_words_and_for_readers(table):
    table = table.reset_index()
    calm, gone = described(table, ["calm", "gone"]).split("\n")
    change, accuracy = table.reduction[0], table.accuracy_change[0]
    share = f"{100 * change.value:.1f} % [{100 * change.low:.1f}, {100 * change.high:.1f}]"
    points = f"{100 * accuracy.value:+.2f} points [{100 * accuracy.low:+.2f}, "
    assert calm.startswith(f"calm: reduces label entropy by {share}; accuracy {points}")
    assert f"calibration error {table.ece[0].value:.3f} (control " in calm
    assert calm.endswith("better: holds") and gone == "gone: not retrained here"
    assert "control: reduces label entropy by not measured" not in described(table, ["calm"])
    columns = {"arm": "method", "p": "p", "trainings": "price", "reduction": "saved", "no": "x"}
    shown = readable(table, columns | {"label_entropy": "LE", "accuracy_change": "points"})
    assert list(shown) == ["method", "p", "price", "saved", "LE", "points"]
    entropy = str(records.shown(records.number("label_entropy", table.label_entropy[0])))
    assert table.p[0] < 0.0005
    assert shown.iloc[0].tolist()[:5] == ["calm", "< 0.001", "2", share, entropy]
    by_hand = pd.DataFrame({"p": [0.0005, 0.04, np.nan]})
    assert readable(by_hand, {"p": "p"}).p.tolist() == ["0.001", "0.040", ""]
    assert shown.points[0].startswith(points) and shown.iloc[-1].tolist()[:4] == [
        "control",
        "",
        "1",
        "",
    ]


def test_cells_for_readers():
    wide = Interval(0.05, 0.025, 0.075, 5)
    row = {"p_accuracy": 0.0004, "noise": 0.05, "cpu_ratio": 1.0, "share_left": 0.5, "passes": 2.0}
    row |= {"over_anchor": wide, "churn": wide, "nll": wide, "x": wide, "arm": "a %", "p": 0.25}
    table = pd.DataFrame([row])
    assert readable(table, {name: name for name in row}).iloc[0].to_dict() == {
        "p_accuracy": "< 0.001",
        "noise": "5.0 %",
        "cpu_ratio": "1.00",
        "share_left": "0.50",
        "passes": "2",
        "over_anchor": "+5.00 points [+2.50, +7.50]",
        "churn": "5.0 % [2.5, 7.5]",
        "nll": "0.050 [0.025, 0.075]",
        "x": "0.050 [0.025, 0.075]",
        "arm": "a %",
        "p": "0.250",
    }


def test_votes_are_at_most_the_runs_of_either_arm():
    few = arm(0.3, runs=3, start=40, name="few")
    assert reduction(CONTROL, few) == reduction(CONTROL, few, n=3)
    assert reduction(few, CONTROL) == reduction(few, CONTROL, n=3)
    assert entropy_change(CONTROL, ARMS["calm"], HARD, n=3).value == pytest.approx(
        entropy_at(3)(ARMS["calm"].labels)[HARD].mean() - entropy_at(3)(CONTROL.labels)[HARD].mean()
    )
    saved_at = [reduction(CONTROL, ARMS["calm"], n=votes).value for votes in (3, 5)]
    assert saved_at[0] != saved_at[1]


def test_all_queries_or_one_may_be_the_most_unstable():
    labels = CONTROL.labels[:, :10]
    assert unstable(labels, top=1).tolist() == list(range(10))
    assert unstable(labels, top=0.01).tolist() == [metrics.label_entropy(labels).argmax()]


def test_of_equally_unstable_queries_the_first_are_taken():
    one_odd = np.zeros((3, 400), int)
    one_odd[0] = np.random.default_rng(0).random(400) < 0.5  # every second query, of one entropy
    assert unstable(one_odd, top=0.25).tolist() == np.flatnonzero(one_odd[0])[:100].tolist()


def test_a_reduction_by_itself_is_the_boards_and_a_change_that_of_some_examples(table):
    assert reduction(CONTROL, ARMS["rash"]) == table.reduction["rash"]
    assert reduction(CONTROL, ARMS["calm"], n=3).runs == 6
    where = GOLD == 2
    labels = [runs.labels[:, where] for runs in (CONTROL, ARMS["calm"])]
    seeds = [CONTROL.seeds, ARMS["calm"].seeds]
    found = entropy_change(CONTROL, ARMS["calm"], where)
    expected = plain.interval(lambda old, new: new - old, entropy_at(5), labels, seeds)
    plain.alike(found, expected)
    assert found.value < 0  # the calm one is more stable
    with pytest.raises(InputError, match="runs of small: got 2"):
        entropy_change(CONTROL, arm(0.1, runs=2, name="small"), where)


def test_one_arm_saves_more_than_another():
    arms = [CONTROL, ARMS["calm"], ARMS["rash"]]
    labels, seeds = [runs.labels for runs in arms], [runs.seeds for runs in arms]
    expected = plain.interval(lambda c, a, b: (b - a) / c, entropy_at(4), labels, seeds)
    found = reduction_gap(*arms, n=4)
    plain.alike(found, expected, rel=0.05)
    assert reduction_gap(CONTROL, *arms[:0:-1], n=4).value == pytest.approx(-expected.value)
    least = reduction(CONTROL, ARMS["calm"]).value - reduction(CONTROL, ARMS["rash"]).value
    assert reduction_gap(*arms).value == pytest.approx(least)
    arms[2] = ARMS["idle"]  # six runs each
    assert reduction_gap(*arms).value == reduction_gap(*arms, n=5).value


def test_groups_of_queries_change_by_themselves():
    groups = {"hard": HARD, "easy": ~HARD}
    found = entropy_changes(CONTROL, ARMS["calm"], groups)
    assert list(found) == ["hard", "easy"]
    assert found["hard"] == entropy_change(CONTROL, ARMS["calm"], HARD) != found["easy"]
    churns = [metrics.churn(runs.labels[:, HARD]) for runs in (CONTROL, ARMS["calm"])]
    assert churn_change(CONTROL, ARMS["calm"], HARD).value == pytest.approx(churns[1] - churns[0])


def test_what_a_board_says_in_three_sentences(table):
    table = table.reset_index()
    told = answer(table).split("\n")
    assert told[0].startswith("1 of 3 methods is significantly more stable than control")
    words = described(table, ["calm"])
    share, points = (re.search(pattern, words)[1] for pattern in (r"by (.*?);", r"accuracy (.*?);"))
    assert told[1] == (
        f"The largest reduction of label entropy of these is that of calm: {share}, at an accuracy "
        f"change of {points}, for 2 trainings."
    )
    assert told[2] == "Not more stable, or not as accurate: rash."  # idle is undecided
    assert better(table) == "calm" and better(table[1:]) == named([]) == "none"
    worse = table.assign(better=table.better.replace("undecided at 6 runs", "does not hold"))
    assert answer(worse).endswith(f"as accurate: {', '.join(table.arm[1:3])}.")
    assert named(["a", "b"]) == "a, b"
    last = table.assign(better=(table.arm == "rash").map({True: "holds", False: ""}))
    assert "of these is that of rash" in answer(last)
    unknown = table.assign(reduction=None)
    assert "calm: reduces label entropy by not measured; accuracy" in described(unknown, ["calm"])
    two = table.assign(better=table.arm.isin(["calm", "idle"]).map({True: "holds", False: ""}))
    assert answer(two).startswith("2 of 3 methods are ") and len(answer(two).split("\n")) == 2
    none = answer(table[table.arm != "calm"].assign(trainings=1.0))
    assert "0 of 2 methods are" in none and "label entropy of all is that of" in none


def test_a_reduction_of_nothing_is_none():
    still = replace(CONTROL, labels=np.where(GOLD == 3, CONTROL.labels, GOLD))
    once = np.tile(GOLD, (6, 1))
    once[0, 0], once[1, 1] = 1, 2
    odd = replace(CONTROL, labels=once)
    assert reduction(odd, ARMS["calm"]).value < 0
    assert reduction(still, ARMS["calm"]).value < 1
    nothing = metrics.scores.churn(np.tile(GOLD, (6, 1)))
    assert metrics.scores.reduction(nothing, nothing) is None


def test_an_intent_of_few_queries_is_not_harmed_beyond_doubt():
    """Five queries that all turn wrong show no spread; a sign test of five gives 1/16."""
    gold = np.r_[np.zeros(5, int), np.ones(40, int)]
    right = np.tile(gold, (6, 1))
    right[np.arange(6), 10 + np.arange(6)] = 2  # each run errs on one of the others
    wrong = np.where(gold == 0, 2, right)
    seeds = np.arange(6)
    pair = [of_answers(name, labels, gold, seeds) for name, labels in (("a", right), ("b", wrong))]
    table = who_pays(*pair, ["few", "many", "none"]).set_index("intent")
    assert table.p["few"] == 2 * 2**-4 and not table.harmed["few"]  # of two intents, Holm
    assert table.accuracy_change["few"].value == -1

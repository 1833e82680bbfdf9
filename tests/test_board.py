from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from stabutils import metrics
from stabutils.analysis import updates
from stabutils.analysis.board import (
    board,
    change,
    claims,
    described,
    found,
    readable,
    reduction,
    unstable,
    who_pays,
)
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, jackknife, jackknife_arms
from stabutils.records import numbers
from stabutils.study.runs import Runs

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
):
    """Runs that answer a hard example wrong with probability `flip`, and one of the last intent with `hurt`."""
    draw = np.random.default_rng([start, runs, int(100 * flip), int(100 * hurt)])
    wrong = draw.random((runs, EXAMPLES)) < np.where(HARD, flip, 0.02)
    wrong |= (draw.random((runs, EXAMPLES)) < hurt) & (GOLD == CLASSES - 1)
    labels = np.where(wrong, (GOLD + draw.integers(1, CLASSES, (runs, EXAMPLES))) % CLASSES, GOLD)
    shares = 0.1 + 0.6 * np.eye(CLASSES, dtype=np.float32)[labels]
    zeros = np.zeros((runs, EXAMPLES))
    return Runs(
        arm=name,
        names=tuple(f"{name}-{s}" for s in range(start, start + runs)),
        seeds=np.arange(start, start + runs),
        gold=GOLD,
        labels=labels,
        validation_labels=labels,
        accuracy=metrics.accuracy(labels, GOLD),
        nll=metrics.nll(shares, GOLD),
        ece=metrics.ece(shares, GOLD),
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


@pytest.fixture(scope="module")
def table():
    convex = np.where(np.arange(EXAMPLES) < 6, (GOLD + 1) % CLASSES, GOLD)
    return board(
        CONTROL, ARMS, placebo=PLACEBO, convex=convex, costs={"calm": (2.0, 1.0)}
    ).set_index("arm")


def same(one: Interval, other: Interval):
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_rows_and_their_order(table):
    assert list(table.index) == [
        "calm",
        *sorted(["idle", "rash"], key=lambda name: -table.reduction[name].value),
        "placebo",
        "convex",
        "control",
    ]
    assert table.runs.tolist() == [6] + [len(ARMS[name]) for name in table.index[1:3]] + [6, 1, 6]
    assert (
        table.trainings["calm"] == 2
        and table.trainings["control"] == 1
        and np.isnan(table.trainings["rash"])
    )
    assert table.columns[1] == "label_entropy@5"


@pytest.mark.parametrize("name", [*ARMS, "placebo"])
def test_reduction_equals_the_plain_computation(table, name):
    runs = (ARMS | {"placebo": PLACEBO})[name]

    def statistic(before, after, n=4):
        before, after = (
            metrics.label_entropy(labels, min(n, len(labels))).mean() for labels in (before, after)
        )
        return 1 - after / before

    seeds = [CONTROL.seeds, runs.seeds]
    same(
        board(CONTROL, {"it": runs}, n=4).reduction[0],
        jackknife_arms(statistic, [CONTROL.labels, runs.labels], seeds),
    )
    if name != "placebo":
        some = unstable(PLACEBO.labels)
        plain = jackknife_arms(
            lambda before, after: statistic(before, after, 5),
            [CONTROL.labels[:, some], runs.labels[:, some]],
            seeds,
        )
        same(table.reduction_unstable[name], plain)


@pytest.mark.parametrize("name", ARMS)
def test_an_arms_own_numbers(table, name):
    runs, row = ARMS[name], table.loc[name]
    same(row["churn"], jackknife(metrics.churn, runs.labels))
    assert row["right_to_wrong"].value + row["wrong_to_wrong"].value == pytest.approx(
        metrics.churn(runs.labels)
    )
    assert row["right_to_wrong"].value == pytest.approx(
        metrics.churn_parts(runs.labels, GOLD)["right_to_wrong"]
    )
    between = metrics.churn_between(CONTROL.labels, runs.labels, GOLD)
    assert (row["good"].value, row["bad"].value) == pytest.approx((between["good"], between["bad"]))
    same(row["accuracy"], jackknife(np.mean, runs.accuracy))
    same(row["nll"], jackknife(np.mean, runs.nll))
    assert row["ece"].value == pytest.approx(runs.ece.mean())
    same(row["jensen_shannon"], jackknife(metrics.jensen_shannon, runs.probabilities))
    assert row["accuracy_change"].value == pytest.approx(
        runs.accuracy.mean() - CONTROL.accuracy.mean()
    )


@pytest.mark.parametrize("name", ARMS)
def test_churn_reduction_equals_the_plain_computation(table, name):
    same(
        table.churn_reduction[name],
        jackknife_arms(
            lambda before, after: 1 - metrics.churn(after) / metrics.churn(before),
            [CONTROL.labels, ARMS[name].labels],
            [CONTROL.seeds, ARMS[name].seeds],
        ),
    )


def test_p_is_adjusted_over_the_methods_only(table):
    raw = [table.reduction[name].p_value() for name in ARMS]
    assert [table.p[name] for name in ARMS] == pytest.approx(multipletests(raw, method="holm")[1])
    assert table.p[["placebo", "convex", "control"]].isna().all()


def test_verdicts(table):
    assert table.better["calm"] == table.guard["calm"] == "holds"
    assert table.better["rash"] == table.guard["rash"] == "does not hold"
    assert table.better["idle"] != "holds"
    assert pd.isna(table.better["placebo"])


def test_what_only_holds_unadjusted_is_undecided():
    slightly = arm(0.3, start=30, name="slightly")
    alone = board(CONTROL, {"slightly": slightly})
    crowd = {f"idle {i}": arm(0.5, start=10 * i, name="idle") for i in range(4, 24)}
    among = board(CONTROL, {"slightly": slightly, **crowd}).set_index("arm").loc["slightly"]
    assert (
        alone.p[0] < 0.05 < among.p
        and alone.better[0] == "holds"
        and among.better == "undecided at 6 runs"
    )


def test_stable_but_wrong_is_not_better():
    constant = replace(
        ARMS["calm"], labels=np.where(HARD, (GOLD + 1) % CLASSES, GOLD) + np.zeros((6, 1), int)
    )
    row = board(CONTROL, {"constant": constant}).iloc[0]
    assert row.reduction.value == 1 and row["label_entropy@5"].value == 0
    assert row.guard == row.better == "does not hold"


def test_the_convex_learner(table):
    row = table.loc["convex"]
    assert row["label_entropy@5"].value == row.churn.value == 0
    assert row.reduction.value == row.churn_reduction.value == 1
    assert row.accuracy.value == 0.9 and row.accuracy_change.value == pytest.approx(
        0.9 - CONTROL.accuracy.mean()
    )
    right = CONTROL.labels == GOLD
    assert row.bad.value == pytest.approx(right[:, :6].sum() / right.size)
    assert row.good.value == pytest.approx((~right[:, 6:]).sum() / right.size)
    assert row.better == "holds"


def test_unstable_examples_are_chosen_on_runs_that_are_not_scored(table):
    assert table.reduction_unstable.isna()[["placebo", "control", "convex"]].all()
    chooser = arm(0.9, start=200, name="chooser")
    other = board(CONTROL, ARMS, placebo=PLACEBO, chooser=chooser, top=0.2).set_index("arm")
    assert not pd.isna(other.reduction_unstable["placebo"])
    assert "reduction_unstable" not in board(CONTROL, ARMS)
    assert HARD[unstable(chooser.labels, 0.2)].all() and len(unstable(chooser.labels, 0.2)) == 12
    for wrong in (0, 1.5):
        with pytest.raises(InputError, match="top: got"):
            unstable(PLACEBO.labels, wrong)


def test_what_is_refused():
    with pytest.raises(InputError, match="runs of few: got 2; expected at least 3"):
        board(CONTROL, {"few": arm(0.1, runs=2)})
    with pytest.raises(InputError, match="gold labels of other"):
        board(CONTROL, {"other": replace(ARMS["calm"], gold=GOLD[::-1])})
    with pytest.raises(InputError, match="seeds of placebo: got .*; expected fresh runs"):
        board(CONTROL, ARMS, placebo=arm(0.5, start=5))
    with pytest.raises(InputError, match="seeds of chooser: got .*; expected runs that choose"):
        board(CONTROL, ARMS, placebo=PLACEBO, chooser=arm(0.5, start=101))
    with pytest.raises(InputError, match="seeds of placebo: got .*; expected runs that choose"):
        board(CONTROL, {"late": arm(0.1, start=100)}, placebo=PLACEBO)
    with pytest.raises(
        InputError, match="control runs that answer otherwise than most: got 0; expected at least 2"
    ):
        board(replace(CONTROL, labels=np.tile(GOLD, (6, 1))), ARMS)
    with pytest.raises(InputError, match="name of an arm: got 'placebo'"):
        board(CONTROL, {"placebo": ARMS["calm"]})
    with pytest.raises(InputError, match="shape of convex"):
        board(CONTROL, ARMS, convex=[0, 1])


def test_published_runs_have_no_probabilities():
    table = board(arm(0.5, probabilities=False), {"calm": arm(0.1, probabilities=False)})
    assert "jensen_shannon" not in table and table.nll[0].value > 0


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


def test_a_record_keeps_every_interval_and_the_boards_own_verdicts(table):
    table = table.reset_index()
    kept = numbers(found(table))  # every name has a unit
    assert (
        kept["reduction calm"]["value"] == table.reduction[0].value
        and kept["trainings calm"]["value"] == 2
    )
    assert "trainings rash" not in kept and kept["label_entropy@5 control"]["runs"] == 6
    assert {
        "churn convex",
        "reduction placebo",
        "reduction_unstable rash",
        "good idle",
    } <= kept.keys()
    assert {claim.name: claim.verdict for claim in claims(table)} == {
        f"better {row.arm}": row.better for row in table.itertuples() if row.arm in ARMS
    }
    assert str(table.reduction[0]) in claims(table)[0].sentence


def test_a_board_in_words_and_for_readers(table):
    table = table.reset_index()
    calm, gone = described(table, ["calm", "gone"]).split("\n")
    change, accuracy = table.reduction[0], table.accuracy_change[0]
    assert calm.startswith(f"calm: takes away {100 * change.value:+.1f} [{100 * change.low:+.1f}, ")
    assert f"accuracy {100 * accuracy.value:+.1f} [" in calm and calm.endswith("better: holds")
    assert gone == "gone: not retrained here"
    shown = readable(table, ["arm", "p", "trainings", "reduction", "nothing"])
    assert list(shown) == ["arm", "p", "trainings", "reduction"]
    assert shown.iloc[0].tolist() == ["calm", f"{table.p[0]:.3f}", "2", str(change)]
    assert shown.iloc[-1].tolist() == ["control", "", "1", ""]


def test_a_reduction_by_itself_is_the_boards_and_a_change_that_of_some_examples(table):
    assert reduction(CONTROL, ARMS["rash"]) == table.reduction["rash"]
    assert reduction(CONTROL, ARMS["calm"], n=3).runs == 6
    where = GOLD == 2
    entropies = [
        metrics.label_entropy(runs.labels, 5)[where].mean() for runs in (CONTROL, ARMS["calm"])
    ]
    found = change(CONTROL, ARMS["calm"], where)
    assert (
        found.value == pytest.approx(entropies[1] - entropies[0])
        and found.low < found.value < found.high
    )
    with pytest.raises(InputError, match="runs of small: got 2"):
        change(CONTROL, arm(0.1, runs=2, name="small"), where)


def test_an_update_is_held_against_the_one_network_before_it():
    before, after = arm(0.5, runs=1, start=900), {"calm": ARMS["calm"], "rash": ARMS["rash"]}
    rows = updates.board(before, after).set_index("arm")
    for name, runs in after.items():
        differs = (runs.labels != before.labels[0]).mean(axis=1)
        low, high = stats.t.interval(0.95, len(runs) - 1, differs.mean(), stats.sem(differs))
        same(rows.churn[name], Interval(differs.mean(), low, high, len(runs)))
        lost = ((before.labels[0] == GOLD) & (runs.labels != GOLD)).mean()
        won = ((before.labels[0] != GOLD) & (runs.labels == GOLD)).mean()
        assert (rows.bad[name].value, rows.good[name].value) == pytest.approx((lost, won))
        change = rows.churn_change[name]
        assert (
            change is None
            if name == "calm"
            else change.value == pytest.approx(rows.churn["rash"].value - rows.churn["calm"].value)
            and change.low > 0
        )  # the rash are farther from it
        assert rows.churn_among[name].value == metrics.churn(runs.labels) and rows.runs[
            name
        ] == len(runs)
    with pytest.raises(InputError, match="runs before: got 6"):
        updates.board(CONTROL, after)

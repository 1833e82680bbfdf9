"""What ensembles buy against their own members, the vote model, and the frontier; refusing what is doubted."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny
from test_ensembles import labels_only, pool

from stabutils import metrics
from stabutils.analysis import ensembles, frontier, reliability
from stabutils.analysis.board import board
from stabutils.analysis.ensembles import Pool, ensemble, measured, share
from stabutils.analysis.frontier import choose, dominated
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, delete_a_group, divisions, jackknife
from stabutils.metrics.votes import HOW, combine, partition, vote, vote_model
from stabutils.mitigations import Mitigation
from stabutils.study.study import Study
from stabutils.training import preparation
from stabutils.training.loop import train
from stabutils.training.probes import PROBES
from stabutils.training.state import Seeds

RUNS = pool(12, 80)


@pytest.mark.parametrize("how", HOW)
def test_a_pool_answers_as_its_ensembles_do(how):
    """Fails if examples on which all runs agree are not what every ensemble answers, or members are mixed up."""
    for seed in range(3):
        assert np.array_equal(
            Pool(RUNS, how).answers(partition(12, 3, seed)), ensemble(RUNS, 3, how, seed).labels
        )
    runs, groups = labels_only(RUNS), partition(12, 4, 1)
    assert np.array_equal(Pool(runs, "vote").answers(groups), ensemble(runs, 4, "vote", 1).labels)
    with pytest.raises(InputError, match="expected vote"):
        Pool(runs)


def plain(runs, kept, size, n, partitions=20):
    """LE and churn of ensembles over partitions of the runs kept, as slowly as it can be said."""
    entropies, churns = [], []
    for seed in range(partitions):
        groups = kept[partition(len(kept), size, seed)]
        labels = np.stack([combine(runs.probabilities[members]).argmax(-1) for members in groups])
        entropies.append(metrics.label_entropy(labels, min(n, len(labels))).mean())
        churns.append(metrics.churn(labels))
    return np.mean(entropies), np.mean(churns)


def test_what_is_measured_equals_the_plain_computation():
    """Fails if control is scored at other votes, if the same group is not left out of both, or means are of one
    partition."""

    def reduction(kept, n=3):
        replicas = len(kept) // 4
        before = metrics.label_entropy(RUNS.labels[kept], min(n, replicas)).mean()
        return 1 - plain(RUNS, kept, 4, n)[0] / before

    found = Pool(RUNS).measure(4, n=5)
    by_hand = delete_a_group(reduction, np.arange(12), groups=divisions(np.zeros(12), 3))
    assert (found["reduction"].value, found["reduction"].low) == pytest.approx(
        (by_hand.value, by_hand.low)
    )
    assert found["churn"].value == pytest.approx(plain(RUNS, np.arange(12), 4, 5)[1])
    assert found["reduction"].df == 2 and found["label_entropy"].value == pytest.approx(
        plain(RUNS, np.arange(12), 4, 3)[0]
    )
    right = np.mean([ensemble(RUNS, 4, seed=seed).accuracy.mean() for seed in range(20)])
    assert found["accuracy"].value == pytest.approx(right)
    assert found["accuracy_change"].value == pytest.approx(right - RUNS.accuracy.mean())


def test_two_replicas_have_an_interval_over_examples_that_says_so():
    found = Pool(RUNS).measure(6)
    assert all(interval.note == "these two models only" for interval in found.values())
    assert found["reduction"].value == pytest.approx(
        found["churn_reduction"].value
    )  # two votes: churn times log 2
    assert found["reduction"].low < found["reduction"].value < found["reduction"].high
    assert measured(Pool(RUNS), [6]).guard[0] == "undecided at 2 runs"
    with pytest.raises(
        InputError, match="size of an ensemble: got 7; expected an integer from 2 to 6"
    ):
        Pool(RUNS).measure(7)


def test_only_some_queries():
    some = np.arange(80) % 5 == 0
    few = ensembles.only(RUNS, some)
    whole = Pool(RUNS).scores(np.arange(12), 3, 3)
    assert np.array_equal(Pool(few).scores(np.arange(12), 3, 3), whole[:, some])
    assert ensembles.only(labels_only(RUNS), some).probabilities is None
    half = ensembles.only(RUNS, kept=np.arange(1, 12, 2))
    assert np.array_equal(
        Pool(half).scores(np.arange(6), 3, 2), Pool(RUNS).scores(np.arange(1, 12, 2), 3, 2)
    )


def test_groups_are_measured_apart_and_share_what_churn_is_left():
    some, none = np.arange(80) % 5 == 0, np.zeros(80, bool)
    still = (RUNS.labels == RUNS.labels[0]).all(axis=0)
    groups = {"some": some, "none": none, "the rest": ~some & ~still, "still": ~some & still}
    table = ensembles.by_group(RUNS, groups, 3, "probability").set_index("queries")
    assert list(table.index) == ["some", "the rest", "still"] and table.number.sum() == 80
    alone = Pool(ensembles.only(RUNS, some)).measure(3, 2)
    assert (table.churn["some"], table.churn_reduction["some"]) == (
        alone["churn"],
        alone["churn_reduction"],
    )
    left = [row.number * row.churn.value for row in table.itertuples()]
    assert table.share_left.tolist() == pytest.approx([each / sum(left) for each in left])
    assert table.churn_reduction["still"] is None and table.share_left["still"] == 0


def test_sizes_of_a_text():
    assert ensembles.sizes_of("5, 2,3, 2", 10) == [2, 3, 5]
    for text in ("", "2, x", "1, 2", "6, 2", "4, 5", "2.0", "-2"):
        with pytest.raises(
            InputError,
            match="sizes: got .*; expected integers from 2 to 5, half of the runs, one of",
        ):
            ensembles.sizes_of(text, 10)


def test_identical_runs_have_nothing_to_take_away():
    same = replace(RUNS, labels=RUNS.labels[[0] * 12], probabilities=RUNS.probabilities[[0] * 12])
    found = Pool(same).measure(3)
    assert found["churn"].value == 0 and np.isnan(found["reduction"].value)


def test_the_interval_covers_what_other_pools_find():
    """Fails if the interval forgets that ensembles vary: the truth is the mean over many fresh pools."""
    pools = [pool(12, 60, seed=seed) for seed in range(20)]
    found = [Pool(runs).measure(3)["churn"] for runs in pools]
    truth = np.mean([interval.value for interval in found])
    assert np.mean([interval.low <= truth <= interval.high for interval in found]) >= 0.85
    assert np.mean([interval.se for interval in found]) < 1.8 * np.std(
        [interval.value for interval in found]
    )


def test_more_members_take_more_away():
    table = measured(Pool(pool(20, 200)), (2, 4, 5))
    assert np.all(np.diff([i.value for i in table.reduction]) > 0) and table.reduction[0].low > 0
    assert table.arm.tolist() == ["ensemble of 2", "ensemble of 4", "ensemble of 5"]
    assert table.n.tolist() == [5, 5, 4] and table.trainings.tolist() == [2, 4, 5]
    assert measured(Pool(RUNS, "vote"), [3]).arm[0] == "vote of 3"


def test_shares_of_the_largest():
    """Fails if the ratio's ends are of different runs: the whole is the whole in every deletion."""
    whole = share(Pool(RUNS), 4, 4)
    assert (whole.value, whole.low, whole.high) == pytest.approx((1, 1, 1))
    nothing = share(Pool(RUNS), RUNS, 4)
    assert (nothing.value, nothing.se) == pytest.approx((0, 0), abs=1e-12)
    half = share(Pool(RUNS), 2, 4, n=3)
    assert 0 < half.low < half.value < 1 and half.df == 2
    arm = replace(RUNS, labels=RUNS.labels[:5], seeds=RUNS.seeds[:5])
    assert (
        np.isfinite(share(Pool(RUNS), arm, 4).low) and share(Pool(RUNS), arm, 4).runs == 5
    )  # not those of the pool
    with pytest.raises(InputError, match="size of an ensemble: got 5; expected an integer up to 4"):
        share(Pool(RUNS), 2, 5)


# ---- the vote model


def odds(labels, size):
    """Of each query, the probability of each answer of an ensemble: every draw of `size` runs in every order."""
    runs, found = len(labels), np.zeros((labels.shape[1], labels.max() + 1))
    for members in itertools.product(range(runs), repeat=size):
        for query, answer in enumerate(vote(labels[list(members)])):
            found[query, answer] += runs**-size
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_vote_model_agrees_with_all_outcomes(size):
    """Fails if votes are drawn without replacement, shared between queries, or ties are not a fair coin."""
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
        real = Pool(some, "vote").scores(np.arange(30), size, 5).mean(1)[1]
        model = metrics.churn(vote_model(many.labels[30:], size, 20, np.random.default_rng(0)))
        assert model == pytest.approx(real, rel=0.12) and real < 0.9 * metrics.churn(many.labels)


def test_the_vote_model_refuses_nothing_to_draw():
    with pytest.raises(InputError, match="size and draws"):
        vote_model(RUNS.labels, 0, 5, np.random.default_rng(0))


# ---- the frontier


def interval(value):
    return Interval(value, value - 0.05, value + 0.05, 5, se=0.02, df=4)


def rows(*entries):
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "trainings": trainings,
                "passes": passes,
                "reduction": interval(taken),
                "accuracy_change": interval(accuracy),
                "guard": guard,
                "churn": interval(0.1 * (1 - taken)),
            }
            for arm, trainings, passes, taken, accuracy, guard in entries
        ]
    )


ROWS = rows(
    ("control", 1, 1, 0.0, 0.0, "holds"),
    ("calm", 1, 1, 0.1, 0.0, "holds"),
    ("twice", 2, 1, 0.1, 0.0, "holds"),
    ("rash", 1, 1, 0.5, -0.1, "does not hold"),
    ("five", 5, 5, 0.4, 0.01, "holds"),
    ("dear", 10, 10, 0.4, 0.01, "undecided at 5 runs"),
    ("best", 10, 10, 0.6, 0.02, "holds"),
)


def test_domination_by_hand():
    """Fails if a cost counts as a gain, if equals dominate one another, or accuracy is left out."""
    assert dominated(ROWS) == ["calm", "", "calm", "", "", "best", ""]
    assert dominated(pd.concat([ROWS[1:2], ROWS[1:2]], ignore_index=True)) == ["", ""]


def test_choosing_by_hand():
    assert choose(ROWS, 1, 1).arm.iloc[0] == "control" and set(choose(ROWS, 1, 1).arm) == {
        "control",
        "calm",
    }
    assert "rash" not in set(choose(ROWS, 100, 100).arm)
    assert choose(ROWS, 10, 1, churn=0.095).arm.tolist() == ["calm", "twice"]
    assert choose(ROWS, 10, 10, churn=0.05).arm.tolist() == ["best"]
    assert choose(ROWS, 10, 10, churn=0.01).empty


def test_the_frontier_of_a_study():
    control = pool(12, 80)
    arms = {"calm": replace(ensemble(control, 2), arm="calm")}
    table = board(
        control,
        arms,
        placebo=replace(pool(5, 80, seed=9), seeds=np.arange(100, 105)),
        convex=control.gold,
        costs={"calm": (2.0, 1.0)},
    )
    seconds = {"calm": 7.0, "convex": 1.0}
    found = frontier.frontier(
        control, measured(Pool(control), [2, 4]), table, seconds, {"calm": 2}, 0.01
    )
    assert (
        found.arm.tolist()[0] == "convex"
        and found.arm.tolist()[-1] == "control"
        and "placebo" not in set(found.arm)
    )
    rows = found.set_index("arm")
    assert rows.cpu_seconds.to_dict() == {
        "convex": 1.0,
        "ensemble of 4": 4 * 6.5,
        "ensemble of 2": 13.0,
        "calm": 7.0,
        "control": 6.5,
    }
    assert rows.latency["ensemble of 4"] == pytest.approx(0.04) and np.isnan(rows.latency["convex"])
    assert rows.networks.to_dict() == {
        "convex": 1,
        "ensemble of 4": 4,
        "ensemble of 2": 2,
        "calm": 2,
        "control": 1,
    }
    assert rows.dominated["convex"] == "" and "convex" not in set(rows.dominated)
    assert rows.dominated["control"] == ""  # nothing is as cheap
    assert rows.p[["convex", "control"]].isna().all() and rows.p.notna().sum() == 3
    assert rows.better["convex"] == "holds" and rows.better["ensemble of 2"] in (
        "holds",
        "undecided at 6 runs",
    )


def test_the_latency_is_that_of_one_query(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    assert (
        1e-2 < frontier.latency(Study(dataset=str(tiny.write_csv(tmp_path / "tiny.csv"))), 5) < 1000
    )


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


def test_foreign_texts_are_answered_by_runs_and_their_ensembles(tmp_path, monkeypatch):
    """Fails if they disturb the training, or an ensemble forgets them."""
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
    runs = replace(
        pool(4), extras={"out_of_scope": np.random.default_rng(0).dirichlet(np.ones(4), (4, 6))}
    )
    for members, found in zip(
        partition(4, 2), ensemble(runs, 2).extras["out_of_scope"], strict=True
    ):
        assert found == pytest.approx(runs.extras["out_of_scope"][members].mean(0))


def test_refusing_by_hand():
    values = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    doubt = np.array([[0.9, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
    found = [reliability.selective(values, doubt, share) for share in (0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0, (0 + 0.5) / 2, (1 / 3 + 2 / 3) / 2, (0.5 + 0.75) / 2])
    with pytest.raises(InputError, match="coverage: got 0; expected a share above 0"):
        reliability.selective(values, doubt, 0)


def test_the_curve_ends_at_churn_and_error():
    """Fails if churn among the answered is not churn when all is answered, or the doubted come first."""
    runs = pool(8, 200)
    table = reliability.curve(runs)
    assert reliability.otherwise(runs.labels).mean() == pytest.approx(metrics.churn(runs.labels))
    last = table.iloc[-1]
    assert last.churn.value == pytest.approx(metrics.churn(runs.labels))
    assert str(last.churn) == str(jackknife(metrics.churn, runs.labels))
    assert str(last.error) == str(jackknife(np.mean, 1 - runs.accuracy))
    assert table.churn[0].high < last.churn.low and table.error[0].high < last.error.low
    with pytest.raises(InputError, match="runs: got 2; expected at least 3"):
        reliability.curve(ensemble(runs, 4))

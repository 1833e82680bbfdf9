"""Ensembles: their members, what they answer and save, and those within one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import plain
import pytest
import tiny
import torch

from stabutils import metrics
from stabutils.analysis import board, ensembles
from stabutils.analysis.ensembles import Pool, ensemble, share
from stabutils.errors import InputError
from stabutils.metrics.intervals import divisions
from stabutils.metrics.votes import HOW, combine, partition, vote
from stabutils.mitigations import Composed, Mitigation, describe, identity
from stabutils.mitigations.snapshots import Checkpoints, Snapshots
from stabutils.study.runs import Runs, take
from stabutils.training import files
from stabutils.training.loop import predict, train
from stabutils.training.state import Seeds


def pool(
    runs: int = 8, examples: int = 60, classes: int = 4, seed: int = 0, noise: float = 1.5
) -> Runs:
    """Runs that are right on most examples and disagree on some."""
    draw, gold = np.random.default_rng(seed), np.arange(examples) % classes

    def answers():
        logits = 2 * np.eye(classes)[gold] + noise * draw.normal(size=(runs, examples, classes))
        return (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)

    test, validation = answers(), answers()
    each = np.zeros((runs, examples))
    return Runs(
        arm="control",
        names=tuple(f"run {s}" for s in range(runs)),
        seeds=np.arange(runs),
        gold=gold,
        labels=test.argmax(-1),
        validation_labels=validation.argmax(-1),
        accuracy=metrics.accuracy(test.argmax(-1), gold),
        nll=metrics.nll(test, gold),
        ece=metrics.ece(test, gold),
        cpu_seconds=np.arange(runs) + 1.0,
        doubt=1 - test.max(-1),
        checkpoint_entropy=each,
        confidence_mean=each,
        confidence_spread=each,
        probabilities=test,
        validation_probabilities=validation,
    )


def labels_only(runs: Runs) -> Runs:
    return replace(runs, probabilities=None, validation_probabilities=None)


RUNS = pool(12, 80)


# ---- members


# ---- what they answer


@pytest.mark.parametrize("how", HOW)
def test_an_ensemble_of_identical_members_is_the_member(how):
    """Fails if a member is left out, weighted by its place, or something is added to the mean."""
    one = pool(1)
    same = replace(
        one,
        **{
            name: np.repeat(getattr(one, name), 6, axis=0)
            for name in vars(one)
            if name not in ("arm", "names", "gold", "kept", "checkpoints", "confidence")
        },
    )
    found = ensemble(replace(same, seeds=np.arange(6)), 3, how)
    assert np.array_equal(found.labels, same.labels[:2]) and metrics.churn(found.labels) == 0
    if how != "vote":
        assert found.probabilities == pytest.approx(same.probabilities[:2], abs=1e-6)
        assert found.nll == pytest.approx(same.nll[:2]) and found.doubt == pytest.approx(
            same.doubt[:2], abs=1e-6
        )


@pytest.mark.parametrize("how", HOW)
def test_replicas_are_what_their_members_make(how):
    """Fails if members and replicas are mixed up anywhere: each replica is put together again from
    the pool.
    """
    runs = pool()
    found = ensemble(runs, 3, how, seed=5)
    assert found.arm == f"Ensemble(size=3, how={how})" and len(found) == 2
    for i, members in enumerate(partition(8, 3, 5)):
        by_hand = combine(runs.probabilities[members], how)
        assert np.array_equal(found.probabilities[i], by_hand)
        assert np.array_equal(found.labels[i], by_hand.argmax(-1))
        assert found.accuracy[i] == np.mean(by_hand.argmax(-1) == runs.gold)
        assert found.seeds[i] == members[0]
    assert found.ece == pytest.approx(metrics.ece(found.probabilities, runs.gold))


def test_members_of_one_training_and_of_many_are_better_than_one():
    """The mean of independent errors: fails if all members of a replica are the same run."""
    runs = pool(30, 400)
    found = ensemble(runs, 10)
    assert found.accuracy.mean() > runs.accuracy.mean() + 0.05
    assert metrics.churn(found.labels) < 0.7 * metrics.churn(runs.labels)


def test_published_runs_can_vote_and_nothing_else():
    runs = labels_only(pool())
    for how in ("probability", "logit"):
        with pytest.raises(
            InputError, match="how: got .*; expected vote: these published runs have labels"
        ):
            ensemble(runs, 2, how)
    found = ensemble(runs, 4, "vote")
    members = partition(8, 4)[0]
    assert np.array_equal(found.labels[0], vote(runs.labels[members], runs.doubt[members]))
    assert found.doubt[0] == pytest.approx(np.mean(runs.labels[members] != found.labels[0], axis=0))
    assert np.isnan(found.nll).all() and found.probabilities is None
    assert found.accuracy == pytest.approx(metrics.accuracy(found.labels, runs.gold))


def test_a_board_takes_them_as_any_arm():
    runs = pool(12)
    for arm in (ensemble(runs, 3), ensemble(labels_only(runs), 3, "vote")):
        row = board.board(runs, {"three": arm}).set_index("arm").loc["three"]
        assert row.runs == 4 and row.churn.value == pytest.approx(metrics.churn(arm.labels))


# ---- what they save


@pytest.mark.parametrize("how", HOW)
def test_a_pool_answers_as_its_ensembles_do(how):
    """Fails if queries on which all runs agree are not what every ensemble answers."""
    for seed in range(3):
        found = Pool(RUNS, how).answers(partition(12, 3, seed))
        assert np.array_equal(found, ensemble(RUNS, 3, how, seed).labels)
    runs, groups = labels_only(RUNS), partition(12, 4, 1)
    assert np.array_equal(Pool(runs, "vote").answers(groups), ensemble(runs, 4, "vote", 1).labels)
    with pytest.raises(InputError, match="expected vote"):
        Pool(runs)


def slow_rows(runs, kept, size, n, partitions=20):
    """Entropy, disagreement and accuracy of each query, of ensembles and of single runs,
    plainly.
    """
    n, every = min(n, len(kept) // size), []
    for seed in range(partitions):
        groups = kept[partition(len(kept), size, seed)]
        labels = np.stack([combine(runs.probabilities[members]).argmax(-1) for members in groups])
        every.append(parts_of(labels, runs.gold, n))
    return np.concatenate([np.mean(every, axis=0), parts_of(runs.labels[kept], runs.gold, n)])


def parts_of(labels, gold, n):
    right = (labels == gold).mean(axis=0)
    return np.stack([metrics.label_entropy(labels, n), metrics.disagreement(labels), right])


BY_HAND = {
    "label_entropy": lambda entropy, churn, right, *single: entropy,
    "churn": lambda entropy, churn, right, *single: churn,
    "accuracy": lambda entropy, churn, right, *single: right,
    "reduction": lambda entropy, churn, right, *single: 1 - entropy / single[0],
    "churn_reduction": lambda entropy, churn, right, *single: 1 - churn / single[1],
    "accuracy_change": lambda entropy, churn, right, *single: right - single[2],
}


@pytest.mark.parametrize("size", [3, 4])
def test_what_is_measured_is_the_plain_computation(size):
    """Fails if single runs are scored at other votes, the same group is not left out of both, or
    means are of one partition; if queries are ignored, or cells are counted twice."""
    found, groups = Pool(RUNS).measure(size, n=5), 12 // size
    every, positions = slow_rows(RUNS, np.arange(12), size, 5), np.arange(12)
    divided = [
        np.stack([slow_rows(RUNS, positions[own != group], size, 5) for group in range(groups)])
        for own in divisions(np.zeros(12), groups)
    ]
    assert set(found) == set(BY_HAND)
    for name, function in BY_HAND.items():
        value = function(*every.mean(axis=1))
        of_runs, of_cells = [], []
        for without in divided:
            of_runs.append(plain.variance([function(*rows.mean(axis=1)) for rows in without]))
            cells = 0.0
            for query in range(80):
                moved = []
                for rows in without:
                    changed = every.copy()
                    changed[:, query] = rows[:, query]
                    moved.append(function(*changed.mean(axis=1)))
                cells += plain.variance(moved)
            of_cells.append(cells)
        of_queries = plain.variance(
            [function(*np.delete(every, query, axis=1).mean(axis=1)) for query in range(80)]
        )
        parts = np.mean(of_runs), of_queries
        both = max(*parts, sum(parts) - np.mean(of_cells))
        interval = found[name]
        assert interval.value == pytest.approx(value) and interval.runs == 12
        assert interval.over_runs.se**2 == pytest.approx(parts[0])
        assert interval.over_runs.df == groups - 1
        assert interval.se**2 == pytest.approx(both, rel=0.02)
        degrees = parts[0] ** 2 / (groups - 1) + parts[1] ** 2 / 79
        assert interval.df == pytest.approx(both**2 / degrees, rel=0.04)
    assert found["reduction"].high <= 1 and found["label_entropy"].low >= 0


def test_two_replicas_have_an_interval_over_queries_that_says_so():
    found = Pool(RUNS).measure(6)
    assert {interval.note for interval in found.values()} == {"these two models only"}
    assert found["reduction"].value == pytest.approx(found["churn_reduction"].value)  # two votes
    assert found["reduction"].low < found["reduction"].value < found["reduction"].high
    rows = slow_rows(RUNS, np.arange(12), 6, 5)
    left = [np.delete(rows, query, axis=1).mean(axis=1) for query in range(80)]
    deleted = [1 - means[0] / means[3] for means in left]
    assert found["reduction"].se ** 2 == pytest.approx(plain.variance(deleted))
    with pytest.raises(
        InputError, match="size of an ensemble: got 7; expected an integer from 2 to 6"
    ):
        Pool(RUNS).measure(7)


def test_only_some_queries():
    some = np.arange(80) % 5 == 0
    few = ensembles.only(RUNS, some)
    whole = Pool(RUNS).rows(np.arange(12), 3, 3)
    assert np.array_equal(Pool(few).rows(np.arange(12), 3, 3), whole[:, some])
    assert ensembles.only(labels_only(RUNS), some).probabilities is None
    half = take(RUNS, np.arange(1, 12, 2))
    assert np.array_equal(
        Pool(half).rows(np.arange(6), 3, 2), Pool(RUNS).rows(np.arange(1, 12, 2), 3, 2)
    )


def test_groups_are_measured_apart_and_share_what_churn_is_left():
    some, none = np.arange(80) % 5 == 0, np.zeros(80, bool)
    still = (RUNS.labels == RUNS.labels[0]).all(axis=0)
    groups = {"some": some, "none": none, "the rest": ~some & ~still, "still": ~some & still}
    table = ensembles.by_group(RUNS, groups, 3, "probability").set_index("queries")
    assert list(table.index) == ["some", "the rest", "still"] and table.number.sum() == 80
    alone = Pool(ensembles.only(RUNS, some)).measure(3, 2)
    for column in ("churn", "churn_reduction", "accuracy_change"):
        assert table[column]["some"] == alone[column]
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


def test_identical_runs_have_nothing_to_save():
    same = replace(RUNS, labels=RUNS.labels[[0] * 12], probabilities=RUNS.probabilities[[0] * 12])
    found = Pool(same).measure(3)
    assert found["churn"].value == 0 and np.isnan(found["reduction"].value)


def test_copies_of_the_queries_leave_the_value_and_what_runs_decide():
    doubled = ensembles.only(RUNS, np.tile(np.arange(80), 2))
    one, two = (Pool(runs).measure(3)["accuracy"] for runs in (RUNS, doubled))
    assert two.value == pytest.approx(one.value) and two.se <= one.se
    assert two.over_runs.se == pytest.approx(one.over_runs.se)


def test_more_members_save_more():
    table = ensembles.table(Pool(pool(20, 200)), (2, 4, 5))
    assert np.all(np.diff([i.value for i in table.reduction]) > 0) and table.reduction[0].low > 0
    assert table.arm.tolist() == ["ensemble of 2", "ensemble of 4", "ensemble of 5"]
    assert table.n.tolist() == [5, 5, 4] and table.trainings.tolist() == [2, 4, 5]
    assert table.passes.tolist() == [2, 4, 5] and table.runs.tolist() == [10, 5, 4]
    assert table.behind[1] == "5 ensembles of 20 runs"
    kept = {number.key: number for number in board.numbers(table)}
    assert [kept[f"reduction, ensemble of {size}"].n for size in (2, 4, 5)] == [5, 5, 4]
    assert kept["churn, ensemble of 4"].n is None
    assert kept["reduction, ensemble of 4"].sample == "5 ensembles of 20 runs"
    assert kept["passes, ensemble of 5"].value == 5
    assert ensembles.table(Pool(RUNS, "vote"), [3]).arm[0] == "vote of 3"
    assert ensembles.table(Pool(RUNS), [2, 3], passes=1).passes.tolist() == [3, 4]


def test_the_share_of_single_runs_is_nothing():
    nothing = share(Pool(RUNS), RUNS, 4)
    assert (nothing.value, nothing.se) == pytest.approx((0, 0), abs=1e-12)
    arm = replace(RUNS, labels=RUNS.labels[:5], seeds=RUNS.seeds[:5])
    found = share(Pool(RUNS), arm, 4)
    assert np.isfinite(found.low) and found.runs == 5  # not those of the pool
    with pytest.raises(InputError, match="size of an ensemble: got 5; expected an integer up to 4"):
        share(Pool(RUNS), RUNS, 5)


def test_the_share_of_an_arm_is_the_plain_ratio():
    arm = ensemble(pool(12, 80, seed=4), 2)
    fresh = replace(arm, seeds=np.arange(50, 56))
    rows, n = slow_rows(RUNS, np.arange(12), 3, 4), 4
    saved = 1 - metrics.label_entropy(fresh.labels, n).mean() / rows[3].mean()
    found = share(Pool(RUNS), fresh, 3, n)
    assert found.value == pytest.approx(saved / (1 - rows[0].mean() / rows[3].mean()))
    assert found.over_runs.df == 3 and found.speaks_of == "new runs and new queries"


# ---- one training

LONG = tiny.task(replace(tiny.RECIPE, epochs=6, warmup=0.05))  # 48 steps


@dataclass(frozen=True)
class Spy(Mitigation):
    """Calls back after each step and each epoch, and keeps hold of the training."""

    each: Callable = lambda training: None
    every: Callable = lambda training: None
    seen: list = field(default_factory=list)

    def step(self, training):
        self.seen[:] = [training]
        self.each(training)

    def epoch(self, training):
        self.every(training)


def network_of(training):
    """A copy of the weights as they are."""
    network = LONG.build()
    network.load_state_dict(training.model.state_dict())
    return network


def test_checkpoints_answer_with_the_networks_of_the_last_epochs_each_with_its_own_weights():
    """Fails if two share a key in memory, if a network answers with the base network's weights, or
    if the wrong epochs are kept; by the networks as they were then, not by what memory says.
    """
    kept = []
    spy = Spy(every=lambda training: kept.append(network_of(training)))
    answers = train(LONG, Composed((Checkpoints(4), spy)), Seeds(0, 1, 2))
    each = torch.stack([predict(network, LONG.test, LONG.recipe) for network in kept])
    assert answers["probabilities"] == pytest.approx(each[-4:].mean(0).numpy(), abs=1e-6)
    assert min((one - other).abs().max() for i, one in enumerate(each) for other in each[:i]) > 1e-3
    control = train(LONG, Mitigation(), Seeds(0, 1, 2))
    assert np.array_equal(each[-1].numpy(), control["probabilities"])  # its training is control's


def test_one_checkpoint_is_control_bit_for_bit():
    control = train(LONG, Mitigation(), Seeds(0, 1, 2))
    assert tiny.same(control, train(LONG, Checkpoints(1), Seeds(0, 1, 2)))
    assert identity(Checkpoints(1)) == [] and describe(Checkpoints()) == "Checkpoints(last=3)"


def test_snapshots_answer_with_the_networks_at_the_ends_of_the_cycles_each_with_its_own_weights():
    kept = {}
    spy = Spy(each=lambda training: kept.update({training.step: network_of(training)}))
    answers = train(LONG, Composed((Snapshots(3), spy)), Seeds(0, 1, 2))
    each = torch.stack([predict(kept[step], LONG.test, LONG.recipe) for step in (16, 32, 48)])
    assert answers["probabilities"] == pytest.approx(each.mean(0).numpy(), abs=1e-6)
    assert min((each[0] - each[1]).abs().max(), (each[1] - each[2]).abs().max()) > 1e-3
    validation = torch.stack(
        [predict(kept[step], LONG.validation, LONG.recipe) for step in (16, 32, 48)]
    ).mean(0)
    assert answers["validation_probabilities"] == pytest.approx(validation.numpy(), abs=1e-6)


def test_the_rate_of_snapshots_by_hand():
    """Fails if the rate does not rise again, or the warm-up is lost."""
    rates = []
    peak = LONG.recipe.learning_rate
    spy = Spy(each=lambda training: rates.append(training.optimizer.param_groups[0]["lr"] / peak))
    train(LONG, Composed((Snapshots(2), spy)), Seeds(0, 0, 0))
    cosine = (1 + np.cos(np.pi * np.arange(24) / 24)) / 2
    by_hand = np.tile(cosine, 2)
    by_hand[0] *= 0.5  # of two steps of warm-up
    assert rates == pytest.approx(by_hand.tolist())


@pytest.mark.parametrize(
    "keep, slots", [(1.0, [1, 2, 3]), (0.0, [2]), (0.5, [2, 3]), (0.6, [2, 3]), (0.9, [2, 3])]
)
def test_pruning_by_hand(keep, slots):
    """(1 - keep) * 0.9 + keep * 0.5: fails if the share counts the other way round."""
    memory = {"network.1.w": 0, "network.2.w": 0, "network.3.w": 0}
    memory |= {
        f"accuracy.{slot}": torch.tensor(value) for slot, value in ((1, 0.5), (2, 0.9), (3, 0.8))
    }
    if keep == 0.0:
        memory["accuracy.3"] = torch.tensor(0.89)
    assert Snapshots(3, keep).slots(SimpleNamespace(memory=memory)) == slots


def test_snapshots_of_one_accuracy_are_kept_whatever_rounding_does():
    one = torch.tensor(0.2)
    memory = {f"accuracy.{slot}": one for slot in range(3)}
    memory |= {f"network.{slot}.head": torch.zeros(1) for slot in range(3)}
    assert (1 - 0.1) * one.item() + 0.1 * one.item() > one.item()
    assert Snapshots(3, 0.1).slots(SimpleNamespace(memory=memory)) == [0, 1, 2]


def test_snapshots_are_judged_on_the_validation_split():
    spy = Spy()
    train(LONG, Composed((Snapshots(3, 0.5), spy)), Seeds(0, 0, 0))
    labels = predict(spy.seen[0].model, LONG.validation, LONG.recipe).argmax(1).numpy()
    expected = np.mean(labels == tiny.dataset().validation.labels)
    assert spy.seen[0].memory["accuracy.3"].item() == pytest.approx(expected)


def test_independent_votes_are_those_of_runs_that_are_independent():
    """Of single runs they are what these answer; by counting, dependent runs are no different."""
    draw = np.random.default_rng(0)
    apart = (draw.random((12, 3000)) < 0.3).astype(int)
    real = vote(apart.reshape(3, 4, -1))
    found = ensembles.independent(apart, {1, 3}, 4, seed=0)
    assert found[1] == pytest.approx(metrics.label_entropy(apart, 4).mean())
    assert found[3] == pytest.approx(metrics.label_entropy(real, 4).mean(), rel=0.05)
    pairs = np.repeat(apart[:6], 2, axis=0)  # of twelve runs six are the others once more
    dealt = [partition(12, 3, seed) for seed in range(200)]
    counted = [metrics.label_entropy(vote(pairs[groups.T]), 4).mean() for groups in dealt]
    expected = ensembles.independent(pairs, {3}, 4, seed=0)[3]
    assert np.mean(counted) == pytest.approx(expected, rel=0.03)


@dataclass(frozen=True)
class Kill(Mitigation):
    def epoch(self, training):
        if training.epoch == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mitigation", [Checkpoints(), Snapshots()], ids=describe)
def test_a_killed_one_goes_on_with_the_same_bits(mitigation, tmp_path):
    """Fails if something it needs later is kept elsewhere than in memory."""
    unfinished = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(LONG, Composed((mitigation, Kill())), Seeds(0, 1, 2), unfinished, save_every=0)
    arrays, _ = files.read_file(unfinished)
    assert any(name.startswith("memory.network.") for name in arrays)
    assert tiny.same(
        train(LONG, mitigation, Seeds(0, 1, 2)),
        train(LONG, mitigation, Seeds(0, 1, 2), unfinished, save_every=1e9),
    )


def test_what_they_cost():
    assert (
        Checkpoints(4).cost == (1.0, 4.0)
        and Snapshots(5).cost == (1.0, 5.0)
        and Snapshots(5).networks == 5
    )


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Checkpoints(0), "Checkpoints last: got 0; expected an integer of at least 1"),
        (lambda: Snapshots(2.5), "Snapshots cycles: got 2.5; expected an integer"),
        (lambda: Snapshots(3, 1.5), "Snapshots keep: got 1.5; expected a number from 0 to 1"),
        (lambda: Snapshots(3, float("nan")), "Snapshots keep: got nan"),
    ],
)
def test_bad_settings_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_too_few_runs_for_two_ensembles_leave_no_row_by_group():
    few = take(RUNS, np.arange(3))
    everyone = {"all": np.ones(RUNS.labels.shape[1], bool)}
    table = ensembles.by_group(few, everyone, 2, "vote")
    assert table.empty and {"queries", "churn", "share_left"} <= set(table.columns)
    assert len(ensembles.by_group(take(RUNS, np.arange(4)), everyone, 2, "vote")) == 1

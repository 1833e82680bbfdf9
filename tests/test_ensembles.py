"""Ensembles: who is a member of what, what they answer, and whose weights answer in those of one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from stabutils import metrics
from stabutils.analysis import board
from stabutils.analysis.ensembles import ensemble
from stabutils.errors import InputError
from stabutils.metrics.votes import HOW, combine, partition, vote
from stabutils.mitigations import Composed, Mitigation, describe, identity
from stabutils.mitigations.snapshots import Checkpoints, Snapshots
from stabutils.study.runs import Runs
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
    """Fails if members and replicas are mixed up anywhere: each replica is put together again from the pool."""
    runs = pool()
    found = ensemble(runs, 3, how, seed=5)
    assert found.arm == f"Ensemble(size=3, how={how})" and len(found) == 2 == len(set(found.names))
    for i, members in enumerate(partition(8, 3, 5)):
        by_hand = combine(runs.probabilities[members], how)
        assert np.array_equal(found.probabilities[i], by_hand)
        assert np.array_equal(found.labels[i], by_hand.argmax(-1))
        assert found.accuracy[i] == np.mean(by_hand.argmax(-1) == runs.gold)
        assert found.cpu_seconds[i] == np.sum(members + 1)
        assert found.seeds[i] == members[0]
        gold = runs.probabilities[members, :, :][:, np.arange(60), runs.gold]
        assert found.confidence_mean[i] == pytest.approx(gold.mean(0))
        validation = combine(runs.validation_probabilities[members], how)
        assert np.array_equal(found.validation_labels[i], validation.argmax(-1))
        assert found.checkpoint_entropy[i] == pytest.approx(
            metrics.label_entropy(runs.labels[members])
        )
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
    """Fails if two share a key in memory, if a network answers with the base network's weights, or if the wrong epochs
    are kept; by the networks as they were then, not by what memory says."""
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


def test_snapshots_are_judged_on_the_validation_split():
    spy = Spy()
    train(LONG, Composed((Snapshots(3), spy)), Seeds(0, 0, 0))
    labels = predict(spy.seen[0].model, LONG.validation, LONG.recipe).argmax(1).numpy()
    expected = np.mean(labels == tiny.dataset().validation.labels)
    assert spy.seen[0].memory["accuracy.3"].item() == pytest.approx(expected)


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

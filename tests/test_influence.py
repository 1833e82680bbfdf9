from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from stabutils.analysis import influence as module
from stabutils.analysis.influence import KEEP, influence, of_itself, of_runs
from stabutils.data.datasets import Split
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation, identity
from stabutils.mitigations.interventions import TurnedOver, TurnOver, Without, masks
from stabutils.mitigations.regularizers import EMA, SAM, MCDropout, RDrop
from stabutils.training import preparation
from stabutils.training.loop import evaluate, predict, train
from stabutils.training.networks import CompactShape
from stabutils.training.probes import PROBES
from stabutils.training.state import Seeds, one_hot

TASK = tiny.task(replace(tiny.RECIPE, epochs=1))
QUIET = CompactShape(
    width=16,
    layers=1,
    heads=2,
    buckets=128,
    input_dropout=0.0,
    dropout=0.0,
    skip=0.0,
    output_dropout=0.0,
    word_dropout=0.0,
)


# ---- masks


def test_a_mask_depends_on_the_index_and_the_seed_only():
    whole = masks(np.arange(50), 40)
    assert whole.dtype == bool and whole.shape == (50, 40)
    assert np.array_equal(masks([7, 3, 7], 40), whole[[7, 3, 7]])
    assert not np.array_equal(masks(np.arange(50), 40, seed=1), whole)
    assert len(np.unique(whole, axis=0)) == 50
    assert "".join(map(str, masks([5], 16)[0].astype(int))) == "1101110011100100"  # on every system


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_the_share_of_units_is_the_rate_for_examples_units_and_seeds(rate):
    whole = masks(np.arange(2000), 200, rate)
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(whole.mean() - rate) < 4 * deviation / np.sqrt(whole.size)
    for axis, of in (
        (0, 2000),
        (1, 200),
    ):  # no unit and no example is favoured, and the spread is a coin's
        shares = whole.mean(axis)
        assert np.abs(shares - rate).max() < 5 * deviation / np.sqrt(of)
        assert shares.std() == pytest.approx(deviation / np.sqrt(of), rel=0.25)
    other = masks(np.arange(2000), 200, rate, seed=1)
    assert abs((whole & other).mean() - rate**2) < 0.002  # of another seed: independent
    assert abs((whole[:-1] & whole[1:]).mean() - rate**2) < 0.002  # and neighbours


# ---- training


class Plain(torch.nn.Module):
    """Vectors as they come, and a head that shows them."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = vectors
        self.head = torch.nn.Identity()

    def features(self, tokens):
        return self.vectors

    def forward(self, tokens):
        return self.head(self.vectors)


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
def test_masked_vectors_are_in_the_mean_what_evaluation_sees(rate):
    """The scaling the authors' code has at one half only: with theirs the mean at 0.3 is 0.6 or 1.4
    of it.
    """
    network = TurnedOver(Plain(torch.linspace(1, 2, 50).repeat(4000, 1)), rate)
    network.owners = torch.arange(4000), 0
    seen = network(None)
    assert seen.mean(0).numpy() == pytest.approx(np.linspace(1, 2, 50), rel=0.15)
    assert seen.mean().item() == pytest.approx(1.5, rel=0.01)
    network.eval()
    assert torch.equal(network(None), network.network.vectors)
    network.train().owners = None
    assert torch.equal(network(None), network.network.vectors)


@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_both_halves_are_in_the_mean_the_whole(rate, monkeypatch):
    """By the score of a linear network, which is its vote: half and half of it, each scaled by its
    own share.
    """
    draw = np.random.default_rng(0)
    vector, weight = draw.random((1, 60)), draw.random((2, 60))
    owned = masks(np.arange(4000), 60, rate).astype(float)
    votes = (owned * vector) @ weight.T / rate, ((1 - owned) * vector) @ weight.T / (1 - rate)
    for half in votes:
        assert half.mean(0) == pytest.approx((weight * vector).sum(1), rel=0.01)
    seen = []
    monkeypatch.setattr(module, "log_softmax", lambda logits, axis: seen.append(logits) or logits)
    influence(vector, weight, np.zeros(2), [0], owned, rate)
    assert np.allclose(seen[0], votes[1], atol=1e-4) and np.allclose(seen[1], votes[0], atol=1e-4)


def test_an_example_trains_the_head_through_its_own_units_only():
    """Fails if a mask is not the example's, or is left out of a pass."""
    seen = {}

    class Looks(TurnOver):
        def gradient(self, training, backward):
            loss = super().gradient(training, backward)
            seen[training.step] = training.batch.indices, training.model.head.weight.grad.clone()
            return loss

    task = tiny.task(replace(tiny.RECIPE, epochs=1, batch_size=1))
    train(task, Looks(0.3), Seeds(4, 1, 2))
    for indices, gradient in seen.values():
        own = masks(indices.numpy(), 32, 0.3, seed=4)[0]
        assert (gradient[:, ~own] == 0).all() and (gradient[:, own] != 0).any()
    assert len(seen) == 60


def test_equal_seeds_give_equal_bits_also_after_an_interruption(tmp_path):
    class Dies(TurnOver):
        def epoch(self, training):
            if training.epoch == 1:
                raise KeyboardInterrupt

    task, keep, mitigation = tiny.task(), [PROBES[name] for name in KEEP], TurnOver(0.3)
    plain = train(task, mitigation, Seeds(0, 1, 2), keep=keep)
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(task, Dies(0.3), Seeds(0, 1, 2), path, keep, save_every=0)
    assert path.is_file()
    assert tiny.same(train(task, mitigation, Seeds(0, 1, 2), path, keep), plain)
    control = train(task, Mitigation(), Seeds(0, 1, 2))
    assert not np.array_equal(control["probabilities"], plain["probabilities"])


@pytest.mark.parametrize("other", [EMA(0.9), SAM(0.05), RDrop(0.5), MCDropout(2), Without((0, 5))])
def test_it_goes_with_other_mitigations_in_either_order(other):
    from stabutils.mitigations import Composed

    for parts in ((TurnOver(), other), (other, TurnOver())):
        answers = train(TASK, Composed(parts), Seeds(0, 1, 2), keep=[PROBES[name] for name in KEEP])
        assert np.isfinite(answers["probabilities"]).all() and answers["kept.head"].shape == (4, 33)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.5, float("nan"), "half", True])
def test_a_rate_that_leaves_one_half_empty_is_refused(rate):
    with pytest.raises(
        InputError, match="TurnOver rate: got .*; expected a number from 0.05 to 0.95"
    ):
        TurnOver(rate)


# ---- influence


@pytest.fixture(scope="module")
def network():
    """A trained network, and what influence is computed from."""
    found = {}

    class Keeps(TurnOver):
        def epoch(self, training):
            found["network"] = training.model

    train(tiny.task(), Keeps(0.3), Seeds(6, 1, 2))
    return found["network"].eval()


@pytest.mark.parametrize("score", ["loss", "doubt"])
def test_influence_is_that_of_two_passes_through_the_network(network, score):
    """One query and one example at a time, the masks written into the network's head by a hook."""
    task, rate = tiny.task(), 0.3
    labels = task.test_labels
    vectors = evaluate(network, network.features, task.test, task.recipe).numpy()
    weight, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    owned = masks(np.arange(60), 32, rate, seed=6)
    found = influence(vectors, weight, bias, labels, owned, rate, score)
    assert found.shape == (20, 60) and found.dtype == np.float32

    def answers(half, share):
        hook = network.head.register_forward_pre_hook(
            lambda _, inputs: inputs[0] * torch.from_numpy(half) / share
        )
        probabilities = predict(network, task.test, task.recipe).numpy().astype(float)
        hook.remove()
        return probabilities

    def scored(p):
        own = p[np.arange(20), labels]
        return {"loss": -np.log(own), "doubt": 1 - own}[score]

    for example in (0, 17, 59):
        direct = scored(answers(~owned[example], 1 - rate)) - scored(answers(owned[example], rate))
        assert found[:, example] == pytest.approx(direct, abs=2e-5)
        alone = module.self_influence(
            vectors[[3]], weight, bias, labels[[3]], owned[[example]], rate, score
        )
        assert alone[0] == pytest.approx(direct[3], abs=2e-5)


def test_influence_refuses_a_score_it_does_not_know():
    one, two = np.ones((1, 2)), np.ones((2, 2))
    with pytest.raises(InputError, match="score: got 'margin'; expected one of loss, doubt"):
        influence(one, two, np.zeros(2), [0], np.ones((1, 2), bool), score="margin")


@pytest.fixture
def study(tmp_path, monkeypatch):
    from stabutils import Study

    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        preparation, "prepare", lambda model, data, recipe, pooling: tiny.task(recipe, QUIET, data)
    )
    study = Study(
        dataset=str(tiny.write_csv(tmp_path / "tiny.csv")), workers=1, epochs=12, learning_rate=0.01
    )
    labels = study.data.train.labels.copy()
    labels[WRONG] = (labels[WRONG] + 1) % 4
    noisy = replace(study.data, train=Split(study.data.train.texts, labels))
    monkeypatch.setitem(vars(study), "data", noisy)
    return study


WRONG = [3, 21, 40]


def test_wrong_labels_have_the_largest_influence_on_themselves(study):
    """Through the study, from what its runs kept; fails if masks and examples are mixed up anywhere
    on the way.
    """
    runs = study.retrain(TurnOver(), n=4, keep=KEEP)
    labels = study.data.train.labels
    own = of_itself(runs, TurnOver(), labels)
    assert own.shape == (4, 60)
    clean = np.setdiff1d(np.arange(60), WRONG)
    assert own.mean(0)[WRONG].mean() > own.mean(0)[clean].mean() + 2 * own.mean(0)[clean].std()
    every = of_runs(runs, TurnOver(), labels, split="training")
    assert every.shape == (4, 60, 60)
    assert np.allclose(every[:, np.arange(60), np.arange(60)], own, atol=1e-4)
    some = of_runs(runs, TurnOver(), labels, split="training", queries=np.array([5, 2]))
    assert np.array_equal(some, every[:, [5, 2]])
    shuffled = replace(runs, seeds=runs.seeds[::-1])  # another run's masks know nothing
    assert of_itself(shuffled, TurnOver(), labels).mean() < own.mean() / 4
    for others, turnover in ((replace(runs, extras={}), TurnOver()), (runs, TurnOver(0.3))):
        with pytest.raises(
            InputError, match=r"runs: got .TurnOver\(rate=0.5\) with .*; expected TurnOver"
        ):
            of_itself(others, turnover, labels)


# ---- without


def test_without_drops_examples_or_lightens_them():
    targets = one_hot(np.array([0, 1, 2, 0, 1]), 3)
    left = Without((3, 1)).data(targets)
    assert left.indices.tolist() == [0, 2, 4] and left.weights.tolist() == [1, 1, 1]
    assert left.probabilities.argmax(1).tolist() == [0, 2, 1]
    light = Without((1,), share=0.5).data(targets)
    assert light.indices.tolist() == [0, 1, 2, 3, 4]
    assert light.weights.tolist() == pytest.approx([10 / 9, 5 / 9, 10 / 9, 10 / 9, 10 / 9])
    assert identity(Without((1, 3))) == identity(Without((3, 1, 3)))
    assert identity(Without()) == identity(Without((1,), share=1.0)) == identity(Mitigation())


@pytest.mark.parametrize("indices", [(5,), (-1,), (0, 1, 2, 3, 4)])
def test_without_refuses_rows_that_are_not_there_and_all_of_them(indices):
    with pytest.raises(
        InputError, match="Without indices: got .*; expected rows of the training split"
    ):
        Without(indices).data(one_hot(np.array([0, 1, 2, 0, 1]), 3))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_without_refuses_what_is_no_share(share):
    with pytest.raises(InputError, match="Without share: got .*; expected a number from 0 to 1"):
        Without((1,), share)

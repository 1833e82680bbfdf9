"""Fine-tuning that starts from a fitted head, or is held near the pretrained weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from test_frozen import deeper

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation, identity
from stabutils.mitigations.finetuning import L2SP, LPFT, logistic_regression
from stabutils.mitigations.frozen import Frozen
from stabutils.mitigations.interventions import Without
from stabutils.mitigations.regularizers import CoDistillation, LabelSmoothing
from stabutils.training.loop import train
from stabutils.training.networks import Pretrained
from stabutils.training.preparation import prepare
from stabutils.training.state import Probe, Seeds

RECIPE = replace(tiny.RECIPE, learning_rate=1e-3, epochs=2, checkpoints=1, head_rate=3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return deeper(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def task(folder):
    return prepare(str(folder), tiny.dataset(), RECIPE, "mean")


def still(task):
    """Without dropout, so that only the first weights and the order are random."""

    def build():
        network = task.build()
        network.dropout = 0.0
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        return network

    return replace(task, build=build)


@dataclass(frozen=True)
class First(Mitigation):
    """Notes the head as it is before the first step."""

    def gradient(self, training, backward):
        if training.step == 0:
            head = getattr(training.model, "kept", training.model).head
            training.memory["first"] = head.weight.detach().clone()
        return backward()


def first_head(task, *mitigations, seed=0):
    probe = Probe("first", lambda training: training.memory["first"].numpy())
    return train(task, Composed((*mitigations, First())), Seeds(seed, seed, seed), keep=[probe])[
        "kept.first"
    ]


def test_the_regression_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 60)
    x = draw.normal(size=(60, 5)) + 3 + labels[:, None] * draw.normal(size=5)
    weights = draw.uniform(0.5, 2, 60)
    expected = LogisticRegression(C=1 / 0.7, tol=1e-8, max_iter=10_000).fit(x, labels, weights)
    weight, bias = logistic_regression(
        torch.tensor(x), torch.eye(3)[labels], torch.tensor(weights), penalty=0.7
    )
    assert np.allclose(weight, expected.coef_, atol=1e-3)
    assert np.allclose(
        bias - bias.mean(), expected.intercept_ - expected.intercept_.mean(), atol=1e-2
    )
    logits = x @ weight.numpy().T + bias.numpy()
    assert np.allclose(
        logits - logits.mean(1, keepdims=True), expected.decision_function(x), atol=1e-2
    )


def test_soft_labels_are_a_mixture_of_hard_ones():
    """A text that is half one label and half another counts as two of half the weight."""
    x = torch.tensor([[0.0], [1.0], [2.0]])
    soft = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    twice = torch.tensor([[0.0], [1.0], [1.0], [2.0]])
    hard = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    one = logistic_regression(x, soft, torch.ones(3), 0.5)
    other = logistic_regression(twice, hard, torch.tensor([1.0, 0.5, 0.5, 1.0]), 0.5)
    for part, same in zip(one, other, strict=True):
        assert torch.allclose(part, same, atol=1e-4)


def test_no_seed_moves_the_first_head_and_it_knows_the_training_texts(task, folder):
    heads = [first_head(task, LPFT(), seed=s) for s in (0, 1)]
    assert np.array_equal(heads[0], heads[1])
    plain = [first_head(task, seed=s) for s in (0, 1)]
    assert not np.array_equal(plain[0], plain[1])
    network = task.build().eval()
    with torch.no_grad():
        vectors = network.features(task.train).numpy()
    expected = LogisticRegression(tol=1e-6, max_iter=10_000).fit(vectors, task.train_labels)
    assert np.allclose(heads[0], expected.coef_, atol=5e-3)


def test_without_dropout_the_init_seed_decides_nothing_more(task):
    one, other, control, fresh = (
        train(still(task), mitigation, Seeds(init, 0, 0))
        for mitigation in (LPFT(), Mitigation())
        for init in (0, 1)
    )
    assert tiny.same(one, other) and not tiny.same(control, fresh)


def test_the_first_head_is_fitted_to_what_the_run_trains_towards(task):
    plain = first_head(task, LPFT())
    smoothed = first_head(task, LabelSmoothing(0.3), LPFT())
    fewer = first_head(task, Without((0, 1, 2, 3)), LPFT())
    assert np.abs(smoothed).sum() < np.abs(plain).sum()
    assert not np.allclose(fewer, plain, atol=1e-4)
    for others in ((Frozen(2),), (CoDistillation(1.0),)):
        assert np.allclose(first_head(task, *others, LPFT()), plain, atol=1e-3)


def distance(training):
    start = Pretrained(training.task.build.args[0], "mean", 4, 0, training.task.build.args[4])
    pairs = zip(training.model.backbone.parameters(), start.backbone.parameters(), strict=True)
    return np.array(sum((p.detach() - q.detach()).square().sum().item() for p, q in pairs))


def test_the_stronger_the_pull_the_nearer_to_the_pretrained_weights(task):
    found = [
        train(task, mitigation, Seeds(0, 0, 0), keep=[Probe("distance", distance)])
        for mitigation in (Mitigation(), L2SP(30.0), L2SP(300.0), L2SP(1e9))
    ]
    distances = [answers["kept.distance"] for answers in found]
    assert distances[0] > distances[1] > distances[2] > distances[3] == 0
    assert len({answers["probabilities"].tobytes() for answers in found}) == 4


def test_a_step_of_the_pull_by_hand(task):
    """Weight decay is off in the encoder and stays in the head; a weight goes back by rate times
    strength."""
    seen = {}

    @dataclass(frozen=True)
    class Watched(L2SP):
        def step(self, training):
            name, weight = next(iter(training.model.backbone.named_parameters()))
            before, start = weight.detach().clone(), training.memory[f"pretrained.backbone.{name}"]
            super().step(training)
            decays = {g["weight_decay"] for g in training.optimizer.param_groups}
            rate = min(group["lr"] for group in training.optimizer.param_groups)
            seen[training.step] = before, start, weight.detach().clone(), rate, decays

    train(task, Watched(20.0), Seeds(0, 0, 0))
    assert len(seen) == 16
    for before, start, after, rate, decays in seen.values():
        assert torch.allclose(after, before + 20 * rate * (start - before), atol=1e-7)
        assert decays == {0.0, RECIPE.weight_decay}


def test_no_pull_is_control_bit_for_bit(task):
    assert L2SP(0.0).is_noop and identity(L2SP(0.0)) == identity(Mitigation())
    seeds = Seeds(0, 0, 0)
    assert tiny.same(train(task, L2SP(0.0), seeds), train(task, Mitigation(), seeds))


@pytest.mark.parametrize("mitigation", [LPFT(), L2SP(), Composed((Frozen(1), L2SP(), LPFT()))])
def test_an_interrupted_training_goes_on_with_the_same_bits(task, mitigation, tmp_path):
    class Stop(Exception):
        pass

    @dataclass(frozen=True)
    class Halt(Mitigation):
        def epoch(self, training):
            if training.epoch == 1:
                raise Stop

    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(Stop):
        train(task, Composed((mitigation, Halt())), Seeds(0, 0, 0), path, save_every=0)
    continued = train(task, mitigation, Seeds(0, 0, 0), path)
    assert tiny.same(continued, train(task, mitigation, Seeds(0, 0, 0)))


@pytest.mark.parametrize("kind", [LPFT, L2SP])
def test_what_was_not_pretrained_is_refused_by_name(kind):
    wanted = f"model: got 'compact'; expected a pretrained checkpoint, which {kind.__name__} needs"
    with pytest.raises(InputError, match=wanted):
        train(tiny.task(), kind(), Seeds(0, 0, 0))
    for value in (-1.0, float("nan"), True):
        with pytest.raises(InputError, match=kind.__name__):
            kind(value)

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from stabutils.data.datasets import Dataset, Split
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.training import loop
from stabutils.training.files import DamagedRun
from stabutils.training.loop import batches, predict, rate, task_loss, train
from stabutils.training.state import Batch, Diverged, Seeds, Stream, one_hot
from stabutils.training.task import Tokens

TASK = tiny.task()
SHORT = replace(TASK, recipe=replace(TASK.recipe, epochs=1, batch_size=20))
CONTROL = Mitigation()


@pytest.fixture(scope="module")
def control():
    return train(TASK, CONTROL, Seeds(0, 0, 0))


# ---- the same request, the same bits


def test_answers_have_the_promised_shapes(control):
    assert control["labels"].shape == (20,) and control["labels"].dtype == np.int64
    assert (
        control["probabilities"].shape == (20, 4) and control["probabilities"].dtype == np.float32
    )
    assert control["validation_labels"].shape == (12,) and control[
        "validation_probabilities"
    ].shape == (12, 4)
    assert (
        control["checkpoints"].shape == control["confidence"].shape == (6, 20)
    )  # two an epoch, three epochs
    assert control["cpu_seconds"].shape == () and control["cpu_seconds"] > 0
    assert np.allclose(control["probabilities"].sum(1), 1)
    assert np.array_equal(control["labels"], control["probabilities"].argmax(1))
    assert np.array_equal(control["checkpoints"][-1], control["labels"])
    gold = TASK.test_labels
    assert np.array_equal(control["confidence"][-1], control["probabilities"][np.arange(20), gold])


def test_the_same_request_gives_the_same_bits_whatever_torch_drew_before(control):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert tiny.same(control, train(TASK, CONTROL, Seeds(0, 0, 0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["init", "order", "dropout"])
def test_each_seed_alone_changes_the_answers(control, name):
    other = train(TASK, CONTROL, replace(Seeds(0, 0, 0), **{name: 1}))
    assert not np.array_equal(control["probabilities"], other["probabilities"])


def test_equal_integers_under_different_names_are_independent():
    draws = [
        torch.randn(2000, generator=Stream(name, 5).generator)
        for name in ("init", "order", "dropout", "answer")
    ]
    assert np.abs(np.corrcoef(torch.stack(draws)) - np.eye(4)).max() < 0.1
    assert not torch.equal(
        torch.randn(3, generator=Stream("order", 0).generator),
        torch.randn(3, generator=Stream("order", 0, 0).generator),
    )


def test_a_stream_goes_on_where_it_stopped():
    whole, pieces = Stream("dropout", 3), Stream("dropout", 3)
    with whole:
        expected = torch.rand(4)
    outside = torch.get_rng_state()
    with pieces:
        first = torch.rand(2)
    torch.rand(7)
    torch.set_rng_state(outside)
    with pieces:
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
    with pytest.raises(KeyError), pieces:
        raise KeyError
    assert torch.equal(torch.get_rng_state(), outside)


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, np.int64(1)])
def test_a_seed_is_a_whole_number_from_zero(value):
    with pytest.raises(InputError, match="order seed: got .*; expected an integer of at least 0"):
        Seeds(0, value, 0)


@dataclass(frozen=True)
class Spy(Mitigation):
    """Writes down what the loop shows it."""

    seen: list

    def model(self, build):
        model = build()
        self.seen.append([p.detach().clone() for p in model.parameters()])
        return model

    def loss(self, forward, batch, inner):
        self.seen.append(batch.indices.tolist())
        return inner(forward())


def spy(seeds: Seeds, task=SHORT) -> list:
    seen = []
    train(task, Spy(seen), seeds)
    return seen


def test_init_alone_decides_the_weights_and_order_alone_the_batches():
    weights, *first = spy(Seeds(0, 0, 0))
    same_init, *other_order = spy(Seeds(0, 1, 1))
    other_init, *same_order = spy(Seeds(1, 0, 2))
    assert all(map(torch.equal, weights, same_init)) and first != other_order
    assert first == same_order
    assert not any(
        torch.equal(a, b)
        for a, b in zip(weights, other_init, strict=True)
        if a.ndim > 1 and a.any()
    )


@pytest.mark.parametrize("bucket", [1, 2, 50])
def test_each_example_comes_once_an_epoch(bucket):
    task = replace(TASK, recipe=replace(TASK.recipe, bucket=bucket))
    targets = one_hot(task.train_labels, task.classes)
    epochs = [
        [batch.indices.tolist() for batch in batches(task, targets, 0, epoch)] for epoch in (0, 1)
    ]
    for epoch in epochs:
        assert sorted(sum(epoch, [])) == list(range(60))
        assert sorted(map(len, epoch), reverse=True) == [8] * 7 + [4]
    assert epochs[0] != epochs[1]


def test_buckets_hold_texts_of_similar_length():
    task = replace(TASK, recipe=replace(TASK.recipe, bucket=50))
    targets = one_hot(task.train_labels, task.classes)
    spans = {
        b: sum(
            int(batch.tokens.lengths.max() - batch.tokens.lengths.min())
            for batch in batches(
                replace(task, recipe=replace(task.recipe, bucket=b)), targets, 0, 0
            )
        )
        for b in (1, 50)
    }
    assert spans[50] < spans[1] / 2


def test_a_batch_carries_its_own_texts_targets_and_weights():
    targets = one_hot(TASK.train_labels, TASK.classes)
    targets = replace(
        targets,
        indices=torch.tensor([7, 7, 3]),
        probabilities=targets.probabilities[[7, 7, 3]],
        weights=torch.tensor([0.5, 1.5, 1.0]),
    )
    (batch,) = batches(TASK, targets, 0, 0)
    assert sorted(batch.indices.tolist()) == [3, 7, 7]  # an example that occurs twice
    for row, index in enumerate(batch.indices):
        assert batch.probabilities[row].argmax() == TASK.train_labels[index]
        assert torch.equal(
            batch.tokens.take(torch.tensor([row])).ids, TASK.train.take(index[None]).ids
        )
    assert batch.weights[batch.indices == 3].item() == 1.0


# ---- loss, schedule, evaluation


def batch_of(probabilities, weights) -> Batch:
    return Batch(
        Tokens.pack([[0]] * len(weights)),
        torch.tensor(probabilities),
        torch.tensor(weights),
        torch.arange(len(weights)),
    )


def test_task_loss_by_hand():
    logits = torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]])  # probabilities 1/4, 3/4 and 1/2, 1/2
    hard = batch_of([[0.0, 1.0], [1.0, 0.0]], [1.0, 1.0])
    assert task_loss(logits, hard).item() == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    soft = batch_of([[0.5, 0.5], [0.9, 0.1]], [1.0, 1.0])
    by_hand = ((np.log(4) + np.log(4 / 3)) / 2 + np.log(2)) / 2
    assert task_loss(logits, soft).item() == pytest.approx(by_hand)
    weighted = batch_of([[0.0, 1.0], [1.0, 0.0]], [2.0, 0.0])
    assert task_loss(logits, weighted).item() == pytest.approx(np.log(4 / 3))


@dataclass(frozen=True)
class Weighted(Mitigation):
    """Ten examples count for nothing and may be labelled anyhow."""

    wrong: bool

    def data(self, targets):
        weights = targets.weights.clone()
        weights[:10] = 0
        probabilities = targets.probabilities.clone()
        if self.wrong:
            probabilities[:10] = probabilities[:10].roll(1, dims=1)
        return replace(targets, weights=weights, probabilities=probabilities)


def test_an_example_of_weight_zero_has_no_influence(control):
    right, wrong = (train(TASK, Weighted(wrong), Seeds(0, 0, 0)) for wrong in (False, True))
    assert tiny.same(right, wrong)
    assert not tiny.same(right, control)


def test_the_schedule_by_hand():
    assert [rate(step, 10, 0.4) for step in range(10)] == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1, 6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )
    assert [rate(step, 3, 0.0) for step in range(3)] == pytest.approx([1, 1, 0.5])
    assert [rate(step, 2, 1.0) for step in range(2)] == pytest.approx([0.5, 1])
    assert rate(0, 1, 0.0) == 1


@dataclass(frozen=True)
class Rates(Mitigation):
    seen: list

    def step(self, training):
        self.seen.append(
            [
                (g["lr"], g["weight_decay"], len(g["params"]))
                for g in training.optimizer.param_groups
            ]
        )


def test_the_head_has_its_own_rate_and_only_matrices_decay():
    seen, recipe = [], replace(SHORT.recipe, head_rate=10.0)
    train(replace(SHORT, recipe=recipe), Rates(seen), Seeds(0, 0, 0))
    assert len(seen) == 3
    peak, decay = recipe.learning_rate, recipe.weight_decay
    assert {(round(lr / peak, 6), d) for lr, d, _ in seen[0]} == {
        (1.0, decay),
        (1.0, 0.0),
        (10.0, decay),
        (10.0, 0.0),
    }
    assert [n for lr, _, n in seen[0] if lr > peak] == [1, 1]  # the head's matrix and its bias
    assert [step[0][0] / peak for step in seen] == pytest.approx([1, 1, 0.5])


def test_predict_answers_in_input_order_and_restores_the_mode():
    with Stream("init", 0):
        model = TASK.build()
    model.train()
    together = predict(model, TASK.test, TASK.recipe)
    assert model.training
    assert torch.equal(together, predict(model, TASK.test, TASK.recipe))  # no dropout
    model.eval()
    single = torch.cat(
        [predict(model, TASK.test.take(torch.tensor([i])), TASK.recipe) for i in range(20)]
    )
    assert not model.training
    assert torch.allclose(together, single, atol=1e-6)
    assert torch.allclose(together, predict(model, TASK.test, TASK.recipe, size=3), atol=1e-6)


def test_a_training_does_without_torchs_compiler(control, monkeypatch):
    """Which takes a process a second to import, and most processes of a study train only a few
    runs.
    """
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import of it fails
    assert tiny.same(control, train(TASK, CONTROL, Seeds(0, 0, 0)))


def test_clipping_bounds_the_first_step(monkeypatch):
    norms = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda parameters, most: norms.append(most))
    train(SHORT, CONTROL, Seeds(0, 0, 0))
    assert norms == []
    train(replace(SHORT, recipe=replace(SHORT.recipe, clip=0.5)), CONTROL, Seeds(0, 0, 0))
    assert norms == [0.5] * 3


def test_bf16_trains_and_is_not_fp32(control):
    rough = train(
        replace(TASK, recipe=replace(TASK.recipe, precision="bf16")), CONTROL, Seeds(0, 0, 0)
    )
    assert rough["probabilities"].dtype == np.float32 and np.isfinite(rough["probabilities"]).all()
    difference = np.abs(rough["probabilities"] - control["probabilities"]).max()
    assert 0 < difference < 0.5


# ---- interrupted and continued


class Killed(Exception):
    pass


@dataclass(frozen=True)
class Average(Mitigation):
    """Answers with the running mean of the weights, kept in the training's memory; may be killed
    after an epoch.
    """

    die_after: int | None = None

    def epoch(self, training):
        if self.die_after == training.epoch:
            raise Killed
        for name, tensor in training.model.state_dict().items():
            old = training.memory.get(name, tensor)
            training.memory[name] = torch.lerp(old, tensor, 0.5).clone()
        training.memory["count"] = training.memory.get("count", torch.tensor(0)) + 1

    def answer(self, training, predict):
        if "count" not in training.memory:
            return predict(training.model)
        assert training.memory["count"].shape == ()
        own = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
        training.model.load_state_dict({name: training.memory[name] for name in own})
        answer = predict(training.model)
        training.model.load_state_dict(own)
        return answer


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_goes_on_with_the_same_bits(tmp_path, epoch):
    undisturbed = train(TASK, Average(), Seeds(0, 1, 2))
    unfinished = tmp_path / "run.safetensors"
    with pytest.raises(Killed):
        train(TASK, Average(die_after=epoch), Seeds(0, 1, 2), unfinished, save_every=0)
    counted = Steps([])
    train(TASK, counted, Seeds(0, 1, 2), unfinished, save_every=1e9)
    assert len(counted.seen) == 8 * (3 - epoch)  # what was done is not done again
    continued = train(TASK, Average(), Seeds(0, 1, 2), unfinished, save_every=1e9)
    assert tiny.same(undisturbed, continued)
    assert not tiny.same(
        undisturbed, train(TASK, CONTROL, Seeds(0, 1, 2))
    )  # the memory does something


@pytest.mark.parametrize("epoch", [1, 2])
def test_without_checkpoints_it_answers_the_same_once_also_when_killed(tmp_path, control, epoch):
    once = replace(TASK, recipe=replace(TASK.recipe, checkpoints=0))
    unfinished = tmp_path / "run.safetensors"
    undisturbed = train(once, CONTROL, Seeds(0, 0, 0))
    assert undisturbed["checkpoints"].shape == (1, len(TASK.test_labels))
    for name in ("labels", "probabilities", "validation_probabilities"):
        assert (undisturbed[name] == control[name]).all()
    with pytest.raises(Killed):
        train(once, Average(die_after=epoch), Seeds(0, 0, 0), unfinished, save_every=0)
    counted = Steps([])
    continued = train(once, counted, Seeds(0, 0, 0), unfinished, save_every=1e9)
    assert len(counted.seen) == 8 * (3 - epoch)
    assert tiny.same(undisturbed, continued)


@dataclass(frozen=True)
class Steps(Mitigation):
    seen: list

    def step(self, training):
        self.seen.append(training.step)


def test_state_is_kept_only_when_it_is_time_to(tmp_path):
    unfinished = tmp_path / "run.safetensors"
    train(TASK, CONTROL, Seeds(0, 0, 0), unfinished, save_every=1e9)
    assert not unfinished.exists()


def test_a_damaged_unfinished_state_starts_over_with_a_warning(tmp_path, control):
    unfinished = tmp_path / "run.safetensors"
    unfinished.write_bytes(b"half of it")
    with pytest.warns(DamagedRun, match="run.safetensors"):
        again = train(TASK, CONTROL, Seeds(0, 0, 0), unfinished)
    assert tiny.same(again, control)


# ---- diverged


@dataclass(frozen=True)
class Breaks(Mitigation):
    at: int  # batch
    value: float = float("nan")

    def loss(self, forward, batch, inner):
        training_steps.append(1)
        return inner(forward()) * (self.value if len(training_steps) == self.at else 1.0)


training_steps: list[int] = []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_training_names_epoch_and_settings(value):
    training_steps.clear()
    with pytest.raises(
        Diverged, match=r"loss became (nan|inf) in epoch 2 of 3, Breaks\(at=10.*learning rate 0.01"
    ):
        train(TASK, Breaks(at=10, value=value), Seeds(0, 0, 0))


@dataclass(frozen=True)
class RuinsTheEnd(Mitigation):
    def step(self, training):
        if training.step == training.steps:
            training.model.head.weight.data.fill_(float("nan"))


def test_weights_ruined_by_the_last_step_are_no_answer():
    with pytest.raises(Diverged, match="answers are no numbers in epoch 1 of 1"):
        train(SHORT, RuinsTheEnd(), Seeds(0, 0, 0))


# ---- pinned


def test_pinned_answers_of_a_tiny_run():
    """Rounding differs between processors, so what is pinned are labels of a problem without
    doubtful cases, the loss of the first step, before rounding can grow, and probabilities to two
    digits.
    """
    words = ("ant", "bee", "cat")
    easy = Split(tuple(f"{word} {i}" for word in words for i in range(6)), np.repeat([0, 1, 2], 6))
    shape = replace(tiny.SHAPE, input_dropout=0.1, dropout=0.1, skip=0.1, output_dropout=0.1)
    recipe = replace(tiny.RECIPE, epochs=6, learning_rate=0.02)
    task = tiny.task(recipe, shape, Dataset("easy", easy, easy, easy, words))
    losses = []
    answers = train(task, Losses(losses), Seeds(0, 1, 2))
    message = (
        "the loop answers differently than before: if that is meant, raise RECIPE_VERSION in "
        "training.py, "
        "so that stored runs of the old loop are not taken for runs of this one, and pin the "
        "new numbers here"
    )
    assert loop.RECIPE_VERSION == 2, "a new version: pin its numbers here"
    assert np.array_equal(answers["labels"], easy.labels), message
    assert losses[0] == pytest.approx(FIRST_LOSS, rel=1e-4), message
    assert answers["confidence"][:, 0] == pytest.approx(CONFIDENCE, abs=0.02), message


def test_pinned_order_and_answers_of_a_bucketed_run():
    """Which texts stand together, and in which order the batches come, are streams of their own."""
    words = ("ant", "bee", "cat")
    texts = [f"{word}{' so' * (i % 4)} {i}" for word in words for i in range(6)]
    easy = Split(tuple(texts), np.repeat([0, 1, 2], 6))
    shape = replace(tiny.SHAPE, input_dropout=0.1, dropout=0.1, skip=0.1, output_dropout=0.1)
    recipe = replace(tiny.RECIPE, epochs=6, learning_rate=0.02, batch_size=4, bucket=2)
    task = tiny.task(recipe, shape, Dataset("easy", easy, easy, easy, words))
    targets = one_hot(task.train_labels, task.classes)
    order = [
        [rows.tolist() for rows in loop.batch_indices(task, targets, 1, epoch)] for epoch in (0, 1)
    ]
    assert loop.RECIPE_VERSION == 2, "a new version: pin its numbers here"
    assert order == BUCKETS, "bucketed runs come in another order: raise RECIPE_VERSION"
    losses = []
    answers = train(task, Losses(losses), Seeds(0, 1, 2))
    assert losses[:3] == pytest.approx(BUCKETED_LOSSES, rel=2e-3)
    assert np.array_equal(answers["labels"], easy.labels)
    assert answers["confidence"][:6, 0] == pytest.approx(BUCKETED_CONFIDENCE, abs=0.02)


@dataclass(frozen=True)
class Losses(Mitigation):
    seen: list

    def loss(self, forward, batch, inner):
        loss = inner(forward())
        self.seen.append(loss.item())
        return loss


BUCKETS = [
    [[16, 4, 11, 7], [17, 13, 14, 9], [12, 10, 6, 5], [8, 2, 15, 3], [0, 1]],
    [[8, 2, 9, 15], [6, 16, 12, 1], [5, 7, 14, 3], [0, 17], [4, 10, 11, 13]],
]
BUCKETED_LOSSES = [0.92483, 1.13765, 0.71605]
BUCKETED_CONFIDENCE = [0.549, 0.919, 0.942, 0.952, 0.969, 0.977]  # of the first text
FIRST_LOSS = 1.32647
CONFIDENCE = [
    0.315,
    0.45,
    0.753,
    0.808,
    0.894,
    0.92,
    0.952,
    0.959,
    0.971,
    0.974,
    0.978,
    0.978,
]  # of the first text


def test_label_smoothing_of_nothing_is_control_bit_for_bit(control):
    assert tiny.same(control, train(TASK, LabelSmoothing(0.0), Seeds(0, 0, 0)))
    assert not tiny.same(control, train(TASK, LabelSmoothing(0.3), Seeds(0, 0, 0)))

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from test_models import make_checkpoint

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation
from stabutils.mitigations.regularizers import EMA, SAM, ConfidencePenalty, LabelSmoothing, RDrop
from stabutils.training.loop import batch_indices, batches, one_step, optimizer_of
from stabutils.training.preparation import prepare
from stabutils.training.stacked import Blocks, Stack, train
from stabutils.training.state import Diverged, Seeds, Stream, Training, one_hot

QUIET = replace(
    tiny.SHAPE,
    input_dropout=0.0,
    dropout=0.0,
    skip=0.0,
    output_dropout=0.0,
    word_dropout=0.0,
    layers=2,
)
# Clipping, buckets and batches of 8 and of 4: all that could mix runs or steps up.
RECIPE = replace(
    tiny.RECIPE, epochs=2, batch_size=8, clip=0.5, bucket=2, head_rate=3.0, checkpoints=1
)
SEEDS = [Seeds(0, 0, 0), Seeds(1, 2, 3), Seeds(5, 5, 5)]


@dataclass(frozen=True)
class Exact(Mitigation):
    """The task's loss in double precision; notes the loss of each step of the single loop."""

    seen: list = field(default_factory=list)

    def loss(self, forward, batch, inner):
        loss = (
            F.cross_entropy(forward(), batch.probabilities.double(), reduction="none")
            * batch.weights
        ).mean()
        if not torch._C._functorch.is_gradtrackingtensor(loss):
            self.seen.append(loss.item())
        return loss


def doubled(task):
    return replace(task, build=lambda: task.build().double())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(params=["compact", "checkpoint"])
def task(request, monkeypatch):
    if request.param == "compact":
        return doubled(tiny.task(RECIPE, QUIET))
    from transformers import BertConfig

    folder = request.getfixturevalue("checkpoint")
    quiet = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    monkeypatch.setattr(
        BertConfig,
        "__post_init__",
        lambda self, old=BertConfig.__post_init__, **given: (
            old(self, **given) or vars(self).update(quiet)
        ),
    )
    task = prepare(str(folder), tiny.dataset(), replace(RECIPE, learning_rate=1e-3), "mean")

    def build():
        network = task.build().double()
        network.dropout = 0.0
        return network

    return replace(task, build=build)


def single(task, seeds):
    """Losses and weights of the single loop."""
    exact = Exact()
    with Stream("init", seeds.init):
        network = task.build()
    targets = one_hot(task.train_labels, task.classes)
    steps = task.recipe.epochs * len(batch_indices(task, targets, 0, 0))
    run = Training(task, exact, seeds, network, optimizer_of(network, task.recipe), steps)
    network.train()
    for epoch in range(task.recipe.epochs):
        for batch in batches(task, targets, seeds.order, epoch):
            one_step(run, batch, Stream("dropout", 0))
    return exact.seen, network


def test_stacked_runs_are_the_single_ones(task):
    stack = Stack(task, Exact(), SEEDS, "cpu")
    losses = [
        stack.step(rows)
        for epoch in range(task.recipe.epochs)
        for rows in zip(
            *(batch_indices(task, stack.targets, s.order, epoch) for s in SEEDS), strict=True
        )
    ]
    for i, seeds in enumerate(SEEDS):
        expected, network = single(task, seeds)
        assert len(expected) == stack.steps == 16
        assert np.allclose([step[i].item() for step in losses], expected, rtol=0, atol=1e-8)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                found = stack.parameters[f"network.{name}"][i]
                assert torch.allclose(found, parameter, rtol=0, atol=1e-8), name
    assert abs(losses[0][0] - losses[0][1]) > 1e-3


def test_answers_are_those_of_the_single_loop(task):
    from stabutils.training.loop import train as train_one

    found = train(task, Exact(), SEEDS, "cpu")
    for answers, seeds in zip(found, SEEDS, strict=True):
        expected = train_one(task, Exact(), seeds)
        assert answers.keys() == expected.keys()
        for name in expected.keys() - {"cpu_seconds"}:
            assert answers[name].dtype == expected[name].dtype
            assert np.allclose(answers[name], expected[name], atol=1e-6), name


@pytest.mark.parametrize(
    "mitigation",
    [Mitigation(), LabelSmoothing(0.2), Composed((RDrop(0.5), ConfidencePenalty(0.1)))],
)
def test_runs_draw_dropout_of_their_own_and_leave_torch_as_it_was(mitigation):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    task = tiny.task(replace(tiny.RECIPE, epochs=1))
    one, other, again = (
        [answers["probabilities"] for answers in train(task, mitigation, seeds, "cpu")]
        for seeds in ([Seeds(0, 0, 0)] * 2, [Seeds(0, 0, 1)] * 2, [Seeds(0, 0, 0)] * 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.allclose(one[0], one[1]) and not np.allclose(one[0], other[0])
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))


def test_it_learns_in_half_precision():
    task = tiny.task(replace(tiny.RECIPE, epochs=8, precision="bf16"), QUIET)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    for answers in train(task, Mitigation(), SEEDS[:2], "cpu"):
        assert answers["confidence"][-1].mean() > answers["confidence"][0].mean() + 0.1


@pytest.mark.parametrize("mitigation", [SAM(0.05), Composed((LabelSmoothing(0.1), EMA(0.9)))])
def test_what_does_not_stack_is_refused_by_name(mitigation):
    with pytest.raises(
        InputError, match="SAM, which changes the gradient|EMA, which changes the step and answer"
    ):
        train(tiny.task(), mitigation, SEEDS, "cpu")


def test_a_training_that_diverges_says_whose():
    task = tiny.task(replace(tiny.RECIPE, epochs=1, learning_rate=1e38))
    with pytest.raises(Diverged, match=r"epoch 1 of 1, init seeds \[0, 1\], learning rate"):
        train(task, Mitigation(), SEEDS[:2], "cpu")


def test_blocks_hold_every_token():
    task = tiny.task()
    blocks = Blocks.of(task.test, torch.device("cpu"))
    assert torch.equal(blocks.ids[blocks.taken], task.test.ids) and torch.equal(
        blocks.taken.sum(1), task.test.lengths
    )

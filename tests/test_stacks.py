"""Runs on a device: stacked where possible, fewer at once where there is no room, none lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from stabutils.errors import Incomplete, InputError
from stabutils.mitigations import Mitigation
from stabutils.mitigations.data_centric import TGTSS
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.study import dispatch, stacks
from stabutils.study.stacks import Slower, trained_on
from stabutils.study.study import Study
from stabutils.training import devices, loop, stacked
from stabutils.training.state import Seeds

TASK = tiny.task()


def calls(mitigation, count):
    for number in range(count):
        run = SimpleNamespace(name=f"run {number}", seeds=Seeds(number, number, number))
        yield mitigation, run, None, set(), -1, None


def results(mitigation, count):
    return list(trained_on("cpu", TASK, calls(mitigation, count), dispatch.train_run))


@pytest.fixture
def sizes(monkeypatch):
    """How many runs are tried at once, at most three of which find room."""
    tried, real, room = [], stacked.train, {"runs": 3}

    def train(task, mitigation, seeds, *rest):
        tried.append(len(seeds))
        if len(seeds) > room["runs"]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(task, mitigation, seeds, *rest)

    monkeypatch.setattr(stacked, "train", train)
    return tried, room


def test_where_there_is_no_room_fewer_are_trained_at_once_and_none_is_lost(sizes, monkeypatch):
    tried, _ = sizes
    monkeypatch.setattr(stacks, "AT_ONCE", 5)
    with pytest.warns(Slower, match="no room for 5 runs at once; going on with 2") as said:
        found = results(Mitigation(), 7)
    assert tried == [5, 2, 2, 2] and len(said) == 1  # the last of the first five goes alone
    assert [run.name for run, *_ in found] == [f"run {number}" for number in range(7)]
    assert all(answers["labels"].shape == (20,) for _, answers, _, _ in found)
    assert found[0][3]["together"] == 2 and found[0][3]["device"] == "cpu"


def test_where_one_run_finds_no_room_what_is_finished_is_kept(sizes, monkeypatch):
    tried, room = sizes
    room["runs"] = 0
    monkeypatch.setattr(stacks, "AT_ONCE", 2)

    def full(*call, **named):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "train", full)
    with pytest.raises(Incomplete, match="smaller batch_size"), pytest.warns(Slower):
        results(Mitigation(), 2)


@dataclass(frozen=True)
class Own(Mitigation):
    """A student's: other weights, and a loss with a second pass and a term by text."""

    strength: float = 0.5

    def data(self, targets):
        return replace(targets, weights=targets.weights * 1.5)

    def loss(self, forward, batch, inner):
        one, other = forward(), forward()
        apart = (one - other.detach()).square().mean(-1) + one.logsumexp(-1).square()
        return inner(one) + self.strength * (apart * batch.weights).mean()


def test_what_a_user_wrote_is_trained_stacked_and_is_the_single_runs():
    shape = replace(
        tiny.SHAPE, input_dropout=0.0, dropout=0.0, skip=0.0, output_dropout=0.0, word_dropout=0.0
    )
    task = tiny.task(replace(tiny.RECIPE, epochs=2, batch_size=8, bucket=2), shape)
    found = list(trained_on("cpu", task, calls(Own(), 3), dispatch.train_run))
    for (run, answers, failure, made_by), seed in zip(found, range(3), strict=True):
        expected = loop.train(task, Own(), Seeds(seed, seed, seed))
        assert failure == "" and made_by["together"] == 3 and run.name == f"run {seed}"
        assert np.allclose(answers["probabilities"], expected["probabilities"], atol=1e-4)
        control = loop.train(task, Mitigation(), Seeds(seed, seed, seed))
        assert np.abs(control["probabilities"] - expected["probabilities"]).max() > 1e-3


@dataclass(frozen=True)
class Looks(Mitigation):
    """A student's, whose loss looks at a number: no run of many can do that."""

    def loss(self, forward, batch, inner):
        loss = inner(forward())
        return loss if loss.item() > 0 else 2 * loss


@dataclass(frozen=True)
class Steps(Mitigation):
    """A student's, whose hook would see all runs at once."""

    def step(self, training):
        assert next(training.model.parameters()).shape == TASK.build().table.weight.shape


@pytest.mark.parametrize("mitigation", [Looks(), Steps()], ids=["loss", "step"])
def test_what_does_not_stack_is_trained_one_by_one_and_said_once(mitigation):
    with pytest.warns(
        Slower, match=f"one after another on cpu: .*{type(mitigation).__name__}"
    ) as said:
        found = results(mitigation, 3)
    assert len(said) == 1 and len(found) == 3
    for (_, answers, failure, _), seed in zip(found, range(3), strict=True):
        expected = loop.train(TASK, mitigation, Seeds(seed, seed, seed))
        assert failure == "" and tiny.same(answers, expected)


def test_a_mistake_of_ours_is_no_reason_to_go_on(monkeypatch):
    def broken(*call):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(stacked, "train", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        results(LabelSmoothing(0.1), 2)


def test_a_study_trains_on_its_device_and_stores_each_run(tmp_path, monkeypatch):
    """With the CPU in the place of a GPU: teachers first, then what learns from them, all
    stacked."""
    monkeypatch.setattr(devices, "resolve", lambda name: "cuda")
    on_cpu = lambda device, *rest: trained_on("cpu", *rest)  # noqa: E731
    monkeypatch.setattr(dispatch, "trained_on", on_cpu)
    corpus = tiny.project(tmp_path, monkeypatch)
    study = Study(dataset=str(corpus), runs=3, epochs=2, batch_size=16, device="cuda")
    runs = study.retrain(TGTSS(), keep=("hidden",))
    assert runs.labels.shape == (3, 20) and runs.extras["hidden"].shape[:2] == (3, 20)
    stored = [study.answers.store.read(name)[1] for name in runs.names]
    assert {record["together"] for record in stored} == {3}
    assert len(list((tmp_path / "runs").glob("*.safetensors"))) == 6
    plain = Study(dataset=str(corpus), runs=3, epochs=2, batch_size=16)
    assert plain.retrain(TGTSS()).names == runs.names  # a device is no part of what a run is


def test_the_device_is_one_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.resolve("auto") == devices.resolve("cpu") == "cpu"
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(InputError, match=f"device: got '{name}'; expected auto, or .*: cpu$"):
            devices.resolve(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve("auto") == "cuda" and devices.resolve("cuda:1") == "cuda:1"
    with pytest.raises(InputError, match="cpu, cuda, cuda:0, cuda:1$"):
        devices.resolve("cuda:2")


def test_a_mitigation_that_a_device_does_not_bear_is_refused_by_name(monkeypatch):
    def elsewhere(*call):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices"
        )

    monkeypatch.setattr(loop, "started", elsewhere)
    with pytest.raises(InputError, match=r"device: got 'cuda'; expected cpu, on which Looks works"):
        loop.train(TASK, Looks(), Seeds(0, 0, 0), device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        loop.train(TASK, Looks(), Seeds(0, 0, 0))
    assert not devices.refuses(torch.cuda.OutOfMemoryError("out of memory on the same device"))


def test_a_memory_of_its_device_is_as_large_as_the_stack():
    training = loop.started(TASK, Mitigation(), Seeds(0, 0, 0))
    stack = stacked.Stack(TASK, Mitigation(), [Seeds(s, s, s) for s in range(3)], "cpu")
    assert training.zeros(4, 2).shape == (4, 2) and stack.zeros(4, 2).shape == (3, 4, 2)
    tensors = [torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[4.0], [0.0]])]
    assert training.norm(tensors).item() == pytest.approx(np.sqrt(26))
    assert stack.norm(tensors).tolist() == [5.0, 1.0]
    assert stack.beside(torch.tensor([5.0, 1.0]), tensors[0]).shape == (2, 1)


def test_progress_is_plain_lines_where_the_output_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setenv("STABUTILS_BAR", "lines")
    with dispatch.progress(total=3, desc="control", unit="run", leave=False) as bar:
        bar.update()
        bar.update(2)
    written = capsys.readouterr().err
    assert written == "control: 0 of 3 runs, 00:00\ncontrol: 3 of 3 runs, 00:00\n"

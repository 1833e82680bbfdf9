from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import tiny
import torch

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation, describe, identity, resolve
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.training import Diverged, Seeds, one_hot, train

TASK = tiny.task(replace(tiny.RECIPE, epochs=1))
CONTROL = Mitigation()


def test_label_smoothing_targets_by_hand():
    targets = LabelSmoothing(0.2).data(one_hot(np.array([1, 3]), 4))
    by_hand = [[0.05, 0.85, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]]
    assert targets.probabilities.numpy() == pytest.approx(np.array(by_hand))
    assert targets.weights.tolist() == [1, 1] and targets.indices.tolist() == [0, 1]
    assert LabelSmoothing(1.0).data(one_hot(np.array([1]), 4)).probabilities.tolist() == [[0.25] * 4]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_label_smoothing_refuses_what_is_no_share(strength):
    with pytest.raises(InputError, match="LabelSmoothing strength: got .*; expected a number from 0 to 1"):
        LabelSmoothing(strength)


# ---- composition

@dataclass(frozen=True)
class Loss(Mitigation):
    """Maps the inner loss x to factor * x + term, and says when."""

    factor: float
    term: float
    log: list = field(default_factory=list)

    def loss(self, forward, batch, inner):
        self.log.append(self.factor)
        return self.factor * inner(forward()) + self.term


@dataclass(frozen=True)
class TwoPasses(Mitigation):
    def loss(self, forward, batch, inner):
        return inner(forward()) + inner(forward())


@dataclass(frozen=True)
class Network(Mitigation):
    def model(self, model):
        return model


@dataclass(frozen=True)
class Answer(Mitigation):
    def answer(self, training, predict):
        return predict(training.model).roll(1, dims=1)


def passes(mitigation, *logits):
    """The loss of a network whose successive passes give `logits`; the task's loss is the logits themselves."""
    given = iter(logits)
    return mitigation.loss(lambda: torch.tensor(next(given)), None, lambda logits: logits).item()


def test_the_first_loss_is_the_outermost():
    log = []
    both = Composed((Loss(2, 1, log), Loss(10, 3, log)))
    assert passes(both, 5.0) == 2 * (10 * 5 + 3) + 1
    assert log == [2, 10]


def test_one_without_a_loss_does_not_take_the_passes_from_the_next():
    for parts in ((TwoPasses(),), (LabelSmoothing(), TwoPasses()), (TwoPasses(), LabelSmoothing()),
                  (Answer(), TwoPasses(), Network())):
        assert passes(Composed(parts), 5.0, 7.0) == 12
    assert passes(Composed((LabelSmoothing(), Answer())), 5.0) == 5


def test_targets_compose_in_order():
    twice = Composed((LabelSmoothing(0.5), LabelSmoothing(0.5))).data(one_hot(np.array([0]), 2))
    assert twice.probabilities.tolist() == [[0.625, 0.375]]  # 1 -> .75 -> .375 + .25


@pytest.mark.parametrize("one", [Network(), Answer()])
def test_a_second_claim_is_refused_by_name(one):
    name, hook = type(one).__name__, type(one).__name__.lower().replace("network", "model")
    with pytest.raises(InputError, match=rf"mitigation: got '{name} \+ {name}'; .*at most one that changes the {hook}"):
        Composed((one, LabelSmoothing(), one))
    with pytest.raises(InputError, match="at most one"):
        Composed((one, Composed((one,))))
    assert passes(Composed((one, Composed((LabelSmoothing(),)))), 5.0) == 5  # what is composed already claims nothing


def test_composed_hooks_reach_every_part():
    log = []

    @dataclass(frozen=True)
    class Count(Mitigation):
        name: str

        def step(self, training):
            log.append((self.name, "step"))

        def epoch(self, training):
            log.append((self.name, "epoch"))

    answers = train(TASK, Composed((Count("a"), Answer(), Count("b"))), Seeds(0, 0, 0))
    assert log[:2] == [("a", "step"), ("b", "step")] and log[-2:] == [("a", "epoch"), ("b", "epoch")]
    assert len(log) == 2 * 8 + 2
    control = train(TASK, CONTROL, Seeds(0, 0, 0))
    assert np.array_equal(answers["probabilities"], np.roll(control["probabilities"], 1, axis=1))


def test_resolve():
    assert resolve("control") == CONTROL
    assert resolve(LabelSmoothing()) == LabelSmoothing()
    assert resolve((LabelSmoothing(), Answer())) == Composed((LabelSmoothing(), Answer()))
    for wrong in ("ema", (), [LabelSmoothing()], (LabelSmoothing, ), None, LabelSmoothing, ("control",)):
        with pytest.raises(InputError, match='mitigation: got .*; expected "control", a Mitigation'):
            resolve(wrong)


# ---- identity

def test_identity_and_description():
    assert identity(CONTROL) == [] and describe(CONTROL) == "control"
    assert identity(LabelSmoothing(0.2)) == [{"name": "LabelSmoothing", "settings": {"strength": 0.2}}]
    both = Composed((LabelSmoothing(0.2), CONTROL, Answer()))
    assert describe(both) == "LabelSmoothing(strength=0.2) + Answer"
    assert [entry["name"] for entry in identity(both)] == ["LabelSmoothing", "Answer"]
    assert identity(Composed((LabelSmoothing(),))) == identity(LabelSmoothing())
    assert identity(Composed((LabelSmoothing(), Answer()))) != identity(Composed((Answer(), LabelSmoothing())))


def test_one_and_one_point_zero_are_one_setting():
    assert identity(LabelSmoothing(1)) == identity(LabelSmoothing(1.0))
    assert describe(LabelSmoothing(1)) == describe(LabelSmoothing(1.0))
    assert str(identity(LabelSmoothing(1))) == str(identity(LabelSmoothing(1.0)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), np.ones(2), {1, 2}, print])
def test_a_setting_that_cannot_be_written_down_is_refused_by_name(value):
    with pytest.raises(InputError, match="Loss term: got .*; expected a finite number, a text"):
        identity(Loss(1.0, value))


STUDENT = """
from dataclasses import dataclass
from stabutils.mitigations import Mitigation

class Base(Mitigation):
    scale = 2.0
    def data(self, targets):
        return targets

@dataclass(frozen=True)
class Mine(Base):
    name: str = "a field may have any name"
    def loss(self, forward, batch, inner):
        return inner(forward()) * self.scale
"""


def identity_of(text: str, folder, number: int):
    path = folder / f"student{number}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    del sys.modules[path.stem]
    return identity(module.Mine())


def test_the_source_of_one_written_elsewhere_is_part_of_it(tmp_path):
    (first,), (again,) = identity_of(STUDENT, tmp_path, 0), identity_of("# a remark\n" + STUDENT, tmp_path, 1)
    assert first == again and len(first["source"]) == 16
    assert first["name"] == "Mine" and first["settings"] == {"name": "a field may have any name"}
    changes = [("* self.scale", "* 3"), ("scale = 2.0", "scale = 3.0"), ("return targets", "return targets  # new")]
    sources = {identity_of(STUDENT.replace(*change), tmp_path, 2 + i)[0]["source"] for i, change in enumerate(changes)}
    assert len(sources | {first["source"]}) == 4  # body, a constant of the parent class, the parent's body
    assert "source" not in identity(LabelSmoothing())[0]


def test_one_without_source_text_is_refused_before_training():
    scope = {}
    exec(STUDENT, scope)
    with pytest.raises(InputError, match="mitigation: got 'Mine'; expected a class written in a file or a notebook"):
        identity(scope["Mine"]())


def test_one_written_in_a_notebook_cell_is_the_same_as_in_a_file(tmp_path):
    pytest.importorskip("IPython")
    script = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell({STUDENT!r}).raise_error()
shell.run_cell("from stabutils.mitigations import identity; print(identity(Mine())[0]['source'])").raise_error()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == identity_of(STUDENT, tmp_path, 0)[0]["source"]


# ---- a student's exercise

@dataclass(frozen=True)
class DropClass(Mitigation):
    """Trains without one class."""

    which: int = 0

    def data(self, targets):
        kept = targets.probabilities[:, self.which] == 0
        return replace(targets, indices=targets.indices[kept], probabilities=targets.probabilities[kept],
                       weights=targets.weights[kept])


def test_a_ten_line_mitigation_trains():
    task = tiny.task(replace(tiny.RECIPE, epochs=6))
    answers = train(task, DropClass(2), Seeds(0, 0, 0))
    assert not (answers["labels"] == 2).any()
    assert (train(task, CONTROL, Seeds(0, 0, 0))["labels"] == 2).any()


def test_a_diverged_one_without_source_text_is_still_named():
    scope = {}
    exec(STUDENT.replace("self.scale", "float('nan')"), scope)  # a notebook's class in a worker has no text there
    with pytest.raises(Diverged, match="Mine"):
        train(TASK, scope["Mine"](), Seeds(0, 0, 0))

"""What a mitigation may change in the one training loop, and what tells one mitigation from
another.

A mitigation is a small frozen dataclass. It overrides the hooks it needs and inherits the rest;
`Mitigation()` itself changes nothing and is called `control`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from stabutils.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stabutils.training.state import Batch, Seeds, Targets, Training
    from stabutils.training.task import Recipe


@dataclass(frozen=True)
class Mitigation:
    """Does nothing: the control every other one is measured against.

    `cost`: what it takes, in trainings of as many epochs and in passes for an answer, of control's;
    `price` counts the epochs too. `is_noop`: its settings make it control. `brief`: its name leaves
    out settings at their defaults. `stacks`: its hooks mean the same for several runs at once,
    whose tensors have a first axis for the run.
    """

    cost = (1.0, 1.0)
    is_noop = False
    brief = False
    stacks = True

    def flattened(self) -> tuple[Mitigation, ...]:
        """The mitigations that this one is composed of, in order: itself, unless it is
        `Composed`."""
        return (self,)

    def teacher_seeds(self, seeds: Seeds) -> tuple[Seeds, ...]:
        """The control trainings that a run with these seeds learns from. They are trained before
        it, runs like any others, and `data` finds in `targets.teachers` what they made of the
        training texts."""
        return ()

    def recipe(self, recipe: Recipe) -> Recipe:
        """How the run is trained: how long, at what rate. Asked before everything else."""
        return recipe

    def data(self, targets: Targets) -> Targets:
        """What the training split asks for: which examples, with what weight, towards which label
        distribution."""
        return targets

    def model(self, build: Callable[[], nn.Module]) -> nn.Module:
        """The network to train; each `build()` gives one freshly initialised with weights of its
        own."""
        return build()

    def begin(self, training: Training) -> None:
        """Before the first step, with the fresh network; what an interrupted training kept is put
        back after it."""

    def loss(
        self, forward: Callable[[], Tensor], batch: Batch, inner: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The loss of a batch. `forward()` is one pass (each draws new dropout), `inner(logits)`
        the task's loss."""
        return inner(forward())

    def gradient(self, training: Training, backward: Callable[[], Tensor]) -> Tensor:
        """Leaves a step's gradients in the parameters and returns its loss; `backward()` does so
        for the weights as they are, and may be asked again once they are changed."""
        return backward()

    def step(self, training: Training) -> None:
        """After each optimiser step."""

    def epoch(self, training: Training) -> None:
        """After each epoch. What must last until later steps goes into `training.memory` (tensors
        by name)."""

    def answer(self, training: Training, predict: Callable[[nn.Module], Tensor]) -> Tensor:
        """Probabilities the run answers with; `predict(network)` gives one network's, in evaluation
        mode."""
        return predict(training.model)


def overrides(mitigation: Mitigation, hook: str) -> bool:
    """Whether a mitigation, or one that it is composed of, replaces a hook."""
    plain = getattr(Mitigation, hook)
    return any(getattr(type(part), hook) is not plain for part in mitigation.flattened())


def atoms(mitigation: Mitigation) -> list[Mitigation]:
    """The mitigations it is composed of, in order, without those that change nothing."""
    parts = mitigation.flattened()
    return [part for part in parts if type(part) is not Mitigation and not part.is_noop]


def settings(mitigation: Mitigation) -> dict:
    """Every field by name; an integer given for a fraction is the fraction, so that 1 and 1.0 are
    one setting."""
    values = {f.name: (getattr(mitigation, f.name), f.default) for f in fields(mitigation)}
    return {
        name: float(value) if type(value) is int and type(default) is float else value
        for name, (value, default) in values.items()
    }


def identity(mitigation: Mitigation) -> list[dict]:
    """What tells one mitigation from another: name, every setting, and the source of one written
    elsewhere."""
    entries = [
        {"name": type(atom).__name__, "settings": settings(atom)} for atom in atoms(mitigation)
    ]
    for entry, atom in zip(entries, atoms(mitigation), strict=True):
        for name, value in entry["settings"].items():
            _check_setting(f"{entry['name']} {name}", value)
        if text := source(type(atom)):
            entry["source"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return entries


def _check_setting(name: str, value: object) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        allowed = "a finite number, a text, True or False, None, or a tuple or dictionary of these"
        raise InputError(name, value, allowed) from error


def source(kind: type) -> str:
    """Methods and constants that a class and its parents define outside this package; "" for a
    class of ours.

    Method by method, since `inspect` does not find the text of a whole class that stands in a
    notebook cell. Functions that the methods call are not followed.
    """
    parts = []
    for parent in kind.__mro__[:-1]:
        if parent.__module__.split(".")[0] != __name__.split(".")[0]:
            parts += [
                _text(kind, member)
                for name, member in sorted(vars(parent).items())
                if not name.startswith("__")
            ]
    return "\n".join(filter(None, parts))


def _text(kind: type, member: object) -> str:
    member = getattr(member, "__func__", getattr(member, "fget", member))
    if not inspect.isfunction(member):
        return repr(member) if isinstance(member, (bool, int, float, str, tuple)) else ""
    try:
        return inspect.getsource(member)
    except OSError as error:
        raise InputError(
            "mitigation", kind.__name__, "a class written in a file or a notebook cell"
        ) from error


def describe(mitigation: Mitigation) -> str:
    """A readable name: `control`, or `LabelSmoothing(strength=0.1)`, parts joined by ` + `."""
    texts = []
    for atom in atoms(mitigation):
        usual = {f.name: f.default for f in fields(atom)} if atom.brief else {}
        given = ", ".join(
            f"{name}={value}"
            for name, value in settings(atom).items()
            if name not in usual or value != usual[name]
        )
        texts.append(f"{type(atom).__name__}({given})" if given else type(atom).__name__)
    return " + ".join(texts) or "control"

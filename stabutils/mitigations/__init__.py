"""Ways to make retraining more stable: small frozen dataclasses that hook into the one training loop.

A mitigation overrides the hooks it needs and inherits the rest; `Mitigation()` itself does nothing and is `control`.
Several compose in order: `Composed((LabelSmoothing(0.1), EMA(0.99)))`, or simply a tuple given to `study.retrain`.
"""
from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..models import Recipe
    from ..training import Batch, Seeds, Targets, Training


@dataclass(frozen=True)
class Mitigation:
    """Does nothing: the control every other one is measured against.

    `cost`: what it takes, in trainings of as many epochs and in passes for an answer, of control's; `price` counts the
    epochs too. `idle`: its settings make it control. `brief`: its name leaves out settings at their defaults.
    """

    cost = (1.0, 1.0)
    idle = False
    brief = False

    def taught_by(self, seeds: Seeds) -> tuple[Seeds, ...]:
        """The control trainings that a run with these seeds learns from. They are trained before it, runs like any
        others, and `data` finds in `targets.teachers` what they made of the training texts."""
        return ()

    def recipe(self, recipe: Recipe) -> Recipe:
        """How the run is trained: how long, at what rate. Asked before everything else."""
        return recipe

    def data(self, targets: Targets) -> Targets:
        """What the training split asks for: which examples, with what weight, towards which label distribution."""
        return targets

    def model(self, build: Callable[[], nn.Module]) -> nn.Module:
        """The network to train; each `build()` gives one freshly initialised with weights of its own."""
        return build()

    def loss(self, forward: Callable[[], Tensor], batch: Batch, inner: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss of a batch. `forward()` is one pass (each draws new dropout), `inner(logits)` the task's loss."""
        return inner(forward())

    def gradient(self, training: Training, backward: Callable[[], Tensor]) -> Tensor:
        """Leaves a step's gradients in the parameters and returns its loss; `backward()` does so for the weights as
        they are, and may be asked again once they are changed."""
        return backward()

    def step(self, training: Training) -> None:
        """After each optimiser step."""

    def epoch(self, training: Training) -> None:
        """After each epoch. What must last until later steps goes into `training.memory` (tensors by name)."""

    def answer(self, training: Training, predict: Callable[[nn.Module], Tensor]) -> Tensor:
        """Probabilities the run answers with; `predict(network)` gives one network's, in evaluation mode."""
        return predict(training.model)


@dataclass(frozen=True)
class Composed(Mitigation):
    """Several mitigations in order; the first one's loss is the outermost.

    At most one of them may change the network (`model`), one the answer, and one have teachers; a second is refused by
    name.
    """

    parts: tuple[Mitigation, ...] = ()

    def __post_init__(self):
        words = {"model": "changes the model", "answer": "changes the answer", "taught_by": "has teachers"}
        for hook, does in words.items():
            claims = [type(part).__name__ for part in self.parts if overrides(part, hook)]
            if len(claims) > 1:
                raise InputError("mitigation", " + ".join(claims), f"at most one that {does}")

    @property
    def cost(self):
        trainings, passes = zip((1.0, 1.0), *(part.cost for part in self.parts if not overrides(part, "taught_by")),
                                strict=True)
        return math.prod(trainings) + _taught(self), math.prod(passes)

    def taught_by(self, seeds):
        return tuple(dict.fromkeys(teacher for part in self.parts for teacher in part.taught_by(seeds)))

    def recipe(self, recipe):
        for part in self.parts:
            recipe = part.recipe(recipe)
        return recipe

    def data(self, targets):
        for part in self.parts:
            targets = part.data(targets)
        return targets

    def model(self, build):
        claim = next((part for part in self.parts if overrides(part, "model")), Mitigation())
        return claim.model(build)

    def loss(self, forward, batch, inner):
        # One without a loss of its own must not stand outermost: the outermost decides on the first pass.
        outermost, *others = [part for part in self.parts if overrides(part, "loss")] or [Mitigation()]
        passes = []

        def fresh():
            passes.append(forward())
            return passes[-1]

        for part in reversed(others):
            inner = _nested(part, batch, inner, fresh, passes)
        return outermost.loss(fresh, batch, inner)

    def gradient(self, training, backward):
        for part in reversed(self.parts):
            backward = partial(part.gradient, training, backward)
        return backward()

    def step(self, training):
        for part in self.parts:
            part.step(training)

    def epoch(self, training):
        for part in self.parts:
            part.epoch(training)

    def answer(self, training, predict):
        claim = next((part for part in self.parts if overrides(part, "answer")), Mitigation())
        return claim.answer(training, predict)


def _nested(part: Mitigation, batch: Batch, inner: Callable[[Tensor], Tensor], fresh: Callable[[], Tensor],
            passes: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of a part within another's: its first pass is the one it is given, any further ones are fresh.

    Fresh logits stand beside given ones only where those are a pass as it was; else the part is refused by name.
    """
    def loss(given: Tensor) -> Tensor:
        rest = iter([given])

        def forward() -> Tensor:
            logits = next(rest, None)
            if logits is not None:
                return logits
            if not any(given is one for one in passes):
                raise InputError("mitigation", f"{describe(part)} after one that changes the logits",
                                 "the one whose loss makes several passes to stand first")
            return fresh()

        return part.loss(forward, batch, inner)

    return loss


def overrides(mitigation: Mitigation, hook: str) -> bool:
    if isinstance(mitigation, Composed):
        return any(overrides(part, hook) for part in mitigation.parts)
    return getattr(type(mitigation), hook) is not getattr(Mitigation, hook)


def price(given: str | Mitigation | tuple[Mitigation, ...], recipe: Recipe) -> tuple[float, float]:
    """What a mitigation takes under a recipe: trainings and passes for an answer, of control's; epochs are whole."""
    mitigation = resolve(given)
    trainings, passes = mitigation.cost
    taught = _taught(mitigation)
    return (trainings - taught) * mitigation.recipe(recipe).epochs / recipe.epochs + taught, passes


def _taught(mitigation: Mitigation) -> float:
    """The trainings of teachers, who are trained as control is, whatever it takes to train what learns from them."""
    return sum(atom.cost[0] - 1 for atom in atoms(mitigation) if overrides(atom, "taught_by"))


def atoms(mitigation: Mitigation) -> list[Mitigation]:
    """The mitigations it is composed of, in order; none for control, nor for what its settings make control."""
    if isinstance(mitigation, Composed):
        return [atom for part in mitigation.parts for atom in atoms(part)]
    return [] if type(mitigation) is Mitigation or mitigation.idle else [mitigation]


def settings(mitigation: Mitigation) -> dict:
    """Every field by name; an integer given for a fraction is the fraction, so that 1 and 1.0 are one setting."""
    values = {f.name: (getattr(mitigation, f.name), f.default) for f in fields(mitigation)}
    return {name: float(value) if type(value) is int and type(default) is float else value
            for name, (value, default) in values.items()}


def identity(mitigation: Mitigation) -> list[dict]:
    """What tells one mitigation from another: name, every setting, and the source of one written elsewhere."""
    entries = [{"name": type(atom).__name__, "settings": settings(atom)} for atom in atoms(mitigation)]
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
    """Methods and constants that a class and its parents define outside this package; "" for a class of ours.

    Method by method, since `inspect` does not find the text of a whole class that stands in a notebook cell. Functions
    that the methods call are not followed.
    """
    parts = []
    for parent in kind.__mro__[:-1]:
        if parent.__module__.split(".")[0] != __name__.split(".")[0]:
            parts += [_text(kind, member) for name, member in sorted(vars(parent).items()) if not name.startswith("__")]
    return "\n".join(filter(None, parts))


def _text(kind: type, member: object) -> str:
    member = getattr(member, "__func__", getattr(member, "fget", member))
    if not inspect.isfunction(member):
        return repr(member) if isinstance(member, (bool, int, float, str, tuple)) else ""
    try:
        return inspect.getsource(member)
    except OSError as error:
        raise InputError("mitigation", kind.__name__, "a class written in a file or a notebook cell") from error


def describe(mitigation: Mitigation) -> str:
    """A readable name: `control`, or `LabelSmoothing(strength=0.1)`, parts joined by ` + `."""
    texts = []
    for atom in atoms(mitigation):
        usual = {f.name: f.default for f in fields(atom)} if atom.brief else {}
        given = ", ".join(f"{name}={value}" for name, value in settings(atom).items()
                          if name not in usual or value != usual[name])
        texts.append(f"{type(atom).__name__}({given})" if given else type(atom).__name__)
    return " + ".join(texts) or "control"


def wanted(methods: str, catalogue: Mapping[str, object], quick: Sequence[str]) -> tuple[str, ...]:
    """The names that a notebook's `methods` asks for: "quick", "all", or some of a catalogue, separated by commas.

    >>> wanted("b, a", {"a": 1, "b": 2, "c": 3}, quick=("c",)), wanted("quick", {"c": 3}, quick=("c",))
    (('b', 'a'), ('c',))

    Raises InputError for a name that the catalogue lacks.
    """
    named = {"quick": tuple(quick), "all": tuple(catalogue)}
    names = named.get(methods) or [each.strip() for each in methods.split(",")]
    for name in names:
        if name not in catalogue:
            raise InputError("method", name, f"quick, all, or names out of {', '.join(catalogue)}")
    return tuple(dict.fromkeys(names))


def resolve(given: str | Mitigation | tuple[Mitigation, ...]) -> Mitigation:
    """The mitigation meant by `"control"`, a mitigation, or a tuple of them."""
    if isinstance(given, str) and given == "control":
        return Mitigation()
    if isinstance(given, Mitigation):
        return given
    if isinstance(given, tuple) and given and all(isinstance(part, Mitigation) for part in given):
        return Composed(given)
    raise InputError("mitigation", given, '"control", a Mitigation, or a tuple of them')

"""What a mitigation may change in the one training loop, and what tells one mitigation from
another.

A mitigation is a small frozen dataclass. It overrides the hooks it needs and inherits the rest;
`Mitigation()` itself changes nothing and is called `control`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from stabutils.errors import InputError, check
from stabutils.training.own_code import Names, is_written, plain_function

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stabutils.training.state import Batch, Seeds, Targets, Training
    from stabutils.training.task import Recipe


@dataclass(frozen=True)
class Mitigation:
    """Does nothing: the control every other one is measured against.

    `cost`: what it takes, in trainings of as many epochs and in passes for an answer, of control's;
    `price` counts the epochs too. `is_noop`: its settings make it control, and none of its hooks is
    called. `brief`: its name leaves out settings at their defaults. `stacks`: its hooks mean the
    same for several runs at once, whose tensors have a first axis for the run. `reads_checkpoints`:
    it learns from more than the last answers of its teachers. `in_pairs`: in a step its network
    answers each text twice, plainly and perturbed.
    """

    cost = (1.0, 1.0)
    brief = False
    teacher_extras = ("training",)  # what its teachers keep (`probes.PROBES`)
    stacks = True
    reads_checkpoints = False
    in_pairs = False

    @property
    def is_noop(self) -> bool:
        return False

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
        the task's loss. Other terms are weighted by `batch.weights`: where several runs are trained
        at once, a batch may hold texts that do not count."""
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
        """Probabilities of the run's networks; `predict(network)` gives one network's, in
        evaluation mode.

        They are about the texts `training.task.texts[training.split]`.
        """
        return predict(training.model)

    def postprocess(self, training: Training, probabilities: Tensor) -> Tensor:
        """Probabilities the run answers with, (texts, classes), out of those that `answer`
        returned.

        Several mitigations may do so, each with what the one before it made; texts as in `answer`.
        """
        return probabilities


def knob(default: object, **rule: object) -> Any:
    """A field of a dataclass with its default, and what is allowed (`errors.check`)."""
    return field(default=default, metadata=rule)


def check_fields(owner: Any, chosen: Iterable[Field], prefix: str = "") -> None:
    """Hold fields of a dataclass against their types and rules. Raises InputError."""
    hints = get_type_hints(type(owner))
    for each in chosen:
        value = getattr(owner, each.name)
        check(f"{prefix}{each.name}", value, hints[each.name], each.metadata)


def overrides(mitigation: Mitigation, hook: str) -> bool:
    """Whether a mitigation, or one that it is composed of, replaces a hook."""
    plain = getattr(Mitigation, hook)
    return any(getattr(type(part), hook) is not plain for part in mitigation.flattened())


def atoms(mitigation: Mitigation) -> list[Mitigation]:
    """The mitigations it is composed of, in order, without those that change nothing."""
    parts = mitigation.flattened()
    return [part for part in parts if type(part) is not Mitigation and not part.is_noop]


def active(mitigation: Mitigation) -> Mitigation:
    """What trains: the mitigation, or control where its settings make it that."""
    return Mitigation() if mitigation.is_noop else mitigation


def settings(mitigation: Mitigation) -> dict:
    """Every field by name; an integer given for a fraction is the fraction, so that 1 and 1.0 are
    one setting."""
    values = {}
    for each in fields(mitigation):
        value = getattr(mitigation, each.name)
        if type(value) is int and type(each.default) is float:
            value = float(value)
        values[each.name] = value
    return values


def identity(mitigation: Mitigation) -> list[dict]:
    """What tells one mitigation from another: name, every setting, and the source of one written
    elsewhere."""
    entries = []
    for atom in atoms(mitigation):
        kind = type(atom)
        entry: dict = {"name": kind.__name__, "settings": settings(atom)}
        for name, value in entry["settings"].items():
            _check_setting(f"{kind.__name__} {name}", value)
        if text := source(kind):
            entry["source"] = hashlib.sha256(text.encode()).hexdigest()[:16]
        entries.append(entry)
    return entries


def _check_setting(name: str, value: object) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        allowed = "a finite number, a text, True or False, None, or a tuple or dictionary of these"
        raise InputError(name, value, allowed) from error


def source(kind: type) -> str:
    """What decides the answers of a class that is written outside this package.

    Parameters
    ----------
    kind
        The class of a mitigation.

    Returns
    -------
    str
        Its methods and constants and those of its parents, method by method, since `inspect` does
        not find the text of a whole class that stands in a notebook cell; then the functions,
        classes and constants that these name at module level, and what those name in turn. "" for
        a class of ours. A warning names what cannot be followed, such as a fitted model.

    Raises
    ------
    InputError
        A method whose text is nowhere.
    """
    parts, names = [], Names(kind.__mro__)
    for parent in kind.__mro__[:-1]:
        if parent.__module__.split(".")[0] != __name__.split(".")[0]:
            for name, member in sorted(vars(parent).items()):
                if not name.startswith("__") or is_written(member):
                    parts.append(_text(kind, member, names))
    parts += [f"{name}: {text}" for name, text in sorted(names.texts.items()) if text]
    if names.unknown:
        listed = ", ".join(sorted(set(names.unknown)))
        warnings.warn(
            f"{kind.__name__} uses {listed}, whose content cannot be followed: runs trained before "
            "it changes are taken for runs after",
            stacklevel=2,
        )
    return "\n".join(filter(None, parts))


def _text(kind: type, member: object, names: Names) -> str:
    """A member of a class in words; what it names is added to `names`."""
    member = plain_function(member)
    if not inspect.isfunction(member):
        if isinstance(member, (bool, int, float, str, tuple)) and " at 0x" not in repr(member):
            return repr(member)
        if member is None or inspect.isdatadescriptor(member):  # a default, a slot of a field
            return ""
        return names.describe(kind.__name__, member)
    try:
        text = inspect.getsource(member)
    except OSError as error:
        allowed = "a class written in a file or a notebook cell"
        raise InputError("mitigation", kind.__name__, allowed) from error
    names.follow(member)
    return text


def describe(mitigation: Mitigation) -> str:
    """A readable name: `control`, or `LabelSmoothing(strength=0.1)`, parts joined by ` + `."""
    texts = []
    for atom in atoms(mitigation):
        given = settings(atom)
        if atom.brief:
            usual = {each.name: each.default for each in fields(atom)}
            given = {name: value for name, value in given.items() if value != usual[name]}
        words = ", ".join(f"{name}={value}" for name, value in given.items())
        name = type(atom).__name__
        texts.append(f"{name}({words})" if words else name)
    return " + ".join(texts) or "control"

"""Several mitigations as one, and what a mitigation costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from stabutils.errors import InputError
from stabutils.training.hooks import Mitigation, atoms, describe, overrides

if TYPE_CHECKING:
    from torch import Tensor

    from stabutils.training.state import Batch
    from stabutils.training.task import Recipe


@dataclass(frozen=True)
class Composed(Mitigation):
    """Several mitigations in order; the first one's loss is the outermost.

    At most one of them may change the network (`model`), one the answer, and one have teachers; a
    second is refused by name. Any number may work on the probabilities of that answer
    (`postprocess`), in order.
    """

    parts: tuple[Mitigation, ...] = ()

    def flattened(self):
        return tuple(atom for part in self.parts for atom in part.flattened())

    def __post_init__(self):
        words = {
            "model": "changes the model",
            "answer": "changes the answer",
            "teacher_seeds": "has teachers",
        }
        for hook, does in words.items():
            claims = [type(part).__name__ for part in self.parts if overrides(part, hook)]
            if len(claims) > 1:
                raise InputError("mitigation", " + ".join(claims), f"at most one that {does}")

    @property
    def cost(self):
        return _cost(self)

    @cached_property
    def active(self) -> tuple[Mitigation, ...]:
        """The parts whose settings do not make control of them."""
        return tuple(part for part in self.parts if not part.is_noop)

    def claim(self, hook: str) -> Mitigation:
        """The one part that replaces a hook, or control."""
        return next((part for part in self.active if overrides(part, hook)), Mitigation())

    @property
    def teacher_extras(self):
        return self.claim("teacher_seeds").teacher_extras

    def teacher_seeds(self, seeds):
        return self.claim("teacher_seeds").teacher_seeds(seeds)

    def recipe(self, recipe):
        for part in self.active:
            recipe = part.recipe(recipe)
        return recipe

    def data(self, targets):
        for part in self.active:
            targets = part.data(targets)
        return targets

    def model(self, build):
        return self.claim("model").model(build)

    def begin(self, training):
        for part in self.active:
            part.begin(training)

    def loss(self, forward, batch, inner):
        # One without a loss of its own must not stand outermost, which decides on the first pass.
        parts = [part for part in self.active if overrides(part, "loss")]
        outermost, *others = parts or [Mitigation()]
        passes = []

        def fresh():
            passes.append(forward())
            return passes[-1]

        for part in reversed(others):
            inner = _nested(part, batch, inner, fresh, passes)
        return outermost.loss(fresh, batch, inner)

    def gradient(self, training, backward):
        for part in reversed(self.active):
            backward = partial(part.gradient, training, backward)
        return backward()

    def step(self, training):
        for part in self.active:
            part.step(training)

    def epoch(self, training):
        for part in self.active:
            part.epoch(training)

    def answer(self, training, predict):
        return self.claim("answer").answer(training, predict)

    def postprocess(self, training, probabilities):
        for part in self.active:
            probabilities = part.postprocess(training, probabilities)
        return probabilities


def _nested(
    part: Mitigation,
    batch: Batch,
    inner: Callable[[Tensor], Tensor],
    fresh: Callable[[], Tensor],
    passes: list[Tensor],
) -> Callable[[Tensor], Tensor]:
    """The loss of a part within another's.

    Its first pass is the one it is given, any further ones are fresh. Fresh logits stand beside
    given ones only where those are a pass as it was; else the part is refused by name.
    """

    def loss(given: Tensor) -> Tensor:
        rest = iter([given])

        def forward() -> Tensor:
            logits = next(rest, None)
            if logits is not None:
                return logits
            if not any(given is one for one in passes):
                raise InputError(
                    "mitigation",
                    f"{describe(part)} after one that changes the logits",
                    "the one whose loss makes several passes to stand first",
                )
            return fresh()

        return part.loss(forward, batch, inner)

    return loss


def price(given: str | Mitigation | tuple[Mitigation, ...], recipe: Recipe) -> tuple[float, float]:
    """Trainings and passes for an answer under a recipe, of control's; epochs are whole."""
    mitigation = resolve(given)
    trainings, passes = _cost(mitigation)
    taught = _taught(mitigation)
    return (trainings - taught) * mitigation.recipe(recipe).epochs / recipe.epochs + taught, passes


def _cost(mitigation: Mitigation) -> tuple[float, float]:
    """Of its parts, however they are nested: what they take multiplies, teachers are added.

    What works on the answer of the others takes passes beside theirs, not of each of theirs. Parts
    whose settings make control of them cost nothing.
    """
    trainings, passes, beside = 1.0, 1.0, 0.0
    for atom in atoms(mitigation):
        if overrides(atom, "postprocess"):
            beside += atom.cost[1] - 1
        else:
            passes *= atom.cost[1]
        if not overrides(atom, "teacher_seeds"):
            trainings *= atom.cost[0]
    return trainings + _taught(mitigation), passes + beside


def _taught(mitigation: Mitigation) -> float:
    """The trainings of teachers, which are control's, whatever it takes to learn from them."""
    return sum(atom.cost[0] - 1 for atom in atoms(mitigation) if overrides(atom, "teacher_seeds"))


def wanted(methods: str, catalogue: Mapping[str, object], quick: Sequence[str]) -> tuple[str, ...]:
    """The names that a notebook's `methods` asks for.

    "quick", "all", "none", or some of a catalogue, separated by commas.

    >>> wanted("b, a", {"a": 1, "b": 2, "c": 3}, quick=("c",))
    ('b', 'a')
    >>> wanted("quick", {"c": 3}, quick=("c",))
    ('c',)

    Raises InputError for a name that the catalogue lacks.
    """
    named = {"quick": tuple(quick), "all": tuple(catalogue), "none": ()}
    names = named.get(methods, tuple(each.strip() for each in methods.split(",")))
    for name in names:
        if name not in catalogue:
            allowed = f"quick, all, none, or names out of {', '.join(catalogue)}"
            raise InputError("method", name, allowed)
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

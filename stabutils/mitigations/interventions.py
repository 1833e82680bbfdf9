"""What is done to a training to learn from it, and not to make it more stable: a rounding error,
wrong labels, texts left out, units that each example turns over.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import SupportsIndex

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from stabutils.errors import InputError, check
from stabutils.mitigations.data_centric import Checked, nearest, only
from stabutils.mitigations.regularizers import ScalarMitigation
from stabutils.training.hooks import Mitigation, knob
from stabutils.training.networks import Around
from stabutils.training.state import Targets, one_hot
from stabutils.training.task import Tokens


@dataclass(frozen=True)
class Again(Mitigation):
    """No mitigation: control once more with the same seeds, stored as a run of its own. What it
    answers differently from control is what a training does not repeat to the bit; on one machine
    and number of threads, nothing.
    """

    copy: int = 1


@dataclass(frozen=True)
class Poke(Mitigation):
    """No mitigation: multiplies the largest weight of the fresh head by 1 + `size`, so that a run
    differs from control of equal seeds by rounding only. After Summers and Dinneen 2021,
    "Nondeterminism and Instability in Neural Network Optimization", who change one bit; 0 is
    control.
    """

    size: float = 1e-6

    def __post_init__(self):
        number = isinstance(self.size, (int, float)) and not isinstance(self.size, bool)
        if not number or not (self.size == 0 or 1.2e-7 <= self.size < math.inf):
            allowed = "0, or a number of at least 1.2e-7: less is lost in rounding"
            raise InputError("Poke size", self.size, allowed)

    @property
    def is_noop(self):
        return self.size == 0

    def model(self, build):
        model = build()
        weights = model.head.weight.detach().view(-1)
        weights[weights.abs().argmax()] *= 1 + self.size
        return model


def masks(
    indices: Sequence[int] | ndarray, width: int, rate: float = 0.5, seed: int = 0
) -> ndarray:
    """The units that each training example trains: bool (examples, width), a share `rate` of them
    in the mean.

    A hash of (seed, index, unit), so that no table is stored and an example has the same units in
    every step. Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators" (the
    finaliser of SplitMix64).
    """
    examples = _mix(np.asarray(indices, np.uint64) + _mix(np.full(1, seed, np.uint64)))
    numbers = _mix(examples[:, None] + np.arange(width, dtype=np.uint64))
    return (numbers >> np.uint64(11)) * 2.0**-53 < rate


def _mix(x: ndarray) -> ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# ---- training


class TurnedOver(Around):
    """A network of which a step trains, for each text, the units before the head that the text's
    example owns, in place of dropout there; outside a step, and in evaluation, it is the plain
    network.
    """

    def __init__(self, network: nn.Module, rate: float):
        super().__init__(network)
        self.rate = rate
        # example of each text in the batch, seed of the masks
        self.owners: tuple[Tensor, int] | None = None

    def forward(self, tokens) -> Tensor:
        if self.owners is None or not self.training:
            return self.network(tokens)
        indices, seed = self.owners
        vectors = self.features(tokens)
        own = masks(indices.cpu().numpy(), vectors.shape[1], self.rate, seed)
        return self.head(vectors * torch.from_numpy(own).to(vectors.device) / self.rate)


@dataclass(frozen=True)
class TurnOver(ScalarMitigation):
    """Trains each example through its own share `rate` of the units before the head (see
    `analysis.influence`); answers with all.

    The masks of a run come from its `init` seed, so that a mean over runs is one over masks too.
    Measure the stability of what it trains apart from control's: such masks are a strong
    regulariser. The default is the paper's.
    """

    rate: float = 0.5
    allowed = (0.05, 0.95)
    neutral = None

    def model(self, build):
        return TurnedOver(build(), self.rate)

    def gradient(self, training, backward):
        training.model.owners = training.batch.indices, training.seeds.init
        loss = backward()
        training.model.owners = None
        return loss


@dataclass(frozen=True)
class Without(Mitigation):
    """Trains without some examples, rows of the training split, or with a `share` of their weight;
    the mean weight stays 1. No row is control. A row that is not there is refused when the training
    begins.
    """

    indices: tuple[int, ...] = ()
    share: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "indices", tuple(sorted({*map(_row, self.indices)})))
        check("Without share", self.share, float, {"least": 0, "most": 1})

    @property
    def is_noop(self):
        return not self.indices or self.share == 1

    def data(self, targets):
        named = torch.isin(targets.indices, torch.tensor(self.indices, dtype=torch.int64))
        weights = torch.where(named, targets.weights * self.share, targets.weights)
        kept = weights > 0
        if named.sum() < len(self.indices) or not kept.any():
            allowed = "rows of the training split, and not all of them"
            raise InputError("Without indices", self.indices, allowed)
        return only(replace(targets, weights=weights), kept)


def _row(index: SupportsIndex) -> int:
    """A row of the training split. Raises InputError for what is no integer."""
    if not isinstance(index, (bool, np.bool_)):
        with suppress(TypeError):
            return operator.index(index)
    raise InputError("Without indices", index, "integers, rows of the training split")


# ---- labels


@dataclass(frozen=True)
class LabelNoise(Checked):
    """No mitigation: replaces a share of the training labels by wrong ones, the same in all runs.

    It stands first in a tuple of mitigations, and none of them may have teachers: these would learn
    from the labels as they were.

    Parameters
    ----------
    share : of the training examples, 0 to 1; 0 is control.
    kind : "uniform", any other label alike; "confusable", the label of the nearest training text
        that has another one (`noisy_labels`).
    seed : of the draw. The examples of a smaller share are among those of a larger one.
    """

    share: float = knob(0.05, least=0, most=1)
    kind: str = knob("uniform", choices=("uniform", "confusable"))
    seed: int = knob(0, least=0)

    @property
    def is_noop(self):
        return self.share == 0

    def data(self, targets):
        classes = targets.probabilities.shape[1]
        labels = self.labels(untouched(targets), classes, targets.texts)
        task = targets.task and replace(targets.task, train_labels=labels)
        return replace(targets.with_labels(one_hot(labels, classes).probabilities), task=task)

    def labels(self, labels: ndarray, classes: int, texts: Tokens) -> ndarray:
        """What a run is trained on in place of labels (training examples,)."""
        near = nearest(texts, NEAR).numpy() if self.kind == "confusable" else None
        return noisy_labels(labels, classes, self.share, self.seed, near)


NEAR = 50  # training texts in which a nearest one of another label is looked for


def untouched(targets: Targets) -> ndarray:
    """The labels of the whole training split. Raises InputError where these are targets no more."""
    count = 0 if targets.texts is None else len(targets.texts.lengths)
    whole = torch.equal(targets.indices, torch.arange(count))
    change = None if targets.task is None else targets.task.change
    if change is not None and change.kind != "relabel" and not whole:
        allowed = "one that keeps every training text, for LabelNoise"
        raise InputError("change", change.words, allowed)
    if not whole or targets.teachers is not None or (targets.probabilities.amax(1) < 1).any():
        allowed = "to be the first, and none that has teachers"
        raise InputError("mitigation", "LabelNoise after or beside another one", allowed)
    return targets.probabilities.argmax(1).numpy()


def noisy_labels(
    labels: ndarray, classes: int, share: float, seed: int = 0, near: ndarray | None = None
) -> ndarray:
    """Labels of which a share is wrong.

    Parameters
    ----------
    labels : (examples,) ids below `classes`. share : 0 to 1, to the nearest whole example.
    seed : of which examples they are, and of uniform draws.
    near : (examples, neighbours), the examples nearest to each, nearest first: an example gets the
        label of the first of another label, and a uniform draw where there is none. None: all
        labels are uniform draws from the other ones.

    Returns
    -------
    (examples,) integers.

    Examples
    --------
    >>> noisy_labels(np.array([0, 0, 1, 1]), 2, share=0.5)
    array([1, 0, 0, 1])
    """
    labels = np.asarray(labels)
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(labels))[: round(share * len(labels))]
    wrong = (labels + draw.integers(1, classes, len(labels))) % classes
    if near is not None:
        others = labels[near]
        differs = others != labels[:, None]
        first = np.take_along_axis(others, differs.argmax(1)[:, None], 1)[:, 0]
        wrong = np.where(differs.any(1), first, wrong)
    noisy = labels.copy()
    noisy[chosen] = wrong[chosen]
    return noisy

"""Which training examples make a trained network answer as it does: turn-over dropout.

Every training example owns a random half of the units before the head (a share `rate` of them) and trains the head
through these alone; the other half never sees it. So one trained network holds, for each example, a head that was
trained on it and one that was not, and the difference of their answers to a query is the example's influence. Only the
head is told apart: what the layers below it learn of an example reaches both halves. Influence is of single examples:
where a second one says the same, each hides what the other does.

Kobayashi, Yokoi, Suzuki and Inui 2020, "Efficient Estimation of Influence of a Training Instance", arXiv 2012.04207,
who put such masks into inner layers as well. The authors' code scales rightly at a rate of one half only; here each
half is scaled by its own share.

    runs = study.retrain(TurnOver(), keep=KEEP)
    culprits = of_runs(runs, TurnOver(), majority, "doubt").mean(0)  # (queries, training examples)
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from .errors import InputError
from .mitigations import Mitigation, describe
from .mitigations.regularizers import Around, Dose

if TYPE_CHECKING:
    from .study import Runs

KEEP = ("hidden", "hidden training", "hidden validation", "head")  # what `of_runs` needs of a run


def masks(indices: Sequence[int] | np.ndarray, width: int, rate: float = 0.5, seed: int = 0) -> np.ndarray:
    """The units that each training example trains: bool (examples, width), a share `rate` of them in the mean.

    A hash of (seed, index, unit), so that no table is stored and an example has the same units in every step.
    Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators" (the finaliser of SplitMix64).
    """
    examples = _mix(np.asarray(indices, np.uint64) + _mix(np.full(1, seed, np.uint64)))
    numbers = _mix(examples[:, None] + np.arange(width, dtype=np.uint64))
    return (numbers >> np.uint64(11)) * 2.0**-53 < rate


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# ---- training

class TurnedOver(Around):
    """A network of which a step trains, for each text, the units before the head that the text's example owns, in place
    of dropout there; outside a step, and in evaluation, it is the plain network."""

    def __init__(self, network: nn.Module, rate: float):
        super().__init__(network)
        self.rate = rate
        self.owners: tuple[Tensor, int] | None = None  # example of each text in the batch, seed of the masks

    def forward(self, tokens) -> Tensor:
        if self.owners is None or not self.training:
            return self.network(tokens)
        indices, seed = self.owners
        vectors = self.features(tokens)
        kept = torch.from_numpy(masks(indices.numpy(), vectors.shape[1], self.rate, seed))
        return self.head(vectors * kept / self.rate)


@dataclass(frozen=True)
class TurnOver(Dose):
    """Trains each example through its own share `rate` of the units before the head (see the module); answers with all.

    The masks of a run come from its `init` seed, so that a mean over runs is one over masks too. Measure the stability
    of what it trains apart from control's: such masks are a strong regulariser. The default is the paper's.
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


# ---- influence

SCORES = {"loss": lambda logs, labels: -_at(logs, labels), "doubt": lambda logs, labels: 1 - np.exp(_at(logs, labels)),
          "entropy": lambda logs, labels: -(np.exp(logs) * logs).sum(-1)}  # of log-probabilities (..., classes)


def _at(logs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.take_along_axis(logs, np.broadcast_to(labels, logs.shape[:-1])[..., None], -1)[..., 0]


def influence(vectors: np.ndarray, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray, masks: np.ndarray,
              rate: float = 0.5, score: str = "loss") -> np.ndarray:
    """What training on each example did to each query: (queries, training examples), float32.

    The query's score by the units that did not train the example less its score by those that did: positive where
    training on the example lowered the score. All scores are the lower the better: `loss`, -log of the label's
    probability, nats (positive: the example helped the label); `doubt`, 1 - that probability (with the majority's
    answer for a label, negative: the example drives flips); `entropy` of the answer, nats, whatever the label.

    vectors (queries, width) before the head; weight (classes, width) and bias (classes,) of the head; labels
    (queries,); masks (training examples, width) of the training, rate their share. Computed query by query, so memory
    stays that of one. Raises InputError for another score.

    >>> owned = np.array([[True, False], [False, True]])  # unit 0 trained on example 0 only, unit 1 on example 1 only
    >>> weight = np.array([[1.0, 0.0], [0.0, 0.0]])  # and unit 0 votes for class 0, unit 1 for none
    >>> print(influence([[1.0, 1.0]], weight, np.zeros(2), [0], owned).round(3))  # log 2 - log(1 + e^-2), and back
    [[ 0.566 -0.566]]
    """
    vectors, weight, bias, owned = (np.asarray(array, np.float32) for array in (vectors, weight, bias, masks))
    found = np.empty((len(vectors), len(owned)), np.float32)
    for row, vector, label in zip(found, vectors, labels, strict=True):
        votes = weight * vector
        row[:] = _difference(owned @ votes.T, votes.sum(1), bias, label, rate, score)
    return found


def self_influence(vectors: np.ndarray, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray, masks: np.ndarray,
                   rate: float = 0.5, score: str = "loss") -> np.ndarray:
    """The diagonal of `influence` where the queries are the training examples: (training examples,).

    What the head knows of each only from having been shown it: high for what the rest contradicts, such as a wrong
    label, and for what stands alone.
    """
    vectors, weight = np.asarray(vectors, np.float32), np.asarray(weight, np.float32)
    return _difference((vectors * masks) @ weight.T, vectors @ weight.T, bias, labels, rate, score)


def _difference(owned, every, bias, labels, rate, score) -> np.ndarray:
    """Score without the example less score with it, from the votes (..., classes) of its own units and of all."""
    if score not in SCORES:
        raise InputError("score", score, f"one of {', '.join(SCORES)}")
    without, trained = (SCORES[score](log_softmax(votes / share + bias, axis=-1), labels)
                        for votes, share in ((every - owned, 1 - rate), (owned, rate)))
    return without - trained


# ---- of a study's runs

def of_runs(runs: Runs, turnover: TurnOver, labels: np.ndarray, score: str = "loss", split: str = "test",
            queries: np.ndarray | slice = slice(None)) -> np.ndarray:
    """`influence` by every run, runs first as intervals want them: (runs, queries, training examples).

    runs: `study.retrain(turnover, keep=KEEP)`; labels (examples of the split,); split: test, validation or training;
    queries: which of its examples. Raises InputError for other runs, and for those that kept less.
    """
    labels = np.asarray(labels)[queries]
    return np.stack([influence(vectors[queries], *rest[:2], labels, *rest[2:], score)
                     for vectors, *rest in _networks(runs, turnover, split)])


def of_itself(runs: Runs, turnover: TurnOver, labels: np.ndarray, score: str = "loss") -> np.ndarray:
    """`self_influence` by every run: (runs, training examples); labels: those it was trained on."""
    return np.stack([self_influence(vectors, *rest[:2], labels, *rest[2:], score)
                     for vectors, *rest in _networks(runs, turnover, "training")])


def _networks(runs: Runs, turnover: TurnOver, split: str) -> Iterator[tuple]:
    """Of each run: vectors of the split, the head's weight and bias, the masks of its training and their rate."""
    names = [f"hidden {split}".removesuffix(" test"), "head", "hidden training"]
    if describe(turnover) not in runs.arm or not runs.kept.keys() >= set(names):
        raise InputError("runs", f"{runs.arm} with {sorted(runs.kept)}", f"{describe(turnover)} with keep={KEEP}")
    for seed, vectors, head, trained in zip(runs.seeds, *(runs.kept[name] for name in names), strict=True):
        owned = masks(np.arange(len(trained)), head.shape[1] - 1, turnover.rate, seed)
        yield vectors, head[:, :-1], head[:, -1], owned, turnover.rate


@dataclass(frozen=True)
class Without(Mitigation):
    """Trains without some examples, rows of the training split, or with a `share` of their weight; the mean weight
    stays 1. No row is control. A row that is not there is refused when the training begins."""

    indices: tuple[int, ...] = ()
    share: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "indices", tuple(sorted({int(index) for index in self.indices})))
        if not 0 <= self.share <= 1:
            raise InputError("Without share", self.share, "a number from 0 to 1")

    @property
    def idle(self):
        return not self.indices or self.share == 1

    def data(self, targets):
        named = torch.isin(targets.indices, torch.tensor(self.indices, dtype=torch.int64))
        weights = torch.where(named, targets.weights * self.share, targets.weights)
        kept = weights > 0
        if named.sum() < len(self.indices) or not kept.any():
            raise InputError("Without indices", self.indices, "rows of the training split, and not all of them")
        return replace(targets, indices=targets.indices[kept], probabilities=targets.probabilities[kept],
                       weights=weights[kept] / weights[kept].mean())

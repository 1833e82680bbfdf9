"""Which training examples make a trained network answer as it does: turn-over dropout.

Every training example owns a random half of the units before the head (a share `rate` of them) and
trains the head through these alone; the other half never sees it. So one trained network holds, for
each example, a head that was trained on it and one that was not, and the difference of their
answers to a query is the example's influence. Only the head is told apart: what the layers below it
learn of an example reaches both halves. Influence is of single examples: where a second one says
the same, each hides what the other does.

Kobayashi, Yokoi, Suzuki and Inui 2020, "Efficient Estimation of Influence of a Training Instance",
arXiv 2012.04207, who put such masks into inner layers as well. The authors' code scales rightly at
a rate of one half only; here each half is scaled by its own share.

    runs = study.retrain(TurnOver(), keep=KEEP)
    culprits = of_runs(runs, TurnOver(), majority, "doubt").mean(0)  # (queries, training examples)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy import ndarray
from scipy.special import log_softmax

from stabutils.data import assistant
from stabutils.data.datasets import Dataset
from stabutils.errors import InputError
from stabutils.mitigations.interventions import TurnOver, masks
from stabutils.study.runs import Runs
from stabutils.training.hooks import describe

KEEP = ("hidden", "hidden training", "hidden validation", "head")  # what `of_runs` needs of a run
# ---- influence

SCORES = {
    "loss": lambda logs, labels: -_at(logs, labels),
    "doubt": lambda logs, labels: 1 - np.exp(_at(logs, labels)),
}  # of log-probabilities (..., classes)


def _at(logs: ndarray, labels: ndarray) -> ndarray:
    return np.take_along_axis(logs, np.broadcast_to(labels, logs.shape[:-1])[..., None], -1)[..., 0]


def influence(
    vectors: ndarray,
    weight: ndarray,
    bias: ndarray,
    labels: ndarray,
    masks: ndarray,
    rate: float = 0.5,
    score: str = "loss",
) -> ndarray:
    """What training on each example did to each query: (queries, training examples), float32.

    The query's score by the units that did not train the example less its score by those that did:
    positive where training on the example lowered the score. Both scores are the lower the better:
    `loss`, -log of the label's probability, nats (positive: the example helped the label); `doubt`,
    1 - that probability (with the majority's answer for a label, negative: the example drives
    flips).

    vectors (queries, width) before the head; weight (classes, width) and bias (classes,) of the
    head; labels (queries,); masks (training examples, width) of the training, rate their share.
    Computed query by query, so memory stays that of one. Raises InputError for another score.

    >>> owned = np.array([[True, False], [False, True]])  # unit 0 trained on example 0 only
    >>> weight = np.array([[1.0, 0.0], [0.0, 0.0]])  # and unit 0 votes for class 0, unit 1 for none
    >>> log_odds = influence([[1.0, 1.0]], weight, np.zeros(2), [0], owned)
    >>> print(log_odds.round(3))  # log 2 - log(1 + e^-2), and back
    [[ 0.566 -0.566]]
    """
    vectors, weight, bias, owned = (
        np.asarray(array, np.float32) for array in (vectors, weight, bias, masks)
    )
    found = np.empty((len(vectors), len(owned)), np.float32)
    for row, vector, label in zip(found, vectors, labels, strict=True):
        votes = weight * vector
        row[:] = _difference(owned @ votes.T, votes.sum(1), bias, label, rate, score)
    return found


def self_influence(
    vectors: ndarray,
    weight: ndarray,
    bias: ndarray,
    labels: ndarray,
    masks: ndarray,
    rate: float = 0.5,
    score: str = "loss",
) -> ndarray:
    """The diagonal of `influence` where the queries are the training examples: (training
    examples,).

    What the head knows of each only from having been shown it: high for what the rest contradicts,
    such as a wrong label, and for what stands alone.
    """
    vectors, weight = np.asarray(vectors, np.float32), np.asarray(weight, np.float32)
    return _difference((vectors * masks) @ weight.T, vectors @ weight.T, bias, labels, rate, score)


def _difference(owned, every, bias, labels, rate, score) -> ndarray:
    """Score without the example less score with it, from the votes (..., classes) of its own units
    and of all.
    """
    if score not in SCORES:
        raise InputError("score", score, f"one of {', '.join(SCORES)}")
    without, trained = (
        SCORES[score](log_softmax(votes / share + bias, axis=-1), labels)
        for votes, share in ((every - owned, 1 - rate), (owned, rate))
    )
    return without - trained


# ---- of a study's runs


def of_runs(
    runs: Runs,
    turnover: TurnOver,
    labels: ndarray,
    score: str = "loss",
    split: str = "test",
    queries: ndarray | slice = slice(None),
) -> ndarray:
    """`influence` by every run, runs first as intervals want them: (runs, queries, training
    examples).

    runs: `study.retrain(turnover, keep=KEEP)`; labels (examples of the split,); split: test,
    validation or training; queries: which of its examples. Raises InputError for other runs, and
    for those that kept less.
    """
    labels = np.asarray(labels)[queries]
    found = []
    for vectors, weight, bias, owned, rate in _networks(runs, turnover, split):
        found.append(influence(vectors[queries], weight, bias, labels, owned, rate, score))
    return np.stack(found)


def culprits(
    runs: Runs, turnover: TurnOver, majority: ndarray, queries: ndarray, count: int
) -> ndarray:
    """Rows of the `count` training examples that raise the doubt of the majority's answers most.

    majority (test examples,): answers; queries: positions of those whose mean doubt counts.
    """
    raised = of_runs(runs, turnover, majority, "doubt", queries=queries).mean(axis=(0, 1))
    return np.argsort(raised, kind="stable")[:count]


def planted_wrong(data: Dataset) -> ndarray:
    """Training examples whose label was planted to be wrong: bool (examples,), none in other
    corpora.
    """
    wrong = np.zeros(len(data.train), bool)
    if data.train.tags:
        plantings = assistant.describe(int(data.name.partition(":")[2] or 0))
        for row, (tag, label) in enumerate(zip(data.train.tags, data.train.labels, strict=True)):
            noisy = tag.startswith("noise") and tag in plantings
            wrong[row] = noisy and data.label_names[label] == plantings[tag].sibling
    return wrong


def of_itself(runs: Runs, turnover: TurnOver, labels: ndarray) -> ndarray:
    """`self_influence` by every run: (runs, training examples); labels: those it was trained on."""
    found = []
    for vectors, weight, bias, owned, rate in _networks(runs, turnover, "training"):
        found.append(self_influence(vectors, weight, bias, labels, owned, rate))
    return np.stack(found)


def _networks(runs: Runs, turnover: TurnOver, split: str) -> Iterator[tuple]:
    """Of each run: vectors of the split, the head's weight and bias, the masks of its training and
    their rate.
    """
    names = [f"hidden {split}".removesuffix(" test"), "head", "hidden training"]
    if describe(turnover) not in runs.arm or not runs.extras.keys() >= set(names):
        given = f"{runs.arm} with {sorted(runs.extras)}"
        raise InputError("runs", given, f"{describe(turnover)} with keep={KEEP}")
    extras = (runs.extras[name] for name in names)
    for seed, vectors, head, trained in zip(runs.seeds, *extras, strict=True):
        owned = masks(np.arange(len(trained)), head.shape[1] - 1, turnover.rate, seed)
        yield vectors, head[:, :-1], head[:, -1], owned, turnover.rate

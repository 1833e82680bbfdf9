"""Mixtures of what retrainings say with what one model says that no retraining moves.

A network's probabilities change with its seed; those of an anchor, a linear model with a unique
solution for example, do not. The more weight the anchor has in their mean, the fewer answers
change, and from some weight on accuracy falls to the anchor's own. Pure functions of arrays, runs
first: `probabilities` (..., examples, classes), `anchor` (examples, classes) or, for an anchor of
each run, of the shape of the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.special import softmax

from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.measures import logs

KINDS = ("arithmetic", "geometric")
WEIGHTS = tuple(step / 20 for step in range(21))


def mix(
    probabilities: ArrayLike, anchor: ArrayLike, weight: float, kind: str = "geometric"
) -> ndarray:
    """Mean of two models' probabilities, `weight` for the anchor: the shape of `probabilities`.

    Parameters
    ----------
    probabilities : (..., examples, classes), rows that sum to 1
    anchor : (examples, classes), or the shape of `probabilities`
    weight : 0 returns the probabilities as they are, 1 the anchor's
    kind : "arithmetic", (1 - w) p + w q, or "geometric", p^(1 - w) q^w divided by its sum, in which
        a class that either finds all but impossible stays so

    Raises
    ------
    InputError
        for shapes that do not fit, a weight outside 0 .. 1, or another kind.

    Examples
    --------
    >>> mix(np.array([0.8, 0.2]), np.array([0.2, 0.8]), 0.5).tolist()
    [0.5, 0.5]
    >>> mix(np.array([0.9, 0.1]), np.array([0.5, 0.5]), 0.5).round(2).tolist()  # 3 to 1
    [0.75, 0.25]
    >>> mix(np.array([0.9, 0.1]), np.array([0.5, 0.5]), 0.5, "arithmetic").tolist()
    [0.7, 0.3]
    """
    probabilities, anchor = np.asarray(probabilities), np.asarray(anchor)
    _check(probabilities, anchor, weight, kind)
    if weight == 0:
        return probabilities
    if weight == 1:
        return np.broadcast_to(anchor, probabilities.shape)
    if kind == "arithmetic":
        return (1 - weight) * probabilities + weight * anchor
    return softmax((1 - weight) * logs(probabilities) + weight * logs(anchor), axis=-1)


@dataclass(frozen=True, eq=False)
class Mixture:
    """An anchor with its weight: maps a network's probabilities to what both say together.

    anchor : (examples, classes), or of each run (runs, examples, classes)
    """

    anchor: ndarray
    weight: float
    kind: str = "geometric"

    def __call__(self, probabilities: ndarray) -> ndarray:
        return mix(probabilities, self.anchor, self.weight, self.kind)


def _check(probabilities, anchor, weight, kind):
    if kind not in KINDS:
        raise InputError("kind of mixture", kind, f"one of {', '.join(KINDS)}")
    if not 0 <= weight <= 1:
        raise InputError("weight of the anchor", weight, "a number from 0 to 1")
    fits = probabilities.shape[probabilities.ndim - anchor.ndim :]
    if anchor.ndim < 1 or anchor.shape != fits:
        raise InputError("shape of the anchor", anchor.shape, f"{probabilities.shape}, or its end")


def choose_weight(
    probabilities: ArrayLike,
    anchor: ArrayLike,
    gold: ArrayLike,
    kind: str = "geometric",
    weights: Sequence[float] = WEIGHTS,
    most: float | None = None,
) -> float:
    """The largest weight whose accuracy is within a standard error of the best weight's, or at
    most so much below it.

    The one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees") takes
    the most stable of the mixtures that validation cannot tell from the most accurate one. It asks
    for accuracy only: the stability that is measured afterwards has tuned nothing. The error is
    that of the *difference* over texts, which all weights share; that of an accuracy by itself is
    several times larger, and would choose the anchor alone wherever it is as good as the network.

    Parameters
    ----------
    probabilities : of validation texts, (runs, examples, classes); one run is enough
    anchor : (examples, classes), or for each run
    gold : (examples,), class ids
    weights : to choose from
    most : of accuracy that may be lost, a share of the texts; None: a standard error

    Examples
    --------
    From 0.62 on the anchor decides, and two of four texts are lost; one would be within an error.

    >>> network = np.array([[[0.9, 0.1]] * 4])
    >>> anchor = np.array([[0.6, 0.4], [0.6, 0.4], [0.2, 0.8], [0.2, 0.8]])
    >>> choose_weight(network, anchor, [0, 0, 0, 0], weights=(0.0, 0.25, 0.5, 0.75, 1.0))
    0.5
    """
    gold, right = np.asarray(gold), {}
    if len(gold) < 2:
        raise InputError("validation texts", len(gold), "at least 2, to choose a weight by")
    for weight in weights:
        labels = mix(probabilities, anchor, weight, kind).argmax(-1)
        right[weight] = (labels == gold).reshape(-1, len(gold)).mean(0)
    best = max(right.values(), key=np.mean)
    chosen = []
    for weight, share in right.items():
        lost = best - share
        error = lost.std(ddof=1) / np.sqrt(len(lost))
        if lost.mean() <= (error if most is None else most) + 1e-12:
            chosen.append(weight)
    return float(max(chosen))


def curve(
    probabilities: ArrayLike,
    anchor: ArrayLike,
    gold: ArrayLike,
    kind: str = "geometric",
    weights: Sequence[float] = WEIGHTS,
) -> pd.DataFrame:
    """What each weight of the anchor gives: one row a weight, intervals over runs and queries.

    Parameters
    ----------
    probabilities : (runs, examples, classes) of at least two runs
    anchor, gold, kind, weights : as in `choose_weight`

    Returns
    -------
    pandas.DataFrame
        weight; accuracy (0 .. 1), label_entropy (nats, expected over five of the runs) and churn
        (0 .. 1) of the mixture; reduction (of label entropy, share of what the probabilities have
        by themselves), accuracy_change (against these) and over_anchor (accuracy less the anchor's
        own).
    """
    probabilities, anchor, gold = (np.asarray(given) for given in (probabilities, anchor, gold))
    n, before = min(5, len(probabilities)), probabilities.argmax(-1)
    of_network = scores.accuracy(before, gold)
    of_anchor = scores.accuracy(np.broadcast_to(anchor.argmax(-1), before.shape), gold)
    entropy_before = scores.label_entropy(before, n)
    runs = [np.arange(len(before))] * 2  # the same ones
    rows = []
    for weight in weights:
        labels = mix(probabilities, anchor, weight, kind).argmax(-1)
        right, entropy = scores.accuracy(labels, gold), scores.label_entropy(labels, n)
        rows.append(
            {
                "weight": weight,
                "accuracy": right.interval(),
                "label_entropy": entropy.interval(),
                "churn": scores.churn(labels).interval(),
                "reduction": scores.reduction(entropy, entropy_before, runs),
                "accuracy_change": scores.change(right, of_network, runs),
                "over_anchor": scores.change(right, of_anchor, runs),
            }
        )
    return pd.DataFrame(rows)

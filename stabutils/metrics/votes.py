"""Votes: the answers of several runs put together, and what that does to a query's odds.

A *replica* is one ensemble of several runs; the replicas of one partition of a pool of runs share
no member, and so differ as two retrainings do.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.special import softmax

from stabutils.errors import InputError
from stabutils.metrics.measures import _draw, logs

HOW = ("probability", "logit", "vote")
SMALL = 1e-6  # weight of what breaks a tie between votes


# ---- many trainings


def partition(runs: int, size: int, seed: int = 0) -> ndarray:
    """Replicas of `size` runs each, drawn at random, none in two of them: positions (replicas,
    size).

    Runs that are left over are in none. Raises InputError where not even one replica comes about.

    >>> sorted(partition(4, 2).ravel().tolist())
    [0, 1, 2, 3]
    """
    size = _draw(size, runs, "size of an ensemble")
    return np.random.default_rng(seed).permutation(runs)[: runs // size * size].reshape(-1, size)


def combine(probabilities: ArrayLike, how: str = "probability") -> ndarray:
    """What an ensemble answers: probabilities (..., members, examples, classes) to (..., examples,
    classes).

    how: the mean probability; the softmax of the mean "logit" (the geometric mean); or each label's
    share of the members' "vote", a tie going to the higher mean probability (by a millionth).

    >>> three = [[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]
    >>> [combine(three, how).round(2).tolist() for how in ("probability", "vote")]
    [[[0.57, 0.43]], [[0.33, 0.67]]]
    """
    mean = cast(np.asarray(probabilities), how).mean(axis=-3)
    return softmax(mean, axis=-1) if how == "logit" else mean


def cast(probabilities: ndarray, how: str) -> ndarray:
    """What each member puts into the mean whose highest entry is the ensemble's answer."""
    if how not in HOW:
        raise InputError("how", how, f"one of {', '.join(HOW)}")
    if how == "logit":
        return logs(probabilities)
    if how == "probability":
        return probabilities
    answers = probabilities.argmax(axis=-1)[..., None] == np.arange(probabilities.shape[-1])
    return (1 - SMALL) * answers + SMALL * probabilities


def vote(labels: ndarray, doubt: ndarray | float = 0.0) -> ndarray:
    """The label most members answer: labels (members, ...) to (...). A tie goes to the members in
    less doubt, else to the first of them, which is a fair coin where members stand in random order.

    >>> alone = vote(np.array([[4, 1], [2, 3], [2, 1]]))
    >>> tied = vote(np.array([[4], [2]]), np.array([[0.3], [0.1]]))
    >>> alone.tolist(), tied.tolist()
    ([2, 1], [2])
    """
    doubt = np.broadcast_to(np.asarray(doubt, float), labels.shape)  # narrower ones lose SMALL
    weights = 1 + SMALL * (1 - doubt)
    votes = np.stack([np.where(labels == own, weights, 0.0).sum(axis=0) for own in labels])
    return np.take_along_axis(labels, votes.argmax(axis=0)[None], axis=0)[0]


def vote_model(labels: ndarray, size: int, draws: int, rng: np.random.Generator) -> ndarray:
    """What ensembles would answer if each query had odds of its own, and every member voted by
    them, independently.

    The odds are how often single runs gave each answer: labels (runs, examples). Each of `draws`
    imagined ensembles takes the majority of `size` votes drawn with replacement, a tie going to the
    first vote: (draws, examples), to be scored as labels of runs are. Drawn, not summed over all
    outcomes: expectations are met but for the draws' noise.
    """
    if size < 1 or draws < 1:
        raise InputError("size and draws", (size, draws), "integers of at least 1")
    columns, answers = np.arange(labels.shape[1]), []
    for _ in range(draws):
        voters = rng.integers(len(labels), size=(size, len(columns)))
        answers.append(vote(labels[voters, columns]))
    return np.stack(answers)

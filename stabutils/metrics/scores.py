"""Scores that are means over examples of a function of votes, with their values without each of the runs.

The jackknife asks for a score once per run left out. Which run is left out only changes the count of its own answer,
so one count of votes answers all of these questions: 100,000 examples x 50 runs take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from stabutils.errors import InputError
from stabutils.metrics import measures
from stabutils.metrics.intervals import Interval, jackknife, over_examples


@dataclass(frozen=True)
class Score:
    """A mean over examples: of all runs, without each of the runs, and of each example, which counts by its weight."""

    value: float
    without: np.ndarray
    each: np.ndarray
    weights: np.ndarray

    def __call__(self, kept):
        """The value over the runs kept: all, or all but one."""
        runs = len(self.without)
        return (
            self.value if len(kept) == runs else self.without[runs * (runs - 1) // 2 - kept.sum()]
        )

    def interval(self, labels):
        if len(labels) > 2:
            return jackknife(self, np.arange(len(labels)))
        return over_examples(
            lambda _, each, weights: np.average(each, weights=weights),
            labels,
            examples=(self.each, self.weights),
        )


def _own_votes(labels):
    """How many runs, itself included, answer an example as a run does: (runs, examples)."""
    small = labels.astype(np.min_scalar_type(int(labels.max())))
    return np.stack([np.count_nonzero(small == run, axis=0) for run in small])


def _vote_score(own, worth, weights=None):
    """Score whose value for an example is the sum of worth(runs)[votes] over its answers.

    Leaving out a run takes one vote from its own answer and leaves the other answers as they are.
    """
    runs, count = own.shape
    weights = np.ones(count) if weights is None else weights
    share = weights / weights.sum()
    every = np.arange(runs + 1)
    each = (worth(runs) / np.maximum(every, 1))[own].sum(
        axis=0
    )  # a class with k votes comes k times
    if runs == 2:
        return Score(float(share @ each), np.full(2, np.nan), each, weights)
    fewer = np.append(worth(runs - 1), 0.0)
    before = (fewer / np.maximum(every, 1))[own].sum(axis=0)
    step = np.append(0.0, fewer[:-1] - fewer[1:])  # k votes become k - 1
    return Score(float(share @ each), float(share @ before) + step[own] @ share, each, weights)


def _pairs(runs):
    votes = np.arange(runs + 1)
    return votes * (runs - votes) / max(1, runs * (runs - 1))


def _entropy(runs, n):
    n = min(n, runs)
    return measures.expected_worth(measures.entropy_worth(n), runs)


def _split(runs, n):
    n = min(n, runs)
    return np.arange(runs + 1) / runs - measures.expected_worth(np.append(np.zeros(n), 1.0), runs)


def _less(one, other):
    return Score(
        one.value - other.value, one.without - other.without, one.each - other.each, one.weights
    )


def _right(labels, gold):
    right = labels == gold
    runs, per_run = len(right), right.mean(axis=1)
    return Score(
        float(per_run.mean()),
        (per_run.sum() - per_run) / (runs - 1),
        right.mean(axis=0),
        np.ones(len(gold)),
    )


def scores(labels, gold, n, weights=None):
    """The scores that are means over examples, by name; label entropy as expected over n of the runs."""
    if n > len(labels):
        raise InputError("n", n, f"at most {len(labels)}, the number of runs")
    own = _own_votes(labels)
    scores = {"churn": _vote_score(own, _pairs)}
    if weights is not None:
        scores["churn_weighted"] = _vote_score(own, _pairs, weights)
    many = min(10, len(labels))
    scores[f"label_entropy@{n}"] = _vote_score(own, partial(_entropy, n=n))
    scores[f"share_unstable@{many}"] = _vote_score(own, partial(_split, n=many))
    if gold is not None:
        scores["right_to_wrong"] = _vote_score(
            _own_votes((labels == gold).astype(np.uint8)), _pairs
        )
        scores["wrong_to_wrong"] = _less(scores["churn"], scores["right_to_wrong"])
        scores["accuracy"] = _right(labels, gold)
    return scores


def kappa(labels, churn):
    if len(labels) == 2:
        return jackknife(measures.fleiss_kappa, labels)
    votes = np.stack([np.bincount(run, minlength=labels.max() + 1) for run in labels])
    rest = votes.sum(axis=0) - votes
    chance = ((rest / rest[0].sum()) ** 2).sum(axis=1)
    alone = (rest > 0).sum(axis=1) == 1  # every vote for one class: as in fleiss_kappa
    without = np.where(alone, 1.0, 1 - churn.without / np.where(alone, 1.0, 1 - chance))
    return Score(measures.fleiss_kappa(labels), without, churn.each, churn.weights).interval(labels)


def jensen_shannon(probabilities: np.ndarray) -> Interval:
    """`measures.jensen_shannon` with its interval: (runs, examples, classes), nats; each pair of runs is met once."""
    runs = len(probabilities)
    if runs == 2:
        return jackknife(measures.jensen_shannon, probabilities)
    pairs = np.zeros((runs, runs))
    for i, j in zip(*np.triu_indices(runs, 1), strict=True):
        pairs[i, j] = pairs[j, i] = measures.jensen_shannon(probabilities[[i, j]])
    return jackknife(
        lambda kept: pairs[np.ix_(kept, kept)].sum() / (len(kept) * (len(kept) - 1)),
        np.arange(runs),
    )

"""Scores that are means over queries, with what their intervals need.

An interval over runs asks for a score once per run left out. Which run is left out only changes the
count of its own answer, so one count of votes answers all of these questions: 100,000 queries x 50
runs take seconds. An interval over queries asks for the score of each query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from stabutils.errors import InputError
from stabutils.metrics import intervals, measures
from stabutils.metrics.intervals import Interval, jackknife_arms, moves_of


@dataclass(frozen=True, eq=False)
class Score:
    """A mean over queries of a function of the votes.

    Attributes
    ----------
    value : of all runs
    without : (runs,), the value without each of the runs
    each : (queries,), the value of each query
    weights : (queries,), what each query counts
    moves : (runs, queries), by how much one run's answer to one query moves the value, scaled as
        `intervals.moves_of` does; None of fewer than three runs
    bounds : what the value cannot leave
    """

    value: float
    without: ndarray
    each: ndarray
    weights: ndarray
    moves: ndarray | None = None
    bounds: tuple[float, float] = (-np.inf, np.inf)

    @property
    def runs(self) -> int:
        return len(self.without)

    def __call__(self, kept: ndarray) -> float:
        """The value over the runs kept, by their positions: all, or all but one."""
        if len(kept) == self.runs:
            return self.value
        left_out = self.runs * (self.runs - 1) // 2 - kept.sum()
        return self.without[left_out]

    def interval(self) -> Interval:
        """Over runs and queries; of two runs over queries alone, as its note says."""
        return compare(lambda value: value, [self]).within(*self.bounds)


def compare(
    function: Callable[..., float],
    scores: Sequence[Score],
    seeds: Sequence[ndarray] | None = None,
) -> Interval:
    """Interval of a function of scores over runs and queries: a difference or ratio of arms.

    Parameters
    ----------
    function : of the scores' values, also of arrays of them
    scores : of the same queries with the same weights
    seeds : for each score the master seeds of its runs; None: no seed in common

    Returns
    -------
    Over runs and queries (`intervals.runs_and_queries`), not kept within any bounds. Where an arm
    has two runs only, over queries, as the note says.

    Examples
    --------
    >>> before = churn([[0, 1, 0], [0, 2, 1], [0, 3, 0]])  # of 9 pairs on queries 5 differ
    >>> after = churn([[0, 1, 0], [0, 1, 0], [0, 2, 0]])  # 2
    >>> round(compare(lambda new, old: new - old, [after, before]).value, 3)
    -0.333
    """
    runs = [score.runs for score in scores]
    rows, weights = [score.each for score in scores], scores[0].weights
    over_queries = intervals.over_queries(function, *rows, weights=weights, runs=min(runs))
    if min(runs) < 3:
        if len(rows[0]) < 2:
            raise InputError("queries", 1, "at least 2, or at least 3 runs")
        return over_queries if max(runs) < 3 else replace(over_queries, note="these models only")
    if seeds is None:
        starts = np.cumsum([0, *runs])
        seeds = [start + np.arange(count) for start, count in zip(starts, runs, strict=False)]

    for own in seeds:
        if len(np.unique(own)) < len(own):
            raise InputError("seeds", np.asarray(own).tolist(), "different ones within an arm")

    def of_runs(*kept: ndarray) -> float:
        pairs = zip(scores, kept, strict=True)
        return function(*(np.float64(score(positions)) for score, positions in pairs))

    with intervals.quiet():
        over_runs = jackknife_arms(of_runs, [np.arange(count) for count in runs], seeds)
        cells = cell_variance(function, scores, seeds)
    return intervals.runs_and_queries(over_runs, over_queries, cells)


def change(new: Score, old: Score, seeds: Sequence[ndarray] | None = None) -> Interval:
    """Interval of new - old; a seed is left out of both where both used it (`compare`)."""
    return compare(lambda after, before: after - before, [new, old], seeds)


def reduction(new: Score, old: Score, seeds: Sequence[ndarray] | None = None) -> Interval | None:
    """The share of the old score that is saved; None where it, or it without a run, is 0."""
    if old.value <= 0 or (old.without <= 1e-12 * old.value).any():
        return None
    saved = compare(lambda after, before: 1 - after / before, [new, old], seeds)
    return saved.within(-np.inf, 1)


def cell_variance(
    function: Callable[..., float], scores: Sequence[Score], seeds: Sequence[ndarray]
) -> float:
    """Variance of a function of scores by single cells, to first order.

    A cell is what a seed's runs answer to one query: what it moves in several arms is added up
    before it is squared, as `jackknife_arms` does.
    """
    slopes = gradient(function, np.array([score.value for score in scores]))
    moves = [score.moves for score in scores if score.moves is not None]
    total = 0.0
    for seed in np.unique(np.concatenate(seeds)):
        moved = np.zeros(len(scores[0].each))
        for slope, move, own in zip(slopes, moves, seeds, strict=True):
            moved += slope * move[np.asarray(own) == seed].sum(axis=0)
        total += float(moved @ moved)
    return total


def gradient(function: Callable[..., float], values: ndarray) -> ndarray:
    """Slopes of a function of several numbers, by central differences.

    Examples
    --------
    >>> gradient(lambda a, b: a / b, np.array([1.0, 2.0])).round(6).tolist()
    [0.5, -0.25]
    """
    steps = 1e-5 * np.maximum(np.abs(values), 1e-3)
    slopes = []
    for place, step in enumerate(steps):
        move = np.zeros(len(values))
        move[place] = step
        slopes.append((function(*(values + move)) - function(*(values - move))) / (2 * step))
    return np.array(slopes)


# ---- the scores ----


def churn(labels: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Share of queries on which two runs disagree (`measures.churn`)."""
    return _vote_score(labels, measures.pairs_worth, 1, weights)


def label_entropy(labels: ArrayLike, n: int = 5) -> Score:
    """Mean label entropy (nats), as expected over n of the runs (`measures.label_entropy`).

    Of exactly n runs a run left out leaves n - 1 votes; the values without a run are then shifted
    to the mean that they have with n votes. Raises InputError for fewer runs.
    """
    return _vote_score(labels, partial(_entropy, n=n), math.log(max(1, n)), n=n)


def share_unstable(labels: ArrayLike, n: int = 10) -> Score:
    """Share of queries on which n runs are not unanimous (`measures.share_unstable`)."""
    return _vote_score(labels, partial(_not_unanimous, n=n), 1, n=n)


def accuracy(labels: ArrayLike, gold: ArrayLike) -> Score:
    """Share of queries answered right, mean over runs."""
    right = (np.asarray(labels) == gold).astype(float)
    return of_runs(right, bounds=(0, 1))


def churn_beyond_accuracy(labels: ArrayLike, gold: ArrayLike) -> Interval:
    """By how much churn exceeds the difference of two runs' accuracies, mean over pairs of runs.

    Over runs and queries, conservative; shares of queries.
    """

    def gap(labels: ndarray, gold: ndarray) -> float:
        accuracies = (labels == gold).mean(axis=1)
        differences = np.abs(np.subtract.outer(accuracies, accuracies))
        pairs = len(labels) * (len(labels) - 1)
        return measures.churn(labels) - float(differences.sum() / pairs)

    return intervals.over_both(gap, np.asarray(labels), examples=(gold,))


def of_runs(values: ArrayLike, bounds=(-np.inf, np.inf)) -> Score:
    """The mean of a number that each run has for each query, values (runs, queries).

    Examples
    --------
    >>> score = of_runs([[0.0, 1.0], [1.0, 1.0]])
    >>> score.value, score.each.tolist(), score.without.tolist()
    (0.75, [0.5, 1.0], [1.0, 0.5])
    """
    values = np.asarray(values, float)
    runs, queries = values.shape
    each, sums = values.mean(axis=0), values.sum(axis=1)
    total = sums.sum()  # divided once: equal shares of other numbers of runs are equal bits
    without, moves = np.full(1, np.nan), None
    if runs > 1:
        without = (total - sums) / ((runs - 1) * queries)
        moves = _small((each - values) / math.sqrt(runs * (runs - 1)) / queries)
    return Score(float(total / (runs * queries)), without, each, np.ones(queries), moves, bounds)


def scores(
    labels: ArrayLike, gold: ArrayLike | None, n: int, weights: ArrayLike | None = None
) -> dict[str, Score]:
    """The scores of a set of runs by name, as reports and boards list them.

    Names after @ are the number of runs that the score is quoted at; `share_unstable` at ten, or
    all where there are fewer.
    """
    labels = np.asarray(labels)
    many = min(10, len(labels))
    found = {"churn": churn(labels)}
    if weights is not None:
        found["churn_weighted"] = churn(labels, weights)
    found[f"label_entropy@{n}"] = label_entropy(labels, n)
    found[f"share_unstable@{many}"] = share_unstable(labels, many)
    if gold is not None:
        found["right_to_wrong"] = churn((labels == gold).astype(np.uint8))
        found["wrong_to_wrong"] = _difference(found["churn"], found["right_to_wrong"])
        found["accuracy"] = accuracy(labels, gold)
    return found


def kappa(labels: ArrayLike) -> Interval:
    """Fleiss' kappa with its interval; of queries that change its chance agreement stays."""
    labels = np.asarray(labels)
    if len(labels) == 2:
        return intervals.jackknife(measures.fleiss_kappa, labels).within(-np.inf, 1)
    score = churn(labels)
    votes = np.stack([np.bincount(run, minlength=labels.max() + 1) for run in labels])
    total = votes.sum(axis=0)
    chance = _chance_agreement(total)
    chances = np.array([_chance_agreement(rest) for rest in total - votes])
    without = _kappa(score.without, chances)
    over_runs = intervals.from_deletions(measures.fleiss_kappa(labels), without)
    over_queries = intervals.over_queries(
        lambda mean: _kappa(mean, chance), score.each, runs=len(labels)
    )
    return intervals.runs_and_queries(over_runs, over_queries).within(-np.inf, 1)


def _chance_agreement(votes: ndarray) -> float:
    """Chance that two random votes agree; 1 where every vote is for one class."""
    return float(np.sum((votes / votes.sum()) ** 2))


def _kappa(churn, chance):
    """Agreement beyond chance; 1 where every vote is for one class, as in `fleiss_kappa`."""
    certain = np.asarray(chance) >= 1  # then there is no churn
    return 1 - churn / np.where(certain, 1.0, 1 - chance)


def jensen_shannon(probabilities: ndarray) -> Interval:
    """`measures.jensen_shannon` with its interval over runs; each pair of runs is met once.

    probabilities : (runs, queries, classes); nats
    """
    runs = len(probabilities)
    if runs == 2:
        return intervals.jackknife(measures.jensen_shannon, probabilities).within(0, np.log(2))
    pairs = np.zeros((runs, runs))
    for i, j in zip(*np.triu_indices(runs, 1), strict=True):
        pairs[i, j] = pairs[j, i] = measures.jensen_shannon(probabilities[[i, j]])

    def mean_of_pairs(kept: ndarray) -> float:
        return pairs[np.ix_(kept, kept)].sum() / (len(kept) * (len(kept) - 1))

    return intervals.jackknife(mean_of_pairs, np.arange(runs)).within(0, np.log(2))


# ---- counting ----


def _own_votes(labels: ArrayLike) -> ndarray:
    """How many runs, itself included, answer a query as a run does: (runs, queries)."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biu":
        raise InputError("type of labels", str(labels.dtype), "whole numbers, a class each")
    small = labels.astype(np.min_scalar_type(int(labels.max())))
    return np.stack([np.count_nonzero(small == run, axis=0) for run in small])


def _vote_score(labels: ArrayLike, worth, highest: float, weights=None, n: int = 2) -> Score:
    """Score whose value for a query is the sum of worth(runs)[votes] over its answers.

    Leaving out a run takes one vote from its own answer and leaves the other answers as they are.
    """
    own = _own_votes(labels)
    (runs, queries), bounds = own.shape, (0, highest)
    if runs < 2:
        raise InputError("runs in labels", runs, "at least 2: one alone has nothing to differ from")
    measures._draw(n, runs)
    weights = np.ones(queries) if weights is None else np.asarray(weights, float)
    share = weights / weights.sum()
    each = _per_vote(worth(runs))[own].sum(axis=0)
    value = float(share @ each)
    if runs == 2:
        return Score(value, np.full(2, np.nan), each, weights, None, bounds)
    fewer = np.append(worth(runs - 1), 0.0)
    all_votes = _per_vote(fewer)[own].sum(axis=0)
    one_less = np.append(0.0, fewer[:-1] - fewer[1:])  # k votes become k - 1
    gains = one_less[own]
    without = float(share @ all_votes) + gains @ share
    if n >= runs:  # the others have a vote less, which shifts all of these values alike
        without += value - without.mean()
    return Score(value, without, each, weights, _small(share * moves_of(gains)), bounds)


def _small(moves: ndarray) -> ndarray:
    """Half the memory: their squares are only summed."""
    return moves.astype(np.float32)


def _per_vote(worth):
    """What each single vote adds: a class with k votes comes k times."""
    return worth / np.maximum(np.arange(len(worth)), 1)


def _entropy(runs, n):
    return measures.expected_worth(measures.entropy_worth(min(n, runs)), runs)


def _not_unanimous(runs, n):
    unanimous = measures.unanimous_worth(min(n, runs))
    return np.arange(runs + 1) / runs - measures.expected_worth(unanimous, runs)


def _difference(one: Score, other: Score) -> Score:
    """One less the other, of the same runs."""
    moves = None if one.moves is None else one.moves - other.moves
    return Score(
        one.value - other.value,
        one.without - other.without,
        one.each - other.each,
        one.weights,
        moves,
        bounds=(0, 1),
    )


# ---- statistics of whole pools of runs


def of_pool(
    function: Callable[..., float],
    rows: ndarray,
    deleted: Sequence[ndarray],
    runs: int,
) -> Interval:
    """Interval of function(mean of each row), where the rows are computed from a pool of runs.

    For ensembles, whose rows have to be computed again without each group of runs.

    Parameters
    ----------
    function : of as many numbers as there are rows, also of arrays of them
    rows : (rows, queries), from all runs
    deleted : for each division of the runs the rows without each of its groups (groups, rows,
        queries); the squared error is averaged over the divisions
    runs : in the pool

    Examples
    --------
    >>> rows, without = [[1.0, 2.0, 3.0]], [[[1.0, 2.0, 6.0]], [[1.0, 2.0, 0.0]]]
    >>> interval = of_pool(lambda mean: mean, np.array(rows), [np.array(without)], runs=4)
    >>> round(interval.value, 3), round(interval.over_runs.se, 3)  # moves of +1 and -1 third
    (2.0, 1.0)
    """
    means, queries = rows.mean(axis=1), rows.shape[1]
    groups, variances, cells = min(map(len, deleted)), [], []
    with intervals.quiet():
        value, slopes = float(function(*means)), gradient(function, means)
        for division in deleted:
            values = function(*division.mean(axis=2).T)
            variances.append(np.sum(moves_of(values) ** 2))
            influence = np.tensordot(division, slopes, axes=(1, 0))  # (groups, queries)
            cells.append(np.sum(moves_of(influence) ** 2) / queries**2)
    over_runs = intervals.from_variance(value, np.mean(variances), groups - 1, runs)
    over_queries = intervals.over_queries(function, *rows, runs=runs)
    return intervals.runs_and_queries(over_runs, over_queries, float(np.mean(cells)))

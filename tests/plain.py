"""Intervals over runs and queries as slowly as they can be said, to hold the fast ones against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from stabutils.metrics.intervals import Interval, jackknife_arms

Score = Callable[[np.ndarray], np.ndarray]  # labels (runs, queries) -> one number a query


def variance(deleted: Sequence[float]) -> float:
    """The jackknife's, of a statistic without each of its units."""
    units = len(deleted)
    return (units - 1) / units * np.sum((np.asarray(deleted) - np.mean(deleted)) ** 2)


def over_queries(function: Callable, score: Score, arms: Sequence[np.ndarray]) -> float:
    """Variance by leaving out one query of all arms at a time."""
    each, deleted = [score(labels) for labels in arms], []
    for query in range(arms[0].shape[1]):
        deleted.append(function(*(np.delete(rows, query).mean() for rows in each)))
    return variance(deleted)


def of_cells(
    function: Callable, score: Score, arms: Sequence[np.ndarray], seeds: Sequence[np.ndarray]
) -> float:
    """Variance by taking a seed's answers to one query away, all of them in turn.

    As `jackknife_arms` does: one arm at a time, and what a seed changes is added up over the arms.
    """
    each = [score(labels) for labels in arms]
    pool = np.unique(np.concatenate(seeds)).tolist()
    total = 0.0
    for query in range(arms[0].shape[1]):
        moves = dict.fromkeys(pool, 0.0)
        for arm, (labels, own) in enumerate(zip(arms, seeds, strict=True)):
            values = []
            for run in range(len(labels)):
                changed = [rows.copy() for rows in each]
                changed[arm][query] = score(np.delete(labels, run, axis=0))[query]
                values.append(function(*(rows.mean() for rows in changed)))
            scale = np.sqrt((len(labels) - 1) / len(labels))
            for seed, value in zip(np.asarray(own).tolist(), values, strict=True):
                moves[seed] += scale * (value - np.mean(values))
        total += sum(move**2 for move in moves.values())
    return total


def interval(
    function: Callable,
    score: Score,
    arms: Sequence[np.ndarray],
    seeds: Sequence[np.ndarray] | None = None,
) -> Interval:
    """Interval of function(mean of the score in each arm) for new runs and new queries."""
    if seeds is None:
        starts = np.cumsum([0, *map(len, arms)])
        seeds = [start + np.arange(len(arm)) for start, arm in zip(starts, arms, strict=False)]

    def statistic(*some: np.ndarray) -> float:
        return function(*(score(labels).mean() for labels in some))

    runs = jackknife_arms(statistic, list(arms), seeds)
    parts = np.array([runs.se**2, over_queries(function, score, arms)])
    both = max(parts.max(), parts.sum() - of_cells(function, score, arms, seeds))
    degrees = np.array([runs.df, arms[0].shape[1] - 1])
    df = both**2 / np.sum(parts**2 / degrees)
    half = stats.t.ppf(0.975, df) * np.sqrt(both)
    return Interval(
        runs.value,
        runs.value - half,
        runs.value + half,
        runs.runs,
        se=float(np.sqrt(both)),
        df=float(df),
        over_runs=runs,
    )


def alike(found: Interval, expected: Interval, rel: float = 2e-3) -> None:
    """Equal but for what slopes instead of differences leave out of the cells' variance."""
    assert found.value == pytest.approx(expected.value, abs=1e-12)
    assert found.runs == expected.runs and found.df == pytest.approx(expected.df, rel=4 * rel)
    assert found.se == pytest.approx(expected.se, rel=rel)
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=rel * width)
    own, other = found.over_runs, expected.over_runs
    assert (own.se, own.df) == pytest.approx((other.se, other.df), rel=1e-9)

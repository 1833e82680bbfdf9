"""Where instability comes from: the seeds of several sources of randomness, and rounding.

A crossed design trains every combination of some seeds of each source, so that churn can be read
off pairs of runs that differ in one source only, or in all but one. The parts need not add up to
the whole: where one source has sent a training another way, a second one may have little to add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from stabutils.errors import InputError
from stabutils.metrics import intervals, scores
from stabutils.metrics.intervals import Interval, crossed, jackknife_arms, runs_and_queries
from stabutils.records import Number, number

if TYPE_CHECKING:
    from stabutils.training.state import Seeds

SOURCES = ("init", "order", "dropout")


def design(levels: int, base: int = 0) -> list[Seeds]:
    """The seeds of a full crossed design of SOURCES: levels^3 runs.

    Every combination of base .. base + levels - 1 in each source, the last source changing fastest.
    Where all agree it is an ordinary run.
    """
    from stabutils.training.state import Seeds

    if levels < 2:
        raise InputError("levels", levels, "at least 2 seeds of each source, better 4")
    numbers = range(base, base + levels)
    return [Seeds(*seeds) for seeds in product(numbers, repeat=len(SOURCES))]


@dataclass(frozen=True)
class Source:
    """What one source of randomness does to churn.

    alone, fixed : churn when only it varies, when only it is fixed; shares of queries
    fall : how much lower churn is with it fixed than with nothing fixed
    alone_share, fall_share : of the churn of runs that differ in every source
    """

    alone: Interval
    alone_share: Interval
    fixed: Interval
    fall: Interval
    fall_share: Interval


@dataclass(frozen=True)
class Effects:
    """Churn of runs that differ in every source, what each does, and the churn of equal seeds.

    ratio : churn when only the first source varies, by that when only the second does
    """

    every: Interval
    sources: dict[str, Source]
    floor: float
    ratio: Interval


def effects(
    labels: ndarray,
    shape: Sequence[int],
    floor: float = 0.0,
    names: Sequence[str] = SOURCES,
) -> Effects:
    """The effect of each source from the runs of a crossed design.

    Parameters
    ----------
    labels : (runs, queries), runs in the order of the design, the last source changing fastest
    shape : how many seeds of each source
    floor : churn measured between trainings of equal seeds (`interventions.Again`)
    names : of the sources

    Returns
    -------
    Over seeds and queries. The units are the seeds, and they are crossed: each source's are left
    out one at a time and the variances add up. What two sources do together is counted for both,
    which errs towards too wide. With 2 seeds of a source nothing can be left out: intervals over
    queries, and their note says so.

    Examples
    --------
    >>> labels = [[i, o, 0] for i in (0, 1) for o in (0, 1) for _ in (0, 1)]
    >>> found = effects(labels, (2, 2, 2))  # init decides one answer, order another
    >>> [round(source.alone.value, 2) for source in found.sources.values()]
    [0.33, 0.33, 0.0]
    >>> [round(source.fall_share.value, 2) for source in found.sources.values()]
    [0.5, 0.5, 0.0]
    """
    labels, count = np.asarray(labels), len(names)
    if len(shape) != count or min(shape) < 2 or len(labels) != math.prod(shape):
        allowed = f"at least 2 seeds of {', '.join(names)} each, and a run for every combination"
        raise InputError("shape of the design", f"{tuple(shape)} for {len(labels)} runs", allowed)
    levels = np.indices(shape).reshape(count, -1)
    first, second = np.triu_indices(len(labels), 1)
    bits = 1 << np.arange(count)
    codes = bits @ (levels[:, first] != levels[:, second])  # of each pair: what differs
    differs = labels[first] != labels[second]
    rows = _by_code(differs.astype(float), codes, count)
    churn_of_pairs = differs.mean(axis=1)

    def interval(of: Callable[..., float]) -> Interval:
        over_queries = intervals.over_queries(of, *rows, runs=len(labels))
        if min(shape) == 2:
            return over_queries
        parts = []
        for own in levels:

            def without(kept: ndarray) -> float:
                pairs = np.isin(first, kept) & np.isin(second, kept)
                return of(*_by_code(churn_of_pairs[pairs], codes[pairs], count))

            with intervals.quiet():
                parts.append(jackknife_arms(without, [np.arange(len(labels))], [own]))
        over_runs = replace(crossed(parts), runs=len(labels))
        return runs_and_queries(over_runs, over_queries)

    found = {name: _source(interval, 1 << place) for place, name in enumerate(names)}
    every = interval(lambda *churns: churns[-1]).within(0, 1)
    ratio = interval(lambda *churns: churns[1] / churns[2])
    return Effects(every, found, floor, ratio)


def _by_code(values: ndarray, codes: ndarray, sources: int) -> ndarray:
    """Mean of values (pairs, ...) by what differs: (2^sources, ...), nan where no pair does so."""
    rows = [values[codes == code] for code in range(2**sources)]
    empty = np.full(values.shape[1:], np.nan)
    return np.stack([row.mean(axis=0) if len(row) else empty for row in rows])


def _source(interval: Callable[[Callable], Interval], bit: int) -> Source:
    fixed = -1 - bit
    return Source(
        alone=interval(lambda *churns: churns[bit]).within(0, 1),
        alone_share=interval(lambda *churns: churns[bit] / churns[-1]),
        fixed=interval(lambda *churns: churns[fixed]).within(0, 1),
        fall=interval(lambda *churns: churns[-1] - churns[fixed]),
        fall_share=interval(lambda *churns: 1 - churns[fixed] / churns[-1]),
    )


def rounding(control: ndarray, poked: ndarray) -> dict[str, Interval]:
    """Churn from rounding alone beside churn from new seeds, over seeds and queries.

    Parameters
    ----------
    control, poked : labels (runs, queries) of the same seeds in the same order

    Returns
    -------
    `rounding`: churn between the two runs of a seed; `seeds`: churn of control; `share`: the first
    over the second.

    Examples
    --------
    >>> control = [[0, 0, 0], [1, 1, 0], [0, 1, 1]]
    >>> found = rounding(control, [[0, 0, 1], [1, 1, 0], [0, 1, 1]])
    >>> [round(interval.value, 3) for interval in found.values()]  # 1 of 9; 6 of 9; their ratio
    [0.111, 0.667, 0.167]
    """
    control, poked = np.asarray(control), np.asarray(poked)
    if control.shape != poked.shape:
        raise InputError("shape of poked", poked.shape, f"{control.shape}, that of control")
    between = scores.of_runs(control != poked, bounds=(0, 1))
    seeds = scores.churn(control)
    same_runs = [np.arange(len(control))] * 2
    share = scores.compare(lambda one, other: one / other, [between, seeds], same_runs)
    return {"rounding": between.interval(), "seeds": seeds.interval(), "share": share}


def numbers(
    effects: Effects | None, rounding: Mapping[int, Mapping[str, Interval]], full: int
) -> list[Number]:
    """The numbers of both for a record; full: the epochs of a whole training."""
    found = []
    if effects is not None:
        found.append(number("churn", effects.every, condition="all sources vary"))
        for name, source in effects.sources.items():
            found.append(number("churn", source.alone, name, "only it varies"))
            found.append(number("churn", source.fixed, name, "only it is fixed"))
            found.append(number("share_of_churn", source.alone_share, name))
            found.append(number("share_of_churn", source.fall_share, name, "saved by fixing it"))
    for length, row in rounding.items():
        condition = "full length" if length == full else f"{length} epochs"
        found.append(number("churn", row["rounding"], "rounding", condition))
        found.append(number("churn", row["seeds"], "new seeds", condition))
        found.append(number("share_of_churn", row["share"], "rounding", condition))
    return found


def lengths(epochs: int, levels: int) -> list[int]:
    """Trainings of how many epochs rounding is tried in: the full one, and a few shorter ones."""
    shorter = (1, 2, 4) if levels > 2 else (1, 2)
    return sorted({*(length for length in shorter if length < epochs), epochs})

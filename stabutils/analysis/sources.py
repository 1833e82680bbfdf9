"""Where instability comes from: the seeds of three sources of randomness, and rounding.

A crossed design trains every combination of some seeds of `init`, `order` and `dropout`, so that churn can be read off
pairs of runs that differ in one source only, or in all but one. The parts need not add up to the whole: where one
source has sent a training another way, a second one may have little to add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, delete_a_group, jackknife, over_examples
from stabutils.metrics.measures import churn, churn_matrix

if TYPE_CHECKING:
    from stabutils.training.state import Seeds

SOURCES = ("init", "order", "dropout")
BITS = (1, 2, 4)


def design(levels: int, base: int = 0) -> list[Seeds]:
    """The seeds of a full crossed design: every combination of base .. base + levels - 1 in the three sources, the
    last source changing fastest: levels^3 runs. Where all three agree it is an ordinary run."""
    from stabutils.training.state import Seeds

    if levels < 2:
        raise InputError("levels", levels, "at least 2 seeds of each source, better 4")
    return [Seeds(*seeds) for seeds in product(range(base, base + levels), repeat=len(SOURCES))]


@dataclass(frozen=True)
class Source:
    """What one source of randomness does to churn, shares of examples 0 .. 1, and both as a share of the churn of runs
    that differ in every source."""

    alone: Interval  # churn when only it varies
    alone_share: Interval
    fixed: Interval  # churn when only it is fixed
    fall: Interval  # how much lower that is than with nothing fixed
    fall_share: Interval


@dataclass(frozen=True)
class Effects:
    """Churn of runs that differ in every source, what each source does by name, and the churn of equal seeds."""

    every: Interval
    sources: dict[str, Source]
    floor: float


def effects(
    labels: np.ndarray, shape: Sequence[int], floor: float = 0.0, level: float = 0.95
) -> Effects:
    """The effect of each source from the runs of a crossed design.

    labels (runs, examples), runs in the order of `design`; shape: how many seeds of each source; floor: churn measured
    between trainings of equal seeds (`Again`). The units are the seeds, and they are crossed: each source's are
    left out one at a time and the three jackknife variances add up, t with Satterthwaite's degrees of freedom. What
    two sources do together is counted for both, which errs towards too wide. With 2 seeds of a source nothing can be
    left out: intervals over examples, and their note says so. Raises InputError where runs and shape disagree.

    >>> labels = [[i, o, 0] for i in (0, 1) for o in (0, 1) for _ in (0, 1)]  # init decides one answer, order another
    >>> found = effects(labels, (2, 2, 2))
    >>> [round(source.alone.value, 2) for source in found.sources.values()], round(found.every.value, 2)
    ([0.33, 0.33, 0.0], 0.67)
    >>> [round(source.fall_share.value, 2) for source in found.sources.values()]
    [0.5, 0.5, 0.0]
    """
    labels = np.asarray(labels)
    if len(shape) != len(SOURCES) or min(shape) < 2 or len(labels) != math.prod(shape):
        raise InputError(
            "shape of the design",
            f"{tuple(shape)} for {len(labels)} runs",
            "at least 2 seeds of init, order and dropout each, and a run for every combination",
        )
    cells = np.indices(shape).reshape(len(SOURCES), -1)
    differ = np.tensordot(
        BITS, cells[:, :, None] != cells[:, None], 1
    )  # (runs, runs): the bits of what differs
    distance = churn_matrix(labels)

    def interval(of: Callable[[np.ndarray], float]) -> Interval:
        if min(shape) == 2:
            return over_examples(
                lambda labels: of(_churns(churn_matrix(labels), differ)), labels, level=level
            )
        return _crossed(
            [
                delete_a_group(
                    lambda kept: of(_churns(distance[kept][:, kept], differ[kept][:, kept])),
                    np.arange(len(labels)),
                    groups=own,
                    level=level,
                )
                for own in cells
            ],
            level,
        )

    found = {name: _source(interval, bit) for name, bit in zip(SOURCES, BITS, strict=True)}
    return Effects(interval(lambda churns: churns[-1]), found, floor)


def _churns(distance: np.ndarray, differ: np.ndarray) -> np.ndarray:
    """Mean distance of the pairs that differ in the sources of each code: (8,), 0 in none, 7 in all."""
    codes = 2 ** len(SOURCES)
    return np.bincount(differ.ravel(), distance.ravel(), codes) / np.bincount(
        differ.ravel(), minlength=codes
    )


def _source(interval: Callable[[Callable], Interval], bit: int) -> Source:
    return Source(
        alone=interval(lambda churns: churns[bit]),
        alone_share=interval(lambda churns: _share(churns[bit], churns[-1])),
        fixed=interval(lambda churns: churns[-1 - bit]),
        fall=interval(lambda churns: churns[-1] - churns[-1 - bit]),
        fall_share=interval(lambda churns: 1 - _share(churns[-1 - bit], churns[-1])),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _crossed(parts: Sequence[Interval], level: float) -> Interval:
    """One interval of the same value from those that leave out the units of one factor each."""
    variance = np.array([part.se for part in parts]) ** 2
    spread = np.sum(variance**2 / [part.df for part in parts])
    df = float(variance.sum() ** 2 / spread) if spread > 0 else parts[0].df
    value, se = parts[0].value, float(np.sqrt(variance.sum()))
    half = float(stdtrit(df, (1 + level) / 2)) * se
    return Interval(value, value - half, value + half, parts[0].runs, se=se, df=df)


def rounding(control: np.ndarray, poked: np.ndarray) -> dict[str, Interval]:
    """Churn from rounding alone beside churn from new seeds.

    control, poked: labels (runs, examples) of the same seeds in the same order. `rounding`: churn between the two runs
    of a seed; `seeds`: churn of control; `share`: the first over the second. Jackknife over seeds.

    >>> found = rounding([[0, 0, 0], [1, 1, 0], [0, 1, 1]], [[0, 0, 1], [1, 1, 0], [0, 1, 1]])
    >>> [round(interval.value, 3) for interval in found.values()]  # 1 of 9 answers; 6 of the 9 of three pairs
    [0.111, 0.667, 0.167]
    """
    control, poked = np.asarray(control), np.asarray(poked)
    if control.shape != poked.shape:
        raise InputError("shape of poked", poked.shape, f"{control.shape}, that of control")

    def between(control, poked):
        return float(np.mean(control != poked))

    return {
        "rounding": jackknife(between, control, poked),
        "seeds": jackknife(churn, control),
        "share": jackknife(lambda *arms: _share(between(*arms), churn(arms[0])), control, poked),
    }

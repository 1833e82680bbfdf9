"""Intervals for statistics of retrainings: the unit that varies is the run, never the pair of runs.

A `statistic` is any function of arrays that returns a float; arrays have runs on the first axis and lose runs
together. What has no runs axis but belongs to the examples (gold labels, weights) is handed over as
`examples=(gold,)` and reaches the statistic behind the arrays. A statistic is also evaluated with one run
missing, so entropy over n votes needs n + 1 runs, or n=min(5, len(labels)) when there are just 5.

Each interval is the value, plus and minus a t quantile times its jackknife standard error, and speaks of
retrainings on this training and test set. Source: Tukey 1958; Efron and Stein 1981.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from stabutils.errors import InputError

GUARD = 0.005  # of accuracy may be lost and a system still count as better


@dataclass(frozen=True)
class Interval:
    """A value with its interval, the runs behind it (of the smallest arm), and a note where it means less.

    se is the standard error and df the degrees of freedom of its t distribution.

    >>> print(Interval(0.1234, 0.11, 0.1368, runs=10))
    0.123 [0.110, 0.137]
    """

    value: float
    low: float
    high: float
    runs: int
    note: str = ""
    se: float = math.nan
    df: float = math.nan

    def __str__(self):
        half = (self.high - self.low) / 2
        places = min(9, max(3, 1 - math.floor(math.log10(half)))) if 0 < half < math.inf else 3
        return f"{self.value:.{places}f} [{self.low:.{places}f}, {self.high:.{places}f}]"

    def p_value(self, null=0.0):
        """Two-sided p of the hypothesis that the true value is `null`, 0 .. 1.

        >>> round(Interval(2.0, -0.15, 4.15, runs=3, se=0.5, df=2).p_value(), 3)  # t = 4 on 2 degrees
        0.057
        """
        if self.se == 0:
            return float(self.value == null)
        return float(2 * special.stdtr(self.df, -abs(self.value - null) / self.se))


def jackknife(statistic, *arrays, examples=(), level=0.95):
    """Interval of statistic(*arrays, *examples) over retrainings, by leaving out one run at a time.

    se^2 = (N - 1)/N sum_r (theta_-r - mean theta_-r)^2 around the plain value, t with N - 1 degrees. For a
    mean this is the textbook interval. Two runs: see over_examples, the note says so. One run: InputError.

    >>> print(jackknife(np.mean, [1.0, 2.0, 3.0]))  # 2 +- 4.303 / sqrt(3)
    2.000 [-0.484, 4.484]
    """
    arrays = _alike(arrays)
    runs = _enough(len(arrays[0]))
    if runs == 2:
        return over_examples(statistic, *arrays, examples=examples, level=level)
    return delete_a_group(
        statistic, *arrays, groups=np.arange(runs), examples=examples, level=level
    )


def delete_a_group(statistic, *arrays, groups, examples=(), level=0.95):
    """The same, leaving out whole groups of runs: for statistics of ensembles that are built from the runs.

    groups: how many, or the group of each run, or several such divisions, (divisions, runs), over which the
    squared error is averaged: of one division into few groups it is a matter of luck. The statistic forms its
    ensembles from whatever runs it is given and averages over random partitions; a group as large as an
    ensemble costs it one replica.

    >>> print(delete_a_group(np.mean, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0], groups=[0, 0, 1, 1, 2, 2]))
    2.000 [-0.484, 4.484]
    """
    level, arrays = _level(level), _alike(arrays)
    runs = len(arrays[0])
    divided = np.atleast_2d(np.arange(runs) % groups if np.ndim(groups) == 0 else groups)
    names = [np.unique(division) for division in divided]
    if divided.shape[1:] != (runs,) or min(map(len, names)) < 2:
        raise InputError(
            "groups", divided.tolist(), f"at least 2 groups, one entry for each of {runs} runs"
        )
    value = float(statistic(*arrays, *examples))
    moves = [
        _moves([statistic(*_pick(arrays, division != name), *examples) for name in own])
        for division, own in zip(divided, names, strict=True)
    ]
    return _interval(
        value, np.mean([np.sum(each**2) for each in moves]), min(map(len, names)) - 1, runs, level
    )


def from_deletions(values, level=0.95):
    """The same of a statistic that is known already without each run and, last, with all: (runs + 1,).

    >>> print(from_deletions([2.5, 2.0, 1.5, 2.0]))  # the mean of 1, 2 and 3
    2.000 [-0.484, 4.484]
    """
    runs = _enough(len(values) - 1)
    return _interval(
        float(values[-1]), np.sum(_moves(values[:-1]) ** 2), runs - 1, runs, _level(level)
    )


def divisions(kinds, groups, deletions=50):
    """Random divisions of runs into so many groups, each kind of run divided as evenly as it can be: (divisions, runs).

    kinds: of each run. As many divisions as it takes to delete `deletions` groups; drawn from seed 0.

    >>> divisions([0, 0, 1, 1], groups=2, deletions=2).tolist()
    [[0, 1, 0, 1]]
    """
    draw, kinds, found = np.random.default_rng(0), np.asarray(kinds), []
    for _ in range(-(-deletions // groups)):
        order = draw.permutation(len(kinds))
        order = order[np.argsort(kinds[order], kind="stable")]
        found.append(np.empty(len(kinds), int))
        found[-1][order] = np.arange(len(kinds)) % groups
    return np.stack(found)


def over_examples(statistic, *arrays, examples=(), level=0.95):
    """Interval of a statistic over examples, second axis of the arrays: how another test set would change it.

    Leaves out random blocks of the examples, 50 at most. It says nothing about other retrainings, and its
    note says that.

    >>> over_examples(np.mean, [[0.0, 1.0, 2.0, 3.0]]).note
    'this model only'
    """
    level, arrays, examples = _level(level), tuple(map(_arm, arrays)), _arm(tuple(examples))
    parts = [part for array in arrays for part in _parts(array)]
    runs, counts = min(map(len, parts)), {part.shape[1:2] for part in parts}
    if len(counts) != 1 or max(max(counts), default=0) < 2:
        raise InputError(
            "runs", runs, "at least 3, or else arrays of (runs, examples), 2 examples or more"
        )
    count = counts.pop()[0]
    blocks = min(count, 50)
    block = np.random.default_rng(0).permutation(count) % blocks
    value, kept = (
        float(statistic(*arrays, *examples)),
        [block != left_out for left_out in range(blocks)],
    )
    deleted = [statistic(*_pick(arrays, rest, axis=1), *_pick(examples, rest)) for rest in kept]
    note = {1: "this model only", 2: "these two models only"}.get(runs, f"these {runs} models only")
    return replace(
        _interval(value, np.sum(_moves(deleted) ** 2), blocks - 1, runs, level), note=note
    )


def jackknife_arms(statistic, arms, seeds, level=0.95, examples=()):
    """Interval of statistic(*arms, *examples), a difference or ratio of arms that may share master seeds.

    arms: for each an array or a tuple of arrays, runs first. seeds: for each the master seeds of its runs.
    Seed s is left out of every arm that used it, one arm at a time (so the statistic meets arms of unequal
    length), and what that changes is added up over the arms before it is squared:

        e_s = sum_a sqrt((N_a - 1)/N_a) (theta_-s,a - mean_s theta_-s,a)        se^2 = sum_s e_s^2

    Common seeds thus count with their covariance, arms without common seeds add variances, whatever their
    numbers of seeds N_a; ratios are taken whole. For a difference of means this is the paired and the Welch
    interval. Degrees of freedom after Satterthwaite: m (N - 1)/N for each set of m seeds used by the same
    arms, the smallest having N. An arm of two runs: see over_examples.

    >>> difference = lambda a, b: np.mean(a) - np.mean(b)
    >>> print(jackknife_arms(difference, [[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]], [[7, 8, 9], [7, 8, 9]]))
    1.000 [-1.484, 3.484]
    """
    level, arms, seeds = (
        _level(level),
        [_arm(arm) for arm in arms],
        [np.asarray(own) for own in seeds],
    )
    runs = [{len(part) for part in _parts(arm)} for arm in arms]
    if runs != [{len(own)} for own in seeds]:
        raise InputError(
            "seeds", [own.tolist() for own in seeds], "a list for each arm, a seed for each run"
        )
    sizes = np.array([_enough(len(np.unique(own))) for own in seeds])
    if sizes.min() == 2:
        return over_examples(statistic, *arms, examples=examples, level=level)
    pool = np.unique(np.concatenate(seeds))
    used = np.array([np.isin(pool, own) for own in seeds])
    moves = np.zeros(used.shape)
    for a, own in enumerate(seeds):
        without = [
            [*arms[:a], _pick(arms[a], own != seed), *arms[a + 1 :]] for seed in pool[used[a]]
        ]
        moves[a, used[a]] = _moves([statistic(*rest, *examples) for rest in without])
    squares = moves.sum(axis=0) ** 2
    value = float(statistic(*arms, *examples))
    return _interval(
        value, squares.sum(), _satterthwaite(squares, used, sizes), int(sizes.min()), level
    )


def _satterthwaite(squares, used, sizes):
    patterns, kind = np.unique(used, axis=1, return_inverse=True)
    smallest = np.array([sizes[pattern].min() for pattern in patterns.T])
    variance = np.bincount(kind.ravel(), weights=squares)
    degrees = np.bincount(kind.ravel()) * (smallest - 1) / smallest
    spread = np.sum(variance**2 / degrees)
    return variance.sum() ** 2 / spread if spread > 0 else sizes.min() - 1


def jeffreys(successes, trials, level=0.95):
    """Jeffreys interval of a probability after `successes` in `trials`: (low, high) arrays, 0 .. 1.

    Ends at 0 where nothing and at 1 where everything succeeded. Source: Brown, Cai and DasGupta 2001.

    >>> [end.round(3).tolist() for end in jeffreys([0, 5], 10)]
    [[0.0, 0.224], [0.217, 0.776]]
    """
    level, (successes, trials) = _level(level), np.broadcast_arrays(successes, trials)
    if not np.all((0 <= successes) & (successes <= trials) & (trials > 0)):
        raise InputError(
            "successes", successes.tolist(), "counts from 0 to trials, of at least 1 trial"
        )
    failures = trials - successes
    low, high = (
        special.betaincinv(successes + 0.5, failures + 0.5, (1 + s * level) / 2) for s in (-1, 1)
    )
    return np.where(successes == 0, 0.0, low), np.where(failures == 0, 1.0, high)


def holm(p_values):
    """Adjusted p-values: reject those of at most alpha, and any false rejection has a chance below alpha.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()  # 3 x .01, 2 x .03, then never below the one before
    [0.03, 0.06, 0.06]

    Source: Holm 1979.
    """
    p_values = np.asarray(p_values, float)
    if p_values.ndim != 1 or not np.all((0 <= p_values) & (p_values <= 1)):
        raise InputError("p-values", p_values.tolist(), "a list of numbers of 0 .. 1")
    order = np.argsort(p_values)
    adjusted = np.empty_like(p_values)
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def runs_needed(interval, half_width, level=0.95):
    """How many runs (in each arm) would bring the interval down to value +- half_width: an integer from 2.

    The smallest N with t(N - 1) sd / sqrt(N) <= half_width, where sd is the interval's se times the root of
    its runs; about right when that rests on 10 runs or more.

    >>> runs_needed(Interval(2.0, 0.41, 3.59, runs=4, se=0.5), 1.0)  # 2.571/sqrt(6) > 1 > 2.447/sqrt(7)
    7
    """
    if interval.note or not math.isfinite(interval.se):
        raise InputError(
            "interval", interval.note or interval.se, "an interval over at least 3 runs"
        )
    if not half_width > 0:
        raise InputError("half_width", half_width, "a number above 0")
    quantile = (1 + _level(level)) / 2
    spread = interval.se * math.sqrt(interval.runs) / half_width
    runs = max(
        2, math.ceil((special.ndtri(quantile) * spread) ** 2)
    )  # t lies above the normal quantile
    while special.stdtrit(runs - 1, quantile) * spread > math.sqrt(runs):
        runs += 1
    return runs


def verdict(interval, threshold, direction="above"):
    """What an interval says of the claim that the value lies above (below) the threshold: one of four.

    `holds`: all of the interval does; `does not hold`: none of it does; `undecided at N runs`: part of it;
    `cannot be tested here`: there is no interval (None, or not finite).

    >>> verdict(Interval(0.2, 0.1, 0.3, runs=5), 0.15), verdict(Interval(0.2, 0.1, 0.3, runs=5), 0.4, "below")
    ('undecided at 5 runs', 'holds')
    """
    if direction not in ("above", "below"):
        raise InputError("direction", direction, "'above' or 'below'")
    if interval is None or not np.isfinite([interval.low, interval.high, threshold]).all():
        return "cannot be tested here"
    ends = [interval.low - threshold, interval.high - threshold]
    worst, best = ends if direction == "above" else [-ends[1], -ends[0]]
    if worst > 0:
        return "holds"
    return "does not hold" if best <= 0 else f"undecided at {interval.runs} runs"


def together(*verdicts: str) -> str:
    """The verdict on several claims at once: `holds` where all do, else the first that does not hold, else the first
    that is not decided.

    >>> together("holds", "undecided at 5 runs"), together("undecided at 5 runs", "does not hold")
    ('undecided at 5 runs', 'does not hold')
    """
    left = [verdict for verdict in verdicts if verdict != "holds"]
    return "does not hold" if "does not hold" in left else left[0] if left else "holds"


def _interval(value, variance, df, runs, level):
    se = math.sqrt(variance)
    half = float(special.stdtrit(df, (1 + level) / 2)) * se
    return Interval(value, value - half, value + half, runs, se=se, df=float(df))


def _moves(deleted):
    """Scaled so that their squares sum to the jackknife variance."""
    deleted = np.asarray(deleted, float)
    return math.sqrt((len(deleted) - 1) / len(deleted)) * (deleted - deleted.mean())


def _parts(arm):
    return arm if isinstance(arm, tuple) else (arm,)


def _pick(arm, keep, axis=0):
    """The arm, or each array of a tuple, at the places to keep."""
    if isinstance(arm, tuple):
        return tuple(_pick(part, keep, axis) for part in arm)
    return np.compress(keep, arm, axis)


def _arm(arm):
    return tuple(map(np.asarray, arm)) if isinstance(arm, tuple) else np.asarray(arm)


def _alike(arrays):
    arrays = _arm(tuple(arrays))
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or () in lengths:
        raise InputError(
            "arrays", [array.shape for array in arrays], "at least one, all with runs first"
        )
    return arrays


def _enough(runs):
    if runs < 2:
        raise InputError(
            "runs", runs, "at least 2, better 5: one training has no interval, retrain"
        )
    return runs


def _level(level):
    if not 0 < level < 1:
        raise InputError("level", level, "a number between 0 and 1, such as 0.95")
    return level

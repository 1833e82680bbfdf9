"""Intervals for statistics of retrainings.

Two things are sampled: runs and queries. `jackknife` and `jackknife_arms` leave out runs, so their
intervals speak of new retrainings on these queries; `over_queries` and `over_examples` leave out
queries; `runs_and_queries` puts both together and speaks of new retrainings and new queries, and
`over_both` does all three at once. The unit is always the run, never the pair of runs. All
intervals are 95 %.

A `statistic` is any function of arrays that returns a number; arrays have runs on the first axis
and lose runs together. What has no runs axis but belongs to the queries (gold labels, weights) is
handed over as `examples=(gold,)` and reaches the statistic behind the arrays. A statistic is also
evaluated without one of the runs, so entropy over n votes needs n + 1 runs, or
`scores.label_entropy`.

References
----------
Tukey 1958, "Bias and confidence in not-quite large samples"; Efron & Stein 1981, "The jackknife
estimate of variance"; Cameron, Gelbach & Miller 2011, "Robust inference with multiway clustering".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy import special

from stabutils.errors import InputError

UPPER = 0.975  # quantile at which an interval of 95 % ends
GUARD = 0.005  # of accuracy may be lost and a system still count as better
ROUNDING = 1e-12  # two shares that differ by less are equal
BLOCKS = 50  # of queries, left out one at a time where leaving out single ones would take too long


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes
    ----------
    value, low, high : the interval is 95 %
    runs : of the smallest arm behind it
    note : where it means less than usual, such as "these two models only"
    se, df : standard error, and degrees of freedom of its t distribution
    over_runs : the interval over runs alone, where this one is over runs and queries

    Examples
    --------
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
    over_runs: Interval | None = None

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        places = 3
        if 0 < half < math.inf:
            places = min(9, max(3, 1 - math.floor(math.log10(half))))
        return f"{self.value:.{places}f} [{self.low:.{places}f}, {self.high:.{places}f}]"

    @property
    def speaks_of(self) -> str:
        """Whom the interval speaks of, in words."""
        if self.note:
            return self.note
        if self.over_runs is not None:
            return "new runs and new queries"
        return "new runs on these queries"

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p of the hypothesis that the true value is `null`, 0 .. 1.

        Examples
        --------
        >>> interval = Interval(2.0, -0.15, 4.15, runs=3, se=0.5, df=2)
        >>> round(interval.p_value(), 3)  # t = 4 on 2 degrees
        0.057
        """
        if self.se == 0:
            return float(abs(self.value - null) <= ROUNDING)
        return float(2 * special.stdtr(self.df, -abs(self.value - null) / self.se))

    def within(self, lowest: float, highest: float) -> Interval:
        """The same for a number that cannot leave lowest .. highest: its ends are clipped.

        `se`, `df` and so p-values stay as they are.

        Examples
        --------
        >>> print(Interval(0.95, 0.86, 1.04, runs=5).within(0, 1))
        0.950 [0.860, 1.000]
        """
        low, high = max(lowest, self.low), min(highest, self.high)
        over_runs = self.over_runs and self.over_runs.within(lowest, highest)
        return replace(self, low=low, high=high, over_runs=over_runs)


# ---- one arm, over runs ----


def jackknife(statistic: Callable, *arrays, examples=()) -> Interval:
    """Interval of ``statistic(*arrays, *examples)`` over runs, by leaving out one run at a time.

    ``se^2 = (N - 1)/N sum_r (theta_-r - mean theta_-r)^2`` around the plain value, t with N - 1
    degrees. For a mean this is the textbook interval. Two runs: see `over_examples`, the note says
    so. InputError for one run, and for as few as the statistic needs itself.

    Examples
    --------
    >>> print(jackknife(np.mean, [1.0, 2.0, 3.0]))  # 2 +- 4.303 / sqrt(3)
    2.000 [-0.484, 4.484]
    """
    arrays = tuple(map(np.asarray, arrays))
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) != 1 or () in lengths:
        shapes = [array.shape for array in arrays]
        raise InputError("arrays", shapes, "at least one, all with runs first")
    runs = _enough(len(arrays[0]))
    if runs == 2:
        return over_examples(statistic, *arrays, examples=examples)
    value, deleted = statistic(*arrays, *examples), []
    for run in range(runs):
        rest = [np.delete(array, run, axis=0) for array in arrays]
        try:
            deleted.append(statistic(*rest, *examples))
        except InputError as error:
            allowed = (
                f"one more than the statistic needs ({error}); LE@{runs} of {runs} runs has an "
                f"interval by metrics.scores.label_entropy(labels, {runs}).interval()"
            )
            raise InputError("runs", runs, allowed) from error
    return from_deletions(value, deleted)


def from_deletions(
    value: float, deleted: Sequence[float] | ndarray, runs: int | None = None
) -> Interval:
    """The same of a statistic that is known without each of its units.

    runs : behind it, where the units are not the runs

    Examples
    --------
    >>> print(from_deletions(2.0, [2.5, 2.0, 1.5]))  # the mean of 1, 2 and 3
    2.000 [-0.484, 4.484]
    """
    units = _enough(len(deleted))
    if runs is None:
        runs = units
    return from_variance(float(value), np.sum(moves_of(deleted) ** 2), units - 1, runs)


def divisions(kinds: ArrayLike, groups: int, deletions: int = 50) -> ndarray:
    """Random divisions of runs into groups, each kind of run divided evenly: (divisions, runs).

    Parameters
    ----------
    kinds : of each run
    deletions : as many divisions as it takes to delete so many groups; drawn from seed 0

    Examples
    --------
    >>> divisions([0, 0, 1, 1], groups=2, deletions=2).tolist()
    [[0, 1, 0, 1]]
    """
    rng, kinds = np.random.default_rng(0), np.asarray(kinds)
    divided = []
    for _ in range(-(-deletions // groups)):
        order = rng.permutation(len(kinds))
        order = order[np.argsort(kinds[order], kind="stable")]
        division = np.empty(len(kinds), int)
        division[order] = np.arange(len(kinds)) % groups
        divided.append(division)
    return np.stack(divided)


# ---- over queries ----


def over_queries(
    function: Callable, *rows: ArrayLike, weights: ArrayLike | None = None, runs: int
) -> Interval:
    """Interval of function(mean of each row) over queries, by leaving out one query at a time.

    Parameters
    ----------
    function : of as many numbers as there are rows; it is also given arrays of them
    rows : (queries,) each, such as the label entropy of each query in one arm
    weights : (queries,) of the means, equal if None; queries of weight 0 do not count
    runs : behind the rows

    Returns
    -------
    Of one query, which cannot be left out, the value without ends.

    Examples
    --------
    >>> print(over_queries(lambda mean: mean, [1.0, 2.0, 3.0], runs=1))
    2.000 [-0.484, 4.484]
    """
    table = np.stack([np.asarray(row, float) for row in rows])
    weights = np.ones(table.shape[1]) if weights is None else np.asarray(weights, float)
    table, weights = table[:, weights > 0], weights[weights > 0]
    total, sums = weights.sum(), table @ weights
    with quiet():
        value = float(function(*(sums / total)))
        if len(weights) < 2:
            return Interval(value, math.nan, math.nan, runs, these_models(runs))
        deleted = function(*((sums[:, None] - table * weights) / (total - weights)))
        interval = from_deletions(value, np.broadcast_to(deleted, weights.shape), runs)
    return replace(interval, note=these_models(runs))


def over_examples(statistic: Callable, *arrays, examples=()) -> Interval:
    """The same of any statistic of arrays (runs, queries, ...): how other queries would change it.

    Leaves out random blocks of the queries, 50 at most. It says nothing about other retrainings,
    and its note says that.

    Examples
    --------
    >>> over_examples(np.mean, [[0.0, 1.0, 2.0, 3.0]]).note
    'this model only'
    """
    arrays, examples = (tuple(map(np.asarray, each)) for each in (arrays, examples))
    runs, counts = min(map(len, arrays), default=0), {array.shape[1:2] for array in arrays}
    alone = counts == {(1,)} and runs >= 3
    if not alone and (len(counts) != 1 or max(max(counts), default=0) < 2):
        allowed = "at least 3, or else arrays of (runs, examples), 2 examples or more"
        raise InputError("runs", runs, allowed)
    (count,) = counts.pop()
    value = float(statistic(*arrays, *examples))
    if alone:  # a single query cannot be left out
        return Interval(value, math.nan, math.nan, runs, these_models(runs))
    deleted = []
    for rest in without_blocks(count):
        kept = [array[:, rest] for array in arrays] + [array[rest] for array in examples]
        deleted.append(statistic(*kept))
    return replace(from_deletions(value, deleted, runs), note=these_models(runs))


def without_blocks(count: int) -> list[ndarray]:
    """Positions of queries without each of BLOCKS random blocks of them, or without each query.

    >>> sorted(rest.tolist() for rest in without_blocks(3))
    [[0, 1], [0, 2], [1, 2]]
    """
    blocks = min(count, BLOCKS)
    block = np.random.default_rng(0).permutation(count) % blocks
    return [np.flatnonzero(block != left_out) for left_out in range(blocks)]


def these_models(runs: int) -> str:
    """The note of an interval that speaks of other queries only."""
    return {1: "this model only", 2: "these two models only"}.get(runs, f"these {runs} models only")


# ---- over runs and queries ----


def runs_and_queries(over_runs: Interval, over_queries: Interval, cells: float = 0.0) -> Interval:
    """One interval for new runs and new queries from those over each alone.

    The two variances add. What varies by single cells (one run's answer to one query) is in both,
    so its variance is taken off once where it is known; the sum never falls below either part.
    Without `cells` the interval is conservative. t with Satterthwaite's degrees of freedom. In
    simulations of correlated flips on queries of unequal difficulty it covered 90 to 100 % for 3 to
    50 runs, single arms, differences and ratios (docs/statistics.md has the table).

    Parameters
    ----------
    over_runs, over_queries : of the same value; where either is not known, the first is returned
    cells : variance of the value by single cells, both factors' units taken as independent

    References
    ----------
    Cameron, Gelbach & Miller 2011, "Robust inference with multiway clustering": V_runs + V_queries
    - V_cells. The multi-bootstrap of Sellam et al. 2022 (MultiBERTs, arXiv 2106.16163) answers the
    same question by resampling.

    Examples
    --------
    >>> one = from_deletions(2.0, [2.5, 2.0, 1.5])
    >>> print(runs_and_queries(one, one))  # se sqrt(2/3), 4 degrees of freedom
    2.000 [-0.267, 4.267]
    """
    known = math.isfinite(over_runs.se) and math.isfinite(over_queries.se)
    if over_runs.note or not known:
        return over_runs
    return replace(crossed([over_runs, over_queries], cells), over_runs=over_runs)


def crossed(parts: Sequence[Interval], cells: float = 0.0) -> Interval:
    """One interval from those that leave out the units of one crossed factor each.

    The variances add, and that of single cells is taken off. Without it, what two factors do
    together is counted for both: it errs towards too wide.
    """
    variances = np.array([part.se for part in parts]) ** 2
    variance = max(variances.max(), variances.sum() - cells)
    degrees, first = [part.df for part in parts], parts[0]
    df = _satterthwaite(variance, variances, degrees, first.df)
    return from_variance(first.value, variance, df, first.runs)


def _satterthwaite(variance, variances, degrees, otherwise) -> float:
    """Degrees of freedom of a variance put together of several; `otherwise` if all are 0."""
    spread = np.sum(variances**2 / degrees)
    return variance**2 / spread if spread > 0 else otherwise


def over_both(statistic: Callable, *arms, seeds=None, examples=()) -> Interval:
    """Interval of ``statistic(*arms, *examples)`` over runs and queries, conservative.

    seeds : for each arm those of its runs (`jackknife_arms`); None: arms lose runs together
    """
    if seeds is None:
        over_runs = jackknife(statistic, *arms, examples=examples)
    else:
        over_runs = jackknife_arms(statistic, arms, seeds, examples)
    return runs_and_queries(over_runs, over_examples(statistic, *arms, examples=examples))


# ---- several arms, over runs ----


def jackknife_arms(statistic: Callable, arms, seeds, examples=()) -> Interval:
    """Interval of ``statistic(*arms, *examples)`` over runs: a difference or ratio of several arms.

    Seed s is left out of every arm that used it, one arm at a time (so the statistic meets arms of
    unequal length), and what that changes is added up over the arms before it is squared::

        e_s = sum_a sqrt((N_a - 1)/N_a) (theta_-s,a - mean_s theta_-s,a)        se^2 = sum_s e_s^2

    Common seeds thus count with their covariance, arms without common seeds add variances, whatever
    their numbers of seeds N_a; ratios are taken whole. For a difference of means this is the paired
    and the Welch interval. Degrees of freedom after Satterthwaite: m (N - 1)/N for each set of m
    seeds used by the same arms, the smallest having N. An arm of two runs: see `over_examples`.

    Parameters
    ----------
    arms : arrays, runs first
    seeds : for each the master seeds of its runs

    Examples
    --------
    >>> difference = lambda a, b: np.mean(a) - np.mean(b)
    >>> arms, seeds = [[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]], [[7, 8, 9], [7, 8, 9]]
    >>> print(jackknife_arms(difference, arms, seeds))
    1.000 [-1.484, 3.484]
    """
    arms, seeds = ([*map(np.asarray, each)] for each in (arms, seeds))
    if [len(arm) for arm in arms] != [len(own) for own in seeds]:
        allowed = "a list for each arm, a seed for each run"
        raise InputError("seeds", [own.tolist() for own in seeds], allowed)
    sizes = np.array([_enough(len(np.unique(own))) for own in seeds])
    if sizes.min() == 2:
        found = over_examples(statistic, *arms, examples=examples)
        return found if sizes.max() == 2 else replace(found, note="these models only")
    pool = np.unique(np.concatenate(seeds))
    used = np.array([np.isin(pool, own) for own in seeds])
    moves = np.zeros(used.shape)
    for a, own in enumerate(seeds):
        deleted = []
        for seed in pool[used[a]]:
            rest = [*arms[:a], arms[a][own != seed], *arms[a + 1 :]]
            deleted.append(statistic(*rest, *examples))
        moves[a, used[a]] = moves_of(deleted)
    squares = moves.sum(axis=0) ** 2
    value, df = float(statistic(*arms, *examples)), _degrees(squares, used, sizes)
    return from_variance(value, squares.sum(), df, int(sizes.min()))


def _degrees(squares, used, sizes) -> float:
    patterns, kind = np.unique(used, axis=1, return_inverse=True)
    smallest = np.array([sizes[pattern].min() for pattern in patterns.T])
    variances = np.bincount(kind.ravel(), weights=squares)
    degrees = np.bincount(kind.ravel()) * (smallest - 1) / smallest
    return _satterthwaite(variances.sum(), variances, degrees, sizes.min() - 1)


# ---- shares, families, plans, verdicts ----


def jeffreys(successes: ArrayLike, trials: ArrayLike) -> tuple[ndarray, ndarray]:
    """Jeffreys interval of a probability after `successes` in `trials`: (low, high), 0 .. 1.

    Ends at 0 where nothing and at 1 where everything succeeded.

    References
    ----------
    Brown, Cai & DasGupta 2001, "Interval estimation for a binomial proportion".

    Examples
    --------
    >>> [end.round(3).tolist() for end in jeffreys([0, 5], 10)]
    [[0.0, 0.224], [0.217, 0.776]]
    """
    successes, trials = np.broadcast_arrays(successes, trials)
    if not np.all((0 <= successes) & (successes <= trials) & (trials > 0)):
        allowed = "counts from 0 to trials, of at least 1 trial"
        raise InputError("successes", successes.tolist(), allowed)
    a, b = successes + 0.5, trials - successes + 0.5
    low, high = (special.betaincinv(a, b, quantile) for quantile in (1 - UPPER, UPPER))
    return np.where(successes == 0, 0.0, low), np.where(successes == trials, 1.0, high)


def holm(p_values: ArrayLike) -> ndarray:
    """Adjusted p-values: reject those of at most alpha, and any false rejection has chance < alpha.

    References
    ----------
    Holm 1979, "A simple sequentially rejective multiple test procedure".

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()  # 3 x .01, 2 x .03, then not below the last
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, float)
    if p_values.ndim != 1 or not np.all((0 <= p_values) & (p_values <= 1)):
        raise InputError("p-values", p_values.tolist(), "a list of numbers of 0 .. 1")
    order = np.argsort(p_values)
    adjusted = np.empty_like(p_values)
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def runs_needed(interval: Interval, half_width: float) -> int:
    """How many runs (in each arm) would bring an interval over runs down to value +- half_width.

    The smallest N with t(N - 1) sd / sqrt(N) <= half_width, where sd is the interval's se over runs
    times the root of its runs; about right when that rests on 10 runs or more. More runs do not
    narrow what other queries would change.

    Examples
    --------
    >>> interval = Interval(2.0, 0.41, 3.59, runs=4, se=0.5)
    >>> runs_needed(interval, 1.0)  # 2.571/sqrt(6) > 1 > 2.447/sqrt(7)
    7
    """
    over_runs = _over_runs(interval)
    if not half_width > 0:
        raise InputError("half_width", half_width, "a number above 0")
    spread = over_runs.se * math.sqrt(over_runs.runs) / half_width
    runs = max(2, math.ceil((special.ndtri(UPPER) * spread) ** 2))  # t lies above the normal
    while special.stdtrit(runs - 1, UPPER) * spread > math.sqrt(runs):
        runs += 1
    return runs


def runs_to_detect(interval: Interval, difference: float, power=0.8) -> int | None:
    """How many runs in each arm find a true difference significant with the chance `power`.

    Parameters
    ----------
    interval : of the difference of two arms of equally many runs, such as a pilot's; what it has
        beyond its interval over runs is what other queries would change, and stays
    difference : that shall be found, in units of the interval

    Returns
    -------
    The smallest number from 3. None where no number of runs suffices: that takes more queries.

    Examples
    --------
    >>> pilot = Interval(0.0, -2.3, 2.3, runs=5, se=1.0, df=8)
    >>> runs_to_detect(pilot, 2.0), runs_to_detect(pilot, 4.0)
    (11, 4)
    """
    over_runs = _over_runs(interval)
    if not difference > 0:
        raise InputError("difference", difference, "a number above 0")
    if not 0 < power < 1:
        raise InputError("power", power, "a number between 0 and 1, such as 0.8")
    of_runs, degrees = over_runs.se**2 * over_runs.runs, over_runs.df / (over_runs.runs - 1)
    stays = max(0.0, interval.se**2 - over_runs.se**2)
    needed = (difference / (special.ndtri(UPPER) + special.ndtri(power))) ** 2
    if needed <= stays:
        return None
    if of_runs == 0:
        return 3
    runs = max(3, math.ceil(of_runs / (needed - stays)))  # t lies above the normal
    while _power(difference, of_runs / runs, stays, degrees * (runs - 1)) < power:
        runs += 1
    return runs


def _power(difference, of_runs, stays, degrees):
    """Chance that a difference is significant, by the noncentral t distribution."""
    variance = of_runs + stays
    df = degrees * (variance / of_runs) ** 2
    threshold = special.stdtrit(df, UPPER)
    return 1 - special.nctdtr(df, difference / math.sqrt(variance), threshold)


def verdict(interval: Interval | None, threshold: float, direction: str = "above") -> str:
    """What an interval says of the claim that the value lies above (below) the threshold.

    Returns
    -------
    `holds`: all of the interval does; `does not hold`: none of it does; `undecided at N runs`: part
    of it; `cannot be tested here`: there is no interval (None, or not finite).

    Examples
    --------
    >>> verdict(Interval(0.2, 0.1, 0.3, runs=5), 0.15)
    'undecided at 5 runs'
    >>> verdict(Interval(0.2, 0.1, 0.3, runs=5), 0.4, "below")
    'holds'
    """
    if direction not in ("above", "below"):
        raise InputError("direction", direction, "'above' or 'below'")
    if interval is None or not np.isfinite([interval.low, interval.high, threshold]).all():
        return "cannot be tested here"
    worst, best = interval.low - threshold, interval.high - threshold
    if direction == "below":
        worst, best = -best, -worst
    if worst > ROUNDING:
        return "holds"
    return "does not hold" if best <= ROUNDING else f"undecided at {interval.runs} runs"


def together(*verdicts: str) -> str:
    """The verdict on several claims at once.

    `holds` where all do, else the first that does not hold, else the first that is not decided.

    Examples
    --------
    >>> together("holds", "undecided at 5 runs"), together("undecided at 5 runs", "does not hold")
    ('undecided at 5 runs', 'does not hold')
    """
    left = [verdict for verdict in verdicts if verdict != "holds"]
    if "does not hold" in left:
        return "does not hold"
    return left[0] if left else "holds"


# ---- shared ----


def from_variance(value: float, variance: float, df: float, runs: int) -> Interval:
    """The value plus and minus a t quantile times the root of the variance."""
    se = math.sqrt(variance)
    half = float(special.stdtrit(df, UPPER)) * se
    return Interval(value, value - half, value + half, runs, se=se, df=float(df))


def quiet() -> np.errstate:
    """Where a share of nothing is nan, without a warning."""
    return np.errstate(divide="ignore", invalid="ignore")


def moves_of(deleted: ArrayLike) -> ndarray:
    """Values with units left out, scaled so that their squares sum to the jackknife variance."""
    deleted = np.asarray(deleted, float)
    units = len(deleted)
    return math.sqrt((units - 1) / units) * (deleted - deleted.mean(axis=0))


def _over_runs(interval: Interval) -> Interval:
    over_runs = interval.over_runs or interval
    if over_runs.note or not math.isfinite(over_runs.se):
        thing = over_runs.note or over_runs.se
        raise InputError("interval", thing, "an interval over at least 3 runs")
    return over_runs


def _enough(runs):
    if runs < 2:
        allowed = "at least 2, better 5: one training has no interval, retrain"
        raise InputError("runs", runs, allowed)
    return runs

"""Release gates: checks with three outcomes, and the chance that a gate passes by luck.

A check compares an interval with a limit: `failed` where all of the interval lies above it,
`passed` where none of it does, else `undecided`. A gate on one pair of models has luck in it: the
same recipe, trained again, passes it sometimes and sometimes not. `pass_chance` says how often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stabutils.errors import InputError
from stabutils.metrics.intervals import (
    GUARD,
    ROUNDING,
    Interval,
    jeffreys,
    runs_to_detect,
    verdict,
)
from stabutils.metrics.measures import flips
from stabutils.metrics.multiplicity import mcnemar

MOST_RUNS = 1_000  # that anybody trains to decide a check
OUTCOMES = {"holds": "failed", "does not hold": "passed"}


@dataclass(frozen=True)
class Check:
    """One check of a gate: how much worse something is, and how much is allowed.

    Attributes
    ----------
    name : such as "churn"
    interval : of what must not be large, a share of queries
    limit : the largest value that is allowed

    Examples
    --------
    >>> [Check("churn", Interval(0.2, 0.1, 0.3, 5), limit).outcome for limit in (0.05, 0.2, 0.4)]
    ['failed', 'undecided', 'passed']
    """

    name: str
    interval: Interval
    limit: float

    @property
    def outcome(self) -> str:
        return OUTCOMES.get(verdict(self.interval, self.limit), "undecided")

    @property
    def runs_to_decide(self) -> int | None:
        """Runs of each system that decide an undecided check with a chance of 80 %, were its value
        exact. None where it is decided, or by no 1,000 runs: that takes more queries.

        Examples
        --------
        >>> Check("churn", Interval(0.2, 0.1, 0.3, 5, se=0.036, df=4), 0.15).runs_to_decide
        23
        """
        distance = abs(self.interval.value - self.limit)
        known = not self.interval.note and np.isfinite(self.interval.se)
        if self.outcome != "undecided" or not distance or not known:
            return None
        runs = runs_to_detect(self.interval, distance)
        return runs if runs and self.interval.runs < runs <= MOST_RUNS else None

    @property
    def advice(self) -> str:
        """What would decide an undecided check, as the end of a line; "" where it is decided."""
        if self.outcome != "undecided":
            return ""
        if self.runs_to_decide is None:
            runs = "" if self.interval.note else f" ({MOST_RUNS:,} runs would not)"
            return f"; to decide it{runs}, take more queries or another limit"
        runs = f"{self.runs_to_decide:,} runs per system"
        return f"; {runs} would decide it with a chance of 80 %, if it is as measured"

    def status(self, strict: bool) -> int:
        """Exit status: 1 where it failed (strict: where it did not pass), else 0."""
        return int(self.outcome == "failed" or strict and self.outcome != "passed")

    def in_words(self, strict: bool) -> str:
        """The outcome, and what one that is undecided means for the gate."""
        if self.outcome != "undecided":
            return self.outcome
        means = "which --strict fails" if strict else "which passes without --strict"
        return f"undecided, {means}"

    def entry(self) -> dict:
        """As a document for programs has it."""
        names = ("value", "low", "high", "runs", "speaks_of")
        numbers = {name: getattr(self.interval, name) for name in names}
        check = {"name": self.name, "limit": self.limit, "outcome": self.outcome}
        return check | numbers | {"runs_to_decide": self.runs_to_decide}


def with_unseen(interval: Interval, queries: int) -> Interval:
    """The interval of something that was never seen, up to what so many queries leave open.

    Examples
    --------
    >>> print(with_unseen(Interval(0.0, 0.0, 0.0, runs=2, se=0.0), 10))  # Jeffreys, 0 of 10
    0.000 [0.000, 0.217]
    >>> print(with_unseen(Interval(1.0, 1.0, 1.0, runs=2, se=0.0), 10))  # seen, always
    1.000 [1.000, 1.000]
    """
    if interval.high != interval.low or abs(interval.value) > ROUNDING:
        return interval
    return replace(interval, high=interval.value + float(jeffreys(0, queries)[1]))


@dataclass(frozen=True)
class PairGate:
    """What a gate asks of a new model beside the deployed one, both answering the same queries.

    Attributes
    ----------
    max_churn : largest share of queries that may get another answer; None: any
    accuracy_loss : by how much accuracy may fall, a share of queries; None: by anything
    max_negative_flips : largest share of queries that may turn from right to wrong; None: any
    """

    max_churn: float | None = None
    accuracy_loss: float | None = GUARD
    max_negative_flips: float | None = None

    @property
    def needs_gold(self) -> bool:
        return self.accuracy_loss is not None or self.max_negative_flips is not None

    def __str__(self) -> str:
        asks = []
        if self.max_churn is not None:
            asks.append(f"at most {100 * self.max_churn:g} % churn")
        if self.max_negative_flips is not None:
            asks.append(f"at most {100 * self.max_negative_flips:g} % negative flips")
        if self.accuracy_loss is not None:
            asks.append(f"accuracy not lower by more than {100 * self.accuracy_loss:g} points")
        return " and ".join(asks)

    def passes(self, before, after, gold=None) -> np.ndarray:
        """Whether each model of `after` may replace each of `before`: bool, (before, after).

        Examples
        --------
        >>> PairGate(max_churn=0.5).passes([[0, 0]], [[0, 0], [0, 1], [1, 1]], [0, 0]).tolist()
        [[True, False, False]]
        """
        before, after = np.asarray(before), np.asarray(after)
        passed = np.ones((len(before), len(after)), bool)
        if self.needs_gold and gold is None:
            raise InputError("gold", None, "gold labels, as the gate asks for right answers")
        if self.max_churn is not None:
            churn = np.array([(after != labels).mean(axis=1) for labels in before])
            passed &= churn <= self.max_churn
        if self.accuracy_loss is not None:
            right = [(labels == gold).sum(axis=1) for labels in (before, after)]
            lost = right[0][:, None] - right[1]
            passed &= lost <= self.accuracy_loss * before.shape[1] + 1e-9
        if self.max_negative_flips is not None:
            regressed = [((labels == gold) & (after != gold)).mean(axis=1) for labels in before]
            passed &= np.array(regressed) <= self.max_negative_flips
        return passed


def pass_chance(gate: PairGate, before, after=None, gold=None) -> Interval:
    """Chance that a new model passes the gate beside the deployed one, both drawn from the runs.

    Parameters
    ----------
    before : array of int, (runs, examples)
        Runs of the recipe that is deployed, two or more.
    after : array of int, (runs, examples), optional
        Runs of the new recipe. None: of the same recipe, trained again; then what fails is luck.
    gold : array of int, (examples,), optional

    Returns
    -------
    Interval
        0 .. 1: the share of all pairs that pass. It speaks of new runs on these queries.

    References
    ----------
    The mean over pairs of N runs varies no more than a mean of N/2 independent pairs (Hoeffding
    1948, "A class of statistics with asymptotically normal distribution"); of N runs before and M
    after no more than min(N, M) of them. The interval is Jeffreys' for that many: it errs towards
    too wide.

    Examples
    --------
    Of three runs two agree, and either differs from the third on half of the queries.

    >>> print(pass_chance(PairGate(0.1, None), [[0, 0], [0, 0], [0, 1]]))
    0.333 [0.017, 0.915]
    """
    if after is None:
        passed = gate.passes(before, before, gold)[~np.eye(len(before), dtype=bool)]
        independent = len(before) / 2
        runs = len(before)
    else:
        passed = gate.passes(before, after, gold)
        independent = runs = min(passed.shape)
    share = float(passed.mean())
    low, high = jeffreys(share * independent, independent)
    return Interval(share, float(low), float(high), runs)


@dataclass(frozen=True)
class Pair:
    """One model beside another: what changed, and the test of whether both are equally accurate."""

    before: str
    after: str
    churn: float
    positive_flips: float | None = None
    negative_flips: float | None = None
    mcnemar_p: float | None = None


def pairs_of(before, after, gold, names: Sequence[Sequence[object]], own: bool) -> tuple[Pair, ...]:
    """Each run before beside the run after of the same name; beside all of them where not `own`."""
    pairs = []
    for old_name, old in zip(names[0], before, strict=True):
        for new_name, new in zip(names[1], after, strict=True):
            if own and old_name != new_name:
                continue
            parts = {"churn": float(np.mean(old != new))}
            if gold is not None:
                parts = {name: float(flip.mean()) for name, flip in flips(old, new, gold).items()}
                parts["mcnemar_p"] = mcnemar(old, new, gold)
            pairs.append(Pair(str(old_name), str(new_name), **parts))
    return tuple(pairs)


def confidence_of(answers) -> np.ndarray | None:
    """Probability of each answer (runs, examples), of `Predictions` or `Runs`; None: not known."""
    probabilities = getattr(answers, "probabilities", None)
    if probabilities is None:
        return getattr(answers, "confidence", None)
    return np.asarray(probabilities).max(axis=2)


def decisions(confidence, threshold: float) -> np.ndarray:
    """1 where a model answers, 0 where it is less sure than the threshold: (runs, examples).

    Examples
    --------
    >>> decisions([[0.9, 0.6]], 0.7).tolist()
    [[1, 0]]
    """
    if not 0 <= threshold <= 1:
        raise InputError("threshold", threshold, "a confidence of 0 .. 1")
    return (np.asarray(confidence) >= threshold).astype(int)

"""What stability costs: every method, ensembles and linear models on one frontier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from stabutils.analysis import board
from stabutils.metrics import intervals
from stabutils.metrics.intervals import Interval
from stabutils.study.runs import Runs

COLUMNS = (
    "arm",
    "runs",
    "behind",
    "n",
    "trainings",
    "passes",
    "cpu_ratio",
    "reduction",
    "churn",
    "accuracy",
    "accuracy_change",
    "guard",
    "p",
    "better",
    "dominated",
    "linear_dominates",
)


def frontier(
    tables: list[pd.DataFrame],
    cpu_ratios: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every arm by what it costs and what it buys, the largest reduction first.

    Parameters
    ----------
    tables : boards of one control (`board.board`, `ensembles.table`); of an arm in several the last
        row counts, and their methods become one family for Holm's correction; the placebo, and
        anchored arms of weight 1, which are the linear model, are left out
    cpu_ratios : of an arm's training by control's, both on one kind of machine

    Returns
    -------
    `n`: runs that label entropy is quoted at; `guard`, `p`, `better` as on a board; `dominated`: a
    network, and `linear_dominates`: a linear model that costs no more and is significantly better
    in label entropy or accuracy, not significantly worse in the other, and not more than half a
    point less accurate ("" where there is none; where a table has `over_linear`, that decides
    whether an arm is the more accurate).
    """
    rows: dict[str, dict] = {}
    for table in tables:
        for row in table.to_dict("records"):
            if row["arm"] != "placebo":
                rows[row["arm"]] = {"n": table.attrs.get("n")} | row
    everything = pd.DataFrame(list(rows.values()))
    frame = pareto(board.with_verdicts(everything[~board.linear_alone(everything)]))
    ratios = cpu_ratios or {}
    frame["cpu_ratio"] = [ratios.get(arm, math.nan) for arm in frame.arm]
    return frame[[name for name in COLUMNS if name in frame]]


def pareto(table: pd.DataFrame, by: str = "reduction") -> pd.DataFrame:
    """A table with `dominated` and `linear_dominates`, the highest `by` first; linear models
    cost no training, and a pass only where they read an encoder's vectors.
    """
    table = table.copy()
    linear = table.arm.str.startswith(board.LINEAR)
    table["trainings"] = table.trainings.mask(linear, 0.0)
    table["passes"] = table.passes.mask(linear, table.arm.map(board.passes_of_linear))
    table["dominated"] = [_dominator(row, table[~linear], by) for _, row in table.iterrows()]
    table["linear_dominates"] = [
        "" if _beats_linear(row) else _dominator(row, table[linear], by)
        for _, row in table.iterrows()
    ]
    order = np.argsort([-_or_nothing(row[by], row).value for _, row in table.iterrows()])
    return table.iloc[order].reset_index(drop=True)


def _or_nothing(value: object, row: pd.Series) -> Interval:
    """An interval of a row; control's change from itself is nothing."""
    if isinstance(value, Interval):
        return value
    return Interval(0.0, 0.0, 0.0, int(row.runs), se=0.0)


def _dominator(row: pd.Series, others: pd.DataFrame, by: str) -> str:
    """The arm that dominates a row, of several the highest in `by`; "" if none does."""
    found = []
    for _, other in others.iterrows():
        cheap = other.trainings <= row.trainings and other.passes <= row.passes
        if other.arm != row.arm and cheap and _is_better(other, row, by):
            found.append((_or_nothing(other[by], other).value, other.arm))
    return max(found)[1] if found else ""


def _beats_linear(row: pd.Series) -> bool:
    """Whether an arm is significantly more accurate than every linear model, pair by pair."""
    lead = row.get("over_linear")
    return isinstance(lead, Interval) and lead.low > 0


def _is_better(one: pd.Series, other: pd.Series, by: str) -> bool:
    """Significantly better in `by` or in accuracy, and significantly worse in neither.

    Nor may its accuracy be lower by more than half a point (GUARD), significantly or not.
    """
    first, second = (
        [_or_nothing(row[name], row) for name in (by, "accuracy_change")] for row in (one, other)
    )
    signs = [significant_sign(own, its) for own, its in zip(first, second, strict=True)]
    lost = second[1].value - first[1].value  # of accuracy
    is_kept = lost <= board.GUARD + intervals.ROUNDING
    return max(signs) > 0 and min(signs) >= 0 and is_kept


def significant_sign(one: Interval, other: Interval, level: float = 0.05) -> int:
    """1 where one lies significantly above the other, -1 where below, else 0.

    The two are taken as independent. Arms of one board share control and queries, so the variance
    of their difference is smaller: this errs towards 0, so too often towards "not worse".

    Examples
    --------
    >>> high, low = (Interval(value, 0, 0, runs=5, se=0.1, df=20) for value in (1.0, 0.5))
    >>> significant_sign(high, low), significant_sign(low, high), significant_sign(low, low)
    (1, -1, 0)
    """
    gap, both = one.value - other.value, [one, other]
    if not np.isfinite([part.se for part in both]).all() or gap == 0:
        return 0
    known = [replace(part, df=1e9) if math.isnan(part.df) else part for part in both]
    difference = replace(intervals.crossed(known), value=gap)
    return int(np.sign(gap)) if difference.p_value() < level else 0


def choose(table: pd.DataFrame, trainings: float, passes: float) -> pd.DataFrame:
    """The rows of a frontier that can be recommended for a budget, the largest reduction first.

    Within so many trainings and passes, and only what is significantly more stable and keeps the
    accuracy (`better` holds). No row: nothing is recommended.
    """
    fits = (table.trainings <= trainings) & (table.passes <= passes) & (table.better == "holds")
    return table[fits].reset_index(drop=True)


def budgets(table: pd.DataFrame, trainings: Sequence[float]) -> pd.DataFrame:
    """What to choose for some numbers of trainings, with one pass an answer and with any number.

    Columns trainings, answer (in words), arm, passes, reduction, churn; no row where nothing
    passed.
    """
    rows = []
    for budget in trainings:
        for answer, passes in (("one pass", 1), ("any number of passes", math.inf)):
            found = choose(table, budget, passes)
            if len(found):
                own = found.iloc[0][["arm", "passes", "reduction", "churn"]].to_dict()
                rows.append({"trainings": budget, "answer": answer, **own})
    return pd.DataFrame(rows)


def cpu_ratio(control: Runs, runs: Runs) -> float:
    """CPU-seconds of an arm's training by control's on the same kind of processor; else nan."""
    if runs.processors is None or control.processors is None:
        return math.nan
    ratios = []
    for processor in np.unique(runs.processors[runs.processors != ""]):  # noted by nobody
        own = runs.cpu_seconds[runs.processors == processor]
        same = control.cpu_seconds[control.processors == processor]
        if len(same):
            ratios.append(own.mean() / same.mean())
    return float(np.mean(ratios)) if ratios else math.nan

"""What stability costs: every method, ensembles and linear models on one frontier."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
import pandas as pd

from stabutils.analysis import board
from stabutils.metrics import intervals
from stabutils.metrics.intervals import Interval
from stabutils.study.runs import Runs
from stabutils.study.study import Study

PLACEBO = "placebo"
COLUMNS = (
    "arm",
    "runs",
    "behind",
    "n",
    "trainings",
    "passes",
    "networks",
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
    networks: Mapping[str, int] | None = None,
    cpu_ratios: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every arm by what it costs and what it buys, the largest reduction first.

    Parameters
    ----------
    tables : boards of one control (`board.board`, `ensembles.table`); of an arm in several the last
        row counts, and their methods become one family for Holm's correction
    networks : how many an arm has to hold to answer, where that is not one
    cpu_ratios : of an arm's training by control's, both on one kind of machine

    Returns
    -------
    `n`: runs that label entropy is quoted at; `guard`, `p`, `better` as on a board; `dominated`: a
    network, and `linear_dominates`: a linear model that costs no more and is significantly better
    in label entropy or accuracy and not significantly worse in the other ("" where there is none).
    """
    rows: dict[str, dict] = {}
    for table in tables:
        for row in table.to_dict("records"):
            if row["arm"] != PLACEBO:
                rows[row["arm"]] = {"n": table.attrs.get("n")} | row
    frame = pd.DataFrame(list(rows.values()))
    free = frame.arm.str.startswith(board.LINEAR)
    frame.loc[free, ["trainings", "passes"]] = 0.0
    frame = board.with_verdicts(frame)
    sizes = networks or {}
    ratios = cpu_ratios or {}
    frame["networks"] = [sizes.get(arm, max(1, size)) for arm, size in _sizes(frame)]
    frame["cpu_ratio"] = [ratios.get(arm, math.nan) for arm in frame.arm]
    linear = frame.arm.str.startswith(board.LINEAR)
    frame["dominated"] = [_dominator(row, frame[~linear]) for _, row in frame.iterrows()]
    frame["linear_dominates"] = [_dominator(row, frame[linear]) for _, row in frame.iterrows()]
    frame = frame.iloc[np.argsort([-_reduction(row).value for _, row in frame.iterrows()])]
    columns = [name for name in COLUMNS if name in frame]
    return frame[columns].reset_index(drop=True)


def _sizes(frame: pd.DataFrame) -> list[tuple[str, int]]:
    sizes = frame["size"] if "size" in frame else pd.Series(np.nan, index=frame.index)
    return [
        (arm, int(size) if size == size else 1) for arm, size in zip(frame.arm, sizes, strict=True)
    ]


def _reduction(row: pd.Series) -> Interval:
    """Of a row; control's is nothing."""
    if isinstance(row.reduction, Interval):
        return row.reduction
    return Interval(0.0, 0.0, 0.0, int(row.runs), se=0.0)


def _accuracy_change(row: pd.Series) -> Interval:
    if isinstance(row.accuracy_change, Interval):
        return row.accuracy_change
    return Interval(0.0, 0.0, 0.0, int(row.runs), se=0.0)


def _dominator(row: pd.Series, others: pd.DataFrame) -> str:
    """The arm that dominates a row, of several that of the largest reduction; "" if none does."""
    found = []
    for _, other in others.iterrows():
        cheap = other.trainings <= row.trainings and other.passes <= row.passes
        if other.arm != row.arm and cheap and _is_better(other, row):
            found.append((_reduction(other).value, other.arm))
    return max(found)[1] if found else ""


def _is_better(one: pd.Series, other: pd.Series) -> bool:
    """Significantly better in label entropy or accuracy, and significantly worse in neither."""
    signs = [
        significant_sign(_reduction(one), _reduction(other)),
        significant_sign(_accuracy_change(one), _accuracy_change(other)),
    ]
    return max(signs) > 0 and min(signs) >= 0


def significant_sign(one: Interval, other: Interval, level: float = 0.05) -> int:
    """1 where one lies significantly above the other, -1 where below, else 0.

    The two are taken as independent. Arms of one board share control and queries, so the variance
    of their difference is smaller: this errs towards 0.

    Examples
    --------
    >>> high, low = (Interval(value, 0, 0, runs=5, se=0.1, df=20) for value in (1.0, 0.5))
    >>> significant_sign(high, low), significant_sign(low, high), significant_sign(low, low)
    (1, -1, 0)
    """
    gap = one.value - other.value
    parts = np.array([one.se, other.se]) ** 2
    if not np.isfinite(parts).all() or gap == 0:
        return 0
    if not parts.any():
        return int(np.sign(gap))
    degrees = np.array([part.df if math.isfinite(part.df) else math.inf for part in (one, other)])
    spread = np.sum(parts**2 / degrees)
    df = parts.sum() ** 2 / spread if spread else math.inf
    difference = intervals.from_variance(gap, parts.sum(), min(df, 1e9), one.runs)
    return int(np.sign(gap)) if difference.p_value() < level else 0


def choose(
    table: pd.DataFrame, trainings: float, passes: float, churn: float = 1.0
) -> pd.DataFrame:
    """The rows of a frontier that can be recommended for a budget, the largest reduction first.

    Within so many trainings and passes, with at most so much churn, and only what is significantly
    more stable and keeps the accuracy (`better` holds). No row: nothing is recommended.
    """
    fits = (table.trainings <= trainings) & (table.passes <= passes) & (table.better == "holds")
    low = np.array([interval.value <= churn for interval in table.churn], bool)
    return table[fits & low].reset_index(drop=True)


def cpu_ratio(control: Runs, runs: Runs) -> float:
    """CPU-seconds of an arm's training by control's on the same kind of processor; else nan."""
    ratios = []
    for processor in np.unique(runs.processors):
        own = runs.cpu_seconds[runs.processors == processor]
        same = control.cpu_seconds[control.processors == processor]
        if len(same):
            ratios.append(own.mean() / same.mean())
    return float(np.mean(ratios)) if ratios else math.nan


def latency(study: Study, queries: int = 50) -> float:
    """Milliseconds of one core that control's network takes to answer a query.

    The median over test queries, one at a time.
    """
    import torch

    from stabutils.training.loop import predict
    from stabutils.training.state import Stream

    with Stream("init", study.seed):  # what the weights are does not matter for the time
        network = study.task.build()
    seconds = []
    for row in range(min(queries, len(study.data.test))):
        began = time.process_time()
        predict(network, study.task.test.take(torch.tensor([row])), study.task.recipe)
        seconds.append(time.process_time() - began)
    return 1000 * float(np.median(seconds))

"""What stability costs: ensembles of independent runs, the gold standard, and every method on one frontier.

What is said of ensembles is the mean over many random partitions of a pool of runs into replicas that share no member.
Its interval leaves out a whole group of runs at a time, and it is compared with single runs of the same pool at the
same number of votes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pandas as pd

from stabutils.analysis.board import better
from stabutils.analysis.ensembles import _decided
from stabutils.metrics.intervals import Interval, holm
from stabutils.study.runs import Runs
from stabutils.study.study import Study

# ------------------------------------------------------------------------------------------------------- frontier


def frontier(
    control: Runs,
    ensembles: pd.DataFrame,
    board: pd.DataFrame | None = None,
    seconds: Mapping[str, float] | None = None,
    networks: Mapping[str, int] | None = None,
    latency: float = np.nan,
) -> pd.DataFrame:
    """Every method by what it costs and what it buys, the one that takes most label entropy away first.

    ensembles: of `measured`; board: of `board.board` (its placebo is left out). Columns: arm; trainings, passes and
    networks held to answer, of control's; cpu_seconds of its training (`seconds` by arm; that of ensembles from
    control's); latency of one query (of control's `latency` by the passes, in its unit); reduction, churn and
    accuracy_change (Intervals), guard; p (Holm's, over the methods) and better as on a board; dominated: the name of
    another retrained arm that costs no more trainings and passes, takes no less away and answers no worse, one of them
    strictly; "" else. By the values, not beyond doubt.
    """
    own = float(control.cpu_seconds.mean())
    nothing = Interval(0.0, 0.0, 0.0, len(control), se=0.0)
    rows = [
        {**row, "networks": row["trainings"], "cpu_seconds": row["size"] * own}
        for row in ensembles.to_dict("records")
    ]
    for row in () if board is None else board[board.arm != "placebo"].to_dict("records"):
        alone = {"trainings": 0.0, "passes": 0.0} if row["arm"] == "convex" else {}
        if row["arm"] == "control":
            alone = {"reduction": nothing, "accuracy_change": nothing, "guard": "holds"}
        rows.append(
            {
                **row,
                **alone,
                "networks": (networks or {}).get(row["arm"], 1),
                "cpu_seconds": {"control": own, **(seconds or {})}.get(row["arm"], np.nan),
            }
        )
    table = pd.DataFrame(rows)
    table["latency"] = table.passes.where(table.arm != "convex") * latency
    tried = ~table.arm.isin(["control", "convex"])
    table.loc[tried, "p"] = holm([interval.p_value() for interval in table.reduction[tried]])
    table["better"] = [
        _decided(row.reduction, better(row.reduction, row.p, row.guard))
        if np.isfinite(row.p)
        else {"convex": row.guard}.get(row.arm, "")
        for row in table.itertuples()
    ]
    retrained = table.arm != "convex"
    table["dominated"] = (
        pd.Series(dominated(table[retrained]), table.index[retrained])
        .reindex(table.index)
        .fillna("")
    )
    columns = [
        "arm",
        "trainings",
        "passes",
        "networks",
        "cpu_seconds",
        "latency",
        "n",
        "reduction",
        "churn",
        "accuracy_change",
        "guard",
        "p",
        "better",
        "dominated",
    ]
    order = sorted(table.index, key=lambda i: -table.reduction[i].value)
    return table.loc[order, columns].reset_index(drop=True)


def dominated(table: pd.DataFrame) -> list[str]:
    """For each row the name of one that is no worse in trainings, passes, reduction and accuracy_change and better in
    one of them, or "": of several the one that takes most away."""
    found = []
    points = np.column_stack(
        [
            -table.trainings,
            -table.passes,
            [i.value for i in table.reduction],
            [i.value for i in table.accuracy_change],
        ]
    ).astype(float)
    for own in points:
        over = np.flatnonzero((points >= own).all(axis=1) & (points > own).any(axis=1))
        found.append(table.arm.iloc[over[points[over, 2].argmax()]] if len(over) else "")
    return found


def choose(
    table: pd.DataFrame, trainings: float, passes: float, churn: float = 1.0
) -> pd.DataFrame:
    """The rows of a frontier within a budget of trainings and of passes and with at most so much churn, without those
    whose accuracy is lower beyond doubt: the one that takes most away first. No row: nothing will do."""
    fits = (
        (table.trainings <= trainings) & (table.passes <= passes) & (table.guard != "does not hold")
    )
    return table[fits & np.array([i.value <= churn for i in table.churn])].reset_index(drop=True)


def latency(study: Study, queries: int = 50) -> float:
    """Milliseconds of one core that control's network takes to answer a query: the median over test queries, one at a
    time."""
    import torch

    from stabutils.training.loop import predict
    from stabutils.training.state import Stream

    with Stream("init", study.seed):  # what the weights are does not matter for the time
        network, found = study.task.build(), []
    for row in range(min(queries, len(study.data.test))):
        began = time.process_time()
        predict(network, study.task.test.take(torch.tensor([row])), study.task.recipe)
        found.append(time.process_time() - began)
    return 1000 * float(np.median(found))

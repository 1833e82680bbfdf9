"""What stability costs: methods against their training cost, and what a budget buys."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stabutils.analysis.board import LINEAR
from stabutils.figures.marks import (
    label_points,
    legend_below,
    legend_of_marks,
    log_ticks,
    spans,
    whiskers,
)
from stabutils.figures.theme import BLUE, GREY, LOOKS, RED, RULE, short

MOST_NAMED = 9  # networks of a figure
FREE = 0.25  # where a cost of 0 stands on the logarithmic axis
COSTS = (0.5, 1, 2, 3, 5, 10, 20, 50, 100)
COST = "training cost, in runs of control (linear models not counted; equal costs side by side)"
PASSES = {"one pass an answer": "o", "up to five passes": "s", "more passes": "D"}
OPTIMAL = {"color": BLUE, "marker": "o"}
OTHER = {"color": GREY, "marker": "o", "markerfacecolor": "white"}
SEED_FREE = {"color": RED, "marker": "^"}


def frontier(table: pd.DataFrame, named: Sequence[str] = ()) -> Figure:
    """What each arm saves against what its training costs; the mark says passes for an answer.

    Filled: networks that are significantly more stable than control and Pareto-optimal among
    networks, by intervals. Triangles: linear models; the legend says how many networks they
    dominate. Named are nine of the networks that are significantly better than control, the
    Pareto-optimal ones first, then by reduction.

    Parameters
    ----------
    table : of `analysis.frontier.frontier`
    named : further arms to name
    """
    rows = table[table.reduction.notna() & (table.arm != "control")]
    better = rows.better == "holds"
    rows = rows.assign(optimal=better & (rows.dominated == ""))
    figure, axis = plt.subplots(figsize=(10, 6))
    rows = _against_cost(figure, axis, rows, "reduction")
    axis.axhline(0, **RULE)
    axis.set(ylabel="reduction of label entropy, % of control's")
    ranked = rows[better].sort_values(["optimal", "height"], ascending=False)
    _name(axis, rows, ranked, named)
    return figure


def updates_frontier(table: pd.DataFrame) -> Figure:
    """What an update changes against what it costs to train: further down is better.

    Filled: Pareto-optimal networks, by intervals. Triangles: linear models. Named are control and
    the first networks, Pareto-optimal ones first, then the lowest.

    Parameters
    ----------
    table : of `analysis.updates.table`, with what `analysis.frontier.pareto` adds
    """
    figure, axis = plt.subplots(figsize=(10, 5.4))
    rows = table.assign(optimal=table.dominated == "")
    rows = _against_cost(figure, axis, rows, "churn")
    axis.set(ylabel="churn (% of queries), one update")
    axis.set_ylim(0, None)
    ranked = rows.sort_values(["optimal", "height"], ascending=[False, True])
    _name(axis, rows, ranked, ("control",))
    return figure


def _against_cost(figure: Figure, axis: Axes, rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Draws arms, those of one cost side by side; returns them with where they stand."""
    height, low, high = spans(rows[measure], 100)
    rows = rows.assign(height=height, across=np.maximum(rows.trainings.astype(float), FREE))
    linear = rows.arm.str.startswith(LINEAR)
    groups = rows.groupby("across").height
    rows["across"] *= 1.3 ** ((groups.rank("first") - 0.5) / groups.transform("size") - 0.5)
    axis.vlines(rows.across, low, np.minimum(high, 110), color=GREY, linewidth=1)
    for row in rows.itertuples():
        mark = list(PASSES.values())[sum((row.passes > 1, row.passes > 5))]
        look = (OPTIMAL if row.optimal else OTHER) | {"marker": mark}
        if row.arm.startswith(LINEAR):
            look = SEED_FREE
        axis.plot(row.across, row.height, **look, markersize=7)
    ticks = [FREE, *(cost for cost in COSTS if cost <= max(10, rows.across.max()))]
    log_ticks(axis, ticks)
    axis.set_xticks(ticks, [0, *ticks[1:]])
    axis.axvspan(0.7 * FREE, 1.4 * FREE, color=GREY, alpha=0.12, linewidth=0)
    axis.set(xlabel=COST, xlim=(0.7 * FREE, 1.3 * max(ticks[-1], rows.across.max())))
    axis.grid(False)
    beaten = rows.linear_dominates[~linear] != ""
    looks = {
        "Pareto-optimal network": OPTIMAL,
        "other network": OTHER,
        f"linear model (dominates {beaten.sum()} of {len(beaten)} networks)": SEED_FREE,
    }
    looks |= {name: OTHER | {"color": "black", "marker": mark} for name, mark in PASSES.items()}
    legend_of_marks(figure, looks)
    return rows


def _name(axis: Axes, rows: pd.DataFrame, ranked: pd.DataFrame, named: Sequence[str]) -> None:
    """Name linear models, the arms in `named`, and the first networks of the ranking.

    Linear models of one height share a label, a line each, with their changes of accuracy.
    """
    linear = rows[rows.arm.str.startswith(LINEAR)]
    networks = ranked[~ranked.arm.str.startswith(LINEAR)][:MOST_NAMED]
    networks = pd.concat([rows[rows.arm.isin(named)], networks]).drop_duplicates("arm")
    labels = []
    for height, equal in linear.groupby("height"):
        names = [
            f"{row.arm}: accuracy {100 * row.accuracy_change.value:+.1f} points"
            for row in equal.itertuples()
        ]
        labels.append(("\n".join(names), equal.across.max(), height))
    labels += networks[["arm", "across", "height"]].itertuples(index=False, name=None)
    points = np.array([point for _, *point in labels], float).reshape(-1, 2)
    label_points(axis, [name for name, *_ in labels], points)


def budgets(best: pd.DataFrame) -> Figure:
    """The best that a budget buys: its reduction of label entropy, and the arm where it changes.

    Parameters
    ----------
    best : columns `trainings` (the budget), `answer` (which passes are allowed: a line each),
        `arm`, and the interval `reduction`
    """
    figure, axis = plt.subplots(figsize=(8, 4))
    budget = best.trainings.rank(method="dense") - 1
    best = best.assign(height=spans(best.reduction, 100)[0], across=budget)
    lines = best.groupby("answer", sort=False)
    for (answer, rows), look, shift in zip(lines, LOOKS, (-0.06, 0.06), strict=False):
        best.loc[rows.index, "across"] += shift
        look = look | {"linestyle": "-", "linewidth": 1, "label": short(answer)}
        whiskers(axis, rows.across + shift, rows.reduction, scale=100, **look)
    axis.set_xticks(np.unique(budget), [f"{cost:g}" for cost in np.unique(best.trainings)])
    axis.set(xlabel="budget, in runs of control", ylabel="reduction of label entropy (%)")
    axis.margins(x=0.15, y=0.15)
    axis.set_ylim(min(0, axis.get_ylim()[0]), None)
    legend_below(figure, axis)
    fresh = best[best.arm != lines.arm.shift()].drop_duplicates(["trainings", "arm"])
    label_points(axis, list(fresh.arm), fresh[["across", "height"]].to_numpy())
    return figure

"""Every plot of the study, one style. Functions take arrays and tables and return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stabutils.analysis.board import LINEAR
from stabutils.figures.methods import _named
from stabutils.figures.theme import BLUE, GREEN, GREY, ORANGE, RED
from stabutils.metrics.intervals import Interval


def votes(
    rows: Mapping[str, pd.DataFrame], model: Mapping[int, Sequence[float]], single: Interval
) -> Figure:
    """Label entropy against the members of an ensemble: measured (dots), and as odds and independent votes have it.

    rows: kind of ensemble -> table of `frontier.measured`, all at one n; model: members -> values of `vote_model`, one
    for each part of the runs that it was told of; single: of runs alone.
    """
    figure, axis = plt.subplots(figsize=(8, 3.8))
    low, high = ([end(values) for values in model.values()] for end in (min, max))
    axis.fill_between(
        list(model),
        low,
        high,
        color=GREY,
        alpha=0.4,
        linewidth=0,
        label="votes by each query's odds",
    )
    axis.errorbar(
        [1],
        [single.value],
        yerr=[[single.value - single.low], [single.high - single.value]],
        fmt="o",
        color="black",
        capsize=3,
        label="single runs",
    )
    for (name, table), colour, mark, aside in zip(
        rows.items(), (BLUE, GREEN, ORANGE), "osD", (1, 1.03, 0.97), strict=False
    ):
        value, down, up = (
            np.array([getattr(i, end) for i in table.label_entropy])
            for end in ("value", "low", "high")
        )
        axis.errorbar(
            aside * table["size"],
            value,
            yerr=[value - np.maximum(0, down), up - value],
            fmt=mark,
            color=colour,
            capsize=3,
            label=name,
        )
    every = sorted({1, *model, *(size for table in rows.values() for size in table["size"])})
    axis.set(xscale="log", xlabel="members", ylabel="label entropy (nats)", ylim=0)
    axis.set_xticks(every, every)
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure


def frontier(table: pd.DataFrame, most_named: int = 9) -> Figure:
    """What each arm saves against what its training costs; the marker: passes for an answer.

    Blue and named: significantly more stable than control and Pareto-optimal among the networks, by
    intervals. Triangles: linear models, which cost next to nothing and which no seed changes. Dashed:
    the ensemble of the largest reduction.

    Parameters
    ----------
    table : of `analysis.frontier.frontier`
    """
    rows = table[table.arm != "control"].sort_values(["trainings", "arm"])
    figure, axis = plt.subplots(figsize=(10, 5.6))
    price = rows.groupby("trainings")
    beside = (price.cumcount() + 0.5) / price.arm.transform("size")
    named: dict[str, tuple[float, float]] = {}
    ensembles = [0.0]
    for row, place in zip(rows.itertuples(), beside, strict=True):  # of one price side by side
        x = max(row.trainings, 0.6) * 1.2 ** (place - 0.5)
        y, low, high = 100 * np.array([row.reduction.value, row.reduction.low, row.reduction.high])
        linear, optimal = row.arm.startswith(LINEAR), row.better == "holds" and not row.dominated
        colour = RED if linear else BLUE if optimal else GREY
        marker, size = ("^", 120) if linear else (_marker(row.passes), 60)
        whisker = np.clip([low, high], -60, 110)
        axis.plot([x, x], whisker, color=colour, alpha=0.45, linewidth=1)
        axis.scatter([x], [y], s=size, color=colour, marker=marker, edgecolor="white", zorder=4)
        if linear:
            named[f"{row.arm}: {100 * row.accuracy_change.value:+.1f} points"] = x, y
        elif optimal and len(named) < most_named:
            named[row.arm] = x, y
        if row.arm.startswith("ensemble of"):
            ensembles.append(y)
    axis.axhline(max(ensembles), color=BLUE, linestyle="--", linewidth=1)
    axis.axhline(0, color="black", linestyle=":", linewidth=1)
    axis.set(xscale="log", xlabel="trainings (logarithmic; of one price side by side)")
    axis.set(ylabel="reduction of label entropy, % of control's")
    axis.set_xticks([0.6, 1, 2, 3, 5, 10], [0, 1, 2, 3, 5, 10])
    axis.minorticks_off()
    axis.grid(False)
    styles = (("o", BLUE), ("o", GREY), ("o", "black"), ("s", "black"), ("D", "black"))
    dots = [axis.plot([], [], mark, color=colour, linestyle="none")[0] for mark, colour in styles]
    words = ["Pareto-optimal network", "others", "one pass an answer", "up to five", "more"]
    place = {"loc": "outside lower center", "ncols": 5, "frameon": False, "fontsize": 9}
    figure.legend(dots, words, **place)
    _named(axis, named)
    return figure


def _marker(passes: float) -> str:
    return "o" if passes <= 1 else "s" if passes <= 5 else "D"


def budgets(best: pd.DataFrame) -> Figure:
    """The best that a budget buys: columns trainings (the budget), answer (which passes are allowed: a line each), arm,
    reduction (Interval)."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for (name, own), colour, mark, up in zip(
        best.groupby("answer"), (BLUE, ORANGE), "oD", (8, -14), strict=False
    ):
        value, low, high = (
            100 * np.array([getattr(i, end) for i in own.reduction])
            for end in ("value", "low", "high")
        )
        axis.errorbar(
            own.trainings,
            value,
            yerr=[value - low, high - value],
            fmt=f"{mark}-",
            color=colour,
            capsize=3,
            drawstyle="steps-post",
            label=name,
        )
        fresh = own.arm != own.arm.shift()
        for budget, top, arm in zip(
            own.trainings[fresh], value[fresh], own.arm[fresh], strict=True
        ):
            axis.annotate(
                arm, (budget, top), (4, up), textcoords="offset points", fontsize=9, color=colour
            )
    axis.axhline(0, color="black", linestyle=":", linewidth=1)
    axis.set(xscale="log", xlabel="budget of trainings", ylabel="reduction of label entropy (%)")
    axis.set_xticks(
        sorted(set(best.trainings)), [f"{budget:g}" for budget in sorted(set(best.trainings))]
    )
    axis.minorticks_off()
    axis.margins(x=0.2, y=0.15)
    axis.legend(frameon=False, loc="lower right")
    return figure


def selective(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Churn (left) and error (right) of the queries answered, where those of most doubt are refused; bands: intervals.

    curves: name -> table of `reliability.curve`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True)
    for axis, key in zip(axes, ("churn", "error"), strict=True):
        for (name, table), colour, mark in zip(
            curves.items(), (GREY, BLUE, ORANGE, GREEN), "osD^", strict=False
        ):
            value, low, high = (
                100 * np.array([getattr(i, end) for i in table[key]])
                for end in ("value", "low", "high")
            )
            axis.plot(100 * table.coverage, value, marker=mark, color=colour, label=name)
            axis.fill_between(
                100 * table.coverage, np.maximum(0, low), high, color=colour, alpha=0.2, linewidth=0
            )
        axis.set(xlabel="queries answered (%)", ylabel=f"{key} among them (%)", ylim=0)
    axes[0].legend(frameon=False)
    return figure

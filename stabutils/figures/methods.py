"""Every plot of the study, one style. Functions take arrays and tables and return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from stabutils.analysis.board import LINEAR
from stabutils.figures.theme import BLUE, GREY, ORANGE, RED, short
from stabutils.metrics.intervals import Interval


def trade_off(table: pd.DataFrame) -> Figure:
    """The board at a glance, a row an arm, largest reduction first.

    Left: reduction of label entropy; right: change of accuracy, both against control with their
    intervals. Blue: significantly more stable, accuracy kept. Linear models, which no seed changes,
    stand at the edge. Shaded: more accuracy lost than the half point that counts as kept.

    Parameters
    ----------
    table : a board with arm, reduction, accuracy_change, trainings and better
    """
    rows = table[table.reduction.notna() & (table.arm != "control")]
    order = np.argsort([-interval.value for interval in rows.reduction], kind="stable")
    rows = rows.iloc[order]
    linear = rows.arm.str.startswith(LINEAR).to_numpy()
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.27 * len(rows) + 1.7), sharey=True)
    colours = [_colour_of(row.arm, row.better) for row in rows.itertuples()]
    edge = _reductions(axes[0], rows, linear, colours)
    _whiskers(axes[1], rows.accuracy_change, colours)
    for axis in axes:
        axis.axvline(0, color="black", linestyle=":", linewidth=1)
    names = [short(_priced(row.arm, row.trainings), 46) for row in rows.itertuples()]
    axes[0].set(yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - 0.4, -0.6))
    axes[0].set(xlabel="reduction of label entropy, % of control's", xlim=edge)
    axes[1].set_xlim(min(-1.0, axes[1].get_xlim()[0]))
    axes[1].axvspan(axes[1].get_xlim()[0], -0.5, color=RED, alpha=0.08, linewidth=0)
    axes[1].set(xlabel="change of accuracy (points)")
    words = "Blue: significantly more stable, accuracy kept to half a point. In brackets: trainings"
    figure.supxlabel(words, fontsize=11)
    return figure


def _colour_of(arm: str, better: str):
    if arm.startswith(LINEAR):
        return RED
    if arm == "placebo":
        return ORANGE
    return BLUE if better == "holds" else GREY


def _priced(arm: str, trainings: float) -> str:
    """The name of an arm, with what it costs where that is not one training."""
    known = trainings == trainings and trainings != 1
    return f"{arm} ({trainings:.3g})" if known else arm


def _whiskers(axis: Axes, intervals: Sequence[Interval], colours: Sequence) -> None:
    """Values with their intervals in percent, a row each."""
    for place, (interval, colour) in enumerate(zip(intervals, colours, strict=True)):
        value, low, high = 100 * np.array([interval.value, interval.low, interval.high])
        ends = [[value - low], [high - value]]
        axis.errorbar([value], [place], xerr=ends, fmt="o", color=colour, capsize=3)


def _reductions(axis: Axes, rows: pd.DataFrame, linear: np.ndarray, colours: Sequence):
    """The left panel; returns its limits, at whose right end linear models stand."""
    ends = 100 * np.array([[each.low, each.high] for each in rows.reduction])
    right = max(ends[~linear, 1], default=100) + 4
    left = min([-2, *(ends[~linear, 0] - 2)])
    methods = rows.reduction.where(~linear)
    for place, (interval, colour) in enumerate(zip(methods, colours, strict=True)):
        if linear[place]:
            axis.plot([right], [place], ">", color=colour, markersize=10, clip_on=False)
            continue
        value, low, high = 100 * np.array([interval.value, interval.low, interval.high])
        whisker = [[value - low], [high - value]]
        axis.errorbar([value], [place], xerr=whisker, fmt="o", color=colour, capsize=3)
    return left, right


def soft_labels(
    soft: np.ndarray, labels: np.ndarray, texts: Sequence[str], names: Sequence[str], most: int = 4
) -> Figure:
    """What a teacher says of some texts, a bar each: its likeliest answers, the label as it stands in grey,
    all other answers hatched.

    soft (texts, classes), labels (texts,).
    """
    figure, axis = plt.subplots(figsize=(10, 0.42 * len(texts) + 1.0))
    shades = sns.light_palette(BLUE, most + 2)[::-1]
    for row, (share, label) in enumerate(zip(soft, labels, strict=True)):
        left = 0.0
        for rank, answer in enumerate(np.argsort(-share, kind="stable")[:most]):
            width, own = share[answer], answer == label
            axis.barh(row, width, left=left, color=GREY if own else shades[rank], edgecolor="white")
            if width > 0.12:
                axis.text(
                    left + width / 2,
                    row,
                    short(names[answer], max(4, int(75 * width))),
                    fontsize=9,
                    ha="center",
                    va="center",
                    color="black" if own or rank > 1 else "white",
                )
            left += width
        axis.barh(
            row, 1 - left, left=left, color="white", edgecolor=GREY, hatch="////", linewidth=0.3
        )
    axis.set(
        yticks=range(len(texts)),
        yticklabels=[short(text, 50) for text in texts],
        xlim=(0, 1),
        xlabel="probability that the teacher gave, mean over its training",
    )
    axis.invert_yaxis()
    return figure


def grid(cells: Mapping[tuple[float, float], Interval], down: str, across: str) -> Figure:
    """A number for each pair of settings, with its interval: a shade and a text a cell."""
    rows, columns = (sorted({place[axis] for place in cells}) for axis in (0, 1))
    values = np.array([[100 * cells[row, column].value for column in columns] for row in rows])
    words = [
        [
            f"{100 * i.value:.1f} %\n[{100 * i.low:.1f}, {100 * i.high:.1f}]"
            for i in (cells[row, column] for column in columns)
        ]
        for row in rows
    ]
    figure, axis = plt.subplots(figsize=(1.7 * len(columns) + 2.5, 0.9 * len(rows) + 1.2))
    reach = max(1.0, np.abs(values).max())
    shades = axis.imshow(values, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
    for row, line in enumerate(words):
        for column, text in enumerate(line):
            strong = abs(values[row, column]) > 0.7 * reach
            axis.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color="white" if strong else "black",
            )
    axis.set(
        xlabel=across,
        ylabel=down,
        xticks=range(len(columns)),
        xticklabels=[f"{column:g}" for column in columns],
        yticks=range(len(rows)),
        yticklabels=[f"{row:g}" for row in rows],
    )
    axis.spines[:].set_visible(False)
    axis.grid(False)
    figure.colorbar(shades, label="reduction of label entropy (%)")
    return figure


def dose_response(table: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Label entropy (above) and accuracy (below) on validation texts against strength, a column a method.

    table: of `tuning.choose`. Filled: the strength chosen. Line and band: control's value and interval.
    """
    control, count = table[table.method == "control"].iloc[0], len(methods)
    figure, axes = plt.subplots(
        2, count, figsize=(3.3 * count, 4.6), sharey="row", sharex="col", squeeze=False
    )
    for column, method in enumerate(methods):
        rows = table[table.method == method]
        places = np.arange(len(rows))
        for axis, name, scale, colour in zip(
            axes[:, column], ("label_entropy", "accuracy"), (1, 100), (ORANGE, BLUE), strict=True
        ):
            value, low, high = (
                scale * rows[f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high")
            )
            axis.axhspan(
                scale * control[f"{name}_low"],
                scale * control[f"{name}_high"],
                color=GREY,
                alpha=0.2,
                linewidth=0,
            )
            axis.axhline(scale * control[name], color="black", linestyle=":", linewidth=1)
            axis.errorbar(
                places,
                value,
                yerr=[value - low, high - value],
                color=colour,
                capsize=3,
                linewidth=1,
            )
            for place, picked in enumerate(rows.chosen):
                axis.plot(
                    [place],
                    value[[place]],
                    "o",
                    color=colour,
                    markerfacecolor=colour if picked else "white",
                )
        axes[0, column].set_title(method)
        axes[1, column].set(
            xticks=places,
            xticklabels=[f"{strength:g}" for strength in rows.strength],
            xlabel="strength",
            xlim=(-0.5, len(rows) - 0.5),
        )
    axes[0, 0].set(ylabel=f"LE@{control.n} (nats)", ylim=0)
    axes[1, 0].set(ylabel="accuracy (%)")
    return figure


def per_intent(table: pd.DataFrame) -> Figure:
    """Who pays: each intent by what a method does to its label entropy and its accuracy (area: examples).

    table: of `board.who_pays`. Named: those that lose and those that gain most accuracy, with their examples; red:
    harmed beyond doubt.
    """
    figure, axis = plt.subplots(figsize=(9, 4.6))
    x = np.array([interval.value for interval in table.label_entropy_change])
    y = 100 * np.array([interval.value for interval in table.accuracy_change])
    colours = [RED if harmed else BLUE for harmed in table.harmed]
    axis.scatter(x, y, s=10 + 1.5 * table.examples, c=colours, alpha=0.6, edgecolor="white")
    axis.axhline(0, color="black", linestyle=":", linewidth=1)
    axis.axvline(0, color="black", linestyle=":", linewidth=1)
    axis.set(
        xlabel="change of label entropy (nats); left: more stable",
        ylabel="change of accuracy (points)",
    )
    axis.margins(x=0.05)
    ends = [*range(min(6, len(table))), *range(max(6, len(table) - 2), len(table))]
    _named(
        axis,
        {
            f"{short(str(table.intent.iloc[row]), 30)} ({table.examples.iloc[row]})": (
                x[row],
                y[row],
            )
            for row in ends
            if y[row]
        },
    )
    return figure


def _named(axis: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names of points at the right of an axis, as near to the height of each as those of its neighbours let it be."""
    order = sorted(points, key=lambda name: points[name][1])
    heights = np.array(
        [
            axis.transAxes.inverted().transform(axis.transData.transform(points[name]))[1]
            for name in order
        ]
    )
    gap = min(1 / len(order), 15 / axis.bbox.height)
    steps = gap * np.arange(len(order))
    places = np.clip(isotonic_regression(heights - steps).x, 0, 1 - gap * (len(order) - 1)) + steps
    for name, place in zip(order, places, strict=True):
        axis.annotate(
            name,
            points[name],
            (1.05, place),
            fontsize=10,
            va="center",
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": GREY,
                "alpha": 0.5,
                "linewidth": 0.8,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )

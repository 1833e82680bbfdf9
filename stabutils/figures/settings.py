"""What answers do against a setting: strength of a method, length of training, noise, size."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stabutils.figures.marks import log_ticks, responses
from stabutils.figures.theme import BLUE, GREY, ORANGE, RULE, short

MOST_COLUMNS = 6  # of methods beside one another


def dose_response(table: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Label entropy (above) and accuracy (below) on validation against strength, a column a method.

    What does not fit beside the first six methods goes on below. Filled: the strength that was
    chosen. Line and band: control's value and interval. The axes do not begin at 0.

    Parameters
    ----------
    table : of `tuning.choose`
    """
    columns = min(len(methods), MOST_COLUMNS)
    blocks = -(-len(methods) // columns)
    size = min(3.3 * columns, 14), 4.6 * blocks
    figure, axes = plt.subplots(2 * blocks, columns, figsize=size, sharey="row", squeeze=False)
    above, below = axes[::2].ravel(), axes[1::2].ravel()
    for place, method in enumerate(methods):
        _doses(above[place], table, method, "label_entropy", 1, ORANGE)
        _doses(below[place], table, method, "accuracy", 100, BLUE)
        above[place].set_title(short(method))
        above[place].tick_params(labelbottom=False)
        below[place].set_xlabel("strength")
    for unused in (*above[len(methods) :], *below[len(methods) :]):
        unused.remove()
    for row in range(blocks):
        axes[2 * row, 0].set(ylabel=f"LE@{table.n.iloc[0]} (nats)")
        axes[2 * row + 1, 0].set(ylabel="accuracy (%)")
    return figure


def _doses(axis: Axes, table: pd.DataFrame, method: str, name: str, scale: float, colour) -> None:
    columns = [name, f"{name}_low", f"{name}_high"]
    usual, start, end = scale * table.loc[table.method == "control", columns].to_numpy()[0]
    axis.axhspan(start, end, color=GREY, alpha=0.2, linewidth=0)
    axis.axhline(usual, **RULE)
    rows = table[table.method == method]
    value, low, high = scale * rows[columns].to_numpy().T
    places = np.arange(len(rows))
    axis.errorbar(places, value, yerr=[value - low, high - value], color=colour, capsize=3)
    for chosen, face in ((~rows.chosen, "white"), (rows.chosen, colour)):
        axis.plot(places[chosen], value[chosen], "o", color=colour, markerfacecolor=face)
    axis.set_xticks(places, [f"{strength:g}" for strength in rows.strength])
    axis.set_xlim(-0.5, len(rows) - 0.5)


def lengths(table: pd.DataFrame, usual: float) -> Figure:
    """Label entropy and accuracy over epochs of training, each length with its own schedule.

    Parameters
    ----------
    table : columns epochs, runs, n, and the intervals label_entropy and accuracy
    usual : epochs of control, at the dotted line
    """
    words, measures = "epochs of training (of how many runs)", ("label_entropy", "accuracy")
    figure = responses(table.assign(arm="control"), "epochs", words, measures)
    names = [f"{row.epochs:g}\n({row.runs})" for row in table.itertuples()]
    for axis in figure.axes:
        axis.axvline(usual, **RULE)
        log_ticks(axis, table.epochs)
        axis.set_xticks(table.epochs, names, fontsize=8)
    left = figure.axes[0]
    left.set_ylabel(f"LE@{table.n.iloc[0]} (nats)")
    left.text(usual, left.get_ylim()[1], " control", va="top", fontsize=9)
    return figure


def learning(curves: pd.DataFrame, reference: float) -> Figure:
    """Accuracy on validation texts over CPU-seconds: a thin line a seed, a thick one their mean.

    Parameters
    ----------
    curves : columns way, seed, seconds, accuracy
    reference : the accuracy of the dotted line
    """
    figure, axis = plt.subplots(figsize=(8, 3.6))
    curves = curves.assign(percent=100 * curves.accuracy)
    curves["look"] = curves.groupby(["way", "seed"]).cumcount()
    ways = curves.groupby("way", sort=False)
    for (way, rows), colour, dashes in zip(ways, (GREY, BLUE), ("--", "-"), strict=False):
        for _, run in rows.groupby("seed"):
            axis.plot(run.seconds, run.percent, color=colour, linewidth=0.6, alpha=0.5)
        mean = rows.groupby("look")[["seconds", "percent"]].mean()
        look = {"color": colour, "linestyle": dashes, "linewidth": 2.5, "label": short(way)}
        axis.plot(mean.seconds, mean.percent, **look)
    axis.axhline(100 * reference, **RULE)
    axis.set(xscale="log", xlabel="CPU-seconds of one thread")
    axis.set_ylabel("accuracy on validation texts (%)")
    axis.legend(loc="lower right")
    return figure


def noise_response(table: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Measures against the label noise planted in training, a line an arm.

    Parameters
    ----------
    table : columns `arm`, `noise` (share of training labels that were changed), and the measures as
        intervals
    """
    figure = responses(table, "noise", "training labels changed (%)", measures, scale=100)
    figure.axes[0].set_xticks(100 * np.unique(table.noise))
    return figure

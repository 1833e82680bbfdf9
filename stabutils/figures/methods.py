"""What methods do: boards at a glance, what a teacher says, grids of settings, and who pays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy import ndarray

from stabutils.analysis.board import LEVEL, LINEAR
from stabutils.figures.marks import (
    label_points,
    legend_below,
    legend_of_marks,
    name_rows,
    spans,
    whiskers,
)
from stabutils.figures.theme import BLUE, GREY, LOOKS, ORANGE, RED, RULE, short
from stabutils.metrics.intervals import GUARD, Interval

LIKELIEST = 4  # answers of a teacher that are drawn apart
FLOORS = {"reduction": -50, "accuracy_change": -3}  # percent: what is worse stands at the edge
HOLLOW = {"color": GREY, "marker": "o", "markerfacecolor": "white"}
SHADED = {"color": RED, "marker": "s", "alpha": 0.15}
KINDS = {  # of rows in `trade_off`
    "significantly more stable, accuracy kept to half a point": {"color": BLUE, "marker": "o"},
    "not so, or undecided": HOLLOW,
    "placebo": {"color": ORANGE, "marker": "s"},
    "linear model, which no seed changes": {"color": RED, "marker": "^"},
}


def trade_off(table: pd.DataFrame) -> Figure:
    """The board at a glance, a row an arm, largest reduction first.

    Left: reduction of label entropy; right: change of accuracy, both against control with their
    intervals. Filled: significantly more stable, accuracy kept. Linear models, and what is far
    worse than the others, stand at the edge with their number. Shaded: more accuracy lost than the
    half point that counts as kept.

    Parameters
    ----------
    table : a board with arm, reduction, accuracy_change, trainings and better
    """
    rows = table[table.reduction.notna() & (table.arm != "control")]
    order = np.argsort(-spans(rows.reduction)[0], kind="stable")
    rows = rows.iloc[order]
    kinds = list(map(_kind, rows.arm, rows.better))
    size = (10, 0.27 * len(rows) + 1.7)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True)
    linear = rows.arm.str.startswith(LINEAR).to_numpy()
    _panel(left, rows.reduction, kinds, FLOORS["reduction"], " %", linear)
    _panel(right, rows.accuracy_change, kinds, FLOORS["accuracy_change"], " points")
    name_rows(left, list(map(_priced, rows.arm, rows.trainings)), 50)
    left.set(xlabel="reduction of label entropy, % of control's")
    start, end = right.get_xlim()
    right.axvspan(min(-1, start), -100 * GUARD, color=RED, alpha=0.08, linewidth=0)
    right.set(xlabel="change of accuracy (points)", xlim=(min(-1, start), end))
    looks = {kind: look for kind, look in KINDS.items() if kind in kinds}
    legend_of_marks(figure, looks | {"shaded: more than half a point of accuracy lost": SHADED})
    return figure


def _kind(arm: str, better: str) -> str:
    good, other, placebo, linear = KINDS
    if arm.startswith(LINEAR):
        return linear
    if arm == "placebo":
        return placebo
    return good if better == "holds" else other


def _priced(arm: str, trainings: float) -> str:
    """The name of an arm, with its cost where that is not one training."""
    known = trainings == trainings and trainings not in (0, 1)
    return f"{arm}, cost ×{trainings:.3g}" if known else arm


def _panel(
    axis: Axes,
    intervals: Sequence[Interval],
    kinds: Sequence[str],
    floor: float,
    unit: str,
    at_edge: ndarray | bool = False,
) -> None:
    """Values with their intervals in percent, a row each; some at the edge, with their number."""
    value, low, high = spans(intervals, 100)
    outside = at_edge | (value < floor)
    ends = np.concatenate([np.maximum(low[~outside], floor), high[~outside], [0]])
    pad = 0.05 * max(np.ptp(ends), 1)
    edges = ends.min() - pad, ends.max() + pad
    for place, (interval, kind) in enumerate(zip(intervals, kinds, strict=True)):
        look = KINDS[kind]
        if outside[place]:
            side = int(value[place] > 0)
            edge, offset = (edges[side], place), (10 - 20 * side, 0)
            axis.plot(*edge, "<>"[side], color=look["color"], clip_on=False)
            beside = {"textcoords": "offset points", "va": "center", "fontsize": 9}
            words = f"{round(value[place], 1):g}{unit}"
            axis.annotate(words, edge, offset, **beside, ha=("left", "right")[side])
        else:
            whiskers(axis, [place], [interval], scale=100, across=True, **look)
    axis.axvline(0, **RULE)
    axis.grid(False, axis="y")
    axis.set_xlim(*edges)


def soft_labels(
    soft: ndarray, labels: ndarray, texts: Sequence[str], names: Sequence[str]
) -> Figure:
    """What a teacher says of some texts, a bar each: its likeliest answers from left to right.

    All but four are hatched together. An answer's name is left out where its part of the bar is too
    narrow.

    Parameters
    ----------
    soft : (texts, classes), probabilities
    labels : (texts,), as they stand in the training set
    names : of the classes
    """
    figure, axis = plt.subplots(figsize=(11, 0.52 * len(texts) + 1.4))
    name_rows(axis, texts, 42)
    axis.set(xlim=(0, 1), xlabel="probability that the teacher gave, mean over its training")
    shades = sns.light_palette(BLUE, LIKELIEST + 2)[::-1]
    rest = {"facecolor": "white", "edgecolor": GREY, "hatch": "////", "linewidth": 0.3}
    axis.barh(range(len(texts)), 1, **rest)
    label = {"facecolor": ORANGE, "edgecolor": "black", "linewidth": 1.5}
    words = ["the label in the training set", "other answers", "all answers that are not drawn"]
    legend_below(figure, handles=[Patch(**label), Patch(color=BLUE), Patch(**rest)], labels=words)
    figure.draw_without_rendering()  # settles how wide a name may be
    for row, shares in enumerate(soft):
        left = 0.0
        for answer, shade in zip(
            np.argsort(-shares, kind="stable")[:LIKELIEST], shades, strict=False
        ):
            look = label if answer == labels[row] else {"facecolor": shade, "edgecolor": "white"}
            [bar] = axis.barh(row, shares[answer], left=left, **look)
            _fitted(axis, short(names[answer], 60), bar)
            left += shares[answer]
    return figure


def _fitted(axis: Axes, name: str, bar: Rectangle) -> None:
    """A name inside a bar, on several lines if need be, or not at all."""
    ink = "black" if np.dot(bar.get_facecolor()[:3], (0.3, 0.6, 0.1)) > 0.5 else "white"
    place = bar.get_center()
    text = axis.text(*place, name, fontsize=8, ha="center", va="center", color=ink, zorder=5)
    room = bar.get_window_extent().size - 4
    for _ in range(2):
        if np.all(text.get_window_extent().size < room):
            return
        text.set_text(name.replace("_", "_\n").replace(" ", "\n"))
    text.remove()


def across_studies(table: pd.DataFrame) -> Figure:
    """Churn of each method, with a mark for every study that has it.

    Parameters
    ----------
    table : columns `arm` (a row each, in their order, top down), `study` (in the order of its
        categories, or of the alphabet) and, as an interval, `churn`
    """
    arms, studies = list(dict.fromkeys(table.arm)), pd.Categorical(table.study).categories
    figure, axis = plt.subplots(figsize=(8, 0.46 * len(arms) + 1.4))
    shifts = 0.56 * (np.arange(len(studies)) + 0.5) / len(studies) - 0.28
    for study, look, shift in zip(studies, cycle(LOOKS), shifts, strict=False):
        own = table[table.study == study]
        places = shift + np.array([arms.index(arm) for arm in own.arm])
        whiskers(axis, places, own.churn, scale=100, across=True, label=short(study), **look)
    name_rows(axis, arms)
    axis.set(xlabel="churn (% of queries)")
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    legend_below(figure, axis)
    return figure


def per_intent(table: pd.DataFrame) -> Figure:
    """Who pays: each intent by what a method does to its label entropy and to its accuracy.

    Area: examples. Intents whose accuracy changes significantly are triangles that point there,
    named with their number of examples; the title counts them, also where there are none.

    Parameters
    ----------
    table : of `analysis.board.who_pays`
    """
    across, up = spans(table.label_entropy_change)[0], spans(table.accuracy_change, 100)[0]
    significant = (table.p < LEVEL).to_numpy()
    kinds = {"less": significant & (up < 0), "more": significant & (up > 0), "": ~significant}
    sizes = (10 + 300 * table.examples / table.examples.max()).to_numpy(float)
    figure, axis = plt.subplots(figsize=(9, 4.8))
    looks = (RED, "v"), (BLUE, "^"), (GREY, "o")
    for here, (colour, mark) in zip(kinds.values(), looks, strict=True):
        look = {"color": colour, "marker": mark, "alpha": 0.6, "edgecolor": "white"}
        axis.scatter(across[here], up[here], s=sizes[here], **look)
        if colour != GREY:
            look = {"color": colour, "marker": "", "linewidth": 1}
            whiskers(axis, across[here], table.accuracy_change[here], scale=100, **look)
    axis.axhline(0, **RULE)
    axis.axvline(0, **RULE)
    axis.set(xlabel="change of label entropy (nats); left: more stable")
    axis.set(ylabel="change of accuracy (points)")
    axis.margins(x=0.12, y=0.12)
    less, more = (kinds[kind].sum() or "none" for kind in ("less", "more"))
    words = f"{len(table)} intents: {less} less accurate, {more} more accurate"
    axis.set_title(f"{words} (Holm-adjusted p < {LEVEL:g})", fontsize=11)
    names = [f"{row.intent} ({row.examples})" for row in table[significant].itertuples()]
    label_points(axis, names, np.stack([across, up], axis=1)[significant])
    return figure

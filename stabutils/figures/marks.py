"""What figures share: whiskers, bands, scales, and labels that keep clear of one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy import ndarray
from numpy.typing import ArrayLike

from stabutils.errors import InputError
from stabutils.figures.theme import DASHES, GREY, LOOKS, short
from stabutils.metrics.intervals import Interval

ANY = (-np.inf, np.inf)
MEASURES = {  # words of an axis, and by what its numbers are multiplied
    "accuracy": ("accuracy (%)", 100),
    "churn": ("churn (% of queries)", 100),
    "error": ("error (%)", 100),
    "label_entropy": ("label entropy (nats)", 1),
    "served_churn": ("churn, to abstain being an answer (%)", 100),
}
WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
GAPS = (8, 13, 21, 34, 50, 72)  # pixels from a point to its label
LIGHT = 190  # of 255: what is lighter, such as a grid, may lie behind a label
LEADER = {
    "arrowstyle": "-",
    "color": GREY,
    "linewidth": 0.8,
    "linestyle": ":",
    "shrinkA": 0,
    "shrinkB": 4,
}


def spans(
    intervals: Iterable[Interval | None], scale: float = 1, limits: tuple[float, float] = ANY
) -> ndarray:
    """Values, lower and upper ends, (3, intervals): cut at `limits`, then times `scale`.

    Nan where there is no interval.

    Examples
    --------
    >>> spans([Interval(0.5, 0.2, 1.2, runs=3), None], 100, limits=(0, 1)).T.tolist()
    [[50.0, 20.0, 100.0], [nan, nan, nan]]
    """
    rows = []
    for interval in intervals:
        ends = (np.nan,) * 3
        if isinstance(interval, Interval):
            ends = interval.value, interval.low, interval.high
        rows.append(ends)
    return scale * np.clip(np.array(rows, float).reshape(-1, 3).T, *limits)


def words_of(measure: str) -> tuple[str, float]:
    """What an axis says of a measure, and what its numbers are multiplied by.

    Examples
    --------
    >>> words_of("accuracy")
    ('accuracy (%)', 100)
    """
    if measure not in MEASURES:
        raise InputError("measure", measure, f"one of {', '.join(MEASURES)}")
    return MEASURES[measure]


def whiskers(
    axis: Axes,
    places: ArrayLike,
    intervals: Iterable[Interval | None],
    *,
    scale: float = 1,
    limits: tuple[float, float] = ANY,
    across: bool = False,
    **look,
) -> ndarray:
    """Values as marks with their intervals, upright or across; returns the values as drawn."""
    value, low, high = spans(intervals, scale, limits)
    ends = np.maximum(0, [value - low, high - value])
    look = LOOKS[0] | {"linestyle": "none", "capsize": 3} | look
    if across:
        axis.errorbar(value, places, xerr=ends, **look)
    else:
        axis.errorbar(places, value, yerr=ends, **look)
    return value


def bands(
    axis: Axes,
    lines: Mapping[str, tuple[ArrayLike, Iterable[Interval]]],
    scale: float = 1,
) -> None:
    """A line of values for each name, (places, intervals), and its intervals as a band."""
    for name, look, dashes in zip(lines, cycle(LOOKS), cycle(DASHES), strict=False):
        places, intervals = lines[name]
        value, low, high = spans(intervals, scale)
        axis.plot(places, value, **look, linestyle=dashes, label=short(name))
        axis.fill_between(places, low, high, color=look["color"], alpha=0.2, linewidth=0)


def responses(
    table: pd.DataFrame, setting: str, label: str, measures: Sequence[str], scale: float = 1
) -> Figure:
    """Measures against a setting, a panel each, a line an arm.

    Parameters
    ----------
    table : columns `arm`, the setting, and the measures as intervals
    label : of the setting, whose numbers are multiplied by `scale`
    """
    count = len(measures)
    size = max(8, 1.5 + 4.2 * count), 3.6
    figure, axes = plt.subplots(1, count, figsize=size, sharex=True, squeeze=False)
    arms = table.sort_values(setting, kind="stable").groupby("arm", sort=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        words, percent = words_of(measure)
        lines = {arm: (scale * rows[setting], rows[measure]) for arm, rows in arms}
        bands(axis, lines, percent)
        axis.set(xlabel=label, ylabel=words)
    if len(arms) > 1:
        legend_below(figure, axes[0, 0])
    return figure


def legend_below(figure: Figure, axis: Axes | None = None, **look) -> None:
    """One legend for all panels, below them, in rows that fit the figure.

    Parameters
    ----------
    axis : whose handles and labels are taken, where `handles` and `labels` are not given
    """
    if axis is not None:
        look["handles"], look["labels"] = axis.get_legend_handles_labels()
    widths = [0.5 + 0.075 * len(name) for name in look["labels"]]  # inches, about
    columns = len(widths)
    if sum(widths) > figure.get_figwidth():
        columns = max(1, int(figure.get_figwidth() / max(widths)))
    look = {"ncols": columns, "frameon": False, "fontsize": 9} | look
    figure.legend(loc="outside lower center", **look)


def legend_of_marks(figure: Figure, looks: Mapping[str, dict]) -> None:
    """A legend below all panels, of marks by what they mean."""
    handles = [Line2D([], [], linestyle="none", **look) for look in looks.values()]
    legend_below(figure, handles=handles, labels=list(looks))


def name_rows(axis: Axes, names: Sequence[str], longest: int = 60) -> None:
    """Names of rows, top down, at the left of an axis."""
    axis.set_yticks(range(len(names)), [short(name, longest) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)


def log_ticks(axis: Axes, places: Sequence[float]) -> None:
    """A logarithmic axis across that names these places and no others."""
    axis.set_xscale("log")
    axis.set_xticks(places, [f"{place:g}" for place in places])
    axis.minorticks_off()


def label_points(
    axis: Axes,
    names: Sequence[str],
    points: Sequence[tuple[float, float]] | ndarray,
    colours: Sequence | None = None,
    fontsize: float = 9,
) -> None:
    """Write each name as near to its point as it can stand without hiding what is drawn.

    A name may have several lines. One for which there is no room is left out. Call it last, when
    all else is drawn.

    Parameters
    ----------
    points : one for each name, in data coordinates
    colours : of the names; black where not given
    """
    ink = _ink(axis.figure)
    look = {"textcoords": "offset points", "arrowprops": LEADER, "fontsize": fontsize}
    for place, (name, point) in enumerate(zip(names, points, strict=True)):
        colour = "black" if colours is None else colours[place]
        words = "\n".join(short(line, 52) for line in name.splitlines())
        label = axis.annotate(words, point, (0, 0), **look, color=colour, ha="center", va="center")
        label.set_in_layout(False)
        size = Text.get_window_extent(label).size
        offset = _free_offset(axis, ink, axis.transData.transform(point), size)
        if offset is None:
            label.remove()
            continue
        label.xyann = offset * 72 / axis.figure.dpi
        beside = not offset.all() and np.max(np.abs(offset) - size / 2) <= GAPS[0]
        label.arrow_patch.set_visible(not beside)


def _ink(figure: Figure) -> ndarray:
    """Where a figure is dark or coloured: bool (height, width), in pixels from the bottom."""
    picture = BytesIO()
    figure.savefig(picture, format="raw", dpi=figure.dpi)
    shape = int(figure.bbox.height), int(figure.bbox.width), 4
    colours = np.frombuffer(picture.getvalue(), np.uint8).reshape(shape)
    return colours[::-1, :, :3].min(axis=-1) < LIGHT


def _free_offset(axis: Axes, ink: ndarray, here: ndarray, size: ndarray):
    """Offset of the nearest free place for a label, which is then marked as taken; or None."""
    for gap, way in product(GAPS, WAYS):
        offset = np.array(way) * (size / 2 + gap)
        low, high = here + offset - size / 2 - 1, here + offset + size / 2 + 1
        (left, bottom), (right, top) = low.astype(int), high.astype(int)
        inside = np.all(low >= axis.bbox.p0) and np.all(high <= axis.bbox.p1)
        if inside and not ink[bottom:top, left:right].any():
            ink[bottom:top, left:right] = True
            return offset
    return None

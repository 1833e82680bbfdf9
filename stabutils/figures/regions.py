"""Where instability lives: is it clustered, and in which regions?"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from stabutils.figures.marks import label_points, legend_below, whiskers
from stabutils.figures.theme import GREY, HEAT, LOOKS, ORANGE, RULE, short

if TYPE_CHECKING:
    from stabutils.analysis.regions import Clustering

QUESTIONS = {  # of notebook 02, spelled out
    "anywhere": "among all queries",
    "within intents": "among queries of one intent",
    "beyond difficulty": "beyond error rate, length, and nearness to training texts",
    "beyond binned difficulty": "beyond ten bins of error rate, length, and nearness",
    "beyond a network's uncertainty": "beyond another network's uncertainty",
    "all of these": "within one intent, beyond difficulty and uncertainty",
}
MOST_NAMED = 20  # intents of a map
SPACES = {  # whose neighbours are meant
    "words": "neighbours by words",
    "task": "neighbours by words that tell intents apart",
    "network": "neighbours by a network's hidden vectors",
    "encoder": "neighbours by a pretrained encoder",
}


def nulls(spaces: Mapping[str, Mapping[str, Clustering]]) -> Figure:
    """Do neighbours flip alike, more than chance explains? Moran's I against shuffled places.

    Diamond: Moran's I with its interval. Grey dots: a quarter of the values under shuffling, where
    they are known; the bar spans the middle 95 % of all.

    Parameters
    ----------
    spaces : a panel each, of the questions asked, a row each
    """
    count, rows = len(spaces), max(map(len, spaces.values()))
    size = 3.2 + 2.7 * count, 0.62 * rows + 1.6
    figure, axes = plt.subplots(1, count, figsize=size, sharey=True, sharex=True, squeeze=False)
    for axis, (space, tests) in zip(axes[0], spaces.items(), strict=True):
        for place, test in enumerate(tests.values()):
            _against_chance(axis, place, test)
        axis.axvline(0, **RULE)
        words = SPACES.get(space, f"neighbours by {short(space)}")
        axis.set_title(textwrap.fill(words, 26), fontsize=10)
        axis.margins(x=0.15)
    questions = [QUESTIONS.get(name, short(name)) for name in next(iter(spaces.values()))]
    axes[0, 0].set_yticks(range(rows), [textwrap.fill(name, 32) for name in questions])
    axes[0, 0].set(ylim=(rows - 0.5, -0.7))
    words = "Moran's I of label entropy; black: 95 % of what shuffled places give"
    figure.supxlabel(words, fontsize=11)
    return figure


def _against_chance(axis: Axes, place: int, test: Clustering) -> None:
    dots = test.null[::4]
    jitter = np.random.default_rng(0).uniform(-0.22, 0.22, dots.size)
    look = {"color": GREY, "alpha": 0.4, "markersize": 3, "rasterized": True}
    axis.plot(dots, place + jitter, ".", **look)
    axis.plot([test.chance.low, test.chance.high], [place, place], color="black", linewidth=4)
    look = {"marker": "D", "color": ORANGE, "markeredgecolor": "black", "capsize": 4}
    [value] = whiskers(axis, [place], [test.observed], across=True, **look)
    if np.isnan(test.observed.value):
        axis.text(0, place, " cannot be tested here", fontsize=9, va="center")
    elif not np.isnan(test.p):
        relation = "=" if test.p > 0.001 else "≤"
        words = f"p {relation} {test.p:.3f}" if test.p >= 0.0005 else "p < 0.001"
        axis.text(value, place - 0.3, words, fontsize=9, ha="center", va="bottom")


def instability_map(
    xy: ndarray,
    entropy: ndarray,
    regions: ndarray,
    names: Sequence[str],
    towns: ArrayLike = (),
    intents: Sequence[str] = (),
) -> Figure:
    """Where the unstable queries lie: all of them, and beside it the regions, closer.

    Parameters
    ----------
    xy : (queries, 2), where similar queries lie side by side
    entropy : (queries,), label entropy in nats
    regions : (queries,), ids from 0, -1 for none
    names : of the first regions; only these are outlined
    towns : (intents, 2), where the intents lie; 20 of them are named, those farthest from any other
        first, as far as there is room
    intents : their names
    """
    outlined = (regions >= 0) & (regions < len(names))
    panels = 1 + int(outlined.any())
    size, ratios = (6 + 3 * panels, 6.4), (3, 2)[:panels]
    figure, axes = plt.subplots(1, panels, figsize=size, width_ratios=ratios, squeeze=False)
    look = {"cmap": HEAT, "vmin": 0, "vmax": max(entropy.max(initial=0), 0.1), "linewidth": 0}
    order = np.argsort(entropy, kind="stable")
    for axis, dot in zip(axes[0], (12, 36), strict=False):
        dots = axis.scatter(*xy[order].T, c=entropy[order], s=dot, **look)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    whole, *closer = axes[0]
    figure.colorbar(dots, label="label entropy over the runs (nats)", shrink=0.7)
    whole.set_title("All queries: similar ones lie side by side")
    for axis in closer:
        _closer(axis, xy, np.where(outlined, regions, -1), names)
        whole.indicate_inset_zoom(axis, edgecolor="black", alpha=0.8)
        legend_below(figure, axis, title="Regions more unstable than chance")
    towns = np.reshape(towns, (-1, 2))
    apart = KDTree(towns).query(towns, 2)[0][:, 1]
    chosen = np.argsort(-apart, kind="stable")[:MOST_NAMED]
    label_points(whole, [intents[town] for town in chosen], towns[chosen], fontsize=8)
    return figure


def _closer(axis: Axes, xy: ndarray, regions: ndarray, names: Sequence[str]) -> None:
    """The outlined regions, apart from outlying queries, each with its number."""
    low, high = np.quantile(xy[regions >= 0], (0.02, 0.98), axis=0)
    margin = 0.1 * (high - low) + 1e-3 * np.ptp(xy)
    (left, bottom), (right, top) = low - margin, high + margin
    axis.set(xlim=(left, right), ylim=(bottom, top), title="Closer: the regions")
    axis.spines[:].set_visible(True)
    places = []
    for region, (name, look) in enumerate(zip(names, cycle(LOOKS), strict=False)):
        own = xy[regions == region]
        words = f"{region + 1}: {short(name, 60)}"
        look = look | {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.5}
        axis.plot(*own.T, **look, linestyle="none", label=words)
        places.append(np.clip(np.median(own, axis=0), low, high))
    label_points(axis, [str(region + 1) for region in range(len(names))], places, fontsize=14)

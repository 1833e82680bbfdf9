"""Every plot of the study, one style. Functions take arrays and tables and return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from stabutils.figures.theme import GREY, ORANGE, PALETTE, short

if TYPE_CHECKING:
    from stabutils.analysis.regions import Clustering


def nulls(spaces: Mapping[str, Mapping[str, Clustering]]) -> Figure:
    """Is it more than chance? Moran's I with its interval over runs (diamond), and where places do not matter (grey).

    spaces: a panel each, of the questions asked, a row each. Grey dots are a quarter of the values under shuffling,
    where they are known; the bar spans the middle 95 % of all.
    """
    count, rows = len(spaces), max(map(len, spaces.values()))
    figure, axes = plt.subplots(
        1,
        count,
        figsize=(2 + 2.9 * count, 0.55 * rows + 1.4),
        sharey=True,
        sharex=True,
        squeeze=False,
    )
    for axis, (space, tests) in zip(axes[0], spaces.items(), strict=True):
        for place, test in enumerate(tests.values()):
            dots = test.null[::4]
            jitter = np.random.default_rng(0).uniform(-0.22, 0.22, dots.size)
            axis.plot(
                dots, place + jitter, ".", color=GREY, alpha=0.4, markersize=3, rasterized=True
            )
            axis.plot(
                [test.chance.low, test.chance.high], [place, place], color="black", linewidth=4
            )
            value, low, high = test.observed.value, test.observed.low, test.observed.high
            axis.errorbar(
                [value],
                [place],
                xerr=[[value - low], [high - value]],
                fmt="D",
                color=ORANGE,
                capsize=4,
            )
            if test.p == test.p:
                axis.text(
                    value,
                    place - 0.18,
                    f"p {'=' if test.p > 0.001 else '≤'} {test.p:.3f}",
                    fontsize=9,
                    ha="center",
                    va="bottom",
                )
        axis.axvline(0, color="black", linestyle=":", linewidth=1)
        axis.set_title(f"space of {space}", fontsize=11)
        axis.margins(x=0.12)
    axes[0, 0].set(
        yticks=range(rows), yticklabels=list(next(iter(spaces.values()))), ylim=(rows - 0.4, -0.7)
    )
    figure.supxlabel(
        "Moran's I of label entropy; black: 95 % of what shuffled places give", fontsize=11
    )
    return figure


def instability_map(
    xy: np.ndarray,
    entropy: np.ndarray,
    regions: np.ndarray,
    names: Sequence[str],
    towns: np.ndarray = (),
    intents: Sequence[str] = (),
) -> Figure:
    """Where the unstable queries lie: places xy (examples, 2), coloured by label entropy, regions outlined and named.

    regions (examples,): ids from 0, -1 for none; names: one for each region that is outlined, the others are left out;
    towns (intents, 2): where to write the names of the intents, as far as there is room.
    """
    figure, axis = plt.subplots(figsize=(10, 7))
    order = np.argsort(entropy, kind="stable")
    dots = axis.scatter(*xy[order].T, c=entropy[order], cmap="viridis_r", s=14, linewidth=0)
    figure.colorbar(dots, label="label entropy over the runs (nats)", shrink=0.7)
    figure.canvas.draw()  # to know how large words will be
    taken: list[Bbox] = []
    for town, intent in zip(
        towns, intents, strict=True
    ):  # names that would lie upon others are left out
        word = axis.text(
            *town, short(intent), fontsize=8, color="black", alpha=0.6, ha="center", va="center"
        )
        box = word.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            word.remove()
        else:
            taken.append(box)
    badges: list[np.ndarray] = []
    for region, name in enumerate(names):
        own, colour = xy[regions == region], PALETTE[(0, 3, 2, 4, 5, 6, 1, 9, 8, 7)[region % 10]]
        axis.plot(
            *own.T,
            "os^Dvp"[region % 6],
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=colour,
            label=f"{region + 1}: {short(name, 60)}",
        )
        badge, far = np.median(own, axis=0), np.ptp(xy, axis=0).max() / 25
        if (
            badges and np.linalg.norm(np.subtract(badges, badge), axis=1).min() < far
        ):  # not one upon the other
            badge = own[
                np.argmax(
                    [np.linalg.norm(np.subtract(badges, place), axis=1).min() for place in own]
                )
            ]
        badges.append(badge)
        axis.text(
            *badge,
            region + 1,
            fontsize=12,
            weight="bold",
            color=colour,
            ha="center",
            bbox={
                "boxstyle": "circle,pad=0.15",
                "facecolor": "white",
                "edgecolor": colour,
                "alpha": 0.9,
            },
        )
    if len(names):
        figure.legend(
            loc="outside lower left",
            ncols=2,
            fontsize=10,
            title="regions more unstable than chance",
        )
    axis.set(xticks=[], yticks=[], xlabel="similar queries lie side by side")
    axis.grid(False)
    return figure

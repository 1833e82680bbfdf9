"""Every plot of the study, one style. Functions take arrays and tables and return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from stabutils.figures.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, short
from stabutils.metrics.intervals import Interval, runs_needed
from stabutils.metrics.measures import label_entropy

if TYPE_CHECKING:
    from stabutils.analysis.sources import Effects


def answers(labels: np.ndarray, gold: np.ndarray, texts: Sequence[str], each: int = 4) -> Figure:
    """The idea: the same query under every retraining. Rows: the most unstable, the middling and stable queries.

    labels (runs, examples). A cell's colour tells which answer the run gave: the most frequent one of the row, the
    second, the third, the fourth, or any rarer one; a dot marks the right answer; the bar beside is the label entropy.
    """
    entropy, rows = label_entropy(labels), telling_rows(labels, each)
    rank = np.array([_rank_of_answers(labels[:, row]) for row in rows])
    figure, (grid, bars) = plt.subplots(
        1, 2, figsize=(10, 0.36 * len(rows) + 1.5), width_ratios=(3, 1), sharey=True
    )
    colours = [(0.85, 0.87, 0.9), ORANGE, BLUE, GREEN, PURPLE]
    grid.pcolormesh(
        np.minimum(rank, 4),
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=4.5,
        edgecolors="white",
        linewidth=2,
    )
    hit_row, hit_run = np.nonzero(labels[:, rows].T == gold[rows, None])
    grid.plot(hit_run + 0.5, hit_row + 0.5, ".", color="black", markersize=5)
    grid.set(
        yticks=np.arange(len(rows)) + 0.5,
        xticks=np.arange(len(labels)) + 0.5,
        xlabel="retraining (same data, another seed)",
    )
    grid.set_yticklabels([short(texts[row]) for row in rows])
    grid.set_xticklabels(np.arange(1, len(labels) + 1) if len(labels) <= 20 else [""] * len(labels))
    grid.invert_yaxis()
    grid.grid(False)
    grid.set_title("What each retraining answered (dot: right)")
    named = (
        "the query's commonest answer",
        "its second",
        "its third",
        "its fourth",
        "rarer ones, not one answer",
    )
    figure.legend(
        [Patch(color=colour) for colour in colours],
        named,
        loc="outside lower center",
        ncols=5,
        fontsize=9,
        frameon=False,
    )
    bars.barh(np.arange(len(rows)) + 0.5, entropy[rows], color=GREY, height=0.6)
    bars.set(
        xlabel=f"entropy over these\n{len(labels)} runs (nats)",
        xlim=(0, max(1.0, entropy.max() * 1.05)),
    )
    return figure


def telling_rows(labels: np.ndarray, each: int = 4) -> np.ndarray:
    """The queries that `answers` shows: so many of the most unstable, of the middling, and of the stable ones."""
    entropy = label_entropy(labels)
    unstable = np.flatnonzero(entropy > 0)
    order = unstable[np.argsort(-entropy[unstable], kind="stable")]
    return np.concatenate(
        [
            order[:each],
            order[each:][(len(order) - each) // 2 :][:each],
            np.flatnonzero(entropy == 0)[:each],
        ]
    )


def _rank_of_answers(votes: np.ndarray) -> np.ndarray:
    kinds, which, counts = np.unique(votes, return_inverse=True, return_counts=True)
    return np.argsort(np.argsort(-counts, kind="stable"))[which]


def entropy_distribution(labels: np.ndarray) -> Figure:
    """How unstable queries are: the share that never changes, the entropies of the rest. labels (runs, examples)."""
    entropy, runs = label_entropy(labels), len(labels)
    unstable = entropy > 0
    stays, changes = 100 * (1 - unstable.mean()), 100 * unstable.mean()
    figure, (share, rest) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 3))
    share.bar([0], [stays], color=GREY, width=0.5)
    share.bar([0], [changes], bottom=[stays], color=ORANGE, width=0.5)
    share.text(
        0.32, stays / 2, f"same answer\nin all {runs} runs\n{stays:.1f} %", va="center", fontsize=10
    )
    share.text(0.32, stays + changes / 2, f"changes\n{changes:.1f} %", va="center", fontsize=10)
    share.set(
        xlim=(-0.3, 1.1),
        ylim=(0, 105),
        xticks=[],
        ylabel="share of test queries (%)",
        title="All queries",
    )
    share.grid(False)
    counts, _, _ = rest.hist(
        entropy[unstable], bins=np.linspace(0, max(1.2, entropy.max() + 0.02), 37), color=ORANGE
    )
    rest.set_ylim(0, 1.3 * max(1, counts.max()))
    for share_of_one, name, height in (
        (1 / runs, f"1 of {runs} runs differs", 1.27),
        (0.5, "split in halves", 1.17),
    ):
        value = -sum(p * np.log(p) for p in (share_of_one, 1 - share_of_one))
        rest.axvline(value, color="black", linewidth=1, linestyle=":")
        rest.text(value, height * max(1, counts.max()), f" {name}", va="top", fontsize=9)
    rest.set(
        xlabel=f"label entropy over {runs} runs (nats)",
        ylabel="test queries",
        title="Those that change",
    )
    return figure


def accuracy_and_churn(accuracy: np.ndarray, pairs: np.ndarray, churn: Interval) -> Figure:
    """The contrast of the study: accuracies of runs (runs,) hardly move; pairs (pairs,) of runs disagree much more."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8))
    span = max(6.0, 120 * max(np.ptp(accuracy), pairs.max()))
    for axis, values, colour, title, label in (
        (left, accuracy, BLUE, "Accuracy of each run", "accuracy (%)"),
        (
            right,
            pairs,
            ORANGE,
            "Disagreement of each pair of runs",
            "queries answered differently (%)",
        ),
    ):
        jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
        axis.plot(
            100 * values,
            jitter,
            "o",
            color=colour,
            alpha=0.6,
            markersize=6,
            markeredgecolor="white",
        )
        axis.set(ylim=(-0.7, 0.7), yticks=[], xlabel=label, title=title)
    middle = 100 * accuracy.mean()
    left.set_xlim(middle - span / 2, middle + span / 2)
    right.set_xlim(0, span)
    value, low, high = 100 * churn.value, max(0.0, 100 * churn.low), min(100.0, 100 * churn.high)
    right.errorbar(
        [value],
        [0.5],
        xerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
        fmt="D",
        color="black",
        capsize=4,
    )
    right.text(
        0.02,
        0.95,
        f"churn {value:.1f} % [{low:.1f}, {high:.1f}]",
        va="top",
        fontsize=10,
        transform=right.transAxes,
    )
    return figure


def intervals(
    rows: Mapping[str, Interval],
    label: str,
    reference: float | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Figure:
    """Values with their intervals, one row each, top down; a dotted line at `reference`. An interval that reaches past
    what the number can be is drawn to its `limits`."""
    figure, axis = plt.subplots(figsize=(8, 0.38 * len(rows) + 1.0))
    for place, interval in enumerate(rows.values()):
        value, low, high = np.clip([interval.value, interval.low, interval.high], *limits)
        axis.errorbar(
            [value], [place], xerr=[[value - low], [high - value]], fmt="o", color=BLUE, capsize=3
        )
    if reference is not None:
        axis.axvline(reference, color="black", linestyle=":", linewidth=1)
    axis.set(
        yticks=range(len(rows)),
        yticklabels=[short(name, 60) for name in rows],
        xlabel=label,
        ylim=(len(rows) - 0.5, -0.5),
    )
    return figure


def through_training(
    rows: Mapping[str, Sequence[Interval]], share: np.ndarray, top: float
) -> Figure:
    """How soon a single training knows: quality of proxies (a line with a band each) over the share of training done.

    top: for reference, what half of the runs say about the other half.
    """
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for (name, line), colour, mark in zip(
        rows.items(), (BLUE, ORANGE, GREEN, PURPLE), "osD^", strict=False
    ):
        axis.plot(100 * share, [i.value for i in line], marker=mark, color=colour, label=name)
        low, high = [i.low for i in line], [i.high for i in line]
        axis.fill_between(100 * share, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.axhline(top, color="black", linestyle="--", linewidth=1)
    axis.text(100 * share[0], top, "half of the runs about the other half", va="bottom", fontsize=9)
    axis.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axis.set(
        xlabel="share of the training done (%)",
        ylabel="AUROC, unstable in other runs",
        ylim=(0.45, 1.02),
    )
    axis.legend(loc="lower right", frameon=False)
    return figure


def training_map(confidence: np.ndarray, spread: np.ndarray, entropy: np.ndarray) -> Figure:
    """Training dynamics of one run (after Swayamdipta et al. 2020), coloured by what the *other* runs do.

    confidence and spread (examples,): mean and standard deviation of the gold label's probability over one run's
    checkpoints; entropy (examples,): label entropy of other runs, nats.
    """
    figure, axis = plt.subplots(figsize=(8, 4.4))
    order = np.argsort(entropy, kind="stable")
    dots = axis.scatter(
        spread[order], confidence[order], c=entropy[order], cmap="viridis_r", s=16, linewidth=0
    )
    figure.colorbar(dots, label="label entropy over the other runs (nats)")
    axis.set(
        xlabel="spread of the right answer's probability while training",
        ylabel="mean probability of the right answer",
        ylim=(-0.02, 1.02),
    )
    for x, y, text, across, up in (
        (0.02, 0.9, "easy", "left", "top"),
        (0.98, 0.45, "ambiguous", "right", "center"),
        (0.02, 0.2, "hard", "left", "center"),
    ):
        axis.text(
            x, y, text, transform=axis.transAxes, ha=across, va=up, style="italic", weight="bold"
        )
    return figure


def how_many_runs(churn: Interval, most: int = 100) -> Figure:
    """Half-width of the churn's interval against the number of runs: how many are enough."""
    from scipy.special import stdtrit

    runs = np.unique(np.geomspace(3, most, 60).astype(int))
    spread = churn.se * np.sqrt(churn.runs)
    figure, axis = plt.subplots(figsize=(8, 3.4))
    axis.plot(runs, 100 * stdtrit(runs - 1, 0.975) * spread / np.sqrt(runs), color=BLUE)
    axis.plot([churn.runs], [50 * (churn.high - churn.low)], "o", color="black")
    axis.text(churn.runs, 50 * (churn.high - churn.low), f"  here: {churn.runs} runs", va="bottom")
    for width in (1.0, 0.5):
        needed = runs_needed(churn, width / 100)
        if runs[0] <= needed <= most:
            axis.plot(
                [needed, needed, 0], [0, width, width], color=GREY, linestyle=":", linewidth=1.5
            )
            axis.text(needed, width, f" ±{width} points: {needed} runs", va="bottom", fontsize=9)
    axis.set(xscale="log", xlabel="runs", ylabel="half-width of churn (± points)", xlim=(3, most))
    axis.set_ylim(0, max(1.2, 1.05 * axis.get_ylim()[1]))
    axis.set_xticks([3, 5, 10, 20, 50, 100], [3, 5, 10, 20, 50, 100])
    return figure


def sources(effects: Effects) -> Figure:
    """Churn by source of randomness: with only this source varying (left), with only this one fixed (right).

    Dashed with a band: churn of runs that differ in every source. Dotted: churn of trainings of equal seeds.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharex=True, sharey=True)
    for axis, key, title, colour, mark in (
        (axes[0], "alone", "Only this source varies", BLUE, "o"),
        (axes[1], "fixed", "Only this source is fixed", ORANGE, "D"),
    ):
        axis.axvspan(
            100 * max(0, effects.every.low),
            100 * effects.every.high,
            color=GREY,
            alpha=0.2,
            linewidth=0,
        )
        axis.axvline(
            100 * effects.every.value,
            color="black",
            linestyle="--",
            linewidth=1,
            label="all three vary",
        )
        axis.axvline(
            100 * effects.floor,
            color="black",
            linestyle=":",
            linewidth=1.5,
            label="all three fixed",
        )
        for place, source in enumerate(effects.sources.values()):
            churn = getattr(source, key)
            ends = [[100 * (churn.value - max(0, churn.low))], [100 * (churn.high - churn.value)]]
            axis.errorbar(
                [100 * churn.value], [place], xerr=ends, fmt=mark, color=colour, capsize=4
            )
        axis.set(title=title, xlabel="churn (% of test queries)")
    axes[0].set(
        yticks=range(len(effects.sources)),
        yticklabels=list(effects.sources),
        xlim=-0.5,
        ylim=(len(effects.sources) - 0.5, -0.5),
    )
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def rounding(found: Mapping[int, Mapping[str, Interval]]) -> Figure:
    """Churn from new seeds and churn from rounding alone against how long is trained: epochs -> `sources.rounding`.
    The number at each point is the share of the second in the first."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for key, name, colour, mark in (
        ("seeds", "new seeds", ORANGE, "D"),
        ("rounding", "rounding alone", BLUE, "o"),
    ):
        value, low, high = (
            100 * np.array([getattr(row[key], end) for row in found.values()])
            for end in ("value", "low", "high")
        )
        axis.plot(list(found), value, marker=mark, color=colour, label=name)
        axis.fill_between(
            list(found), np.maximum(0, low), high, color=colour, alpha=0.2, linewidth=0
        )
    for epochs, row in found.items():
        if np.isfinite(row["share"].value):
            axis.annotate(
                f"{row['share'].value:.0%}",
                (epochs, 100 * row["rounding"].value),
                (0, 6),
                fontsize=9,
                ha="center",
                va="bottom",
                textcoords="offset points",
            )
    axis.set(xscale="log", xlabel="epochs of the training", ylabel="churn (% of test queries)")
    axis.set_ylim(-0.02 * axis.get_ylim()[1], None)
    axis.set_xticks(list(found), list(found))
    axis.minorticks_off()
    axis.margins(x=0.08)
    axis.legend(frameon=False)
    return figure


def lengths(table: pd.DataFrame, usual: float) -> Figure:
    """Label entropy and accuracy over epochs of training, a whole schedule each, and of how many runs; a dotted line at
    the usual length."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    labels = f"LE@{table.n[0]} (nats)", "accuracy (%)"
    for axis, name, label, scale in zip(
        axes, ("label_entropy", "accuracy"), labels, (1, 100), strict=True
    ):
        value, low, high = scale * np.array([[i.value, i.low, i.high] for i in table[name]]).T
        axis.errorbar(
            table.epochs, value, yerr=[value - low, high - value], fmt="o-", color=BLUE, capsize=3
        )
        axis.axvline(usual, color="black", linestyle=":", linewidth=1, label="control")
        axis.set(xscale="log", xlabel="epochs of training (of how many runs)", ylabel=label)
        axis.set_xticks(
            table.epochs,
            [f"{row.epochs:g}\n({row.runs})" for row in table.itertuples()],
            fontsize=8,
        )
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    return figure


def learning(curves: pd.DataFrame, reference: float) -> Figure:
    """Accuracy on validation texts over CPU-seconds: rows way, seed, seconds, accuracy; a thin line a seed, a thick one
    their mean, dotted the reference."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for colour, (way, rows) in zip((GREY, BLUE), curves.groupby("way", sort=False), strict=False):
        looks = rows.groupby("seed").cumcount()
        for _, own in rows.groupby("seed"):
            axis.plot(own.seconds, 100 * own.accuracy, color=colour, linewidth=0.6, alpha=0.5)
        mean = rows.groupby(looks)[["seconds", "accuracy"]].mean()
        axis.plot(mean.seconds, 100 * mean.accuracy, color=colour, linewidth=2.5, label=way)
    axis.axhline(100 * reference, color="black", linestyle=":", linewidth=1.2)
    axis.set(
        xscale="log", xlabel="CPU-seconds of one thread", ylabel="accuracy on validation texts (%)"
    )
    axis.legend(loc="lower right")
    return figure

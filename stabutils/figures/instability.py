"""How unstable a network is, where that comes from, and how soon one run tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy import ndarray
from scipy import stats
from scipy.special import stdtrit

from stabutils.analysis.sources import Effects
from stabutils.figures.marks import (
    ANY,
    bands,
    label_points,
    legend_below,
    log_ticks,
    name_rows,
    responses,
    spans,
    whiskers,
)
from stabutils.figures.theme import BLUE, GREY, HEAT, LOOKS, ORANGE, RANKS, RULE, short
from stabutils.metrics.intervals import Interval, runs_needed
from stabutils.metrics.measures import label_entropy

KINDS = (  # of rows in `answers`
    "The most unstable queries",
    "From the middle of the queries that change",
    "Queries that get the same answer in every run",
)
EACH = 4  # rows of a kind
ANSWERS = (
    "the row's most frequent answer",
    "its second",
    "its third",
    "its fourth",
    "any rarer one",
)
CHURNS = {  # column of `four_churns` -> words
    "seed_churn": "seed churn: same data, another seed",
    "data_churn": "data churn: other data, the same seed",
    "update_churn": "update churn: other data and another seed",
}


def answers(labels: ndarray, gold: ndarray, texts: Sequence[str]) -> Figure:
    """The idea: the same queries under every retraining, in three groups of four rows.

    A cell's colour is the rank of the run's answer among the answers to that row's query, so the
    same colour in two rows need not be the same answer. A dot marks the right answer; the bar
    beside is the label entropy.

    Parameters
    ----------
    labels : (runs, queries)
    gold : (queries,)
    """
    runs, entropy = len(labels), label_entropy(labels)
    groups = _groups(entropy)
    rows = np.concatenate(list(groups.values()))
    size = 10, 0.36 * (len(rows) + len(groups)) + 1.6
    figure, (grid, bars) = plt.subplots(1, 2, figsize=size, width_ratios=(3, 1), sharey=True)
    top = 0
    places: list[float] = []
    for kind, own in groups.items():
        grid.text(0, top + 0.9, kind, fontsize=9, style="italic", va="bottom")
        _cells(grid, labels[:, own], gold[own], top + 1)
        places.extend(top + 1.5 + np.arange(len(own)))
        top += 1 + len(own)
    step = 1 if runs <= 20 else -(-runs // 10)
    shown = np.arange(0, runs, step)
    grid.set(xlabel="retraining (same data, another seed)", ylim=(top, 0))
    grid.set_xticks(shown + 0.5, shown + 1)
    grid.set_yticks(places, [short(texts[row]) for row in rows])
    grid.grid(False)
    grid.set_title("What each retraining answered (dot: right)")
    keys = [Patch(color=colour) for colour in RANKS]
    title = "Colour: rank of an answer within its row"
    legend_below(figure, handles=keys, labels=ANSWERS, title=title)
    bars.barh(places, entropy[rows], color=GREY, height=0.6)
    bars.set(xlabel=f"entropy over these\n{runs} runs (nats)")
    bars.set_xlim(0, max(1.0, entropy.max() * 1.05))
    return figure


def _cells(axis: Axes, labels: ndarray, gold: ndarray, top: float) -> None:
    """Rows of `answers`: labels (runs, rows), gold (rows,)."""
    runs, rows = labels.shape
    ranks = np.array([_rank_of_answers(votes) for votes in labels.T])
    edges = np.arange(runs + 1), top + np.arange(rows + 1)
    look = {"cmap": ListedColormap(RANKS), "vmin": -0.5, "vmax": len(RANKS) - 0.5}
    line = {"edgecolors": "white", "linewidth": 2 if runs <= 30 else 0}
    axis.pcolormesh(*edges, np.minimum(ranks, len(RANKS) - 1), **look, **line)
    row, run = np.nonzero(labels.T == gold[:, None])
    size = min(5, 150 / runs)
    dot = {"color": "black", "markersize": size, "markeredgecolor": "white"}
    axis.plot(run + 0.5, top + row + 0.5, "o", **dot, markeredgewidth=size / 6)


def telling_rows(labels: ndarray) -> ndarray:
    """Positions of the queries that `answers` shows, in its order."""
    return np.concatenate(list(_groups(label_entropy(labels)).values()))


def _groups(entropy: ndarray) -> dict[str, ndarray]:
    """Rows of the most unstable, of middling and of stable queries; no group without rows."""
    order = np.argsort(-entropy, kind="stable")
    unstable, stable = order[entropy[order] > 0], order[entropy[order] == 0]
    middle = unstable[EACH:][(len(unstable) - EACH) // 2 :]
    groups = zip(KINDS, (unstable, middle, stable), strict=True)
    return {kind: rows[:EACH] for kind, rows in groups if len(rows)}


def _rank_of_answers(votes: ndarray) -> ndarray:
    _, which, counts = np.unique(votes, return_inverse=True, return_counts=True)
    return stats.rankdata(-counts, "ordinal")[which] - 1


def entropy_distribution(labels: ndarray) -> Figure:
    """How unstable queries are: the share that never changes, and the entropies of the rest.

    Parameters
    ----------
    labels : (runs, queries)
    """
    entropy = label_entropy(labels)
    figure, (share, rest) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1, 3))
    _share_that_changes(share, 100 * float(np.mean(entropy > 0)), len(labels))
    _histogram(rest, entropy[entropy > 0], len(labels))
    return figure


def _share_that_changes(axis: Axes, changes: float, runs: int) -> None:
    stays = 100 - changes
    axis.bar([0], [stays], color=GREY, width=0.5)
    axis.bar([0], [changes], bottom=[stays], color=ORANGE, hatch="//", width=0.5)
    words = f"same answer\nin all {runs} runs\n{stays:.1f} %", f"changes\n{changes:.1f} %"
    heights = np.clip([stays / 2, stays + changes / 2], [12, 36], [68, 94])  # apart, and inside
    for word, height in zip(words, heights, strict=True):
        axis.text(0.32, height, word, va="center", fontsize=10)
    axis.set(xlim=(-0.3, 1.1), ylim=(0, 105), xticks=[], title="All queries")
    axis.set_ylabel("share of test queries (%)")
    axis.grid(False)


def _histogram(axis: Axes, entropy: ndarray, runs: int) -> None:
    longest = max(1.2, entropy.max(initial=0) + 0.02)
    counts, *_ = axis.hist(entropy, bins=np.linspace(0, longest, 37), color=ORANGE)
    top = max(1, counts.max())
    splits = {f"1 of {runs} runs differs": 1 / runs, "split in halves": 0.5}
    for (name, split), height in zip(splits.items(), (1.27, 1.15), strict=True):
        value = stats.entropy([split, 1 - split])
        axis.plot([value, value], [0, height * top], **RULE)
        axis.text(value, height * top, f" {name}", va="top", fontsize=9)
    axis.set(ylim=(0, 1.3 * top), ylabel="test queries", title="Those that change")
    axis.set_xlabel(f"label entropy over {runs} runs (nats)")


def accuracy_and_churn(accuracy: ndarray, pairs: ndarray, churn: Interval) -> Figure:
    """The contrast of the study: accuracy hardly moves, pairs of runs disagree much more.

    Both panels have the same scale.

    Parameters
    ----------
    accuracy : (runs,), shares
    pairs : (pairs,), the disagreement of each pair of runs
    churn : its mean
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8))
    width = min(100.0, max(6.0, 120 * max(np.ptp(accuracy), pairs.max())))
    start = np.clip(100 * np.mean(accuracy) - width / 2, 0, 100 - width)
    _dots(left, accuracy, BLUE, (start, start + width))
    left.set(title="Accuracy of each run", xlabel="accuracy (%)")
    _dots(right, pairs, ORANGE, (0, width))
    right.set(title="Disagreement of each pair of runs", xlabel="queries answered differently (%)")
    value, low, high = spans([churn], 100, limits=(0, 1))[:, 0]
    look = {"scale": 100, "limits": (0, 1), "across": True}
    whiskers(right, [0.42], [churn], **look, marker="D", color="black")
    figure.get_layout_engine().set(wspace=0.08)
    middle = np.clip(value, 0.22 * width, 0.78 * width)
    words = f"churn {value:.1f} % [{low:.1f}, {high:.1f}]"
    right.text(middle, 0.6, words, va="bottom", ha="center", fontsize=10)
    return figure


def _dots(axis: Axes, values: ndarray, colour, window: tuple[float, float]) -> None:
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
    look = {"alpha": 0.6, "markersize": 6, "markeredgecolor": "white"}
    axis.plot(100 * values, jitter - 0.1, "o", color=colour, **look)
    axis.set(ylim=(-0.5, 0.9), yticks=[], xlim=window)


def intervals(
    rows: Mapping[str, Interval],
    label: str,
    reference: float | None = None,
    limits: tuple[float, float] = ANY,
    *,
    scale: float = 1,
    start: float | None = None,
) -> Figure:
    """Values with their intervals, one row each, top down.

    Parameters
    ----------
    label : of the axis; a second line can say what it means to lie left and right
    reference : where a dotted line stands
    limits : of what the number can be; an interval that reaches past is cut there
    scale : what all numbers are multiplied by: 100 for percent
    start : where the axis begins, after scaling
    """
    figure, axis = plt.subplots(figsize=(8, 0.38 * len(rows) + 1.1))
    whiskers(axis, range(len(rows)), rows.values(), scale=scale, limits=limits, across=True)
    if reference is not None:
        axis.axvline(scale * reference, **RULE)
    if start is not None:
        axis.axvline(start, alpha=0)  # counts for the margins
        axis.set_xlim(left=start)
    name_rows(axis, list(rows))
    axis.set(xlabel=label)
    return figure


def through_training(rows: Mapping[str, Sequence[Interval]], share: ndarray, top: float) -> Figure:
    """How soon one run tells: quality of proxies over the share of training done.

    Parameters
    ----------
    rows : of each proxy its AUROC at each share, drawn as a line with a band
    share : (checkpoints,), of the training done
    top : for reference, what half of the runs say about the other half
    """
    figure, axis = plt.subplots(figsize=(8, 3.6))
    places = 100 * np.asarray(share)
    bands(axis, {name: (places, line) for name, line in rows.items()})
    axis.axhline(top, **RULE | {"linestyle": "--"})
    axis.text(places[0], top, "half of the runs about the other half", va="bottom", fontsize=9)
    axis.axhline(0.5, **RULE)
    axis.text(places[0], 0.5, "chance", va="bottom", fontsize=9)
    lowest = min(spans(line)[1].min() for line in rows.values())
    axis.set(xlabel="share of the training done (%)", ylim=(min(0.45, lowest - 0.02), 1.02))
    axis.set_ylabel("AUROC, unstable in other runs")
    middle = len(places) // 2
    points = [(places[middle], line[middle].value) for line in rows.values()]
    colours = [look["color"] for look in LOOKS]
    label_points(axis, list(rows), points, colours, fontsize=10)
    return figure


def training_map(confidence: ndarray, spread: ndarray, entropy: ndarray) -> Figure:
    """Training dynamics of one run, coloured by what the *other* runs do.

    Parameters
    ----------
    confidence, spread : (queries,), mean and standard deviation of the gold label's probability
        over one run's checkpoints
    entropy : (queries,), label entropy of other runs, nats

    References
    ----------
    Swayamdipta et al. 2020, "Dataset cartography: Mapping and diagnosing datasets with training
    dynamics".
    """
    figure, axis = plt.subplots(figsize=(8, 4.4))
    order = np.argsort(entropy, kind="stable")
    look = {"c": entropy[order], "cmap": HEAT, "s": 16, "linewidth": 0}
    dots = axis.scatter(spread[order], confidence[order], **look)
    figure.colorbar(dots, label="label entropy over the other runs (nats)")
    axis.set(xlabel="spread of the right answer's probability while training")
    axis.set(ylabel="mean probability of the right answer", ylim=(-0.02, 1.02))
    look = {"transform": axis.transAxes, "style": "italic", "weight": "bold", "va": "center"}
    axis.text(0.02, 0.82, "easy", **look)
    axis.text(0.98, 0.45, "ambiguous", ha="right", **look)
    axis.text(0.02, 0.2, "hard", **look)
    return figure


def how_many_runs(churn: Interval) -> Figure:
    """Half-width of churn's interval over runs, against the number of runs: how many are enough.

    Dashed, where the interval is over queries too: with what other queries would change, which more
    runs do not narrow.
    """
    over_runs = churn.over_runs or churn
    most = max(100, 2 * churn.runs)
    runs = np.unique(np.geomspace(3, most, 60).astype(int))
    quantile, variance = stdtrit(runs - 1, 0.975), over_runs.se**2 * churn.runs / runs
    alone = quantile * np.sqrt(variance)
    figure, axis = plt.subplots(figsize=(8, 3.4))
    axis.plot(runs, 100 * alone, label="other runs, these queries")
    if churn.se > over_runs.se:
        both = 100 * np.maximum(_half_widths(churn, runs), alone)
        axis.plot(runs, both, "--", color=GREY, label="other runs and other queries")
        axis.legend(frameon=False)
    here = 100 * stdtrit(churn.runs - 1, 0.975) * over_runs.se
    names, points = [f"here: {churn.runs} runs"], [(churn.runs, here)]
    for width in (5, 2, 1, 0.5, 0.2, 0.1):
        needed = runs_needed(churn, width / 100)
        if runs[0] < needed <= most and len(names) < 4:
            axis.plot([needed, needed, runs[0]], [0, width, width], color=GREY, linestyle=":")
            names.append(f"±{width:g} points: {needed} runs")
            points.append((needed, width))
    axis.plot(*points[0], "o", color="black")
    ticks = [count for count in (3, 5, 10, 20, 50, 100, 200, 500, 1000) if count <= most]
    log_ticks(axis, ticks)
    axis.set(xlabel="runs", ylabel="half-width of churn's interval\n(± points)", xlim=(3, most))
    axis.set_ylim(0, None)
    label_points(axis, names, points)
    return figure


def _half_widths(churn: Interval, runs: ndarray) -> ndarray:
    """Of an interval over runs and queries at other numbers of runs.

    What other queries would change stays as it is; degrees of freedom are Satterthwaite's, as in
    `intervals.crossed`.
    """
    over_runs = churn.over_runs
    of_runs = over_runs.se**2 * churn.runs / runs
    variance = of_runs + churn.se**2 - over_runs.se**2
    spread_of_queries = churn.se**4 / churn.df - over_runs.se**4 / over_runs.df
    degrees = over_runs.df * (runs - 1) / (churn.runs - 1)
    spread = of_runs**2 / degrees + max(0.0, spread_of_queries)
    return stdtrit(variance**2 / spread, 0.975) * np.sqrt(variance)


def sources(effects: Effects) -> Figure:
    """Churn by source of randomness: only this source varies (left), only this one fixed (right).

    Dashed with a band: churn of runs that differ in every source. Dotted: churn of runs of equal
    seeds.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharex=True, sharey=True)
    value, low, high = spans([effects.every], 100, limits=(0, 1))[:, 0]
    titles = {"alone": "Only this source varies", "fixed": "Only this source is fixed"}
    for axis, key, look in zip(axes, titles, LOOKS, strict=False):
        axis.axvspan(low, high, color=GREY, alpha=0.2, linewidth=0)
        axis.axvline(value, **RULE | {"linestyle": "--"}, label="all sources vary")
        axis.axvline(100 * effects.floor, **RULE | {"linewidth": 1.5}, label="all sources fixed")
        churns = [getattr(source, key) for source in effects.sources.values()]
        look = look | {"scale": 100, "limits": (0, 1), "across": True}
        whiskers(axis, range(len(churns)), churns, **look)
        axis.set(title=titles[key], xlabel="churn (% of test queries)")
    name_rows(axes[0], list(effects.sources))
    axes[0].set(xlim=-0.5)
    legend_below(figure, axes[0])
    return figure


def rounding(found: Mapping[int, Mapping[str, Interval]]) -> Figure:
    """Churn from new seeds and churn from rounding alone, against the length of training.

    The number at each point is the share of the second in the first.

    Parameters
    ----------
    found : epochs -> what `analysis.sources.rounding` finds
    """
    rows = []
    for key, name in {"seeds": "new seeds", "rounding": "rounding alone"}.items():
        rows += [(name, epochs, row[key]) for epochs, row in found.items()]
    table = pd.DataFrame(rows, columns=["arm", "epochs", "churn"])
    figure = responses(table, "epochs", "epochs of the training", ["churn"])
    [axis] = figure.axes
    for epochs, row in found.items():
        if np.isfinite(row["share"].value):
            point = epochs, 100 * row["rounding"].value
            look = {"fontsize": 9, "ha": "center", "textcoords": "offset points"}
            axis.annotate(f"{row['share'].value:.0%}", point, (0, 6), **look)
    log_ticks(axis, list(found))
    axis.set_ylim(-0.02 * axis.get_ylim()[1], None)
    return figure


def four_churns(table: pd.DataFrame) -> Figure:
    """Seed churn, data churn and update churn of each method, and what they could add up to.

    An update is a change of the seed followed by a change of the data, so its churn is at most seed
    churn plus data churn (triangle inequality): the bar marks that sum.

    Parameters
    ----------
    table : columns `arm` and, as intervals, those of `seed_churn`, `data_churn` and `update_churn`
        that were measured
    """
    figure, axis = plt.subplots(figsize=(8, 0.55 * len(table) + 1.6))
    places = np.arange(len(table))
    known = [name for name in CHURNS if name in table]
    for name, look, shift in zip(known, LOOKS, (-0.2, 0, 0.2), strict=False):
        look = look | {"scale": 100, "across": True, "label": CHURNS[name]}
        whiskers(axis, places + shift, table[name], **look)
    if {"seed_churn", "data_churn"} <= set(known):
        most = spans(table.seed_churn, 100)[0] + spans(table.data_churn, 100)[0]
        words = "seed churn + data churn: update churn can be no more"
        axis.vlines(most, places - 0.3, places + 0.3, color="black", linewidth=2.5, label=words)
    name_rows(axis, table.arm)
    axis.set(xlabel="churn (% of test queries)")
    axis.set_xlim(-0.015 * axis.get_xlim()[1], None)
    legend_below(figure, axis)
    return figure

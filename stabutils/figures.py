"""Every plot of the study, one style. Functions take arrays and tables and return a matplotlib figure."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from pandas.io.formats.style import Styler
from PIL import Image
from scipy.optimize import isotonic_regression

from .intervals import Interval, runs_needed
from .metrics import label_entropy
from .records import ENSEMBLE

if TYPE_CHECKING:
    from .regions import Clustering
    from .sources import Effects

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (PALETTE[i] for i in (0, 1, 2, 3, 4, 7))
OTHER_SCRIPTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Hiragino Sans",
                 "Malgun Gothic", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS")


def style() -> None:
    """The one look of all figures: call once at the top of a notebook. Scripts that the usual font lacks are drawn in a
    font that has them, where one is installed."""
    installed = {font.name for font in fontManager.ttflist}
    others = [name for name in OTHER_SCRIPTS if name in installed]
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind",
                  rc={"figure.dpi": 96, "savefig.dpi": 96, "axes.spines.top": False, "axes.spines.right": False,
                      "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlesize": 12,
                      "figure.constrained_layout.use": True, "svg.hashsalt": "stabutils", "svg.fonttype": "none",
                      **({"font.family": ["sans-serif", *others]} if others else {})})


def show(figure: Figure, name: str, alt: str, folder: Path | str | None = None) -> None:
    """Show a figure with the finding as its alternative text, and save it as PNG and SVG when `folder` is given."""
    from IPython.display import display

    if folder is not None:
        save(figure, name, Path(folder), alt)
    picture = _png(figure)
    plt.close(figure)
    display({"image/png": picture, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})


def save(figure: Figure, name: str, folder: Path, alt: str = "") -> list[Path]:
    """Save as <name>.png and <name>.svg; equal figures are equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    png.write_bytes(_png(figure))
    figure.savefig(svg, metadata={"Date": None, "Title": name, "Description": alt or None})
    return [png, svg]


def _png(figure: Figure) -> bytes:
    """Without transparency, which no figure here uses, in 256 colours (of few dots too), packed as PNG can be."""
    drawn, packed = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    colours = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(packed, "png", optimize=True)
    return packed.getvalue()


def table(rows: pd.DataFrame) -> Styler:
    """A table to read: no index, left-aligned, and text of the data as text, whatever it contains; no formula either,
    so the classes by which MathJax knows what is none of its business. Named by its contents, so that equal tables are
    equal pages."""
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    name = hashlib.sha256(rows.to_csv().encode("utf-8", "backslashreplace")).hexdigest()[:8]
    escaped = Styler(rows, precision=3, uuid=name, cell_ids=False, escape="html")
    escaped = escaped.format_index(escape="html", axis="columns")
    return escaped.hide().set_table_styles(left).set_table_attributes('class="tex2jax_ignore mathjax_ignore"')


def short(text: str, longest: int = 44) -> str:
    """A text as a label: one line, cut at a word, and with nothing that matplotlib would read as mathematics."""
    line = " ".join(text.split()).replace("$", r"\$")
    return line if len(line) <= longest else line[:longest - 1].rsplit(" ", 1)[0] + " …"


def answers(labels: np.ndarray, gold: np.ndarray, texts: Sequence[str], each: int = 4) -> Figure:
    """The idea: the same query under every retraining. Rows: the most unstable, the middling and stable queries.

    labels (runs, examples). A cell's colour tells which answer the run gave: the most frequent one of the row, the
    second, the third, the fourth, or any rarer one; a dot marks the right answer; the bar beside is the label entropy.
    """
    entropy, rows = label_entropy(labels), telling_rows(labels, each)
    rank = np.array([_rank_of_answers(labels[:, row]) for row in rows])
    figure, (grid, bars) = plt.subplots(1, 2, figsize=(10, 0.36 * len(rows) + 1.5), width_ratios=(3, 1), sharey=True)
    colours = [(0.85, 0.87, 0.9), ORANGE, BLUE, GREEN, PURPLE]
    grid.pcolormesh(np.minimum(rank, 4), cmap=ListedColormap(colours), vmin=-0.5, vmax=4.5, edgecolors="white",
                    linewidth=2)
    hit_row, hit_run = np.nonzero(labels[:, rows].T == gold[rows, None])
    grid.plot(hit_run + 0.5, hit_row + 0.5, ".", color="black", markersize=5)
    grid.set(yticks=np.arange(len(rows)) + 0.5, xticks=np.arange(len(labels)) + 0.5,
             xlabel="retraining (same data, another seed)")
    grid.set_yticklabels([short(texts[row]) for row in rows])
    grid.set_xticklabels(np.arange(1, len(labels) + 1) if len(labels) <= 20 else [""] * len(labels))
    grid.invert_yaxis()
    grid.grid(False)
    grid.set_title("What each retraining answered (dot: right)")
    named = ("the query's commonest answer", "its second", "its third", "its fourth", "rarer ones, not one answer")
    figure.legend([Patch(color=colour) for colour in colours], named, loc="outside lower center", ncols=5, fontsize=9,
                  frameon=False)
    bars.barh(np.arange(len(rows)) + 0.5, entropy[rows], color=GREY, height=0.6)
    bars.set(xlabel=f"entropy over these\n{len(labels)} runs (nats)", xlim=(0, max(1.0, entropy.max() * 1.05)))
    return figure


def telling_rows(labels: np.ndarray, each: int = 4) -> np.ndarray:
    """The queries that `answers` shows: so many of the most unstable, of the middling, and of the stable ones."""
    entropy = label_entropy(labels)
    unstable = np.flatnonzero(entropy > 0)
    order = unstable[np.argsort(-entropy[unstable], kind="stable")]
    return np.concatenate([order[:each], order[each:][(len(order) - each) // 2:][:each],
                           np.flatnonzero(entropy == 0)[:each]])


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
    share.text(0.32, stays / 2, f"same answer\nin all {runs} runs\n{stays:.1f} %", va="center", fontsize=10)
    share.text(0.32, stays + changes / 2, f"changes\n{changes:.1f} %", va="center", fontsize=10)
    share.set(xlim=(-0.3, 1.1), ylim=(0, 105), xticks=[], ylabel="share of test queries (%)", title="All queries")
    share.grid(False)
    counts, _, _ = rest.hist(entropy[unstable], bins=np.linspace(0, max(1.2, entropy.max() + 0.02), 37), color=ORANGE)
    rest.set_ylim(0, 1.3 * max(1, counts.max()))
    for share_of_one, name, height in ((1 / runs, f"1 of {runs} runs differs", 1.27), (0.5, "split in halves", 1.17)):
        value = -sum(p * np.log(p) for p in (share_of_one, 1 - share_of_one))
        rest.axvline(value, color="black", linewidth=1, linestyle=":")
        rest.text(value, height * max(1, counts.max()), f" {name}", va="top", fontsize=9)
    rest.set(xlabel=f"label entropy over {runs} runs (nats)", ylabel="test queries", title="Those that change")
    return figure


def accuracy_and_churn(accuracy: np.ndarray, pairs: np.ndarray, churn: Interval) -> Figure:
    """The contrast of the study: accuracies of runs (runs,) hardly move; pairs (pairs,) of runs disagree much more."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.8))
    span = max(6.0, 120 * max(np.ptp(accuracy), pairs.max()))
    for axis, values, colour, title, label in (
            (left, accuracy, BLUE, "Accuracy of each run", "accuracy (%)"),
            (right, pairs, ORANGE, "Disagreement of each pair of runs", "queries answered differently (%)")):
        jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
        axis.plot(100 * values, jitter, "o", color=colour, alpha=0.6, markersize=6, markeredgecolor="white")
        axis.set(ylim=(-0.7, 0.7), yticks=[], xlabel=label, title=title)
    middle = 100 * accuracy.mean()
    left.set_xlim(middle - span / 2, middle + span / 2)
    right.set_xlim(0, span)
    value, low, high = 100 * churn.value, max(0.0, 100 * churn.low), min(100.0, 100 * churn.high)
    right.errorbar([value], [0.5], xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], fmt="D", color="black",
                   capsize=4)
    right.text(0.02, 0.95, f"churn {value:.1f} % [{low:.1f}, {high:.1f}]", va="top", fontsize=10,
               transform=right.transAxes)
    return figure


def intervals(rows: Mapping[str, Interval], label: str, reference: float | None = None,
              limits: tuple[float, float] = (-np.inf, np.inf)) -> Figure:
    """Values with their intervals, one row each, top down; a dotted line at `reference`. An interval that reaches past
    what the number can be is drawn to its `limits`."""
    figure, axis = plt.subplots(figsize=(8, 0.38 * len(rows) + 1.0))
    for place, interval in enumerate(rows.values()):
        value, low, high = np.clip([interval.value, interval.low, interval.high], *limits)
        axis.errorbar([value], [place], xerr=[[value - low], [high - value]], fmt="o", color=BLUE, capsize=3)
    if reference is not None:
        axis.axvline(reference, color="black", linestyle=":", linewidth=1)
    axis.set(yticks=range(len(rows)), yticklabels=[short(name, 60) for name in rows], xlabel=label,
             ylim=(len(rows) - 0.5, -0.5))
    return figure


def through_training(rows: Mapping[str, Sequence[Interval]], share: np.ndarray, top: float) -> Figure:
    """How soon a single training knows: quality of proxies (a line with a band each) over the share of training done.

    top: for reference, what half of the runs say about the other half.
    """
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for (name, line), colour, mark in zip(rows.items(), (BLUE, ORANGE, GREEN, PURPLE), "osD^", strict=False):
        axis.plot(100 * share, [i.value for i in line], marker=mark, color=colour, label=name)
        low, high = [i.low for i in line], [i.high for i in line]
        axis.fill_between(100 * share, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.axhline(top, color="black", linestyle="--", linewidth=1)
    axis.text(100 * share[0], top, "half of the runs about the other half", va="bottom", fontsize=9)
    axis.axhline(0.5, color="black", linestyle=":", linewidth=1)
    axis.set(xlabel="share of the training done (%)", ylabel="AUROC, unstable in other runs", ylim=(0.45, 1.02))
    axis.legend(loc="lower right", frameon=False)
    return figure


def training_map(confidence: np.ndarray, spread: np.ndarray, entropy: np.ndarray) -> Figure:
    """Training dynamics of one run (after Swayamdipta et al. 2020), coloured by what the *other* runs do.

    confidence and spread (examples,): mean and standard deviation of the gold label's probability over one run's
    checkpoints; entropy (examples,): label entropy of other runs, nats.
    """
    figure, axis = plt.subplots(figsize=(8, 4.4))
    order = np.argsort(entropy, kind="stable")
    dots = axis.scatter(spread[order], confidence[order], c=entropy[order], cmap="viridis_r", s=16, linewidth=0)
    figure.colorbar(dots, label="label entropy over the other runs (nats)")
    axis.set(xlabel="spread of the right answer's probability while training",
             ylabel="mean probability of the right answer", ylim=(-0.02, 1.02))
    for x, y, text, across, up in ((0.02, 0.9, "easy", "left", "top"), (0.98, 0.45, "ambiguous", "right", "center"),
                                   (0.02, 0.2, "hard", "left", "center")):
        axis.text(x, y, text, transform=axis.transAxes, ha=across, va=up, style="italic", weight="bold")
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
            axis.plot([needed, needed, 0], [0, width, width], color=GREY, linestyle=":", linewidth=1.5)
            axis.text(needed, width, f" ±{width} points: {needed} runs", va="bottom", fontsize=9)
    axis.set(xscale="log", xlabel="runs", ylabel="half-width of churn (± points)", xlim=(3, most))
    axis.set_ylim(0, max(1.2, 1.05 * axis.get_ylim()[1]))
    axis.set_xticks([3, 5, 10, 20, 50, 100], [3, 5, 10, 20, 50, 100])
    return figure


def nulls(spaces: Mapping[str, Mapping[str, Clustering]]) -> Figure:
    """Is it more than chance? Moran's I with its interval over runs (diamond), and where places do not matter (grey).

    spaces: a panel each, of the questions asked, a row each. Grey dots are a quarter of the values under shuffling,
    where they are known; the bar spans the middle 95 % of all.
    """
    count, rows = len(spaces), max(map(len, spaces.values()))
    figure, axes = plt.subplots(1, count, figsize=(2 + 2.9 * count, 0.55 * rows + 1.4), sharey=True, sharex=True,
                                squeeze=False)
    for axis, (space, tests) in zip(axes[0], spaces.items(), strict=True):
        for place, test in enumerate(tests.values()):
            dots = test.null[::4]
            jitter = np.random.default_rng(0).uniform(-0.22, 0.22, dots.size)
            axis.plot(dots, place + jitter, ".", color=GREY, alpha=0.4, markersize=3, rasterized=True)
            axis.plot([test.chance.low, test.chance.high], [place, place], color="black", linewidth=4)
            value, low, high = test.observed.value, test.observed.low, test.observed.high
            axis.errorbar([value], [place], xerr=[[value - low], [high - value]], fmt="D", color=ORANGE, capsize=4)
            if test.p == test.p:
                axis.text(value, place - 0.18, f"p {'=' if test.p > 0.001 else '≤'} {test.p:.3f}", fontsize=9,
                          ha="center", va="bottom")
        axis.axvline(0, color="black", linestyle=":", linewidth=1)
        axis.set_title(f"space of {space}", fontsize=11)
        axis.margins(x=0.12)
    axes[0, 0].set(yticks=range(rows), yticklabels=list(next(iter(spaces.values()))), ylim=(rows - 0.4, -0.7))
    figure.supxlabel("Moran's I of label entropy; black: 95 % of what shuffled places give", fontsize=11)
    return figure


def instability_map(xy: np.ndarray, entropy: np.ndarray, regions: np.ndarray, names: Sequence[str],
                    towns: np.ndarray = (), intents: Sequence[str] = ()) -> Figure:
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
    for town, intent in zip(towns, intents, strict=True):  # names that would lie upon others are left out
        word = axis.text(*town, short(intent), fontsize=8, color="black", alpha=0.6, ha="center", va="center")
        box = word.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            word.remove()
        else:
            taken.append(box)
    badges: list[np.ndarray] = []
    for region, name in enumerate(names):
        own, colour = xy[regions == region], PALETTE[(0, 3, 2, 4, 5, 6, 1, 9, 8, 7)[region % 10]]
        axis.plot(*own.T, "os^Dvp"[region % 6], markersize=9, markerfacecolor="none", markeredgecolor=colour,
                  label=f"{region + 1}: {short(name, 60)}")
        badge, far = np.median(own, axis=0), np.ptp(xy, axis=0).max() / 25
        if badges and np.linalg.norm(np.subtract(badges, badge), axis=1).min() < far:  # not one upon the other
            badge = own[np.argmax([np.linalg.norm(np.subtract(badges, place), axis=1).min() for place in own])]
        badges.append(badge)
        axis.text(*badge, region + 1, fontsize=12, weight="bold", color=colour, ha="center",
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colour, "alpha": 0.9})
    if len(names):
        figure.legend(loc="outside lower left", ncols=2, fontsize=10, title="regions more unstable than chance")
    axis.set(xticks=[], yticks=[], xlabel="similar queries lie side by side")
    axis.grid(False)
    return figure


def trade_off(table: pd.DataFrame) -> Figure:
    """The board at a glance, a row a method, best first: stability gained (left) and what it does to accuracy (right),
    both against control with their intervals.

    table: rows of a board with arm, reduction, accuracy_change (Intervals or None), trainings and better. Blue: better
    than control beyond doubt; convex, which takes all away, is drawn at the edge. Shaded: a method costs too much.
    """
    rows = table[table.reduction.notna() & (table.arm != "control")]
    rows = rows.iloc[np.argsort([-i.value for i in rows.reduction], kind="stable")]
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.27 * len(rows) + 1.7), sharey=True)
    places, convex = np.arange(len(rows)), (rows.arm == "convex").to_numpy()
    colours = [{"convex": RED, "placebo": ORANGE}.get(row.arm, BLUE if row.better == "holds" else GREY)
               for row in rows.itertuples()]
    for axis, name in zip(axes, ("reduction", "accuracy_change"), strict=True):
        value, low, high = 100 * np.array([[i.value, i.low, i.high] for i in rows[name]]).T
        if name == "reduction":
            edge = max(high[~convex], default=100) + 4
            value, low, high = np.where(convex, edge, [value, low, high])
            axis.plot(value[convex], places[convex], ">", color=RED, markersize=10, clip_on=False)
            axis.set_xlim(min([-2, *(low[~convex] - 2)]), edge)
        for place, colour in enumerate(colours):
            axis.errorbar([value[place]], [place], xerr=[[value[place] - low[place]], [high[place] - value[place]]],
                          fmt="none" if convex[place] and name == "reduction" else "o", color=colour, capsize=3)
        axis.axvline(0, color="black", linestyle=":", linewidth=1)
    priced = [f"{row.arm} ({row.trainings:.3g})" if row.trainings == row.trainings and row.trainings != 1 else row.arm
              for row in rows.itertuples()]
    axes[0].set(yticks=places, ylim=(len(rows) - 0.4, -0.6), xlabel="label entropy taken away, % of control's")
    axes[0].set_yticklabels([short(name, 46) for name in priced])
    axes[1].set_xlim(min(-1.0, axes[1].get_xlim()[0]))
    axes[1].axvspan(axes[1].get_xlim()[0], -0.5, color=RED, alpha=0.08, linewidth=0)
    axes[1].set(xlabel="change of accuracy (points)")
    figure.supxlabel("Blue: steadier beyond doubt, accuracy kept to half a point. In brackets: trainings, if not one",
                     fontsize=11)
    return figure


def soft_labels(soft: np.ndarray, labels: np.ndarray, texts: Sequence[str], names: Sequence[str],
                most: int = 4) -> Figure:
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
                axis.text(left + width / 2, row, short(names[answer], max(4, int(75 * width))), fontsize=9,
                          ha="center", va="center", color="black" if own or rank > 1 else "white")
            left += width
        axis.barh(row, 1 - left, left=left, color="white", edgecolor=GREY, hatch="////", linewidth=0.3)
    axis.set(yticks=range(len(texts)), yticklabels=[short(text, 50) for text in texts], xlim=(0, 1),
             xlabel="probability that the teacher gave, mean over its training")
    axis.invert_yaxis()
    return figure


def grid(cells: Mapping[tuple[float, float], Interval], down: str, across: str) -> Figure:
    """A number for each pair of settings, with its interval: a shade and a text a cell."""
    rows, columns = (sorted({place[axis] for place in cells}) for axis in (0, 1))
    values = np.array([[100 * cells[row, column].value for column in columns] for row in rows])
    words = [[f"{100 * i.value:.1f} %\n[{100 * i.low:.1f}, {100 * i.high:.1f}]" for i in (cells[row, column] for column
              in columns)] for row in rows]
    figure, axis = plt.subplots(figsize=(1.7 * len(columns) + 2.5, 0.9 * len(rows) + 1.2))
    reach = max(1.0, np.abs(values).max())
    shades = axis.imshow(values, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
    for row, line in enumerate(words):
        for column, text in enumerate(line):
            strong = abs(values[row, column]) > 0.7 * reach
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if strong else "black")
    axis.set(xlabel=across, ylabel=down, xticks=range(len(columns)), xticklabels=[f"{column:g}" for column in columns],
             yticks=range(len(rows)), yticklabels=[f"{row:g}" for row in rows])
    axis.spines[:].set_visible(False)
    axis.grid(False)
    figure.colorbar(shades, label="label entropy taken away (%)")
    return figure


def dose_response(table: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Label entropy (above) and accuracy (below) on validation texts against strength, a column a method.

    table: of `tuning.choose`. Filled: the strength chosen. Line and band: control's value and interval.
    """
    control, count = table[table.method == "control"].iloc[0], len(methods)
    figure, axes = plt.subplots(2, count, figsize=(3.3 * count, 4.6), sharey="row", sharex="col", squeeze=False)
    for column, method in enumerate(methods):
        rows = table[table.method == method]
        places = np.arange(len(rows))
        for axis, name, scale, colour in zip(axes[:, column], ("label_entropy", "accuracy"), (1, 100), (ORANGE, BLUE),
                                             strict=True):
            value, low, high = (scale * rows[f"{name}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
            axis.axhspan(scale * control[f"{name}_low"], scale * control[f"{name}_high"], color=GREY, alpha=0.2,
                         linewidth=0)
            axis.axhline(scale * control[name], color="black", linestyle=":", linewidth=1)
            axis.errorbar(places, value, yerr=[value - low, high - value], color=colour, capsize=3, linewidth=1)
            for place, picked in enumerate(rows.chosen):
                axis.plot([place], value[[place]], "o", color=colour, markerfacecolor=colour if picked else "white")
        axes[0, column].set_title(method)
        axes[1, column].set(xticks=places, xticklabels=[f"{strength:g}" for strength in rows.strength],
                            xlabel="strength", xlim=(-0.5, len(rows) - 0.5))
    axes[0, 0].set(ylabel=f"LE@{control.n} (nats)", ylim=0)
    axes[1, 0].set(ylabel="accuracy (%)")
    return figure


def lengths(table: pd.DataFrame, usual: float) -> Figure:
    """Label entropy and accuracy over epochs of training, a whole schedule each, and of how many runs; a dotted line at
    the usual length."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    labels = f"LE@{table.n[0]} (nats)", "accuracy (%)"
    for axis, name, label, scale in zip(axes, ("label_entropy", "accuracy"), labels, (1, 100), strict=True):
        value, low, high = scale * np.array([[i.value, i.low, i.high] for i in table[name]]).T
        axis.errorbar(table.epochs, value, yerr=[value - low, high - value], fmt="o-", color=BLUE, capsize=3)
        axis.axvline(usual, color="black", linestyle=":", linewidth=1, label="control")
        axis.set(xscale="log", xlabel="epochs of training (of how many runs)", ylabel=label)
        axis.set_xticks(table.epochs, [f"{row.epochs:g}\n({row.runs})" for row in table.itertuples()], fontsize=8)
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
    axis.set(xscale="log", xlabel="CPU-seconds of one thread", ylabel="accuracy on validation texts (%)")
    axis.legend(loc="lower right")
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
    axis.set(xlabel="change of label entropy (nats); left: steadier", ylabel="change of accuracy (points)")
    axis.margins(x=0.05)
    ends = [*range(min(6, len(table))), *range(max(6, len(table) - 2), len(table))]
    _named(axis, {f"{short(str(table.intent.iloc[row]), 30)} ({table.examples.iloc[row]})": (x[row], y[row])
                  for row in ends if y[row]})
    return figure


def sources(effects: Effects) -> Figure:
    """Churn by source of randomness: with only this source varying (left), with only this one fixed (right).

    Dashed with a band: churn of runs that differ in every source. Dotted: churn of trainings of equal seeds.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharex=True, sharey=True)
    for axis, key, title, colour, mark in ((axes[0], "alone", "Only this source varies", BLUE, "o"),
                                           (axes[1], "fixed", "Only this source is fixed", ORANGE, "D")):
        axis.axvspan(100 * max(0, effects.every.low), 100 * effects.every.high, color=GREY, alpha=0.2, linewidth=0)
        axis.axvline(100 * effects.every.value, color="black", linestyle="--", linewidth=1, label="all three vary")
        axis.axvline(100 * effects.floor, color="black", linestyle=":", linewidth=1.5, label="all three fixed")
        for place, source in enumerate(effects.sources.values()):
            churn = getattr(source, key)
            ends = [[100 * (churn.value - max(0, churn.low))], [100 * (churn.high - churn.value)]]
            axis.errorbar([100 * churn.value], [place], xerr=ends, fmt=mark, color=colour, capsize=4)
        axis.set(title=title, xlabel="churn (% of test queries)")
    axes[0].set(yticks=range(len(effects.sources)), yticklabels=list(effects.sources), xlim=-0.5,
                ylim=(len(effects.sources) - 0.5, -0.5))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def rounding(found: Mapping[int, Mapping[str, Interval]]) -> Figure:
    """Churn from new seeds and churn from rounding alone against how long is trained: epochs -> `sources.rounding`.
    The number at each point is the share of the second in the first."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for key, name, colour, mark in (("seeds", "new seeds", ORANGE, "D"), ("rounding", "rounding alone", BLUE, "o")):
        value, low, high = (100 * np.array([getattr(row[key], end) for row in found.values()])
                            for end in ("value", "low", "high"))
        axis.plot(list(found), value, marker=mark, color=colour, label=name)
        axis.fill_between(list(found), np.maximum(0, low), high, color=colour, alpha=0.2, linewidth=0)
    for epochs, row in found.items():
        if np.isfinite(row["share"].value):
            axis.annotate(f"{row['share'].value:.0%}", (epochs, 100 * row["rounding"].value), (0, 6), fontsize=9,
                          ha="center", va="bottom", textcoords="offset points")
    axis.set(xscale="log", xlabel="epochs of the training", ylabel="churn (% of test queries)")
    axis.set_ylim(-0.02 * axis.get_ylim()[1], None)
    axis.set_xticks(list(found), list(found))
    axis.minorticks_off()
    axis.margins(x=0.08)
    axis.legend(frameon=False)
    return figure


def votes(rows: Mapping[str, pd.DataFrame], model: Mapping[int, Sequence[float]], single: Interval) -> Figure:
    """Label entropy against the members of an ensemble: measured (dots), and as odds and independent votes have it.

    rows: kind of ensemble -> table of `frontier.measured`, all at one n; model: members -> values of `vote_model`, one
    for each part of the runs that it was told of; single: of runs alone.
    """
    figure, axis = plt.subplots(figsize=(8, 3.8))
    low, high = ([end(values) for values in model.values()] for end in (min, max))
    axis.fill_between(list(model), low, high, color=GREY, alpha=0.4, linewidth=0, label="votes by each query's odds")
    axis.errorbar([1], [single.value], yerr=[[single.value - single.low], [single.high - single.value]], fmt="o",
                  color="black", capsize=3, label="single runs")
    for (name, table), colour, mark, aside in zip(rows.items(), (BLUE, GREEN, ORANGE), "osD", (1, 1.03, 0.97),
                                                  strict=False):
        value, down, up = (np.array([getattr(i, end) for i in table.label_entropy]) for end in ("value", "low", "high"))
        axis.errorbar(aside * table["size"], value, yerr=[value - np.maximum(0, down), up - value], fmt=mark,
                      color=colour, capsize=3, label=name)
    every = sorted({1, *model, *(size for table in rows.values() for size in table["size"])})
    axis.set(xscale="log", xlabel="members", ylabel="label entropy (nats)", ylim=0)
    axis.set_xticks(every, every)
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure


def frontier(table: pd.DataFrame) -> Figure:
    """What each method takes away against what its training costs; the marker: passes for an answer.

    table: of `frontier.frontier`. Blue and named: better than control beyond doubt, and no other network is as good in
    everything for no more, by the values; all others are grey. Triangle: the convex learner, which costs next to
    nothing and never flips. Dashed: the ensemble that takes most away.
    """
    rows = table[table.arm != "control"].sort_values(["trainings", "arm"])
    figure, axis = plt.subplots(figsize=(10, 5.6))
    places = (rows.groupby("trainings").cumcount() + 0.5) / rows.groupby("trainings").arm.transform("size")
    points, named, ensembles = {}, {}, [0.0]
    for row, place in zip(rows.itertuples(), places, strict=True):  # those of one price side by side, within a tenth
        points[row.arm] = x, y = max(row.trainings, 0.6) * 1.2 ** (place - 0.5), 100 * row.reduction.value
        first, convex = row.better == "holds" and not row.dominated, row.arm == "convex"
        colour, mark = RED if convex else BLUE if first else GREY, "^" if convex else _marker(row.passes)
        axis.plot([x, x], np.clip([100 * row.reduction.low, 100 * row.reduction.high], -60, 110), color=colour,
                  alpha=0.45, linewidth=1)
        axis.scatter([x], [y], s=120 if convex else 60, color=colour, marker=mark, edgecolor="white", zorder=3 + first)
        if convex:
            named[f"convex: accuracy {100 * row.accuracy_change.value:+.1f} points"] = x, y
        elif first:
            named[row.arm] = x, y
        if re.match(ENSEMBLE, row.arm):
            ensembles.append(y)
    axis.axhline(max(ensembles), color=BLUE, linestyle="--", linewidth=1)
    axis.axhline(0, color="black", linestyle=":", linewidth=1)
    axis.set(xscale="log", xlabel="trainings (of one price side by side)",
             ylabel="label entropy taken away, % of control's")
    axis.set_xticks([0.6, 1, 2, 3, 5, 10], [0, 1, 2, 3, 5, 10])
    axis.minorticks_off()
    dots = [axis.plot([], [], mark, color=colour, linestyle="none")[0]
            for mark, colour in (("o", BLUE), ("o", GREY), ("o", "black"), ("s", "black"), ("D", "black"))]
    figure.legend(dots, ["no other network is as good for no more", "others, or not beyond doubt better than control",
                         "one pass an answer", "up to five", "more"],
                  loc="outside lower center", ncols=5, frameon=False, fontsize=9, columnspacing=1, handletextpad=0.2)
    _named(axis, named)
    return figure


def _marker(passes: float) -> str:
    return "o" if passes <= 1 else "s" if passes <= 5 else "D"


def _named(axis: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names of points at the right of an axis, as near to the height of each as those of its neighbours let it be."""
    order = sorted(points, key=lambda name: points[name][1])
    heights = np.array([axis.transAxes.inverted().transform(axis.transData.transform(points[name]))[1]
                        for name in order])
    gap = min(1 / len(order), 15 / axis.bbox.height)
    steps = gap * np.arange(len(order))
    places = np.clip(isotonic_regression(heights - steps).x, 0, 1 - gap * (len(order) - 1)) + steps
    for name, place in zip(order, places, strict=True):
        axis.annotate(name, points[name], (1.05, place), fontsize=10, va="center", textcoords="axes fraction",
                      annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": GREY, "alpha": 0.5, "linewidth": 0.8, "shrinkB": 4,
                                  "relpos": (0, 0.5)})


def budgets(best: pd.DataFrame) -> Figure:
    """The best that a budget buys: columns trainings (the budget), answer (which passes are allowed: a line each), arm,
    reduction (Interval)."""
    figure, axis = plt.subplots(figsize=(8, 3.6))
    for (name, own), colour, mark, up in zip(best.groupby("answer"), (BLUE, ORANGE), "oD", (8, -14), strict=False):
        value, low, high = (100 * np.array([getattr(i, end) for i in own.reduction])
                            for end in ("value", "low", "high"))
        axis.errorbar(own.trainings, value, yerr=[value - low, high - value], fmt=f"{mark}-", color=colour, capsize=3,
                      drawstyle="steps-post", label=name)
        fresh = own.arm != own.arm.shift()
        for budget, top, arm in zip(own.trainings[fresh], value[fresh], own.arm[fresh], strict=True):
            axis.annotate(arm, (budget, top), (4, up), textcoords="offset points", fontsize=9, color=colour)
    axis.axhline(0, color="black", linestyle=":", linewidth=1)
    axis.set(xscale="log", xlabel="budget of trainings", ylabel="label entropy taken away (%)")
    axis.set_xticks(sorted(set(best.trainings)), [f"{budget:g}" for budget in sorted(set(best.trainings))])
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
        for (name, table), colour, mark in zip(curves.items(), (GREY, BLUE, ORANGE, GREEN), "osD^", strict=False):
            value, low, high = (100 * np.array([getattr(i, end) for i in table[key]]) for end in
                                ("value", "low", "high"))
            axis.plot(100 * table.coverage, value, marker=mark, color=colour, label=name)
            axis.fill_between(100 * table.coverage, np.maximum(0, low), high, color=colour, alpha=0.2, linewidth=0)
        axis.set(xlabel="queries answered (%)", ylabel=f"{key} among them (%)", ylim=0)
    axes[0].legend(frameon=False)
    return figure

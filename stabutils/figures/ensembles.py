"""What ensembles, abstention, and a linear model as an anchor do to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from stabutils.analysis.board import LINEAR
from stabutils.figures.marks import (
    label_points,
    legend_below,
    log_ticks,
    name_rows,
    responses,
    spans,
    whiskers,
)
from stabutils.figures.theme import BLUE, DASHES, LOOKS, ORANGE, RED, short
from stabutils.metrics.intervals import Interval

LIKELIEST = 4  # answers to a query that are shown


def votes(rows: Mapping[str, pd.DataFrame], model: Mapping[int, float], single: Interval) -> Figure:
    """Label entropy against the members of an ensemble: measured, and as independent votes have it.

    Parameters
    ----------
    rows : kind of ensemble -> table of `analysis.ensembles.table`, all at one n
    model : members -> label entropy of `analysis.ensembles.independent`, dashed
    single : of runs alone
    """
    figure, axis = plt.subplots(figsize=(8, 3.8))
    words = "expected of votes that follow each query's odds"
    axis.plot(list(model), list(model.values()), "--", color="dimgrey", label=words)
    whiskers(axis, [1], [single], color="black", marker="X", label="single runs")
    sizes = {1, *model}
    for name, look, aside in zip(rows, LOOKS, (1, 1.03, 0.97), strict=False):
        members, label = rows[name]["size"], f"ensembles, {short(name)}"
        whiskers(axis, aside * members, rows[name].label_entropy, **look, label=label)
        sizes |= set(members)
    log_ticks(axis, sorted(sizes))
    axis.set(xlabel="members", ylabel="label entropy (nats)", ylim=0)
    axis.legend(frameon=False)
    return figure


def selective(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Churn and error where a model abstains from the most uncertain queries.

    Parameters
    ----------
    curves : name -> table of `analysis.reliability.curve`
    """
    table = pd.concat([rows.assign(arm=name) for name, rows in curves.items()])
    names = {
        "churn": "churn among them (%)",
        "served_churn": "churn of all queries,\nto abstain being an answer (%)",
        "error": "error among them (%)",
    }
    figure = responses(table, "coverage", "queries answered (%)", [*names], scale=100)
    for axis, name in zip(figure.axes, names.values(), strict=True):
        axis.set(ylabel=name, ylim=0)
    return figure


def anchor_curve(curves: Mapping[str, pd.DataFrame], points: pd.DataFrame) -> Figure:
    """Accuracy and churn along the weight of a linear model in a mixture.

    Numbers on the curves are weights, 0 the network alone and 1 the linear model alone; on curves
    of ensembles they are numbers of members.

    Parameters
    ----------
    curves : kind of mixture -> columns `weight`, and the intervals `accuracy` and `churn`; kind of
        ensemble -> the same with `size`
    points : columns `arm`, and the same intervals: the network and the linear model alone, which
        are the ends of a curve, and other arms; triangles for linear models, diamonds for others
    """
    figure, axis = plt.subplots(figsize=(9, 5.4))
    places = _crosses(axis, points, color="black", linestyle="none")
    names, colours = list(points.arm), ["black"] * len(points)
    for name, place in zip(names, places, strict=True):
        colour, mark = (RED, "^") if name.startswith(LINEAR) else ("black", "D")
        axis.plot(*place, marker=mark, color=colour, zorder=5)
    for look, dashes, (kind, table) in zip(LOOKS, cycle(DASHES), curves.items(), strict=False):
        along, numbers = ("weight", "weights") if "weight" in table else ("size", "members")
        table = table.sort_values(along)
        curve = _crosses(axis, table, **look, linestyle=dashes, label=f"{short(kind)} ({numbers})")
        inner = ~table[along].isin([0, 1]).to_numpy()  # the ends are points
        names += [f"{number:g}" for number in table[along][inner]]
        colours += [look["color"]] * inner.sum()
        places = np.concatenate([places, curve[inner]])
    axis.set(xlabel="churn (% of queries)", ylabel="accuracy (%)")
    axis.margins(0.08)
    legend_below(figure, axis)
    label_points(axis, names, places, colours)
    return figure


def _crosses(axis: Axes, table: pd.DataFrame, **look) -> ndarray:
    """Marks with intervals in both directions; returns where they stand, (rows, 2)."""
    x, left, right = spans(table.churn, 100)
    y, low, high = spans(table.accuracy, 100)
    across, up = [x - left, right - x], [y - low, high - y]
    axis.errorbar(x, y, xerr=across, yerr=up, **look, elinewidth=0.6)
    return np.stack([x, y], axis=1)


def odds(
    network: ndarray,
    linear: ndarray,
    mixture: ndarray,
    names: Sequence[str],
    gold: int | None = None,
) -> Figure:
    """The idea of an anchor on one query: odds of a network over runs, the linear model, both.

    A dot is the probability that a run gives to one of the likeliest four answers, filled where it
    is the run's answer.

    Parameters
    ----------
    network, mixture : (runs, classes), probabilities
    linear : (classes,), the linear model's
    names : of the classes
    gold : the right answer, ticked where it is known
    """
    shown = np.argsort(-np.maximum(network.mean(axis=0), linear), kind="stable")[:LIKELIEST]
    size = 11, 0.55 * len(shown) + 1.6
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=size, sharex=True, sharey=True)
    left.set_title("One network, retrained")
    right.set_title("The mixture of both")
    for axis, probabilities in ((left, network), (right, mixture)):
        counts = np.bincount(probabilities.argmax(axis=1))
        _dots(axis, probabilities, shown)
        axis.set_xlabel(f"probability\n{counts.max()} of {len(probabilities)} runs agree")
    middle.barh(range(len(shown)), linear[shown], height=0.5, color=ORANGE)
    middle.set(title="A linear model, no seed", xlabel="probability\nthe same in every run")
    words = [str(names[label]) + (" ✓" if label == gold else "") for label in shown]
    name_rows(left, words)
    left.set(xlim=(-0.02, 1.02))
    return figure


def _dots(axis: Axes, probabilities: ndarray, shown: ndarray) -> None:
    """A dot for each run and answer that is shown, filled where it is the run's answer."""
    answers = probabilities.argmax(axis=1)
    jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(answers))
    for place, label in enumerate(shown):
        faces = np.where((answers == label)[:, None], BLUE, (1, 1, 1))
        across, up = probabilities[:, label], place + jitter
        axis.scatter(across, up, s=25, edgecolors=[BLUE], facecolors=faces)

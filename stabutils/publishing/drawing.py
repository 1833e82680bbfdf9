"""The published study: what `records/` holds, and the figures made from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from stabutils import figures, metrics, records
from stabutils.analysis.regions import Clustering
from stabutils.metrics.intervals import jackknife
from stabutils.publishing.results import RATIOS, benchmark, board, control, lengths, numbers


def draw(folder: Path, target: Path) -> list[Path]:
    """The figures of one published corpus from its records alone, PNG and SVG."""
    arrays, record = control(folder)
    labels, gold = arrays["labels"].astype(int), np.array(record["gold"])
    queries = pd.read_csv(folder / "queries.csv", index_col="query", keep_default_na=False)
    texts = queries["text"].reindex(range(labels.shape[1]), fill_value="").tolist()
    churn = jackknife(metrics.churn, labels)
    pairs = metrics.churn_matrix(labels)[np.triu_indices(len(labels), 1)]
    plots: dict[str, Callable] = {
        "answers": lambda: figures.answers(labels[:20], gold, texts),
        "accuracy-and-churn": lambda: figures.accuracy_and_churn(arrays["accuracy"], pairs, churn),
        "entropy": lambda: figures.entropy_distribution(labels),
        "how-many-runs": lambda: figures.how_many_runs(churn),
        "training-map": lambda: figures.training_map(
            arrays["confidence_mean"][0],
            arrays["confidence_spread"][0],
            metrics.label_entropy(labels[1:]),
        ),
    }
    if spaces := _clusters(folder):
        plots["clusters"] = lambda: figures.nulls(spaces)
    methods = board(folder)
    boards = {"-regularizers": board(folder, "03"), "-data-centric": board(folder, "04")}
    boards = {name: own for name, own in boards.items() if len(own)} or (
        {"": methods} if len(methods) else {}
    )
    for name, own in boards.items():  # all on one are too many to read
        plots[f"trade-off{name}"] = lambda own=own: figures.trade_off(own)
    if (folder / "05_ensembles.json").is_file():
        plots["frontier"] = lambda: figures.frontier(_frontier(methods))
    if len(table := lengths(folder)):
        plots["training-length"] = lambda: figures.lengths(table, record["recipe"]["epochs"])
    corpus = folder.name.removesuffix(f"-{record['model']}")
    return _drawn(plots, target, f"{corpus} · {record['model']} · {len(labels)} runs of control")


def _clusters(folder: Path) -> dict[str, dict[str, Clustering]]:
    """What notebook 02 found, by space and question; of shuffled places the record has the middle 95 % only."""
    found, spaces = numbers(folder, "02"), {}
    for name, number in found.items():
        asked = re.fullmatch(r"moran (?P<question>.+) \((?P<space>\w+)\)", name)
        chance = found.get(name.replace("moran", "chance", 1))
        if asked and chance:
            spaces.setdefault(asked["space"], {})[asked["question"]] = Clustering(
                records.interval(number), records.interval(chance), np.nan, np.empty(0)
            )
    return spaces


def _frontier(methods: pd.DataFrame) -> pd.DataFrame:
    """The methods with who dominates whom; the convex learner, which is hardly trained, dominates none."""
    from stabutils.analysis.frontier import dominated

    retrained = methods[~methods.arm.isin(["convex", "placebo"])].copy()
    retrained["dominated"] = dominated(retrained)
    convex = methods[methods.arm == "convex"].assign(trainings=0.0, dominated="")
    return pd.concat([retrained, convex], ignore_index=True)


def draw_benchmark(root: Path, target: Path) -> list[Path]:
    """The figures of what `make benchmark` measured, PNG and SVG."""
    rows = {
        RATIOS[name][0].replace("`", ""): interval
        for name, interval in benchmark(root).items()
        if name != "entropy_ratio"
    }  # on another scale
    plots: dict[str, Callable] = {
        "benchmark": lambda: figures.intervals(rows, "times as fast", 1, (0, np.inf))
    }
    curves = root / "records" / "benchmark_curves.csv"
    if curves.is_file():
        reference = records.read(root / "records" / "benchmark.json").numbers["reference_accuracy"][
            "value"
        ]
        plots["time-to-accuracy"] = lambda: figures.learning(pd.read_csv(curves), reference)
    return _drawn(plots, target, "texts of MASSIVE")


def _drawn(plots: dict[str, Callable], target: Path, about: str) -> list[Path]:
    """Each with what it is about in its upper right corner, for a slide has no caption."""
    figures.style()
    written = []
    for name, plot in plots.items():
        figure = plot()
        inch = 1 / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.22 * inch))
        figure.text(
            0.995, 1 - 0.03 * inch, about, ha="right", va="top", fontsize=9, color="dimgrey"
        )
        written += figures.save(figure, name, target)
        plt.close(figure)
    return written


def telling(labels: np.ndarray) -> np.ndarray:
    """The queries whose texts the published figures and tables show: rows of `figures.answers`, and the 20 worst."""
    worst = np.argsort(-metrics.label_entropy(labels), kind="stable")[:20]
    return np.union1d(figures.telling_rows(labels[:20]), worst)

"""The published figures, made from `records/` alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stabutils import figures, metrics
from stabutils.analysis import board, frontier
from stabutils.analysis.regions import Clustering
from stabutils.metrics import scores
from stabutils.metrics.intervals import Interval
from stabutils.publishing import claims, results
from stabutils.records import Record

Figures = dict[str, Figure]  # by name
ATTRIBUTES = {  # of a test query, in words
    "conflict": "labels of the nearest training texts disagree",
    "duplicate": "the same words are in training",
    "nearness": "a training text is near",
    "rare": "share of rare words",
    "words": "length in words",
}
SHOWN = 20  # runs, columns of the figure of answers
NOTEBOOKS = {  # whose runs of control a figure shows; others show all that are published
    "one-run": "01",
    "attributes": "02",
    "clusters": "02",
    "trade-off-regularizers": "03",
    "trade-off-data-centric": "04",
    "trade-off-neighbours": "09",
    "anchor-curve": "06",
}


def draw(folder: Path, target: Path) -> list[Path]:
    """The figures of one published corpus and model, PNG and SVG."""
    figures.style()
    arrays, record = results.control(folder)
    labels, gold = arrays["labels"].astype(int), np.array(record["gold"])
    queries = pd.read_csv(folder / "queries.csv", index_col="query", keep_default_na=False)
    texts = queries["text"].reindex(range(labels.shape[1]), fill_value="").tolist()
    churn = scores.churn(labels).interval()
    pairs = metrics.churn_matrix(labels)[np.triu_indices(len(labels), 1)]
    others = metrics.label_entropy(labels[1:])
    dynamics = arrays["confidence_mean"][0], arrays["confidence_spread"][0]
    drawn = {
        "answers": figures.answers(labels[:SHOWN], gold, texts),
        "accuracy-and-churn": figures.accuracy_and_churn(arrays["accuracy"], pairs, churn),
        "entropy": figures.entropy_distribution(labels),
        "how-many-runs": figures.how_many_runs(churn),
        "training-map": figures.training_map(*dynamics, others),
    }
    if spaces := _clusters(folder):
        drawn["clusters"] = figures.nulls(spaces)
    for name in [name for name in NOTEBOOKS if name.startswith("trade-off")]:
        table = results.board(folder, NOTEBOOKS[name])
        if len(table):
            drawn[name] = figures.trade_off(table)
    drawn |= _of_numbers(folder)
    methods = results.board(folder)
    if methods.arm.str.startswith("ensemble").any():
        drawn["frontier"] = _frontier(methods)
    for curves, points in _anchor_curves(folder):
        drawn["anchor-curve"] = figures.anchor_curve(curves, points)
    lengths = results.lengths(folder)
    if len(lengths):
        drawn["training-length"] = figures.lengths(lengths, record["recipe"]["epochs"])
    network = f"{record['dataset']} · {record['model']}"
    about = {name: f"{network}{_runs_of(folder, name, len(labels))}" for name in drawn}
    for updates in results.records_of(folder, "07"):
        churns, levels = _churns(updates), updates.parameters["levels"]
        if levels and len(churns):
            drawn["four-churns"] = figures.four_churns(churns)
            about["four-churns"] = f"{network} · {levels} seeds by {levels} sets of training texts"
    written = []
    for name, figure in drawn.items():
        written += _save(figure, name, target, about[name])
    return written


def _runs_of(folder: Path, name: str, published: int) -> str:
    """How many runs of control a figure shows, in words; "" where that differs between its arms."""
    if name == "frontier":
        return ""
    runs = published
    if name in NOTEBOOKS:
        runs = results.records_of(folder, NOTEBOOKS[name])[-1].parameters["runs"]
    drawn = f"{SHOWN} of " if name == "answers" and runs > SHOWN else ""
    return f" · {drawn}{runs} runs of control"


def _of_numbers(folder: Path) -> Figures:
    """Figures of what records found beside the boards."""
    drawn = {}
    proxies = _by_arm(folder, "01", "auroc")
    if proxies:
        label = "AUROC of one run's score: queries that other runs disagree on"
        drawn["one-run"] = figures.intervals(proxies, label, 0.5, (0, 1))
    attributes = _by_arm(folder, "02", "correlation")
    if attributes:
        words = {ATTRIBUTES.get(name, name): value for name, value in attributes.items()}
        drawn["attributes"] = figures.intervals(words, "rank correlation with label entropy", 0)
    return drawn


def _by_arm(folder: Path, notebook: str, metric: str) -> dict[str, Interval]:
    """The numbers of a metric that are of all queries, the largest first."""
    found = {}
    for record in results.records_of(folder, notebook):
        for number in record.of(metric):
            if number.arm and not number.condition:
                found[number.arm] = number.interval
    return dict(sorted(found.items(), key=lambda entry: -entry[1].value))


def _churns(record: Record) -> pd.DataFrame:
    """The rows of `figures.four_churns`, of what notebook 07 found."""
    rows: dict[str, dict] = {}
    change = record.parameters["change"]
    for number in record.of("churn"):
        part, _, changed = number.condition.partition(", ")
        if changed:
            arm = f"{number.arm}, {changed}"
            rows.setdefault(arm, {"arm": arm})[part] = number.interval
        elif number.arm.startswith(board.LINEAR) and part == change:
            still = {"data_churn": number.interval, "update_churn": number.interval}
            rows[number.arm] = {"arm": f"{number.arm}, {change}", **still}
    return pd.DataFrame(list(rows.values()))


def _clusters(folder: Path) -> dict[str, dict[str, Clustering]]:
    """Moran's I by space and question; of shuffled places a record has the middle 95 % only."""
    spaces: dict[str, dict[str, Clustering]] = {}
    for record in results.records_of(folder, "02"):
        for number in record.of("morans_i"):
            chance = record[number.key.replace("morans_i", "clustering_chance", 1)]
            found = Clustering(number.interval, chance.interval, np.nan, np.empty(0))
            spaces.setdefault(number.arm, {})[number.condition] = found
    return spaces


def _anchor_curves(folder: Path) -> list[tuple[dict[str, pd.DataFrame], pd.DataFrame]]:
    """Accuracy and churn along the weight of an anchor by kind of mixture, and of ensembles."""
    found = []
    for record in results.records_of(folder, "06_anchored"):
        curves: dict[str, list[dict]] = {}
        points = []
        for number in record.of("churn"):
            accuracy = record[number.key.replace("churn", "accuracy", 1)]
            row = {"churn": number.interval, "accuracy": accuracy.interval}
            if number.condition.startswith("weight "):
                weight = float(number.condition.removeprefix("weight "))
                curves.setdefault(number.arm, []).append(row | {"weight": weight})
            elif number.arm == "control" or number.arm.startswith(board.LINEAR):
                name = "one network" if number.arm == "control" else number.arm
                points.append(row | {"arm": name})
            elif number.arm.startswith("ensemble of "):
                size, *anchored = number.arm.removeprefix("ensemble of ").split(" with anchor")
                kind = "ensembles with anchor" if anchored else "ensembles"
                curves.setdefault(kind, []).append(row | {"size": int(size)})
        tables = {kind: pd.DataFrame(rows) for kind, rows in curves.items()}
        found.append((tables, pd.DataFrame(points)))
    return found


def _frontier(methods: pd.DataFrame) -> Figure:
    """All methods of a corpus; the name says where label entropy is over another number of runs."""
    table = frontier.frontier([methods])
    named = table.arm.isin(("R-Drop", "TGTSS", "learning rate", "co-distillation"))
    other = table.n.notna() & (table.n != methods.attrs["n"])
    runs = [f" (LE@{n:g})" if differs else "" for n, differs in zip(table.n, other, strict=True)]
    table["arm"] += runs
    return figures.frontier(table, named=tuple(table.arm[named]))


def draw_benchmark(root: Path, target: Path) -> list[Path]:
    """How fast trainings become accurate, as `make benchmark` measured it, PNG and SVG."""
    figures.style()
    curves = root / "records" / "benchmark_curves.csv"
    if not curves.is_file():
        return []
    reference = results.costs(root)["reference_accuracy"]["value"]
    drawn = figures.learning(pd.read_csv(curves), reference)
    return _save(drawn, "time-to-accuracy", target, "texts of MASSIVE")


def draw_updates(root: Path, target: Path) -> list[Path]:
    """What an update changes with each method, in all studies, PNG and SVG."""
    figures.style()
    table = results.updates(root)
    if table.empty:
        return []
    names = table.dataset + ", " + table.model
    table["study"] = pd.Categorical(names, names[table.arm == "control"])
    about = "another tenth of the texts left out, and another seed"
    return _save(figures.across_studies(table), "updates", target, about)


def draw_claims(root: Path, target: Path) -> list[Path]:
    """The verdicts on what others claimed and some study measured, PNG and SVG."""
    figures.style()
    table = claims.verdicts(root)
    table = table[table.ne("").any(axis=1)]
    if table.empty:
        return []
    return _save(figures.verdicts(table), "claims", target, "claims of others")


def _save(figure: Figure, name: str, target: Path, about: str) -> list[Path]:
    """With what it is about in its upper right corner, for a slide has no caption."""
    inch = 1 / figure.get_figheight()
    layout = cast(ConstrainedLayoutEngine, figure.get_layout_engine())  # what `style` sets
    layout.set(rect=(0, 0, 1, 1 - 0.22 * inch))
    place = 0.995, 1 - 0.03 * inch
    figure.text(*place, about, ha="right", va="top", fontsize=9, color="dimgrey")
    written = figures.save(figure, name, target)
    plt.close(figure)
    return written


def telling(labels: np.ndarray) -> np.ndarray:
    """The queries whose texts published figures and tables show, and the 20 most unstable."""
    worst = np.argsort(-metrics.label_entropy(labels), kind="stable")[:20]
    return np.union1d(figures.telling_rows(labels[:SHOWN]), worst)

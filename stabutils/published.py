"""The published study: what `records/` holds, and the figures made from it."""
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from . import figures, metrics, records, store, votes
from .intervals import Interval, jackknife
from .regions import Clustering


def _records(folder: Path, notebook: str = "") -> list[records.Record]:
    """Of all notebooks, or of the one whose name begins so."""
    return [records.read(path) for path in sorted(folder.glob(f"{notebook}*.json"))]


def numbers(folder: Path, notebook: str = "") -> dict[str, dict]:
    """Where notebooks measured the same, the one with most runs has it; of equals, the last."""
    found: dict[str, dict] = {}
    for record in _records(folder, notebook):
        found |= {name: number for name, number in record.numbers.items()
                  if name not in found or number["runs"] >= found[name]["runs"]}
    return found


RATIOS = {"throughput_ratio_fp32": ("texts trained a CPU-second, against `Trainer`, fp32", 2),
          "throughput_ratio_fp32_no_text_skipped": ("the same, every text through every layer", None),
          "throughput_ratio_bf16": ("texts trained a CPU-second, against `Trainer`, bf16", 2.8),
          "throughput_ratio_plain": ("a plain padded loop, against `Trainer`", None),
          "time_to_accuracy_ratio": ("CPU-seconds to 99 % of the accuracy that `Trainer` ends at", 3),
          "two_worker_ratio": ("two workers against one", 1.9),
          "entropy_ratio": ("label entropy, against a loop over `numpy.unique`", 50)}


def benchmark(root: Path) -> dict[str, Interval]:
    """What `make benchmark` measured of `RATIOS`, as times as fast."""
    path = root / "records" / "benchmark.json"
    found = records.read(path).numbers if path.is_file() else {}
    return {name: records.interval(found[name]) for name in RATIOS if name in found}


def lengths(folder: Path) -> pd.DataFrame:
    """Control trained for more or fewer epochs, each length with its own whole schedule: epochs, label_entropy (at `n`
    votes, the same for all lengths) and accuracy with intervals, runs. No rows where one length only is published."""
    found = {}
    for arm in arms(folder, "compact-*"):
        own = re.fullmatch(r"compact-(?:control(?:-epochs-\d+)?|longertraining-factor-([\d.]+)(?:-from-\d+)?)", arm)
        if own:
            arrays, record = answers(folder, arm)
            found[round(record["recipe"]["epochs"] * float(own[1] or 1))] = arrays
    n, rows = min([5, *(len(arrays["labels"]) for arrays in found.values())]), []
    for epochs, arrays in found.items():
        labels = arrays["labels"].astype(int)
        entropy = votes.scores(labels, None, n)[f"label_entropy@{n}"]
        rows.append({"epochs": epochs, "runs": len(labels), "n": n, "label_entropy": entropy.interval(labels),
                     "accuracy": jackknife(np.mean, arrays["accuracy"])})
    columns = ["epochs", "runs", "n", "label_entropy", "accuracy"]
    return pd.DataFrame(rows if len(rows) > 1 else [], columns=columns).sort_values("epochs", ignore_index=True)


def board(folder: Path, notebook: str = "") -> pd.DataFrame:
    """The methods on the boards of a published corpus, or on that of one notebook, best reduction first: arm,
    reduction, churn, accuracy_change, trainings and passes an answer, and better, the verdict. A method on several
    boards stands as on that of most runs; of equals, on the last. No rows where none is published."""
    rows: dict[str, dict] = {}
    for record in _records(folder, notebook):
        verdicts = {claim.name: claim.verdict for claim in record.claims}
        interval = {name: records.interval(number) for name, number in record.numbers.items()}
        one = Interval(1, 1, 1, 1)
        for arm in (name.removeprefix("reduction ") for name in interval if name.startswith("reduction ")):
            taken = interval[f"reduction {arm}"]
            if f"accuracy_change {arm}" in interval and (  # a cell of a grid stands on no board
                    arm not in rows or taken.runs >= rows[arm]["reduction"].runs):
                rows[arm] = {"arm": arm, "reduction": taken, "churn": interval.get(f"churn {arm}"),
                             "accuracy_change": interval[f"accuracy_change {arm}"],
                             "trainings": interval.get(f"trainings {arm}", one).value,
                             "passes": interval.get(f"passes {arm}", one).value,
                             "better": verdicts.get(f"better {arm}", "")}
    columns = ["arm", "reduction", "churn", "accuracy_change", "trainings", "passes", "better"]
    return pd.DataFrame(sorted(rows.values(), key=lambda row: -row["reduction"].value), columns=columns)


def arms(folder: Path, pattern: str) -> list[str]:
    """The arms of a published corpus that look so, by the names of their files without ending."""
    paths = (folder / "answers").glob(f"{pattern}{store.PACKED}")
    return sorted(path.name.removesuffix(store.PACKED) for path in paths)


def answers(folder: Path, arm: str) -> tuple[store.Arrays, dict]:
    """The committed answers of one of `arms`, such as "compact-control": arrays and record."""
    found = store.read_file(path := folder / "answers" / f"{arm}{store.PACKED}")
    if found is None:
        raise FileNotFoundError(path)
    return found


def control(folder: Path) -> tuple[store.Arrays, dict]:
    """The committed answers of control: of the model alone, where there are others of its parts or other lengths."""
    return answers(folder, min(arms(folder, "*-control"), key=len, default="control"))


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
        "training-map": lambda: figures.training_map(arrays["confidence_mean"][0], arrays["confidence_spread"][0],
                                                     metrics.label_entropy(labels[1:]))}
    if spaces := _clusters(folder):
        plots["clusters"] = lambda: figures.nulls(spaces)
    methods = board(folder)
    boards = {"-regularizers": board(folder, "03"), "-data-centric": board(folder, "04")}
    boards = {name: own for name, own in boards.items() if len(own)} or ({"": methods} if len(methods) else {})
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
                records.interval(number), records.interval(chance), np.nan, np.empty(0))
    return spaces


def _frontier(methods: pd.DataFrame) -> pd.DataFrame:
    """The methods with who dominates whom; the convex learner, which is hardly trained, dominates none."""
    from .frontier import dominated

    retrained = methods[~methods.arm.isin(["convex", "placebo"])].copy()
    retrained["dominated"] = dominated(retrained)
    convex = methods[methods.arm == "convex"].assign(trainings=0.0, dominated="")
    return pd.concat([retrained, convex], ignore_index=True)


def draw_benchmark(root: Path, target: Path) -> list[Path]:
    """The figures of what `make benchmark` measured, PNG and SVG."""
    rows = {RATIOS[name][0].replace("`", ""): interval for name, interval in benchmark(root).items()
            if name != "entropy_ratio"}  # on another scale
    plots: dict[str, Callable] = {"benchmark": lambda: figures.intervals(rows, "times as fast", 1, (0, np.inf))}
    curves = root / "records" / "benchmark_curves.csv"
    if curves.is_file():
        reference = records.read(root / "records" / "benchmark.json").numbers["reference_accuracy"]["value"]
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
        figure.text(0.995, 1 - 0.03 * inch, about, ha="right", va="top", fontsize=9, color="dimgrey")
        written += figures.save(figure, name, target)
        plt.close(figure)
    return written


def telling(labels: np.ndarray) -> np.ndarray:
    """The queries whose texts the published figures and tables show: rows of `figures.answers`, and the 20 worst."""
    worst = np.argsort(-metrics.label_entropy(labels), kind="stable")[:20]
    return np.union1d(figures.telling_rows(labels[:20]), worst)

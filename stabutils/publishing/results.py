"""The published study as tables: what `records/` holds of each corpus and model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils import records
from stabutils.analysis import board as boards
from stabutils.metrics import scores
from stabutils.metrics.intervals import Interval
from stabutils.records import Record
from stabutils.training import files

RATIOS = {  # of `make benchmark`: what each is, and the goal
    "throughput_ratio_fp32": ("texts trained a CPU-second, against `Trainer`, fp32", 2),
    "throughput_ratio_fp32_no_text_skipped": ("the same, every text through every layer", None),
    "throughput_ratio_bf16": ("texts trained a CPU-second, against `Trainer`, bf16", 2.8),
    "throughput_ratio_plain": ("a plain padded loop, against `Trainer`", None),
    "time_to_accuracy_ratio": ("CPU-seconds to 99 % of the accuracy that `Trainer` ends at", 3),
    "two_worker_ratio": ("two workers against one", 1.9),
    "entropy_ratio": ("label entropy, against a loop over `numpy.unique`", 50),
}
INTERVALS = ("reduction", "churn", "accuracy", "accuracy_change", "over_linear")
CHANGE = "drop 10 %"  # of the training data, in `updates`
CHANGED = "accuracy_change"
ON_BOARDS = (*INTERVALS, "trainings", "passes")


def published(root: Path) -> list[Path]:
    """The folders of all corpora and models that are published: those of pretrained encoders first,
    then by name."""
    folders = sorted(path.parent for path in (root / "records").glob("*/answers"))
    return sorted(folders, key=lambda folder: bool(arms(folder, "compact-control")))


def records_of(folder: Path, notebooks: str = "") -> list[Record]:
    """The records of a folder in order, or those whose notebook's name begins so."""
    return [records.read(path) for path in sorted(folder.glob(f"{notebooks or '[0-9]'}*.json"))]


def board(folder: Path, notebooks: str = "") -> pd.DataFrame:
    """The methods of a published corpus, or of some of its notebooks, as one family.

    An arm that stands on several boards stands as on that of most runs; of equals, on the last.
    Columns as `analysis.board.board` has them, as far as ON_BOARDS, and `setting`, the arm's
    mitigation in words; no rows where none is published.
    """
    rows: dict[str, dict] = {}
    n = None
    for record in records_of(folder, notebooks):
        for arm, row in _rows(record).items():
            fewer = arm in rows and row["runs"] < rows[arm]["runs"]
            if not fewer:
                rows[arm] = row
                n = row["n"] or n
    table = pd.DataFrame(
        list(rows.values()), columns=["arm", "setting", "runs", "n", "behind", *ON_BOARDS]
    )
    if len(table):
        table = boards.with_verdicts(table.astype(dict.fromkeys(INTERVALS, object)))
    table.attrs["n"] = n
    return table


def _rows(record: Record) -> dict[str, dict]:
    """The arms of a board in a record: those that have an accuracy and an accuracy change."""
    rows: dict[str, dict] = {}
    settings = record.provenance.get("settings", {})
    for number in record.numbers:
        if number.metric in ON_BOARDS and number.arm and not number.condition:
            row = rows.setdefault(number.arm, {"arm": number.arm, "n": None, "behind": ""})
            row["setting"] = settings.get(number.arm, "")
            priced = number.metric in boards.PRICES
            row[number.metric] = number.value if priced else number.interval
            if number.metric == "accuracy":
                row["runs"] = number.runs
            if number.metric == "reduction":
                row |= {"n": number.n, "behind": number.sample}
    found = {}
    for arm, row in rows.items():
        usual = {"trainings": 1.0, "passes": 1.0}
        if arm.startswith(boards.LINEAR):
            usual = {"trainings": 0.0, "passes": boards.passes_of_linear(arm)}
        needed = {"accuracy"} if arm == "control" else {"accuracy", CHANGED, "reduction"}
        if needed <= row.keys():
            found[arm] = dict.fromkeys(ON_BOARDS) | usual | row
    return found


def by_strength(boards: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Boards whose methods bear their strength in their names, where it is not everywhere the same.

    So a name stands for one strength: "R-Drop" at 1 on one corpus and at 0.5 on another become
    "R-Drop 1" and "R-Drop 0.5".
    """
    rows = pd.concat(boards, names=["corpus", "row"]).reset_index("corpus")
    strength = rows.setting.map(_strength)
    method = rows.arm.str.replace(r" [\d.]+$", "", regex=True)
    several = strength.groupby(method).transform("nunique") > 1
    rows["arm"] = rows.arm.mask(several, method + strength.map(" {:g}".format))
    return {name: own.drop(columns="corpus") for name, own in rows.groupby("corpus", sort=False)}


def _strength(setting: str) -> float:
    """The one number of a mitigation in words; nan where it has none, or several."""
    match = re.fullmatch(r"\w+\(\w+=([\d.]+)\)", setting)
    return float(match[1]) if match else np.nan


def costs(root: Path) -> dict[str, dict]:
    """The numbers of `make benchmark` by name, with value, low, high, runs and unit."""
    path = root / "records" / "benchmark.json"
    return json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.is_file() else {}


def benchmark(root: Path) -> dict[str, Interval]:
    """What `make benchmark` measured of RATIOS, as times as fast."""
    numbers = costs(root)
    found = {name: numbers[name] for name in RATIOS if name in numbers}
    ends = ("value", "low", "high", "runs")
    return {name: Interval(*(number[end] for end in ends)) for name, number in found.items()}


def lengths(folder: Path) -> pd.DataFrame:
    """Control trained for more or fewer epochs, each length with its own whole schedule.

    Of runs with the board's seeds where there are such, else of those that tuned. Columns epochs,
    runs, n, label_entropy (at n votes, the same for all) and accuracy, with intervals. No rows
    where fewer than three lengths are published.
    """
    model = _control(folder).removesuffix("-control")
    other = r"longertraining-factor-([\d.]+)(?:-from-\d+)?"
    pattern = rf"{re.escape(model)}-(?:control(?:-epochs-\d+)?|{other})"
    found: dict[int, tuple] = {}
    for arm in arms(folder, f"{model}-*"):
        if match := re.fullmatch(pattern, arm):
            arrays, record = answers(folder, arm)
            epochs = round(record["recipe"]["epochs"] * float(match[1] or 1))
            found.setdefault(epochs, (arrays["labels"].astype(int), np.array(record["gold"])))
    n = min([5, *(len(labels) for labels, _ in found.values())])
    rows = []
    for epochs, (labels, gold) in sorted(found.items()):
        entropy, accuracy = scores.label_entropy(labels, n), scores.accuracy(labels, gold)
        row = {"epochs": epochs, "runs": len(labels), "n": n}
        rows.append(row | {"label_entropy": entropy.interval(), "accuracy": accuracy.interval()})
    columns = ["epochs", "runs", "n", "label_entropy", "accuracy"]
    return pd.DataFrame(rows if len(rows) > 2 else [], columns=columns)


def updates(root: Path) -> pd.DataFrame:
    """What an update after CHANGE of the training data changes with each method, as notebook 07
    found it, the least first.

    Columns dataset and model (of the study), arm, runs, churn, accuracy_change (None of control)
    and `share`, the churn as a share of control's there, by whose mean the methods are in order.
    """
    rows = []
    for folder in published(root):
        for record in records_of(folder, "07"):
            study = {name: record.parameters[name] for name in ("dataset", "model")}
            if record.parameters["change"] != CHANGE:
                continue
            updates = [number for number in record.numbers if number.condition == CHANGE]
            accuracy = {each.arm: each.interval for each in updates if each.metric == CHANGED}
            churns = {each.arm: each.interval for each in updates if each.metric == "churn"}
            for arm, churn in churns.items():
                row = {"churn": churn, CHANGED: accuracy.get(arm), "runs": churn.runs}
                share = churn.value / churns["control"].value
                rows.append({**study, "arm": arm, **row, "share": share})
    columns = ["dataset", "model", "arm", "runs", "churn", CHANGED, "share"]
    table = pd.DataFrame(rows, columns=columns)
    mean = table.groupby("arm").share.transform("mean")
    order = mean.sort_values(kind="stable").index
    return table.loc[order].reset_index(drop=True)


def arms(folder: Path, pattern: str) -> list[str]:
    """The arms of a published corpus whose file names, without ending, look so."""
    paths = (folder / "answers").glob(f"{pattern}{files.PACKED}")
    return sorted(path.name.removesuffix(files.PACKED) for path in paths)


def answers(folder: Path, arm: str) -> tuple[files.Arrays, dict]:
    """The published answers of one of `arms`, such as "compact-control": arrays and record."""
    path = folder / "answers" / f"{arm}{files.PACKED}"
    contents = files.read_file(path)
    if contents is None:
        raise FileNotFoundError(path)
    return contents


def control(folder: Path) -> tuple[files.Arrays, dict]:
    """The published answers of control: of the model itself, not of its parts or other lengths."""
    return answers(folder, _control(folder))


def _control(folder: Path) -> str:
    return min(arms(folder, "*-control"), key=len, default="control")


def corpus_and_model(folder: Path) -> tuple[str, str]:
    """The corpus and the model of a folder of published answers."""
    _, record = control(folder)
    return record["dataset"], record["model"]

"""The published study: what `records/` holds, and the figures made from it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils import records
from stabutils.metrics import scores as votes
from stabutils.metrics.intervals import Interval, jackknife
from stabutils.training import files


def _records(folder: Path, notebook: str = "") -> list[records.Record]:
    """Of all notebooks, or of the one whose name begins so."""
    return [records.read(path) for path in sorted(folder.glob(f"{notebook}*.json"))]


def numbers(folder: Path, notebook: str = "") -> dict[str, dict]:
    """Where notebooks measured the same, the one with most runs has it; of equals, the last."""
    found: dict[str, dict] = {}
    for record in _records(folder, notebook):
        found |= {
            name: number
            for name, number in record.numbers.items()
            if name not in found or number["runs"] >= found[name]["runs"]
        }
    return found


RATIOS = {
    "throughput_ratio_fp32": ("texts trained a CPU-second, against `Trainer`, fp32", 2),
    "throughput_ratio_fp32_no_text_skipped": ("the same, every text through every layer", None),
    "throughput_ratio_bf16": ("texts trained a CPU-second, against `Trainer`, bf16", 2.8),
    "throughput_ratio_plain": ("a plain padded loop, against `Trainer`", None),
    "time_to_accuracy_ratio": ("CPU-seconds to 99 % of the accuracy that `Trainer` ends at", 3),
    "two_worker_ratio": ("two workers against one", 1.9),
    "entropy_ratio": ("label entropy, against a loop over `numpy.unique`", 50),
}


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
        own = re.fullmatch(
            r"compact-(?:control(?:-epochs-\d+)?|longertraining-factor-([\d.]+)(?:-from-\d+)?)", arm
        )
        if own:
            arrays, record = answers(folder, arm)
            found[round(record["recipe"]["epochs"] * float(own[1] or 1))] = arrays
    n, rows = min([5, *(len(arrays["labels"]) for arrays in found.values())]), []
    for epochs, arrays in found.items():
        labels = arrays["labels"].astype(int)
        entropy = votes.scores(labels, None, n)[f"label_entropy@{n}"]
        rows.append(
            {
                "epochs": epochs,
                "runs": len(labels),
                "n": n,
                "label_entropy": entropy.interval(labels),
                "accuracy": jackknife(np.mean, arrays["accuracy"]),
            }
        )
    columns = ["epochs", "runs", "n", "label_entropy", "accuracy"]
    return pd.DataFrame(rows if len(rows) > 1 else [], columns=columns).sort_values(
        "epochs", ignore_index=True
    )


def board(folder: Path, notebook: str = "") -> pd.DataFrame:
    """The methods on the boards of a published corpus, or on that of one notebook, best reduction first: arm,
    reduction, churn, accuracy_change, trainings and passes an answer, and better, the verdict. A method on several
    boards stands as on that of most runs; of equals, on the last. No rows where none is published."""
    rows: dict[str, dict] = {}
    for record in _records(folder, notebook):
        verdicts = {claim.name: claim.verdict for claim in record.claims}
        interval = {name: records.interval(number) for name, number in record.numbers.items()}
        one = Interval(1, 1, 1, 1)
        for arm in (
            name.removeprefix("reduction ") for name in interval if name.startswith("reduction ")
        ):
            taken = interval[f"reduction {arm}"]
            if f"accuracy_change {arm}" in interval and (  # a cell of a grid stands on no board
                arm not in rows or taken.runs >= rows[arm]["reduction"].runs
            ):
                rows[arm] = {
                    "arm": arm,
                    "reduction": taken,
                    "churn": interval.get(f"churn {arm}"),
                    "accuracy_change": interval[f"accuracy_change {arm}"],
                    "trainings": interval.get(f"trainings {arm}", one).value,
                    "passes": interval.get(f"passes {arm}", one).value,
                    "better": verdicts.get(f"better {arm}", ""),
                }
    columns = ["arm", "reduction", "churn", "accuracy_change", "trainings", "passes", "better"]
    return pd.DataFrame(
        sorted(rows.values(), key=lambda row: -row["reduction"].value), columns=columns
    )


def arms(folder: Path, pattern: str) -> list[str]:
    """The arms of a published corpus that look so, by the names of their files without ending."""
    paths = (folder / "answers").glob(f"{pattern}{files.PACKED}")
    return sorted(path.name.removesuffix(files.PACKED) for path in paths)


def answers(folder: Path, arm: str) -> tuple[files.Arrays, dict]:
    """The committed answers of one of `arms`, such as "compact-control": arrays and record."""
    found = files.read_file(path := folder / "answers" / f"{arm}{files.PACKED}")
    if found is None:
        raise FileNotFoundError(path)
    return found


def control(folder: Path) -> tuple[files.Arrays, dict]:
    """The committed answers of control: of the model alone, where there are others of its parts or other lengths."""
    return answers(folder, min(arms(folder, "*-control"), key=len, default="control"))

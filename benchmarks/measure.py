"""What the benchmarks share: ways to do the same work, measured in turns, and numbers as records
keep them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from stabutils.metrics import intervals


@dataclass
class Costs:
    """What a benchmark measured: numbers by name, and what made them."""

    notebook: str  # the name of its file
    parameters: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    numbers: dict[str, dict] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.notebook}.json"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8", newline="\n")
        return path


def read(path: Path) -> Costs:
    return Costs(**json.loads(path.read_text(encoding="utf-8")))


Ways = Mapping[str, Callable[[], object]]
Rows = dict[str, list[float]]


def alternate(
    ways: Ways, rounds: int, work: float, clock: Callable[[], float] = time.process_time
) -> Rows:
    """Work done a second, one entry a round; a round before them all warms up."""
    found: Rows = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = clock()
            way()
            if number:
                found[name].append(work / (clock() - began))
    return found


def ratio(rows: Rows, above: str, below: str) -> dict:
    """How many times as fast, round by round, with a t interval over the rounds."""
    return number(
        intervals.jackknife(np.mean, np.array(rows[above]) / np.array(rows[below])), "times"
    )


def number(found: intervals.Interval, unit: str) -> dict:
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "runs": found.runs,
        "unit": unit,
    }


def spread(values: Sequence[float], unit: str) -> dict:
    """Mean with the lowest and the highest value; for what is reported without a claim."""
    return {
        "value": float(np.mean(values)),
        "low": float(min(values)),
        "high": float(max(values)),
        "runs": len(values),
        "unit": f"{unit}, lowest and highest",
    }


def show(numbers: Mapping[str, dict]) -> None:
    for name, found in numbers.items():
        print(
            f"{name:<46}{found['value']:>12.4g}  [{found['low']:.4g}, {found['high']:.4g}]  "
            f"{found['unit']}"
        )

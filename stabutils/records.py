"""Records: what a notebook found, as data. Prose, tables and figures of the published study are made from them.

A record holds the parameters, what made it, numbers with their intervals, and claims with verdicts. A verdict is data:
it never raises, and an unwelcome one stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, verdict

ENSEMBLE = r"(?:ensemble|logits|vote) of (\d+)$"  # the name of an arm that is one


@dataclass(frozen=True)
class Claim:
    """A sentence, the number behind it with its interval, and what the interval says of it."""

    name: str
    sentence: str
    value: float
    low: float
    high: float
    verdict: str


def claim(
    name: str, sentence: str, interval: Interval | None, threshold: float, direction: str = "above"
) -> Claim:
    """The claim that a number lies above (below) a threshold; `{value}` in the sentence becomes value and interval.

    >>> claim("churn", "Churn is {value}.", Interval(0.2, 0.1, 0.3, runs=5), 0.05).verdict
    'holds'
    """
    shown = "not measured here" if interval is None else f"{interval} ({interval.runs} runs)"
    numbers = [np.nan] * 3 if interval is None else [interval.value, interval.low, interval.high]
    sentence = sentence.replace("{value}", shown)  # whatever else stands in braces is text
    return Claim(name, sentence, *map(float, numbers), verdict(interval, threshold, direction))


@dataclass(frozen=True)
class Record:
    """What one notebook found. numbers: name -> {value, low, high, runs, unit}."""

    notebook: str
    parameters: dict
    provenance: dict
    numbers: dict[str, dict] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()

    def write(self, folder: Path | str) -> Path:
        """Write `<notebook>.json` into the folder; equal records are equal texts. Returns the path."""
        path = Path(folder) / f"{self.notebook}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
            newline="\n",
        )
        return path


UNITS = {
    "churn": "share of examples",
    "churn_weighted": "share of weight",
    "label_entropy": "nats",
    "checkpoint_entropy": "nats",
    "share_changed": "share of examples",
    "share_unstable": "share of examples",
    "right_to_wrong": "share of examples",
    "wrong_to_wrong": "share of examples",
    "accuracy": "share of examples",
    "accuracy_convex": "share of examples",
    "kappa": "1 is full agreement",
    "jensen_shannon": "nats",
    "nll": "nats",
    "ece": "share",
    "auroc": "chance, 0.5 is blind",
    "precision": "share of those named",
    "correlation": "-1 to 1",
    "moran": "1 is most alike",
    "chance": "Moran's I of shuffled places, middle 95 %",
    "share": "of another churn",
    "cpu_minutes": "minutes a run",
    "reduction": "share of control's",
    "reduction_unstable": "share of control's",
    "churn_reduction": "share of control's",
    "good": "share of examples",
    "bad": "share of examples",
    "accuracy_change": "share of examples",
    "trainings": "of control's cost",
    "passes": "of control's cost",
    "share_of_ensemble": "of the largest ensemble's reduction",
    "share_of_vote": "of the largest ensemble's reduction, members voting",
    "latency": "milliseconds a query",
    "cpu_ratio": "of control's CPU-seconds",
}


def numbers(found: Mapping[str, Interval]) -> dict[str, dict]:
    """The intervals found, as a record keeps them. The unit goes by the first word of the name ("auroc rare:strong") or
    what stands before an @ ("label_entropy@5"); a name without a unit is refused."""
    units = {name: UNITS.get(name.split("@")[0].split()[0]) for name in found}
    for name in (name for name, unit in units.items() if unit is None):
        raise InputError("number", name, "a name that begins with one of " + ", ".join(UNITS))
    return {
        name: {"value": i.value, "low": i.low, "high": i.high, "runs": i.runs, "unit": units[name]}
        for name, i in found.items()
    }


def behind(name: str, runs: int) -> str:
    """What stands behind a number in words: runs, and what was made of them where that is what varies.

    >>> behind("churn", 10), behind("reduction ensemble of 10", 50), behind("churn only init", 64)
    ('10 runs', '5 ensembles of 50 runs', '4 seeds each, 64 runs')
    """
    if ensemble := re.match(rf"\w+ {ENSEMBLE}", name):
        return f"{runs // int(ensemble[1])} ensembles of {runs} runs"
    if re.match(r"(churn|share) (all sources|only|taken by fixing)\b|churn \w+ fixed$", name):
        return f"{round(runs ** (1 / 3))} seeds each, {runs} runs"
    return f"{runs} runs"


def read(path: Path | str) -> Record:
    """A record from its file. Raises InputError when it is not one."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**content, "claims": tuple(map(_claim, content["claims"]))})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            "record", str(path), f"a JSON file that a notebook wrote ({error})"
        ) from error


def interval(number: Mapping) -> Interval:
    """A number of a record as the interval that it was.

    >>> print(interval({"value": 0.2, "low": 0.1, "high": 0.3, "runs": 5, "unit": "nats"}))
    0.200 [0.100, 0.300]
    """
    return Interval(*(number[end] for end in ("value", "low", "high", "runs")))


def _claim(entry: dict) -> Claim:
    numbers = {
        name: np.nan if entry[name] is None else entry[name] for name in ("value", "low", "high")
    }
    return Claim(**entry | numbers)


def table(folder: Path | str) -> pd.DataFrame:
    """Every number of every record below a folder: columns dataset, model, notebook, number, value, low, high, runs,
    unit; one row a number, sorted."""
    rows = []
    for path in sorted(Path(folder).rglob("[0-9]*.json")):
        record = read(path)
        about = {
            "dataset": record.parameters.get("dataset"),
            "model": record.parameters.get("model"),
            "notebook": record.notebook,
        }
        rows += [about | {"number": name} | entry for name, entry in record.numbers.items()]
    columns = ["dataset", "model", "notebook", "number", "value", "low", "high", "runs", "unit"]
    return pd.DataFrame(rows, columns=columns)


def _plain(value: object) -> object:
    """JSON's types only; a number that is none (a claim that could not be tested) becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value

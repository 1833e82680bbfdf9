"""Records: what a notebook found, as data. Prose, tables and figures are made from them.

A record holds the parameters, what made it, numbers with their intervals, and claims with verdicts.
A verdict is data: it never raises, and an unwelcome one stands.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, verdict

UNITS = {
    "abstention": "share of queries",
    "accuracy": "share of queries",
    "accuracy_change": "share of queries",
    "ambiguity": "share of queries",
    "auroc": "0.5 is blind, 1 perfect",
    "checkpoint_entropy": "nats",
    "churn": "share of queries",
    "churn_change": "share of queries",
    "churn_reduction": "share of control's",
    "churn_weighted": "share of the weight of queries",
    "clustering_chance": "Moran's I of shuffled places, middle 95 %",
    "consistency": "share of queries",
    "correct_consistency": "share of queries",
    "correlation": "-1 .. 1",
    "cpu_minutes": "minutes a run",
    "cpu_ratio": "of control's CPU-seconds",
    "decision_flips": "share of queries",
    "discrepancy": "share of queries",
    "ece": "share",
    "error": "share of queries",
    "half_way": "share of wrong labels",
    "jensen_shannon": "nats",
    "kappa": "1 is full agreement",
    "label_entropy": "nats",
    "label_entropy_change": "nats",
    "latency": "milliseconds a query",
    "mcnemar_significant": "share of pairs of runs",
    "memorised": "share of wrong labels",
    "morans_i": "1 is most alike",
    "negative_flip_rate": "share of queries",
    "negative_flips": "share of queries",
    "negative_flips_reduction": "share of control's",
    "nll": "nats",
    "over_linear": "share of queries",
    "pass_chance": "share of pairs of models",
    "passes": "of control's",
    "positive_flips": "share of queries",
    "precision": "share of those named",
    "rashomon_capacity": "answers",
    "ratio": "times",
    "reduction": "share of control's label entropy",
    "reduction_unstable": "share of control's label entropy",
    "right_to_wrong": "share of queries",
    "selective_churn": "share of queries",
    "selective_error": "share of queries",
    "served_churn": "share of queries",
    "share_changed": "share of queries",
    "share_inconsistent": "share of queries",
    "share_of_churn": "of the churn of all sources",
    "share_of_ensemble": "of an ensemble's reduction",
    "share_unstable": "share of queries",
    "trainings": "of control's",
    "viable_prediction_range": "of a probability",
    "wrong_to_wrong": "share of queries",
}
PERCENT = "share of"  # how the units begin that people read in %


def unit_of(metric: str) -> str:
    """What people read a metric in: "%" for a share, "points" for a change of accuracy, or "".

    Examples
    --------
    >>> [unit_of(metric) for metric in ("churn", "accuracy_change", "auroc")]
    ['%', 'points', '']
    """
    if metric == "accuracy_change":
        return "points"
    return "%" if UNITS[metric].startswith(PERCENT) else ""


@dataclass(frozen=True)
class Number:
    """One number that was measured, and what it is of.

    Attributes
    ----------
    metric : one of UNITS
    arm : method, model or proxy; "" where there is only one
    condition : what else narrows it, such as a group of queries; "" for all
    n : runs that it is quoted at, for metrics that depend on it
    value, low, high : of the interval; no low and high for a price, which is known exactly
    se, df : of the interval, so that anyone can test again
    runs : behind it, of the smallest arm
    over_runs : low and high of the interval over runs alone
    note : where the interval means less than usual
    behind : what `runs` does not say, such as "5 ensembles of 50 runs"
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    arm: str = ""
    condition: str = ""
    n: int | None = None
    se: float | None = None
    df: float | None = None
    runs: int | None = None
    over_runs: tuple[float, float] | None = None
    note: str = ""
    behind: str = ""

    def __post_init__(self):
        if self.metric not in UNITS:
            raise InputError("metric of a number", self.metric, f"one of {', '.join(UNITS)}")

    @property
    def unit(self) -> str:
        return UNITS[self.metric]

    @property
    def key(self) -> str:
        """How prose names it: metric, arm; condition.

        Examples
        --------
        >>> Number("churn", 0.1, arm="R-Drop", condition="planted").key
        'churn, R-Drop; planted'
        """
        arm = f", {self.arm}" if self.arm else ""
        condition = f"; {self.condition}" if self.condition else ""
        return f"{self.metric}{arm}{condition}"

    @property
    def interval(self) -> Interval:
        """The interval that it was. Of a price: the value alone."""
        exact = self.value if self.runs is None else math.nan
        low, high = (exact if end is None else end for end in (self.low, self.high))
        se, df = (math.nan if part is None else part for part in (self.se, self.df))
        over_runs = None
        if self.over_runs is not None:
            over_runs = Interval(self.value, *self.over_runs, runs=self.runs or 1)
        return Interval(self.value, low, high, self.runs or 1, self.note, se, df, over_runs)

    @property
    def sample(self) -> str:
        """What stands behind it, in words."""
        return self.behind or f"{self.runs} runs"


def number(
    metric: str,
    interval: Interval,
    arm: str = "",
    condition: str = "",
    n: int | None = None,
    behind: str = "",
) -> Number:
    """An interval as a record keeps it.

    Examples
    --------
    >>> number("churn", Interval(0.2, 0.1, 0.3, runs=5), arm="EMA").key
    'churn, EMA'
    """
    over_runs = None
    if interval.over_runs is not None:
        over_runs = (interval.over_runs.low, interval.over_runs.high)
    return Number(
        metric,
        interval.value,
        interval.low,
        interval.high,
        arm,
        condition,
        n,
        interval.se,
        interval.df,
        interval.runs,
        over_runs,
        interval.note,
        behind,
    )


def of_scores(scores: Mapping[str, Interval], arm: str = "") -> list[Number]:
    """The numbers of a report, whose names may say at how many runs: "label_entropy@5".

    Examples
    --------
    >>> [found] = of_scores({"label_entropy@5": Interval(0.2, 0.1, 0.3, runs=10)})
    >>> found.metric, found.n
    ('label_entropy', 5)
    """
    numbers = []
    for name, interval in scores.items():
        metric, _, size = name.partition("@")
        n = int(size) if size else None
        numbers.append(number(metric, interval, arm, n=n))
    return numbers


def of_proxies(board: Mapping[str, Mapping[str, Interval]]) -> list[Number]:
    """The numbers of a board of proxies (`metrics.detection.board`)."""
    metrics = {"AUROC": "auroc", "rank correlation": "correlation"}
    numbers = []
    for arm, row in board.items():
        numbers += [number(metrics[column], interval, arm) for column, interval in row.items()]
    return numbers


def by_arm(
    metric: str, values: Mapping[str, Interval] | pd.Series, condition: str = ""
) -> list[Number]:
    """Intervals by arm as a record keeps them.

    Examples
    --------
    >>> [found] = by_arm("churn", {"EMA": Interval(0.2, 0.1, 0.3, runs=5)}, "planted")
    >>> found.key
    'churn, EMA; planted'
    """
    return [number(metric, interval, arm, condition) for arm, interval in values.items()]


def by_condition(
    metric: str, arm: str, values: Mapping[str, Interval] | pd.Series, n: int | None = None
) -> list[Number]:
    """Intervals of one arm by condition as a record keeps them.

    Examples
    --------
    >>> [found] = by_condition("churn", "EMA", {"planted": Interval(0.2, 0.1, 0.3, runs=5)})
    >>> found.key
    'churn, EMA; planted'
    """
    return [number(metric, interval, arm, condition, n) for condition, interval in values.items()]


def price(metric: str, value: float, arm: str = "") -> Number:
    """What something costs by its recipe: known exactly, so it has no interval."""
    return Number(metric, float(value), arm=arm)


# ---- claims ----


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
    """The claim that a number lies above (below) a threshold.

    `{value}` in the sentence becomes value and interval.

    Examples
    --------
    >>> claim("churn", "Churn is {value}.", Interval(0.2, 0.1, 0.3, runs=5), 0.05).verdict
    'holds'
    """
    shown, value, low, high = "…", math.nan, math.nan, math.nan  # not measured here
    if interval is not None:
        shown = f"{interval} ({interval.runs} runs)"
        value, low, high = map(float, (interval.value, interval.low, interval.high))
    sentence = sentence.replace("{value}", shown)  # whatever else stands in braces is text
    return Claim(name, sentence, value, low, high, verdict(interval, threshold, direction))


@dataclass(frozen=True)
class Definition:
    """A claim before it is judged: from `claims.yaml`, the one source of claims.

    number: the key of the number it is about. beyond: the threshold, or the key of a number whose
    upper end it must pass. side: "above" or "below". source: who claimed it; "" for our own.
    """

    name: str
    notebook: str
    sentence: str
    number: str
    beyond: float | str
    side: str = "above"
    source: str = ""
    about: str = ""  # what kind of network or data the source speaks of


@cache
def definitions() -> tuple[Definition, ...]:
    """All claims of the study, in the order of `claims.yaml`."""
    import yaml

    text = files("stabutils").joinpath("claims.yaml").read_text(encoding="utf-8")
    claims = []
    for group in yaml.safe_load(text):
        shared = {"source": group["source"], "about": group.get("about", "")}
        claims += [Definition(**shared | entry) for entry in group["claims"]]
    return tuple(claims)


def judged(notebook: str, numbers: Iterable[Number]) -> tuple[Claim, ...]:
    """The claims of a notebook, each with its verdict from the numbers that were found."""
    found = {number.key: number for number in numbers}
    return tuple(_judge(each, found) for each in definitions() if each.notebook == notebook)


def _judge(definition: Definition, found: Mapping[str, Number]) -> Claim:
    """A claim with its verdict, from numbers by their keys."""
    sentence, interval, beyond = definition.sentence, None, definition.beyond
    number = found.get(definition.number)
    if number is not None and math.isfinite(number.value):
        interval = number.interval
        words = f"{shown(number)} ({number.sample})"
        sentence = sentence.replace("{value}", words)
    if isinstance(beyond, str):
        high = found[beyond].high if beyond in found else None
        beyond = math.nan if high is None else high
    return claim(definition.name, sentence, interval, beyond, definition.side)


def verdicts(claims: Iterable[Claim]) -> pd.DataFrame:
    """Claims and what was found of each, to be shown as a table."""
    return pd.DataFrame([{"claim": each.sentence, "verdict": each.verdict} for each in claims])


# ---- records ----


@dataclass(frozen=True)
class Record:
    """What one notebook found."""

    notebook: str
    parameters: dict
    provenance: dict
    numbers: tuple[Number, ...] = ()
    claims: tuple[Claim, ...] = ()

    def __post_init__(self):
        keys = [(number.key, number.n) for number in self.numbers]
        if twice := sorted({key for key, _ in keys if keys.count((key, _)) > 1}):
            raise InputError("numbers of a record", twice[0], "each number once")

    def __getitem__(self, key: str) -> Number:
        """The number of this key, as prose names it. Raises InputError."""
        for number in self.numbers:
            if number.key == key:
                return number
        raise InputError(f"number of {self.notebook}", key, "one that was measured there")

    def of(self, metric: str) -> list[Number]:
        """All numbers of a metric, in order."""
        return [number for number in self.numbers if number.metric == metric]

    def write(self, folder: Path | str) -> Path:
        """Write `<notebook>.json` into the folder; equal records are equal texts."""
        content = asdict(self)
        content["numbers"] = [_entry(number) for number in self.numbers]
        path = Path(folder) / f"{self.notebook}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)
        return path


def _write(path: Path, content: Mapping) -> None:
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _entry(number: Number) -> dict:
    """A number with its unit, without the fields that say nothing."""
    defaults = {field.name: field.default for field in fields(Number)}
    entry = {"metric": number.metric, "unit": number.unit, "value": number.value}
    for name, value in asdict(number).items():
        says_nothing = value == defaults[name] or value != value
        if not says_nothing:
            entry[name] = value
    return entry


SCHEMA = 1  # of the documents that commands write; raised when a name or a meaning changes


def write_document(path: Path | str, command: str, status: int, content: Mapping) -> None:
    """Write what a command found, for programs: one JSON object, laid out in docs/pipelines.md.

    Parameters
    ----------
    path : of the file to write
    command, status : which command it is of, and the exit status that it ends with
    content : what else the object holds; its numbers as `for_programs` makes them

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    head = {"schema": SCHEMA, "command": command, "status": status}
    try:
        _write(Path(path), {**head, **content})
    except OSError as error:
        allowed = f"a file that can be written ({error.strerror})"
        raise InputError("--json", str(path), allowed) from None


def for_programs(numbers: Iterable[Number]) -> list[dict]:
    """Numbers with their intervals, every name always present; null where there is nothing.

    Examples
    --------
    >>> [entry] = for_programs([number("churn", Interval(0.2, 0.1, 0.3, runs=5))])
    >>> entry["metric"], entry["low"], entry["speaks_of"]
    ('churn', 0.1, 'new runs on these queries')
    """
    names = ("metric", "arm", "condition", "n", "unit", "value", "low", "high", "runs")
    entries = []
    for each in numbers:
        entry = {name: getattr(each, name) for name in names}
        speaks_of = None if each.runs is None else each.interval.speaks_of
        entries.append(entry | {"speaks_of": speaks_of})
    return entries


def read(path: Path | str) -> Record:
    """A record from its file. Raises InputError when it is not one."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers, claims = map(_number, content["numbers"]), map(_claim, content["claims"])
        return Record(**{**content, "numbers": tuple(numbers), "claims": tuple(claims)})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        allowed = f"a JSON file that a notebook wrote ({error})"
        raise InputError("record", str(path), allowed) from error


def _number(entry: dict) -> Number:
    entry = {name: value for name, value in entry.items() if name != "unit"}
    if entry["value"] is None:
        entry["value"] = math.nan
    if entry.get("over_runs") is not None:
        entry["over_runs"] = tuple(entry["over_runs"])
    return Number(**entry)


def _claim(entry: dict) -> Claim:
    unknown = {name: math.nan for name, value in entry.items() if value is None}
    return Claim(**entry | unknown)


def table(folder: Path | str) -> pd.DataFrame:
    """Every number of every record below a folder, one row a number, sorted.

    Columns: dataset, model, notebook, and the fields of `Number` with its unit.
    """
    rows = []
    for path in sorted(Path(folder).rglob("[0-9]*.json")):
        record = read(path)
        about = {name: record.parameters.get(name) for name in ("dataset", "model")}
        about["notebook"] = record.notebook
        for number in record.numbers:
            rows.append(about | asdict(number) | {"unit": number.unit})
    names = [field.name for field in fields(Number)]
    return pd.DataFrame(rows, columns=["dataset", "model", "notebook", *names, "unit"])


def shown(number: Number, unit: str | None = None) -> str:
    """A number in words: value and interval, in "%", "points" (with signs) or as it is.

    unit : "%", "points" or ""; as `unit_of` has it where not given

    Examples
    --------
    >>> shown(Number("churn", 0.0812, 0.07, 0.0924))
    '8.1 % [7.0, 9.2]'
    >>> shown(Number("accuracy_change", 0.0051, 0.0039, 0.0062))
    '+0.51 points [+0.39, +0.62]'
    """
    if unit is None:
        unit = unit_of(number.metric)
    scale, form = {"%": (100, ".1f"), "points": (100, "+.2f")}.get(unit, (1, ".3f"))
    named = f" {unit}" if unit else ""
    value = f"{scale * number.value:{form}}{named}"
    if number.low is None or number.high is None:
        return value
    return f"{value} [{scale * number.low:{form}}, {scale * number.high:{form}}]"


def _plain(value: object) -> object:
    """JSON's types only; a number that is none (a claim that could not be tested) becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""The board: what every method bought, at what price, beside a placebo and linear models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils import metrics, records
from stabutils.errors import InputError
from stabutils.metrics import intervals, scores
from stabutils.metrics.intervals import GUARD, Interval, holm, jackknife, together, verdict
from stabutils.metrics.scores import Score
from stabutils.records import Number
from stabutils.study.runs import Runs, of_answers

Costs = Mapping[str, tuple[float, float]]  # trainings and passes of an answer, by arm
PAYING = ["intent", "examples", "label_entropy", "label_entropy_change", "accuracy_change"]
PAYING += ["p", "harmed"]  # columns of `who_pays`
LEVEL = 0.05  # of the family of all methods on a board
LINEAR = "linear"  # how the names of linear models begin, which no seed changes
BESIDE = ("control", "placebo")  # rows that are no methods
WORDS_ALONE = "linear (TF-IDF)"  # the one of them that asks no network for vectors
PRICES = ("trainings", "passes")
COLUMNS = (
    "arm",
    "runs",
    "label_entropy",
    "reduction",
    "p",
    "reduction_unstable",
    "churn",
    "churn_reduction",
    "right_to_wrong",
    "wrong_to_wrong",
    "positive_flips",
    "negative_flips",
    "jensen_shannon",
    "accuracy",
    "accuracy_change",
    "guard",
    "over_linear",
    "nll",
    "ece",
    "trainings",
    "passes",
    "better",
)

# What tables in notebooks show of a board: column -> its header.
METHODS = {
    "arm": "method",
    "runs": "runs",
    "reduction": "reduction of label entropy",
    "p": "p (Holm)",
    "reduction_unstable": "on the most unstable 5 %",
    "churn": "churn",
    "accuracy": "accuracy",
    "accuracy_change": "change",
    "better": "better",
    "trainings": "trainings",
    "passes": "passes",
}
FLIPS = {
    "arm": "method",
    "right_to_wrong": "churn, one run right",
    "wrong_to_wrong": "churn, both wrong",
    "positive_flips": "positive flips",
    "negative_flips": "negative flips",
    "ece": "calibration error",
    "over_linear": "accuracy, less the best linear model's",
}
ENSEMBLES = {
    "arm": "ensemble",
    "runs": "replicas",
    "n": "votes",
    "reduction": "reduction of label entropy",
    "churn": "churn",
    "accuracy": "accuracy",
    "accuracy_change": "change",
}
GROUPS = {
    "queries": "queries",
    "number": "number",
    "share_left": "share left",
    "churn": "churn",
    "churn_reduction": "saved",
    "churn_change": "churn, change",
    "accuracy_change": "accuracy, change",
}
FRONTIER = {
    "arm": "method",
    "reduction": "reduction of label entropy",
    "share_of_ensemble": "share of the ensemble",
    "churn": "churn",
    "accuracy_change": "accuracy, change",
    "better": "better",
    "trainings": "trainings",
    "passes": "passes",
    "cpu_ratio": "CPU-time",
    "dominated": "dominated by",
}
GOAL = {
    "arm": "method",
    "share_of_ensemble": "share of the ensemble",
    "accuracy_change": "accuracy less the ensemble's",
    "reached": "reached",
}
WEAKER = {
    "share": "of the training texts",
    "linear": "linear model, accuracy",
    "weight": "weight chosen",
    "churn": "churn",
    "reduction": "reduction",
    "accuracy": "accuracy",
    "accuracy_change": "change",
    "over_anchor": "more than the linear model",
}
UPDATES = {
    "arm": "method",
    "runs": "updates",
    "churn": "update churn",
    "churn_reduction": "saved",
    "p": "p (Holm)",
    "negative_flips": "negative flips",
    "positive_flips": "positive flips",
    "accuracy": "accuracy after",
    "accuracy_change": "change",
    "better": "better",
    "trainings": "trainings",
    "passes": "passes",
}
POINTS = ("accuracy_change", "churn_change", "over_anchor", "over_linear")  # read in points
FORMS = {  # of cells that are plain numbers
    "p": ".3f",
    "noise": ".1%",
    "negative_flips": ".1%",
    "control_negative_flips": ".1%",
    "trainings": ".3g",
    "passes": "g",
    "share_left": ".2f",
    "cpu_ratio": ".2f",
}


def passes_of_linear(arm: str) -> float:
    """Passes an answer of a linear model: one through the frozen encoder whose vectors it reads.

    Examples
    --------
    >>> passes_of_linear("linear (TF-IDF)"), passes_of_linear("linear (both)")
    (0.0, 1.0)
    """
    return 0.0 if arm == WORDS_ALONE else 1.0


def board(
    control: Runs,
    arms: Mapping[str, Runs],
    *,
    placebo: Runs | None = None,
    linear: Mapping[str, ndarray] | None = None,
    costs: Costs | None = None,
    n: int = 5,
    top: float = 0.05,
) -> pd.DataFrame:
    """One row a method, largest reduction first, then placebo, linear models and control.

    Parameters
    ----------
    control : what every arm is compared with
    arms : runs by name, at least 3 each, of the same queries
    placebo : fresh runs of control, which also choose the most unstable queries
    linear : labels (queries,) of models that no seed changes, by names that begin with "linear"
    costs : trainings and passes of an answer by arm (`mitigations.price`)
    n : runs that label entropy is quoted at, fewer where an arm has fewer
    top : share of queries that count as most unstable

    Returns
    -------
    Cells are Intervals over runs and queries where they are means over queries, over runs for
    `nll`, `ece` and `jensen_shannon` (which stands where runs have probabilities). `reduction`:
    share of control's label entropy that a method saves, below 0 where it adds some; `p`:
    two-sided, Holm-adjusted over the methods of this table; `reduction_unstable`: the same on the
    most unstable queries; `churn` and its parts within the arm; `positive_flips` and
    `negative_flips`: right after and wrong before, and the other way round, from control to the
    arm; `accuracy_change` in shares; `guard`: whether that is above minus half a point;
    `over_linear`: accuracy less that of the most accurate linear model; `better`: fewer flips by
    the adjusted p, and the guard holds. `table.attrs["n"]` is n.

    Raises
    ------
    InputError for arms of fewer than 3 runs or other queries, and for a placebo that is not fresh.
    """
    methods, linear = dict(arms), dict(linear or {})
    _check_names(methods, linear)
    rows = dict(methods) if placebo is None else methods | {"placebo": placebo}
    _check(control, rows)
    most_unstable = None
    if placebo is not None:
        _check_fresh(placebo, control, methods)
        most_unstable = unstable(placebo.labels, top)
    n = min(n, len(control), *map(len, rows.values()))
    table = [{"arm": "control", "reduction": None, **_own(control, n)}]
    for name, runs in rows.items():
        chosen = None if runs is placebo else most_unstable
        table.append({"arm": name, **_row(control, runs, n, chosen)})
    table += [{"arm": name, **_linear_row(control, own)} for name, own in linear.items()]
    networks = [control, *rows.values()] if linear else []
    for row, runs in zip(table, networks, strict=False):
        row["over_linear"] = over_linear(runs, linear)
    prices = {"control": (1.0, 1.0), "placebo": (1.0, 1.0)} | dict(costs or {})
    for row in table:
        row |= dict(zip(PRICES, prices.get(row["arm"], ()), strict=False))
    frame = with_verdicts(pd.DataFrame(table))
    frame = frame.reindex(columns=[name for name in COLUMNS if name in frame])
    frame.attrs["n"] = n
    return frame


def is_method(arm: str) -> bool:
    """Whether a row of a board is a method, one of the family that Holm's correction is over."""
    return arm not in BESIDE and not arm.startswith(LINEAR)


def linear_alone(table: pd.DataFrame) -> ndarray:
    """Which rows with an anchor are a linear model alone, bool: at a weight of 1 no run differs,
    and accuracy is that of a linear model in the table.
    """
    linear = table.arm.str.startswith(LINEAR)
    accuracies = [change.value for change in table.accuracy_change[linear]]
    rows = zip(table.arm, table.reduction, table.accuracy_change, strict=True)
    return np.array([_is_linear_alone(*row, accuracies) for row in rows], bool)


def _is_linear_alone(arm: str, reduction, change, accuracies: Sequence[float]) -> bool:
    if not is_method(arm) or "anchor" not in arm or not isinstance(reduction, Interval):
        return False
    return reduction.value == 1 and bool(np.isclose(change.value, accuracies, atol=1e-9).any())


def with_verdicts(table: pd.DataFrame, by: str = "reduction") -> pd.DataFrame:
    """A table of arms in order, with `guard`, `p` and `better` for the family of its methods.

    Of tables that were put together this is the one family of all their methods. by: the column
    that is to be above 0.
    """
    table = table.reset_index(drop=True)
    tested = table.arm.map(is_method) & table[by].notna()
    adjusted = pd.Series(np.nan, index=table.index)
    adjusted[tested] = holm([reduction.p_value() for reduction in table[by][tested]])
    rows = []
    for row, p in zip(table.to_dict("records"), adjusted, strict=True):
        guard = better = ""
        if row["arm"] != "control":
            guard = verdict(row["accuracy_change"], -GUARD)
            better = _better(row["arm"], row[by], p, guard)
        rows.append(row | {"p": p, "guard": guard, "better": better})
    frame = pd.DataFrame(rows)
    order = sorted(frame.index, key=lambda place: _rank(frame.arm[place], frame[by][place]))
    return frame.loc[order].reset_index(drop=True)


def _rank(arm: str, reduction: Interval | None) -> tuple[int, float]:
    """Methods by their reduction, then the placebo, linear models, and control last."""
    kinds = {"placebo": 1, "control": 3}
    kind = kinds.get(arm, 2 if arm.startswith(LINEAR) else 0)
    return kind, -reduction.value if isinstance(reduction, Interval) else np.inf


def _better(arm: str, reduction: Interval | None, p: float, guard: str) -> str:
    """Whether a method flips less by its adjusted p and keeps the accuracy: a verdict."""
    if arm == "placebo":
        return ""
    if arm.startswith(LINEAR):
        return guard
    reduction = reduction if isinstance(reduction, Interval) else None  # pandas makes None nan
    stability = verdict(reduction, 0.0)
    if reduction is not None:
        by_chance = stability == "holds" and not p < LEVEL
        if by_chance or reduction.note:  # over queries only: nothing of other runs
            stability = f"undecided at {reduction.runs} runs"
    return together(stability, guard)


# ---- single numbers


def reduction(
    control: Runs, arm: Runs, n: int = 5, where: ndarray | slice = slice(None)
) -> Interval | None:
    """Share of control's label entropy that an arm saves; None where control never flips.

    where : queries (positions or bool)
    """
    return _against(scores.reduction, _entropy_of(where, control, arm, n), control, arm)


def reduction_gap(control: Runs, one: Runs, other: Runs, n: int = 5) -> Interval:
    """How much more of control's label entropy one arm saves than another; a share of control's."""
    arms = [control, one, other]
    n = min(n, *map(len, arms))
    entropies = [scores.label_entropy(runs.labels, n) for runs in arms]
    seeds = [runs.seeds for runs in arms]
    return scores.compare(lambda plain, a, b: (b - a) / plain, entropies, seeds)


def entropy_change(control: Runs, arm: Runs, where: ndarray, n: int = 5) -> Interval:
    """Change of the mean label entropy of some queries, bool (queries,), from control to an arm.

    In nats; below 0 where the arm is more stable.
    """
    return _against(scores.change, _entropy_of(where, control, arm, n), control, arm)


def measured(runs: Runs, n: int) -> dict[str, Interval]:
    """What runs do by themselves: label entropy at n of them (nats), churn, accuracy (shares)."""
    return {
        "label_entropy": scores.label_entropy(runs.labels, n).interval(),
        "churn": scores.churn(runs.labels).interval(),
        "accuracy": scores.accuracy(runs.labels, runs.gold).interval(),
    }


def entropy_changes(control: Runs, arm: Runs, groups: Mapping[str, ndarray]) -> dict[str, Interval]:
    """`entropy_change` of each group of queries, by its name."""
    return {name: entropy_change(control, arm, where) for name, where in groups.items()}


def churn_change(control: Runs, arm: Runs, where: ndarray) -> Interval:
    """Change of churn on some queries (positions or bool), from control to an arm; a share."""
    return _against(scores.change, lambda runs: scores.churn(runs.labels[:, where]), control, arm)


def accuracy_change(control: Runs, arm: Runs, where: ndarray | slice = slice(None)) -> Interval:
    """Change of accuracy on some queries (positions or bool), from control to an arm; a share."""
    return _against(
        scores.change,
        lambda runs: scores.accuracy(runs.labels[:, where], runs.gold[where]),
        control,
        arm,
    )


def over_linear(runs: Runs, linear: Mapping[str, ndarray]) -> Interval:
    """Accuracy less that of the most accurate linear model, on the same queries; a share.

    linear : labels (queries,) by name
    """
    best = max(linear.values(), key=lambda labels: np.mean(labels == runs.gold))
    same = np.tile(best, (len(runs), 1))
    own, other = (scores.accuracy(labels, runs.gold) for labels in (runs.labels, same))
    return scores.change(own, other, [runs.seeds] * 2)


def unstable(labels: ndarray, top: float = 0.05) -> ndarray:
    """Positions of the share `top` of queries with the highest label entropy; at least one.

    Examples
    --------
    >>> unstable([[0, 1, 2, 0], [0, 1, 3, 0], [0, 2, 4, 0]], top=0.5).tolist()
    [1, 2]
    """
    if not 0 < top <= 1:
        raise InputError("top", top, "a share above 0, at most 1")
    entropy = metrics.label_entropy(labels)
    count = max(1, round(top * len(entropy)))
    return np.sort(np.argsort(-entropy, kind="stable")[:count])


def who_pays(
    control: Runs, arm: Runs, label_names: Sequence[str], n: int = 5, least: int = 5
) -> pd.DataFrame:
    """What a method does to each intent, the one that loses most accuracy first.

    Returns
    -------
    One row an intent of at least `least` queries: intent, examples; label_entropy (control's,
    nats), label_entropy_change and accuracy_change as Intervals; p of the accuracy's change,
    Holm-adjusted over the intents, and whether the intent is `harmed` by it.
    """
    n = _votes(control, arm, n)
    rows: list[dict[str, Any]] = []
    for label in np.flatnonzero(np.bincount(control.gold) >= least).tolist():
        here = np.flatnonzero(control.gold == label)
        rows.append(
            {
                "intent": label_names[label],
                "examples": len(here),
                "label_entropy": scores.label_entropy(control.labels[:, here], n).interval(),
                "label_entropy_change": entropy_change(control, arm, here, n),
                "accuracy_change": accuracy_change(control, arm, here),
            }
        )
    rows.sort(key=lambda row: row["accuracy_change"].value)
    # Where all queries change alike no spread is seen; a sign test of them is the least that holds.
    least_p = [2.0 ** (1 - row["examples"]) for row in rows]
    seen = [row["accuracy_change"].p_value() for row in rows]
    p_values = holm(np.maximum(seen, least_p))
    for row, p in zip(rows, p_values, strict=True):
        row |= {"p": p, "harmed": bool(p < LEVEL and row["accuracy_change"].value < 0)}
    return pd.DataFrame(rows, columns=PAYING)


# ---- a board for readers and records


def readable(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Some columns of a board in words: column -> its header.

    Shares stand in percent with one decimal, changes of accuracy and churn in points, entropies in
    nats.
    """
    cells = {}
    for name, header in columns.items():
        if name in table:
            cells[header] = [in_words(name, value) for value in table[name]]
    return pd.DataFrame(cells)


def in_words(column: str, value: object) -> str:
    """A cell of a board in words, by the name of its column; "" where there is none.

    Examples
    --------
    >>> in_words("churn", Interval(0.0812, 0.07, 0.0924, runs=5)), in_words("p_churn", 0.0002)
    ('8.1 % [7.0, 9.2]', '< 0.001')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, Interval):
        metric = "accuracy_change" if column in POINTS else column
        if metric not in records.UNITS:
            return str(value)
        return records.shown(records.number(metric, value), records.unit_of(metric))
    column = "p" if column.startswith("p_") else column
    form = FORMS.get(column, "")
    shown = format(value, form)
    if column == "p" and shown == "0.000":
        return "< 0.001"
    return shown.replace("%", " %") if form.endswith("%") else shown


def named(arms: Iterable[str]) -> str:
    """Names in a row; "none" where there is none.

    Examples
    --------
    >>> named(["EMA", "R-Drop"]), named([])
    ('EMA, R-Drop', 'none')
    """
    return ", ".join(arms) or "none"


def better(table: pd.DataFrame) -> str:
    """The methods of a board that are significantly more stable and keep the accuracy, by name."""
    return named(table.arm[table.better.eq("holds") & table.arm.map(is_method)])


def answer(table: pd.DataFrame) -> str:
    """What a board says of its methods in three sentences."""
    methods = table[table.arm.map(is_method)]
    better = methods[methods.better == "holds"]
    verb = "is" if len(better) == 1 else "are"
    lines = [
        f"{len(better)} of {len(methods)} methods {verb} significantly more stable than control "
        "at an accuracy that is not lower by half a point or more."
    ]
    best = (methods if better.empty else better).iloc[0]
    trainings = "training" if best.trainings == 1 else "trainings"
    among = "of these" if len(better) else "of all"
    saved = in_words("reduction", best.reduction)
    change = in_words("accuracy_change", best.accuracy_change)
    lines.append(
        f"The largest reduction of label entropy {among} is that of {best.arm}: {saved}, at an "
        f"accuracy change of {change}, for {best.trainings:.3g} {trainings}."
    )
    rest = methods[methods.better == "does not hold"].arm
    if len(rest):
        lines.append(f"Not more stable, or not as accurate: {', '.join(rest)}.")
    return "\n".join(lines)


def described(table: pd.DataFrame, arms: Sequence[str]) -> str:
    """What a board says of some of its arms, a line each."""
    rows = table.set_index("arm")
    control = rows.loc["control"]
    lines = []
    for name in arms:
        text = "not retrained here"
        if name in rows.index:
            text = _sentence(rows.loc[name], control)
        lines.append(f"{name}: {text}")
    return "\n".join(lines)


def _sentence(row: pd.Series, control: pd.Series) -> str:
    entropy = "not measured"
    if isinstance(row.reduction, Interval):
        entropy = in_words("reduction", row.reduction)
    accuracy = in_words("accuracy_change", row.accuracy_change)
    calibration = f"{row.ece.value:.3f} (control {control.ece.value:.3f})"
    return (
        f"reduces label entropy by {entropy}; accuracy {accuracy}; "
        f"calibration error {calibration}; better: {row.better}"
    )


def numbers(
    table: pd.DataFrame, columns: Sequence[str] = COLUMNS, condition: str = ""
) -> list[Number]:
    """The numbers of a table of arms for a record, all under one condition."""
    found = []
    for row in table.to_dict("records"):
        n = row.get("n", table.attrs.get("n"))
        for name in columns:
            value = row.get(name)
            if isinstance(value, Interval):
                quoted = n if name in ("label_entropy", "reduction", "reduction_unstable") else None
                behind = row.get("behind") or ""
                found.append(records.number(name, value, row["arm"], condition, quoted, behind))
            elif name in PRICES and value is not None and np.isfinite(value):
                found.append(records.price(name, value, row["arm"]))
    return found


# ---- rows


def _own(runs: Runs, n: int) -> dict:
    """What can be said of an arm without another."""
    found = scores.scores(runs.labels, runs.gold, n)
    names = ("churn", "right_to_wrong", "wrong_to_wrong", "accuracy")
    row = {"runs": len(runs), "label_entropy": found[f"label_entropy@{n}"].interval()}
    row |= {name: found[name].interval() for name in names}
    row["nll"] = jackknife(np.mean, runs.nll).within(0, np.inf)
    row["ece"] = jackknife(np.mean, runs.ece).within(0, 1)
    if runs.probabilities is not None:
        row["jensen_shannon"] = scores.jensen_shannon(runs.probabilities)
    return row


def _row(control: Runs, runs: Runs, n: int, most_unstable: ndarray | None) -> dict:
    def churn(arm: Runs) -> Score:
        return scores.churn(arm.labels)

    row = _own(runs, n) | {
        "reduction": reduction(control, runs, n),
        "churn_reduction": _against(scores.reduction, churn, control, runs),
        "accuracy_change": accuracy_change(control, runs),
    }
    if most_unstable is not None:
        row["reduction_unstable"] = reduction(control, runs, n, most_unstable)
    return row | flips(control, runs)


def _against(compare: Callable, score: Callable[[Runs], Score], control: Runs, arm: Runs):
    """A score of an arm compared with control's: `scores.change` or `scores.reduction`."""
    return compare(score(arm), score(control), [arm.seeds, control.seeds])


def _entropy_of(where, control: Runs, arm: Runs, n: int) -> Callable[[Runs], Score]:
    """Label entropy on some queries, at as many votes as both arms have."""
    votes = _votes(control, arm, n)
    return lambda runs: scores.label_entropy(runs.labels[:, where], votes)


def flips(before: Runs, after: Runs) -> dict[str, Interval]:
    """What queries meet from one arm to another, over all cross pairs of runs and the queries."""
    right = [(runs.labels == runs.gold).mean(axis=0) for runs in (before, after)]
    each = {
        "positive_flips": (1 - right[0]) * right[1],
        "negative_flips": right[0] * (1 - right[1]),
    }
    found = {}
    for part, rows in each.items():
        over_runs = intervals.jackknife_arms(
            lambda old, new, gold, part=part: metrics.churn_between(old, new, gold)[part],
            [before.labels, after.labels],
            [before.seeds, after.seeds],
            examples=(before.gold,),
        )
        fewest = min(len(before), len(after))
        over_queries = intervals.over_queries(lambda mean: mean, rows, runs=fewest)
        found[part] = intervals.runs_and_queries(over_runs, over_queries).within(0, 1)
    return found


def _linear_row(control: Runs, labels: ndarray) -> dict:
    labels = np.asarray(labels)
    if labels.shape != control.gold.shape:
        allowed = f"{control.gold.shape}, one label a query"
        raise InputError("shape of a linear model's labels", labels.shape, allowed)
    still = Interval(0.0, 0.0, 0.0, 1, "no seed changes it", se=0.0)
    whole = Interval(1.0, 1.0, 1.0, 1, "no seed changes it", se=0.0)
    right = (labels == control.gold).astype(float)
    accuracy = intervals.over_queries(lambda mean: mean, right, runs=1)
    often = np.tile(labels, (3, 1))  # as a jackknife asks
    fixed = of_answers(LINEAR, often, control.gold, -1 - np.arange(3))
    return {
        "runs": 1,
        **dict.fromkeys(("label_entropy", "churn", "right_to_wrong", "wrong_to_wrong"), still),
        **dict.fromkeys(("reduction", "churn_reduction"), whole),
        "accuracy": accuracy.within(0, 1),
        "accuracy_change": _at(len(control), accuracy_change(control, fixed)),
        **{name: _at(len(control), part) for name, part in flips(control, fixed).items()},
    }


def _at(runs: int, interval: Interval) -> Interval:
    """The same of so many runs: copies of what no seed changes do not count."""
    over_runs = interval.over_runs and replace(interval.over_runs, runs=runs)
    return replace(interval, runs=runs, over_runs=over_runs)


def _votes(control: Runs, arm: Runs, n: int) -> int:
    _check(control, {arm.arm: arm})
    return min(n, len(control), len(arm))


def _check_names(methods: Mapping, linear: Mapping) -> None:
    for name in methods:
        if not is_method(name):
            raise InputError("name of an arm", name, "another: the board has a row of that name")
    for name in linear:
        if not name.startswith(LINEAR):
            raise InputError("name of a linear model", name, f"one that begins with {LINEAR!r}")


def _check(control: Runs, rows: Mapping[str, Runs]) -> None:
    for name, runs in {"control": control, **rows}.items():
        if len(runs) < 3:
            raise InputError(f"runs of {name}", len(runs), "at least 3")
        if not np.array_equal(runs.gold, control.gold):
            allowed = "the same test examples for all arms"
            raise InputError(f"gold labels of {name}", "others than control's", allowed)
    differs = (control.labels != metrics.majority(control.labels)[0]).any(axis=1)
    if differs.sum() < 2:
        thing = "control runs that answer otherwise than most"
        raise InputError(thing, int(differs.sum()), "at least 2")


def _check_fresh(placebo: Runs, control: Runs, methods: Mapping[str, Runs]) -> None:
    seeds = placebo.seeds
    if np.isin(seeds, control.seeds).any():
        allowed = "fresh runs: no seed of control's"
        raise InputError("seeds of placebo", seeds.tolist(), allowed)
    scored = [runs.seeds for runs in methods.values()]
    if scored and np.isin(seeds, np.concatenate(scored)).any():
        allowed = (
            "runs that choose the unstable examples and are not scored: no seed of another arm's"
        )
        raise InputError("seeds of placebo", seeds.tolist(), allowed)

"""The board: what every method bought, at what price, next to a placebo and a learner that never flips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics import scores as votes
from stabutils.metrics.intervals import (
    GUARD,
    Interval,
    holm,
    jackknife,
    jackknife_arms,
    together,
    verdict,
)
from stabutils.records import Claim
from stabutils.study.runs import Runs

LEVEL = 0.05  # of the family of all methods on a board


def board(
    control: Runs,
    arms: Mapping[str, Runs],
    *,
    placebo: Runs | None = None,
    convex: np.ndarray | None = None,
    chooser: Runs | None = None,
    costs: Mapping[str, tuple[float, float]] | None = None,
    n: int = 5,
    top: float = 0.05,
) -> pd.DataFrame:
    """One row a method, best reduction first, then the placebo, the convex learner and control itself.

    Cells are Intervals over retrainings. label_entropy@n at one n for all rows (fewer where an arm is smaller);
    reduction: the share of control's label entropy a method takes away, below 0 where it adds some; p: two-sided,
    Holm-adjusted over the methods; reduction_unstable: the same on the share `top` of examples that the runs of
    `chooser` (the placebo's where none is given), scored in no other row, found most unstable; churn and its parts
    within the arm, churn_reduction as reduction; good and bad: what changes from control to it; accuracy_change: in
    shares, guard: whether it is above minus half a point; jensen_shannon where the runs have probabilities; trainings
    and passes: `costs` of a row, a mitigation's `cost`. better: fewer flips by the adjusted p, and the guard holds.

    convex: labels (examples,) of a learner without seeds. Raises InputError for arms of fewer than 3 runs or other
    examples, and for placebo or choosing runs that are not fresh.
    """
    methods = dict(arms)
    if taken := {"control", "placebo", "convex"} & methods.keys():
        raise InputError("name of an arm", min(taken), "another: the board has a row of that name")
    rows = methods | ({"placebo": placebo} if placebo is not None else {})
    _check(control, rows, placebo, chooser)
    chooser = placebo if chooser is None else chooser
    n = min(n, len(control), *map(len, rows.values()))
    some = None if chooser is None else unstable(chooser.labels, top)
    table = {
        name: _row(control, runs, n, None if runs is chooser else some)
        for name, runs in rows.items()
    }
    adjusted = holm([table[name]["reduction"].p_value() for name in methods])
    for name, p in zip(methods, adjusted, strict=True):
        table[name] |= {"p": p, "better": better(table[name]["reduction"], p, table[name]["guard"])}
    ranked = sorted(methods, key=lambda name: -table[name]["reduction"].value)
    order = [*ranked, *(name for name in rows if name not in methods)]
    if convex is not None:
        table["convex"] = _convex_row(control, np.asarray(convex), n)
        order.append("convex")
    table["control"] = _own(control, n)
    prices = {"control": (1.0, 1.0), "placebo": (1.0, 1.0)} | dict(costs or {})
    listed = [
        {
            "arm": name,
            **table[name],
            **dict(zip(("trainings", "passes"), prices.get(name, ()), strict=False)),
        }
        for name in [*order, "control"]
    ]
    return pd.DataFrame(listed).reindex(
        columns=[name for name in _columns(n) if any(name in row for row in listed)]
    )


def _columns(n):
    return [
        "arm",
        "runs",
        f"label_entropy@{n}",
        "reduction",
        "p",
        "reduction_unstable",
        "churn",
        "churn_reduction",
        "right_to_wrong",
        "wrong_to_wrong",
        "good",
        "bad",
        "jensen_shannon",
        "accuracy",
        "accuracy_change",
        "guard",
        "nll",
        "ece",
        "trainings",
        "passes",
        "better",
    ]


def readable(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a board for a reader: those that it has, empty where there is nothing to say."""
    digits = {
        "p": "{:.3f}",
        "trainings": "{:g}",
        "passes": "{:g}",
        "networks": "{:g}",
        "share_left": "{:.2f}",
        "cpu_seconds": "{:.0f}",
        "latency": "{:.1f}",
    }
    some = table[[name for name in columns if name in table]].astype(object)
    return pd.DataFrame(
        {
            name: [
                "" if value is None or value != value else digits.get(name, "{}").format(value)
                for value in values
            ]
            for name, values in some.items()
        }
    )


def described(table: pd.DataFrame, arms: Sequence[str]) -> str:
    """What a board says of some of its arms, a line each."""
    rows = table.set_index("arm")
    lines = [
        f"{name}: {_in_words(rows.loc[name], rows.loc['control'])}"
        if name in rows.index
        else f"{name}: not retrained here"
        for name in arms
    ]
    return "\n".join(lines)


def _in_words(row, control):
    """Changes in hundredths, with their signs."""
    entropy, accuracy = (
        "not measured"
        if change is None
        else f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
        for change in (row.reduction, row.accuracy_change)
    )
    return (
        f"takes away {entropy} % of control's label entropy; accuracy {accuracy} points; calibration error "
        f"{row.ece.value:.3f} (control {control.ece.value:.3f}); better: {row.better}"
    )


def found(table: pd.DataFrame) -> dict[str, Interval]:
    """The numbers of a board for a record: "reduction EMA", "accuracy control" and so on."""
    every = {
        f"{name} {row['arm']}": row[name] for _, row in table.iterrows() for name in table.columns
    }
    prices = {
        f"{name} {row['arm']}": Interval(*[row[name]] * 3, runs=row["runs"])
        for _, row in table.iterrows()
        for name in ("trainings", "passes")
        if name in row and np.isfinite(row[name])
    }
    return {name: value for name, value in every.items() if isinstance(value, Interval)} | prices


def claims(table: pd.DataFrame) -> list[Claim]:
    """What the board says of each method, with its own verdict: Holm's p and the guard are part of it."""
    return [
        Claim(
            f"better {row.arm}",
            f"{row.arm} takes away {row.reduction} of control's label entropy "
            f"({row.reduction.runs} runs) and keeps its accuracy to half a point.",
            row.reduction.value,
            row.reduction.low,
            row.reduction.high,
            row.better,
        )
        for row in table.itertuples()
        if pd.notna(row.p) and row.reduction
    ]


def reduction(control: Runs, arm: Runs, n: int = 5) -> Interval | None:
    """The share of control's label entropy that an arm takes away, as on a board; None where control never flips."""
    n = _votes(control, arm, n)
    old, new = (
        votes.scores(runs.labels, control.gold, n)[f"label_entropy@{n}"] for runs in (control, arm)
    )
    return _reduction(control, arm, old, new)


def change(control: Runs, arm: Runs, where: np.ndarray, n: int = 5) -> Interval:
    """By how much the mean label entropy of some examples, bool (examples,), changes from control to an arm: nats,
    below 0 where the arm is steadier."""
    n = _votes(control, arm, n)
    old, new = (
        votes.scores(runs.labels[:, where], control.gold[where], n)[f"label_entropy@{n}"]
        for runs in (control, arm)
    )
    return _difference(control, arm, old, new)


def _votes(control, arm, n):
    _check(control, {arm.arm: arm})
    return min(n, len(control), len(arm))


def unstable(labels: np.ndarray, top: float = 0.05) -> np.ndarray:
    """Positions of the share `top` of examples with the highest label entropy, in order; at least one.

    >>> unstable([[0, 1, 2, 0], [0, 1, 3, 0], [0, 2, 4, 0]], top=0.5).tolist()
    [1, 2]
    """
    if not 0 < top <= 1:
        raise InputError("top", top, "a share above 0, at most 1")
    entropy = metrics.label_entropy(labels)
    return np.sort(np.argsort(-entropy, kind="stable")[: max(1, round(top * len(entropy)))])


def who_pays(control: Runs, arm: Runs, label_names, n: int = 5, least: int = 5) -> pd.DataFrame:
    """What a method does to each intent of at least so many examples, the one that loses most accuracy first: of fewer
    an intent says nothing by itself.

    intent, examples; label_entropy (control's, nats), label_entropy_change and accuracy_change (shares) as Intervals;
    p of the accuracy's change, Holm-adjusted over the intents, and whether the intent is `harmed` by it.
    """
    n, rows = _votes(control, arm, n), []
    for label in np.flatnonzero(np.bincount(control.gold) >= least):
        here = np.flatnonzero(control.gold == label)
        old, new = (
            votes.scores(runs.labels[:, here], control.gold[here], n) for runs in (control, arm)
        )
        entropy, accuracy = (
            _difference(control, arm, old[name], new[name])
            for name in (f"label_entropy@{n}", "accuracy")
        )
        rows.append(
            {
                "intent": label_names[label],
                "examples": len(here),
                "label_entropy": old[f"label_entropy@{n}"].interval(control.labels),
                "label_entropy_change": entropy,
                "accuracy_change": accuracy,
            }
        )
    rows.sort(key=lambda row: row["accuracy_change"].value)
    for row, p in zip(rows, holm([row["accuracy_change"].p_value() for row in rows]), strict=True):
        row |= {"p": p, "harmed": bool(p < LEVEL and row["accuracy_change"].value < 0)}
    return pd.DataFrame(rows)


# ---- rows


def _own(runs, n):
    """What can be said of an arm without another."""
    scores = votes.scores(runs.labels, runs.gold, n)
    names = (f"label_entropy@{n}", "churn", "right_to_wrong", "wrong_to_wrong", "accuracy")
    row = {"runs": len(runs)} | {name: scores[name].interval(runs.labels) for name in names}
    row |= {name: jackknife(np.mean, getattr(runs, name)) for name in ("nll", "ece")}
    if runs.probabilities is not None:
        row["jensen_shannon"] = votes.jensen_shannon(runs.probabilities)
    return row


def _row(control, runs, n, some):
    old, new = (votes.scores(arm.labels, control.gold, n) for arm in (control, runs))
    entropy = f"label_entropy@{n}"
    change = _difference(control, runs, old["accuracy"], new["accuracy"])
    row = _own(runs, n) | {
        "reduction": _reduction(control, runs, old[entropy], new[entropy]),
        "churn_reduction": _reduction(control, runs, old["churn"], new["churn"]),
        "accuracy_change": change,
        "guard": verdict(change, -GUARD),
    }
    if some is not None:
        old, new = (
            votes.scores(arm.labels[:, some], control.gold[some], n)[entropy]
            for arm in (control, runs)
        )
        row["reduction_unstable"] = _reduction(control, runs, old, new)
    for part in ("good", "bad"):
        row[part] = jackknife_arms(
            lambda b, a, gold, part=part: metrics.churn_between(b, a, gold)[part],
            [control.labels, runs.labels],
            [control.seeds, runs.seeds],
            examples=(control.gold,),
        )
    return row


def _convex_row(control, labels, n):
    if labels.shape != control.gold.shape:
        raise InputError(
            "shape of convex", labels.shape, f"{control.gold.shape}, one label an example"
        )
    sure = {
        name: Interval(value, value, value, 1, "no seed changes it", se=0.0)
        for name, value in (
            (f"label_entropy@{n}", 0.0),
            ("churn", 0.0),
            ("right_to_wrong", 0.0),
            ("wrong_to_wrong", 0.0),
            ("reduction", 1.0),
            ("churn_reduction", 1.0),
            ("accuracy", float(np.mean(labels == control.gold))),
        )
    }
    change = jackknife(
        lambda accuracy: sure["accuracy"].value - np.mean(accuracy),
        np.mean(control.labels == control.gold, axis=1),
    )
    guard = verdict(change, -GUARD)
    between = {
        part: jackknife(
            lambda before, gold, part=part: metrics.churn_between(before, labels[None], gold)[part],
            control.labels,
            examples=(control.gold,),
        )
        for part in ("good", "bad")
    }
    return (
        {"runs": 1}
        | sure
        | between
        | {
            "accuracy_change": change,
            "guard": guard,
            "better": better(sure["reduction"], 0.0, guard),
        }
    )


def _difference(control, runs, old, new):
    """Interval of new - old, two votes.Scores; a seed is left out of both arms where both used it."""
    return _between(control, runs, lambda before, after: new(after) - old(before))


def _reduction(control, runs, old, new):
    """Share of control's score taken away; None where control, or control without one of its runs, never flips."""
    if old.value == 0 or not old.without.all():
        return None
    return _between(control, runs, lambda before, after: 1 - new(after) / old(before))


def _between(control, runs, statistic):
    return jackknife_arms(
        statistic, [np.arange(len(control)), np.arange(len(runs))], [control.seeds, runs.seeds]
    )


def better(reduction: Interval, p: float, guard: str) -> str:
    """Whether a method flips less beyond doubt, by its adjusted p, and keeps the accuracy: a verdict."""
    stability = verdict(reduction, 0.0)
    if stability == "holds" and p >= LEVEL:
        stability = f"undecided at {reduction.runs} runs"
    return together(stability, guard)


def _check(control, rows, placebo=None, chooser=None):
    named = {"control": control, **rows} | ({"chooser": chooser} if chooser is not None else {})
    for name, runs in named.items():
        if len(runs) < 3:
            raise InputError(f"runs of {name}", len(runs), "at least 3")
        if not np.array_equal(runs.gold, control.gold):
            raise InputError(
                f"gold labels of {name}",
                "others than control's",
                "the same test examples for all arms",
            )
    odd = (control.labels != metrics.majority(control.labels)[0]).any(axis=1)
    if odd.sum() < 2:
        raise InputError(
            "control runs that answer otherwise than most", int(odd.sum()), "at least 2"
        )
    if placebo is not None and np.isin(placebo.seeds, control.seeds).any():
        raise InputError(
            "seeds of placebo", placebo.seeds.tolist(), "fresh runs: no seed of control's"
        )
    name, chooser = ("placebo", placebo) if chooser is None else ("chooser", chooser)
    scored = [runs.seeds for runs in (control, *rows.values()) if runs is not chooser]
    if chooser is not None and np.isin(chooser.seeds, np.concatenate(scored)).any():
        allowed = (
            "runs that choose the unstable examples and are not scored: no seed of another arm's"
        )
        raise InputError(f"seeds of {name}", chooser.seeds.tolist(), allowed)

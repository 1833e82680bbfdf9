"""Fair tuning: as many strengths and as many runs for every method, judged on validation texts,
then frozen.

The choice is a table, `records/<dataset>/tuning.csv`, which notebooks read; seeds used for it stand
on no board.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.intervals import GUARD, ROUNDING
from stabutils.study.study import Arm, Study

if TYPE_CHECKING:
    from stabutils.mitigations.regularizers import ScalarMitigation
    from stabutils.study.runs import Runs
    from stabutils.training.hooks import Mitigation

START = 1000  # tuning trains with seed + START and on


def choose(
    control: np.ndarray, arms: Mapping[str, Mapping[float, np.ndarray]], gold: np.ndarray
) -> pd.DataFrame:
    """For each method the strength whose runs disagree least on validation, of those that keep
    control's accuracy.

    control, and arms by method and strength (weakest first): labels (runs, examples). A strength
    may be chosen whose mean accuracy is at least control's less half a point; where a method has
    none, its weakest is taken, and `why` says so. One row a strength, control first: label_entropy
    (nats) at `n` votes, the same for all rows, and accuracy, each with its interval. Raises
    InputError where methods differ in their number of strengths, or arms in theirs of runs.

    >>> steady_and_wrong = [[1, 0, 0], [1, 0, 0]]
    >>> arms = {"a": {0.1: [[0, 1, 1], [0, 1, 0]], 0.2: steady_and_wrong}}
    >>> table = choose([[0, 1, 0], [0, 0, 1]], arms, [0, 1, 1])
    >>> table[["method", "strength", "accuracy", "chosen"]]
        method  strength  accuracy  chosen
    0  control       NaN  0.666667   False
    1        a       0.1  0.833333    True
    2        a       0.2  0.000000   False
    """
    names, labels = [("control", np.nan)], [control]
    for method, own in arms.items():
        names += [(method, strength) for strength in own]
        labels += own.values()
    for what, numbers in (
        ("strengths of the methods", {len(own) for own in arms.values()}),
        ("runs of the arms", {len(runs) for runs in labels}),
    ):
        if len(numbers) > 1:
            raise InputError(what, sorted(numbers), "the same number for all")
    table = pd.DataFrame(names, columns=["method", "strength"]).join(scored(labels, gold))
    table = table.assign(chosen=False, why="")
    for _, rows in table[1:].groupby("method", sort=False):
        kept = rows[rows.kept]
        best, why = rows.index[0], "the weakest: each costs more than half a point of accuracy"
        if len(kept):
            best, why = kept.label_entropy.idxmin(), "least label entropy"
        table.loc[best, ["chosen", "why"]] = [True, why]
    return table.drop(columns="kept")


def scored(arms: Collection[np.ndarray], gold: np.ndarray) -> pd.DataFrame:
    """One row an arm of labels (runs, examples), control first.

    Columns runs, n, label_entropy (nats, at n votes, the same for all) and accuracy, each with its
    interval over runs and queries, and `kept`: whether the mean accuracy is at least control's
    minus half a point (of the means, for so few runs leave the interval open).
    """
    n, rows = min(5, *map(len, arms)), []
    for labels in arms:
        row: dict[str, float] = {"runs": len(labels), "n": n}
        entropy, accuracy = scores.label_entropy(labels, n), scores.accuracy(labels, gold)
        for name, score in (("label_entropy", entropy), ("accuracy", accuracy)):
            own = score.interval()
            row |= {name: own.value, f"{name}_low": own.low, f"{name}_high": own.high}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(kept=table.accuracy >= table.accuracy[0] - GUARD - ROUNDING)


def tune(
    study: Study, doses: Mapping[str, Sequence[ScalarMitigation]], runs: int = 10
) -> pd.DataFrame:
    """Train every strength of every method `runs` times, and `choose`; which model and recipe it
    was stands beside.
    """
    control = _validation(study, "control", runs)
    arms = {
        method: {dose.dose: _validation(study, dose, runs) for dose in own}
        for method, own in doses.items()
    }
    table = choose(control, arms, study.data.validation.labels)
    return table.assign(model=study.model, recipe=recipe_digest(study))


def tried(
    control: np.ndarray, candidates: Mapping[str, np.ndarray], gold: np.ndarray
) -> pd.DataFrame:
    """One row a candidate, control first: `scored` of labels (runs, examples), and the share of
    control's label entropy that is saved.
    """
    table = scored([control, *candidates.values()], gold)
    table.insert(0, "candidate", ["control", *candidates])
    reduction = 1 - table.label_entropy / table.label_entropy[0]
    table.insert(len(table.columns) - 1, "reduction", reduction)  # before `kept`
    return table


def best_of_sides(
    control: Runs,
    arms: Mapping[str, Runs],
    costs: Mapping[str, tuple[float, float]],
    sides: Mapping[str, Collection[str]],
    gold: np.ndarray,
) -> dict[str, str]:
    """Of each side the method of the largest reduction on validation, of those that keep control's
    accuracy there.

    Only methods of at most two trainings and one pass; no entry for a side that has none. Names
    with "(chosen)" belong to the side of the name before it.
    """
    labels = {name: runs.validation_labels for name, runs in arms.items()}
    table = tried(control.validation_labels, labels, gold).set_index("candidate")
    cheap = [name for name in arms if costs[name][0] <= 2 and costs[name][1] <= 1]
    kept = [name for name in cheap if table.kept[name]]
    best = {}
    for side, names in sides.items():
        own = [name for name in kept if name.split(" (chosen)")[0] in names]
        if own:
            best[side] = table.reduction[own].idxmax()
    return best


def _validation(study: Study, arm: Arm, runs: int) -> np.ndarray:
    """Answers (runs, examples) to the validation texts, with seeds that stand on no board."""
    return study.retrain(arm, n=runs, start=START).validation_labels


def try_out(study: Study, candidates: Mapping[str, Arm | Study], runs: int) -> pd.DataFrame:
    """Train candidates that no one strength orders, with seeds that stand on no board: what was
    `tried`, and what each costs in trainings of the study's control.

    candidates : by name, arms of the study, or studies: their controls, under another recipe
    """
    from stabutils.mitigations.composition import price

    control = _validation(study, "control", runs)
    labels, trainings = {}, [1.0]
    for name, candidate in candidates.items():
        own = candidate if isinstance(candidate, Study) else study
        arm = "control" if isinstance(candidate, Study) else candidate
        labels[name] = _validation(own, arm, runs)
        recipe = own.task.recipe
        trainings.append(price(arm, recipe)[0] * recipe.epochs / study.task.recipe.epochs)
    table = tried(control, labels, study.data.validation.labels)
    table.insert(1, "trainings", trainings)
    return table.assign(model=study.model)


def path(study: Study) -> Path:
    """Where the committed table of a dataset lies."""
    return study.records / "tuning.csv"


def write(table: pd.DataFrame, path: Path) -> Path:
    """Write a table of this module; equal tables are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n", float_format="%.6g", encoding="utf-8")
    return path


def read(study: Study) -> pd.DataFrame | None:
    """The committed table of the study's dataset and model, or None."""
    if not path(study).is_file():
        return None
    table = pd.read_csv(path(study), keep_default_na=False, na_values={"strength": [""]})
    return table if (table.model == study.model).all() else None


def source(study: Study, table: pd.DataFrame | None) -> str:
    """Where the strengths come from, in words."""
    if table is None:
        return "strengths: defaults of the methods, nothing was tuned on this corpus and model"
    recipe = "this recipe" if (table.recipe == recipe_digest(study)).all() else "another recipe"
    runs = f"{table.runs[0]} runs each, LE@{table.n[0]}"
    return f"strengths: chosen on validation texts under {recipe}, {runs}"


def methods(
    study: Study, names: str, catalogue: str = "both", quick: Sequence[str] = ()
) -> dict[str, Arm]:
    """The methods that a notebook's `methods` asks for, at the strengths chosen for the study.

    Parameters
    ----------
    names : "quick", "all" (of the catalogue), or names out of all catalogues, separated by commas;
        a regularizer may name its strength: "R-Drop 1"
    catalogue : one of NOTEBOOKS, or "both" for the first two
    quick : what "quick" stands for

    Raises
    ------
    InputError for a name that no notebook has, or only 07, whose methods know a deployed model.
    """
    from stabutils.mitigations.composition import wanted

    every = catalogues(study)
    every["both"] = {**every["regularizers"], **every["data_centric"]}
    pool = dict(every[catalogue])
    if names not in ("quick", "all"):
        listed = [name.strip() for name in names.split(",")]
        of_updates = every.pop("updates") if catalogue != "updates" else {}
        for name in listed:
            if name in of_updates:
                allowed = "a method of this notebook; that one is asked for in 07"
                raise InputError("method", name, allowed)
        pool = _at_strengths(listed)
        for own in every.values():
            pool |= own
    return {name: pool[name] for name in wanted(names, pool, quick)}


def _at_strengths(names: Sequence[str]) -> dict[str, Arm]:
    """The regularizers among some names that say their strength, such as "R-Drop 1"."""
    from stabutils.mitigations.regularizers import CATALOGUE

    found: dict[str, Arm] = {}
    for name in names:
        method, _, strength = name.rpartition(" ")
        if method in CATALOGUE and re.fullmatch(r"\d+(\.\d+)?", strength):
            weakest = CATALOGUE[method][0]
            counts = isinstance(weakest.dose, int) and strength.isdecimal()
            kind: Any = type(weakest)
            found[name] = kind(int(strength) if counts else float(strength))
    return found


# Catalogue -> the notebook whose `methods` are out of it.
NOTEBOOKS = {
    "regularizers": "03",
    "data_centric": "04",
    "anchored": "06",
    "updates": "07",
    "neighbours": "09",
}


def catalogues(study: Study) -> dict[str, Mapping[str, Arm]]:
    """The methods of each of NOTEBOOKS by name, at the strengths chosen for the study."""
    from stabutils.mitigations import data_centric, regularizers, single, updates

    return {
        "regularizers": chosen(read(study), regularizers.CATALOGUE),
        "data_centric": {**data_centric.CATALOGUE, **settings(settings_tried(study))},
        "anchored": single.catalogue(pretrained=not study.model.startswith("compact")),
        "updates": updates.CATALOGUE,
        "neighbours": of_neighbours(study),
    }


def of_neighbours(study: Study) -> dict[str, Arm]:
    """The methods of neighbouring papers that suit the study's model, by name.

    Of the strengths that validation tried (`neighbours.csv`) the one of least label entropy, of
    those that keep control's accuracy; where none was tried the middle one.
    """
    from stabutils.mitigations import neighbours
    from stabutils.mitigations.neighbours import UnitDropout

    table = _committed(study, "neighbours")
    found: dict[str, Arm] = {}
    for name, own in neighbours.CATALOGUE.items():
        if isinstance(own[0], UnitDropout) and not study.model.startswith("compact"):
            continue
        found[name] = own[1]
        candidates = {f"{name} {each.dose:g}": each for each in own}
        if table is not None and table.candidate.isin(candidates).any():
            found[name] = candidates[_least(table[table.candidate.isin(candidates)])]
    return found


def settings_tried(study: Study) -> pd.DataFrame | None:
    """The committed table of TGTSS's settings on validation (`tried`), or None."""
    return _committed(study, "tgtss")


def _committed(study: Study, name: str) -> pd.DataFrame | None:
    """What was tried for this corpus and model, or None."""
    path = study.records / f"{name}.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    return table if "model" in table and table.model.eq(study.model).all() else None


def settings(table: pd.DataFrame | None) -> dict[str, Mitigation]:
    """TGTSS and matched smoothing at the settings that disagreed least on validation.

    Of those that keep control's accuracy, or of all where none does. Matched smoothing stands there
    twice: at its own choice and at TGTSS's, where these differ. Nothing where nothing was tried.
    """
    from stabutils.mitigations.data_centric import candidates

    if table is None:
        return {}
    every = candidates()
    tgtss, matched = (
        _least(table[table.candidate.str.startswith(f"{kind},")])
        for kind in ("TGTSS", "matched smoothing")
    )
    methods = {"TGTSS (chosen)": every[tgtss], "matched smoothing (chosen)": every[matched]}
    same = tgtss.replace("TGTSS", "matched smoothing")
    if same != matched:
        methods["matched smoothing (as TGTSS)"] = every[same]
    return methods


def _least(table: pd.DataFrame) -> str:
    """The candidate of least label entropy among those that keep the accuracy, or among all."""
    rows = table.set_index("candidate")
    kept = rows[rows.kept]
    return (rows if kept.empty else kept).label_entropy.idxmin()


def recipe_digest(study: Study) -> str:
    """Digest of all that decides a run of control, apart from its seed."""
    from stabutils.mitigations.composition import resolve
    from stabutils.training.state import Seeds

    return study.identify(resolve("control"), Seeds(0, 0, 0)).name.rsplit("-", 1)[1]


def chosen(
    table: pd.DataFrame | None, doses: Mapping[str, Sequence[ScalarMitigation]]
) -> dict[str, ScalarMitigation]:
    """The methods at the strengths that the table chose; at their papers' or our defaults where it
    has none.
    """
    strengths = {} if table is None else table[table.chosen].set_index("method").strength.to_dict()
    found = {}
    for name, own in doses.items():
        by_strength = {dose.dose: dose for dose in own}
        found[name] = by_strength.get(strengths.get(name, np.nan), type(own[0])())
    return found

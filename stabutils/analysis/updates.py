"""What a service lives through when its data change and its model is trained again.

An *update* is a pair: the deployed model, and the one that replaces it, trained with other seeds on
other training data (`training.changes`). Where a method knows the model that it replaces, only the
pairs that were trained as pairs count (`matched`); else any old model may be replaced by any new
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils import records
from stabutils.analysis import board, ensembles
from stabutils.analysis.baselines import of_changed_data
from stabutils.analysis.ensembles import probabilities_of
from stabutils.analysis.sources import Effects, effects
from stabutils.errors import InputError
from stabutils.metrics import detection, intervals, mixtures, scores
from stabutils.metrics.intervals import Interval
from stabutils.metrics.measures import flips
from stabutils.metrics.scores import Score
from stabutils.mitigations import resolve
from stabutils.mitigations.updates import APART, Successor
from stabutils.study.runs import Runs, take
from stabutils.study.study import Arm, Study
from stabutils.training.state import Seeds

FLIPS = ("churn", "negative_flips", "positive_flips")


@dataclass(frozen=True, eq=False)
class Updates:
    """Old models and as many new ones, the new one of each at its place.

    matched : each new model knows the old one at its place
    """

    before: Runs
    after: Runs
    matched: bool = False

    def __post_init__(self):
        if len(self.before) != len(self.after) or len(self.before) < 2:
            allowed = "as many new models as old ones, at least 2"
            raise InputError("updates", (len(self.before), len(self.after)), allowed)

    def __len__(self) -> int:
        return len(self.before)

    def flips(self) -> dict[str, Score]:
        """FLIPS as scores over updates and queries: shares of queries."""
        old, new, gold = self.before.labels, self.after.labels, self.before.gold
        if self.matched:
            rows = flips(old, new, gold)
        else:
            right, now_right = ((labels == gold).astype(float) for labels in (old, new))
            wrong, now_wrong = 1 - right, 1 - now_right
            rows = {
                "churn": _project(_share_of_changed(old, new), _share_of_changed(new, old)),
                "negative_flips": _project(right * now_wrong.mean(0), right.mean(0) * now_wrong),
                "positive_flips": _project(wrong * now_right.mean(0), wrong.mean(0) * now_right),
            }
        return {name: scores.of_runs(values, bounds=(0, 1)) for name, values in rows.items()}

    def accuracy(self) -> Score:
        return scores.accuracy(self.after.labels, self.after.gold)

    def chances(self) -> ndarray:
        """The chance that an update changes a query's answer, (queries,): mean over the pairs."""
        return (self.before.labels[:, None] != self.after.labels).mean(axis=(0, 1))


Arms = Mapping[str, Updates]  # by name


def _share_of_changed(labels: ndarray, others: ndarray) -> ndarray:
    """Share of other models that answer otherwise than a model does: (models, queries)."""
    return np.stack([(others != own).mean(axis=0) for own in labels])


def _project(of_old: ndarray, of_new: ndarray) -> ndarray:
    """Rows whose mean is that over all pairs of an old and a new model, and whose spread is its
    own.

    of_old, of_new : (updates, queries), the mean over the other side's models; Hoeffding's
    projection. Of two independent sides the variance of the mean is that of both.
    """
    return of_old + of_new - of_old.mean(axis=0)


def update(study: Study, arm: Arm = "control", n: int = 10) -> Updates:
    """`n` updates by a method: models of seeds 0 .. n-1 are replaced by models of seeds APART and
    on.

    study : one whose data change (`change`); without, an update is a retraining on the same data. A
    method that knows the deployed model is deployed as control's.
    """
    _check_seeds(study, n)
    resolved = resolve(arm)
    matched = any(isinstance(part, Successor) for part in resolved.flattened())
    before = study.retrain("control" if matched else resolved, n=n)
    after = study.retrain(resolved, n=n, start=APART, mixed=matched)  # for its anchor
    return Updates(before, after, matched)


def _check_seeds(study: Study, n: int) -> None:
    """Raises InputError where some of so many deployed models would know an update's data."""
    if study.task.change is not None:
        study.task.change.check_seed(study.seed, n)


def pairs(updates: Updates) -> dict[str, ndarray]:
    """FLIPS of every pair of an old and a new model, or of those that match: shares (pairs,)."""
    count = len(updates)
    old = new = np.arange(count)
    if not updates.matched:
        old, new = np.indices((count, count)).reshape(2, -1)
    changes = flips(updates.before.labels[old], updates.after.labels[new], updates.before.gold)
    return {name: changes[name].mean(axis=1) for name in FLIPS}


def combined(
    control: Updates, linear: Updates, sizes: Sequence[int], passes: float, seed: int = 0
) -> tuple[Arms, board.Costs]:
    """What needs no training beyond control's: ensembles, the old model kept, and an anchor.

    linear : updates of the linear model. passes : of an answer beside it. Returns updates and
    prices by name; nothing where runs have no probabilities.
    """
    arms: dict[str, Updates] = {}
    costs: dict[str, tuple[float, float]] = {}
    if control.before.probabilities is None:
        return arms, costs
    for size in sizes:
        if len(control) // size >= 3:
            combine = partial(ensembles.ensemble, size=size, seed=seed)
            replicas = combine(control.before), combine(control.after)
            arms[f"ensemble of {size}"] = Updates(*replicas)
            costs[f"ensemble of {size}"] = (size, size)
    arms["the old one kept"] = keeping_the_old(control)
    arms["anchored at a half"] = anchored(control, linear)
    return arms, costs | {"the old one kept": (1.0, 2.0), "anchored at a half": (1.0, passes)}


def churns(effects: Mapping[str, Effects], anchors: Mapping[str, Arms]) -> pd.DataFrame:
    """Seed, data and update churn of control and of linear models, by change; a row an arm."""
    rows: list[dict] = []
    for name, own in effects.items():
        rows.append({"arm": f"control, {name}", **churns_of(own)})
    for name, linear in anchors.items():
        for arm, updates in linear.items():
            churn = updates.flips()["churn"].interval()
            rows.append({"arm": f"{arm}, {name}", "data_churn": churn, "update_churn": churn})
    return pd.DataFrame(rows)


def anchored(updates: Updates, anchors: Updates, weight: float = 0.5) -> Updates:
    """Updates of networks that answer beside the linear model of the same training data.

    anchors : of the linear model (`of_linear`), with the data seeds of the networks. weight : of
    its probabilities in the geometric mean, 0 .. 1.
    """
    before = _beside(updates.before, anchors.before, weight)
    return Updates(before, _beside(updates.after, anchors.after, weight), updates.matched)


def successors_anchored(
    arms: Arms, costs: board.Costs, linear: Updates, passes: float
) -> tuple[Arms, board.Costs]:
    """Methods that know the deployed model, old and new each beside its linear model.

    linear : updates of the linear model. passes : of an answer beside it. Returns updates and
    prices by name.
    """
    found, prices = {}, {}
    for name, own in arms.items():
        if own.matched:
            found[f"{name} with anchor at a half"] = anchored(own, linear)
            prices[f"{name} with anchor at a half"] = (costs[name][0], passes)
    return found, prices


def _beside(runs: Runs, anchors: Runs, weight: float, kind: str = "geometric") -> Runs:
    beside = probabilities_of(anchors)[: len(runs)]
    mixture = mixtures.mix(probabilities_of(runs), beside, weight, kind)
    return replace(runs, labels=mixture.argmax(-1), probabilities=mixture)


def keeping_the_old(updates: Updates, weight: float = 0.5) -> Updates:
    """The deployed model is kept as a second voter: the update answers with a mean of both.

    weight : of the old model's probabilities, 0 .. 1. Two passes an answer.
    """
    after = _beside(updates.after, updates.before, weight, "arithmetic")
    return Updates(updates.before, after, matched=True)


def four_churns(study: Study, levels: int = 3) -> Effects:
    """Seed churn, data churn and update churn of control, by crossing seeds and training data.

    Trains levels x levels runs: each seed of the training with each data seed. The sources are
    named "seed" and "data"; `every` is update churn, and `ratio` seed churn by data churn.
    """
    _check_seeds(study, levels)
    numbers = range(study.seed, study.seed + levels)
    seeds = [Seeds(own, own, own, data) for own in numbers for data in numbers]
    runs = study.retrain(seeds=seeds)
    return effects(runs.labels, (levels, levels), names=("seed", "data"))


def churns_of(effects: Effects) -> dict[str, Interval]:
    """A row of the figure of churns: seed_churn, data_churn and update_churn."""
    alone = {f"{name}_churn": source.alone for name, source in effects.sources.items()}
    return alone | {"update_churn": effects.every}


def of_linear_models(study: Study, n: int) -> dict[str, Updates]:
    """`n` updates of each linear model of a study whose data change, by name."""
    _check_seeds(study, n)
    seeds = study.seed + np.r_[:n, APART : APART + n]
    return {name: of_linear(own) for name, own in of_changed_data(study, seeds).items()}


def of_linear(runs: Runs) -> Updates:
    """The updates of a linear model: of answers by data seed, the first half is replaced by the
    rest.
    """
    half = len(runs) // 2
    return Updates(take(runs, np.arange(half)), take(runs, half + np.arange(half)))


def table(control: Updates, arms: Arms, costs: board.Costs | None = None) -> pd.DataFrame:
    """One row a method, the largest reduction of update churn first, and control last.

    Returns
    -------
    Columns arm, runs (updates), FLIPS, churn_reduction and negative_flips_reduction (shares of
    control's), accuracy and accuracy_change (of the new models), p (of churn_reduction, Holm over
    the methods of the table), guard and better as on a board, trainings and passes. Intervals over
    updates and queries.
    """
    of_control, own_accuracy = control.flips(), control.accuracy()
    prices = {"control": (1.0, 1.0)} | dict(costs or {})
    rows = []
    for name, own in {"control": control, **arms}.items():
        changes, accuracy = own.flips(), own.accuracy()
        row = {"arm": name, "runs": len(own)}
        row |= {part: score.interval() for part, score in changes.items()}
        row["accuracy"] = accuracy.interval()
        row |= dict(zip(board.PRICES, prices.get(name, ()), strict=False))
        if name != "control":
            seeds = [own.after.seeds, control.after.seeds]
            for part in ("churn", "negative_flips"):
                saved = scores.reduction(changes[part], of_control[part], seeds)
                row[f"{part}_reduction"] = saved
            row["accuracy_change"] = scores.change(accuracy, own_accuracy, seeds)
        rows.append(row)
    return board.with_verdicts(pd.DataFrame(rows), "churn_reduction")


def numbers(table: pd.DataFrame, condition: str = "") -> list[records.Number]:
    """The numbers of a table of updates for a record."""
    names = [*FLIPS, "churn_reduction", "negative_flips_reduction", "accuracy", "accuracy_change"]
    return board.numbers(table, names, condition)


def foreseen(updates: Updates) -> dict[str, Interval]:
    """How well a deployed model's own uncertainty says which of its answers an update will change.

    AUROC against the queries whose answer at least a tenth of the new models change, and the rank
    correlation with the share that do; means over the deployed models. Intervals are over deployed
    models, new models and queries; there is none where all changes are one model's. What cannot be
    said, as where every answer changes, is left out.
    """
    before, after = updates.before, updates.after
    deployed = np.stack([before.labels, before.doubt], axis=-1)  # (models, queries, 2)
    questions = {
        "auroc": (lambda doubt, changed: detection.auroc(doubt, changed >= 0.1), (0, 1)),
        "correlation": (detection.rank_correlation, (-1, 1)),
    }
    found = {}
    for name, (agreement, bounds) in questions.items():
        mean, seeds = partial(_mean_agreement, agreement), [before.seeds, after.seeds]
        with suppress(InputError):
            value = mean(deployed, after.labels)
            found[name] = Interval(value, np.nan, np.nan, len(updates), "changes of one model")
            both = intervals.over_both(mean, deployed, after.labels, seeds=seeds)
            found[name] = both.within(*bounds)
    return found


def _mean_agreement(agreement: Callable, deployed: ndarray, after: ndarray) -> float:
    """Mean over deployed models of how well their doubt agrees with the share of new models that
    answer otherwise; deployed (models, queries, 2): answer and doubt."""
    changed = _share_of_changed(deployed[..., 0], after)
    return float(np.mean([*map(agreement, deployed[..., 1], changed)]))

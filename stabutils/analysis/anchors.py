"""Runs beside an anchor, and the controls that keep it honest: what any other voter would do.

The weight of an anchor is chosen on validation texts, with runs that stand on no board. What was
chosen for a published corpus is a table, `records/<dataset>/anchor.csv`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from stabutils import metrics
from stabutils.analysis import board, ensembles
from stabutils.analysis.ensembles import Pool, probabilities_of
from stabutils.analysis.trials import Trial
from stabutils.data.linear import ALL, Linear
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.intervals import GUARD, together, verdict
from stabutils.metrics.mixtures import KINDS, Mixture, choose_weight, curve, mix
from stabutils.mitigations.single import WEIGHED
from stabutils.study import tuning
from stabutils.study.runs import Runs, of_answers, take
from stabutils.study.study import Arm, Study
from stabutils.training.features import linear_logits

SHARES = (0.3, 0.1, 0.03)  # of the training texts, for linear models that are less accurate


# ---- the linear model of a study


def linear_of(study: Study) -> Linear:
    """Settings of a study's anchor: TF-IDF, and the vectors of all layers where it has some."""
    return Linear("both", layer=ALL) if study.task.pretrained else Linear("tfidf")


def anchor_of(study: Study, split: str = "test", share: float = 1.0) -> ndarray:
    """Probabilities (texts, classes) of the linear model of a study.

    Parameters
    ----------
    split : whose texts
    share : of the training texts that it is fitted on, drawn at random
    """
    count = len(study.task.train_labels)
    rows = np.random.default_rng(0).permutation(count)[: round(share * count)]
    return np.exp(linear_logits(study.task, linear_of(study), split, torch.from_numpy(rows)))


# ---- the weight


def weighed(methods: Mapping[str, Arm]) -> dict[str, Arm]:
    """Control, and those of the methods that have a weight of their own beside the anchor."""
    return {"control": "control"} | {name: methods[name] for name in WEIGHED if name in methods}


def choices(study: Study, arms: Mapping[str, Arm], runs: int = 3) -> pd.DataFrame:
    """The weights that validation chooses, by runs whose seeds stand on no board.

    Parameters
    ----------
    study : trains what is missing, `runs` of each arm; published answers have no probabilities
        of validation texts and are not read
    arms : by name; "control" must be one of them

    Returns
    -------
    One row a choice: arm; share (of the training texts that the linear model is fitted on); kind
    (of the mixture); rule (one of RULES); weight; runs; and accuracies on the validation texts, of
    the network alone, the linear model alone, and the mixture at the weight. The arm "ensemble" is
    the mean of control's runs. `model`, `recipe` and `features` (of the linear model) say whose
    choices they are.
    """
    fresh = replace(study, published=False)
    probabilities = {}
    for name, arm in arms.items():
        trained = fresh.retrain(arm, n=runs, start=tuning.START)
        probabilities[name] = np.asarray(trained.validation_probabilities)
    control = probabilities["control"]
    probabilities["ensemble"] = control.mean(axis=0, keepdims=True)
    gold, whole = study.data.validation.labels, anchor_of(study, "validation")
    rows = []
    for name, own in probabilities.items():
        rows += [_choice(own, whole, gold, arm=name, rule=rule) for rule in RULES]
    rows.append(_choice(control, whole, gold, kind=KINDS[0]))
    for share in SHARES:
        rows.append(_choice(control, anchor_of(study, "validation", share), gold, share=share))
    return pd.DataFrame(rows).assign(**_owner(study))


def _owner(study: Study) -> dict[str, str]:
    """Whose choices a table holds."""
    recipe, features = tuning.recipe_digest(study), linear_of(study).reads
    return {"model": study.model, "recipe": recipe, "features": features}


def _choice(
    probabilities, anchor, gold, arm="control", share=1.0, kind="geometric", rule="one error"
) -> dict:
    weight = RULES[rule](probabilities, anchor, gold, kind)
    row = {"arm": arm, "share": share, "kind": kind, "rule": rule, "weight": weight}
    mixture = mix(probabilities, anchor, weight, kind)
    answers = {"network": probabilities, "linear": anchor, "mixture": mixture}
    accuracies = {name: float(np.mean(own.argmax(-1) == gold)) for name, own in answers.items()}
    return row | {"runs": len(probabilities)} | accuracies


# How a weight is chosen: the largest within a standard error, or half a point, of the best one.
RULES: dict[str, Callable[..., float]] = {
    "one error": choose_weight,
    "half a point": partial(choose_weight, most=GUARD),
}
NAMES = {"one error": "anchored", "half a point": "anchored (half a point)"}  # of the arms
OWN_RUN = "run of its own at a half"


def chosen(study: Study, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """`choices`, read from the records where they are there for this study's model and arms."""
    table = committed(study, arms)
    return choices(study, arms) if table is None else table


def committed(study: Study, arms: Collection[str]) -> pd.DataFrame | None:
    """The published choices of this model, recipe, anchor and arms; None where there are none."""
    path = path_of(study)
    if not path.is_file():
        return None
    table, owner = pd.read_csv(path), _owner(study)
    same = all(name in table and table[name].eq(own).all() for name, own in owner.items())
    return table if same and set(arms) <= set(table.arm) else None


def path_of(study: Study) -> Path:
    """Where the committed choices of a study lie."""
    return study.records / "anchor.csv"


def weight_of(
    table: pd.DataFrame,
    arm: str = "control",
    rule: str = "one error",
    share: float = 1.0,
    kind: str = "geometric",
) -> float:
    """The weight that was chosen for an arm. Raises InputError where nothing was."""
    same = (table.arm == arm) & (table.rule == rule) & (table.kind == kind)
    rows = table[same & (table.share == share)]
    if rows.empty:
        raise InputError("arm", arm, f"one of {', '.join(table.arm.unique())}")
    return float(rows.weight.iloc[0])


# ---- runs with an anchor, and controls


def mixed(runs: Runs, mixture: Mixture, arm: str = "") -> Runs:
    """Runs that answer with an anchor, to be scored or put on a board.

    Only what they answer to test texts is known of them. Raises InputError for runs without
    probabilities.
    """
    answers = mixture(probabilities_of(runs)).astype(np.float32)
    arm = arm or f"{runs.arm} with anchor, weight {mixture.weight:g}"
    return of_answers(arm, answers.argmax(-1), runs.gold, runs.seeds, answers)


def with_fixed_run(runs: Runs, weight: float) -> Runs:
    """All runs but the first, which stands beside every one of them as an anchor does.

    A fixed voter about as good as a run reduces churn; this one is an artefact of a random training
    that the runs share, and the arm says so. For a service it is an option: keep the deployed model
    as a voter when it is updated, at two passes an answer.
    """
    first = Mixture(probabilities_of(runs)[0], weight)
    arm = f"{runs.arm} with a shared run, weight {weight:g}"
    return mixed(take(runs, np.arange(1, len(runs))), first, arm)


def with_own_run(runs: Runs, weight: float) -> Runs:
    """Pairs of runs that share no member, `weight` for the second: at a half an ensemble of two."""
    pairs = len(runs) // 2
    second = Mixture(probabilities_of(runs)[pairs : 2 * pairs], weight)
    arm = f"{runs.arm} with a run of its own, weight {weight:g}"
    return mixed(take(runs, np.arange(pairs)), second, arm)


def beside(trained: Trial, anchor: ndarray, weights: pd.DataFrame, passes: float) -> Trial:
    """A trial with the mixtures of its networks, and their honest controls, as further arms.

    Parameters
    ----------
    anchor : the linear model's probabilities (queries, classes)
    weights : of `chosen`, for control and for those trained of WEIGHED
    passes : of an answer with the anchor
    """
    control, arms = trained.control, {}
    for rule, name in NAMES.items():
        arms[name] = mixed(control, Mixture(anchor, weight_of(weights, rule=rule)))
    arms["anchored at a half"] = mixed(control, Mixture(anchor, 0.5))
    costs = dict.fromkeys(arms, (1.0, passes))
    arms["shared run at a half"] = with_fixed_run(control, 0.5)
    arms[OWN_RUN] = with_own_run(control, 0.5)
    costs |= {"shared run at a half": (1.0, 2.0), OWN_RUN: (2.0, 2.0)}
    for method in WEIGHED:
        if method in trained.arms:
            for rule, name in NAMES.items():
                weight = weight_of(weights, method, rule)
                arm = f"{method} with {name.replace('anchored', 'anchor')}"
                arms[arm] = mixed(trained.arms[method], Mixture(anchor, weight))
                costs[arm] = (trained.costs[method][0], passes)
    return replace(trained, arms=trained.arms | arms, costs=trained.costs | costs)


def alone(trained: Trial, passes: float) -> dict[str, Runs]:
    """The arms of one network and at most so many passes that share no random training.

    Two runs at a half are none: they are an ensemble of two.
    """
    return {
        name: runs
        for name, runs in trained.arms.items()
        if trained.costs[name][1] <= passes and "shared" not in name and name != OWN_RUN
    }


# ---- where an anchor helps, and where it does not


def weaker(study: Study, control: Runs, weights: pd.DataFrame) -> pd.DataFrame:
    """What linear models buy that are fitted on a part of the training texts: a row a share."""
    gold, rows = study.data.test.labels, []
    for share in (1.0, *SHARES):
        anchor = anchor_of(study, share=share)
        weight = weight_of(weights, share=share)
        row = curve(probabilities_of(control), anchor, gold, weights=(weight,)).iloc[0]
        accuracy = np.mean(anchor.argmax(-1) == gold)
        rows.append({"share": f"{share:.0%}", "linear": f"{accuracy:.1%}", **row})
    return pd.DataFrame(rows)


def telling(runs: Runs, mixture: Mixture, where: ndarray) -> int:
    """The query whose label entropy falls most by an anchor, of those of a mask bool (queries,)."""
    after = mixture(probabilities_of(runs)).argmax(-1)
    saved = metrics.label_entropy(runs.labels) - metrics.label_entropy(after)
    return int(np.where(where, saved, -np.inf).argmax())


def odds(runs: Runs, mixture: Mixture, query: int) -> tuple[ndarray, ndarray, ndarray]:
    """Of one query: what runs (runs, classes), the anchor (classes,) and both together say."""
    alone = probabilities_of(runs)[:, query]
    return alone, mixture.anchor[query], mixture(probabilities_of(runs))[:, query]


def by_group(control: Runs, arm: Runs, groups: Mapping[str, ndarray]) -> pd.DataFrame:
    """What an arm changes in groups of queries, a mask bool (queries,) each.

    Returns
    -------
    One row a group of any queries: queries (its name), number, churn (the arm's, Interval),
    churn_change and accuracy_change from control to the arm.
    """
    rows = []
    for name, where in groups.items():
        if where.any():
            rows.append(
                {
                    "queries": name,
                    "number": int(where.sum()),
                    "churn": scores.churn(arm.labels[:, where]).interval(),
                    "churn_change": board.churn_change(control, arm, where),
                    "accuracy_change": board.accuracy_change(control, arm, where),
                }
            )
    return pd.DataFrame(rows)


def goal(pool: Pool, arms: Mapping[str, Runs], size: int, n: int = 5) -> pd.DataFrame:
    """Is one network with an anchor as good as an ensemble?

    Parameters
    ----------
    pool : of control, at least 3 ensembles of the size
    arms : by name
    size : of the ensembles
    n : votes that label entropy is quoted at

    Returns
    -------
    One row an arm: share_of_ensemble (of the ensembles' reduction of label entropy; 1 is as much),
    accuracy_change (accuracy less the ensembles'), and `reached`: whether the first is above 1 and
    the second above minus half a point, by their intervals over runs and queries.
    """
    rows = []
    for name, runs in arms.items():
        share, change = ensembles.share(pool, runs, size, n), ensembles.lead(pool, runs, size)
        reached = together(verdict(share, 1.0), verdict(change, -GUARD))
        row = {"arm": name, "share_of_ensemble": share, "accuracy_change": change}
        rows.append(row | {"reached": reached})
    return pd.DataFrame(rows)

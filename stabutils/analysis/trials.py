"""Training the arms of a board: one control, several methods, a placebo, all of one study."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import pandas as pd
from numpy import ndarray

from stabutils.analysis import board
from stabutils.analysis.baselines import linear_models
from stabutils.mitigations import describe, price, resolve
from stabutils.study.runs import Runs
from stabutils.study.study import Arm, Study

BAG = "compact-bag"  # `compact` without its attention layer: an ablation that competes
WIDE = "compact-wide"  # the parameters, and the training time, of five of `compact`


@dataclass(frozen=True, eq=False)
class Trial:
    """Runs of control, of methods and of a placebo, and what is needed to put them on a board.

    studies : all that were asked for runs, for `Study.about`
    """

    control: Runs
    placebo: Runs
    arms: dict[str, Runs]
    costs: dict[str, tuple[float, float]]
    linear: dict[str, ndarray]
    settings: dict[str, str]
    studies: tuple[Study, ...]

    def board(self, n: int = 5) -> pd.DataFrame:
        """All arms on one board (`board.board`)."""
        return board.board(
            self.control,
            self.arms,
            placebo=self.placebo,
            linear=self.linear,
            costs=self.costs,
            n=n,
        )

    def best(self, table: pd.DataFrame) -> str:
        """The mitigation of the largest reduction on a board of this trial."""
        mitigations = [arm for arm in table.arm if arm in self.arms and arm not in (BAG, WIDE)]
        return mitigations[0]


def trial(
    study: Study,
    methods: Mapping[str, Arm],
    runs_per_method: int,
    wider: int = 0,
    mixed: Collection[str] = (),
) -> Trial:
    """Train what is missing of control, of each method and of a placebo.

    The placebo is control once more under fresh seeds. For `compact` the bag of its word vectors
    competes too, as a model of its own, with more runs, for they are cheap; and, with as many runs
    as `wider` says, a network of the size of five. mixed: names of methods whose probabilities are
    needed too.
    """
    control = study.retrain("control")
    placebo = study.retrain("control", n=runs_per_method, start=study.runs)
    arms = {
        name: study.retrain(method, n=runs_per_method, mixed=name in mixed)
        for name, method in methods.items()
    }
    costs = {name: price(method, study.task.recipe) for name, method in methods.items()}
    settings = {name: describe(resolve(method)) for name, method in methods.items()}
    studies = [study]
    for name, (n, cost) in other_networks(study, runs_per_method, wider).items():
        other = replace(study, model=name)
        arms[name] = other.retrain("control", n=n)
        costs[name], settings[name] = (cost, cost), "control"
        studies.append(other)
    linear = linear_models(study)
    return Trial(control, placebo, arms, costs, linear, settings, tuple(studies))


def other_networks(
    study: Study, runs_per_method: int, wider: int = 0
) -> dict[str, tuple[int, float]]:
    """The networks that compete with `compact`: how many runs, and what each costs of its runs.

    The bag has as many runs as control, at most twice as many as a method.
    """
    if study.model != "compact":
        return {}
    runs_of_bag = max(runs_per_method, min(study.runs, 2 * runs_per_method))
    others = {BAG: (runs_of_bag, 1.0)}
    if wider:
        others[WIDE] = (wider, 5.0)
    return others

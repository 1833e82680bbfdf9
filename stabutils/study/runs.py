"""What decides a run, and what several runs answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stabutils import metrics
from stabutils.training import files

if TYPE_CHECKING:
    from stabutils.training.state import Seeds


@dataclass(frozen=True, eq=False)
class Run:
    """Exactly what could change the answers of one training."""

    label: str  # for people: dataset, model, mitigation, seeds
    seeds: Seeds
    identity: dict

    @cached_property
    def name(self) -> str:
        """File name: readable, legal on every system, and different for every other identity."""
        return f"{files.slug(self.label)}-{files.digest(self.identity)[:16]}"


def run_label(dataset: str, model: str, arm: str, seeds: Seeds) -> str:
    """What a run is called: dataset, model, mitigation, and one seed where all are equal.

    It is part of a stored file's name, so its form stays as it is.
    """
    numbers = list(seeds.identity().values())
    same = len(set(numbers)) == 1
    text = str(numbers[0]) if same else ".".join(map(str, numbers))
    changed = " data" if "data" in seeds.identity() else ""
    return f"{dataset} {Path(model).name} {arm}{changed} seed {text}"


@dataclass(frozen=True, eq=False)
class Request:
    """Runs that were asked of a study, and what was to be kept of them beside their answers.

    part: of an arm, for runs that are no plain sample of it (other seeds, another length).
    whole: probabilities are published too, and of control what a run says over its checkpoints.
    mixed: published answers without probabilities do not suffice.
    """

    arm: str
    runs: tuple[Run, ...]
    model: str = "compact"
    keep: tuple[str, ...] = ()
    part: str = ""
    whole: bool = False
    mixed: bool = False

    def as_json(self) -> dict:
        """What a record says of it, enough to find the runs in a store again."""
        identity = self.runs[0].identity
        seeds = [list(run.identity["seeds"].values()) for run in self.runs]
        plain = all(len(set(numbers)) == 1 for numbers in seeds)
        return {
            "arm": self.arm,
            "model": self.model,
            "network": identity["model"],
            "mitigation": identity["mitigation"],
            "recipe": identity["recipe"],
            "change": identity.get("change"),
            "seeds": [numbers[0] for numbers in seeds] if plain else seeds,
            "keep": list(self.keep),
            "part": self.part,
            "whole": self.whole,
        }


@dataclass(frozen=True)
class Runs:
    """What several trainings answered; runs first, always in the order asked for.

    Attributes
    ----------
    arm : name of the mitigation, "control" for none
    names : of the runs, file names in a store
    seeds : int (runs,), the init seed: the run's master seed unless seeds were given one by one
    gold : int (examples,)
    labels : int (runs, examples); validation_labels likewise, on the validation split
    accuracy, ece : (runs,), 0 .. 1; nll : (runs,), nats; cpu_seconds : (runs,)
    processors : (runs,), the kind that each was trained on; "" where nobody noted it
    doubt : (runs, examples), one minus the probability of the answer, 0 .. 1
    checkpoint_entropy, confidence_mean, confidence_spread : (runs, examples), of each run over its
        own checkpoints; of published answers control's only
    probabilities : (runs, examples, classes); of published answers control's and those of arms
        that stand beside an anchor, rounded
    validation_probabilities : likewise, None for published answers
    checkpoints, confidence : (runs, checkpoints, examples), None for published answers
    extras : what `keep` asked for, by name, each (runs, ...) as `training.probes` describes it
    """

    arm: str
    names: tuple[str, ...]
    seeds: np.ndarray
    gold: np.ndarray
    labels: np.ndarray
    validation_labels: np.ndarray
    accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray
    cpu_seconds: np.ndarray
    doubt: np.ndarray
    processors: np.ndarray | None = None
    checkpoint_entropy: np.ndarray | None = None
    confidence_mean: np.ndarray | None = None
    confidence_spread: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    validation_probabilities: np.ndarray | None = None
    checkpoints: np.ndarray | None = None
    confidence: np.ndarray | None = None
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def proxies(self) -> dict[str, np.ndarray]:
        """What each run alone knows of its answers, higher where it is less certain, as far as it
        was measured; (runs, examples)."""
        confidence = self.confidence_mean
        every = {
            "uncertainty": self.doubt,
            "single-run label entropy": self.checkpoint_entropy,
            "uncertainty of the right answer": None if confidence is None else 1 - confidence,
            "spread while training": self.confidence_spread,
        }
        return {name: values for name, values in every.items() if values is not None}


def take(runs: Runs, kept: np.ndarray) -> Runs:
    """Some of the runs, by their positions."""
    changes = {
        name: own[kept]
        for name, own in vars(runs).items()
        if isinstance(own, np.ndarray) and name != "gold"
    }
    extras = {name: array[kept] for name, array in runs.extras.items()}
    return replace(runs, names=tuple(runs.names[row] for row in kept), extras=extras, **changes)


def of_answers(
    arm: str,
    labels: np.ndarray,
    gold: np.ndarray,
    seeds: np.ndarray,
    probabilities: np.ndarray | None = None,
) -> Runs:
    """Runs of which only the answers are known: labels (runs, examples) or also probabilities.

    What needs a training is nan; without probabilities so are nll and ece, and `doubt` is 0.
    """
    labels, gold, count = np.asarray(labels), np.asarray(gold), len(labels)
    unknown = np.full(count, np.nan)
    nll, ece, doubt = unknown, unknown, np.zeros(labels.shape)
    if probabilities is not None:
        nll, ece = metrics.nll(probabilities, gold), metrics.ece(probabilities, gold)
        doubt = 1 - probabilities.max(axis=-1)
    return Runs(
        arm=arm,
        names=("",) * count,
        seeds=np.asarray(seeds),
        gold=gold,
        labels=labels,
        validation_labels=np.empty((count, 0), int),
        accuracy=metrics.accuracy(labels, gold),
        nll=nll,
        ece=ece,
        cpu_seconds=unknown,
        doubt=doubt,
        probabilities=probabilities,
    )


def stack(request: Request, answers: Mapping[str, files.Arrays], gold: np.ndarray) -> Runs:
    """Runs over one another; what some of them lack (published ones hold less) is left out."""
    rows = [answers[run.name] for run in request.runs]
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    stacked = {name: np.stack([row[name] for row in rows]) for name in shared}
    for name in ("labels", "validation_labels"):
        stacked[name] = stacked[name].astype(np.int64)
    extras = {name: stacked.pop(f"kept.{name}") for name in request.keep}
    return Runs(
        arm=request.arm,
        names=tuple(run.name for run in request.runs),
        seeds=np.array([run.seeds.init for run in request.runs]),
        gold=gold,
        extras=extras,
        **stacked,
    )


def taught(names: Sequence[str], teachers: Sequence[files.Arrays]) -> files.Arrays:
    """What teachers kept, by name: arrays, teachers first; nothing where there are none."""
    if not teachers:
        return {}
    return {name: np.stack([answers[f"kept.{name}"] for answers in teachers]) for name in names}


def summarise(answers: files.Arrays, gold: np.ndarray) -> files.Arrays:
    """What is published of a run beyond its labels, when its probabilities are not."""
    probabilities, checkpoints = answers["probabilities"][None], answers["checkpoints"]
    found = {
        "accuracy": metrics.accuracy(answers["labels"][None], gold)[0],
        "nll": metrics.nll(probabilities, gold)[0],
        "ece": metrics.ece(probabilities, gold)[0],
        "doubt": 1 - answers["probabilities"].max(-1),
        "confidence_mean": answers["confidence"].mean(0),
    }
    if len(checkpoints) > 1:  # a single one says nothing of how a run changes its mind
        found["checkpoint_entropy"] = metrics.checkpoint_entropy(checkpoints[None])[0]
        found["confidence_spread"] = answers["confidence"].std(0)
    return found


def missing_runs(request: Request, answered: Collection[str]) -> Sequence[Run]:
    """The runs of a request whose names are not among those that have answers, each once."""
    runs = {run.name: run for run in request.runs if run.name not in answered}
    return list(runs.values())

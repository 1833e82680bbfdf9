"""What stands beside every network: the linear models of its corpus, which no seed changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stabutils import records
from stabutils.data.linear import Linear
from stabutils.metrics import scores
from stabutils.study.runs import Runs, of_answers
from stabutils.study.study import Study

TFIDF = {"linear (TF-IDF)": Linear("tfidf")}
FROZEN = {"linear (frozen)": Linear("frozen", "logistic"), "linear (both)": Linear("both")}


def linear_models(study: Study) -> dict[str, np.ndarray]:
    """Labels (queries,) of the linear models of a study's corpus, by name."""
    return {name: own.argmax(axis=1) for name, own in linear_probabilities(study).items()}


def linear_probabilities(study: Study, data: int | None = None) -> dict[str, np.ndarray]:
    """Probabilities (queries, classes) of the linear models of a study's corpus, by name.

    Of a checkpoint also those on its vectors as it comes, alone and beside TF-IDF. data: the data
    seed, where the study changes its training data.
    """
    from stabutils.mitigations import Mitigation
    from stabutils.training.features import linear_logits
    from stabutils.training.loop import build_targets
    from stabutils.training.state import Seeds

    targets = build_targets(study.task, Mitigation(), Seeds(0, 0, 0, data))
    kinds = TFIDF | (FROZEN if study.task.identity["kind"] == "checkpoint" else {})
    task = targets.task or study.task
    return {
        name: np.exp(linear_logits(task, settings, "test", targets.indices))
        for name, settings in kinds.items()
    }


def of_changed_data(study: Study, seeds: np.ndarray) -> dict[str, Runs]:
    """The linear models of changed training data, one for each data seed, as Runs by name."""
    answers = [linear_probabilities(study, int(seed)) for seed in seeds]
    found = {}
    for name in answers[0]:
        own = np.stack([each[name] for each in answers])
        found[name] = of_answers(name, own.argmax(-1), study.data.test.labels, seeds, own)
    return found


def behind_linear(control: Runs, linear: Mapping[str, np.ndarray]) -> str:
    """What to do where control is significantly less accurate than the best linear model; else "".

    linear : labels (queries,) by name
    """
    rights = {name: scores.accuracy(labels[None], control.gold) for name, labels in linear.items()}
    best = max(rights, key=lambda name: rights[name].value)
    same = np.repeat(linear[best][None], len(control), axis=0)
    own, other = (scores.accuracy(labels, control.gold) for labels in (control.labels, same))
    lead = scores.change(own, other, [control.seeds] * 2)
    if not lead.high < 0:
        return ""
    shown = records.shown(records.number("accuracy_change", lead), "points")
    return (
        f"Control is less accurate than a linear model, {best}: {shown}. Train longer (epochs), on "
        "more texts, or use the linear model: what follows is about a network that has not learned "
        "what can be learned here."
    )

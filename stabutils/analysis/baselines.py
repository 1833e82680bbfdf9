"""What stands beside every network: the linear models of its corpus, which no seed changes."""

from __future__ import annotations

import numpy as np

from stabutils.data.linear import Linear
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

"""What stands beside every network: the linear models of its corpus, which no seed changes."""

from __future__ import annotations

import numpy as np

from stabutils.data.linear import Linear
from stabutils.study.runs import Runs, of_answers
from stabutils.study.study import Study

TFIDF = {"linear (TF-IDF)": Linear("tfidf")}
FROZEN = {"linear (frozen)": Linear("frozen", "logistic"), "linear (both)": Linear("both")}


def linear_models(study: Study, data: int | None = None) -> dict[str, np.ndarray]:
    """Labels (queries,) of the linear models of a study's corpus, by name.

    Of a checkpoint also those on its vectors as it comes, alone and beside TF-IDF. data: the data
    seed, where the study changes its training data.
    """
    from stabutils.mitigations import Mitigation
    from stabutils.training.features import linear_logits
    from stabutils.training.loop import build_targets
    from stabutils.training.state import Seeds

    targets = build_targets(study.task, Mitigation(), Seeds(0, 0, 0, data))
    kinds = TFIDF | (FROZEN if study.task.identity["kind"] == "checkpoint" else {})
    labels = {}
    for name, settings in kinds.items():
        logits = linear_logits(targets.task or study.task, settings, "test", targets.indices)
        labels[name] = logits.argmax(axis=1)
    return labels


def of_changed_data(study: Study, seeds: np.ndarray) -> dict[str, Runs]:
    """The linear models of changed training data, one for each data seed, as Runs by name."""
    answers = [linear_models(study, int(seed)) for seed in seeds]
    gold = study.data.test.labels
    return {
        name: of_answers(name, np.stack([each[name] for each in answers]), gold, seeds)
        for name in answers[0]
    }

"""Spaces in which queries are neighbours, none of them made by the runs that are measured."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from stabutils.analysis import enrichment, regions
from stabutils.study.study import Study

QUESTIONS = {
    "anywhere": "are unstable queries neighbours at all?",
    "within intents": "also among the queries of one intent, shuffled only there?",
    "beyond difficulty": "also beyond error rate, length and nearness to training texts?",
    "beyond binned difficulty": "also beyond ten bins of error rate, instead of a straight line?",
    "beyond a network's uncertainty": "beyond the uncertainty of another network alone?",
    "all of these": "beyond intents, difficulty and that uncertainty together?",
}


def spaces(study: Study, encoder: str = "") -> tuple[dict[str, ndarray], ndarray]:
    """Places of the test queries by space, each (queries, dims), and a held-out run's uncertainty.

    words : latent semantic analysis of the texts
    task : the directions of it that tell the training texts' intents apart
    network : the last hidden layer of one more run, which is not among those that are measured
    encoder : the vectors of a pretrained encoder as it comes, where one is named
    """
    from stabutils.training import probes

    train, texts = study.data.train, study.data.test.texts
    held_out = study.retrain(n=1, start=study.runs, keep=("hidden",))
    found = {
        "words": regions.lsa(train.texts, texts),
        "task": regions.discriminant(train.texts, train.labels, texts),
        "network": held_out.extras["hidden"][0].astype(float),
    }
    if encoder:
        found["encoder"] = probes.pretrained(encoder, study.data)
    return found, held_out.doubt[0]


def questions(labels: ndarray, gold: ndarray, attributes, uncertainty: ndarray) -> dict[str, dict]:
    """What `regions.clustering` is to look beyond, by question.

    Parameters
    ----------
    labels : (runs, queries); gold : (queries,)
    attributes : of `enrichment.attributes`
    uncertainty : (queries,), of a network that is not among the runs
    """
    error = np.mean(labels != gold, axis=0)
    beside = np.column_stack([np.log1p(attributes.words), attributes.nearness])
    straight = np.column_stack([error, beside])
    binned = np.column_stack([enrichment.bins(error, 10), beside])
    known = uncertainty[:, None]
    return {
        "anywhere": {},
        "within intents": {"groups": gold},
        "beyond difficulty": {"covariates": straight},
        "beyond binned difficulty": {"covariates": binned},
        "beyond a network's uncertainty": {"covariates": known},
        "all of these": {"groups": gold, "covariates": np.column_stack([binned, known])},
    }

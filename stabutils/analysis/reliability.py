"""Reliability beside stability: what a run's own doubt is good for, to refuse queries and to tell
foreign ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stabutils.errors import InputError
from stabutils.metrics.detection import auroc
from stabutils.metrics.intervals import Interval, jackknife, over_both
from stabutils.study.runs import Runs

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def otherwise(labels: np.ndarray) -> np.ndarray:
    """Share of the other runs that answer otherwise than a run does: labels (runs, examples) to the
    same, 0 .. 1.

    Its mean is churn.

    >>> otherwise(np.array([[0, 1], [0, 1], [0, 2]])).tolist()
    [[0.0, 0.5], [0.0, 0.5], [0.0, 1.0]]
    """
    return np.stack([np.sum(labels != own, axis=0) for own in labels]) / (len(labels) - 1)


def selective(values: np.ndarray, doubt: np.ndarray, coverage: float) -> float:
    """Mean of `values` where each run answers only its share `coverage` of queries of least doubt,
    mean over runs.

    values, doubt: (runs, examples). At least one query is answered; of equal doubt the first ones
    are.

    >>> selective(np.array([[1.0, 0.0, 0.0]]), np.array([[0.9, 0.1, 0.3]]), 2 / 3)
    0.0
    """
    if not 0 < coverage <= 1:
        raise InputError("coverage", coverage, "a share above 0, at most 1")
    answered = max(1, round(coverage * doubt.shape[1]))
    least = np.argsort(doubt, axis=1, kind="stable")[:, :answered]
    return float(np.take_along_axis(values, least, axis=1).mean())


def curve(runs: Runs, coverages: Sequence[float] = COVERAGES) -> pd.DataFrame:
    """Churn and error of selective prediction, by coverage.

    A run answers the queries it is least uncertain about and abstains from the rest.

    Returns
    -------
    Columns coverage, churn (how many of the other runs would have given another answer to those it
    answers) and error, as Intervals over runs and queries, conservative. What is left out is a run,
    or a replica where the runs are ensembles.
    """
    if len(runs) < 3:
        raise InputError("runs", len(runs), "at least 3")
    wrong = (runs.labels != runs.gold).astype(float)
    rows = []
    for coverage in coverages:

        def churn(labels: np.ndarray, doubt: np.ndarray, coverage: float = coverage) -> float:
            return selective(otherwise(labels), doubt, coverage)

        def error(wrong: np.ndarray, doubt: np.ndarray, coverage: float = coverage) -> float:
            return selective(wrong, doubt, coverage)

        rows.append(
            {
                "coverage": coverage,
                "churn": over_both(churn, runs.labels, runs.doubt).within(0, 1),
                "error": over_both(error, wrong, runs.doubt).within(0, 1),
            }
        )
    return pd.DataFrame(rows)


def finds(runs: Runs) -> Interval:
    """How well uncertainty finds texts that belong to no class: mean AUROC of the runs, over
    runs.
    """
    return jackknife(np.mean, detects(runs)).within(0, 1)


def detects(runs: Runs) -> np.ndarray:
    """How well doubt tells texts that belong to no class from test texts: AUROC of each run
    (runs,), 0.5 is blind.

    Of runs with keep=("out_of_scope",). Raises InputError where that was not kept, or the corpus
    has no such texts.
    """
    beside = runs.extras.get("out_of_scope")
    if beside is None or not beside.shape[1]:
        allowed = 'runs with keep=("out_of_scope",) of a corpus that has some'
        raise InputError("out-of-scope texts", 0, allowed)
    doubt = np.concatenate([runs.doubt, 1 - beside.max(-1).astype(float)], axis=1)
    foreign = np.arange(doubt.shape[1]) >= len(runs.gold)
    return np.array([auroc(own, foreign) for own in doubt])

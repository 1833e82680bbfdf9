"""Reliability beside stability: a run's uncertainty for selective prediction and out-of-scope
detection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils import records
from stabutils.analysis import board
from stabutils.data.datasets import Split
from stabutils.errors import InputError, check, floats
from stabutils.metrics.detection import auroc
from stabutils.metrics.intervals import Interval, jackknife, over_both
from stabutils.records import Number
from stabutils.study.runs import Runs
from stabutils.study.study import Study, with_training_texts

COLUMNS = {  # of `table`, to be shown
    "arm": "trained as",
    "runs": "runs",
    "n": "votes",
    "label_entropy": "label entropy (nats)",
    "churn": "churn",
    "accuracy": "accuracy",
    "ece": "calibration error",
    "selective_churn": "churn, most confident 90 %",
    "selective_error": "error, most confident 90 %",
    "auroc": "out-of-scope texts found (AUROC)",
}
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def otherwise(labels: ndarray) -> ndarray:
    """Share of the other runs that answer otherwise than a run does: labels (runs, examples) to the
    same, 0 .. 1.

    Its mean is churn.

    >>> otherwise(np.array([[0, 1], [0, 1], [0, 2]])).tolist()
    [[0.0, 0.5], [0.0, 0.5], [0.0, 1.0]]
    """
    return np.stack([np.sum(labels != own, axis=0) for own in labels]) / (len(labels) - 1)


def answered(doubt: ndarray, coverage: float) -> ndarray:
    """Which queries each run answers: its share `coverage` of least doubt, bool (runs, examples).

    doubt: (runs, examples). At least one query is answered; of equal doubt the first ones are.

    >>> answered(np.array([[0.9, 0.1, 0.3]]), 2 / 3).tolist()
    [[False, True, True]]
    """
    if not 0 < coverage <= 1:
        raise InputError("coverage", coverage, "a share above 0, at most 1")
    number = max(1, round(coverage * doubt.shape[1]))
    ranks = doubt.argsort(axis=1, kind="stable").argsort(axis=1)
    return ranks < number


def selective(values: ndarray, doubt: ndarray, coverage: float) -> float:
    """Mean of `values` over what each run answers (`answered`), mean over runs.

    values, doubt: (runs, examples).

    >>> selective(np.array([[1.0, 0.0, 0.0]]), np.array([[0.9, 0.1, 0.3]]), 2 / 3)
    0.0
    """
    return float(values[answered(doubt, coverage)].mean())


def served(labels: ndarray, doubt: ndarray, coverage: float) -> float:
    """Churn of what users see, where each run abstains from its most doubtful queries and to
    abstain is an answer like any other.

    labels, doubt: (runs, examples).

    >>> served(np.array([[0, 1], [0, 1]]), np.array([[0.1, 0.2], [0.2, 0.1]]), 1 / 2)
    1.0
    """
    return float(otherwise(np.where(answered(doubt, coverage), labels, -1)).mean())


def curve(runs: Runs, coverages: Sequence[float] = COVERAGES) -> pd.DataFrame:
    """Churn and error of selective prediction, by coverage.

    A run answers the queries it is least uncertain about and abstains from the rest.

    Returns
    -------
    Columns coverage, churn (how many of the other runs would have given another answer to those it
    answers), served_churn (`served`) and error, as Intervals over runs and queries, conservative.
    What is left out is a run, or a replica where the runs are ensembles.
    """
    if len(runs) < 3:
        raise InputError("runs", len(runs), "at least 3")
    wrong = (runs.labels != runs.gold).astype(float)
    measures = {
        "churn": (_selective_churn, runs.labels),
        "served_churn": (served, runs.labels),
        "error": (selective, wrong),
    }
    rows = []
    for coverage in coverages:
        row: dict[str, object] = {"coverage": coverage}
        for name, (measure, values) in measures.items():
            at_coverage = partial(measure, coverage=coverage)
            row[name] = over_both(at_coverage, values, runs.doubt).within(0, 1)
        rows.append(row)
    return pd.DataFrame(rows)


def _selective_churn(labels: ndarray, doubt: ndarray, coverage: float) -> float:
    return selective(otherwise(labels), doubt, coverage)


def finds(runs: Runs) -> Interval:
    """How well uncertainty finds texts that belong to no class: mean AUROC of the runs, over
    runs.
    """
    return jackknife(np.mean, detects(runs)).within(0, 1)


def detects(runs: Runs) -> ndarray:
    """How well uncertainty detects out-of-scope texts among test texts: AUROC of each run
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


def table(arms: Mapping[str, Runs], n: int = 5) -> pd.DataFrame:
    """Reliability beside stability, a row an arm.

    Parameters
    ----------
    arms : runs by name, at least 3 each, of one test split; with keep=("out_of_scope",) where they
        are to find such texts.
    n : votes of label entropy, where all arms have so many runs.

    Returns
    -------
    Columns arm, runs, n (votes), and as intervals label_entropy (nats), churn, accuracy and ece
    (shares); of the 90 % of queries that a run is most confident on, selective_churn and
    selective_error (shares); auroc of out-of-scope texts by uncertainty, None where these are not
    kept.

    References
    ----------
    Tran et al. 2022, "Plex: Towards Reliability using Pretrained Large Model Extensions", whose
    tasks these are as far as texts have them, as described in its abstract.
    """
    rows, votes = [], min(n, *map(len, arms.values()))
    for name, runs in arms.items():
        [confident] = curve(runs, (0.9,)).itertuples()
        beside = runs.extras.get("out_of_scope")
        known = beside is not None and beside.shape[1] > 0
        row = {
            "arm": name,
            "runs": len(runs),
            "n": votes,
            **board.measured(runs, votes),
            "ece": jackknife(np.mean, runs.ece).within(0, 1),
            "selective_churn": confident.churn,
            "selective_error": confident.error,
        }
        rows.append(row | {"auroc": finds(runs) if known else None})
    return pd.DataFrame(rows)


def numbers(table: pd.DataFrame, few: Sequence[str] = ()) -> list[Number]:
    """The intervals of `table`, as a record keeps them.

    few : arms that were trained on few texts, which stand on no board
    """
    found = []
    for row in table.to_dict("records"):
        arm, condition = row["arm"], ""
        names = ["selective_churn", "selective_error"]
        if arm in few:
            arm, condition = "control", arm
            names += ["label_entropy", "churn", "accuracy", "ece"]
        found += [records.number(name, row[name], arm, condition) for name in names]
        if row["auroc"] is not None:
            of_foreign = " and ".join(filter(None, ["out of scope", condition]))
            found.append(records.number("auroc", row["auroc"], arm, of_foreign))
    return found


# ---- few examples


def sizes_of(text: str) -> tuple[int, ...]:
    """The numbers of texts an intent that a notebook lists; none for "" and "0".

    Raises
    ------
    InputError

    Examples
    --------
    >>> sizes_of("5, 10"), sizes_of("")
    ((5, 10), ())
    """
    if text.strip() in ("", "0"):
        return ()
    numbers = floats("few_shot", text)
    if any(number != round(number) or number < 1 for number in numbers):
        raise InputError("few_shot", text, "numbers of texts of at least 1, separated by commas")
    return tuple(map(int, numbers))


def few_shot(study: Study, size: int) -> Study:
    """The study with at most so many training texts of each intent, drawn by its seed.

    All its runs have the same texts, and train as long as its recipe trains so few. What it trains
    is stored and never published: its corpus is another one.
    """
    check("texts an intent", size, int, {"least": 1})
    train = study.data.train
    order = np.random.default_rng(study.seed).permutation(len(train))
    by_label = [order[train.labels[order] == label] for label in np.unique(train.labels)]
    rows = np.sort(np.concatenate([own[:size] for own in by_label]))
    few = Split(tuple(train.texts[row] for row in rows), train.labels[rows])
    return with_training_texts(study, few)

"""What a service lives through when its model is replaced by a retrained one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.study.runs import Runs


def of_one_model(before: Runs, arms: Mapping[str, Runs]) -> pd.DataFrame:
    """What queries meet when one deployed model is replaced by a run of an arm: a row an arm.

    Parameters
    ----------
    before : the one run that is replaced
    arms : the first of them is what the others are compared with

    Returns
    -------
    Columns arm, runs, churn (share of queries that the new run answers otherwise), churn_change
    (from the first arm's), positive_flips (wrong before, right after), negative_flips (right
    before, wrong after), accuracy, and churn_among (between two of the new runs). Intervals over
    the new runs and queries: they speak of updates of this one model.
    """
    if len(before) != 1:
        raise InputError("runs before", len(before), "one: the deployed model")
    plain = next(iter(arms.values()))
    right_before = before.labels[0] == before.gold
    rows = []
    for name, runs in arms.items():
        right = runs.labels == runs.gold
        flipped = _flipped(runs, before)
        change = None
        if runs is not plain:
            both, seeds = [flipped, _flipped(plain, before)], [runs.seeds, plain.seeds]
            change = scores.compare(lambda new, old: new - old, both, seeds)
        rows.append(
            {
                "arm": name,
                "runs": len(runs),
                "churn": flipped.interval(),
                "churn_change": change,
                "positive_flips": scores.of_runs(right & ~right_before, (0, 1)).interval(),
                "negative_flips": scores.of_runs(~right & right_before, (0, 1)).interval(),
                "accuracy": scores.accuracy(runs.labels, runs.gold).interval(),
                "churn_among": scores.churn(runs.labels).interval(),
            }
        )
    return pd.DataFrame(rows)


def _flipped(runs: Runs, before: Runs) -> scores.Score:
    return scores.of_runs(np.asarray(runs.labels != before.labels[0]), (0, 1))

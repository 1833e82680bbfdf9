"""The board: what every method bought, at what price, next to a placebo and a learner that never flips."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.intervals import jackknife, jackknife_arms
from stabutils.study.runs import Runs


def board(before: Runs, arms: Mapping[str, Runs]) -> pd.DataFrame:
    """What queries meet when one network is replaced by a run of an arm: a row an arm.

    before: the one run that is replaced. Columns: arm, runs, churn (the share of queries that the new run answers
    otherwise), churn_change (from the first arm's; below 0 is nearer to the network before), good (wrong before, right
    after), bad (right before, wrong after), accuracy and churn_among (between two of the new runs). Intervals over the
    new runs: they speak of updates of this one network.
    """
    plain = next(iter(arms.values()))

    def differ(runs):
        return (runs.labels != before.labels[0]).mean(axis=1)

    def row(runs):
        parts = {
            part: jackknife(
                lambda new, part=part: metrics.churn_between(before.labels, new, runs.gold)[part],
                runs.labels,
            )
            for part in ("churn", "good", "bad")
        }
        change = (
            None
            if runs is plain
            else jackknife_arms(
                lambda new, old: new.mean() - old.mean(),
                [differ(runs), differ(plain)],
                [runs.seeds, plain.seeds],
            )
        )
        return parts | {
            "churn_change": change,
            "accuracy": jackknife(np.mean, runs.accuracy),
            "churn_among": jackknife(metrics.churn, runs.labels),
        }

    if len(before) != 1:
        raise InputError("runs before", len(before), "one: the network that is replaced")
    return pd.DataFrame(
        [{"arm": name, "runs": len(runs)} | row(runs) for name, runs in arms.items()]
    )

"""What is measured here, under the names that other literatures give it."""

from __future__ import annotations

import math

import pandas as pd

from stabutils import records
from stabutils.metrics.multiplicity import multiplicity_table
from stabutils.records import Number
from stabutils.study.runs import Runs

MEANINGS = {  # metric of `multiplicity_table` -> its name elsewhere, and what it is
    "ambiguity": ("ambiguity", "queries that some run answers otherwise than a given one"),
    "discrepancy": ("discrepancy", "the largest churn between a run and one of the others"),
    "consistency": ("CON; mean self-consistency", "1 - churn"),
    "share_inconsistent": ("arbitrary predictions", "queries of self-consistency below 0.75"),
    "abstention": ("abstention", "queries on which a vote of the runs is too close to answer"),
    "correct_consistency": ("ACC-CON", "queries that two runs both answer right"),
    "negative_flip_rate": ("NFR, and PFR", "right in one run, wrong in the next, or the reverse"),
    "mcnemar_significant": ("McNemar, mid-p", "pairs of runs of significantly other accuracy"),
    "viable_prediction_range": ("viable prediction range", "width of a label's probabilities"),
    "rashomon_capacity": ("Rashomon capacity", "answers that the runs' probabilities amount to"),
}


def numbers(runs: Runs, n: int = 10) -> pd.DataFrame:
    """All rows of `multiplicity_table` for the first `n` runs: `metric`, `number`, `source`.

    Several of them grow with the runs, so corpora and arms are compared at equally many. Without
    what needs probabilities where these are not published.
    """
    probabilities = runs.probabilities
    if probabilities is not None:
        probabilities = probabilities[:n]
    table = multiplicity_table(runs.labels[:n], runs.gold, probabilities, n=n)
    found = [_number(row, runs.arm) for row in table.to_dict("records")]
    return pd.DataFrame({"metric": table.metric, "number": found, "source": table.source})


def _number(row: dict, arm: str) -> Number:
    parts = ("value", "low", "high", "se", "df")
    known = {name: row[name] for name in parts if not math.isnan(row[name])}
    about = {"arm": arm, "n": row["n"], "runs": row["runs"], "note": row["note"]}
    return Number(row["metric"], **known, **about)


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `numbers` in words, as a table to read."""
    shown = []
    for row in rows.itertuples():
        name, meaning = MEANINGS[row.metric]
        value = records.shown(row.number, records.unit_of(row.metric))
        cells = {"elsewhere": name, "is": meaning, "of so many runs": row.number.n}
        shown.append(cells | {"here": value, "source": row.source})
    return pd.DataFrame(shown)

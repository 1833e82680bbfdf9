"""Every plot of the study, in one style. Functions take arrays and tables and return a figure."""

from stabutils.figures.ensembles import budgets, frontier, selective, votes
from stabutils.figures.instability import (
    accuracy_and_churn,
    answers,
    entropy_distribution,
    how_many_runs,
    intervals,
    learning,
    lengths,
    rounding,
    sources,
    telling_rows,
    through_training,
    training_map,
)
from stabutils.figures.methods import dose_response, grid, per_intent, soft_labels, trade_off
from stabutils.figures.regions import instability_map, nulls
from stabutils.figures.theme import save, short, show, style, table

__all__ = [
    "accuracy_and_churn",
    "answers",
    "budgets",
    "dose_response",
    "entropy_distribution",
    "frontier",
    "grid",
    "how_many_runs",
    "instability_map",
    "intervals",
    "learning",
    "lengths",
    "nulls",
    "per_intent",
    "rounding",
    "save",
    "selective",
    "short",
    "show",
    "soft_labels",
    "sources",
    "style",
    "table",
    "telling_rows",
    "through_training",
    "trade_off",
    "training_map",
    "votes",
]

"""Every plot of the study, in one style. Functions take arrays and tables and return a figure."""

from stabutils.figures.claims import verdicts
from stabutils.figures.costs import budgets, frontier, updates_frontier
from stabutils.figures.ensembles import anchor_curve, odds, selective, votes
from stabutils.figures.instability import (
    accuracy_and_churn,
    answers,
    entropy_distribution,
    four_churns,
    how_many_runs,
    intervals,
    rounding,
    sources,
    telling_rows,
    through_training,
    training_map,
)
from stabutils.figures.methods import across_studies, per_intent, soft_labels, trade_off
from stabutils.figures.regions import instability_map, nulls
from stabutils.figures.settings import (
    dose_response,
    learning,
    lengths,
    noise_response,
)
from stabutils.figures.theme import save, short, show, style, table

__all__ = [
    "accuracy_and_churn",
    "across_studies",
    "anchor_curve",
    "answers",
    "budgets",
    "dose_response",
    "entropy_distribution",
    "four_churns",
    "frontier",
    "how_many_runs",
    "instability_map",
    "intervals",
    "learning",
    "lengths",
    "noise_response",
    "nulls",
    "odds",
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
    "updates_frontier",
    "verdicts",
    "votes",
]

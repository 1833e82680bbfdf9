"""What stands beside every network: the linear models of its corpus, which no seed changes."""

from __future__ import annotations

import numpy as np

from stabutils.data.linear import convex_labels
from stabutils.study.study import Study


def linear_models(study: Study) -> dict[str, np.ndarray]:
    """Labels (queries,) of the linear models of a study's corpus, by name."""
    return {"linear (TF-IDF)": convex_labels(study.data)}

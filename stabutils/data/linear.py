"""The learner that does not flip: TF-IDF and a linear support-vector machine, a convex problem with one solution."""

from __future__ import annotations

import numpy as np

from stabutils.data.datasets import Dataset


def convex_labels(data: Dataset, seed: int = 0) -> np.ndarray:
    """What the convex learner answers on the test split: labels (examples,).

    Word 1-2-grams and character 2-4-grams, TF-IDF weighted, C = 1, untuned. `seed` orders the solver's steps and
    does not change where they end: its churn is 0 whatever its accuracy, so it stands beside every stability number as
    the answer to "why not something simpler?".
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2)), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
    )
    learner = make_pipeline(features, LinearSVC(C=1.0, random_state=seed))
    return learner.fit(data.train.texts, data.train.labels).predict(data.test.texts)

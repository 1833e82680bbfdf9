"""What is special about unstable queries: attributes, prototypes and criticisms, and which
attributes are enriched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy import stats

from stabutils.analysis.regions import SAME_PLACE, points_of, words_of
from stabutils.data.datasets import Dataset
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.detection import rank_correlation
from stabutils.metrics.intervals import Interval, over_both
from stabutils.metrics.measures import label_entropy


def attributes(train: Sequence[str], train_labels: ndarray, texts: Sequence[str]) -> pd.DataFrame:
    """What might make a text unstable, whatever the model: one row a text.

    words: how many; rare: share of them seen less than 3 times in training; nearness: cosine to the
    nearest training text, 0 .. 1; duplicate: it has the words of a training text (1 or 0);
    conflict: share of the ten nearest training texts whose label is not the most frequent one among
    them, 0 .. 0.9.
    """
    words_in = words_of().build_analyzer()
    seen = Counter(word for text in train for word in set(words_in(text)))
    rows, cosines = nearest_rows(train, texts, 10)
    nearness = cosines[:, 0]
    agreeing = stats.mode(np.asarray(train_labels)[rows], axis=1).count
    words = [words_in(text) for text in texts]
    known = np.array([all(word in seen for word in own) for own in words])  # others leave no trace
    return pd.DataFrame(
        {
            "words": [len(own) for own in words],
            "rare": [np.mean([seen[word] < 3 for word in own] or [True]) for own in words],
            "nearness": nearness,
            "duplicate": (known & (nearness > 1 - SAME_PLACE)).astype(float),
            "conflict": 1 - agreeing / rows.shape[1],
        }
    )


def nearest_rows(train: Sequence[str], texts: Sequence[str], count: int) -> tuple[ndarray, ndarray]:
    """The training texts with most of each text's words, by the cosine of TF-IDF vectors.

    Returns
    -------
    Rows of `train`, the nearest first, of equals the first: (texts, count), fewer where there are
    fewer; and their cosines, 0 .. 1.

    Examples
    --------
    >>> rows, _ = nearest_rows(["play jazz", "play rock", "wake me"], ["jazz please", "wake"], 1)
    >>> rows.tolist()
    [[0], [2]]
    """
    words = words_of()
    known, rows, cosines = words.fit_transform(train), [], []
    for start in range(0, len(texts), 256):
        cosine = (words.transform(texts[start : start + 256]) @ known.T).toarray()
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        rows.append(nearest)
        cosines.append(np.minimum(np.take_along_axis(cosine, nearest, axis=1), 1))
    return np.concatenate(rows), np.concatenate(cosines)


def conflict_groups(data: Dataset) -> dict[str, ndarray]:
    """Test queries by whether the labels of the ten nearest training texts agree: bool
    (queries,).
    """
    conflict = attributes(data.train.texts, data.train.labels, data.test.texts).conflict.to_numpy()
    groups = {
        "agree": conflict == 0,
        "disagree a little": (conflict > 0) & (conflict < 0.5),
        "disagree": conflict >= 0.5,
    }
    return {name: where for name, where in groups.items() if where.any()}


def nearest_texts(data: Dataset, query: int) -> pd.DataFrame:
    """The eight training texts with most of a test query's words: text, label's name, cosine."""
    [rows], [cosines] = nearest_rows(data.train.texts, [data.test.texts[query]], 8)
    labels = [data.label_names[data.train.labels[row]] for row in rows]
    texts = [data.train.texts[row] for row in rows]
    return pd.DataFrame({"text": texts, "label": labels, "cosine": cosines})


def contradictions(data: Dataset) -> pd.DataFrame:
    """Training texts that stand there with more than one label: a row a text, the most frequent
    first.

    Texts are the same when they are so without case, and with single spaces between words. Columns
    text, number, labels (names with their counts).
    """
    texts = pd.Series([" ".join(text.casefold().split()) for text in data.train.texts])
    names = pd.Series([data.label_names[label] for label in data.train.labels])
    rows = []
    for text, labels in names.groupby(texts):
        counts = labels.value_counts()
        if len(counts) > 1:
            words = ", ".join(f"{name} ({count})" for name, count in counts.items())
            rows.append({"text": text, "number": len(labels), "labels": words})
    table = pd.DataFrame(rows, columns=["text", "number", "labels"])
    return table.sort_values("number", ascending=False, kind="stable", ignore_index=True)


def bins(values: ndarray, count: int) -> ndarray:
    """Indicators of equal-width bins of values in 0 .. 1: (queries, occupied bins), for
    regressions.

    Examples
    --------
    >>> bins(np.array([0.0, 0.05, 0.95]), 10).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    cell = np.minimum((np.asarray(values) * count).astype(int), count - 1)
    return (cell[:, None] == np.unique(cell)).astype(float)


def criticism(vectors: ndarray, entropy: ndarray, intents: ndarray, each: int = 3) -> pd.DataFrame:
    """Per intent its stable prototypes and unstable criticisms: columns intent, kind, example,
    entropy, distance.

    Prototypes never flip less than others, and of those lie nearest to the intent's centre;
    criticisms flip most, and of those lie furthest from it. A query that always keeps its answer is
    no criticism, one that flips no prototype. Prototypes and criticisms are an idea of Stock and
    Cisse 2018; to choose them by label entropy is ours.
    """
    points, entropy, intents = points_of(vectors), np.asarray(entropy, float), np.asarray(intents)
    rows = []
    for intent in np.unique(intents):
        own = np.flatnonzero(intents == intent)
        distance = np.linalg.norm(points[own] - points[own].mean(axis=0), axis=1)
        for kind, sign in (("prototype", 1), ("criticism", -1)):
            fits = (entropy[own] > 0) == (kind == "criticism")
            order = np.lexsort((sign * distance, sign * entropy[own]))
            rows += [
                (intent, kind, own[i], entropy[own[i]], distance[i])
                for i in order[fits[order]][:each]
            ]
    return pd.DataFrame(rows, columns=["intent", "kind", "example", "entropy", "distance"])


def by_group(labels: ndarray, groups: ndarray, n: int = 5) -> dict[object, Interval]:
    """Mean label entropy (nats) of each group of queries, over runs and queries, highest first.

    Of a group of one query, which cannot be left out, over runs alone.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    n = min(n, len(labels))
    found = {}
    for group in np.unique(groups).tolist():
        found[group] = scores.label_entropy(labels[:, groups == group], n).interval()
    return dict(sorted(found.items(), key=lambda entry: -entry[1].value))


def gradients(labels: ndarray, attributes: pd.DataFrame, n: int = 5) -> dict[str, Interval]:
    """Rank correlation (Spearman) of each attribute with label entropy, -1 .. 1.

    Over runs and queries, conservative. Raises InputError below 3 runs.
    """
    labels = np.asarray(labels)
    if len(labels) < 3:
        raise InputError("runs", len(labels), "at least 3, so that one can be left out")
    n = min(n, len(labels) - 1)

    def correlation(votes: ndarray, attribute: ndarray) -> float:
        return rank_correlation(attribute, label_entropy(votes, n))

    found = {}
    for name in attributes:
        attribute = attributes[name].to_numpy(float)
        found[name] = over_both(correlation, labels, examples=(attribute,)).within(-1, 1)
    return found

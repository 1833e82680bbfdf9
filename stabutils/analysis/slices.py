"""Slices: regions of an embedding found by an optimiser (Spotlight) or by clustering, with or
without the scores.

`vectors` (examples, dims) are places that do not come from the measured runs, `scores` (examples,)
what is high where something is wrong: loss, or label entropy.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy import ndarray
from sklearn.cluster import HDBSCAN
from sklearn.mixture import GaussianMixture

from stabutils.analysis.regions import NOTHING, points_of, ranked
from stabutils.errors import InputError
from stabutils.metrics import label_entropy, scores


def spotlight(
    vectors: ndarray,
    scores: ndarray,
    size: float,
    steps: int = 5000,
) -> ndarray:
    """The Spotlight: the round region of at least `size` total weight where the weighted mean score
    is highest.

    scores (examples,): loss, label entropy ... Returns (examples,) weights k/max k, 0 .. 1, where
    k = max(1 - tau |x - mu|^2, 0); mu and log tau climb

        sum k s / sum k - [W < size + b] ((W - size - b)/b)^2,    W = sum k,

    by Adam, the rate halved after ten steps without progress, while b shrinks from n - size to 0.05
    size. mu starts at zero. The vectors are first centred and scaled to a root mean square length
    of 3, which the rate of 0.01 a step suits. Source: d'Eon et al. 2021, spherical form.
    """
    points, scores = points_of(vectors), np.array(scores, float)
    points = points - points.mean(axis=0)
    points *= 3 / max(np.sqrt(np.mean(np.sum(points**2, axis=1))), NOTHING)
    if not 0 < size < len(points):
        raise InputError("size", size, f"above 0 and below {len(points)}, the number of examples")
    weights = _climb(points, scores, size, steps)
    return weights / max(weights.max(), NOTHING)


def _climb(points, scores, size, steps):
    widths = np.geomspace(len(points) - size, 0.05 * size, steps)
    place = np.append(np.zeros(points.shape[1]), np.log(1e-4))
    mean = square = np.zeros_like(place)
    rate, best, waited = 1e-2, -np.inf, 0
    for step, width in enumerate(widths, start=1):
        value, slope = _objective(points, scores, size, width, place)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        place = place + rate * (mean / (1 - 0.9**step)) / (
            np.sqrt(square / (1 - 0.999**step)) + 1e-8
        )
        better = value > best * (1 - 1e-4)
        best, waited = (value, 0) if better else (best, waited + 1)
        if waited > 10:
            rate, best, waited = rate / 2, -np.inf, 0
    return _kernel(points, place)[0]


def _kernel(points, place):
    distance = np.sum(points**2, axis=1) - 2 * points @ place[:-1] + place[:-1] @ place[:-1]
    return np.maximum(1 - np.exp(place[-1]) * distance, 0), distance


def _objective(points, scores, size, width, place):
    """What a spotlight at `place` (centre, log tau) is worth, and the slope of that."""
    kernel, distance = _kernel(points, place)
    weight = max(kernel.sum(), NOTHING)
    value, short = kernel @ scores / weight, min(weight - size - width, 0) / width
    pull = ((scores - value) / weight - 2 * short / width) * (kernel > 0)
    tau = np.exp(place[-1])
    slope = np.append(2 * tau * (pull @ points - pull.sum() * place[:-1]), -tau * pull @ distance)
    return value - short**2, slope


def slices(vectors: ndarray, scores: ndarray, method: str = "mixture", size: int = 20) -> ndarray:
    """Regions of the same space found without looking at the scores: (examples,) ids, -1 outside
    all of them.

    "mixture": Gaussian mixture (diagonal) of 50 components, or fewer so that they have `size`
    examples on average; "hdbscan": dense regions of at least `size` examples. Numbered by mean
    score, highest first.
    """
    points, scores = points_of(vectors), np.asarray(scores, float)
    if method == "mixture":
        parts = min(50, max(1, len(points) // size))
        learner = GaussianMixture(parts, covariance_type="diag", random_state=0)
        found = learner.fit_predict(points)
    elif method == "hdbscan":
        found = HDBSCAN(min_cluster_size=size, copy=True).fit_predict(points)
    else:
        raise InputError("method", method, "'mixture' or 'hdbscan'")
    share = np.array([1 / np.sum(found == own) for own in found])  # a region's sum is its mean
    return ranked(found, scores * share)


def lit(
    vectors: ndarray, labels: ndarray, gold: ndarray, share: float = 0.05
) -> dict[str, ndarray]:
    """What the runs point at: weights (queries,) of the Spotlight and of the worst slices.

    Parameters
    ----------
    labels : (runs, queries), of the runs that choose
    share : of the queries that a region holds at least
    """
    size = max(5, share * len(gold))
    unstable, wrong = label_entropy(labels), np.mean(labels != gold, axis=0)
    found = {
        "Spotlight on label entropy": spotlight(vectors, unstable, size),
        "Spotlight on errors": spotlight(vectors, wrong, size),
    }
    for method in ("mixture", "hdbscan"):
        worst = slices(vectors, unstable, method, int(size)) == 0
        if np.sum(worst) > 1:
            found[method] = worst.astype(float)
    return found


def judged(parts: dict[str, ndarray], labels: ndarray) -> pd.DataFrame:
    """How often runs disagree in each part, by its weights (queries,): a row a part."""
    rows = []
    for name, weights in parts.items():
        churn = scores.churn(labels, weights).interval()
        rows.append(
            {"region": name, "queries": np.sum(weights > 0), "churn of the other runs": churn}
        )
    return pd.DataFrame(rows)

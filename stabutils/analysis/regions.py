"""Where instability lives: is it clustered beyond chance, and in which regions?

Everything starts from `vectors` (examples, dims), one place for each evaluation text, which must
not come from the runs that are measured: `lsa` or `discriminant` of the texts, or hidden vectors of
a model outside the study. `labels` (runs, examples) are the answers of the runs. A `graph` is what
`neighbours` makes of vectors: sparse (examples, examples), each row the weights of a text's
neighbours, adding up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy import linalg, sparse, special, stats
from scipy.spatial import distance
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.manifold import smacof
from sklearn.preprocessing import normalize

from stabutils.errors import InputError
from stabutils.metrics import intervals, scores
from stabutils.metrics.detection import planted
from stabutils.metrics.intervals import Interval, from_deletions, jackknife, runs_and_queries
from stabutils.metrics.measures import churn, disagreement, label_entropy
from stabutils.records import Number, number, shown

SAME_PLACE = (
    1e-9  # squared distance, in units of the mean one to the centre; rounding stays far below
)
NOTHING = 1e-20  # variation that is rounding only
# Thai, Lao, Burmese, Khmer, kana, Han: written without spaces, so each character counts as a word
# there.
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)


def lsa(train: Sequence[str], texts: Sequence[str], dims: int = 200) -> ndarray:
    """Latent semantic analysis of texts, learned on the training texts: (texts, dims), rows of
    length 1.

    TF-IDF of words and pairs of words, truncated SVD: fewer dims than asked for where there are too
    few words. A text without a known word gets zeros. Source: Deerwester et al. 1990.
    """
    if not dims >= 1:
        raise InputError("dims", dims, "an integer of at least 1")
    words = words_of(ngram_range=(1, 2), sublinear_tf=True)
    known, counts = words.fit_transform(train), words.transform(texts)
    svd = TruncatedSVD(min(dims, *(side - 1 for side in known.shape)), random_state=0).fit(known)
    return normalize(svd.transform(counts))


def discriminant(
    train: Sequence[str],
    train_labels: ndarray,
    texts: Sequence[str],
) -> ndarray:
    """The directions of `lsa` that tell the intents apart: (texts, at most intents - 1).

    A space that knows the task, as the last layer of a network does, without any of the runs:
    linear discriminant analysis (Fisher 1936), a tenth of the covariance shrunk to a multiple of
    the identity.
    """
    known, new = np.split(lsa(train, [*train, *texts]), [len(train)])
    learner = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    return learner.fit(known, train_labels).transform(new)


def neighbours(vectors: ndarray, k: int = 10) -> sparse.csr_array:
    """The graph of the k nearest neighbours (Euclidean): sparse (examples, examples), each row adds
    up to 1.

    Texts in the same place are no neighbours: a query does not vouch for its own copy. All that lie
    as far as the k-th count, so a row may have more than k entries and the order of the examples
    does not matter.

    >>> neighbours([[0.0], [1.0], [3.0], [3.0]], k=1).toarray().tolist()
    [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]

    Raises InputError where a text has fewer than k others in other places.
    """
    points = points_of(vectors)
    points = points - points.mean(axis=0)
    squares = np.sum(points**2, axis=1)
    points, squares = points / np.sqrt(squares.mean() or 1), squares / (squares.mean() or 1)
    if not 1 <= k < len(points):
        raise InputError("k", k, f"1 to {len(points) - 1}, the number of other texts")
    blocks = []
    for start in range(0, len(points), 512):
        part = slice(start, start + 512)
        apart = squares[part, None] - 2 * points[part] @ points.T + squares
        apart[apart < SAME_PLACE] = np.inf
        furthest = np.partition(apart, k - 1, axis=1)[:, k - 1 : k]
        if np.isinf(furthest).any():
            raise InputError("k", k, "fewer: some text has not that many others in other places")
        blocks.append(sparse.csr_array(apart <= furthest + SAME_PLACE, dtype=float))
    graph = sparse.vstack(blocks, format="csr")
    return sparse.csr_array(sparse.diags_array(1 / graph.sum(axis=1)) @ graph)


def plane(vectors: ndarray, intents: ndarray) -> tuple[ndarray, ndarray]:
    """A map of the texts: their places (examples, 2) and those of the intents (intents, 2), the
    same at every call.

    The centres of the intents are spread out by multidimensional scaling of the roots of their
    distances; a text lies between the centres that it is near to, moved a little in its own
    direction. To look at, not to measure on.
    """
    points, intents = points_of(vectors), np.asarray(intents)
    centres = np.stack([points[intents == intent].mean(axis=0) for intent in np.unique(intents)])
    if len(centres) < 3:
        raise InputError("intents", len(centres), "at least 3 to draw a map of")
    roots = np.sqrt(distance.cdist(centres, centres))
    towns, _ = smacof(roots, n_init=4, eps=1e-6, random_state=0, normalized_stress=False)
    far = distance.cdist(points, centres, "sqeuclidean")
    near = special.softmax(-far / (0.3 * np.median(far.min(axis=1))), axis=1)
    own = TruncatedSVD(2, random_state=0).fit_transform(points - near @ centres)
    step = np.median(np.sort(distance.cdist(towns, towns), axis=1)[:, 1])
    return near @ towns + 0.35 * step * own / np.sqrt(np.mean(np.sum(own**2, axis=1))), towns


def morans_i(values: ndarray, graph: sparse.csr_array) -> float:
    """Moran's I: how much neighbours are alike. About -1/(examples - 1) by chance, 1 at most; 0
    if nothing varies.

    values (examples,). Source: Moran 1950; the slope of the neighbours' mean on the own value.

    >>> line = sparse.csr_array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    >>> morans_i([1.0, 0.0, 1.0], line)  # neighbours are never alike
    -1.0
    """
    return cross_morans_i(values, values, graph)


def cross_morans_i(first: ndarray, second: ndarray, graph: sparse.csr_array) -> float:
    """Moran's I between two measurements of one thing: noise that they do not share neither raises
    nor shrinks it.

    first and second (..., examples), entropy over one half of the runs and over the other. With z
    centred it is sum z1 W z2 / sum z1 z2, W made symmetric, the leading axes (several halvings)
    pooled; 0 where the halves have nothing in common. Equal to `morans_i` when both are the same.
    """
    found = _cross(residuals(first), residuals(second), _symmetric(graph))
    return float(np.nan_to_num(found))


def _symmetric(graph: sparse.csr_array) -> sparse.csr_array:
    return (graph + graph.T) * (0.5 * graph.shape[0] / graph.sum())


def _cross(first: ndarray, second: ndarray, weights: sparse.csr_array) -> float:
    """`cross_morans_i` of residuals; nan where they have nothing in common."""
    lag = (weights @ second.reshape(-1, second.shape[-1]).T).T.reshape(second.shape)
    common = np.sum(first * second)
    return np.sum(first * lag) / common if common > NOTHING * first.size else np.nan


def residuals(
    values: ndarray, groups: ndarray | None = None, covariates: ndarray | None = None
) -> ndarray:
    """What the mean of the group (or of all) and the covariates do not explain of values (...,
    examples), by least squares. groups (examples,); covariates (examples, any number).

    >>> residuals([1.0, 3.0, 10.0, 20.0], groups=["a", "a", "b", "b"]).round(9).tolist()
    [-1.0, 1.0, -5.0, 5.0]
    """
    values = np.asarray(values, float)
    group = np.zeros(values.shape[-1], int)
    if groups is not None:
        group = np.unique(groups, return_inverse=True)[1]
    design = np.eye(group.max() + 1)[group]
    if covariates is not None:
        columns = np.asarray(covariates, float)
        scaled = (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), NOTHING)
        design = np.hstack([design, scaled])
    basis = linalg.orth(design)
    return values - (values @ basis) @ basis.T


def halves(labels: ndarray, halvings: int = 10, seed: int = 0) -> ndarray:
    """Label entropy over random halves of the runs, also without each run: (runs + 1, 2, halvings,
    examples), nats.

    Entry r of the first axis does without run r, the last one uses all; both halves of a halving
    stand side by side. Raises InputError below 6 runs.
    """
    labels = np.asarray(labels)
    runs, draw = len(labels), np.random.default_rng(seed)
    if runs < 6:
        allowed = "at least 6: two halves of three, so that each run can be left out"
        raise InputError("runs", runs, allowed)
    found = np.empty((runs + 1, 2, halvings, labels.shape[1]))
    for halving in range(halvings):
        order = draw.permutation(runs)
        for side, half in enumerate((order[: runs // 2], order[runs // 2 :])):
            found[:, side, halving] = label_entropy(labels[half])
            for run in half:
                found[run, side, halving] = label_entropy(labels[half[half != run]])
    return found


@dataclass(frozen=True)
class Clustering:
    """Whether neighbours flip alike.

    Attributes
    ----------
    observed : Moran's I, over runs and queries
    chance : its mean and middle 95 % where places do not matter, which need not lie about 0
    p : one-sided
    null : all that shuffling gave
    """

    observed: Interval
    chance: Interval
    p: float
    null: ndarray


def clustering(
    entropies: ndarray,
    graph: sparse.csr_array,
    groups: ndarray | None = None,
    covariates: ndarray | None = None,
    permutations: int = 999,
    seed: int = 0,
) -> Clustering:
    """Do neighbours flip alike, beyond groups and covariates?

    `cross_morans_i` of halves of the runs against chance. The residuals of label entropy after
    group means and covariates change places, within groups only where groups are given: so
    "anywhere" (neither), "within intents" (groups) and "beyond difficulty" (covariates such as
    error rate, length, nearness to training texts) are one test.

    Parameters
    ----------
    entropies : as `halves` makes them
    groups : (queries,); covariates : (queries, any number)

    Returns
    -------
    The interval is over runs and queries (blocks of queries are left out with their
    neighbourhoods), conservative. p is (1 + as large by chance)/(1 + permutations), one-sided. All
    is nan where the halves have nothing in common: it cannot be tested.
    """
    left = residuals(entropies, groups, covariates)
    weights = _symmetric(graph)
    *without, value = [_cross(one, other, weights) for one, other in left]
    if np.isnan(value):
        unknown = Interval(np.nan, np.nan, np.nan, len(without))
        return Clustering(unknown, unknown, np.nan, np.empty(0))
    rng, (first, second) = np.random.default_rng(seed), left[-1]
    null = np.empty(permutations)
    for i in range(permutations):
        places = _shuffled(left.shape[-1], groups, rng)
        null[i] = _cross(first[:, places], second[:, places], weights)
    p = (1 + np.sum(null >= value - 1e-12)) / (1 + permutations)
    low, high = map(float, np.quantile(null, [0.025, 0.975]))
    chance = Interval(float(null.mean()), low, high, len(without))
    over_runs = from_deletions(value, np.nan_to_num(without))
    over_queries = _over_blocks(value, first, second, weights)
    observed = runs_and_queries(over_runs, over_queries).within(-np.inf, 1)
    return Clustering(observed, chance, float(p), null)


def battery(
    labels: ndarray,
    graphs: Mapping[str, sparse.csr_array],
    questions: Mapping[str, Mapping],
    permutations: int = 999,
) -> dict[str, dict[str, Clustering]]:
    """`clustering` for every space and question: what each looks beyond, by name."""
    entropies = halves(labels)
    tests: dict[str, dict[str, Clustering]] = {}
    for space, graph in graphs.items():
        tests[space] = {}
        for name, beyond in questions.items():
            test = clustering(entropies, graph, **beyond, permutations=permutations)
            tests[space][name] = test
    return tests


def planted_neighbours(
    labels: ndarray, graph: sparse.csr_array, tags: Sequence[str]
) -> dict[str, Interval]:
    """Do a query's neighbours, without itself, tell that it lies in a planted region?

    AUROC of their mean label entropy, of each strong and medium region against the clear queries.
    """

    def of_neighbours(votes: ArrayLike) -> ndarray:
        return graph @ label_entropy(votes)

    found = planted(labels, tags, of_neighbours)
    return {name: found[name] for name in sorted(found) if name.endswith(("strong", "medium"))}


def _over_blocks(
    value: float, first: ndarray, second: ndarray, weights: sparse.csr_array
) -> Interval:
    """Over queries: Moran's I without random blocks of queries, and of their neighbours'
    weights.
    """
    count = first.shape[-1]
    deleted = []
    for rest in intervals.without_blocks(count):
        scaled = weights[rest][:, rest] * (count / len(rest))
        deleted.append(_cross(first[:, rest], second[:, rest], scaled))
    return from_deletions(value, np.nan_to_num(deleted), runs=0)


def _shuffled(count: int, groups: ndarray | None, draw: np.random.Generator) -> ndarray:
    if groups is None:
        return draw.permutation(count)
    places = np.empty(count, int)
    places[np.argsort(groups, kind="stable")] = np.lexsort((draw.random(count), groups))
    return places


def hot_spots(values: ndarray, graph: sparse.csr_array, permutations: int = 9_999) -> pd.DataFrame:
    """Which examples have neighbours of too high values to be chance? One row an example, in their
    order.

    neighbours: their mean value; moran: local Moran's I; p: chance of so high a mean if the
    neighbours were any others (conditional permutation, one-sided; the own value plays no part); q:
    p after Benjamini and Hochberg; hot: q at most 0.05 and the own value above average. An example
    with more than four times the usual number of neighbours lies nowhere in particular: p = 1.
    Sources: Anselin 1995; Getis and Ord 1992.
    """
    values = np.asarray(values, float)
    z, count = values - values.mean(), values.size
    degrees = np.diff(graph.indptr)
    most = int(min(4 * np.median(degrees), count - 1))
    draw, lag, p = np.random.default_rng(0), graph @ z, np.ones(count)
    places = np.stack(
        [draw.choice(count - 1, most, replace=False) for _ in range(permutations)], axis=1
    )
    for i in np.flatnonzero((degrees <= most) & (degrees > 0)):
        chance = np.delete(z, i)[places[: degrees[i]]].sum(axis=0)
        p[i] = (1 + np.sum(chance >= lag[i] * degrees[i] - 1e-9)) / (1 + permutations)
    q = stats.false_discovery_control(p)
    variance = np.mean(z**2)
    return pd.DataFrame(
        {
            "value": values,
            "neighbours": graph @ values,
            "p": p,
            "q": q,
            "moran": z * lag / variance if variance > NOTHING else np.zeros(count),
            "hot": (q <= 0.05) & (z > 0),
        }
    )


def hot_regions(hot: ndarray, graph: sparse.csr_array, least: int = 3) -> ndarray:
    """Hot examples that are each other's neighbours form a region: (examples,) ids from 0, largest
    first, else -1.

    >>> line = sparse.csr_array(np.diag([1.0, 1, 1, 1], 1) + np.diag([1.0, 1, 1, 1], -1))
    >>> hot_regions([True, False, True, True, True], line, least=1).tolist()
    [1, -1, 0, 0, 0]
    """
    chosen = np.flatnonzero(hot)
    own = graph[chosen][:, chosen]
    _, part = sparse.csgraph.connected_components(own * own.T, directed=False)
    regions = np.full(len(hot), -1)
    regions[chosen] = part
    return ranked(regions, np.ones(len(hot)), least)


def found_by_half(labels: ndarray, graph: sparse.csr_array) -> tuple[ndarray, ndarray]:
    """Regions that the first half of the runs chooses, and the other runs, to describe them by.

    Returns
    -------
    Ids of `hot_regions` (queries,), and labels of the other half. Fewer than five runs do both,
    which flatters the regions.
    """
    half = len(labels) // 2 if len(labels) >= 5 else 0
    choosing, describing = labels[: half or None], labels[half:]
    spots = hot_spots(label_entropy(choosing), graph)
    return hot_regions(spots.hot, graph), describing


def ranked(regions: ndarray, worth: ndarray, least: int = 1) -> ndarray:
    """Regions renumbered from 0 by the sum of their worth, highest first; those of fewer than
    `least` become -1.
    """
    names, sizes = np.unique(regions[regions >= 0], return_counts=True)
    kept = names[sizes >= least]
    order = kept[np.argsort([-worth[regions == name].sum() for name in kept], kind="stable")]
    new = np.full(regions.size, -1)
    for place, name in enumerate(order):
        new[regions == name] = place
    return new


def confusions(labels: ndarray, names: Sequence[str]) -> pd.Series:
    """Which two answers the runs disagree between: share of all disagreements by pair of intents,
    highest first.

    >>> confusions([[0, 1], [0, 1], [1, 2]], ["yes", "no", "maybe"]).to_dict()
    {'yes / no': 0.5, 'no / maybe': 0.5}
    """
    pairs, shares = _confusions(np.asarray(labels), len(names))
    return pd.Series(shares, index=[f"{names[a]} / {names[b]}" for a, b in pairs], dtype=float)


def confused(labels: ndarray, names: Sequence[str], most: int = 8) -> dict[str, Interval]:
    """The largest `confusions`, each with its interval over runs and queries.

    Examples
    --------
    >>> confused([[0, 1], [0, 1], [1, 2]], ["yes", "no", "maybe"])["no / maybe"].value
    0.5
    """
    labels = np.asarray(labels)
    pairs_of_runs = math.comb(len(labels), 2)

    def share(votes: ndarray, pair: ndarray) -> float:
        first, second = ((votes == label).sum(axis=0) for label in pair)
        disagreements = churn(votes) * votes.shape[1] * math.comb(len(votes), 2)
        return first @ second / max(disagreements, 1)

    found = {}
    for pair in _confusions(labels, len(names))[0][:most]:
        first, second = ((labels == label).sum(axis=0) for label in pair)
        rows = first * second, disagreement(labels) * pairs_of_runs
        over_runs = jackknife(partial(share, pair=pair), labels)
        over_queries = intervals.over_queries(_ratio, *rows, runs=len(labels))
        interval = runs_and_queries(over_runs, over_queries).within(0, 1)
        found[f"{names[pair[0]]} / {names[pair[1]]}"] = interval
    return found


def _ratio(part, whole):
    return part / np.maximum(whole, 1e-12)


def _confusions(labels, classes):
    """Pairs of classes (pairs, 2), the most confused first, and their shares."""
    votes = np.zeros((labels.shape[1], classes))
    np.add.at(votes, (np.arange(labels.shape[1])[None], labels), 1)
    both = np.triu(votes.T @ votes, 1)
    pairs = np.argwhere(both)
    shares = both[tuple(pairs.T)] / max(both.sum(), 1)
    order = np.argsort(-shares, kind="stable")
    return pairs[order], shares[order]


def describe(
    regions: ndarray,
    labels: ndarray,
    texts: Sequence[str],
    names: Sequence[str],
    words: int = 4,
) -> pd.DataFrame:
    """A readable table of regions, one row each: queries, disagreement (share of pairs of runs,
    with its interval), confused intents, typical words (highest mean TF-IDF against the rest;
    English stop words tell nothing), and the text that flips most.
    """
    columns = ["region", "queries", "disagreement", "confused", "words", "example"]
    if max(regions, default=-1) < 0:
        return pd.DataFrame(columns=columns)
    tfidf, differ, rows = words_of(), disagreement(labels), []
    weight = tfidf.fit_transform(texts)
    vocabulary = tfidf.get_feature_names_out()
    for region in range(max(regions) + 1):
        own = np.flatnonzero(regions == region)
        rest = np.flatnonzero(regions != region)
        typical = weight[own].mean(axis=0) - (weight[rest].mean(axis=0) if rest.size else 0)
        ranked_words = vocabulary[np.argsort(-np.asarray(typical).ravel(), kind="stable")]
        best = [word for word in ranked_words if word not in ENGLISH_STOP_WORDS][:words]
        pairs = confusions(labels[:, own], names)
        rows.append(
            (
                region,
                own.size,
                scores.churn(labels[:, own]).interval(),
                pairs.index[0] if pairs.size else "none",
                ", ".join(best),
                texts[own[differ[own].argmax()]],
            )
        )
    return pd.DataFrame(rows, columns=columns)


def gathered(
    labels: ndarray,
    texts: Sequence[str],
    names: Sequence[str],
) -> pd.DataFrame:
    """The regions where answers change, found in answers and texts alone, as `describe` has them.

    Places are the `lsa` of the texts themselves, and regions those `found_by_half`. Of more than
    5,000 texts a random sample is looked at. No rows where nothing gathers beyond chance, and
    where there are too few texts, or words in them, to have neighbours.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(texts))[:5_000])
    texts, labels = [texts[row] for row in rows], np.asarray(labels)[:, rows]
    graph = _graph_of(texts)
    nowhere = np.full(len(texts), -1), labels
    found, others = nowhere if graph is None else found_by_half(labels, graph)
    return describe(found, others, texts, names)


def _graph_of(texts: Sequence[str]) -> sparse.csr_array | None:
    """Neighbours by words; None where the texts, or the words in them, are too few for any."""
    analyzer = words_of().build_analyzer()
    vocabulary = {word for text in texts for word in analyzer(text)}
    if len(texts) <= 10 or len(vocabulary) < 2:
        return None
    try:
        return neighbours(lsa(texts, texts))
    except InputError:  # texts with fewer than ten others in other places
        return None


def words_of(**settings) -> TfidfVectorizer:
    return TfidfVectorizer(token_pattern=rf"(?u)[{SPACELESS}]|[^\W{SPACELESS}]+", **settings)


def points_of(vectors: ndarray) -> ndarray:
    points = np.asarray(vectors, float)
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        allowed = "finite numbers of shape (examples, dims), 2 examples or more"
        raise InputError("vectors", points.shape, allowed)
    return points


def numbers(tests: Mapping[str, Mapping[str, Clustering]]) -> list[Number]:
    """A `battery` as a record keeps it: what was found, and what shuffled places give."""
    found = []
    for space, own in tests.items():
        for name, test in own.items():
            found.append(number("morans_i", test.observed, space, name))
            found.append(number("clustering_chance", test.chance, space, name))
    return found


def shares(pairs: Mapping[str, Interval]) -> pd.DataFrame:
    """`confused` in words, a row a pair."""
    words = [shown(number("share_of_churn", share), "%") for share in pairs.values()]
    return pd.DataFrame({"between": list(pairs), "share of all disagreements": words})

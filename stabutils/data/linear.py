"""Linear models of texts: learners with one solution, which no seed can move.

A linear model on fixed features (TF-IDF of words and characters, vectors of a frozen encoder, or
both) with a strictly convex loss has a unique solution. Neither the order of the examples nor the
seed of the solver changes what it answers: its churn over seeds is 0 at any accuracy. Other
training *data* do move it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array, hstack
from scipy.special import log_softmax, softmax

from stabutils.data.datasets import Split
from stabutils.errors import InputError, check

# Words and pairs of words, 2 to 4 characters of a word.
VECTORIZERS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}
FEATURES = ("tfidf", "frozen", "both")
LAST, ALL = -1, "all"  # layers of an encoder
GRIDS = {"svm": (0.1, 0.3, 1.0, 3.0), "logistic": (3.0, 10.0, 30.0, 100.0)}  # of strengths
SOLVER = {"tol": 1e-6, "max_iter": 20_000}  # two solutions differ by less than what decides
COLDEST, WARMEST = 1e-3, 1e3  # temperatures


@dataclass(frozen=True)
class Linear:
    """Settings of a linear model.

    Attributes
    ----------
    features : "tfidf" (word 1-2-grams and character 2-4-grams), "frozen" (vectors of an encoder
        that is not trained), or "both" side by side
    classifier : "svm" (one against the rest, squared hinge loss) or "logistic" (multinomial)
    strengths : values of C to choose from on validation, a larger one fits the training texts more
        closely; none means those of GRIDS
    layer : of the encoder whose vectors are read: -1 is the last and 0 the embeddings, "all" has
        those of all layers side by side
    """

    features: str = "tfidf"
    classifier: str = "svm"
    strengths: tuple[float, ...] = ()
    layer: int | str = LAST

    def __post_init__(self):
        check("features", self.features, str, {"choices": FEATURES})
        if self.layer != ALL and type(self.layer) is not int:
            raise InputError("layer", self.layer, '"all", or an integer')
        check("classifier", self.classifier, str, {"choices": tuple(GRIDS)})
        for strength in self.strengths:
            check("strength", strength, float, {"above": 0})

    @property
    def reads(self) -> str:
        """Its features, with the layer where it is not the last: "both, layer all"."""
        layered = self.features != "tfidf" and self.layer != LAST
        return f"{self.features}, layer {self.layer}" if layered else self.features

    @property
    def grid(self) -> tuple[float, ...]:
        return tuple(sorted(self.strengths or GRIDS[self.classifier]))


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A fitted linear model: all that its answers depend on.

    Attributes
    ----------
    settings : what was fitted
    vocabularies : by vectorizer, its terms in the order of their columns; none without TF-IDF
    idf : by vectorizer, the weight of each term
    coefficients : float32 (classes, columns), the frozen vector's columns last
    intercepts : float32 (classes,); minus infinity for a class without training texts
    strength : the C that was chosen
    temperature : what margins are divided by before the softmax
    trials : accuracy on validation by strength
    """

    settings: Linear
    vocabularies: Mapping[str, Sequence[str]]
    idf: Mapping[str, ndarray]
    coefficients: ndarray
    intercepts: ndarray
    strength: float
    temperature: float = 1.0
    trials: Mapping[float, float] = field(default_factory=dict)

    @cached_property
    def vectorizers(self) -> dict:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizers = {}
        for name, terms in self.vocabularies.items():
            vectorizers[name] = TfidfVectorizer(**VECTORIZERS[name], vocabulary=list(terms))
            vectorizers[name].idf_ = self.idf[name]
        return vectorizers

    @cached_property
    def _slopes(self) -> ndarray:
        return self.coefficients.T.astype(float, order="C")  # else each product copies it

    def margins(self, texts: Sequence[str], vectors: ndarray | None = None) -> ndarray:
        """How much speaks for each class: (texts, classes), the largest is the answer.

        vectors: of the frozen encoder, (texts, width), where the model reads them.
        """
        columns = _columns(self.settings, self.vectorizers, texts, vectors)
        expected = self.coefficients.shape[1]
        if columns.shape[1] != expected:
            terms = sum(map(len, self.vocabularies.values()))
            found = columns.shape[1] - terms
            raise InputError("width of the vectors", found, f"{expected - terms}")
        return columns @ self._slopes + self.intercepts

    def probabilities(self, texts: Sequence[str], vectors: ndarray | None = None) -> ndarray:
        """Calibrated probabilities (texts, classes), float32; arguments as in `margins`."""
        margins = self.margins(texts, vectors)
        return softmax(margins / self.temperature, axis=1).astype(np.float32)

    def labels(self, texts: Sequence[str], vectors: ndarray | None = None) -> ndarray:
        """Answers, class ids (texts,); arguments as in `margins`."""
        return self.margins(texts, vectors).argmax(1)


def fit(
    settings: Linear,
    train: Split,
    validation: Split,
    classes: int,
    vectors: Mapping[str, ndarray] | None = None,
    seed: int = 0,
) -> LinearModel:
    """Fit a linear model; strength and temperature are chosen on the validation texts.

    The strength is the one of highest validation accuracy, of equals the smallest.

    Parameters
    ----------
    settings : features, classifier and strengths
    train, validation : texts and labels, class ids below `classes`
    vectors : of a frozen encoder, "train" and "validation" (texts, width), where they are read
    seed : of the solver's steps; where they end does not depend on it

    Raises
    ------
    InputError
        for vectors that are missing or do not fit, or training texts of a single class.

    Examples
    --------
    >>> train = Split(("lamp on", "lamp off", "play jazz", "play rock"), [0, 0, 1, 1])
    >>> model = fit(Linear(), train, train, classes=2)
    >>> model.labels(["a lamp", "jazz"]).tolist(), model.strength
    ([0, 1], 0.1)
    """
    vectors = vectors or {}
    vectorizers = _vectorizers(settings, train.texts)
    columns = _columns(settings, vectorizers, train.texts, vectors.get("train"))
    held_out = _columns(settings, vectorizers, validation.texts, vectors.get("validation"))
    fitted, trials = {}, {}
    for strength in settings.grid:
        weights = _solution(settings, strength, columns, train.labels, classes, seed)
        margins = held_out @ weights[0].T.astype(float) + weights[1]
        fitted[strength] = weights, margins
        trials[strength] = float(np.mean(margins.argmax(1) == validation.labels))
    strength = max(trials, key=trials.__getitem__)
    weights, margins = fitted[strength]
    chosen = temperature(margins, validation.labels)
    kinds = vectorizers.items()
    terms = {name: vectorizer.get_feature_names_out().tolist() for name, vectorizer in kinds}
    idf = {name: vectorizer.idf_ for name, vectorizer in kinds}
    return LinearModel(settings, terms, idf, *weights, strength, chosen, trials)


def out_of_fold(
    model: LinearModel,
    train: Split,
    vectors: ndarray | None = None,
    folds: int = 5,
) -> ndarray:
    """Margins of training texts by models that were fitted without them: (texts, classes).

    The models have the settings and the strength of `model`. A text's fold is a function of the
    text, so neither the order of the texts nor which others are there moves it.

    vectors: of the training texts, where they are read.
    """
    fold = np.array([zlib.crc32(text.encode()) % folds for text in train.texts])
    margins = np.zeros((len(train), len(model.intercepts)))
    for number in np.unique(fold):
        kept, left_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        texts, others = ([train.texts[i] for i in rows] for rows in (kept, left_out))
        vectorizers = _vectorizers(model.settings, texts)
        own, rest = (None, None) if vectors is None else (vectors[kept], vectors[left_out])
        columns = _columns(model.settings, vectorizers, texts, own)
        coefficients, intercepts = _solution(
            model.settings, model.strength, columns, train.labels[kept], len(model.intercepts)
        )
        held_out = _columns(model.settings, vectorizers, others, rest)
        margins[left_out] = held_out @ coefficients.T.astype(float) + intercepts
    return margins


def temperature(margins: ndarray, gold: ndarray) -> float:
    """The temperature at which the softmax of margins (texts, classes) costs the gold labels least.

    Guo et al. 2017, "On Calibration of Modern Neural Networks": least negative log-likelihood,
    which is convex in one over the temperature; between 0.001 and 1000.

    >>> round(temperature([[1.0, 0.0]] * 4, [0, 0, 0, 1]), 3)  # 1 / log 3: three in four are right
    0.91
    """
    margins, gold = np.asarray(margins, float), np.asarray(gold)
    own = np.arange(len(gold)), gold
    known = np.isfinite(margins[own])  # no temperature helps a class that was never seen

    def cost(log_temperature: float) -> float:
        logs = log_softmax(margins / np.exp(log_temperature), axis=1)
        return -logs[own][known].mean()

    if not known.any():
        return 1.0
    bounds = np.log([COLDEST, WARMEST])
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def _vectorizers(settings: Linear, texts: Sequence[str]) -> dict:
    from sklearn.feature_extraction.text import TfidfVectorizer

    kinds = {} if settings.features == "frozen" else VECTORIZERS
    return {name: TfidfVectorizer(**options).fit(texts) for name, options in kinds.items()}


def _columns(
    settings: Linear, vectorizers: dict, texts: Sequence[str], vectors: ndarray | None
) -> csr_array:
    """Features of texts (texts, columns): rows of each vectorizer have length 1, vectors as
    given.
    """
    blocks = [vectorizer.transform(texts) for vectorizer in vectorizers.values()]
    if settings.features != "tfidf":
        shape = () if vectors is None else np.shape(vectors)
        if len(shape) != 2 or shape[0] != len(texts):
            allowed = f"({len(texts)}, width), a vector of the frozen encoder for each text"
            raise InputError("shape of the vectors", shape, allowed)
        blocks.append(csr_array(np.asarray(vectors, float)))
    return hstack(blocks, format="csr")


def _solution(
    settings: Linear,
    strength: float,
    columns: csr_array,
    labels: ndarray,
    classes: int,
    seed: int = 0,
) -> tuple[ndarray, ndarray]:
    """Coefficients (classes, columns) and intercepts (classes,) of the one solution, float32."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    present = np.unique(labels)
    if len(present) < 2:
        raise InputError("classes of the training texts", len(present), "at least 2")
    if settings.classifier == "svm":
        # the dual is solved twice as fast as the primal for the dense vectors of an encoder
        learner = LinearSVC(C=strength, dual=True, random_state=seed, **SOLVER)
    else:
        learner = LogisticRegression(C=strength, **SOLVER)
    learner.fit(columns, labels)
    slopes, offsets = learner.coef_, learner.intercept_
    if len(present) == 2:  # one line between two classes, half of it for each
        slopes, offsets = np.concatenate([-slopes, slopes]) / 2, np.append(-offsets, offsets) / 2
    coefficients = np.zeros((classes, columns.shape[1]), np.float32)
    intercepts = np.full(classes, -np.inf, np.float32)
    coefficients[present], intercepts[present] = slopes, offsets
    return coefficients, intercepts

"""Linear models: one solution, whatever the order, the seed or the number of threads."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from stabutils.data.datasets import Split
from stabutils.data.linear import (
    GRIDS,
    Linear,
    LinearModel,
    fit,
    out_of_fold,
    temperature,
)
from stabutils.errors import InputError

DATA = tiny.dataset()
DRAW = np.random.default_rng(0)
WIDTH = 6
CENTRES = DRAW.normal(size=(4, WIDTH))


def vectors(split: Split) -> np.ndarray:
    """Vectors of a frozen encoder: the centre of the label and some noise that the text decides."""
    noise = [np.random.default_rng(len(text)).normal(size=WIDTH) for text in split.texts]
    return CENTRES[split.labels] + np.stack(noise)


VECTORS = {name: vectors(getattr(DATA, name)) for name in ("train", "validation", "test")}
KINDS = [Linear(features, classifier) for features in ("tfidf", "both") for classifier in GRIDS]
KINDS.append(Linear("frozen", "logistic"))


def fitted(kind: Linear, train: Split = DATA.train, rows=slice(None), seed: int = 0):
    own = VECTORS | {"train": VECTORS["train"][rows]}
    return fit(kind, train, DATA.validation, 4, own, seed)


def answers(model: LinearModel) -> np.ndarray:
    read = None if model.settings.features == "tfidf" else VECTORS["test"]
    return model.probabilities(DATA.test.texts, read)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_neither_order_nor_the_seed_of_the_solver_moves_it(kind):
    """The order of the texts and the solver's seed are what a retraining on the same data
    changes.
    """
    first = fitted(kind)
    for seed in range(1, 4):
        order = np.random.default_rng(seed).permutation(len(DATA.train))
        texts = tuple(DATA.train.texts[row] for row in order)
        other = fitted(kind, Split(texts, DATA.train.labels[order]), order, seed)
        assert np.array_equal(answers(first).argmax(1), answers(other).argmax(1))
        np.testing.assert_allclose(answers(first), answers(other), atol=1e-4)
        assert other.strength == first.strength


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_threads_do_not_move_it(kind):
    found, kind = [], replace(kind, strengths=(3.0,))
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(answers(fitted(kind)))
    assert np.array_equal(found[0].argmax(-1), found[1].argmax(-1))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_other_data_do_move_it():
    """So that the tests above cannot pass because nothing is looked at."""
    kept = np.arange(len(DATA.train)) % 3 > 0
    texts = tuple(np.array(DATA.train.texts)[kept])
    other = fitted(KINDS[0], Split(texts, DATA.train.labels[kept]))
    assert np.abs(answers(other) - answers(fitted(KINDS[0]))).max() > 0.01


def test_the_strength_is_the_best_on_validation_and_the_smallest_of_equals():
    model = fitted(Linear(strengths=(3.0, 0.01, 0.1)))
    assert list(model.trials) == [0.01, 0.1, 3.0]
    best = max(model.trials.values())
    assert model.strength == min(c for c, accuracy in model.trials.items() if accuracy == best)
    again = fit(
        replace(model.settings, strengths=(model.strength,)), DATA.train, DATA.validation, 4
    )
    assert np.array_equal(again.coefficients, model.coefficients)
    assert np.mean(again.labels(DATA.validation.texts) == DATA.validation.labels) == best


def test_a_larger_strength_fits_closer():
    def loss(strength):
        model = fitted(Linear(classifier="logistic", strengths=(strength,)))
        logs = log_softmax(model.margins(DATA.train.texts), 1)
        return -logs[np.arange(len(DATA.train)), DATA.train.labels].mean()

    assert loss(0.1) > loss(1.0) > loss(10.0)


def test_frozen_vectors_decide_where_they_are_read():
    model = fitted(Linear("frozen"))
    assert model.vocabularies == {} and model.coefficients.shape == (4, WIDTH)
    same = model.margins(("any", "text"), VECTORS["test"][[3, 3]])
    assert np.array_equal(same[0], same[1])
    both = fitted(Linear("both"))
    assert both.coefficients.shape[1] == sum(map(len, both.vocabularies.values())) + WIDTH


@pytest.mark.parametrize("classifier", GRIDS)
def test_two_classes_are_answered_as_by_the_library(classifier):
    kept = DATA.train.labels < 2
    train = Split(tuple(np.array(DATA.train.texts)[kept]), DATA.train.labels[kept])
    model = fit(Linear(classifier=classifier, strengths=(1.0,)), train, train, 2)
    margins = model.margins(train.texts)
    assert np.allclose(margins.sum(1), 0, atol=1e-6) and model.coefficients.shape[0] == 2
    assert np.mean(margins.argmax(1) == train.labels) > 0.8


def test_a_class_without_training_texts_is_never_answered():
    kept = DATA.train.labels != 2
    train = Split(tuple(np.array(DATA.train.texts)[kept]), DATA.train.labels[kept])
    model = fit(Linear(), train, DATA.validation, 4)
    probabilities = model.probabilities(DATA.test.texts)
    assert np.all(probabilities[:, 2] == 0) and np.allclose(probabilities.sum(1), 1)
    assert 0.01 < model.temperature < 10  # chosen on the texts of the other classes


@given(st.integers(0, 10_000), st.floats(0.3, 3))
@settings(max_examples=15, deadline=None)
def test_temperature_equals_scikit_learns(seed, scale):
    draw = np.random.default_rng(seed)
    gold = np.arange(60) % 3
    margins = scale * (np.eye(3)[gold] + draw.normal(size=(60, 3)))
    assert temperature(margins, gold) == pytest.approx(_scikit_learns(margins, gold), rel=1e-3)


def _scikit_learns(margins, gold):
    class Margins(LinearSVC):
        classes_ = np.arange(3)

        def decision_function(self, X):
            return X

        def __sklearn_is_fitted__(self):
            return True

    frozen = FrozenEstimator(Margins())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CalibratedClassifierCV(frozen, method="temperature").fit(margins, gold)
    logs = np.log(found.predict_proba(margins))
    top, low = margins.argmax(1), margins.argmin(1)
    rows = np.arange(len(margins))
    return ((margins[rows, top] - margins[rows, low]) / (logs[rows, top] - logs[rows, low])).mean()


def test_probabilities_are_those_of_the_temperature():
    model = fitted(KINDS[0])
    logs = log_softmax(model.margins(DATA.test.texts) / model.temperature, 1)
    assert np.allclose(np.log(model.probabilities(DATA.test.texts)), logs, atol=1e-5)


def test_out_of_fold_margins_are_of_models_without_the_text():
    """Against a model that was fitted by hand on the texts of the other folds."""
    train = Split((*DATA.train.texts, "xyzzy"), np.append(DATA.train.labels, 3))
    model = fit(Linear(strengths=(10.0,)), train, DATA.validation, 4)
    assert model.labels(["xyzzy"]).tolist() == [3]  # learnt by heart
    fold = np.array([zlib.crc32(text.encode()) % 5 for text in train.texts])
    kept = np.flatnonzero(fold != fold[-1])
    others = Split(tuple(train.texts[row] for row in kept), train.labels[kept])
    by_hand = fit(model.settings, others, DATA.validation, 4).margins(["xyzzy"])
    np.testing.assert_allclose(out_of_fold(model, train)[-1], by_hand[0], atol=1e-6)


def test_a_fold_follows_its_text():
    model = fitted(KINDS[0])
    margins = out_of_fold(model, DATA.train)
    order = np.random.default_rng(1).permutation(len(DATA.train))
    shuffled = Split(tuple(DATA.train.texts[row] for row in order), DATA.train.labels[order])
    np.testing.assert_allclose(out_of_fold(model, shuffled), margins[order], atol=1e-4)
    assert np.abs(margins - model.margins(DATA.train.texts)).max() > 0.1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"features": "bert"}, "features: got 'bert'; expected a text out of"),
        ({"classifier": "tree"}, "classifier: got 'tree'"),
        ({"strengths": (1.0, 0.0)}, "strength: got 0.0; expected a number above 0"),
        ({"layer": True}, 'layer: got True; expected "all", or an integer'),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Linear(**wrong)


def test_a_layer_is_named_where_one_is_read():
    assert Linear(layer="all").reads == "tfidf" and Linear("both").reads == "both"
    assert Linear("frozen", layer=0).reads == "frozen, layer 0"


def test_missing_or_misfitting_vectors_are_refused():
    with pytest.raises(InputError, match="shape of the vectors: got .*; expected .60, width."):
        fit(Linear("both"), DATA.train, DATA.validation, 4)
    model = fitted(Linear("both"))
    with pytest.raises(InputError, match="width of the vectors: got 5; expected 6"):
        model.margins(DATA.test.texts, VECTORS["test"][:, :5])
    with pytest.raises(InputError, match="classes of the training texts: got 1"):
        one = Split(("a lamp", "the lamp"), [1, 1])
        fit(Linear(), one, one, 2)

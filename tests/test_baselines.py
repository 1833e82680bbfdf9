"""What is said where a network has not learned what a linear model has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tiny
from test_models import make_checkpoint

from stabutils.analysis import baselines
from stabutils.analysis.baselines import behind_linear, not_learned, unsettled
from stabutils.data.datasets import Split
from stabutils.data.linear import fit
from stabutils.mitigations import Mitigation
from stabutils.study.runs import of_answers
from stabutils.study.study import Study
from stabutils.training.features import frozen_vectors, linear_strength
from stabutils.training.loop import build_targets
from stabutils.training.state import Seeds

DRAW = np.random.default_rng(0)
GOLD = DRAW.integers(0, 4, 400)


def answers(accuracy, runs=6):
    right = DRAW.random((runs, len(GOLD))) < accuracy
    return np.where(right, GOLD, (GOLD + 1) % 4)


def control(accuracy):
    return of_answers("control", answers(accuracy), GOLD, np.arange(6))


def test_a_control_that_has_not_learned_is_said_to_be_so():
    linear = {"worse": answers(0.3, 1)[0], "linear (TF-IDF)": answers(0.65, 1)[0]}
    said = behind_linear(control(0.25), linear)
    assert said.startswith("Control is less accurate than a linear model, linear (TF-IDF): -")
    assert "Train longer" in said and "points" in said


def test_nothing_is_said_of_one_that_has():
    linear = {"linear (TF-IDF)": answers(0.65, 1)[0]}
    assert behind_linear(control(0.9), linear) == ""
    assert behind_linear(control(0.65), linear) == ""


def trained(*accuracies):
    """Control whose checkpoints had these accuracies."""
    checkpoints = np.stack([answers(accuracy) for accuracy in accuracies], axis=1)
    last = of_answers("control", checkpoints[:, -1], GOLD, np.arange(6))
    return replace(last, checkpoints=checkpoints)


def test_a_training_that_ended_too_early_is_said_to_have():
    said = unsettled(trained(0.3, 0.5, 0.7))
    assert said.startswith("Accuracy still rose when training ended, by +") and "points" in said
    assert unsettled(trained(0.5, 0.5 + 0.3)).startswith("Accuracy still rose")


def test_one_that_settled_is_not_and_of_unknown_ones_nothing_is_said():
    rising = [0.1 * step for step in range(1, 9)]
    assert unsettled(trained(*rising, *[0.8] * 8)) == ""  # the last ninth of 16 is the last two
    assert unsettled(trained(0.9, 0.9)) == unsettled(trained(0.7, 0.5)) == ""
    assert unsettled(control(0.9)) == unsettled(trained(0.9)) == ""


def test_both_are_said_one_a_line():
    linear = {"linear (TF-IDF)": answers(0.9, 1)[0]}
    first, second = not_learned(trained(0.3, 0.6), linear).splitlines()
    assert first.startswith("Control is less") and second.startswith("Accuracy still rose")
    assert not_learned(trained(0.9, 0.9), linear) == ""


def test_linear_models_of_changed_data_are_fitted_on_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    path = str(tiny.write_csv(tmp_path / "tiny.csv"))
    study = Study(path, str(make_checkpoint(tmp_path / "encoder")), change="drop 50 %")
    found = baselines.of_changed_data(study, np.array([3, 4]))
    assert list(found) == ["linear (TF-IDF)", "linear (both)", baselines.ALL_LAYERS]
    settings = baselines.kinds_of(study)[baselines.ALL_LAYERS]
    data, vectors = study.data, frozen_vectors(study.task, "all")
    whole = fit(settings, data.train, data.validation, len(data.label_names), vectors)
    assert linear_strength(study.task, settings) == whole.strength
    settings = replace(settings, strengths=(whole.strength,))
    for run, seed in enumerate((3, 4)):
        targets = build_targets(study.task, Mitigation(), Seeds(0, 0, 0, seed))
        rows = targets.indices.numpy()
        left = Split(tuple(data.train.texts[row] for row in rows), data.train.labels[rows])
        own = vectors | {"train": vectors["train"][rows]}
        model = fit(settings, left, data.validation, len(data.label_names), own)
        expected = model.probabilities(data.test.texts, vectors["test"])
        own = found[baselines.ALL_LAYERS].probabilities[run]
        np.testing.assert_allclose(own, expected, atol=1e-5)

"""What is said where a network has not learned what a linear model has."""

from __future__ import annotations

import numpy as np

from stabutils.analysis.baselines import behind_linear
from stabutils.study.runs import of_answers

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

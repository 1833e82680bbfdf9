"""Planted label noise: what is replaced, by what, and that the runs learn from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation, describe, identity
from stabutils.mitigations.data_centric import TGTSS, DropContested, nearest
from stabutils.mitigations.interventions import LabelNoise, Without, noisy_labels
from stabutils.mitigations.regularizers import LabelSmoothing, RDrop
from stabutils.training.changes import Change
from stabutils.training.loop import build_targets, train
from stabutils.training.probes import PROBES
from stabutils.training.state import Seeds

TASK = tiny.task()
SEEDS = Seeds(0, 1, 2)


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_so_many_labels_are_wrong_and_the_others_untouched(labels, share, seed):
    labels = np.array(labels)
    noisy = noisy_labels(labels, 4, share, seed)
    wrong = noisy != labels
    assert wrong.sum() == round(share * len(labels))
    assert ((0 <= noisy) & (noisy < 4)).all()
    assert np.array_equal(noisy, noisy_labels(labels, 4, share, seed))


def test_more_noise_is_the_same_noise_and_some():
    labels = np.arange(100) % 4
    little, much = (noisy_labels(labels, 4, share) for share in (0.1, 0.3))
    planted = little != labels
    assert np.array_equal(little[planted], much[planted]) and (much != labels).sum() == 30
    assert not np.array_equal(little, noisy_labels(labels, 4, 0.1, seed=1))


def test_uniform_noise_goes_to_all_other_labels_alike():
    labels = np.zeros(30_000, int)
    counts = np.bincount(noisy_labels(labels, 4, 1.0), minlength=4)
    assert counts[0] == 0 and np.abs(counts[1:] - 10_000).max() < 300


def test_confusable_noise_by_hand():
    labels = np.array([0, 0, 1, 2])
    near = np.array([[1, 2], [0, 3], [3, 0], [2, 1]])
    assert noisy_labels(labels, 3, 1.0, 0, near).tolist() == [1, 2, 2, 1]
    alike = np.array([[1], [0], [3], [2]])  # the first two have no neighbour of another label
    wrong = noisy_labels(labels, 3, 1.0, 0, alike)
    assert (wrong != labels).all() and wrong[2:].tolist() == [2, 1]


def test_both_kinds_replace_the_same_examples():
    kinds = [LabelNoise(0.3, kind) for kind in ("uniform", "confusable")]
    uniform, confusable = (
        noise.labels(TASK.train_labels, TASK.classes, TASK.train) for noise in kinds
    )
    assert np.array_equal(uniform != TASK.train_labels, confusable != TASK.train_labels)
    assert not np.array_equal(uniform, confusable)
    near = TASK.train_labels[nearest(TASK.train, 50).numpy()]
    for row in np.flatnonzero(confusable != TASK.train_labels):
        others = near[row][near[row] != TASK.train_labels[row]]
        assert confusable[row] == others[0]


def test_runs_are_trained_on_the_noisy_labels_and_judged_by_the_right_ones():
    noise = LabelNoise(0.5, seed=3)
    targets = build_targets(TASK, noise, SEEDS)
    labels = noise.labels(TASK.train_labels, TASK.classes, TASK.train)
    assert np.array_equal(targets.probabilities.argmax(1).numpy(), labels)
    assert torch.equal(targets.weights, torch.ones(60))
    control, noisy = (
        train(TASK, mitigation, SEEDS, keep=(PROBES["training"],))
        for mitigation in (Mitigation(), noise)
    )
    right = [(answers["labels"] == TASK.test_labels).mean() for answers in (control, noisy)]
    assert right[1] < right[0]
    learned = [
        (answers["kept.training"][-1].argmax(-1) == labels).mean() for answers in (control, noisy)
    ]
    assert learned[1] > learned[0]


def test_no_noise_is_control_and_the_seed_is_part_of_the_name():
    assert identity(LabelNoise(0.0)) == [] and describe(LabelNoise(0)) == "control"
    assert tiny.same(train(TASK, LabelNoise(0.0), SEEDS), train(TASK, Mitigation(), SEEDS))
    assert describe(LabelNoise(0.1)) == "LabelNoise(share=0.1, kind=uniform, seed=0)"
    assert identity(LabelNoise(0.1)) != identity(LabelNoise(0.1, seed=1))


def test_it_stands_first_and_beside_no_teachers():
    answers = train(TASK, Composed((LabelNoise(0.2), LabelSmoothing(0.1), RDrop())), SEEDS)
    assert np.isfinite(answers["probabilities"]).all()
    teachers = {"training": np.full((1, 6, 60, 4), 0.25, np.float16)}
    for parts in (
        (LabelSmoothing(0.1), LabelNoise(0.2)),
        (LabelNoise(0.2), TGTSS()),
        (TGTSS(), LabelNoise(0.2)),
        (DropContested(0.1), LabelNoise(0.2)),
    ):
        taught = any(isinstance(part, (TGTSS, DropContested)) for part in parts)
        with pytest.raises(InputError, match="LabelNoise after or beside another one"):
            build_targets(TASK, Composed(parts), Seeds(0, 0, 0), teachers if taught else None)


def test_it_is_the_same_in_all_runs_or_refused():
    task, seeds = replace(TASK, change=Change.parse("bootstrap")), Seeds(0, 1, 2, 3)
    with pytest.raises(InputError, match="change: got 'bootstrap'; expected one that keeps every"):
        build_targets(task, LabelNoise(0.1), seeds)
    task = replace(TASK, change=Change.parse("drop 10 %"))
    with pytest.raises(InputError, match="change: got 'drop 10 %'; expected one that keeps every"):
        build_targets(task, LabelNoise(0.1), seeds)
    task = replace(TASK, change=Change.parse("relabel 10 %"))
    with pytest.raises(InputError, match="LabelNoise after or beside another one"):
        build_targets(task, Composed((Without((0,)), LabelNoise(0.1))), seeds)


@pytest.mark.parametrize(
    "settings", [{"share": 1.5}, {"share": "0.1"}, {"kind": "adversarial"}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused_by_name(settings):
    with pytest.raises(InputError, match=f"LabelNoise {next(iter(settings))}"):
        LabelNoise(**settings)

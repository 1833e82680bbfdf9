"""What wrong training labels do: which runs are asked for, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny

from stabutils import metrics
from stabutils.analysis import anchors, wrong_labels
from stabutils.analysis.wrong_labels import memorised, noise_nearby
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation
from stabutils.mitigations.data_centric import TGTSS
from stabutils.mitigations.interventions import LabelNoise
from stabutils.mitigations.neighbours import ZerO
from stabutils.mitigations.regularizers import RDrop
from stabutils.study.runs import of_answers
from stabutils.study.study import Study
from stabutils.training.state import Seeds

DRAW = np.random.default_rng(0)
GOLD = np.zeros(40, int)


def runs(changing: int, count: int = 6):
    """Runs that answer the first queries at random, and the others right."""
    labels = np.zeros((count, 40), int)
    labels[:, :changing] = DRAW.integers(0, 2, (count, changing))
    return of_answers("some", labels, GOLD, np.arange(count))


@pytest.mark.parametrize("text", ["a few", "0, 5", "5, 100", "-1", "nan"])
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="noise: got"):
        wrong_labels.shares_of(text)


def test_control_is_trained_at_each_share_and_some_methods_at_the_largest():
    arms = wrong_labels.noisy_arms((0.02, 0.1), {"R-Drop": RDrop(2.0), "ZerO": ZerO()})
    assert arms == {
        (name, kind, share): arm
        for kind in ("uniform", "confusable")
        for name, share, arm in (
            ("control", 0.02, "control"),
            ("control", 0.1, "control"),
            ("R-Drop", 0.1, RDrop(2.0)),
        )
    }
    assert wrong_labels.noisy_arms((), {"R-Drop": RDrop()}) == {}


def test_who_has_teachers_is_trained_where_these_learn_from_wrong_labels_too(tmp_path, monkeypatch):
    study = Study(dataset=str(tiny.project(tmp_path, monkeypatch)), workers=1, epochs=2, runs=4)
    key = ("any", "confusable", 0.3)
    noise = LabelNoise(0.3, "confusable")
    assert wrong_labels.request(study, key, "control") == (study, (noise, Mitigation()))
    assert wrong_labels.request(study, key, RDrop()) == (study, (noise, RDrop()))
    own, arm = wrong_labels.request(study, key, TGTSS())
    assert arm == TGTSS() and own.data.test is study.data.test
    wrong = noise.labels(study.task.train_labels, 4, study.task.train)
    assert np.array_equal(own.data.train.labels, wrong)
    assert np.array_equal(own.task.train_labels, wrong)
    assert np.mean(wrong != study.data.train.labels) == pytest.approx(0.3, abs=0.02)
    teacher = own.dispatch.teachers(arm, [own.identify(arm, Seeds(0, 0, 0))])[0]
    assert teacher.identity["dataset"] == own.data.fingerprint != study.data.fingerprint
    noisy = wrong_labels.retrained(study, {("TGTSS", "confusable", 0.3): TGTSS()}, 3)
    same = own.retrain(TGTSS(), n=3).labels
    assert np.array_equal(noisy["TGTSS", "confusable", 0.3].labels, same)


def test_an_anchor_is_fitted_to_the_same_wrong_labels(tmp_path, monkeypatch):
    study = Study(dataset=str(tiny.project(tmp_path, monkeypatch)), workers=1, epochs=2, runs=4)
    arms = wrong_labels.noisy_arms((0.1, 0.4), {"R-Drop": RDrop()})
    noisy = wrong_labels.retrained(study, arms, 3)
    found = wrong_labels.anchored(study, noisy)
    assert set(found) == {(wrong_labels.ANCHORED, kind, 0.4) for kind in wrong_labels.KINDS}
    taught_right = anchors.anchor_of(study)
    for kind in wrong_labels.KINDS:
        own, control = found[wrong_labels.ANCHORED, kind, 0.4], noisy["control", kind, 0.4]
        taught_wrong = anchors.anchor_of(wrong_labels.mislabelled(study, kind, 0.4))
        assert np.abs(taught_wrong - taught_right).max() > 0.1
        expected = np.sqrt(control.probabilities * taught_wrong)
        expected /= expected.sum(-1, keepdims=True)
        assert own.probabilities == pytest.approx(expected, abs=1e-5)


def test_right_labels_stand_beside_each_kind_of_wrong_ones():
    clean, noisy = runs(4), {kind: runs(10) for kind in wrong_labels.KINDS}
    table = wrong_labels.table(
        {"control": clean}, {("control", kind, 0.1): own for kind, own in noisy.items()}
    )
    assert table.arm.tolist() == ["control, uniform", "control, confusable"] * 2
    assert table.noise.tolist() == [0, 0, 0.1, 0.1]
    uniform = wrong_labels.of_kind(table, "uniform")
    assert uniform.arm.tolist() == ["control"] * 2 and uniform.noise.tolist() == [0, 0.1]
    assert list(uniform.churn) == list(table.churn[table.arm == "control, uniform"])
    expected = [clean, clean, *noisy.values()]
    found = [interval.value for interval in table.churn]
    assert found == pytest.approx([metrics.churn(own.labels) for own in expected])


def test_queries_that_flip_near_wrong_labels_are_told_from_those_that_flip_elsewhere():
    near = np.where(np.arange(40) < 10, 0.2, 0.0)
    elsewhere = replace(runs(0), labels=runs(10).labels[:, ::-1])
    noisy = {("control", "uniform", 0.1): runs(10), ("control", "confusable", 0.1): elsewhere}
    noisy["control", "uniform", 0.05] = elsewhere
    found = wrong_labels.correlations(noisy, near)
    assert found["uniform"].low > 0 > found["confusable"].value


def test_both_kinds_of_noise_and_what_is_learned_of_it_by_a_study(tmp_path, monkeypatch):
    """Fails if memorised labels are held against others than the runs were trained on."""
    study = Study(dataset=str(tiny.project(tmp_path, monkeypatch)), workers=1, epochs=30, runs=4)
    arms = wrong_labels.noisy_arms((0.1, 0.3), {})
    noisy = wrong_labels.retrained(study, arms, 4)
    asked = [(request.keep, request.part) for request in study.requests]
    assert asked.count((("training",), "unpublished epochs 30")) == 2
    assert asked.count(((), "epochs 30")) == 4  # every arm can be published
    learned = wrong_labels.by_heart(study, noisy)
    assert learned.noise.tolist() == [0.3, 0.3]
    for row, kind in zip(learned.itertuples(), wrong_labels.KINDS, strict=True):
        answers = noisy["control", kind, 0.3].extras["training"][:, -1].argmax(-1)
        labels = LabelNoise(0.3, kind).labels(study.task.train_labels, 4, study.task.train)
        planted = labels != study.data.train.labels
        share = np.mean((answers == labels)[:, planted])
        assert row.memorised.value == pytest.approx(share)
    right = {"control": study.retrain("control")}
    near = wrong_labels.nearby(study, 0.3)
    found = wrong_labels.correlations(noisy, near)
    numbers = wrong_labels.numbers(wrong_labels.table(right, noisy), learned, found)
    keys = {number.key: number.value for number in numbers}
    assert len(keys) == 3 * 6 + 2 * 2 + 2
    assert keys["memorised, control, uniform; 30 % wrong labels"] == learned.memorised[0].value
    assert keys["correlation, control; near uniform noise"] == found["uniform"].value


def test_memorised_by_hand_for_each_run_and_checkpoint():
    labels, noisy = np.array([0, 0, 1]), np.array([1, 0, 0])
    right = np.eye(2)[[[[1, 0, 0], [0, 0, 0]]]]  # one run, two checkpoints
    assert memorised(right, labels, noisy).tolist() == [[1.0, 0.5]]
    with pytest.raises(InputError, match="noisy labels"):
        memorised(right, labels, labels)


def test_noise_nearby_is_a_share_of_the_nearest_texts():
    train = ["play some jazz", "play some rock", "wake me at seven", "wake me at eight"]
    noisy = np.array([True, False, True, True])
    texts = ["play some blues", "wake me at nine"]
    assert noise_nearby(train, noisy, texts, neighbours=2).tolist() == [0.5, 1.0]

"""Changes of the training data: by hand on small targets, and end to end in a study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation
from stabutils.mitigations.data_centric import TGTSS
from stabutils.study.study import Study
from stabutils.training.changes import Change, confusable_labels
from stabutils.training.loop import build_targets
from stabutils.training.state import Seeds, one_hot
from stabutils.training.task import Tokens

TASK = tiny.task()
PLAIN = one_hot(TASK.train_labels, TASK.classes)


def changed(text: str, seed: int = 0):
    return Change.parse(text).apply(PLAIN, TASK.train, seed)


@pytest.mark.parametrize(
    "text", ["drop", "drop 0 %", "drop 100 %", "relabel -1 %", "drop ten %", "x"]
)
def test_a_change_that_does_not_exist_is_refused(text):
    with pytest.raises(InputError, match='^change: got .*expected "drop 10 %"'):
        Change.parse(text)


def test_dropping_leaves_out_the_share_and_no_other_example():
    kept = changed("drop 10 %")
    assert len(kept.indices) == 54 == len(set(kept.indices.tolist()))
    assert torch.equal(kept.probabilities, PLAIN.probabilities[kept.indices])
    assert torch.equal(kept.indices, kept.indices.sort().values)


def test_a_bootstrap_draws_as_many_with_replacement():
    drawn = changed("bootstrap")
    assert len(drawn.indices) == 60 and 30 < len(set(drawn.indices.tolist())) < 50
    assert torch.equal(drawn.probabilities, PLAIN.probabilities[drawn.indices])


def test_relabelling_changes_the_share_and_only_labels():
    relabelled = changed("relabel 10 %")
    assert torch.equal(relabelled.indices, PLAIN.indices)
    differs = (relabelled.probabilities != PLAIN.probabilities).any(1)
    assert differs.sum() == 6
    assert torch.equal(relabelled.probabilities.sum(1), torch.ones(60))
    candidates = confusable_labels(TASK.train, TASK.train_labels, TASK.classes)
    for row in differs.nonzero()[:, 0].tolist():
        assert relabelled.probabilities[row].argmax().item() in candidates[row]


def test_the_label_that_is_most_easily_confused_comes_first():
    texts = Tokens.pack([[0, 1], [0, 1], [1, 2], [1, 2], [3, 4], [3, 4]])
    found = confusable_labels(texts, np.array([0, 0, 1, 1, 2, 2]), 3)
    assert found[:4, 0].tolist() == [1, 1, 0, 0] and found.shape == (6, 2)
    assert not (found == np.array([[0, 0, 1, 1, 2, 2]]).T).any()


@pytest.mark.parametrize("text", ["drop 10 %", "bootstrap", "relabel 10 %"])
def test_the_data_seed_alone_decides(text):
    one, again, other = (changed(text, seed) for seed in (0, 0, 1))
    assert torch.equal(one.indices, again.indices)
    assert torch.equal(one.probabilities, again.probabilities)
    same = torch.equal(one.indices, other.indices)
    assert not (same and torch.equal(one.probabilities, other.probabilities))


def test_a_data_seed_goes_with_a_change_and_never_without():
    with pytest.raises(InputError, match="data seed: got 0"):
        build_targets(TASK, Mitigation(), Seeds(0, 0, 0, 0))
    with pytest.raises(InputError, match="data seed: got None"):
        build_targets(replace(TASK, change=Change("bootstrap")), Mitigation(), Seeds(0, 0, 0))
    with pytest.raises(InputError, match="data seed: got -1"):
        Seeds(0, 0, 0, -1)


def test_runs_without_a_change_keep_their_identity():
    assert Seeds(1, 2, 3).identity() == {"init": 1, "order": 2, "dropout": 3}
    assert Seeds(1, 2, 3, 0).identity() == {"init": 1, "order": 2, "dropout": 3, "data": 0}


@pytest.fixture
def study(tmp_path, monkeypatch):
    corpus = tiny.project(tmp_path, monkeypatch)
    return Study(dataset=str(corpus), runs=3, epochs=3, batch_size=16, workers=1)


def test_a_study_of_changing_data(study):
    plain = study.retrain()
    changing = replace(study, change="drop 10 %")
    both = changing.retrain()
    assert not set(plain.names) & set(both.names)
    same_data = changing.retrain(seeds=[Seeds(seed, seed, seed, 0) for seed in range(3)])
    same_seed = changing.retrain(seeds=[Seeds(0, 0, 0, data) for data in range(3)])
    assert same_data.names[0] == same_seed.names[0] == both.names[0]
    for runs in (both, same_data, same_seed):
        assert metrics.churn(runs.labels) > 0
    assert changing.requests[0].as_json()["change"] == {"kind": "drop", "share": 0.1}
    assert changing.plan()["to train"] == 0 and study.plan()["to train"] == 0


def test_a_teacher_sees_the_data_of_its_student(study):
    changing = replace(study, change="drop 10 %")
    seeds = Seeds(1, 1, 1, 1)
    (teacher,) = TGTSS().teacher_seeds(seeds)
    assert teacher.data == 1 and teacher.init != 1
    assert changing.retrain(TGTSS(), n=2).labels.shape == (2, 20)


def test_an_unknown_change_is_refused_by_the_study(study):
    with pytest.raises(InputError, match="^change: got 'lose'"):
        replace(study, change="lose").retrain()


def test_a_change_of_all_training_texts_is_refused_before_any_compute(study, monkeypatch):
    monkeypatch.setattr("stabutils.training.preparation.prepare", None)
    with pytest.raises(InputError, match="^change: got 'relabel 99.9 % of .* training texts'"):
        replace(study, change="relabel 99.9 %").retrain()


def test_a_change_leaves_a_training_text():
    task = replace(tiny.task(), change=Change("drop", 0.999))
    with pytest.raises(InputError, match="change: got 'drop 99.9 % of .* training texts'"):
        build_targets(task, Mitigation(), Seeds(0, 0, 0, 0))

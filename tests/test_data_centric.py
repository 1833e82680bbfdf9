from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import tiny
import torch

from stabutils.errors import Incomplete, InputError
from stabutils.mitigations import Composed, Mitigation, describe, identity, price
from stabutils.mitigations.data_centric import (
    CATALOGUE,
    QUICK,
    TEACHERS,
    TGTSS,
    DropContested,
    GatedSmoothing,
    KNNSmoothing,
    LogitInhibition,
    MatchedSmoothing,
    Relabel,
    StabilityWeights,
    TemporalEnsembling,
    churn_distillation,
    ensemble_distillation,
    mean_entropy,
    most_unstable,
    nearest,
    self_distillation,
    single_run_entropy,
)
from stabutils.mitigations.neighbours import ContrastiveAdversarial, NoiseConsistency
from stabutils.mitigations.regularizers import CoDistillation, LabelSmoothing, LongerTraining, RDrop
from stabutils.study import paths
from stabutils.study.study import Study
from stabutils.study.verify import verify
from stabutils.training import loop, preparation
from stabutils.training.loop import build_targets, task_loss, train
from stabutils.training.probes import PROBES
from stabutils.training.stacked import Stack
from stabutils.training.state import Batch, Seeds, one_hot
from stabutils.training.task import Tokens

LONG = tiny.task()
CONTROL = Mitigation()
SEEDS = Seeds(3, 3, 3)
HALF = np.log(2)


def targets(teachers, labels=(0, 1), **changes):
    """What is asked for with teachers (teachers, checkpoints, examples, classes)."""
    teachers = torch.tensor(teachers, dtype=torch.float16)
    plain = one_hot(np.array(labels), teachers.shape[-1])
    return replace(plain, teachers=teachers, **changes)


# One teacher, two checkpoints, two examples, of which it changes its mind about the second one.
ONE = [[[[0.8, 0.2], [0.6, 0.4]], [[0.6, 0.4], [0.2, 0.8]]]]


# ---- targets by hand


def test_single_run_entropy_by_hand():
    twice = torch.tensor(
        ONE + [[[[0.1, 0.9], [0.1, 0.9]]] * 2]
    )  # a second teacher never changes its mind
    assert single_run_entropy(torch.tensor(ONE)).tolist() == pytest.approx([0, HALF])
    assert single_run_entropy(twice).tolist() == pytest.approx([0, HALF / 2])
    assert single_run_entropy(torch.tensor(ONE)[:, :1]).tolist() == [0, 0]


def test_the_most_unstable_are_a_share_and_ties_go_by_order():
    assert most_unstable(torch.tensor(ONE), 0.5).tolist() == [False, True]
    even = torch.tensor(ONE)[:, :, [0, 0, 0, 1]]
    assert most_unstable(even, 0.5).tolist() == [True, False, False, True]
    assert most_unstable(even, 0).sum() == 0 and most_unstable(even, 1).all()


@pytest.mark.parametrize(
    "mitigation, by_hand",
    [
        (TGTSS(), [[0.85, 0.15], [0.2, 0.8]]),  # means 0.7, 0.3 and 0.4, 0.6
        (TGTSS(mixing=1.0), [[0.7, 0.3], [0.4, 0.6]]),
        (TGTSS(mixing=1.0, checkpoints="last"), [[0.6, 0.4], [0.2, 0.8]]),
        (TGTSS(mixing=1.0, checkpoints="late"), [[0.6, 0.4], [0.2, 0.8]]),
        (TGTSS(0.5, 1.0), [[49 / 58, 9 / 58], [4 / 13, 9 / 13]]),
        (
            TGTSS(0.5, 1.0, scaling="before"),
            [
                [(16 / 17 + 9 / 13) / 2, (1 / 17 + 4 / 13) / 2],
                [(9 / 13 + 1 / 17) / 2, (4 / 13 + 16 / 17) / 2],
            ],
        ),
        (TGTSS(unstable=0.5), [[1, 0], [0.2, 0.8]]),
        (MatchedSmoothing(mixing=0.0), [[1, 0], [0, 1]]),
    ],
)
def test_tgtss_by_hand(mitigation, by_hand):
    made = mitigation.data(targets(ONE))
    assert made.probabilities.numpy() == pytest.approx(
        np.array(by_hand), abs=1e-3
    )  # answers are kept as float16
    assert made.weights.tolist() == [1, 1] and made.indices.tolist() == [0, 1]


def test_teachers_are_those_of_the_examples_asked_for():
    again = replace(targets(ONE, labels=(1, 0, 1)), indices=torch.tensor([1, 0, 1]))
    by_hand = [[0.4, 0.6], [0.7, 0.3], [0.4, 0.6]]
    assert TGTSS(mixing=1.0).data(again).probabilities.numpy() == pytest.approx(
        np.array(by_hand), abs=1e-3
    )
    assert DropContested(1 / 3).data(again).indices.tolist() == [0, 1]


def test_special_cases_are_tgtss_of_some_settings():
    assert self_distillation() == TGTSS(checkpoints="last", temperature=1.0)
    assert ensemble_distillation(3) == TGTSS(checkpoints="last", teachers=3)
    assert churn_distillation(0.7) == TGTSS(checkpoints="last", mixing=0.7, shared=True)
    assert len({churn_distillation().teacher_seeds(Seeds(s, s, s)) for s in range(5)}) == 1
    alone = self_distillation().data(targets(ONE)).probabilities
    assert torch.allclose(alone, ensemble_distillation(2).data(targets(ONE * 2)).probabilities)
    assert torch.allclose(alone, TGTSS(checkpoints="late").data(targets(ONE)).probabilities)
    other = [[[[0.5, 0.5], [0.5, 0.5]]] * 2]
    mean = ensemble_distillation(2, mixing=1.0).data(targets(ONE + other)).probabilities
    assert mean.numpy() == pytest.approx(np.array([[0.55, 0.45], [0.35, 0.65]]), abs=1e-3)


@pytest.mark.parametrize("settings", [{}, {"mixing": 0.9, "temperature": 3.0}, {"unstable": 0.5}])
def test_matched_smoothing_has_the_same_mean_entropy_and_knows_nothing_else(settings):
    wanted = TGTSS(**settings).data(targets(ONE)).probabilities
    matched = MatchedSmoothing(**settings).data(targets(ONE)).probabilities
    assert mean_entropy(matched) == pytest.approx(mean_entropy(wanted), abs=1e-5)
    assert torch.equal(matched[0], matched[1].flip(0)) and not torch.allclose(
        matched, wanted, atol=0.01
    )


def test_weights_by_hand():
    made = StabilityWeights(slope=0.5, shift=-1.0).data(targets(ONE))
    stable, unstable = (1 + np.tanh(-1.5)) / 2, (1 + np.tanh(-0.5)) / 2
    assert made.weights.tolist() == pytest.approx(
        np.array([stable, unstable]) * 2 / (stable + unstable)
    )
    less = StabilityWeights(slope=-1.0).data(targets(ONE)).weights
    assert less[0] > 1 > less[1] and less.mean() == pytest.approx(1)
    gone = targets(np.array(ONE)[:, :1])  # of one checkpoint nothing can be told
    assert StabilityWeights().data(gone).weights.tolist() == [1, 1]


def test_contested_examples_are_dropped_or_relabelled():
    weighted = targets(ONE, weights=torch.tensor([0.5, 1.5]))
    dropped = DropContested(0.5).data(weighted)
    assert dropped.indices.tolist() == [0] and dropped.weights.tolist() == [1]
    assert dropped.probabilities.tolist() == [[1, 0]]
    teachers = np.array(ONE).repeat(2, 1)[
        :, 1:
    ]  # three checkpoints: 0, 1, 1 for the second example
    relabelled = Relabel(0.5).data(targets(teachers, labels=(1, 0)))
    assert relabelled.probabilities.tolist() == [
        [0, 1],
        [0, 1],
    ]  # the first stays, though teachers say otherwise
    assert Relabel(0.5).data(targets(ONE)).probabilities.tolist() == [
        [1, 0],
        [0, 1],
    ]  # a tie: the higher mean is 1


def test_neighbours_by_hand():
    texts = Tokens.pack([[1, 2, 3], [1, 2, 4], [5, 6], [5, 6, 6], [1, 5]])
    near = nearest(texts, 1)[:, 0].tolist()
    assert near[:4] == [1, 0, 3, 2]
    asked_for = replace(one_hot(np.array([0, 1, 2, 2, 0]), 3), texts=texts)
    made = KNNSmoothing(0.4, neighbours=1).data(asked_for).probabilities
    assert made[:4].numpy() == pytest.approx(
        np.array([[0.6, 0.4, 0], [0.4, 0.6, 0], [0, 0, 1], [0, 0, 1]])
    )
    spread = KNNSmoothing(0.4, neighbours=1, even=0.75).data(asked_for).probabilities
    assert spread[0].numpy() == pytest.approx(np.array([0.7, 0.2, 0.1]))
    assert nearest(texts, 99).shape == (5, 4)


def test_the_words_are_those_of_the_texts_asked_for():
    rows = torch.tensor([7, 2, 2, 30])
    some = replace(one_hot(LONG.train_labels, 4), texts=LONG.train)
    few = replace(
        some, indices=rows, probabilities=some.probabilities[rows], weights=some.weights[rows]
    )
    near = KNNSmoothing(1.0, neighbours=1).data(few).probabilities
    assert torch.equal(near[1], few.probabilities[2]) and torch.equal(
        near[2], few.probabilities[1]
    )  # the same text


# ---- online


def batch_of(rows, memory, labels=((1.0, 0.0), (0.0, 1.0))):
    return Batch(None, torch.tensor(labels), torch.tensor([0.5, 1.5]), torch.tensor(rows), memory)


def pulled(mitigation, memory, logits):
    batch = batch_of([2, 0], memory)
    return mitigation.loss(lambda: logits, batch, lambda logits: task_loss(logits, batch)).item()


LOGITS = torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log()


def test_temporal_ensembling_by_hand():
    memory, made = {"answered": torch.zeros(3, 2)}, TemporalEnsembling(0.25, decay=0.6)
    by_label = -(0.5 * np.log(0.9) + 1.5 * np.log(0.7)) / 2
    assert pulled(made, memory, LOGITS) == pytest.approx(by_label)  # nothing is past yet
    assert memory["answered"].numpy() == pytest.approx(np.array([[0.3, 0.7], [0, 0], [0.9, 0.1]]))

    place = type("Place", (), {"memory": memory, "epoch": 0})
    made.epoch(place)
    assert memory["past"].numpy() == pytest.approx(memory["answered"].numpy())
    memory["past"] = torch.tensor([[0.4, 0.6], [0.5, 0.5], [0.8, 0.2]])
    by_past = (
        -(
            0.5 * (0.8 * np.log(0.9) + 0.2 * np.log(0.1))
            + 1.5 * (0.4 * np.log(0.3) + 0.6 * np.log(0.7))
        )
        / 2
    )
    assert pulled(made, memory, LOGITS) == pytest.approx(0.75 * by_label + 0.25 * by_past)

    place.epoch, memory["answered"] = (
        1,
        torch.full((3, 2), 0.5),
    )  # Z = 0.6 * 0.4 * past + 0.4 * new, over 1 - 0.6^2
    made.epoch(place)
    assert memory["past"][2].tolist() == pytest.approx(
        [(0.24 * 0.8 + 0.4 * 0.5) / 0.64, (0.24 * 0.2 + 0.2) / 0.64]
    )


def test_gated_smoothing_by_hand():
    memory, made = {"answered": torch.zeros(3, 2)}, GatedSmoothing(0.4)
    by_label = pulled(made, memory, LOGITS)
    place = type("Place", (), {"memory": memory, "epoch": 0})
    made.epoch(place)
    assert memory["votes"].tolist() == [[0, 1], [1, 0], [1, 0]]
    assert pulled(made, memory, LOGITS) == pytest.approx(by_label)  # one vote is no doubt
    memory["votes"] = torch.tensor([[1.0, 1.0], [2.0, 0.0], [2.0, 0.0]])
    smooth = (
        -1.5 * 0.4 * (0.5 * np.log(0.3) + 0.5 * np.log(0.7) - np.log(0.7)) / 2
    )  # of the second text alone
    assert pulled(made, memory, LOGITS) == pytest.approx(by_label + smooth)


def test_what_is_remembered_is_what_the_passes_answered():
    passes, epochs = {}, []

    class Watched(TemporalEnsembling):
        def loss(self, forward, batch, inner):
            logits = forward()
            passes.update(zip(batch.indices.tolist(), logits.detach().softmax(-1), strict=True))
            return super().loss(lambda: logits, batch, inner)

        def epoch(self, training):
            assert torch.allclose(
                training.memory["answered"], torch.stack([passes[row] for row in range(60)])
            )
            super().epoch(training)
            epochs.append(training.memory["past"].clone())

    train(LONG, Watched(), SEEDS)
    assert len(epochs) == 3 and not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("other", [RDrop(), CoDistillation()])
@pytest.mark.parametrize("kind", [TemporalEnsembling, GatedSmoothing])
def test_online_ones_compose_with_several_passes_and_networks(kind, other):
    for parts in ((kind(), other), (other, kind())):
        assert np.isfinite(train(LONG, Composed(parts), SEEDS)["probabilities"]).all()


# ---- trained


def taught(mitigation, task=LONG, seeds=SEEDS):
    """What the teachers of a run say."""
    every = [
        long(each) if task is LONG else teacher(task, each)
        for each in mitigation.teacher_seeds(seeds)
    ]
    return {"training": np.stack(every)} if every else None


def teacher(task, seeds):
    return train(task, CONTROL, seeds, None, [PROBES["training"]])["kept.training"]


long = cache(partial(teacher, LONG))


class Final(Mitigation):
    def step(self, training):
        self.__dict__["model"] = training.model


def trained(mitigation):
    """Final weights and answers."""
    last = Final()
    answers = train(LONG, Composed((mitigation, last)), SEEDS, None, (), taught(mitigation))
    return last.__dict__["model"].state_dict(), answers


@pytest.fixture(scope="module")
def control():
    return trained(CONTROL)


@pytest.mark.parametrize(
    "nothing",
    [
        TGTSS(mixing=0),
        TGTSS(unstable=0),
        MatchedSmoothing(mixing=0),
        KNNSmoothing(0),
        TemporalEnsembling(0.0),
        GatedSmoothing(0.0),
        StabilityWeights(0),
        DropContested(0),
        Relabel(0),
    ],
    ids=repr,
)
def test_a_dose_of_nothing_is_control_bit_for_bit(nothing, control):
    weights, answers = trained(nothing)
    assert tiny.same(control[1], answers) and all(
        torch.equal(weights[name], control[0][name]) for name in weights
    )
    assert identity(nothing) == [] and describe(nothing) == "control"
    assert nothing.teacher_seeds(SEEDS) == () == nothing.teacher_seeds(Seeds(0, 1, 2))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_default_changes_the_weights(name, control):
    weights, answers = trained(CATALOGUE[name])
    assert not torch.equal(weights["table.weight"], control[0]["table.weight"])
    assert np.allclose(answers["probabilities"].sum(1), 1)


def test_the_catalogue_has_an_arm_for_every_name():
    assert (
        len({describe(each) for each in CATALOGUE.values()}) == len(CATALOGUE)
        and set(QUICK) <= CATALOGUE.keys()
    )
    assert not [name for name in CATALOGUE if "," in name]  # `methods` lists names with commas


def test_names_are_short_and_say_shared():
    assert (
        describe(TGTSS()) == "TGTSS"
        and describe(TGTSS(mixing=0.3, shared=True)) == "TGTSS(shared=True, mixing=0.3)"
    )
    assert identity(TGTSS())[0]["settings"].keys() == {
        "teachers",
        "shared",
        "temperature",
        "mixing",
        "checkpoints",
        "scaling",
        "unstable",
    }


class Kill(Mitigation):
    def epoch(self, training):
        if training.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mitigation", [TGTSS(), TemporalEnsembling(), GatedSmoothing()])
def test_a_killed_one_goes_on_with_the_same_bits(mitigation, tmp_path):
    unfinished, teachers = tmp_path / "run.safetensors", taught(mitigation)
    with pytest.raises(KeyboardInterrupt):
        train(LONG, Composed((mitigation, Kill())), SEEDS, unfinished, (), teachers, save_every=0)
    assert unfinished.exists()
    steps = []

    class Count(Mitigation):
        def step(self, training):
            steps.append(training.step)

    continued = train(
        LONG, Composed((mitigation, Count())), SEEDS, unfinished, (), teachers, save_every=1e9
    )
    assert steps[0] == 9 and tiny.same(
        train(LONG, mitigation, SEEDS, None, (), teachers), continued
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: TGTSS(temperature=0), "TGTSS temperature: got 0; expected a number above 0"),
        (lambda: TGTSS(temperature="calibrated"), "TGTSS temperature"),
        (lambda: TGTSS(mixing=1.1), "TGTSS mixing"),
        (lambda: TGTSS(mixing=float("nan")), "TGTSS mixing"),
        (lambda: TGTSS(checkpoints="first"), "TGTSS checkpoints"),
        (lambda: TGTSS(scaling=None), "TGTSS scaling"),
        (lambda: TGTSS(unstable=-0.1), "TGTSS unstable"),
        (lambda: TGTSS(teachers=0), "TGTSS teachers"),
        (lambda: TGTSS(teachers=101), "TGTSS teachers"),
        (lambda: TGTSS(teachers=True), "TGTSS teachers"),
        (lambda: TGTSS(shared=1), "TGTSS shared"),
        (lambda: MatchedSmoothing(mixing=2), "MatchedSmoothing mixing"),
        (
            lambda: KNNSmoothing(2),
            "KNNSmoothing strength: got 2; expected a number from 0 to 1",
        ),
        (lambda: KNNSmoothing(neighbours=0), "KNNSmoothing neighbours"),
        (lambda: KNNSmoothing(even=2), "KNNSmoothing even"),
        (lambda: TemporalEnsembling(1.5), "TemporalEnsembling strength"),
        (lambda: TemporalEnsembling(decay=1), "TemporalEnsembling decay"),
        (lambda: GatedSmoothing(-1), "GatedSmoothing"),
        (lambda: StabilityWeights(slope=float("inf")), "StabilityWeights slope"),
        (lambda: DropContested(1), "DropContested share"),
        (lambda: Relabel("much"), "Relabel share"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(wrong, message):
    with pytest.raises(InputError, match=f"^{message}"):
        wrong()


# ---- teachers


def test_own_teachers_are_nobody_elses():
    every = [
        each.init for s in range(50) for each in TGTSS(teachers=100).teacher_seeds(Seeds(s, s, s))
    ]
    assert len(set(every)) == 50 * 100 and min(every) == TEACHERS > 50
    assert ensemble_distillation(2).teacher_seeds(SEEDS) == (
        Seeds(*[TEACHERS + 300] * 3),
        Seeds(*[TEACHERS + 301] * 3),
    )
    assert (
        TGTSS().teacher_seeds(SEEDS)
        == MatchedSmoothing().teacher_seeds(SEEDS)
        == (Seeds(*[TEACHERS + 300] * 3),)
    )
    for wrong in (Seeds(0, 1, 0), Seeds(*[TEACHERS] * 3)):
        with pytest.raises(
            InputError, match="seeds: got Seeds.*; expected three equal ones below 100000"
        ):
            TGTSS().teacher_seeds(wrong)


def test_shared_teachers_are_everybodys_and_run_0s_own():
    shared = {
        TGTSS(shared=True).teacher_seeds(Seeds(*s)) for s in ((0, 0, 0), (7, 7, 7), (1, 2, 3))
    }
    assert shared == {TGTSS().teacher_seeds(Seeds(0, 0, 0))}


def test_costs():
    prices = [
        each.cost
        for each in (
            TGTSS(),
            ensemble_distillation(5),
            TGTSS(shared=True),
            KNNSmoothing(),
            TemporalEnsembling(),
            Composed((TGTSS(), LabelSmoothing())),
        )
    ]
    assert prices == [(2, 1), (6, 1), (2, 1), (1, 1), (1, 1), (2, 1)]
    assert price(TGTSS(mixing=0), LONG.recipe) == (1, 1)
    assert price((LongerTraining(3.0), TGTSS()), LONG.recipe) == (4, 1)  # its teacher is not


def test_it_composes_in_order_and_only_one_has_teachers():
    both = Composed((LabelSmoothing(0.2), TGTSS()))
    assert both.teacher_seeds(SEEDS) == TGTSS().teacher_seeds(SEEDS)
    after = both.data(targets(ONE)).probabilities
    assert after.numpy() == pytest.approx(np.array([[0.8, 0.2], [0.25, 0.75]]), abs=1e-3)
    with pytest.raises(
        InputError,
        match=r"mitigation: got 'TGTSS \+ Relabel'; expected at most one that has teachers",
    ):
        Composed((TGTSS(), LabelSmoothing(), Relabel()))


@pytest.mark.parametrize(
    "mitigation, given",
    [
        (TGTSS(), None),
        (TGTSS(), {"training": np.zeros((2, 2, 60, 4))}),
        (TGTSS(), {"training": np.zeros((1, 2, 59, 4))}),
        (TGTSS(), {"weights": np.zeros((1, 9))}),
        (CONTROL, {"training": np.zeros((1, 2, 60, 4))}),
    ],
)
def test_without_the_right_teachers_nothing_is_trained(mitigation, given):
    with pytest.raises(
        InputError, match=r"teachers of \w+: got .*; expected (training|nothing) of "
    ):
        train(LONG, mitigation, SEEDS, None, (), given)
    with pytest.raises(InputError, match="teachers of TGTSS"):
        Stack(LONG, TGTSS(), [SEEDS], "cpu")


def test_what_is_asked_for_has_the_texts_of_the_split():
    assert build_targets(LONG, CONTROL, SEEDS).texts is LONG.train
    assert len(Stack(LONG, KNNSmoothing(), [SEEDS], "cpu").targets.indices) == 60


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A tiny study with a store of its own, and the seeds of the trainings that take place."""
    seen, real = [], loop.train

    def counted(task, mitigation, seeds, *rest):
        seen.append(seeds.init)
        return real(task, mitigation, seeds, *rest)

    monkeypatch.setattr(loop, "train", counted)
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    small = Study(
        dataset=str(tiny.write_csv(tmp_path / "tiny.csv")),
        runs=2,
        epochs=2,
        batch_size=16,
        workers=1,
        published=False,
    )
    return small, seen


def test_a_study_trains_the_teachers_first_and_each_once(made):
    small, seen = made
    assert (
        small.plan(TGTSS())["to train"] == 4
        and small.plan(ensemble_distillation(2, shared=True))["to train"] == 4
    )
    runs = small.retrain(TGTSS())
    assert seen == [TEACHERS, TEACHERS + 100, 0, 1]
    assert small.plan(TGTSS())["to train"] == 0
    again = small.retrain(TGTSS())
    assert len(seen) == 4 and np.array_equal(runs.probabilities, again.probabilities)
    small.retrain(TGTSS(mixing=0.3), n=1)
    assert seen[4:] == [0]  # its teacher is the stored one
    assert small.plan(ensemble_distillation(2, shared=True))["to train"] == 3
    small.retrain(ensemble_distillation(2, shared=True))
    assert seen[5:] == [TEACHERS + 1, 0, 1]
    teachers = small.retrain(
        "control", seeds=[Seeds(*[TEACHERS + m] * 3) for m in (0, 1)], keep=("training",)
    )
    assert len(seen) == 8 and teachers.extras["training"].shape == (2, 4, 60, 4)


def test_a_run_learns_from_its_own_teachers(made):
    small, _ = made
    runs, shared = (small.retrain(ensemble_distillation(2, shared=each)) for each in (False, True))
    for place, s in enumerate((0, 1)):
        mitigation, seeds = ensemble_distillation(2), Seeds(s, s, s)
        by_hand = train(
            small.task, mitigation, seeds, None, (), taught(mitigation, small.task, seeds)
        )
        assert np.array_equal(runs.probabilities[place], by_hand["probabilities"])
    assert np.array_equal(
        shared.probabilities[0], runs.probabilities[0]
    )  # shared ones are run 0's own
    assert not np.array_equal(shared.probabilities[1], runs.probabilities[1])


def test_seeds_without_own_teachers_are_refused_before_training(made):
    small, seen = made
    with pytest.raises(InputError, match="seeds: got Seeds.*three equal ones"):
        small.retrain(TGTSS(), seeds=[Seeds(0, 0, 0), Seeds(0, 1, 0)])
    assert seen == []


def test_a_removed_teacher_is_trained_again_and_its_student_stays(made):
    small, seen = made
    small.retrain(TGTSS(), n=1)
    (teacher,) = small.dispatch.teachers(TGTSS(), [small.identify(TGTSS(), Seeds(0, 0, 0))])
    small.answers.store.path(teacher.name).unlink()
    small.retrain(TGTSS(), n=1)
    assert seen == [TEACHERS, 0]
    with pytest.raises(Incomplete, match="a teacher was removed"):
        small.dispatch._teachers_of(TGTSS(), small.identify(TGTSS(), Seeds(0, 0, 0)))
    small.retrain(TGTSS(mixing=0.2), n=1)
    assert seen[2:] == [TEACHERS, 0]


def test_what_was_taught_comes_out_again_bit_for_bit(made):
    small, seen = made
    small.retrain((LabelSmoothing(0.1), TGTSS(teachers=2)), n=1)
    outcomes = [each.outcome for each in verify(small.answers.store, 9, 0, [small.dataset])]
    assert (
        outcomes == ["bits"] * 3 and sorted(seen[3:]) == [0] + [TEACHERS] * 2 + [TEACHERS + 1] * 2
    )


@pytest.mark.parametrize("outer", [CoDistillation(), ContrastiveAdversarial()], ids=describe)
def test_of_two_answers_to_a_text_the_run_remembers_its_own(outer):
    """That of the kept twin, and that to the text as it is."""
    pair = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]])
    memory = {"answered": torch.zeros(1, 2)}
    batch = Batch(None, torch.tensor([[1.0, 0.0]]), torch.ones(1), torch.tensor([0]), memory)
    both = Composed((outer, TemporalEnsembling()))
    both.loss(lambda: pair, batch, lambda logits: task_loss(logits, batch))
    assert torch.equal(memory["answered"], pair[0].softmax(-1))


@pytest.mark.parametrize("online", [TemporalEnsembling(), GatedSmoothing()], ids=describe)
def test_it_does_not_pull_perturbed_answers_that_no_label_holds(online):
    with pytest.raises(InputError, match=f"{type(online).__name__} before NoiseConsistency"):
        train(LONG, Composed((online, NoiseConsistency())), SEEDS)
    answers = train(LONG, Composed((NoiseConsistency(), online)), SEEDS)
    assert np.isfinite(answers["probabilities"]).all()
    neutral = train(LONG, Composed((online, NoiseConsistency(0.0))), SEEDS)
    assert tiny.same(neutral, train(LONG, online, SEEDS))


def test_a_mitigation_of_ones_own_may_begin_as_another_does():
    @dataclass(frozen=True)
    class Mine(Mitigation):
        def begin(self, training):
            TemporalEnsembling().begin(training)

    assert tiny.same(train(LONG, Mine(), SEEDS), train(LONG, CONTROL, SEEDS))


def test_inhibition_of_twins_is_that_of_both():
    wanted = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]).log()
    batch = Batch(None, None, torch.tensor([0.5, 1.5]), torch.arange(2), {"inhibition": wanted})
    twins = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0))
    of = lambda logits: LogitInhibition(strength=1.0, top=2).loss(  # noqa: E731
        lambda: logits, batch, lambda logits: torch.tensor(0.0)
    )
    assert of(twins) == pytest.approx((of(twins[0]) + of(twins[1])).item())
    teachers = {"training": np.full((5, 6, 60, 4), 0.25, np.float16)}
    both = Composed((LogitInhibition(), CoDistillation()))
    assert np.isfinite(train(LONG, both, SEEDS, teachers=teachers)["probabilities"]).all()

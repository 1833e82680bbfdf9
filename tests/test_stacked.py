"""Runs trained at once answer what each of them answers by itself, whatever the mitigation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiny
import torch
from test_frozen import deeper

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation
from stabutils.mitigations import data_centric as centric
from stabutils.mitigations import regularizers as agnostic
from stabutils.mitigations.data_centric import GatedSmoothing, TemporalEnsembling
from stabutils.mitigations.finetuning import L2SP, LPFT
from stabutils.mitigations.frozen import Frozen
from stabutils.mitigations.interventions import Poke, TurnOver, Without
from stabutils.mitigations.neighbours import GradInit, ManifoldSmoothing, Mixout
from stabutils.mitigations.regularizers import (
    EMA,
    SAM,
    CoDistillation,
    ConfidencePenalty,
    LabelSmoothing,
    MCDropout,
    RDrop,
    WeightDecay,
)
from stabutils.mitigations.snapshots import Checkpoints, Snapshots
from stabutils.training import loop, stacked
from stabutils.training.preparation import prepare
from stabutils.training.probes import PROBES
from stabutils.training.stacked import Blocks, Stack, train
from stabutils.training.state import Diverged, Seeds

QUIET = replace(
    tiny.SHAPE,
    input_dropout=0.0,
    dropout=0.0,
    skip=0.0,
    output_dropout=0.0,
    word_dropout=0.0,
    layers=2,
)
# Clipping, buckets and batches of 8 and of 4: all that could mix runs or steps up.
RECIPE = replace(
    tiny.RECIPE, epochs=2, batch_size=8, clip=0.5, bucket=2, head_rate=3.0, checkpoints=2
)
SEEDS = [Seeds(0, 0, 0), Seeds(1, 2, 3), Seeds(5, 5, 5)]
ALIKE = [Seeds(0, 0, 0), Seeds(1, 1, 1), Seeds(5, 5, 5)]  # only such runs have teachers
AGNOSTIC = {name: strengths[1] for name, strengths in agnostic.CATALOGUE.items()}
ONE_TRAINING = {
    "snapshots": Snapshots(2),
    "checkpoints": Checkpoints(2),
    "poke": Poke(1e-3),
    "without": Without((0, 3)),
    "many passes": Composed((RDrop(0.5), WeightDecay(10.0), TemporalEnsembling(), EMA(0.9))),
    "twins": Composed((CoDistillation(1.0), MCDropout(2), GatedSmoothing(), SAM(0.05))),
}
PRETRAINED = {
    "control": Mitigation(),
    "frozen": Frozen(1),
    "frozen entirely": Frozen(3),
    "L2SP": L2SP(),
    "all": Composed((Frozen(2), LPFT(), L2SP(), EMA(0.9), RDrop(0.5))),
}


def quiet(task):
    """In double precision and without dropout: what differs is an error and no rounding or mask."""

    def build():
        network = task.build().double()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name in ("dropout", "dropout_prob"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        return network

    return replace(task, build=build)


@pytest.fixture(scope="module")
def compact():
    return quiet(tiny.task(RECIPE, QUIET))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = deeper(tmp_path_factory.mktemp("models") / "bert")
    recipe = replace(RECIPE, learning_rate=1e-3)
    return quiet(prepare(str(folder), tiny.dataset(), recipe, "mean"))


def teachers_of(mitigation, task):
    """For each run answers of its own, as if its teachers had been trained."""
    draw = np.random.default_rng(0)
    shape = len(mitigation.teacher_seeds(ALIKE[0])), 3, len(task.train_labels)
    return [
        {"training": draw.dirichlet(np.full(task.classes, 0.3), shape).astype(np.float16)}
        if shape[0]
        else None
        for _ in SEEDS
    ]


def same_as_alone(task, mitigation):
    taught = centric.Taught in type(mitigation).__mro__
    seeds = ALIKE if taught else SEEDS
    teachers = teachers_of(mitigation, task)
    keep = [PROBES[name] for name in ("training", "hidden", "head")]
    together = train(task, mitigation, seeds, keep, teachers, "cpu")
    for found, own, answers in zip(together, seeds, teachers, strict=True):
        expected = loop.train(task, mitigation, own, keep=keep, teachers=answers)
        assert found.keys() == expected.keys()
        for name in expected.keys() - {"cpu_seconds"}:
            assert found[name].dtype == expected[name].dtype
            assert found[name].shape == expected[name].shape
            half = found[name].dtype == np.float16
            assert np.allclose(found[name], expected[name], atol=1e-3 if half else 1e-6), name
    first, second, _ = (answers["probabilities"] for answers in together)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("name", AGNOSTIC)
def test_data_agnostic_methods_stacked_are_the_single_runs(compact, name):
    same_as_alone(compact, AGNOSTIC[name])


@pytest.mark.parametrize("name", centric.CATALOGUE)
def test_data_centric_methods_stacked_are_the_single_runs(compact, name):
    same_as_alone(compact, centric.CATALOGUE[name])


@pytest.mark.parametrize("name", ONE_TRAINING)
def test_ensembles_of_one_training_and_compositions_stacked_are_the_single_runs(compact, name):
    same_as_alone(compact, ONE_TRAINING[name])


@pytest.mark.parametrize("name", PRETRAINED)
def test_fine_tunings_stacked_are_the_single_runs(checkpoint, name):
    same_as_alone(checkpoint, PRETRAINED[name])


@pytest.mark.parametrize(
    "mitigation",
    [Mitigation(), LabelSmoothing(0.2), Composed((RDrop(0.5), ConfidencePenalty(0.1)))],
)
def test_runs_draw_dropout_of_their_own_and_leave_torch_as_it_was(mitigation):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    task = tiny.task(replace(tiny.RECIPE, epochs=1))
    one, other, again = (
        [answers["probabilities"] for answers in train(task, mitigation, seeds, device="cpu")]
        for seeds in ([Seeds(0, 0, 0)] * 2, [Seeds(0, 0, 1)] * 2, [Seeds(0, 0, 0)] * 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not np.allclose(one[0], one[1]) and not np.allclose(one[0], other[0])
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))


def test_passes_with_dropout_differ_and_their_mean_answers():
    task = tiny.task(replace(tiny.RECIPE, epochs=1))
    plain, mixed = (
        train(task, mitigation, SEEDS, device="cpu") for mitigation in (MCDropout(0), MCDropout(3))
    )
    for one, other in zip(plain, mixed, strict=True):
        assert not np.allclose(one["probabilities"], other["probabilities"], atol=1e-3)
        assert np.allclose(other["probabilities"].sum(1), 1)


def test_it_learns_in_half_precision():
    task = tiny.task(replace(tiny.RECIPE, epochs=8, precision="bf16"), QUIET)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    for answers in train(task, Mitigation(), SEEDS[:2], device="cpu"):
        assert answers["confidence"][-1].mean() > answers["confidence"][0].mean() + 0.1


@dataclass(frozen=True)
class Students(Mitigation):
    """A student's, of hooks that see all runs at once."""

    def step(self, training):
        pass

    def answer(self, training, predict):
        return predict(training.model)


@pytest.mark.parametrize(
    "mitigation, words",
    [
        (Students(), "Students, which changes the step and answer"),
        (Composed((LabelSmoothing(0.1), Students())), "Students, which changes"),
        (Snapshots(2, keep=0.5), "Snapshots, as it is set"),
        (ManifoldSmoothing(), "ManifoldSmoothing, as it is set"),
        (GradInit(), "GradInit, as it is set"),
        (Mixout(), "Mixout, as it is set"),
        (TurnOver(), "TurnedOver"),
    ],
)
def test_what_does_not_stack_is_refused_by_name(mitigation, words):
    with pytest.raises(InputError, match=words):
        train(tiny.task(), mitigation, SEEDS, device="cpu")


def test_runs_of_different_length_are_refused(compact):
    @dataclass(frozen=True)
    class Fewer(Mitigation):
        """Leaves out as many texts as a teacher says."""

        def teacher_seeds(self, seeds):
            return (Seeds(seeds.init + 100, 0, 0),)

        def data(self, targets):
            kept = torch.arange(len(targets.indices)) >= int(targets.teachers.sum())
            return replace(
                targets,
                indices=targets.indices[kept],
                probabilities=targets.probabilities[kept],
                weights=targets.weights[kept],
            )

    shape = 1, 1, len(compact.train_labels), compact.classes
    teachers = [{"training": np.full(shape, share / np.prod(shape))} for share in (0, 20, 0)]
    with pytest.raises(InputError, match="as many training texts in every run"):
        train(compact, Fewer(), SEEDS, (), teachers, "cpu")


def test_a_run_that_diverges_leaves_the_others_as_they_are(compact):
    @dataclass(frozen=True)
    class Spoilt(LabelSmoothing):
        """Control, but for a run that trains towards no numbers."""

        strength: float = 0.0
        neutral = None

        def teacher_seeds(self, seeds):
            return (Seeds(seeds.init + 100, 0, 0),)

        def data(self, targets):
            return targets.with_labels(targets.probabilities + targets.teachers.float().mean())

    shape = 1, 1, len(compact.train_labels), compact.classes
    teachers = [{"training": np.full(shape, value, np.float32)} for value in (0.0, np.nan, 0.0)]
    found = train(compact, Spoilt(), SEEDS, (), teachers, "cpu")
    plain = train(compact, Mitigation(), SEEDS, device="cpu")
    assert isinstance(found[1], Diverged) and "the loss became no number" in str(found[1])
    for place in (0, 2):
        assert np.allclose(found[place]["probabilities"], plain[place]["probabilities"])
    with pytest.raises(Diverged, match="learning rate"):
        train(compact, Spoilt(), SEEDS, (), [teachers[1]] * 3, "cpu")


def test_a_short_batch_is_filled_with_texts_that_do_not_count(compact):
    stack = Stack(compact, Mitigation(), SEEDS, "cpu")
    rows = [torch.arange(8), torch.arange(4), torch.arange(3, 11)]
    batch = stack.batch_of(rows)
    assert batch.indices.tolist() == [[*range(8)], [0, 1, 2, 3, 0, 0, 0, 0], [*range(3, 11)]]
    assert batch.weights.tolist() == [[1.0] * 8, [2.0] * 4 + [0.0] * 4, [1.0] * 8]


def test_blocks_hold_every_token():
    task = tiny.task()
    blocks = Blocks.of(task.test, torch.device("cpu"))
    assert torch.equal(blocks.ids[blocks.taken], task.test.ids)
    assert torch.equal(blocks.taken.sum(1), task.test.lengths)
    assert torch.equal(task.test.ids[blocks.first], blocks.ids[:, 0])


def test_networks_on_blocks_answer_as_they_do(compact):
    twins = stacked.Twins(compact.build(), compact.build())
    for network in (compact.build(), twins):
        blocks = stacked.blocks_of(network)
        texts = Blocks.of(compact.test, torch.device("cpu"))
        for mode in (True, False):
            expected, found = network.train(mode)(compact.test), blocks.train(mode)(texts)
            assert torch.allclose(expected, found, atol=1e-12)

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from scipy import stats
from torch import nn

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation, describe, identity, price, resolve
from stabutils.mitigations.regularizers import (
    EMA,
    SAM,
    SWA,
    CoDistillation,
    ConfidencePenalty,
    DropoutRate,
    LabelSmoothing,
    LongerTraining,
    MCDropout,
    MinimumEntropy,
    RDrop,
    ScalarMitigation,
    WarmUp,
    WeightDecay,
    symmetric_kl,
)
from stabutils.training import loop, state
from stabutils.training.loop import train
from stabutils.training.networks import Twins
from stabutils.training.state import Batch, Diverged, Seeds, one_hot

TASK = tiny.task(replace(tiny.RECIPE, epochs=1))
CONTROL = Mitigation()


def test_label_smoothing_targets_by_hand():
    targets = LabelSmoothing(0.2).data(one_hot(np.array([1, 3]), 4))
    by_hand = [[0.05, 0.85, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]]
    assert targets.probabilities.numpy() == pytest.approx(np.array(by_hand))
    assert targets.weights.tolist() == [1, 1] and targets.indices.tolist() == [0, 1]
    assert LabelSmoothing(1.0).data(one_hot(np.array([1]), 4)).probabilities.tolist() == [
        [0.25] * 4
    ]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_label_smoothing_refuses_what_is_no_share(strength):
    with pytest.raises(
        InputError, match="LabelSmoothing strength: got .*; expected a number from 0 to 1"
    ):
        LabelSmoothing(strength)


# ---- composition


@dataclass(frozen=True)
class Loss(Mitigation):
    """Maps the inner loss x to factor * x + term, and says when."""

    factor: float
    term: float
    log: list = field(default_factory=list)

    def loss(self, forward, batch, inner):
        self.log.append(self.factor)
        return self.factor * inner(forward()) + self.term


@dataclass(frozen=True)
class TwoPasses(Mitigation):
    def loss(self, forward, batch, inner):
        return inner(forward()) + inner(forward())


@dataclass(frozen=True)
class Network(Mitigation):
    def model(self, build):
        return build()


@dataclass(frozen=True)
class Answer(Mitigation):
    def answer(self, training, predict):
        return predict(training.model).roll(1, dims=1)


def passes(mitigation, *logits):
    """The loss of a network whose successive passes give `logits`; the task's loss is the logits
    themselves.
    """
    given = iter(logits)
    return mitigation.loss(lambda: torch.tensor(next(given)), None, lambda logits: logits).item()


def test_the_first_loss_is_the_outermost():
    log = []
    both = Composed((Loss(2, 1, log), Loss(10, 3, log)))
    assert passes(both, 5.0) == 2 * (10 * 5 + 3) + 1
    assert log == [2, 10]


def test_one_without_a_loss_does_not_take_the_passes_from_the_next():
    for parts in (
        (TwoPasses(),),
        (LabelSmoothing(), TwoPasses()),
        (TwoPasses(), LabelSmoothing()),
        (Answer(), TwoPasses(), Network()),
    ):
        assert passes(Composed(parts), 5.0, 7.0) == 12
    assert passes(Composed((LabelSmoothing(), Answer())), 5.0) == 5


def test_targets_compose_in_order():
    twice = Composed((LabelSmoothing(0.5), LabelSmoothing(0.5))).data(one_hot(np.array([0]), 2))
    assert twice.probabilities.tolist() == [[0.625, 0.375]]  # 1 -> .75 -> .375 + .25


@pytest.mark.parametrize("one", [Network(), Answer()])
def test_a_second_claim_is_refused_by_name(one):
    name, hook = type(one).__name__, type(one).__name__.lower().replace("network", "model")
    with pytest.raises(
        InputError,
        match=rf"mitigation: got '{name} \+ {name}'; .*at most one that changes the {hook}",
    ):
        Composed((one, LabelSmoothing(), one))
    with pytest.raises(InputError, match="at most one"):
        Composed((one, Composed((one,))))
    assert (
        passes(Composed((one, Composed((LabelSmoothing(),)))), 5.0) == 5
    )  # what is composed already claims nothing


def test_a_nested_loss_makes_passes_of_its_own():
    assert passes(Composed((Loss(2, 1), TwoPasses())), 5.0, 7.0) == 2 * (5 + 7) + 1
    assert passes(Composed((TwoPasses(), TwoPasses())), 1.0, 2.0, 10.0, 20.0) == (1 + 2) + (10 + 20)
    assert (
        passes(Composed((Loss(2, 1), Composed((Loss(3, 0), TwoPasses())))), 5.0, 7.0)
        == 2 * 3 * (5 + 7) + 1
    )


@dataclass(frozen=True)
class Doubled(Mitigation):
    def loss(self, forward, batch, inner):
        return inner(2 * forward())


def test_a_nested_loss_of_several_passes_is_refused_by_name_where_the_logits_were_changed():
    assert passes(Composed((TwoPasses(), Doubled())), 5.0, 7.0) == 2 * 5 + 2 * 7
    assert passes(Composed((Doubled(), Loss(2, 1))), 5.0) == 2 * 10 + 1
    with pytest.raises(
        InputError,
        match="mitigation: got 'TwoPasses after one that changes the logits'; expected the",
    ):
        passes(Composed((Doubled(), TwoPasses())), 5.0, 7.0)
    with pytest.raises(InputError, match="RDrop.* after one that changes"):
        train(TASK, Composed((CoDistillation(), RDrop())), Seeds(0, 0, 0))


def test_composed_hooks_reach_every_part():
    log = []

    @dataclass(frozen=True)
    class Count(Mitigation):
        name: str

        def step(self, training):
            log.append((self.name, "step"))

        def epoch(self, training):
            log.append((self.name, "epoch"))

    answers = train(TASK, Composed((Count("a"), Answer(), Count("b"))), Seeds(0, 0, 0))
    assert log[:2] == [("a", "step"), ("b", "step")] and log[-2:] == [
        ("a", "epoch"),
        ("b", "epoch"),
    ]
    assert len(log) == 2 * 8 + 2
    control = train(TASK, CONTROL, Seeds(0, 0, 0))
    assert np.array_equal(answers["probabilities"], np.roll(control["probabilities"], 1, axis=1))


def test_resolve():
    assert resolve("control") == CONTROL
    assert resolve(LabelSmoothing()) == LabelSmoothing()
    assert resolve((LabelSmoothing(), Answer())) == Composed((LabelSmoothing(), Answer()))
    for wrong in (
        "ema",
        (),
        [LabelSmoothing()],
        (LabelSmoothing,),
        None,
        LabelSmoothing,
        ("control",),
    ):
        with pytest.raises(
            InputError, match='mitigation: got .*; expected "control", a Mitigation'
        ):
            resolve(wrong)


# ---- identity


def test_identity_and_description():
    assert identity(CONTROL) == [] and describe(CONTROL) == "control"
    assert identity(LabelSmoothing(0.2)) == [
        {"name": "LabelSmoothing", "settings": {"strength": 0.2}}
    ]
    both = Composed((LabelSmoothing(0.2), CONTROL, Answer()))
    assert describe(both) == "LabelSmoothing(strength=0.2) + Answer"
    assert [entry["name"] for entry in identity(both)] == ["LabelSmoothing", "Answer"]
    assert identity(Composed((LabelSmoothing(),))) == identity(LabelSmoothing())
    assert identity(Composed((LabelSmoothing(), Answer()))) != identity(
        Composed((Answer(), LabelSmoothing()))
    )


def test_one_and_one_point_zero_are_one_setting():
    assert identity(LabelSmoothing(1)) == identity(LabelSmoothing(1.0))
    assert describe(LabelSmoothing(1)) == describe(LabelSmoothing(1.0))
    assert str(identity(LabelSmoothing(1))) == str(identity(LabelSmoothing(1.0)))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), np.float32(1), np.ones(2), {1, 2}, print]
)
def test_a_setting_that_cannot_be_written_down_is_refused_by_name(value):
    with pytest.raises(InputError, match="Loss term: got .*; expected a finite number, a text"):
        identity(Loss(1.0, value))


STUDENT = """
from dataclasses import dataclass
from stabutils.mitigations import Mitigation

class Base(Mitigation):
    scale = 2.0
    def data(self, targets):
        return targets

@dataclass(frozen=True)
class Mine(Base):
    name: str = "a field may have any name"
    def loss(self, forward, batch, inner):
        return inner(forward()) * self.scale
"""


def identity_of(text: str, folder, number: int):
    path = folder / f"student{number}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    del sys.modules[path.stem]
    return identity(module.Mine())


def test_the_source_of_one_written_elsewhere_is_part_of_it(tmp_path):
    (first,), (again,) = (
        identity_of(STUDENT, tmp_path, 0),
        identity_of("# a remark\n" + STUDENT, tmp_path, 1),
    )
    assert first == again and len(first["source"]) == 16
    assert first["name"] == "Mine" and first["settings"] == {"name": "a field may have any name"}
    changes = [
        ("* self.scale", "* 3"),
        ("scale = 2.0", "scale = 3.0"),
        ("return targets", "return targets  # new"),
    ]
    sources = {
        identity_of(STUDENT.replace(*change), tmp_path, 2 + i)[0]["source"]
        for i, change in enumerate(changes)
    }
    assert (
        len(sources | {first["source"]}) == 4
    )  # body, a constant of the parent class, the parent's body
    assert "source" not in identity(LabelSmoothing())[0]


def test_one_without_source_text_is_refused_before_training():
    scope = {}
    exec(STUDENT, scope)
    with pytest.raises(
        InputError, match="mitigation: got 'Mine'; expected a class written in a file or a notebook"
    ):
        identity(scope["Mine"]())


def test_one_written_in_a_notebook_cell_is_the_same_as_in_a_file(tmp_path):
    pytest.importorskip("IPython")
    script = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell({STUDENT!r}).raise_error()
shell.run_cell("from stabutils.mitigations import identity; print(identity(Mine())[0]['source'])").raise_error()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == identity_of(STUDENT, tmp_path, 0)[0]["source"]


# ---- a student's exercise


@dataclass(frozen=True)
class DropClass(Mitigation):
    """Trains without one class."""

    which: int = 0

    def data(self, targets):
        kept = targets.probabilities[:, self.which] == 0
        return replace(
            targets,
            indices=targets.indices[kept],
            probabilities=targets.probabilities[kept],
            weights=targets.weights[kept],
        )


def test_a_ten_line_mitigation_trains():
    task = tiny.task(replace(tiny.RECIPE, epochs=6))
    answers = train(task, DropClass(2), Seeds(0, 0, 0))
    assert not (answers["labels"] == 2).any()
    assert (train(task, CONTROL, Seeds(0, 0, 0))["labels"] == 2).any()


def test_a_diverged_one_without_source_text_is_still_named():
    scope = {}
    exec(
        STUDENT.replace("self.scale", "float('nan')"), scope
    )  # a notebook's class in a worker has no text there
    with pytest.raises(Diverged, match="Mine"):
        train(TASK, scope["Mine"](), Seeds(0, 0, 0))


# ---- the catalogue

CATALOGUE = [
    WeightDecay,
    LongerTraining,
    WarmUp,
    DropoutRate,
    LabelSmoothing,
    ConfidencePenalty,
    MinimumEntropy,
    RDrop,
    CoDistillation,
    SAM,
    EMA,
    SWA,
    MCDropout,
]
LONG = tiny.task(replace(tiny.RECIPE, warmup=0.05))  # 24 steps, the first of which warms up


@pytest.fixture(scope="module")
def control():
    return trained(CONTROL)


@dataclass(frozen=True)
class Final(Mitigation):
    """Keeps hold of the training."""

    seen: list

    def step(self, training):
        self.seen[:] = [training]


def trained(mitigation, task=LONG):
    """The training that was, its final weights and its answers."""
    seen = []
    answers = train(task, Composed((mitigation, Final(seen))), Seeds(0, 1, 2))
    weights = {name: tensor.clone() for name, tensor in seen[0].model.state_dict().items()}
    return SimpleNamespace(training=seen[0], weights=weights, answers=answers)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_a_dose_of_nothing_is_control_bit_for_bit(kind, control):
    neutral = LONG.recipe.warmup if kind is WarmUp else kind.neutral
    dose = type(fields(kind)[0].default)(neutral)
    nothing = trained(kind(dose))
    assert tiny.same(control.answers, nothing.answers) and equal(control.weights, nothing.weights)
    if kind is not WarmUp:  # whose control is the recipe's
        assert identity(kind(dose)) == [] and describe(kind(dose)) == "control"


@pytest.mark.parametrize("kind", CATALOGUE)
def test_the_default_changes_the_answers(kind, control):
    mitigated = trained(kind())
    assert not np.array_equal(control.answers["probabilities"], mitigated.answers["probabilities"])
    assert equal(control.weights, mitigated.weights) == (
        kind in (EMA, MCDropout)
    )  # these leave the training alone
    assert identity(kind())[0]["name"] == kind.__name__
    assert np.allclose(mitigated.answers["probabilities"].sum(1), 1)


@dataclass(frozen=True)
class Kill(Mitigation):
    def epoch(self, training):
        if training.epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", CATALOGUE)
def test_a_killed_one_goes_on_with_the_same_bits(kind, tmp_path):
    mitigation, unfinished = SWA(0.5) if kind is SWA else kind(), tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(LONG, Composed((mitigation, Kill())), Seeds(0, 1, 2), unfinished, save_every=0)
    assert unfinished.exists()
    continued = train(LONG, mitigation, Seeds(0, 1, 2), unfinished, save_every=1e9)
    assert tiny.same(train(LONG, mitigation, Seeds(0, 1, 2)), continued)


def test_every_pair_trains_or_is_refused_by_name():
    task = replace(TASK, recipe=replace(TASK.recipe, batch_size=60, checkpoints=1))
    refused = set()
    for one, other in itertools.combinations(CATALOGUE, 2):
        try:
            assert np.isfinite(
                train(task, Composed((one(), other())), Seeds(0, 0, 0))["probabilities"]
            ).all()
        except InputError as error:
            assert one.__name__ in str(error) and other.__name__ in str(error)
            refused.add((one, other))
    assert refused == {
        (DropoutRate, CoDistillation),
        (EMA, SWA),
        (EMA, MCDropout),
        (SWA, MCDropout),
    }


@pytest.mark.parametrize(
    "kind, wrong",
    [
        (WeightDecay, -1),
        (LongerTraining, 0),
        (WarmUp, 1.5),
        (DropoutRate, -0.5),
        (ConfidencePenalty, float("inf")),
        (MinimumEntropy, "0.1"),
        (RDrop, None),
        (CoDistillation, True),
        (SAM, -1),
        (EMA, 2),
        (SWA, -1),
        (MCDropout, 2.0),
    ],
)
def test_an_impossible_dose_is_refused_by_name(kind, wrong):
    name = fields(kind)[0].name
    with pytest.raises(
        InputError, match=f"{kind.__name__} {name}: got .*; expected (a number|an integer) "
    ):
        kind(wrong)


def test_costs():
    prices = {kind.__name__: kind().cost for kind in CATALOGUE if kind().cost != (1, 1)}
    assert prices == {
        "RDrop": (2, 1),
        "CoDistillation": (2, 1),
        "SAM": (2, 1),
        "MCDropout": (1, 10),
    }
    nine = replace(tiny.RECIPE, epochs=9)
    assert price((LongerTraining(3.0), RDrop(), MCDropout(5)), nine) == (6, 5)
    assert price(LongerTraining(1.5), nine) == (
        14 / 9,
        1,
    )  # the price of the epochs that are trained
    assert price("control", nine) == price(EMA(), nine) == (1, 1)
    assert CONTROL.cost == Composed((LabelSmoothing(), EMA())).cost == (1, 1)


@dataclass(frozen=True)
class Taught(Mitigation):
    cost = (2.0, 1.0)

    def teacher_seeds(self, seeds):
        return (seeds,)


@dataclass(frozen=True)
class TwoPass(Mitigation):
    cost = (2.0, 3.0)


def test_the_cost_of_nested_parts_counts_beside_teachers():
    """Two trainings and a teacher: fails if a part with a teacher hides the others beside it."""
    flat = (Taught(), TwoPass(), EMA())
    nested = [
        (Composed((Taught(), TwoPass())), EMA()),
        (EMA(), Composed((TwoPass(), Composed((Taught(),))))),
        (Composed((EMA(), TwoPass())), Taught()),
    ]
    for parts in (flat, *nested):
        assert Composed(parts).cost == price(parts, tiny.RECIPE) == (3, 3)
    longer = (LongerTraining(3.0), *nested[0])
    assert price(longer, tiny.RECIPE) == (3 * 2 + 1, 3)  # its teacher is not trained longer
    assert Composed((Composed((TwoPass(),)), TwoPass())).cost == (4, 9)


@pytest.mark.parametrize("kind", [RDrop, CoDistillation, SAM])
def test_neutral_settings_cost_what_control_costs(kind):
    assert kind(0.0).is_noop and price(kind(0.0), tiny.RECIPE) == (1, 1)
    assert price((kind(0.0), EMA()), tiny.RECIPE) == Composed((kind(0.0),)).cost == (1, 1)
    assert price(kind(), tiny.RECIPE) == (2, 1)


# ---- recipe and network


def test_recipes_by_hand():
    recipe = replace(tiny.RECIPE, epochs=8, weight_decay=0.05, warmup=0.05)
    assert WeightDecay(4).recipe(recipe) == replace(recipe, weight_decay=0.2)
    assert LongerTraining(1.5).recipe(recipe) == replace(recipe, epochs=12)
    assert LongerTraining(0.01).recipe(recipe).epochs == 1
    assert WarmUp(0.2).recipe(recipe) == replace(recipe, warmup=0.2)
    both = Composed((LongerTraining(2), WeightDecay(0), LongerTraining(2))).recipe(recipe)
    assert both == replace(recipe, epochs=32, weight_decay=0.0)


def test_longer_training_stretches_the_schedule():
    longer, epochs = trained(LongerTraining(2.0)), LONG.recipe.epochs
    assert longer.training.steps == longer.training.step == 8 * 2 * epochs
    assert longer.answers["checkpoints"].shape == (2 * 2 * epochs, 20)
    assert longer.training.optimizer.param_groups[0]["lr"] == pytest.approx(
        LONG.recipe.learning_rate / (48 - 2)
    )


def test_dropout_rates_by_hand():
    shape = DropoutRate(1.5).model(TASK.build).shape
    assert (shape.input_dropout, shape.dropout, shape.output_dropout) == pytest.approx(
        (0.6, 0.3, 0.6)
    )
    assert (shape.skip, shape.word_dropout) == (tiny.SHAPE.skip, tiny.SHAPE.word_dropout)
    model = DropoutRate(3).model(TASK.build)
    assert model.layers[0].shape.dropout == pytest.approx(0.6) and model.shape.input_dropout == 0.9
    assert TASK.build().shape == tiny.SHAPE
    other = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
    other.dropout = 0.2  # as `models.Pretrained` has it
    DropoutRate(2).model(lambda: other)
    assert other[1].p == pytest.approx(0.2) and other.dropout == pytest.approx(0.4)


# ---- losses by hand: two texts, the second of which counts half as much again

WEIGHTS = torch.tensor([0.5, 1.5])
BATCH = Batch(None, None, WEIGHTS, None)
EVEN_AND_QUARTER = torch.tensor(
    [[0.0, 0.0], [0.0, np.log(3.0)]]
)  # probabilities 1/2, 1/2 and 1/4, 3/4


def loss_of(mitigation, *logits):
    given = iter(logits)
    return mitigation.loss(lambda: next(given), BATCH, lambda logits: logits.sum())


@pytest.mark.parametrize("kind, sign", [(ConfidencePenalty, -1), (MinimumEntropy, 1)])
def test_entropy_terms_by_hand(kind, sign):
    entropies = np.array([np.log(2), np.log(4) - 0.75 * np.log(3)])
    by_hand = np.log(3) + sign * 0.4 * (0.5 * entropies[0] + 1.5 * entropies[1]) / 2
    assert loss_of(kind(0.4), EVEN_AND_QUARTER).item() == pytest.approx(by_hand)


def test_the_two_entropy_terms_pull_apart():
    doubt = [
        stats.entropy(trained(m).answers["probabilities"], axis=1).mean()
        for m in (MinimumEntropy(0.5), CONTROL, ConfidencePenalty(0.5))
    ]
    assert doubt[0] < doubt[1] < doubt[2]


def test_symmetric_divergence_equals_scipys_and_survives_zero_probabilities():
    one, other = torch.randn(
        2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).float()
    p, q = one.softmax(-1).numpy(), other.softmax(-1).numpy()
    expected = (stats.entropy(p, q, axis=-1) + stats.entropy(q, p, axis=-1)) / 2
    assert symmetric_kl(one, other).numpy() == pytest.approx(expected, rel=1e-4)
    certain = torch.tensor([[0.0, -1000.0]], requires_grad=True)
    (divergence,) = symmetric_kl(certain, torch.tensor([[-1000.0, 0.0]]))
    divergence.backward()
    assert divergence.item() == pytest.approx(1000) and certain.grad.isfinite().all()
    (same,) = symmetric_kl(certain, certain)
    assert same.item() == 0 and loss_of(ConfidencePenalty(), certain.expand(2, 2)).isfinite()


def test_r_drop_by_hand():
    other = torch.zeros(2, 2)
    divergence = (0.25 - 0.5) * (np.log(0.25) - np.log(0.5)) + (0.75 - 0.5) * (
        np.log(0.75) - np.log(0.5)
    )
    by_hand = np.log(3) / 2 + 0.7 * (1.5 * divergence / 2) / 2
    assert loss_of(RDrop(0.7), EVEN_AND_QUARTER, other).item() == pytest.approx(by_hand)


@dataclass(frozen=True)
class WatchedRDrop(RDrop):
    seen: list = field(default_factory=list)

    def loss(self, forward, batch, inner):
        def watched():
            self.seen.append(forward())
            return self.seen[-1]

        return super().loss(watched, batch, inner)


def test_r_drop_makes_two_passes_with_different_dropout():
    watched = WatchedRDrop()
    train(TASK, watched, Seeds(0, 0, 0))
    assert len(watched.seen) == 2 * 8
    pairs = zip(watched.seen[::2], watched.seen[1::2], strict=True)
    assert all(not torch.equal(one, two) and one.shape == two.shape for one, two in pairs)


def test_r_drop_reduces_what_dropout_changes():
    seen = {}
    for strength in (1e-9, 5.0):
        watched = WatchedRDrop(strength)
        train(LONG, watched, Seeds(0, 1, 2))
        pairs = zip(watched.seen[-16::2], watched.seen[-15::2], strict=True)  # of the last epoch
        seen[strength] = np.mean([symmetric_kl(one, other).mean().item() for one, other in pairs])
    assert seen[5.0] < 0.5 * seen[1e-9]


# ---- two networks


def test_co_distillation_by_hand():
    twins = torch.stack([EVEN_AND_QUARTER, torch.zeros(2, 2)])
    divergence = 0.25 * np.log(3) / 2
    by_hand = np.log(3) + 0.7 * 1.5 * divergence / 2
    assert loss_of(CoDistillation(0.7), twins).item() == pytest.approx(by_hand)


def test_gradients_of_the_divergence_reach_both():
    one, other = torch.zeros(2, 2, requires_grad=True), EVEN_AND_QUARTER.clone().requires_grad_()
    CoDistillation().loss(
        lambda: torch.stack([one, other]), BATCH, lambda logits: 0 * logits.sum()
    ).backward()
    assert one.grad.abs().sum() > 0 and other.grad.abs().sum() > 0


@pytest.mark.parametrize("kind, sign", [(ConfidencePenalty, -1), (MinimumEntropy, 1)])
def test_an_entropy_term_beside_co_distillation_is_of_both_twins(kind, sign):
    """Each has the loss that it would have alone: fails if their entropies are averaged."""
    twins = torch.stack([EVEN_AND_QUARTER, torch.zeros(2, 2)])
    even, quarter = np.log(2), np.log(4) - 0.75 * np.log(3)
    kept, other = (0.5 * even + 1.5 * quarter) / 2, even
    divergence = 0.25 * np.log(3) / 2
    by_hand = np.log(3) + 0.7 * 1.5 * divergence / 2 + sign * 0.3 * (kept + other)
    for parts in itertools.permutations((kind(0.3), CoDistillation(0.7))):
        assert loss_of(Composed(parts), twins).item() == pytest.approx(by_hand)


def test_twins_are_two_networks_and_the_kept_one_answers_with_its_own_weights(control):
    first = trained(
        CoDistillation(), replace(LONG, recipe=replace(LONG.recipe, learning_rate=1e-12))
    ).training.model
    alone = trained(
        CONTROL, replace(LONG, recipe=replace(LONG.recipe, learning_rate=1e-12))
    ).training.model
    assert torch.allclose(first.kept.table.weight, alone.table.weight)  # starts where control does
    assert not torch.allclose(first.kept.table.weight, first.other.table.weight, atol=0.1)

    both = trained(CoDistillation())
    twins, recipe = both.training.model, LONG.recipe
    kept, other = (
        loop.predict(network, LONG.test, recipe).numpy() for network in (twins.kept, twins.other)
    )
    assert np.array_equal(both.answers["probabilities"], kept) and not np.allclose(kept, other)
    assert len(both.training.optimizer.state) == 2 * len(control.training.optimizer.state)
    heads = [
        group
        for group in both.training.optimizer.param_groups
        if any(p is twins.other.head.weight for p in group["params"])
    ]
    assert len(heads) == 1 and any(p is twins.kept.head.weight for p in heads[0]["params"])


def test_co_distillation_brings_the_twins_together():
    apart = {}
    for strength in (1e-9, 5.0):
        twins = trained(CoDistillation(strength)).training.model
        both = [
            loop.predict(network, LONG.test, LONG.recipe) for network in (twins.kept, twins.other)
        ]
        apart[strength] = (both[0] - both[1]).abs().mean().item()
    assert apart[5.0] < 0.7 * apart[1e-9]


def test_twins_show_the_kept_features():
    twins = Twins(TASK.build(), TASK.build()).eval()
    assert torch.equal(twins.features(TASK.test), twins.kept.features(TASK.test))
    assert torch.equal(twins(TASK.test), twins.kept(TASK.test))
    assert twins.train()(TASK.test).shape == (2, 20, 4)


# ---- weights


def steps(mitigation, values, total):
    """The averages after each step of a network whose one weight takes on `values`."""
    model, seen = nn.Linear(1, 1, bias=False), []
    place = SimpleNamespace(model=model, memory={}, steps=total, step=0)
    for value in values:
        place.step += 1
        nn.init.constant_(model.weight, value)
        mitigation.step(place)
        average = place.memory.get("average.weight")
        seen.append(None if average is None else average.item())
    return seen, place


def test_ema_by_hand():
    seen, _ = steps(EMA(0.25), [1.0, 2.0, 4.0], 3)  # decays 2/11, 3/12 and then the quarter
    assert seen == pytest.approx([1, 1 * 3 / 12 + 2 * 9 / 12, 1.75 / 4 + 3])
    early, _ = steps(EMA(), [1.0, 2.0], 2)
    assert early[1] == pytest.approx(1 * 3 / 12 + 2 * 9 / 12)


def test_swa_by_hand():
    seen, _ = steps(SWA(0.5), [9.0, 9.0, 1.0, 2.0, 6.0, 7.0], 6)
    assert seen == [None, None, None, pytest.approx(2), pytest.approx(4), pytest.approx(5)]
    assert steps(SWA(1.0), [1.0, 2.0], 2)[0] == [None, None]


def test_an_average_is_a_copy():
    _, place = steps(EMA(), [1.0], 1)
    nn.init.constant_(place.model.weight, 5.0)
    assert place.memory["average.weight"].item() == 1


@pytest.mark.parametrize("mitigation", [EMA(), SWA()])
def test_the_averaged_network_answers_without_dropout_and_the_own_one_stays(mitigation):
    run = trained(mitigation)
    average = LONG.build()
    average.load_state_dict({name: run.training.memory[f"average.{name}"] for name in run.weights})
    by_hand = loop.predict(average, LONG.test, LONG.recipe).numpy()
    assert np.array_equal(run.answers["probabilities"], by_hand)
    assert not equal(run.weights, average.state_dict()) and equal(
        run.weights, run.training.model.state_dict()
    )
    torch.manual_seed(0)
    again = [
        mitigation.answer(run.training, lambda model: loop.predict(model, LONG.test, LONG.recipe))
        for _ in range(2)
    ]
    assert torch.equal(*again) and np.array_equal(again[0], by_hand)


@dataclass(frozen=True)
class Rates(Mitigation):
    seen: list

    def step(self, training):
        self.seen.append(
            training.optimizer.param_groups[0]["lr"] / training.task.recipe.learning_rate
        )


def test_swa_holds_the_rate_once_it_averages():
    plain, held = [], []
    train(LONG, Rates(plain), Seeds(0, 0, 0))
    train(LONG, Composed((SWA(0.75), Rates(held))), Seeds(0, 0, 0))
    assert held[:19] == plain[:19] and held[18:] == pytest.approx([6 / 23] * 6)


def test_sam_by_hand():
    place = state.Training(None, None, None, nn.Linear(2, 1, bias=False), None, 1)
    place.model.weight.data = torch.tensor([[3.0, 4.0]])
    seen = []

    def backward():  # half the squared norm: the gradient is the weight itself
        place.model.zero_grad()
        seen.append((place.model.weight.detach().clone(), torch.rand(1).item()))
        loss = place.model.weight.square().sum() / 2
        loss.backward()
        return loss

    loss = SAM(0.5).gradient(place, backward)
    (first, draw), (second, again) = seen
    assert second == pytest.approx(torch.tensor([[3.3, 4.4]])) and torch.equal(
        first, place.model.weight
    )
    assert place.model.weight.grad == pytest.approx(torch.tensor([[3.3, 4.4]]))
    assert (
        loss.item() == pytest.approx(5.5**2 / 2) and draw == again
    )  # the same dropout at both places


def test_sam_of_a_zero_gradient_stays():
    place = state.Training(None, None, None, nn.Linear(1, 1, bias=False), None, 1)
    SAM().gradient(place, lambda: (0 * place.model.weight.sum()).backward())
    assert place.model.weight.isfinite().all()


# ---- answers


def test_mc_dropout_is_the_mean_of_passes_with_dropout_on(control):
    run, recipe = trained(MCDropout(3)), LONG.recipe
    assert equal(run.weights, control.weights)
    with state.Stream("answer", 2, run.training.step):
        run.training.model.train()
        order = torch.argsort(LONG.test.lengths, stable=True)
        with torch.no_grad():
            passes = [run.training.model(LONG.test.take(order)).softmax(-1) for _ in range(3)]
    assert not torch.allclose(passes[0], passes[1], atol=1e-3)
    assert run.answers["probabilities"][order] == pytest.approx(
        torch.stack(passes).mean(0).numpy(), abs=1e-6
    )
    plain = loop.predict(run.training.model, LONG.test, recipe).numpy()
    many = (
        MCDropout(200)
        .answer(run.training, lambda model: loop.predict(model, LONG.test, recipe))
        .numpy()
    )
    assert np.array_equal(plain, control.answers["probabilities"])
    assert 1e-3 < np.abs(many - plain).max() < 0.3


@pytest.mark.parametrize("mode", [True, False])
def test_mc_dropout_leaves_the_mode_as_it_was(mode):
    model = TASK.build().train(mode)
    place = SimpleNamespace(model=model)
    MCDropout(1).answer(place, lambda model: loop.predict(model, TASK.test, TASK.recipe))
    assert all(module.training == mode for module in model.modules())


def test_mc_dropout_of_twins_asks_the_kept_one():
    run = trained(Composed((CoDistillation(), MCDropout(2))))
    assert run.answers["probabilities"].shape == (20, 4)


def test_one_of_our_own_with_a_dose():
    @dataclass(frozen=True)
    class Mine(ScalarMitigation):
        share: float = 0.5
        allowed = (0.0, 1.0)

    assert identity(Mine(0.0)) == [] and Mine(0.0).is_noop and not Mine().is_noop
    with pytest.raises(InputError, match="Mine share: got 2; expected a number from 0 to 1"):
        Mine(2)

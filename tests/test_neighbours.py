"""Methods of neighbouring papers: control at dose zero, by hand where possible, the real loop."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from scipy import stats
from scipy.linalg import hadamard
from torch import nn

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation, describe, identity, price
from stabutils.mitigations import neighbours as methods
from stabutils.mitigations.data_centric import nearest
from stabutils.mitigations.interventions import LabelNoise, Without
from stabutils.mitigations.neighbours import (
    CATALOGUE,
    AdversarialConsistency,
    ContrastiveAdversarial,
    DensityMatched,
    GradInit,
    ManifoldSmoothing,
    Mixout,
    NoiseConsistency,
    Perturbed,
    StartDecay,
    UnitDropout,
    ZerO,
    contrast,
    without_chance,
)
from stabutils.mitigations.regularizers import (
    EMA,
    SAM,
    CoDistillation,
    MCDropout,
    RDrop,
    symmetric_kl,
)
from stabutils.training import loop
from stabutils.training.loop import train
from stabutils.training.networks import Compact, CompactShape
from stabutils.training.probes import PROBES
from stabutils.training.state import Batch, Seeds, Stream, one_hot

CONTROL = Mitigation()
TASK = tiny.task()
KINDS = [type(strengths[0]) for name, strengths in CATALOGUE.items() if name != "mixout to zero"]
ALONE = [kind for kind in KINDS if kind is not DensityMatched]  # which has a teacher
SEEDS = Seeds(0, 1, 2)


@dataclass(frozen=True)
class Watch(Mitigation):
    """Keeps hold of the training, and of its weights before the first step."""

    training: list = field(default_factory=list)
    first: dict = field(default_factory=dict)

    def gradient(self, training, backward):
        loss = backward()
        if training.step == 0:
            weights = training.model.state_dict().items()
            self.first.update({name: weight.clone() for name, weight in weights})
        self.training[:] = [training]
        return loss


def trained(mitigation, task=TASK, seeds=SEEDS):
    """Answers, the training that was, and the weights of its first step."""
    watch = Watch()
    answers = train(task, Composed((watch, mitigation)), seeds)
    return SimpleNamespace(answers=answers, training=watch.training[0], first=watch.first)


@pytest.fixture(scope="module")
def control():
    return trained(CONTROL)


def neutral(kind):
    dose = next(f for f in fields(kind) if f.name in ("strength", "share", "rate"))
    return kind(**{dose.name: 0.0})


# ---- what all share


def test_the_catalogue_has_three_strengths_of_each_method_and_all_methods():
    defined = {
        kind
        for kind in vars(methods).values()
        if isinstance(kind, type)
        and issubclass(kind, Mitigation)
        and kind.__module__ == methods.__name__
    }
    assert {type(strengths[0]) for strengths in CATALOGUE.values()} == defined
    for name, strengths in CATALOGUE.items():
        doses = [strength.dose for strength in strengths]
        assert doses == sorted(doses) and len(set(doses)) == 3 and min(doses) > 0, name
        assert {type(strength) for strength in strengths} == {type(strengths[0])}


@pytest.mark.parametrize("kind", KINDS)
def test_a_dose_of_nothing_is_control_bit_for_bit(kind, control):
    nothing = trained(neutral(kind))
    assert tiny.same(nothing.answers, control.answers)
    assert nothing.training.memory == {}
    assert identity(neutral(kind)) == [] and describe(neutral(kind)) == "control"


@pytest.mark.parametrize("kind", ALONE)
def test_the_default_changes_the_answers(kind, control):
    mitigated = trained(kind())
    assert not np.array_equal(mitigated.answers["probabilities"], control.answers["probabilities"])
    assert np.allclose(mitigated.answers["probabilities"].sum(1), 1)
    assert identity(kind())[0]["name"] == kind.__name__


@dataclass(frozen=True)
class Kill(Mitigation):
    def epoch(self, training):
        if training.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ALONE)
def test_a_killed_one_goes_on_with_the_same_bits(kind, tmp_path):
    unfinished = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(TASK, Composed((kind(), Kill())), SEEDS, unfinished, save_every=0)
    continued = train(TASK, kind(), SEEDS, unfinished, save_every=1e9)
    assert tiny.same(train(TASK, kind(), SEEDS), continued)


def test_every_pair_trains_or_is_refused_by_name():
    recipe = replace(tiny.RECIPE, epochs=1, batch_size=60, checkpoints=1)
    task = tiny.task(recipe)
    models = {ZerO, UnitDropout, NoiseConsistency, AdversarialConsistency, ContrastiveAdversarial}
    for one, other in itertools.combinations([*ALONE, RDrop, EMA, SAM, CoDistillation], 2):
        if {one, other} <= models | {CoDistillation}:
            with pytest.raises(InputError, match="at most one that changes the model"):
                Composed((one(), other()))
            continue
        try:
            answers = train(task, Composed((one(), other())), Seeds(0, 0, 0))
        except InputError as error:
            assert other is RDrop or one.__name__ in str(error), (one, other)
        else:
            assert np.isfinite(answers["probabilities"]).all()


@pytest.mark.parametrize(
    "kind, wrong",
    [
        (ManifoldSmoothing, -1),
        (DensityMatched, 0.95),
        (GradInit, 1.5),
        (ZerO, 2),
        (StartDecay, -0.1),
        (Mixout, 1),
        (UnitDropout, 0.95),
        (NoiseConsistency, float("nan")),
        (AdversarialConsistency, None),
        (ContrastiveAdversarial, "1"),
    ],
)
def test_a_dose_out_of_range_is_refused_by_name(kind, wrong):
    with pytest.raises(InputError, match=kind.__name__):
        kind(**{fields(neutral(kind))[0 if kind is not DensityMatched else 2].name: wrong})


def test_other_settings_out_of_range_are_refused_by_name():
    for kind, settings in [
        (ManifoldSmoothing, {"neighbours": 0}),
        (Mixout, {"anchor": "nowhere"}),
        (NoiseConsistency, {"radius": 0}),
        (ContrastiveAdversarial, {"radius": "far"}),
    ]:
        with pytest.raises(InputError, match=kind.__name__):
            kind(**settings)


def test_prices_count_passes_and_teachers():
    prices = {kind: price(kind(), TASK.recipe)[0] for kind in KINDS}
    assert prices[ManifoldSmoothing] == prices[ZerO] == prices[Mixout] == 1
    assert prices[NoiseConsistency] == prices[DensityMatched] == 2
    assert prices[AdversarialConsistency] == 3 and prices[ContrastiveAdversarial] == 2.5
    assert prices[GradInit] == pytest.approx(1.2)


# ---- near texts


def test_manifold_smoothing_by_hand():
    half, sure = [0.5, 0.5], [1.0, 0.0]
    memory = {
        "near": torch.tensor([[1, 2], [0, 2], [0, 1]]),
        "last": torch.tensor([half, sure, [0.0, 0.0]]),  # the third has not answered yet
    }
    weights, indices = torch.tensor([0.5, 1.5]), torch.tensor([0, 1])
    batch = Batch(None, None, weights, indices, memory)
    logits = torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]])  # 1/4, 3/4 and 1/2, 1/2
    loss = ManifoldSmoothing(0.4).loss(lambda: logits, batch, lambda logits: logits.sum())
    first = (0.75**2 + 0.75**2) / 2  # from the second text, over two neighbours
    second = 0.0  # from the first text
    assert loss.item() == pytest.approx(np.log(3) + 0.4 * (0.5 * first + 1.5 * second) / 2)
    assert memory["last"].tolist() == [pytest.approx([0.25, 0.75]), half, [0.0, 0.0]]


def test_manifold_smoothing_brings_the_predictions_of_near_texts_together():
    near = nearest(TASK.train, 5)
    apart = {}
    for strength in (1e-9, 10.0):
        network = trained(ManifoldSmoothing(strength, 5)).training.model
        answers = loop.predict(network, TASK.train, TASK.recipe)
        apart[strength] = (answers[:, None] - answers[near]).square().sum(-1).mean()
    assert apart[10.0] < 0.7 * apart[1e-9]


def test_density_matched_keeps_the_quantiles_of_the_entropy():
    sure = torch.linspace(0.5, 1, 1000)[torch.randperm(1000, generator=Stream("x", 0).generator)]
    answers = torch.stack([sure, 1 - sure], 1)
    early = torch.full_like(answers, 0.5)  # an earlier checkpoint, which does not count
    teachers = torch.stack([early, answers])[None]
    plain = replace(one_hot(np.zeros(1000, int), 2), teachers=teachers)
    kept = DensityMatched(share=0.3).data(plain)
    entropy = torch.special.entr(answers).sum(1)
    assert len(kept.indices) == 700 and kept.weights.mean() == pytest.approx(1)
    rest = entropy[kept.indices]
    quantiles = torch.linspace(0, 1, 21)
    assert torch.allclose(rest.quantile(quantiles), entropy.quantile(quantiles), atol=0.005)
    by_chance = entropy[:700].quantile(quantiles) - entropy.quantile(quantiles)
    assert by_chance.abs().max() > 0.005


# ---- first weights


def test_zero_start_is_one_hot_rows_or_hadamards():
    assert torch.equal(without_chance(nn.Linear(4, 3)), torch.eye(3, 4))
    wide = without_chance(nn.Linear(16, 48))
    assert wide.shape == (48, 16) and np.allclose(wide, hadamard(64)[:48, :16] / 8)
    table = nn.Embedding(40, 16)
    nn.init.normal_(table.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    rows = without_chance(table)
    assert np.allclose(rows, 0.1 * hadamard(16)[np.arange(40) % 16])


def test_no_seed_moves_the_start_of_zero():
    starts = [trained(ZerO(), seeds=Seeds(seed, 0, 0)).first for seed in (3, 4)]
    assert starts[0].keys() == starts[1].keys()
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    half = [trained(ZerO(0.5), seeds=Seeds(seed, 0, 0)).first for seed in (3, 4)]
    assert not torch.equal(half[0]["table.weight"], half[1]["table.weight"])


def test_zero_leaves_what_starts_at_zero_and_the_norms(control):
    first = trained(ZerO()).first
    for name in ("layers.0.out.weight", "layers.0.down.weight", "norm.weight", "norm.bias"):
        assert torch.equal(first[name], control.first[name])
    assert first["head.bias"].abs().sum() == 0 < control.first["head.bias"].abs().sum()


class Head(nn.Module):
    """A network of which only the head is untrained."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)


def test_a_checkpoint_keeps_its_weights_but_the_heads():
    network = Head()
    before = network.backbone.weight.clone()
    ZerO().model(lambda: network)
    assert torch.equal(network.backbone.weight, before)
    assert torch.equal(network.head.weight, torch.eye(2))


def test_grad_init_only_scales_and_tells_by_how_much(control):
    run = trained(GradInit(0.5))
    scales = run.training.memory["scales"]
    names = [name for name, _ in run.training.model.named_parameters()]
    assert len(scales) == len(names) and not torch.allclose(scales, torch.ones(len(names)))
    for name, scale in zip(names, scales, strict=True):
        assert torch.allclose(run.first[name], scale * control.first[name], atol=1e-6), name


def first_step(weights, size):
    """The fall that the gradient promises for a first step, and the loss after it."""
    network = TASK.build().eval()
    network.load_state_dict(weights)
    targets = one_hot(TASK.train_labels, TASK.classes)
    batch = Batch(TASK.train, targets.probabilities, targets.weights, targets.indices)
    blocks = list(network.parameters())
    slopes = torch.autograd.grad(loop.task_loss(network(batch.tokens), batch), blocks)
    fall = size * sum(slope.abs().sum() for slope in slopes).item()
    with torch.no_grad():
        for weight, slope in zip(blocks, slopes, strict=True):
            weight -= size * slope.sign()
        return fall, loop.task_loss(network(batch.tokens), batch).item()


def test_grad_init_learns_from_what_the_run_trains_on():
    few, noise = Without(tuple(range(40))), LabelNoise(0.5)
    scales = [
        trained(Composed((*first, GradInit(0.5)))).training.memory["scales"]
        for first in ((), (few,), (noise,))
    ]
    assert not torch.equal(scales[0], scales[1]) and not torch.equal(scales[0], scales[2])
    pairs = methods.overlapping(TASK, loop.build_targets(TASK, few, SEEDS), order=1)
    for both in itertools.islice(pairs, 10):
        assert all(batch.indices.min() >= 40 for batch in both)


def test_grad_init_finds_a_start_from_which_the_first_step_gets_further(control):
    size = TASK.recipe.learning_rate
    run = trained(GradInit(1.0, fall=1e9))  # never bound
    assert first_step(run.first, size)[1] < first_step(control.first, size)[1]


def test_grad_init_makes_a_gradient_that_promises_too_much_smaller(control):
    size = TASK.recipe.learning_rate
    run = trained(GradInit(1.0, fall=0.0))  # always bound
    assert first_step(run.first, size)[0] < first_step(control.first, size)[0]


# ---- where it began


def place(weight, rate=0.1):
    """A training whose network is one linear layer without bias."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([weight])
    optimizer = SimpleNamespace(param_groups=[{"lr": rate}])
    return SimpleNamespace(model=nn.Sequential(layer), memory={}, optimizer=optimizer), layer


def test_start_decay_by_hand():
    training, layer = place([1.0, 2.0])
    StartDecay(0.5).gradient(training, lambda: torch.zeros(()))
    assert layer.weight.tolist() == [[1.0, 2.0]]
    layer.weight.data += 1
    StartDecay(0.5).gradient(training, lambda: torch.zeros(()))
    assert layer.weight.tolist() == [pytest.approx([1.95, 2.95])]  # 0.5 * 0.1 of the way back


@pytest.mark.parametrize("anchor, back", [("start", [1.0, 2.0]), ("zero", [0.0, 0.0])])
def test_mixout_by_hand(anchor, back):
    training, layer = place([1.0, 2.0])
    mixout, met = Mixout(0.5, anchor), []

    def backward():
        met.append(layer.weight.detach().clone())
        layer.weight.grad = torch.ones(1, 2)
        return torch.zeros(())

    mixout.gradient(training, backward)
    layer.weight.data += 1
    met.clear()
    with Stream("dropout", 0):
        for _ in range(20):
            mixout.gradient(training, backward)
    assert layer.weight.tolist() == [[2.0, 3.0]]
    for weight in met:  # back, or as far again beyond: the mean is the weight itself
        for number, start, own in zip(weight[0].tolist(), back, (2.0, 3.0), strict=True):
            assert number in (start, 2 * own - start)
    mean = torch.stack(met).mean((0, 1))
    assert len({tuple(weight[0].tolist()) for weight in met}) == 4 and (mean > 0).all()


def test_mixout_trains_only_the_units_that_are_kept():
    training, layer = place([1.0, 2.0])

    def backward():
        layer.weight.grad = torch.ones(1, 2)
        return torch.zeros(())

    gradients = set()
    with Stream("dropout", 1):
        for _ in range(20):
            Mixout(0.5).gradient(training, backward)
            gradients.add(tuple(layer.weight.grad[0].tolist()))
    assert gradients == {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)}


def test_start_decay_keeps_the_weights_nearer_to_where_they_started(control):
    def far(run):
        network = run.training.model
        return (network.table.weight - run.first["table.weight"]).norm().item()

    assert far(trained(StartDecay(20.0))) < 0.8 * far(control)


# ---- word vectors


PLAIN = CompactShape(
    width=16,
    heads=2,
    buckets=128,
    input_dropout=0.0,
    dropout=0.0,
    skip=0.0,
    output_dropout=0.0,
    word_dropout=0.0,
)


def test_unit_dropout_drops_whole_units_of_a_text_and_keeps_the_mean():
    task = tiny.task(shape=PLAIN)
    with Stream("init", 0):
        wrapper = UnitDropout(0.4).model(task.build)
    network, met = wrapper.network, []
    network.norm.register_forward_hook(lambda module, given, _: met.append(given[0]))
    network.layers = nn.ModuleList()  # words go straight to the norm
    with torch.no_grad(), Stream("dropout", 0):
        wrapper.train()(task.train)
        wrapper.eval()(task.train)
    dropped, whole = met
    text = torch.arange(len(task.train.lengths)).repeat_interleave(task.train.lengths)
    for number in range(10):
        rows = dropped[text == number]
        gone = rows == 0
        assert torch.equal(gone.all(0), gone.any(0)) and 0 < gone[0].sum() < 16
        assert torch.allclose(rows[~gone], whole[text == number][~gone] / 0.6)
    share = np.mean([(dropped[text == i] == 0).all(0).float().mean() for i in range(60)])
    assert share == pytest.approx(0.4, abs=0.05)


def test_unit_dropout_takes_as_much_of_single_numbers_away_as_it_adds():
    with Stream("init", 0):
        shapes = [UnitDropout(rate).model(TASK.build).network.shape for rate in (0.2, 0.4, 0.6)]
    assert [shape.input_dropout for shape in shapes] == [pytest.approx(0.25), 0.0, 0.0]
    with pytest.raises(InputError, match="UnitDropout: got 'Head'; expected a compact one"):
        UnitDropout().model(Head)


def answers_of(mitigation):
    """Both logits of a training pass, of a network that has learned something."""
    with Stream("init", 0):
        wrapper = mitigation.model(TASK.build)
    wrapper.network.load_state_dict(trained(CONTROL).training.model.state_dict())
    wrapper.labels = one_hot(TASK.train_labels, TASK.classes).probabilities
    with Stream("dropout", 0):
        return wrapper.train()(TASK.train).detach()


@pytest.mark.parametrize("kind", [NoiseConsistency, AdversarialConsistency, ContrastiveAdversarial])
def test_both_passes_have_the_same_dropout(kind):
    plain, perturbed = answers_of(kind(1.0, 1e-6))
    assert torch.allclose(plain, perturbed, atol=1e-4)
    with Stream("init", 0):
        network = TASK.build()
    network.load_state_dict(trained(CONTROL).training.model.state_dict())
    with Stream("dropout", 0), torch.no_grad():
        assert torch.equal(network.train()(TASK.train), plain)  # and the first is a plain one
        again = network(TASK.train)
    assert not torch.allclose(again, plain, atol=0.01)
    with Stream("init", 0):
        wrapper = kind().model(TASK.build)
    assert torch.equal(wrapper.eval()(TASK.test), wrapper.network(TASK.test))


def test_both_passes_have_the_dropout_of_the_device(monkeypatch):
    """A GPU draws from a generator of its own: here dropout does."""
    own = torch.Generator().manual_seed(3)

    def dropout(x, rate, training):
        draws = torch.rand(x.shape, generator=own)
        return x * (draws >= rate) / (1 - rate) if training else x

    def put(device, state):
        torch.set_rng_state(state[0])
        own.set_state(state[1])

    monkeypatch.setattr("stabutils.training.networks.dropout", dropout)
    both = lambda device: [torch.get_rng_state(), own.get_state()]  # noqa: E731
    monkeypatch.setattr(methods, "random_state", both)
    monkeypatch.setattr(methods, "set_random_state", put)
    plain, perturbed = answers_of(NoiseConsistency(1.0, 1e-6))
    assert torch.allclose(plain, perturbed, atol=1e-4)


def test_a_perturbed_network_is_asked_with_its_dropout_on():
    probe = PROBES["dropout"]
    kept = train(TASK, NoiseConsistency(), SEEDS, keep=[probe])["kept.dropout"]
    assert kept.shape == (20,) and kept.max() > 0
    in_order = train(TASK, Composed((NoiseConsistency(), GradInit(0.5))), SEEDS)
    assert tiny.same(in_order, train(TASK, Composed((GradInit(0.5), NoiseConsistency())), SEEDS))
    passes = train(TASK, Composed((NoiseConsistency(), MCDropout(3))), SEEDS)
    assert np.allclose(passes["probabilities"].sum(1), 1, atol=1e-5)


def test_the_adversarial_change_does_more_than_noise_of_the_same_size():
    def divergence(kind):
        plain, perturbed = answers_of(kind(1.0, 0.5))
        return symmetric_kl(plain, perturbed).mean().item()

    assert divergence(AdversarialConsistency) > 2 * divergence(NoiseConsistency) > 0


def test_the_contrastive_change_raises_the_loss_of_the_own_label():
    plain, changed = answers_of(ContrastiveAdversarial(1.0, 0.3))
    labels = torch.tensor(TASK.train_labels)
    before, after = (nn.functional.cross_entropy(logits, labels) for logits in (plain, changed))
    assert after > 1.2 * before


def test_noise_is_as_large_as_the_radius_says():
    vectors = torch.randn(50, 16, generator=Stream("x", 0).generator)
    size = vectors.square().mean().sqrt()
    torch.manual_seed(0)
    noise = NoiseConsistency(1.0, 0.5).perturb(None, None, vectors, None)
    assert noise.abs().max() <= 0.5 * size and noise.abs().max() > 0.49 * size
    assert abs(noise.mean()) < 0.05 * size
    step = methods.ascent(torch.randn(50, 16), 0.5, vectors)
    assert torch.allclose(step.abs().amax(1), 0.5 * size.expand(50))


WEIGHTS = torch.tensor([0.5, 1.5])
PAIR = torch.tensor([[[0.0, 0.0], [0.0, np.log(3.0)]], [[0.0, 0.0], [0.0, 0.0]]])


@pytest.mark.parametrize("kind", [NoiseConsistency, AdversarialConsistency])
def test_consistency_by_hand(kind):
    batch = Batch(None, None, WEIGHTS, None)
    loss = kind(0.7).loss(lambda: PAIR, batch, lambda logits: logits.sum())
    divergence = np.log(3) / 4 / 2  # (1/4 - 1/2) log(1/2) + ... halved
    p, q = [0.25, 0.75], [0.5, 0.5]
    assert divergence == pytest.approx((stats.entropy(p, q) + stats.entropy(q, p)) / 2)
    assert loss.item() == pytest.approx(np.log(3) + 0.7 * 1.5 * divergence / 2)


def test_contrast_by_hand():
    plain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.eye(2)[[0, 1, 0]]
    tempered = np.exp(1 / methods.TEMPERATURE)
    # the first and third have the second as rival, at a cosine of 0, and not each other
    alone, two = np.log(1 + 1 / tempered), np.log(1 + 2 / tempered)
    assert contrast(plain, plain, labels).item() == pytest.approx((2 * alone + two) / 3, rel=0.01)
    swapped = plain[[1, 0, 2]]
    assert contrast(plain, swapped, labels) > 1


def test_consistency_brings_the_two_answers_together():
    apart = {}
    for strength in (1e-9, 10.0):
        network = trained(NoiseConsistency(strength)).training.model
        assert network.labels is None  # after a step it is the plain network
        network.labels = one_hot(TASK.train_labels, TASK.classes).probabilities
        with Stream("dropout", 9), torch.no_grad():
            plain, perturbed = network.train()(TASK.train)
        apart[strength] = symmetric_kl(plain, perturbed).mean().item()
    assert apart[10.0] < 0.6 * apart[1e-9]


def test_a_perturbed_network_shows_the_plain_one():
    network = Compact(*TASK.build.args)
    wrapper = Perturbed(network, None).eval()
    assert torch.equal(wrapper(TASK.test), network.eval()(TASK.test))
    assert torch.equal(wrapper.features(TASK.test), network.features(TASK.test))

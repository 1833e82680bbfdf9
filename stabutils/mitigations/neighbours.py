"""Methods of neighbouring papers, made for robustness, fine-tuning or a good start of training.

Each has a strength, with a value at which it is control bit for bit. `docs/neighbours.md`
says how each was carried over from its paper, what did not fit, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice

import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.mitigations.data_centric import DropContested, nearest, only
from stabutils.mitigations.regularizers import ScalarMitigation, doses, symmetric_kl, weighted
from stabutils.training.hooks import knob
from stabutils.training.loop import batch_indices, task_loss
from stabutils.training.networks import Around, Compact
from stabutils.training.state import Batch, Targets, batch_of, random_state, set_random_state
from stabutils.training.task import Task

# -------------------------------------------------------------------------------------- near texts


@dataclass(frozen=True)
class ManifoldSmoothing(ScalarMitigation):
    """Pulls together the predictions of training texts with similar words.

    Adds `strength` times the mean squared distance between the predicted distribution of a text
    and those of its nearest neighbours: the quadratic form of a graph Laplacian. A neighbour's
    prediction is the last one that the run made of it in training, so that a step makes one pass.

    Parameters
    ----------
    strength : at least 0, default ours; 0 is control.
    neighbours : of each text, by the cosine of TF-IDF word vectors.

    References
    ----------
    Belkin et al. 2006, "Manifold Regularization". Jin and Rinard 2020, "Manifold Regularization
    for Locally Stable Deep Neural Networks", keep only edges between random perturbations of one
    input; `NoiseConsistency` has those.
    """

    stacks = False
    strength: float = 1.0
    neighbours: int = knob(10, least=1)

    def begin(self, training):
        shape = len(training.task.train_labels), training.task.classes
        training.memory["near"] = nearest(training.task.train, self.neighbours)
        training.memory["last"] = torch.zeros(shape)

    def loss(self, forward, batch, inner):
        logits = forward()
        probabilities, last = logits.float().softmax(-1), batch.memory["last"]
        near = last[batch.memory["near"][batch.indices]]
        answered = near.sum(-1) > 0  # a neighbour that the first epoch has not come to yet: no
        distance = (probabilities.unsqueeze(-2) - near).square().sum(-1) * answered
        of_one_network = probabilities.detach().reshape(-1, *probabilities.shape[-2:])[0]
        last.index_copy_(0, batch.indices, of_one_network)
        return inner(logits) + self.strength * weighted(distance.mean(-1), batch.weights)


@dataclass(frozen=True)
class DensityMatched(DropContested):
    """Leaves out a share of the training texts; the others have the same density of uncertainty.

    Texts are put in order of the entropy of what a teacher predicts of them at the end of its
    training, and every so-many-th is left out. DRE chooses which texts to label in active learning;
    where all have labels, this is what remains of it.

    Parameters
    ----------
    share : of the texts left out, 0 to 0.9, default ours; 0 is control.

    References
    ----------
    Guo et al. 2023, "DRE: Density-based Data Selection with Entropy for Adversarial-robust Deep
    Learning Models", as described in its abstract.
    """

    neutral = 0.0
    reads_checkpoints = False

    @property
    def dose(self) -> float:
        return self.share

    def learn(self, targets, teachers):
        entropy = torch.special.entr(teachers[:, -1].float().mean(0)).sum(-1)
        order, number = torch.argsort(entropy, stable=True), round(self.share * len(entropy))
        places = (torch.arange(number) + 0.5) * len(order) / max(1, number)
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[order[places.long()]] = False
        return only(targets, kept)


# ----------------------------------------------------------------------------------- first weights


def untrained(model: nn.Module) -> nn.Module:
    """The part of a network that starts untrained: all of a compact one, else the head."""
    compact = any(isinstance(module, Compact) for module in model.modules())
    return model if compact else model.head


@dataclass(frozen=True)
class GradInit(ScalarMitigation):
    """Learns, before training, by how much to scale each block of the first weights.

    The scales minimise the loss after one step along the signs of the gradient, as Adam's first
    step is, while the fall of the loss that the gradient promises for it is at most `fall`; where
    it is more, they first make it less. Batches are the run's own, without dropout. How a scale
    changes the gradient is found by a small step, for lack of second derivatives of attention.

    Parameters
    ----------
    share : steps of learning the scales, as a share of the training's, 0 to 1, default ours; 0 is
        control.
    fall : nats; 0.1 in the authors' script for CIFAR-10.

    References
    ----------
    Zhu et al. 2021, "GradInit: Learning to Initialize Neural Networks for Stable and Efficient
    Training"; details from the authors' code.
    """

    share: float = 0.1
    fall: float = 0.1
    allowed = (0.0, 1.0)
    stacks = False

    @property
    def cost(self):
        return 1.0 + 2 * self.share, 1.0

    def gradient(self, training, backward):
        if "scales" not in training.memory:
            training.model.eval()
            training.memory["scales"] = self.learned(training)
            training.model.train()
        return backward()

    def learned(self, training) -> Tensor:
        """The scale of each block, which the network's weights have from then on."""
        model = getattr(training.model, "kept", training.model)  # of twins
        size = training.task.recipe.learning_rate
        blocks = list(untrained(model).parameters())
        first = [weights.detach().clone() for weights in blocks]
        scales = torch.ones(len(blocks))
        optimizer = torch.optim.Adam([scales], lr=SCALE_RATE)
        steps = round(self.share * training.steps)
        pairs = overlapping(training.task, training.targets, training.seeds.order)
        for batch, next_batch in islice(pairs, steps):
            move_to(blocks, first, scales)
            here = torch.autograd.grad(task_loss(model(batch.tokens), batch), blocks)
            if size * sum(slope.abs().sum() for slope in here) > self.fall:
                move_to(blocks, first, scales, here, SMALL)
                there = torch.autograd.grad(task_loss(model(batch.tokens), batch), blocks)
                change = [(b - a) / SMALL for a, b in zip(here, there, strict=True)]
            else:
                move_to(blocks, first, scales, here, -size)
                after = task_loss(model(next_batch.tokens), next_batch) / size
                change = list(torch.autograd.grad(after, blocks))
            slopes = [(start * slope).sum() for start, slope in zip(first, change, strict=True)]
            scales.grad = torch.stack(slopes)
            optimizer.step()
            scales.clamp_(min=SMALLEST_SCALE)
        move_to(blocks, first, scales)
        return scales


SCALE_RATE, SMALLEST_SCALE, SMALL = 0.01, 0.01, 1e-4


@torch.no_grad()
def move_to(blocks, first, scales, slopes=None, size=0.0) -> None:
    """Weights at their scaled start or, with slopes, a step of `size` along their signs from it."""
    for i, weights in enumerate(blocks):
        weights.copy_(scales[i] * first[i])
        if slopes is not None:
            weights.add_(slopes[i].sign(), alpha=size)


def overlapping(task: Task, targets: Targets, order: int) -> Iterator[tuple[Batch, Batch]]:
    """Batches in the order of a run, without end, each with another that shares half its texts."""
    for epoch in count():
        batches = batch_indices(task, targets, order, epoch)
        for rows, others in zip(batches, batches[1:] + batches[:1], strict=True):
            shared = torch.cat([rows[: len(rows) // 2], others[len(others) // 2 :]])
            yield batch_of(task, targets, rows), batch_of(task, targets, shared)


@dataclass(frozen=True)
class ZerO(ScalarMitigation):
    """Starts from weights that no seed moves: zeros and ones, Hadamard matrices where layers widen.

    Tables of vectors, which the paper leaves open, start from rows of a Hadamard matrix at their
    usual scale; as there are no more such rows than a vector has numbers, words share them. Weights
    that start at zero and those of norms stay as they are, and so do a checkpoint's but the head's.

    Parameters
    ----------
    share : how much of the start is this one, the rest being the random one, 0 to 1; 1 is the
        paper's, 0 is control.

    References
    ----------
    Zhao et al. 2022, "ZerO Initialization: Initializing Neural Networks with only Zeros and Ones".
    """

    share: float = 1.0
    allowed = (0.0, 1.0)

    def model(self, build):
        model = build()
        for module in untrained(model).modules():
            if not isinstance(module, (nn.Linear, nn.Embedding)):
                continue
            if module.weight.any():
                module.weight.data.lerp_(without_chance(module), self.share)
            if isinstance(module, nn.Linear):
                module.bias.data.mul_(1 - self.share)
        return model


def without_chance(module: nn.Linear | nn.Embedding) -> Tensor:
    """The first weights of a layer by ZerO: (outputs, inputs), or (rows, width) of a table.

    >>> without_chance(nn.Linear(2, 3))
    tensor([[ 0.5000,  0.5000],
            [ 0.5000, -0.5000],
            [ 0.5000,  0.5000]])
    """
    rows, width = module.weight.shape
    if isinstance(module, nn.Embedding):
        scale = round(module.weight.std().item(), 2)
        signs = torch.from_numpy(hadamard(power_of_two(width))).float()
        return scale * signs[torch.arange(rows) % len(signs), :width]
    if rows <= width:
        return torch.eye(rows, width)
    size = power_of_two(rows)
    return torch.from_numpy(hadamard(size)).float()[:rows, :width] / size**0.5


def power_of_two(least: int) -> int:
    """The smallest power of two of at least so much: 3 gives 4."""
    return 1 << (least - 1).bit_length()


# ---------------------------------------------------------------------------------- where it began


def layers(
    training, kinds: type[nn.Module] | tuple[type[nn.Module], ...]
) -> list[tuple[Tensor, Tensor]]:
    """The weights of layers of some kinds, and what these were when the training began."""
    memory, pairs = training.memory, []
    for name, module in training.model.named_modules():
        if isinstance(module, kinds):
            if f"start.{name}" not in memory:
                memory[f"start.{name}"] = module.weight.detach().clone()
            pairs.append((module.weight, memory[f"start.{name}"]))
    return pairs


@dataclass(frozen=True)
class StartDecay(ScalarMitigation):
    """Pulls the weights towards where they started, beside the recipe's decay towards zero.

    A checkpoint's start is the same for all runs and worth keeping. That of a network trained from
    scratch is random and each run's own: the pull keeps runs apart, so that it is a counter-test.

    Parameters
    ----------
    strength : of the decoupled pull, times the learning rate, a step; at least 0, default ours; 0
        is control.

    References
    ----------
    Li et al. 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks"
    (L2-SP), who add the squared distance to the loss.
    """

    strength: float = 0.05

    def gradient(self, training, backward):
        pull = min(1.0, self.strength * training.optimizer.param_groups[0]["lr"])
        for weight, start in layers(training, (nn.Linear, nn.Embedding)):
            weight.data.lerp_(start, pull)
        return backward()


@dataclass(frozen=True)
class Mixout(ScalarMitigation):
    """Trains each step with the outgoing weights of some units put back to where they started.

    Of a network trained from scratch these are random weights of each run's own, see `StartDecay`;
    `anchor="zero"` puts them to zero, as dropout of the same units in all texts of a step does,
    which is the same for all runs. Dropout stays on, where the paper's code turns it off.

    Parameters
    ----------
    rate : share of the units of each linear layer, 0 to 0.9, default ours; 0 is control.
    anchor : "start" or "zero".

    References
    ----------
    Lee et al. 2020, "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language
    Models"; details from the authors' code.
    """

    rate: float = 0.1
    anchor: str = knob("start", choices=("start", "zero"))
    allowed = (0.0, 0.9)
    stacks = False

    def gradient(self, training, backward):
        mixed = []
        for weight, start in layers(training, nn.Linear):
            start = start if self.anchor == "start" else torch.zeros(())
            kept = (torch.rand(weight.shape[1]) >= self.rate).to(weight.dtype)
            mixed.append((weight, weight.detach().clone(), kept))
            weight.data = start + (weight.data - start) * kept / (1 - self.rate)
        loss = backward()
        for weight, own, kept in mixed:
            weight.data = own
            if weight.grad is not None:
                weight.grad *= kept
        return loss


# ------------------------------------------------------------------------------------ word vectors


def at_words(network: nn.Module, change: Callable[[Tensor], Tensor]) -> AbstractContextManager:
    """While it is open, a network goes on with what `change` makes of the vectors of words.

    Of a compact one (words, width), after dropout; of a checkpoint (texts, longest, width), before.
    """
    if not isinstance(network, Compact):
        words = network.backbone.get_input_embeddings()
        return words.register_forward_hook(lambda module, given, vectors: change(vectors))
    first = network.layers[0] if len(network.layers) else network.norm
    return first.register_forward_pre_hook(lambda module, given: (change(given[0]), *given[1:]))


class ByUnit(Around):
    """A network that in training drops some units of the word vectors, the same in a whole text."""

    def __init__(self, network: nn.Module, rate: float):
        super().__init__(network)
        self.rate = rate

    def forward(self, tokens):
        if not self.training:
            return self.network(tokens)
        shape = len(tokens.lengths), self.network.shape.width
        kept = (torch.rand(shape) >= self.rate) / (1 - self.rate)
        by_word = kept.repeat_interleave(tokens.lengths, 0)
        with at_words(self.network, lambda vectors: vectors * by_word):
            return self.network(tokens)


@dataclass(frozen=True)
class UnitDropout(ScalarMitigation):
    """Drops whole units of the word vectors in a text, in exchange for dropping single numbers.

    The recipe drops each number of each word by itself (`input_dropout`). Here units go for all
    words of a text, and so many fewer numbers that the chance to go stays the recipe's as long as
    `rate` is at most that. Compact networks only.

    Parameters
    ----------
    rate : share of the units, 0 to 0.9, default ours; 0 is control.

    References
    ----------
    Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks" (spatial
    dropout), as described in the documentation of Keras.
    """

    rate: float = 0.2
    allowed = (0.0, 0.9)

    def model(self, build):
        network = build()
        if not isinstance(network, Compact):
            raise InputError("model of UnitDropout", type(network).__name__, "a compact one")
        shape, kept = network.shape, 1 - self.rate
        single = max(0.0, 1 - (1 - shape.input_dropout) / kept)
        network.shape = replace(shape, input_dropout=single)
        return ByUnit(network, self.rate)


class Perturbed(Around):
    """A network that in the steps of its training answers twice, plainly and with its word vectors
    perturbed, under the same dropout: logits (2, texts, classes).

    perturb: what to add, from the plain logits, the vectors and a function that gives the logits of
    vectors to which something was added. labels: (texts, classes) of a step's batch; None outside
    of steps, where it is the plain network, also one that goes on dropping.
    """

    def __init__(self, network: nn.Module, perturb: Callable[..., Tensor]):
        super().__init__(network)
        self.perturb = perturb
        self.labels: Tensor | None = None

    def forward(self, tokens):
        if self.labels is None or not self.training:
            return self.network(tokens)
        device = self.labels.device
        masks, inputs = random_state(device), []

        def watched(vectors):
            inputs.append(vectors)
            return vectors

        with at_words(self.network, watched):
            logits = self.network(tokens)

        def moved(change):
            outside = random_state(device)
            set_random_state(device, masks)
            with at_words(self.network, lambda vectors: vectors + change):
                logits = self.network(tokens)
            set_random_state(device, outside)
            return logits

        change = self.perturb(self, logits, inputs[0], moved)
        return torch.stack([logits, moved(change)])


def ascent(slope: Tensor, radius: float, vectors: Tensor) -> Tensor:
    """A step up the slope, of which the largest number of each word is `radius` times the root mean
    square of all vectors."""
    largest = slope.abs().amax(-1, keepdim=True).clamp_min(1e-20)
    return radius * size_of(vectors) * slope / largest


def size_of(vectors: Tensor) -> Tensor:
    return vectors.detach().square().mean().sqrt()


@dataclass(frozen=True)
class NoiseConsistency(ScalarMitigation):
    """Predictions with and without random noise on the word vectors must agree (R3F).

    Adds `strength` times their symmetric divergence, under the same dropout, so that it is the
    noise that counts; under different dropout this would be R-Drop.

    Parameters
    ----------
    strength : at least 0, default ours, half of the paper's lambda; 0 is control.
    radius : half-width of the uniform noise, times the root mean square of the vectors, ours.

    References
    ----------
    Aghajanyan et al. 2021, "Better Fine-Tuning by Reducing Representational Collapse"; details
    from the authors' code.
    """

    strength: float = 1.0
    radius: float = knob(1.0, above=0)
    cost = (2.0, 1.0)
    in_pairs = True

    def model(self, build):
        return Perturbed(build(), self.perturb)

    def gradient(self, training, backward):
        training.model.labels = training.batch.probabilities
        try:
            return backward()
        finally:
            training.model.labels = None

    def perturb(self, network, logits, vectors, moved):
        return self.radius * size_of(vectors) * (2 * torch.rand_like(vectors) - 1)

    def loss(self, forward, batch, inner):
        plain, perturbed = forward()
        divergence = weighted(symmetric_kl(plain, perturbed), batch.weights)
        return inner(plain) + self.strength * divergence


@dataclass(frozen=True)
class AdversarialConsistency(NoiseConsistency):
    """Predictions with and without the most harmful small change of the word vectors must agree.

    As `NoiseConsistency`, but for one step up the divergence's slope in place of noise: virtual
    adversarial training, the smoothness term of SMART.

    References
    ----------
    Jiang et al. 2020, "SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language
    Models through Principled Regularized Optimization"; details from the authors' code, without
    its proximal term. Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text
    Classification".
    """

    radius: float = knob(0.2, above=0)
    cost = (3.0, 1.0)

    def perturb(self, network, logits, vectors, moved):
        noise = (0.01 * size_of(vectors) * torch.randn_like(vectors)).requires_grad_()
        target = logits.detach().float().softmax(-1)
        divergence = F.kl_div(moved(noise).float().log_softmax(-1), target, reduction="sum")
        (slope,) = torch.autograd.grad(divergence, noise)
        return ascent(slope, self.radius, vectors)


@dataclass(frozen=True)
class ContrastiveAdversarial(NoiseConsistency):
    """Trains on texts with adversarially changed word vectors too, and contrasts them with others.

    Adds `strength` times the loss of the changed texts and a contrastive loss: the logits of a text
    and of its changed self are to be more alike (cosine) than those of texts of other labels in the
    batch. The change is one step up the slope of the text's own loss.

    References
    ----------
    Pan et al. 2022, "Improved Text Classification via Contrastive Adversarial Training", as
    described in its abstract: to contrast logits, and other labels only, is ours.
    """

    strength: float = 0.3
    radius: float = knob(0.1, above=0)
    cost = (2.5, 1.0)

    def perturb(self, network, logits, vectors, moved):
        loss = F.cross_entropy(logits.float(), network.labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, vectors, retain_graph=True)
        return ascent(slope, self.radius, vectors)

    def loss(self, forward, batch, inner):
        plain, changed = forward()
        alike = contrast(plain, changed, batch.probabilities)
        of_changed = inner(changed)  # before the plain ones, which are the run's answers
        return inner(plain) + self.strength * (of_changed + alike)


TEMPERATURE = 0.1


def contrast(plain: Tensor, changed: Tensor, labels: Tensor) -> Tensor:
    """Mean cost, nats, of telling each text's changed self among those of texts of other labels.

    plain, changed: logits (texts, classes); labels: distributions (texts, classes), of which the
    likeliest class counts.
    """
    one, other = (F.normalize(logits.float(), dim=-1) for logits in (plain, changed))
    answer = labels.argmax(-1)
    rivals = answer[:, None] != answer
    rivals.fill_diagonal_(True)
    likeness = (one @ other.T / TEMPERATURE).masked_fill(~rivals, -torch.inf)
    return F.cross_entropy(likeness, torch.arange(len(one)))


# --------------------------------------------------------------------------------------- catalogue

# The three strengths that tuning tries, weakest first.
CATALOGUE: dict[str, tuple[ScalarMitigation | DensityMatched, ...]] = {
    "manifold smoothing": doses(ManifoldSmoothing, 0.3, 1.0, 3.0),
    "GradInit": doses(GradInit, 0.03, 0.1, 0.3),
    "ZerO": doses(ZerO, 0.5, 0.9, 1.0),
    "density matched": doses(DensityMatched, 0.05, 0.1, 0.2),
    "start decay": doses(StartDecay, 0.05, 0.3, 1.0),
    "mixout": doses(Mixout, 0.05, 0.1, 0.3),
    "mixout to zero": doses(partial(Mixout, anchor="zero"), 0.05, 0.1, 0.3),
    "unit dropout": doses(UnitDropout, 0.1, 0.2, 0.4),
    "noise consistency": doses(NoiseConsistency, 0.3, 1.0, 3.0),
    "adversarial consistency": doses(AdversarialConsistency, 0.3, 1.0, 3.0),
    "contrastive adversarial": doses(ContrastiveAdversarial, 0.1, 0.3, 1.0),
}

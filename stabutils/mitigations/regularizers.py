"""Data-agnostic mitigations: they know nothing about which examples are unstable.

Each has a strength, with a value at which it is control bit for bit. Where a default is
called ours it is a guess to start a tuning from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stabutils.errors import check
from stabutils.training.hooks import Mitigation, check_fields
from stabutils.training.loop import rate
from stabutils.training.networks import Awake, Twins
from stabutils.training.state import Targets, part_of, random_state, set_random_state


@dataclass(frozen=True)
class ScalarMitigation(Mitigation):
    """What those of one number share: the range it must lie in, and the value that makes control of
    them. Other settings have the rule that `knob` gives them, if any.
    """

    allowed = (0.0, math.inf)
    neutral: ClassVar[float | None] = 0.0

    def __post_init__(self):
        (first, *others), (least, most) = fields(self), self.allowed
        kind = int if type(first.default) is int else float
        prefix = f"{type(self).__name__} "
        check(prefix + first.name, self.dose, kind, {"least": least, "most": most})
        ruled = [each for each in others if each.metadata]
        if ruled:  # a user's class without rules may have any annotations
            check_fields(self, ruled, prefix)

    @property
    def dose(self) -> float:
        return getattr(self, fields(self)[0].name)

    @property
    def is_noop(self) -> bool:
        return self.dose == self.neutral


def doses(kind: Callable[[Any], Any], *strengths: float) -> tuple[Any, ...]:
    """A mitigation at several strengths."""
    return tuple(kind(strength) for strength in strengths)


def mixed(targets: Targets, soft: Tensor | float, share: Tensor | float) -> Targets:
    """Targets of which a share is replaced by soft labels (examples, classes)."""
    return targets.with_labels((1 - share) * targets.probabilities + share * soft)


def remembered(training, prefix: str) -> nn.Module:
    """A copy of the network with the weights that stand in memory under a prefix."""
    network = copy.deepcopy(training.model)
    network.load_state_dict(part_of(training.memory, prefix))
    return network


def entropy(logits: Tensor) -> Tensor:
    """Of the predicted distribution: (..., classes) to (...), nats."""
    logs = logits.float().log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """Mean of both Kullback-Leibler divergences of two logits (..., classes): (...), nats; zeros
    are no trouble.
    """
    one, other = one.float().log_softmax(-1), other.float().log_softmax(-1)
    return ((one.exp() - other.exp()) * (one - other)).sum(-1) / 2


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over the texts (last axis) by their weights, as the task's loss has it; summed over
    twins.
    """
    return (values * weights).mean(-1).sum()


# ---- recipe and network


@dataclass(frozen=True)
class WeightDecay(ScalarMitigation):
    """Pulls the weights harder towards zero: `factor` times the recipe's decoupled decay (AdamW).

    Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization". Default ours; 1 is control.
    """

    factor: float = 10.0
    neutral = 1.0

    def recipe(self, recipe):
        return replace(recipe, weight_decay=recipe.weight_decay * self.factor)


@dataclass(frozen=True)
class LongerTraining(ScalarMitigation):
    """Trains `factor` times as many epochs, to the nearest whole one; the learning rate's schedule
    is stretched.

    Mosbach et al. 2021, "On the Stability of Fine-tuning BERT", who train 20 epochs instead of 3.
    Default ours: what other methods of twice the cost are to be held against; 1 is control.
    """

    factor: float = 2.0
    allowed = (0.01, math.inf)
    neutral = 1.0

    def recipe(self, recipe):
        return replace(recipe, epochs=max(1, round(recipe.epochs * self.factor)))


@dataclass(frozen=True)
class WarmUp(ScalarMitigation):
    """Raises the learning rate linearly over the first `share` of the steps instead of the recipe's
    share.

    The default 0.1 is that of Mosbach et al. 2021, "On the Stability of Fine-tuning BERT"; Gilmer
    et al. 2021, "A Loss Curvature Perspective on Training Instability", give the reason. Control is
    the recipe's own share.
    """

    share: float = 0.1
    allowed = (0.0, 1.0)
    neutral = None

    def recipe(self, recipe):
        return replace(recipe, warmup=float(self.share))


@dataclass(frozen=True)
class LearningRate(ScalarMitigation):
    """Trains with `factor` times the recipe's learning rate.

    Whether control's recipe is a fair one: what a method saves, another rate might save for
    nothing. The stable recipe of Mosbach et al. 2021, "On the Stability of Fine-tuning BERT", has a
    small one (2e-5). Default ours; 1 is control.
    """

    factor: float = 0.5
    allowed = (1e-3, 1e3)
    neutral = 1.0

    def recipe(self, recipe):
        return replace(recipe, learning_rate=recipe.learning_rate * self.factor)


@dataclass(frozen=True)
class DropoutRate(ScalarMitigation):
    """Drops more: every dropout rate of the network times `factor`, up to 0.9.

    Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    Default ours; 1 is control.
    """

    factor: float = 1.5
    neutral = 1.0

    def model(self, build):
        model = build()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = self.scaled(module.p)
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = self.scaled(module.dropout)
            if shape := getattr(module, "shape", None):
                names = ("input_dropout", "dropout", "output_dropout")
                rates = {name: self.scaled(getattr(shape, name)) for name in names}
                module.shape = replace(shape, **rates)
        return model

    def scaled(self, rate: float) -> float:
        return min(0.9, rate * self.factor)


# ---- loss


@dataclass(frozen=True)
class LabelSmoothing(ScalarMitigation):
    """Train towards (1 - strength) * one-hot + strength / C instead of one-hot labels.

    strength: share of the target spread evenly over the C classes, 0 .. 1; 0 is control. The
    default 0.1 is the value of the method's paper: Szegedy et al. 2016, "Rethinking the Inception
    Architecture for Computer Vision", section 7.
    """

    strength: float = 0.1
    allowed = (0.0, 1.0)

    def data(self, targets):
        return mixed(targets, 1 / targets.probabilities.shape[1], self.strength)


@dataclass(frozen=True)
class ConfidencePenalty(ScalarMitigation):
    """Rewards uncertainty: the loss minus `strength` times the mean entropy of predictions.

    Pereyra et al. 2017, "Regularizing Neural Networks by Penalizing Confident Output
    Distributions". Default ours.
    """

    strength: float = 0.1
    sign = -1

    def loss(self, forward, batch, inner):
        logits = forward()
        return inner(logits) + self.sign * self.strength * weighted(entropy(logits), batch.weights)


@dataclass(frozen=True)
class MinimumEntropy(ConfidencePenalty):
    """Penalises uncertainty: loss plus `strength` times mean entropy, opposite of the confidence
    penalty.

    Bhojanapalli et al. 2021, "On the Reproducibility of Neural Network Predictions", for less
    churn. Default ours: as large as the opposite's.
    """

    sign = 1


@dataclass(frozen=True)
class RDrop(ScalarMitigation):
    """Two passes with different dropout must agree: their mean loss plus `strength` times their
    symmetric divergence.

    Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks": half of its loss, so its
    alpha is twice our strength. Default ours.
    """

    strength: float = 0.5
    cost = (2.0, 1.0)

    def loss(self, forward, batch, inner):
        one, other = forward(), forward()
        task = (inner(one) + inner(other)) / 2
        return task + self.strength * weighted(symmetric_kl(one, other), batch.weights)


@dataclass(frozen=True)
class CoDistillation(ScalarMitigation):
    """Trains two networks that pull each other's answers together by a symmetric divergence, and
    keeps the first.

    Both learn from the labels too, each with first weights and dropout of its own, and gradients
    reach both. Bhojanapalli et al. 2021, "On the Reproducibility of Neural Network Predictions".
    Default ours.
    """

    strength: float = 1.0
    cost = (2.0, 1.0)

    def model(self, build):
        return Twins(build(), build())

    def loss(self, forward, batch, inner):
        kept, other = forward()
        apart = weighted(symmetric_kl(kept, other), batch.weights)
        of_other = inner(other)  # before the kept one's, which are the run's answers
        return inner(kept) + of_other + self.strength * apart


# ---- flat minima


@dataclass(frozen=True)
class SAM(ScalarMitigation):
    """Descends by the gradient found `radius` uphill, under the same dropout, so that flat minima
    are preferred.

    Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization",
    whose default is 0.05.
    """

    radius: float = 0.05
    cost = (2.0, 1.0)

    def gradient(self, training, backward):
        masks = random_state(training.device)
        backward()
        here = [p for p in training.model.parameters() if p.grad is not None]
        weights = [p.detach().clone() for p in here]
        norm = training.norm([p.grad for p in here]).clamp_min(1e-12)
        for p in here:
            p.data += self.radius * p.grad / training.beside(norm, p)
        set_random_state(training.device, masks)
        loss = backward()
        for p, weight in zip(here, weights, strict=True):
            p.data.copy_(weight)
        return loss


class Averaged(ScalarMitigation):
    """What answers with an average of the weights of many steps, in evaluation mode, shares."""

    def newest(self, training) -> float:
        """What the weights of this step count in the average, 0 .. 1; 0 before there is one."""
        return 1.0

    def step(self, training):
        share, memory = self.newest(training), training.memory
        if not share:
            return
        for name, tensor in training.model.state_dict().items():
            if f"average.{name}" in memory and tensor.is_floating_point():
                memory[f"average.{name}"].lerp_(tensor, share)
            else:
                memory[f"average.{name}"] = tensor.clone()

    def answer(self, training, predict):
        if not part_of(training.memory, "average."):
            return predict(training.model)
        return predict(remembered(training, "average."))


@dataclass(frozen=True)
class EMA(Averaged):
    """Answers with an exponential average of the weights after every step; training itself stays
    control's.

    Churn: Morales-Brotons et al. 2024, "Exponential Moving Average of Weights in Deep Learning:
    Dynamics and Benefits". The default 0.999 is that of Pecher et al. 2024 (DENI). Early on the
    decay is at most (1 + t) / (10 + t) at step t, so that the first weights do not linger; 0 is
    control.
    """

    decay: float = 0.999
    allowed = (0.0, 1.0)

    def newest(self, training):
        return 1 - min(self.decay, (1 + training.step) / (10 + training.step))


@dataclass(frozen=True)
class SWA(Averaged):
    """Answers with the mean of the weights after every step from `start` on, the learning rate held
    from there.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", which
    holds the rate over the last quarter of the training and averages once an epoch; once a step is
    ours, for trainings of few epochs. The rate is never below the one that is held: the warm-up
    begins there too, not at zero. start: share of the training, 0 .. 1; 1 is control.
    """

    start: float = 0.75
    allowed = (0.0, 1.0)
    neutral = 1.0

    def newest(self, training):
        averaged = training.step - round(self.start * training.steps)
        return 1 / averaged if averaged > 0 else 0.0

    def gradient(self, training, backward):
        held = rate(round(self.start * training.steps), training.steps, training.task.recipe.warmup)
        for group in training.optimizer.param_groups:
            group["lr"] = max(group["lr"], group["peak"] * held)
        return backward()


@dataclass(frozen=True)
class MCDropout(ScalarMitigation):
    """Answers with the mean probability of `passes` passes with dropout on; training stays
    control's.

    All that is random in training stays on, so of `compact` the skipped layers and hidden words
    too. Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation". Default ours; 0 passes is
    control: one pass without dropout.
    """

    passes: int = 10

    @property
    def cost(self):
        return 1.0, float(self.passes)

    def answer(self, training, predict):
        network = getattr(training.model, "kept", training.model)
        mode = network.training
        answers = [predict(Awake(network)) for _ in range(self.passes)]
        network.train(mode)
        return torch.stack(answers).mean(0)


# ---- catalogue

# The three strengths that tuning tries, weakest first: a wide span around what the papers or we
# start from.
CATALOGUE: dict[str, tuple[ScalarMitigation, ...]] = {
    "label smoothing": doses(LabelSmoothing, 0.05, 0.15, 0.4),
    "confidence penalty": doses(ConfidencePenalty, 0.1, 0.3, 1.0),
    "minimum entropy": doses(MinimumEntropy, 0.03, 0.1, 0.3),
    "EMA": doses(EMA, 0.8, 0.95, 0.999),
    "SWA": doses(SWA, 0.9, 0.75, 0.5),
    "SAM": doses(SAM, 0.02, 0.05, 0.15),
    "R-Drop": doses(RDrop, 0.3, 1.0, 3.0),
    "co-distillation": doses(CoDistillation, 0.3, 1.0, 3.0),
    "weight decay": doses(WeightDecay, 3.0, 10.0, 30.0),
    "dropout rate": doses(DropoutRate, 1.25, 1.5, 2.0),
    "MC dropout": doses(MCDropout, 3, 10, 20),
    "longer training": doses(LongerTraining, 1.5, 2.0, 3.0),
    "warm-up": doses(WarmUp, 0.1, 0.2, 0.4),
    "learning rate": doses(LearningRate, 0.7, 0.5, 0.3),
}
FAMILIES = {
    "targets": ("label smoothing", "confidence penalty", "minimum entropy"),
    "averaging": ("EMA", "SWA", "SAM"),
    "consistency": ("R-Drop", "co-distillation"),
    "noise": ("weight decay", "dropout rate", "MC dropout"),
    "schedule": ("longer training", "warm-up", "learning rate"),
}
QUICK = ("label smoothing", "EMA", "R-Drop", "MC dropout")

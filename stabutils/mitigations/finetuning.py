"""Mitigations for pretrained checkpoints: where a fine-tuning starts, and how far it may go from
there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.mitigations.regularizers import ScalarMitigation
from stabutils.training.loop import evaluate
from stabutils.training.task import Task


@dataclass(frozen=True)
class LPFT(ScalarMitigation):
    """Start fine-tuning from a fitted head instead of a random one: linear probing, then
    fine-tuning.

    The head's first weights are the logistic regression of what the run trains towards on the
    pretrained vectors of its training texts. No seed moves them, so of a run's three seeds `init`
    decides nothing more. `compact` has no pretrained vectors and is refused.

    Parameters
    ----------
    penalty : float
        Of half the squared norm of the head's weights, beside the cross-entropy summed over the
        texts; 1 is scikit-learn's default. No value is control.

    References
    ----------
    Kumar, Raghunathan, Jones, Ma and Liang 2022, "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution".
    """

    penalty: float = 1.0
    allowed = (1e-6, math.inf)
    neutral = None

    def begin(self, training):
        require_checkpoint(type(self), training.task)
        task, model, targets = training.task, training.model, training.targets
        vectors = evaluate(model, model.features, task.train, task.recipe)
        weight, bias = logistic_regression(
            vectors[targets.indices], targets.probabilities, targets.weights, self.penalty
        )
        for head in model.head.modules():  # of twins two
            if isinstance(head, nn.Linear):
                head.weight.data.copy_(weight)
                head.bias.data.copy_(bias)


def require_checkpoint(kind: type, task: Task) -> None:
    """Raises InputError for a network that is not pretrained."""
    if not task.pretrained:
        model = task.identity["kind"]
        raise InputError("model", model, f"a pretrained checkpoint, which {kind.__name__} needs")


def logistic_regression(
    vectors: Tensor, probabilities: Tensor, weights: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """The multinomial logistic regression of label distributions: a convex problem, solved by
    L-BFGS.

    Parameters
    ----------
    vectors : (texts, width)
    probabilities : (texts, classes)
        The distribution that each text is to be answered with.
    weights : (texts,)
        What each text counts.
    penalty : float
        Of half the squared norm of the weights; the bias is free.

    Returns
    -------
    weight : (classes, width), float64
    bias : (classes,), float64

    Examples
    --------
    Two texts on either side of 0 and two classes: no bias, and weights w and -w, where the slope of
    the loss, 2 / (1 + exp(2 w)), equals that of the penalty.

    >>> x, labels = torch.tensor([[1.0], [-1.0]]), torch.eye(2)
    >>> weight, bias = logistic_regression(x, labels, torch.ones(2), penalty=0.5)
    >>> w = weight[0].item()
    >>> round(2 / (1 + math.exp(2 * w)) - 0.5 * w, 4), bias.abs().max().item() < 1e-4
    (0.0, True)
    """
    x, wanted, count = vectors.double(), probabilities.double(), weights.double()[:, None]
    center = x.mean(0)  # better conditioned without; the bias takes the shift back
    x, classes, width = x - center, wanted.shape[1], x.shape[1]

    def parts(flat: np.ndarray) -> tuple[Tensor, Tensor]:
        weight, bias = torch.from_numpy(flat).split([classes * width, classes])
        return weight.view(classes, width), bias

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = parts(flat)
        logs = (x @ weight.T + bias).log_softmax(1)
        value = penalty / 2 * weight.square().sum() - (count * wanted * logs).sum()
        error = count * (logs.exp() * wanted.sum(1, keepdim=True) - wanted)
        slope = torch.cat([(error.T @ x + penalty * weight).flatten(), error.sum(0)])
        return value.item() / len(x), slope.numpy() / len(x)

    found = minimize(
        objective,
        np.zeros(classes * (width + 1)),
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": 1000, "maxcor": 30, "gtol": 1e-6, "ftol": 1e-11},
    )
    weight, bias = parts(found.x)
    return weight, bias - weight @ center


@dataclass(frozen=True)
class L2SP(ScalarMitigation):
    """Pull the encoder's weights towards the pretrained ones instead of towards zero.

    After each step a weight goes the share `strength` times the learning rate of its way back: the
    decoupled weight decay of AdamW with another origin. The head, which was not pretrained, decays
    towards zero as in control. `compact` has no pretrained weights and is refused.

    Parameters
    ----------
    strength : float
        0 is control. The default is ours.

    References
    ----------
    Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks", where the pull is a term of the loss.
    """

    strength: float = 30.0

    def begin(self, training):
        require_checkpoint(type(self), training.task)
        head = {id(weight) for weight in training.model.head.parameters()}
        for name, weight in training.model.named_parameters():
            if weight.requires_grad and id(weight) not in head:
                training.memory[f"pretrained.{name}"] = weight.detach().clone()
        for group in training.optimizer.param_groups:
            if not any(id(weight) in head for weight in group["params"]):
                group["weight_decay"] = 0.0

    def step(self, training):
        rates = {
            id(weight): group["lr"]
            for group in training.optimizer.param_groups
            for weight in group["params"]
        }
        for name, weight in training.model.named_parameters():
            pretrained = training.memory.get(f"pretrained.{name}")
            if pretrained is not None:
                weight.data.lerp_(pretrained, min(1.0, self.strength * rates[id(weight)]))

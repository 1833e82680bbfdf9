"""Mitigations that know the deployed model: an update is trained to answer like the one it
replaces.

The deployed model of a run with master seed s is control's with seed s - APART, trained on the data
that this seed saw. The run's own data seed decides what the update sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stabutils.errors import InputError
from stabutils.mitigations.data_centric import TGTSS, Checked
from stabutils.training.changes import APART
from stabutils.training.hooks import Mitigation, describe, knob
from stabutils.training.probes import flat
from stabutils.training.state import Seeds


class Successor(Mitigation):
    """What methods that know the deployed model have in common: which one it is."""

    def teacher_seeds(self, seeds):
        if self.is_noop:
            return ()
        if not seeds.init == seeds.order == seeds.dropout >= APART:
            allowed = f"three equal ones of at least {APART}: the deployed model has {APART} less"
            raise InputError("seeds", seeds, allowed)
        number = seeds.init - APART
        data = None if seeds.data is None else seeds.data - APART
        return (Seeds(number, number, number, data),)


@dataclass(frozen=True)
class DeployedLabels(Successor, TGTSS):
    """Train towards labels that are mixed with the deployed model's final answers.

    References
    ----------
    Jiang et al. 2022, "Churn Reduction via Distillation".
    """

    checkpoints: str = "last"
    cost = (1.0, 1.0)

    def __post_init__(self):
        super().__post_init__()
        if self.teachers != 1 or self.shared:
            given = f"teachers {self.teachers}, shared {self.shared}"
            raise InputError("DeployedLabels", given, "one teacher, the run's deployed model")


class _Continued(Successor, Checked):
    teacher_extras = ("weights",)

    def deployed(self, training) -> torch.Tensor:
        """The weights of the deployed model, flat."""
        [weights], count = training.teachers["weights"], flat(training.model).numel()
        if len(weights) != count:
            allowed = f"a network of the {len(weights)} weights of the deployed model"
            raise InputError(describe(training.mitigation), f"{count} weights", allowed)
        return torch.tensor(weights, device=training.device)


@dataclass(frozen=True)
class WarmStart(_Continued):
    """Train on from the deployed model's weights instead of from fresh ones.

    Parameters
    ----------
    shrink : of the deployed weights, what is kept
    noise : what is added of the fresh weights; 1 and 0 is the plain warm start

    References
    ----------
    Ash and Adams 2020, "On Warm-Starting Neural Network Training": shrink and perturb. That the
    perturbation is a fresh network's weights, scaled, is how later work does it.
    """

    shrink: float = knob(1.0, least=0)
    noise: float = knob(0.0, least=0)

    def begin(self, training):
        fresh = flat(training.model)
        start = self.shrink * self.deployed(training) + self.noise * fresh
        torch.nn.utils.vector_to_parameters(start, training.model.parameters())


@dataclass(frozen=True)
class Interpolation(_Continued):
    """Train on from the deployed weights, then answer with a mean of old and new weights.

    Parameters
    ----------
    weight : of the old weights, 0 .. 1; 0 is a warm start

    References
    ----------
    Schumann et al. 2024, "Backward Compatibility During Data Updates by Weight Interpolation"
    (BCWI).
    """

    weight: float = knob(0.5, least=0, most=1)
    stacks = False  # the old weights of each run are needed at each answer

    def begin(self, training):
        WarmStart().begin(training)

    def answer(self, training, predict):
        own = flat(training.model)
        mean = self.weight * self.deployed(training) + (1 - self.weight) * own
        torch.nn.utils.vector_to_parameters(mean, training.model.parameters())
        probabilities = predict(training.model)
        torch.nn.utils.vector_to_parameters(own, training.model.parameters())
        return probabilities


CATALOGUE: dict[str, Mitigation] = {
    "deployed labels": DeployedLabels(),
    "warm start": WarmStart(),
    "shrink and perturb": WarmStart(shrink=0.4, noise=0.1),
    "weight interpolation": Interpolation(),
}

"""Data-agnostic mitigations: they know nothing about which examples are unstable."""
from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from . import Mitigation


@dataclass(frozen=True)
class LabelSmoothing(Mitigation):
    """Train towards (1 - strength) * one-hot + strength / C instead of one-hot labels.

    strength: share of the target spread evenly over the C classes, 0 .. 1; 0 is control. The default 0.1 is the value
    of the method's paper: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.
    """

    strength: float = 0.1

    def __post_init__(self):
        if not 0 <= self.strength <= 1:
            raise InputError("LabelSmoothing strength", self.strength, "a number from 0 to 1")

    def data(self, targets):
        spread = 1 / targets.probabilities.shape[1]
        return targets.towards((1 - self.strength) * targets.probabilities + self.strength * spread)

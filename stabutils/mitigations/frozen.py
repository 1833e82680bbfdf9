"""Freezing: the lower part of a pretrained encoder stays as it is, and costs next to nothing.

What it makes of a text is the same in every step and every run, so it is computed once a text and
not once a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stabutils.errors import InputError
from stabutils.mitigations.regularizers import ScalarMitigation
from stabutils.training.frozen import PartlyFrozen
from stabutils.training.loop import precision
from stabutils.training.networks import Pretrained


@dataclass(frozen=True)
class Frozen(ScalarMitigation):
    """Keep the embeddings and the lowest layers of a pretrained encoder as pretrained.

    The layers above them and the head train as in control. The frozen part is in evaluation mode
    throughout, without dropout, so that the activations of a text are computed once and remembered.
    The answers are those of a training in which these weights have no gradient and these layers no
    dropout. `compact` has no pretrained layers and is refused.

    Parameters
    ----------
    layers : int
        How many layers stay as they are. 0 is control; all of them leave a linear model on
        pretrained vectors. The default is ours.

    References
    ----------
    Lee, Tang and Lin 2019, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning".
    """

    layers: int = 3
    allowed = (0, math.inf)
    neutral = 0

    def model(self, build):
        network = build()
        if not isinstance(network, Pretrained):
            kind = type(network).__name__.lower()
            raise InputError("model", kind, "a pretrained checkpoint, which Frozen needs")
        return PartlyFrozen(network, self.layers)

    def begin(self, training):
        task = training.task
        with precision(task.recipe, training.device):
            training.model.lower.remember((task.train, task.validation, task.test))

"""One network beside a linear model that no seed moves: what they say together changes less.

The linear model is a function of the data alone: of the texts that the run trains on, and of the
validation texts by which its strength and temperature are chosen. Runs share no training's
randomness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stabutils.data.linear import LAST, Linear
from stabutils.metrics.mixtures import KINDS, mix
from stabutils.mitigations.regularizers import ScalarMitigation, mixed
from stabutils.training.features import linear_logits
from stabutils.training.hooks import knob
from stabutils.training.task import Task


class WithLinear(ScalarMitigation):
    """What those that know a linear model share: its settings are fields of theirs."""

    features: str
    classifier: str
    strengths: tuple[float, ...]
    layer: int | str
    brief = True

    def __post_init__(self):
        super().__post_init__()
        _ = self.linear  # raises InputError for settings that are none

    @property
    def linear(self) -> Linear:
        return Linear(self.features, self.classifier, tuple(self.strengths), self.layer)

    def logits(self, task: Task, split: str, rows: Tensor) -> np.ndarray:
        """Calibrated log-probabilities of the linear model of these training examples."""
        return linear_logits(task, self.linear, split, rows)


class AtAnswer(WithLinear):
    """Those whose linear model is asked at an answer; one of frozen vectors costs a pass more."""

    stacks = False  # the anchor of each run is its own

    @property
    def cost(self):
        return 1.0, 1.0 + (self.features != "tfidf")


@dataclass(frozen=True)
class Anchored(AtAnswer):
    """Answers with a mixture of the run's probabilities and those of a linear model (the anchor).

    It mixes what the other mitigations of a run answer: of averaged weights (EMA), of snapshots, of
    passes with dropout. Ours; weight 0 is control.

    Attributes
    ----------
    weight : of the anchor, 0 .. 1; to be chosen on validation (`metrics.mixtures.choose_weight`)
    kind : "geometric" or "arithmetic" mean
    features, classifier, strengths : of the linear model, as in `data.linear.Linear`
    layer : of the checkpoint whose frozen vectors are read, -1 the last, "all" side by side
    """

    weight: float = 0.75
    kind: str = knob("geometric", choices=KINDS)
    features: str = "tfidf"
    classifier: str = "svm"
    strengths: tuple[float, ...] = ()
    layer: int | str = LAST
    allowed = (0.0, 1.0)

    def postprocess(self, training, probabilities):
        rows = training.targets.indices
        anchor = np.exp(self.logits(training.targets.task, training.split, rows))
        both = mix(probabilities.numpy(), anchor, self.weight, self.kind)
        return torch.from_numpy(np.array(both, np.float32))


@dataclass(frozen=True)
class Corrected(AtAnswer):
    """Trains the network as a correction: its logits are added to `scale` times the linear model's.

    The linear logits are a fixed offset while the network trains, those of training texts by models
    fitted without them. A loss of several passes (R-Drop) stands before it, one that looks at what
    the run answers (temporal ensembling) after it. Ours; 0 is control.

    Attributes
    ----------
    scale : 1 starts from the calibrated linear model
    features, classifier, strengths, layer : of the linear model, as in `Anchored`
    """

    scale: float = 0.5
    features: str = "tfidf"
    classifier: str = "svm"
    strengths: tuple[float, ...] = ()
    layer: int | str = LAST

    def offset(self, training, split: str) -> Tensor:
        logits = self.logits(training.targets.task, split, training.targets.indices)
        return self.scale * torch.from_numpy(logits)

    def begin(self, training):
        training.memory["offset"] = self.offset(training, "train").to(training.device)

    def loss(self, forward, batch, inner):
        return inner(forward() + batch.memory["offset"][batch.indices])

    def postprocess(self, training, probabilities):
        logs = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
        return (logs + self.offset(training, training.split)).softmax(-1)


@dataclass(frozen=True)
class AnchorDistillation(WithLinear):
    """Trains towards (1 - mixing) * label + mixing * the answer of linear models without the text.

    Churn distillation (Jiang et al. 2022, "Churn Reduction via Distillation") with a teacher that
    no seed moves. Default ours; 0 is control.

    Attributes
    ----------
    mixing : share of the linear model in the targets, 0 .. 1
    temperature : of the linear model's calibrated probabilities, above 1 flatter
    features, classifier, strengths, layer : of the linear model, as in `Anchored`
    """

    mixing: float = 0.5
    temperature: float = knob(1.0, above=0)
    features: str = "tfidf"
    classifier: str = "svm"
    strengths: tuple[float, ...] = ()
    layer: int | str = LAST
    allowed = (0.0, 1.0)

    def data(self, targets):
        logits = torch.from_numpy(self.logits(targets.task, "train", targets.indices))
        soft = F.softmax(logits[targets.indices] / self.temperature, dim=-1)
        return mixed(targets, soft, self.mixing)

"""Data-centric mitigations: they know which training texts are unstable, from teachers or from the
run itself.

Teachers are control trainings and by default a run's own. `shared=True` has one set of them teach
every run, which couples the runs and flatters their agreement; it is another arm, and its name says
so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stabutils.errors import InputError
from stabutils.metrics.measures import checkpoint_entropy
from stabutils.mitigations.regularizers import ScalarMitigation, mixed, weighted
from stabutils.training.changes import tfidf
from stabutils.training.hooks import Mitigation, atoms, check_fields, knob
from stabutils.training.state import Seeds, Targets
from stabutils.training.task import Tokens

# Seeds from here on are teachers': the m-th own one of the run with master seed s has TEACHERS +
# 100 s + m, and shared ones are run 0's own. Stored runs do not name their teachers: to change this
# is to raise RECIPE_VERSION.
TEACHERS = 100_000
MOST = 100


class Checked(Mitigation):
    """What those share whose every setting is held against its type and rule."""

    def __post_init__(self):
        check_fields(self, fields(self), f"{type(self).__name__} ")


@dataclass(frozen=True, kw_only=True)
class Taught(Checked):
    """What those that learn from earlier trainings have in common: how many, and whether all runs
    have the same.

    Their price counts the teachers, shared ones too: who trains one network pays for its teacher.
    Only runs whose three seeds are equal have teachers of their own.
    """

    teachers: int = knob(1, least=1, most=MOST)
    shared: bool = False
    brief = True
    reads_checkpoints = True

    @property
    def cost(self):
        return 1.0 + self.teachers, 1.0

    def teacher_seeds(self, seeds):
        if self.is_noop:
            return ()
        if not self.shared and not (seeds.init == seeds.order == seeds.dropout < TEACHERS):
            allowed = f"three equal ones below {TEACHERS}, for teachers of the run's own"
            raise InputError("seeds", seeds, allowed)
        first = TEACHERS + (0 if self.shared else MOST * seeds.init)
        numbers = range(first, first + self.teachers)
        return tuple(Seeds(number, number, number, seeds.data) for number in numbers)

    def data(self, targets):
        return self.learn(targets, seen(targets))

    def learn(self, targets: Targets, teachers: Tensor) -> Targets:
        """What is asked for; teachers: probabilities (teachers, checkpoints, n, classes) of those n
        examples.
        """
        return targets


def single_run_entropy(teachers: Tensor) -> Tensor:
    """Entropy of the labels that a teacher gives at its checkpoints, mean over the teachers:
    (examples,), nats.

    teachers: probabilities (teachers, checkpoints, examples, classes). Of one checkpoint: 0.

    >>> once = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    >>> single_run_entropy(torch.stack([once, once.flip(1)])[None, :, :1])
    tensor([0.6931])
    """
    if teachers.shape[1] == 1:
        return torch.zeros(teachers.shape[2])
    return torch.from_numpy(checkpoint_entropy(teachers.argmax(-1).numpy()).mean(0)).float()


def most_unstable(teachers: Tensor, share: float) -> Tensor:
    """Whether an example is in the `share` that teachers changed their minds about most,
    (examples,); ties by order.
    """
    entropy = single_run_entropy(teachers)
    chosen = torch.zeros(len(entropy), dtype=torch.bool)
    chosen[torch.argsort(-entropy, stable=True)[: round(share * len(entropy))]] = True
    return chosen


def seen(targets: Targets) -> Tensor:
    if targets.teachers is None:
        raise InputError("teachers", None, "those of the run, as `study.retrain` hands on")
    return targets.teachers[:, :, targets.indices]


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Softmax of the log-probabilities divided by the temperature: above 1 flatter, below 1
    sharper.

    >>> tempered(torch.tensor([0.8, 0.2]), 0.5)
    tensor([0.9412, 0.0588])
    """
    return (probabilities.float().log() / temperature).softmax(-1)


# ---- soft labels


@dataclass(frozen=True)
class TGTSS(Taught):
    """Trains towards (1 - mixing) * label + mixing * what teachers answered in the course of their
    training, averaged.

    Temporal guided temperature scaled smoothing (Datta et al. 2023, "Measuring and Mitigating Local
    Instability in Deep Neural Networks"), reconstructed from its summary; what that leaves open is
    a field, its default ours. temperature: of the teachers' probabilities, `scaling` them before or
    after they are averaged. checkpoints: all of a teacher's, the later half, or the last. unstable:
    the share of the texts, those with the highest single-run entropy, whose label is softened.
    Control: mixing or unstable 0.
    """

    temperature: float = knob(1.0, above=0)
    mixing: float = knob(0.5, least=0, most=1)
    checkpoints: str = knob("all", choices=("all", "late", "last"))
    scaling: str = knob("after", choices=("after", "before"))
    unstable: float = knob(1.0, least=0, most=1)

    @property
    def is_noop(self):
        return self.mixing == 0 or self.unstable == 0

    @property
    def reads_checkpoints(self):
        return self.checkpoints != "last" or self.unstable < 1

    def soft(self, teachers: Tensor) -> Tensor:
        """What is mixed in, (examples, classes), of probabilities (teachers, checkpoints, examples,
        classes).
        """
        count = teachers.shape[1]
        first = {"all": 0, "late": count // 2, "last": count - 1}[self.checkpoints]
        kept = teachers[:, first:]
        if self.scaling == "before":
            return tempered(kept, self.temperature).mean((0, 1))
        return tempered(kept.float().mean((0, 1)), self.temperature)

    def learn(self, targets, teachers):
        mixing = (self.mixing * most_unstable(teachers, self.unstable))[:, None]
        return mixed(targets, self.soft(teachers), mixing)


def self_distillation(mixing: float = 0.5, shared: bool = False) -> TGTSS:
    """TGTSS without its past: the last answer of one earlier training, as it is (Furlanello et al.
    2018, "Born-Again Neural Networks").
    """
    return TGTSS(mixing=mixing, checkpoints="last", shared=shared)


def ensemble_distillation(teachers: int = 5, mixing: float = 0.5, shared: bool = False) -> TGTSS:
    """The mean of the last answers of several trainings (Hinton et al. 2015, "Distilling the
    Knowledge in a Neural Network").
    """
    return TGTSS(mixing=mixing, checkpoints="last", teachers=teachers, shared=shared)


def churn_distillation(mixing: float = 0.5) -> TGTSS:
    """The last answer of the one network that is in service, for all of its updates: what keeps
    these near to it (Jiang et al. 2022, "Churn Reduction via Distillation").
    """
    return self_distillation(mixing, shared=True)


@dataclass(frozen=True)
class LogitInhibition(Taught):
    """Keeps the logits of the likeliest classes where an ensemble of own teachers has them.

    The loss plus `strength` times the squared difference of log-probabilities from the mean of the
    teachers', mean over the `top` classes that the teachers find likeliest. After Zhao et al. 2022,
    "ELODI: Ensemble Logit Difference Inhibition for Positive-Congruent Training", with
    log-probabilities for logits; the defaults are ours.
    """

    teachers: int = knob(5, least=1, most=MOST)
    strength: float = knob(0.1, least=0)
    top: int = knob(10, least=1)
    reads_checkpoints = False

    @property
    def is_noop(self):
        return self.strength == 0

    def begin(self, training):
        last = training.targets.teachers[:, -1].float()
        training.memory["inhibition"] = last.clamp_min(1e-6).log().mean(0).to(training.device)

    def loss(self, forward, batch, inner):
        logits = forward()
        wanted = batch.memory["inhibition"][batch.indices]
        likeliest = wanted.topk(min(self.top, wanted.shape[1])).indices
        gaps = logits.float().log_softmax(-1) - wanted  # of twins, of both
        gaps = gaps.gather(-1, likeliest.expand(*gaps.shape[:-1], -1))
        distances = gaps.square() * batch.weights[:, None]
        return inner(logits) + self.strength * distances.mean((-2, -1)).sum()


@dataclass(frozen=True)
class MatchedSmoothing(TGTSS):
    """Smooths all labels evenly until their mean entropy is that of TGTSS's targets with the same
    settings.

    The control that tells what TGTSS knows from what any smoothing would do. Ours.
    """

    def learn(self, targets, teachers):
        wanted = super().learn(targets, teachers).probabilities
        strength = match(targets.probabilities, mean_entropy(wanted))
        return targets.with_labels(evenly(targets.probabilities, strength))


def evenly(probabilities: Tensor, strength: float) -> Tensor:
    return (1 - strength) * probabilities + strength / probabilities.shape[1]


def mean_entropy(probabilities: Tensor) -> float:
    """Of distributions (examples, classes): nats."""
    return torch.special.entr(probabilities.double()).sum(1).mean().item()


def match(probabilities: Tensor, entropy: float) -> float:
    """The strength of even smoothing, 0 .. 1, that brings distributions to a mean entropy (by
    bisection); 0 where they have more.

    >>> round(match(torch.eye(2), mean_entropy(torch.tensor([[0.9, 0.1]]))), 6)
    0.2
    """
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if mean_entropy(evenly(probabilities.double(), middle)) < entropy:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True)
class KNNSmoothing(Checked):
    """Trains towards (1 - strength) * label + strength * the mean label of the nearest training
    texts.

    `even` of what is mixed in goes to all classes alike. Bahri and Jiang 2021, "Locally Adaptive
    Label Smoothing for Predictive Churn", who look for neighbours among the logits of an earlier
    training; here they are the texts with the most similar words (TF-IDF, cosine), which takes no
    training and is the same for every run. Defaults ours; strength 0 is control.
    """

    strength: float = knob(0.3, least=0, most=1)
    neighbours: int = knob(10, least=1)
    even: float = knob(0.0, least=0, most=1)
    brief = True

    @property
    def is_noop(self):
        return self.strength == 0

    def data(self, targets):
        near = nearest(targets.texts.take(targets.indices), self.neighbours)
        soft = evenly(targets.probabilities[near].mean(1), self.even)
        return mixed(targets, soft, self.strength)


def nearest(texts: Tokens, neighbours: int) -> Tensor:
    """The texts most similar to each in their words, without itself: (texts, neighbours), or as
    many as there are.
    """
    every, found = torch.arange(len(texts.lengths)), []
    vectors = tfidf(texts, np.float32)
    for block in every.split(1000):
        alike = torch.from_numpy((vectors[block.numpy()] @ vectors.T).toarray())
        alike[torch.arange(len(block)), block] = -1
        found.append(alike.topk(min(neighbours, len(every) - 1)).indices)
    return torch.cat(found)


# ---- online, in one training


class Online(ScalarMitigation):
    """What remembers how it answered the training texts: the answers are those of the steps,
    dropout and all.
    """

    allowed = (0.0, 1.0)

    def begin(self, training):
        parts = atoms(training.mitigation)
        later = parts[parts.index(self) :] if self in parts else []
        for part in later:
            if part.in_pairs:
                given = f"{type(self).__name__} before {type(part).__name__}"
                raise InputError("mitigation", given, "the one that perturbs to stand first")
        shape = len(training.task.train_labels), training.task.classes
        training.memory["answered"] = training.zeros(*shape)

    def pull(self, batch) -> Tensor | None:
        """What the past makes of the labels: distributions (batch, classes), each row as heavy as
        it is to count.
        """

    def loss(self, forward, batch, inner):
        logits = forward()
        logs = logits.float().log_softmax(-1)
        last = logs.detach().exp().reshape(-1, *logs.shape[-2:])[0]  # of twins the kept one
        batch.memory["answered"][batch.indices] = last
        pull = self.pull(batch)
        if pull is None:
            return inner(logits)
        labels = batch.probabilities * pull.sum(-1, keepdim=True)
        return inner(logits) - weighted(((pull - labels) * logs).sum(-1), batch.weights)


@dataclass(frozen=True)
class TemporalEnsembling(Online):
    """Trains towards (1 - strength) * label + strength * the run's own answers so far, from the
    second epoch on.

    The answers to a training text are averaged with weight 1 - decay for the newest, corrected for
    the start. Laine and Aila 2017, "Temporal Ensembling for Semi-Supervised Learning", whose decay
    is 0.6; there the two are pulled together by squared error and ever more, here by cross-entropy
    and evenly. Strength ours; 0 is control.
    """

    strength: float = 0.5
    decay: float = knob(0.6, least=0, most=0.99)

    def pull(self, batch):
        past = batch.memory.get("past")
        return None if past is None else self.strength * past[batch.indices]

    def epoch(self, training):
        answered = training.memory["answered"]
        newest = (1 - self.decay) / (1 - self.decay ** (training.epoch + 1))
        training.memory.setdefault("past", torch.zeros_like(answered)).lerp_(answered, newest)


@dataclass(frozen=True)
class GatedSmoothing(Online):
    """Smooths the label of a training text the more, the more the run has changed its mind about it
    so far.

    By `strength` where it gave another label in every epoch, not at all where always the same:
    strength * single-run entropy / its largest. A gate in one training where TGTSS's `unstable`
    needs a teacher. Ours; 0 is control.
    """

    strength: float = 0.5

    def pull(self, batch):
        if "votes" not in batch.memory:
            return None
        votes = batch.memory["votes"][batch.indices]
        epochs, classes = votes.sum(1, keepdim=True), votes.shape[1]
        entropy = torch.special.entr(votes / epochs).sum(1, keepdim=True)
        gate = entropy / epochs.clamp(2, classes).log()
        return (self.strength / classes * gate).expand(-1, classes)

    def epoch(self, training):
        answered = training.memory["answered"]
        votes = training.memory.setdefault("votes", torch.zeros_like(answered))
        votes += F.one_hot(answered.argmax(-1), votes.shape[-1])


# ---- weights and examples


@dataclass(frozen=True)
class StabilityWeights(Taught):
    """Weighs training texts by how stable teachers found them: slope above 0, unstable ones count
    more; below 0, less.

    Weight (1 + tanh(shift + slope * (1 - 2 * stability))) / 2 over its mean, stability 1 less the
    single-run entropy's share of its largest: that of GAIRAT (Zhang et al. 2021, "Geometry-aware
    Instance-reweighted Adversarial Training"), slope 5 and shift -1, with stability in place of the
    distance to the boundary. As most texts are entirely stable, that would leave them next to
    nothing; the milder defaults are ours. Slope 0 is control.
    """

    slope: float = 1.0
    shift: float = 0.0

    @property
    def is_noop(self):
        return self.slope == 0

    def learn(self, targets, teachers):
        largest = math.log(max(2, min(teachers.shape[1], teachers.shape[3])))
        stability = 1 - single_run_entropy(teachers) / largest
        counts = 1 + torch.tanh(self.shift + self.slope * (1 - 2 * stability))
        weights = targets.weights * counts / 2
        return replace(targets, weights=weights / weights.mean())


@dataclass(frozen=True)
class DropContested(Taught):
    """Leaves out the share of the training texts that teachers changed their minds about most;
    dropping 0 is control.

    The other way round from Swayamdipta et al. 2020, "Dataset Cartography", who keep the most
    variable. Default ours.
    """

    share: float = knob(0.05, least=0, most=0.9)

    @property
    def is_noop(self):
        return self.share == 0

    def learn(self, targets, teachers):
        return only(targets, ~most_unstable(teachers, self.share))


def only(targets: Targets, kept: Tensor) -> Targets:
    """Some of the examples, bool (examples,), in units of their mean weight."""
    part = targets.take(kept)
    return replace(part, weights=part.weights / part.weights.mean())


@dataclass(frozen=True)
class Relabel(DropContested):
    """Gives those training texts the label that teachers gave them at most checkpoints, instead of
    leaving them out.

    Ties go to the label of the higher mean probability. Default ours; 0 is control.
    """

    def learn(self, targets, teachers):
        votes = F.one_hot(teachers.argmax(-1), teachers.shape[-1]).sum((0, 1))
        label = (votes + teachers.float().mean((0, 1)) / 2).argmax(-1)
        majority = F.one_hot(label, teachers.shape[-1]).float()
        contested = most_unstable(teachers, self.share)[:, None]
        return targets.with_labels(torch.where(contested, majority, targets.probabilities))


# ---- catalogue

CATALOGUE: dict[str, Mitigation] = {
    "TGTSS": TGTSS(),
    "TGTSS (shared teacher)": TGTSS(shared=True),
    "TGTSS (unstable half)": TGTSS(unstable=0.5),
    "self-distillation": self_distillation(),
    "ensemble distillation": ensemble_distillation(),
    "churn distillation": churn_distillation(),
    "ELODI": LogitInhibition(),
    "matched smoothing": MatchedSmoothing(),
    "k-NN smoothing": KNNSmoothing(),
    "temporal ensembling": TemporalEnsembling(),
    "gated smoothing": GatedSmoothing(),
    "stability weights": StabilityWeights(),
    "drop contested": DropContested(),
    "relabel contested": Relabel(),
}
QUICK = ("TGTSS", "matched smoothing", "k-NN smoothing", "temporal ensembling")
# What validation chooses TGTSS's settings from; matched smoothing, which knows nothing, has as many
# to choose from.
SETTINGS = [(temperature, mixing) for temperature in (1.0, 2.0, 4.0) for mixing in (0.3, 0.5, 0.7)]


def candidates() -> dict[str, Mitigation]:
    """TGTSS and matched smoothing at each of SETTINGS, by a name that says which."""
    found: dict[str, Mitigation] = {}
    for name, kind in {"TGTSS": TGTSS, "matched smoothing": MatchedSmoothing}.items():
        for temperature, mixing in SETTINGS:
            setting = f"{name}, temperature {temperature:g}, mixing {mixing:g}"
            found[setting] = kind(temperature=temperature, mixing=mixing)
    return found

"""What a training is made of: its seeds, what it trains towards, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.training.passes import precision, predict
from stabutils.training.task import Task, Tokens


class Diverged(ArithmeticError):
    """A training whose loss stopped being a number."""


@dataclass(frozen=True)
class Seeds:
    """The sources of randomness of a run; equal integers under different names are independent.

    data : which training examples the run sees, for studies whose training data change; else None
    """

    init: int
    order: int
    dropout: int
    data: int | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            missing = name == "data" and value is None
            if not missing and (type(value) is not int or value < 0):
                raise InputError(f"{name} seed", value, "an integer of at least 0")

    def identity(self) -> dict[str, int]:
        """What stands in a run's identity: the seeds that are there."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Stream(AbstractContextManager):
    """One named source of randomness: inside `with stream:` torch draws from it, on the CPU and on
    `device`; outside as if nothing had happened."""

    def __init__(self, name: str, *numbers: int, device: torch.device | str = "cpu"):
        seed = np.random.SeedSequence([*name.encode(), *numbers]).generate_state(1, np.uint64)[0]
        seed, self.device = int(seed) & (2**63 - 1), torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.state = [self.generator.get_state()]
        if self.device.type != "cpu":
            self.state.append(torch.Generator(self.device).manual_seed(seed).get_state())

    def __enter__(self):
        self.outside = random_state(self.device)
        set_random_state(self.device, self.state)
        return self

    def __exit__(self, *failure):
        self.state = random_state(self.device)
        set_random_state(self.device, self.outside)


def random_state(device: torch.device) -> list[Tensor]:
    """Where the generators stand that draw for a training on a device: the CPU's, then its own."""
    state = [torch.get_rng_state()]
    if device.type == "cuda":
        state.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        state.append(torch.mps.get_rng_state())
    return state


def set_random_state(device: torch.device, state: list[Tensor]) -> None:
    """Put them where `random_state` found them."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state[1])


@dataclass(frozen=True)
class Targets:
    """What training asks for: examples of the training split, their weight, the label distribution
    to answer with."""

    indices: Tensor  # (n,) int64, rows of the training split; one may occur several times
    probabilities: Tensor  # (n, classes)
    weights: Tensor  # (n,), mean 1
    texts: Tokens | None = None  # of the whole training split, as the network reads them
    # What they made of the whole split: (teachers, checkpoints, examples, classes).
    teachers: Tensor | None = None
    task: Task | None = None  # whose `texts` hold the strings of every split

    def take(self, rows: Tensor) -> Targets:
        """Some of the examples: their rows here, or a bool for each."""
        parts = ("indices", "probabilities", "weights")
        return replace(self, **{name: getattr(self, name)[rows] for name in parts})

    def with_labels(self, probabilities: Tensor) -> Targets:
        return replace(self, probabilities=probabilities)

    def to(self, device: torch.device | str) -> Targets:
        """The same with what a step needs on a device."""
        moved = {
            name: getattr(self, name).to(device) for name in ("indices", "probabilities", "weights")
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Batch:
    """One step's examples, as the loss sees them."""

    tokens: Tokens
    probabilities: Tensor  # (batch, classes)
    weights: Tensor  # (batch,)
    indices: Tensor  # (batch,)
    # The training's own, for a loss that remembers.
    memory: dict[str, Tensor] = field(default_factory=dict)


def batch_of(task: Task, targets: Targets, rows: Tensor) -> Batch:
    """A step on some rows of the targets."""
    part = targets.take(rows)
    tokens = task.train.take(part.indices)
    return Batch(tokens, part.probabilities, part.weights, part.indices)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with a prefix, by the rest of it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in names}


def task_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy towards the target distribution, mean over the batch, nats."""
    losses = F.cross_entropy(logits.float(), batch.probabilities, reduction="none")
    return (losses * batch.weights).mean()


@dataclass
class Training:
    """Where one training stands; what the hooks of a mitigation may read and change.

    Of several runs stacked (`stacked.Stack`), the first axis of every weight, every tensor in
    `memory` and every loss is the run.
    """

    task: Task
    mitigation: Any  # a `hooks.Mitigation`
    seeds: Seeds
    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int  # in the whole training
    step: int = 0
    epoch: int = 0
    batch: Batch | None = None  # what this step trains on
    targets: Targets | None = None  # what the whole training asks for
    split: str = "test"  # of the task, whose texts `answer` and `postprocess` are about
    memory: dict[str, Tensor] = field(default_factory=dict)
    teachers: dict[str, np.ndarray] = field(default_factory=dict)  # their extras, teachers first
    seconds: float = 0.0  # CPU, training and evaluation, over all interrupted pieces

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def stream(self, name: str, *numbers: int) -> Stream:
        """A source of randomness that the dropout seed decides."""
        return Stream(name, self.seeds.dropout, *numbers, device=self.device)

    def goes_on(self, values: Tensor) -> bool:
        """Whether a loss or answers are numbers."""
        return bool(values.isfinite().all())

    def each(self) -> list[Training]:
        """The runs one by one."""
        return [self]

    def joined(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """What was measured on each of them."""
        return rows[0]

    def over_time(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """What was seen at each checkpoint, the checkpoints stacked."""
        return np.stack(rows)

    def zeros(self, *shape: int) -> Tensor:
        """Zeros to keep in `memory`."""
        return torch.zeros(shape, device=self.device)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of tensors like the weights, all of them taken together."""
        return torch.stack([tensor.norm() for tensor in tensors]).norm()

    def beside(self, number: Tensor, weight: Tensor) -> Tensor:
        """A number of each run, such as a norm, in a shape that can multiply the weights."""
        return number

    def backward(self, batch: Batch) -> Tensor:
        """Leaves the gradients of a batch in the parameters and returns its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with precision(self.task.recipe, self.device):
            loss = self.mitigation.loss(
                lambda: self.model(batch.tokens), batch, lambda logits: task_loss(logits, batch)
            )
        loss.backward()
        return loss

    def clip(self, largest: float) -> None:
        """The gradient to a norm of at most `largest`."""
        nn.utils.clip_grad_norm_(self.model.parameters(), largest)

    def predict(self, network: nn.Module, tokens: Tokens) -> Tensor:
        """Probabilities (texts, classes) of a network like the model, on the CPU."""
        return predict(network, tokens, self.task.recipe)


@dataclass(frozen=True)
class Probe:
    """Something that a training is asked to keep beside its answers, and that must not change
    them."""

    name: str
    measure: Callable[[Training], np.ndarray]
    often: bool = False  # at each checkpoint, the results stacked; else once, at the end


def one_hot(labels: np.ndarray, classes: int) -> Targets:
    n = len(labels)
    return Targets(torch.arange(n), F.one_hot(torch.tensor(labels), classes).float(), torch.ones(n))

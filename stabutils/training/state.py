"""One plain loop that trains one run.

Everything random comes from three named seeds, each with a stream of its own, so that one can move while the others
stay: `init` (the first weights), `order` (which examples stand together in which step), `dropout` (what is masked).
Equal task, mitigation and seeds give equal bits on the same machine, library versions and thread count, whether or not
the training was interrupted; elsewhere rounding makes two trainings of the same seeds as different as two seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.errors import InputError
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
    """One named source of randomness: inside `with stream:` torch draws from it, outside as if nothing had happened."""

    def __init__(self, name: str, *numbers: int):
        seed = np.random.SeedSequence([*name.encode(), *numbers]).generate_state(1, np.uint64)[0]
        self.generator = torch.Generator().manual_seed(int(seed) & (2**63 - 1))
        self.state = self.generator.get_state()

    def __enter__(self):
        self.outside = torch.get_rng_state()
        torch.set_rng_state(self.state)
        return self

    def __exit__(self, *failure):
        self.state = torch.get_rng_state()
        torch.set_rng_state(self.outside)


@dataclass(frozen=True)
class Targets:
    """What training asks for: examples of the training split, their weight, the label distribution to answer with."""

    indices: Tensor  # (n,) int64, rows of the training split; one may occur several times
    probabilities: Tensor  # (n, classes)
    weights: Tensor  # (n,), mean 1
    texts: Tokens | None = None  # of the whole training split, as the network reads them
    teachers: Tensor | None = (
        None  # what they made of the whole split: (teachers, checkpoints, examples, classes)
    )
    task: Task | None = None  # whose `texts` hold the strings of every split

    def with_labels(self, probabilities: Tensor) -> Targets:
        return replace(self, probabilities=probabilities)


@dataclass(frozen=True)
class Batch:
    """One step's examples, as the loss sees them."""

    tokens: Tokens
    probabilities: Tensor  # (batch, classes)
    weights: Tensor  # (batch,)
    indices: Tensor  # (batch,)
    memory: dict[str, Tensor] = field(
        default_factory=dict
    )  # the training's own, for a loss that remembers


@dataclass
class Training:
    """Where one training stands; what the hooks of a mitigation may read and change."""

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
    targets: Targets | None = None  # what the whole training asks for
    teachers: dict[str, np.ndarray] = field(default_factory=dict)  # their extras, teachers first
    seconds: float = 0.0  # CPU, training and evaluation, over all interrupted pieces


@dataclass(frozen=True)
class Probe:
    """Something that a training is asked to keep beside its answers, and that must not change them."""

    name: str
    measure: Callable[[Training], np.ndarray]
    often: bool = False  # at each checkpoint, the results stacked; else once, at the end


def one_hot(labels: np.ndarray, classes: int) -> Targets:
    n = len(labels)
    return Targets(torch.arange(n), F.one_hot(torch.tensor(labels), classes).float(), torch.ones(n))

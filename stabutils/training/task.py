"""What a training needs: recipe, tokens, and the task that holds them (`Recipe`, `Tokens`, `Task`).

Texts travel packed: token ids end to end, never padded. `training.preparation` makes a task of a
dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stabutils.data.datasets import Dataset


@dataclass(frozen=True)
class Recipe:
    """How a run is trained; every field can change its answers."""

    epochs: int
    batch_size: int
    learning_rate: float  # peak: linear warm-up, then linear decay to zero
    weight_decay: float
    warmup: float  # share of the steps
    clip: float  # largest gradient norm; 0 does not clip
    head_rate: float  # factor on the learning rate of the head
    bucket: int  # so many batches are sorted by length together; 1 keeps the plain random order
    checkpoints: int  # answers to the test split an epoch; 0 answers it at the end only
    max_length: int  # tokens of a text that are read
    precision: str = "fp32"  # or bf16 (autocast)


@dataclass(frozen=True)
class Tokens:
    """Token ids of several texts end to end (total,), and how many belong to each text (texts,)."""

    ids: Tensor
    lengths: Tensor

    @classmethod
    def pack(cls, texts: Sequence[Sequence[int] | np.ndarray | Tensor]) -> Tokens:
        ids = [np.zeros(0, np.int64), *(np.asarray(text, np.int64) for text in texts)]
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        return cls(torch.from_numpy(np.concatenate(ids)), lengths)

    def take(self, rows: Tensor) -> Tokens:
        """The texts `rows`, in that order, packed again."""
        lengths = self.lengths[rows]
        starts = self.lengths.cumsum(0) - self.lengths
        return Tokens(self.ids[spans(starts[rows], lengths)], lengths)

    def to(self, device: str | torch.device) -> Tokens:
        return Tokens(self.ids.to(device), self.lengths.to(device))


def spans(first: Tensor, lengths: Tensor) -> Tensor:
    """The rows of texts, (total,), of each text's first row and number of rows.

    >>> spans(torch.tensor([5, 0]), torch.tensor([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    shift = first - (lengths.cumsum(0) - lengths)
    rows = torch.arange(int(lengths.sum()), device=lengths.device)
    return rows + shift.repeat_interleave(lengths)


def slots(lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where packed tokens stand in a padded (texts, longest) block: flat slot and position of each
    token (total,), and which slots of the block are taken, bool (texts, longest).
    """
    longest = int(lengths.max())
    taken = torch.arange(longest, device=lengths.device) < lengths[:, None]
    slot = taken.flatten().nonzero()[:, 0]
    return slot, slot % longest, taken


def padded(tokens: Tokens, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Texts as a block (texts, longest) of ids that `pad` fills up, which slots of it are taken,
    and the flat slot of each token (total,).
    """
    slot, _, taken = slots(tokens.lengths)
    padding = torch.full((taken.numel(),), pad, device=slot.device)
    return padding.index_copy(0, slot, tokens.ids).view(taken.shape), taken, slot


@dataclass(frozen=True)
class Task:
    """A dataset as one model sees it, and how to make a fresh network for it (call `build` inside a
    random stream).
    """

    train: Tokens
    validation: Tokens
    test: Tokens
    train_labels: np.ndarray
    validation_labels: np.ndarray
    test_labels: np.ndarray
    classes: int
    build: Callable[[], nn.Module]
    recipe: Recipe
    identity: dict  # of the model, for the identity of a run
    out_of_scope: Tokens | None = None  # test texts that belong to no class, if any
    change: Any = None  # a `changes.Change` of the training data, or None
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # as they are, by split
    cache: Path | None = None  # folder of what is computed once for many runs; None: nowhere

    @property
    def pretrained(self) -> bool:
        """Whether its network starts from a checkpoint."""
        return self.identity["kind"] == "checkpoint"

    def to(self, device: str | torch.device) -> Task:
        """The same with its texts on a device, where the networks that read them are."""
        names = ("train", "validation", "test", "out_of_scope")
        texts = {name: getattr(self, name) for name in names}
        moved = {name: tokens.to(device) for name, tokens in texts.items() if tokens is not None}
        return replace(self, **moved)


def texts_of(data: Dataset) -> dict[str, tuple[str, ...]]:
    """All texts that a network reads, by the name of their field in a task."""
    texts = {name: getattr(data, name).texts for name in ("train", "validation", "test")}
    beside = data.out_of_scope.get("test", ())
    return texts | ({"out_of_scope": beside} if beside else {})


def _task(
    data: Dataset, tokens: dict[str, Tokens], build: Callable, recipe: Recipe, identity: dict
) -> Task:
    return Task(
        train=tokens["train"],
        validation=tokens["validation"],
        test=tokens["test"],
        out_of_scope=tokens.get("out_of_scope"),
        train_labels=data.train.labels,
        validation_labels=data.validation.labels,
        test_labels=data.test.labels,
        classes=len(data.label_names),
        build=build,
        recipe=recipe,
        identity=identity,
        texts=texts_of(data),
    )

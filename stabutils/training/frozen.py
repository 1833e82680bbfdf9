"""A pretrained encoder whose lower part stays as pretrained, so that what it makes of a text is
computed once.

The lower part, the embeddings and the lowest layers, is always in evaluation mode, and none of its
weights is a parameter of the network: no optimiser, average or snapshot has to do with them. Its
activations of the texts that a training comes back to are remembered, in a temporary file where
they are large; those of any other text are computed whenever it is read."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.training.files import content_hash
from stabutils.training.networks import Around, Pretrained, encode, layers_of
from stabutils.training.task import Tokens, padded, slots, spans

IN_MEMORY = 2**27  # bytes of activations; more than that are kept in a temporary file
AT_ONCE = 64  # texts that the lower part reads together


class PassedOn(nn.Module):
    """In place of a layer: hands on its input, and is in all else what the layer is.

    beside: what the layer hands on beside its vectors; None where it hands on these alone.
    """

    def __init__(self, layer: nn.Module, beside: tuple | None):
        super().__init__()
        settings = {name: value for name, value in vars(layer).items() if name[0] != "_"}
        vars(self).update(settings)
        self.beside = beside

    def forward(self, hidden: Tensor, *others: object, **named: object) -> Tensor | tuple:
        return hidden if self.beside is None else (hidden, *self.beside)


class Noted(PassedOn):
    """Keeps its input until somebody takes it."""

    def forward(self, hidden: Tensor, *others: object, **named: object) -> Tensor | tuple:
        self.hidden = hidden
        return super().forward(hidden)

    def taken(self) -> Tensor:
        hidden, self.hidden = self.hidden, None
        return hidden


class Given(nn.Module):
    """In place of the embeddings: hands on the block (texts, longest, width) that it was given,
    whatever the ids."""

    block: Tensor | None = None

    def forward(self, *others: object, **named: object) -> Tensor:
        return self.block


@dataclass(frozen=True)
class Activations:
    """What the lower part makes of some texts: rows (tokens, width), and the first one of each
    text, by its ids."""

    rows: Tensor
    first: dict[bytes, int]

    def of(self, tokens: Tokens) -> Tensor | None:
        """Of these texts, (total, width); None where one of them is not there."""
        first = [self.first.get(key) for key in keys(tokens)]
        if None in first:
            return None
        return self.rows[spans(torch.tensor(first), tokens.lengths.cpu())]


class Lower:
    """The lower part of an encoder: Tokens to packed activations (total, width). Copies of a
    network share it.

    end: stands in place of the first layer above; None where the whole encoder is frozen.
    """

    def __init__(self, backbone: nn.Module, pad: int, end: Noted | None):
        self.backbone, self.pad, self.end = backbone.eval().requires_grad_(False), pad, end
        self.activations: Activations | None = None

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def __deepcopy__(self, memo: dict) -> Lower:
        return self

    def __call__(self, tokens: Tokens) -> Tensor:
        remembered = None if self.activations is None else self.activations.of(tokens)
        return self.compute(tokens) if remembered is None else remembered

    @torch.no_grad()
    def compute(self, tokens: Tokens) -> Tensor:
        ids, taken, slot = padded(tokens, self.pad)
        hidden = encode(self.backbone, ids, taken)
        if self.end is not None:
            hidden = self.end.taken()
        dtype = next(self.backbone.parameters()).dtype
        return hidden.flatten(0, 1)[slot].to(dtype)

    def remember(self, splits: Iterable[Tokens]) -> None:
        """Compute what it makes of all texts of some splits, unless this process has just done so
        for another run."""
        texts: dict[bytes, Tensor] = {}
        for split in splits:
            texts |= zip(keys(split), split.ids.cpu().split(split.lengths.tolist()), strict=True)
        distinct = Tokens.pack([ids.numpy() for ids in texts.values()])
        self.activations = activations(Reading(self, distinct, self.digest(distinct)))

    def digest(self, texts: Tokens) -> str:
        """Of all that decides the activations of texts."""
        state = self.backbone.state_dict()
        weights = {name: tensor.cpu().numpy() for name, tensor in state.items()}
        read = {"the ids": texts.ids.numpy(), "the lengths": texts.lengths.numpy()}
        settings = {
            "config": self.backbone.config.to_json_string(),
            "pad": self.pad,
            "device": str(self.device),
            "half precision": torch.is_autocast_enabled(self.device.type),
            "threads": torch.get_num_threads(),
        }
        return content_hash(weights | read, settings)


@dataclass(frozen=True)
class Reading:
    """Texts that a lower part is to read; equal ones have one digest."""

    lower: Lower = field(compare=False)
    texts: Tokens = field(compare=False)
    digest: str


@lru_cache(maxsize=1)  # the runs of an arm that a process trains one after another share them
def activations(reading: Reading) -> Activations:
    texts = reading.texts
    first, rows = texts.lengths.cumsum(0) - texts.lengths, None
    for chunk in torch.argsort(texts.lengths, stable=True).split(AT_ONCE):
        part = texts.take(chunk)
        computed = reading.lower.compute(part.to(reading.lower.device))
        rows = room(len(texts.ids), computed) if rows is None else rows
        rows[spans(first[chunk], part.lengths)] = computed
    return Activations(rows, dict(zip(keys(texts), first.tolist(), strict=True)))


class PartlyFrozen(Around):
    """A `Pretrained` whose embeddings and lowest `layers` layers stay as they are; all else trains
    as before.

    Raises InputError where the encoder cannot be cut there: it has fewer layers, or its layers hand
    on more than the vectors of the tokens."""

    def __init__(self, network: Pretrained, layers: int):
        super().__init__(network)
        every = layers_of(network.backbone)
        if layers > len(every):
            allowed = f"an integer of at most {len(every)}, the layers of this checkpoint"
            raise InputError("Frozen layers", layers, allowed)
        embeddings, beside = around(network, every[0])
        before = features_of(network)
        backbone = copy.deepcopy(network.backbone)
        above = layers_of(backbone)
        for number in range(layers, len(above)):
            above[number] = Noted(above[number], beside)
        self.lower = Lower(backbone, network.pad, above[layers] if layers < len(above) else None)
        for number in range(layers):
            every[number] = PassedOn(every[number], beside)
        self.given = Given()
        network.backbone.set_submodule(embeddings, self.given)
        network.backbone = network.backbone if layers < len(above) else None
        tolerance = {"rtol": 1e-3, "atol": 1e-4 * before.abs().max().item()}
        if not torch.allclose(before, features_of(self), **tolerance):
            allowed = "an encoder whose layers hand on vectors of tokens and nothing else"
            raise InputError("model", type(backbone).__name__, allowed)

    def forward(self, tokens: Tokens) -> Tensor:
        vectors = F.dropout(self.features(tokens), self.network.dropout, self.training)
        return self.head(vectors)

    def features(self, tokens: Tokens) -> Tensor:
        slot, _, taken = slots(tokens.lengths)
        rows = self.lower(tokens)
        block = rows.new_zeros(taken.numel(), rows.shape[1]).index_copy(0, slot, rows)
        return self.above(block.view(*taken.shape, -1), taken)

    def above(self, block: Tensor, taken: Tensor, encode: Callable = encode) -> Tensor:
        """Vectors (texts, width) of what the lower part made of them, (texts, longest, width)."""
        if self.network.backbone is not None:
            self.given.block = block
            block = encode(self.network.backbone, torch.zeros_like(taken, dtype=torch.int64), taken)
            self.given.block = None
        return self.network.pool(block, taken)

    def _apply(self, fn: Callable, recurse: bool = True) -> PartlyFrozen:
        self.lower.backbone._apply(fn)  # another device or type: what was remembered is of the old
        self.lower.activations = None
        return super()._apply(fn, recurse)


def around(network: Pretrained, first: nn.Module) -> tuple[str, tuple | None]:
    """The name of the module whose output the first layer reads; what stands beside a layer's
    vectors, None where it hands on these alone."""
    outputs: dict[str, object] = {}
    read: list[Tensor] = []
    backbone, handles = network.backbone, []
    for name, module in backbone.named_modules():
        note = partial(outputs.__setitem__, name)
        handles.append(module.register_forward_hook(lambda _, given, made, note=note: note(made)))
    handles.append(first.register_forward_pre_hook(lambda _, given: read.append(given[0])))
    features_of(network)
    for handle in handles:
        handle.remove()
    inside = set(first.modules())
    layer = next(name for name, module in backbone.named_modules() if module is first)
    makers = [
        name
        for name, module in backbone.named_modules()
        if module not in inside and outputs.get(name) is read[0]
    ]
    if not makers:
        allowed = "an encoder whose first layer reads what its embeddings make"
        raise InputError("model", type(backbone).__name__, allowed)
    made = outputs[layer]
    return makers[0], (None,) * (len(made) - 1) if isinstance(made, tuple) else None


@torch.no_grad()
def features_of(network: nn.Module) -> Tensor:
    """Of two short texts, in evaluation mode."""
    was_training = network.training
    features = network.eval().features(Tokens.pack([[0, 1, 2], [0]]))
    network.train(was_training)
    return features


def keys(tokens: Tokens) -> list[bytes]:
    """What tells texts apart: their ids."""
    return [ids.numpy().tobytes() for ids in tokens.ids.cpu().split(tokens.lengths.tolist())]


def room(total: int, rows: Tensor) -> Tensor:
    """Space for `total` rows like these: in memory, or where they are many in a file that goes away
    by itself."""
    shape = total, rows.shape[1]
    if rows.device.type != "cpu" or math.prod(shape) * rows.element_size() <= IN_MEMORY:
        return rows.new_empty(shape)
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, rows.numpy().dtype, "w+", shape=shape))

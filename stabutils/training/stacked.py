"""Several runs at once, their weights stacked (`torch.func`): one pass of a GPU for all of them.

Seeds decide each run's first weights and order exactly as in the plain loop; the device draws
dropout, a mask of its own for each run. All runs of a step need one shape, so texts stand in padded
blocks. A CPU core gains nothing by it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from stabutils.errors import InputError
from stabutils.training.frozen import PartlyFrozen
from stabutils.training.hooks import Mitigation, atoms, describe, overrides
from stabutils.training.loop import batch_indices, diverged, started, trained
from stabutils.training.networks import Awake, Compact, Layer, Pretrained, Twins
from stabutils.training.state import (
    Batch,
    Diverged,
    Probe,
    Seeds,
    Stream,
    Targets,
    Training,
    task_loss,
)
from stabutils.training.task import Task, Tokens, slots


@dataclass(frozen=True)
class Blocks:
    """Padded texts: ids and whether a token stands there, both (texts, longest).

    rows: what a frozen lower part makes of the tokens of all texts, (tokens, width), and `first`
    (texts,) the row of each text's first token; None where nothing is frozen.
    """

    ids: Tensor
    taken: Tensor
    first: Tensor | None = None
    rows: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tokens, device: torch.device, rows: Tensor | None = None) -> Blocks:
        tokens = tokens.to(device)
        taken = slots(tokens.lengths)[2]
        ids = torch.zeros(taken.shape, dtype=torch.int64, device=device)
        first = tokens.lengths.cumsum(0) - tokens.lengths
        return cls(ids.masked_scatter(taken, tokens.ids), taken, first, rows)

    def take(self, rows: Tensor, longest: int) -> Blocks:
        return replace(
            self,
            ids=self.ids[rows, :longest],
            taken=self.taken[rows, :longest],
            first=None if self.first is None else self.first[rows],
        )


# -------------------------------------------------------------------------------------- networks


class CompactBlocks(nn.Module):
    """A `Compact` on padded blocks, with the same answers: Blocks of texts to logits (texts,
    classes)."""

    def __init__(self, network: Compact):
        super().__init__()
        self.network = network
        table = network.table.weight
        self.words = Blocks.of(network.lexicon, table.device)  # rows of it that spell each word
        grams = (self.words.taken.sum(1, keepdim=True) - 1).clamp(min=1)
        self.shares = self.words.taken * grams.to(table.dtype).rsqrt()
        self.shares[:, 0] = 1.0  # the word's own row counts in full

    def forward(self, texts: Blocks) -> Tensor:
        network, shape = self.network, self.network.shape
        x = self.embed(texts.ids) + network.position.weight[: texts.ids.shape[1]]
        x = F.dropout(x, shape.input_dropout, self.training)
        for layer in network.layers:
            x = self.layer(layer, x, texts.taken)
        x, taken = network.norm(x), texts.taken[..., None]
        mean = (x * taken).sum(1) / taken.sum(1)
        highest = x.masked_fill(~taken, -torch.inf).amax(1)
        pooled = torch.cat([mean, highest], 1)
        return network.head(F.dropout(pooled, shape.output_dropout, self.training))

    def embed(self, ids: Tensor) -> Tensor:
        rows = self.words.ids[ids]
        if self.training:
            draws = torch.rand(len(self.shares), device=ids.device)
            hidden = draws < self.network.shape.word_dropout
            rows = torch.cat([rows[..., :1] * ~hidden[ids][..., None], rows[..., 1:]], -1)
        vectors = F.embedding(rows, self.network.table.weight)
        return (self.shares[ids][..., None, :] @ vectors)[..., 0, :]

    def layer(self, layer: Layer, x: Tensor, taken: Tensor) -> Tensor:
        shape, (texts, longest) = layer.shape, taken.shape
        block = layer.qkv(layer.norm1(x)).view(texts, longest, 3, shape.heads, -1)
        q, k, v = block.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, taken[:, None, None, :])
        mixed = layer.out(mixed.transpose(1, 2).reshape(texts, longest, -1))
        mixed = F.dropout(mixed, shape.dropout, self.training)
        fed = layer.down(F.gelu(layer.up(layer.norm2(x + mixed))))
        change = mixed + F.dropout(fed, shape.dropout, self.training)
        if self.training:
            kept = torch.rand(texts, 1, 1, device=x.device) >= shape.skip
            change = change * kept / (1 - shape.skip)
        return x + change


class PretrainedBlocks(nn.Module):
    """A `Pretrained` on padded blocks, with the same answers."""

    def __init__(self, network: Pretrained):
        super().__init__()
        self.network = network

    def forward(self, texts: Blocks) -> Tensor:
        network = self.network
        ids = texts.ids.where(texts.taken, network.pad)
        vectors = network.pool(encode(network.backbone, ids, texts.taken), texts.taken)
        return network.head(F.dropout(vectors, network.dropout, self.training))


class FrozenBlocks(nn.Module):
    """A `PartlyFrozen` on padded blocks whose `rows` are there, with the same answers."""

    def __init__(self, network: PartlyFrozen):
        super().__init__()
        self.network = network

    def forward(self, texts: Blocks) -> Tensor:
        network = self.network
        places = texts.first[:, None] + torch.arange(texts.ids.shape[1], device=texts.ids.device)
        block = texts.rows[places.where(texts.taken, 0)] * texts.taken[..., None]
        vectors = network.above(block, texts.taken, encode)
        return network.head(F.dropout(vectors, network.network.dropout, self.training))


BLOCKS = {Compact: CompactBlocks, Pretrained: PretrainedBlocks, PartlyFrozen: FrozenBlocks}


def blocks_of(network: nn.Module) -> nn.Module:
    """The same network, with the same weights, on padded blocks. Raises InputError for other
    kinds."""
    if type(network) is Twins:
        return Twins(blocks_of(network.kept), blocks_of(network.other))
    if type(network) not in BLOCKS:
        raise InputError("network", type(network).__name__, "one that can be trained stacked")
    return BLOCKS[type(network)](network)


def encode(backbone: nn.Module, ids: Tensor, taken: Tensor) -> Tensor:
    """Last hidden states (texts, longest, width) by a mask that `vmap` can stack.

    It has axes for heads and queries and is used as it is; a plain one would be looked into.
    """
    dtype = next(backbone.parameters()).dtype
    seen = taken[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
    if any(getattr(module, "is_causal", False) for module in backbone.modules()):
        seen = seen.tril()
    lowest = torch.finfo(dtype).min
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, lowest)
    return backbone(input_ids=ids, attention_mask=mask).last_hidden_state


# -------------------------------------------------------------------------------------- training


def refuse(mitigation: Mitigation) -> None:
    """Raises InputError for a mitigation that does not mean the same for many runs at once, by
    name.

    Recipe, data, begin and loss always do; other hooks only those of this package.
    """
    for atom in atoms(mitigation):
        foreign = [
            hook
            for hook in ("model", "gradient", "step", "epoch", "answer", "postprocess")
            if overrides(atom, hook) and not ours(getattr(type(atom), hook))
        ]
        changes = f"which changes the {' and '.join(foreign)}" if foreign else "as it is set"
        if foreign or not atom.stacks:
            raise InputError(
                "mitigation",
                f"{type(atom).__name__}, {changes}",
                "one that changes recipe, data, begin or loss only, to train stacked",
            )


def ours(hook: object) -> bool:
    """Whether this package defines a hook."""
    return hook.__module__.split(".")[0] == __name__.split(".")[0]


def joined(networks: Sequence[nn.Module]) -> nn.Module:
    """A network like these whose weights are theirs, stacked: the first axis is the run."""
    parameters, buffers = stack_module_state(networks)
    holder = copy.deepcopy(networks[0])
    for name, tensor in (parameters | buffers).items():
        place, _, leaf = name.rpartition(".")
        value = nn.Parameter(tensor) if name in parameters else tensor
        setattr(holder.get_submodule(place), leaf, value)
    return holder


class Stack(Training):
    """Several runs under way on one device. Raises InputError where they cannot be stacked."""

    def __init__(
        self,
        task: Task,
        mitigation: Mitigation,
        seeds: Sequence[Seeds],
        device: str,
        teachers: Sequence[Mapping[str, np.ndarray] | None] | None = None,
    ):
        refuse(mitigation)
        teachers = teachers or [None] * len(seeds)
        self.runs = [
            started(task, mitigation, own, taught, device)
            for own, taught in zip(seeds, teachers, strict=True)
        ]
        first = self.runs[0]
        blocks_of(first.model)
        if len({run.steps for run in self.runs}) > 1:
            allowed = "as many training texts in every run, to train stacked"
            raise InputError("mitigation", describe(mitigation), allowed)
        model = joined([run.model for run in self.runs])
        stacked = {id(p): model.get_parameter(name) for name, p in first.model.named_parameters()}
        groups = [
            group | {"params": [stacked[id(p)] for p in group["params"]]}
            for group in first.optimizer.param_groups
        ]
        super().__init__(
            first.task,
            first.mitigation,
            tuple(seeds),
            model,
            torch.optim.AdamW(groups),
            first.steps,
        )
        self.targets = first.targets
        self.memory = {
            name: torch.stack([run.memory[name] for run in self.runs]) for name in first.memory
        }
        stacked_targets = (
            torch.stack([getattr(run.targets, name) for run in self.runs]).to(device)
            for name in ("indices", "probabilities", "weights")
        )
        self.on_device = Targets(*stacked_targets)
        self.lengths = task.train.lengths.cpu()
        self.texts = self.blocks(model, first.task.train)
        self.alive = torch.ones(len(seeds), dtype=torch.bool)

    # ---- what is another thing for one run

    def stream(self, name: str, *numbers: int) -> Stream:
        own = (seeds.dropout for seeds in self.seeds)
        return Stream(f"stack {name}", *own, *numbers, device=self.device)

    def goes_on(self, values: Tensor) -> bool:
        """Notes the runs whose losses or answers are no numbers; whether any other is left."""
        finite = values.reshape(len(self.runs), -1).isfinite().all(1)
        self.alive = self.alive.to(values.device) & finite
        is_loss = values.ndim == 1  # looked at once all steps are done: a look waits for the GPU
        return is_loss or bool(self.alive.any())

    def each(self) -> list[Training]:
        state = self.model.state_dict()
        for number, run in enumerate(self.runs):
            run.model.load_state_dict({name: tensor[number] for name, tensor in state.items()})
            run.memory = {name: tensor[number] for name, tensor in self.memory.items()}
            run.step, run.epoch = self.step, self.epoch
        return self.runs

    def joined(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(rows)

    def over_time(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(rows, axis=1)

    def zeros(self, *shape: int) -> Tensor:
        return super().zeros(len(self.runs), *shape)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        norms = [tensor.reshape(len(tensor), -1).norm(dim=1) for tensor in tensors]
        return torch.stack(norms).norm(dim=0)

    def beside(self, number: Tensor, weight: Tensor) -> Tensor:
        return number.view(-1, *[1] * (weight.ndim - 1))

    # ---- passes

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Precision of the recipe; attention by plain products, the one kernel that `vmap`
        stacks."""
        half = self.task.recipe.precision == "bf16"
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast(self.device.type, torch.bfloat16, half, cache_enabled=False),
        ):
            yield

    def blocks(self, network: nn.Module, tokens: Tokens) -> Blocks:
        rows = network.lower(tokens) if isinstance(network, PartlyFrozen) else None
        return Blocks.of(tokens, self.device, rows)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The steps of one epoch, the rows of each run as its order seed has them."""
        orders = [
            batch_indices(self.task, run.targets, run.seeds.order, epoch) for run in self.runs
        ]
        return map(self.batch_of, zip(*orders, strict=True))

    def batch_of(self, rows: Sequence[Tensor]) -> Batch:
        """One step of every run, each with rows of its own.

        A shorter batch is filled up with texts of its own that do not count.
        """
        size = max(map(len, rows))
        full = torch.stack([torch.cat([r, r[:1].expand(size - len(r))]) for r in rows])
        shares = torch.stack(
            [F.pad(torch.full((len(r),), size / len(r)), (0, size - len(r))) for r in rows]
        )
        lengths = [
            self.lengths[run.targets.indices[r]].max()
            for run, r in zip(self.runs, rows, strict=True)
        ]
        longest = 8 * math.ceil(int(max(lengths)) / 8)
        targets, full = self.on_device, full.to(self.device)
        indices = targets.indices.gather(1, full)
        return Batch(
            self.texts.take(indices, longest),
            targets.probabilities.take_along_dim(full[..., None], 1),
            targets.weights.gather(1, full) * shares.to(self.device),
            indices,
        )

    def backward(self, batch: Batch) -> Tensor:
        blocks = blocks_of(self.model).train()
        tokens, rows = batch.tokens, batch.tokens.rows

        def loss(weights: dict, buffers: dict, ids: Tensor, taken: Tensor, first: Tensor, *own):
            texts = Blocks(ids, taken, first, rows)
            part = Batch(texts, *own)
            return self.mitigation.loss(
                lambda: functional_call(blocks, (weights, buffers), (texts,)),
                part,
                lambda logits: task_loss(logits, part),
            )

        with self.settings():
            gradients, losses = vmap(grad_and_value(loss), randomness="different")(
                dict(blocks.named_parameters()),
                dict(blocks.named_buffers()),
                tokens.ids,
                tokens.taken,
                tokens.first,
                batch.probabilities,
                batch.weights,
                batch.indices,
                batch.memory,
            )
        for name, weight in blocks.named_parameters():
            weight.grad = gradients[name]
        return losses

    def clip(self, largest: float) -> None:
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = self.norm([weight.grad for weight in weights])
        factor = (largest / (norm + 1e-6)).clamp(max=1)
        for weight in weights:
            weight.grad *= self.beside(factor, weight)

    def predict(self, network: nn.Module, tokens: Tokens) -> Tensor:
        """Probabilities (runs, texts, classes), on the CPU; dropout is on where it is kept
        awake."""
        awake = isinstance(network, Awake)
        network = network.network if awake else network
        was_training, blocks = network.training, blocks_of(network).train(awake)
        texts, lengths = self.blocks(network, tokens), tokens.lengths.cpu()
        order = torch.argsort(lengths, stable=True)

        def logits(weights: dict, buffers: dict, part: Blocks) -> Tensor:
            return functional_call(blocks, (weights, buffers), (part,)).float()

        found = []
        with self.settings():
            for rows in order.split(256):
                part = texts.take(rows.to(self.device), int(lengths[rows].max()))
                passed = vmap(partial(logits, part=part), randomness="different")
                found.append(passed(dict(blocks.named_parameters()), dict(blocks.named_buffers())))
        network.train(was_training)
        return torch.cat(found, 1).cpu()[:, torch.argsort(order)].softmax(-1)


def train(
    task: Task,
    mitigation: Mitigation,
    seeds: Sequence[Seeds],
    keep: Sequence[Probe] = (),
    teachers: Sequence[Mapping[str, np.ndarray] | None] | None = None,
    device: str = "cuda",
) -> list[dict[str, np.ndarray] | Diverged]:
    """Train the runs of `seeds` at once.

    Parameters
    ----------
    keep, teachers
        As in `loop.train`; teachers one mapping, or None, a run.

    Returns
    -------
    list
        What each run answered, as `loop.train` returns it, `cpu_seconds` its share of the time; for
        one whose loss became no number, the error. The others are none the worse for it.

    Raises
    ------
    InputError
        For a mitigation that cannot train stacked, by name.
    Diverged
        When no run is left.
    """
    began, stack = time.process_time(), Stack(task, mitigation, seeds, device, teachers)
    answers = trained(stack, stack.batches, [], keep)
    seconds = np.array((time.process_time() - began + stack.seconds) / len(seeds))
    found = []
    for number, alive in enumerate(stack.alive.tolist()):
        own = {name: rows[number] for name, rows in answers.items()} | {"cpu_seconds": seconds}
        found.append(own if alive else diverged(stack, "the loss became no number"))
    return found

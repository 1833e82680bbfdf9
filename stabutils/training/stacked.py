"""The training loop for several runs at once, their weights stacked (`torch.func`): one pass of a GPU for all of them.

Seeds decide each run's first weights and order exactly as in `training.train`; the device draws dropout, a mask of its
own for each run. All runs of a step need one shape, so texts stand in padded blocks. A CPU core gains nothing by it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
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
from stabutils.training.hooks import Mitigation, atoms, overrides
from stabutils.training.loop import batch_indices, build_targets, optimizer_of, rate, task_loss
from stabutils.training.networks import Compact, Layer, Pretrained
from stabutils.training.state import Batch, Diverged, Seeds, Stream
from stabutils.training.task import Task, Tokens, slots


@dataclass(frozen=True)
class Blocks:
    """Padded texts: ids and whether a token stands there, both (texts, longest)."""

    ids: Tensor
    taken: Tensor

    @classmethod
    def of(cls, tokens: Tokens, device: torch.device) -> Blocks:
        taken = slots(tokens.lengths)[2]
        return cls(
            torch.zeros(taken.shape, dtype=torch.int64)
            .masked_scatter(taken, tokens.ids)
            .to(device),
            taken.to(device),
        )

    def take(self, rows: Tensor, longest: int) -> Blocks:
        return Blocks(self.ids[rows, :longest], self.taken[rows, :longest])


# ---------------------------------------------------------------------------------------------------- networks


class CompactBlocks(nn.Module):
    """A `Compact` on padded blocks, with the same answers: Blocks of texts to logits (texts, classes)."""

    def __init__(self, network: Compact):
        super().__init__()
        self.network = network
        self.words = Blocks.of(
            network.lexicon, network.table.weight.device
        )  # rows of the table that spell each word
        grams = (
            (self.words.taken.sum(1, keepdim=True) - 1).clamp(min=1).to(network.table.weight.dtype)
        )
        self.shares = self.words.taken * grams.rsqrt()
        self.shares[:, 0] = 1.0  # the word's own row counts in full

    def forward(self, texts: Blocks) -> Tensor:
        network, shape = self.network, self.network.shape
        x = self.embed(texts.ids) + network.position.weight[: texts.ids.shape[1]]
        x = F.dropout(x, shape.input_dropout, self.training)
        for layer in network.layers:
            x = self.layer(layer, x, texts.taken)
        x, taken = network.norm(x), texts.taken[..., None]
        pooled = torch.cat(
            [(x * taken).sum(1) / taken.sum(1), x.masked_fill(~taken, -torch.inf).amax(1)], 1
        )
        return network.head(F.dropout(pooled, shape.output_dropout, self.training))

    def embed(self, ids: Tensor) -> Tensor:
        rows = self.words.ids[ids]
        if self.training:
            hidden = (
                torch.rand(len(self.shares), device=ids.device) < self.network.shape.word_dropout
            )
            rows = torch.cat([rows[..., :1] * ~hidden[ids][..., None], rows[..., 1:]], -1)
        return (self.shares[ids][..., None, :] @ F.embedding(rows, self.network.table.weight))[
            ..., 0, :
        ]

    def layer(self, layer: Layer, x: Tensor, taken: Tensor) -> Tensor:
        shape, (texts, longest) = layer.shape, taken.shape
        q, k, v = (
            layer.qkv(layer.norm1(x))
            .view(texts, longest, 3, shape.heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, taken[:, None, None, :])
        mixed = layer.out(mixed.transpose(1, 2).reshape(texts, longest, -1))
        mixed = F.dropout(mixed, shape.dropout, self.training)
        change = mixed + F.dropout(
            layer.down(F.gelu(layer.up(layer.norm2(x + mixed)))), shape.dropout, self.training
        )
        if self.training:
            change = (
                change * (torch.rand(texts, 1, 1, device=x.device) >= shape.skip) / (1 - shape.skip)
            )
        return x + change


class PretrainedBlocks(nn.Module):
    """A `Pretrained` on padded blocks, with the same answers."""

    def __init__(self, network: Pretrained):
        super().__init__()
        self.network = network
        self.causal = any(
            getattr(module, "is_causal", False) for module in network.backbone.modules()
        )

    def forward(self, texts: Blocks) -> Tensor:
        network, longest, dtype = self.network, texts.ids.shape[1], self.network.head.weight.dtype
        # A mask that has axes for heads and queries is used as it is; a plain one would be looked into.
        seen = texts.taken[:, None, None, :].expand(-1, -1, longest, -1)
        seen = seen.tril() if self.causal else seen
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )
        ids = texts.ids.where(texts.taken, network.pad)
        hidden = network.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return network.head(
            F.dropout(network.pool(hidden, texts.taken), network.dropout, self.training)
        )


BLOCKS = {Compact: CompactBlocks, Pretrained: PretrainedBlocks}


# ---------------------------------------------------------------------------------------------------- training


def refuse(mitigation: Mitigation) -> None:
    """Only recipe, data and loss mean the same for one run and for many at once."""
    for atom in atoms(mitigation):
        if hooks := [
            hook
            for hook in ("model", "gradient", "step", "epoch", "answer", "postprocess")
            if overrides(atom, hook)
        ]:
            raise InputError(
                "mitigation",
                f"{type(atom).__name__}, which changes the {' and '.join(hooks)}",
                "one that changes recipe, data or loss only, to train stacked",
            )


class Stack:
    """Several runs under way on one device; the first axis of every parameter is the run."""

    def __init__(self, task: Task, mitigation: Mitigation, seeds: Sequence[Seeds], device: str):
        refuse(mitigation)
        self.task = task = replace(task, recipe=mitigation.recipe(task.recipe))
        self.mitigation, self.seeds, self.device = mitigation, seeds, torch.device(device)
        networks = [self.fresh(seed) for seed in seeds]
        kind = type(networks[0])
        if kind not in BLOCKS:
            raise InputError("model", kind.__name__, "compact or a checkpoint, to train stacked")
        modules = [BLOCKS[kind](network) for network in networks]
        self.base, (self.parameters, self.buffers) = modules[0], stack_module_state(modules)
        self.optimizer = optimizer_of(networks[0], task.recipe)
        stacked = {id(p): self.parameters[name] for name, p in self.base.named_parameters()}
        for group in self.optimizer.param_groups:
            group["params"] = [stacked[id(p)] for p in group["params"]]
        self.targets = build_targets(task, mitigation, seeds[0])
        moved = {
            name: getattr(self.targets, name).to(self.device)
            for name in ("indices", "probabilities", "weights")
        }
        self.on_device = replace(self.targets, **moved)
        self.texts = Blocks.of(task.train, self.device)
        self.steps = task.recipe.epochs * math.ceil(
            len(self.targets.indices) / task.recipe.batch_size
        )
        self.step_number = 0

    def fresh(self, seeds: Seeds) -> nn.Module:
        with Stream("init", seeds.init):
            return self.task.build().to(self.device)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Precision of the recipe; attention by plain products, the one kernel that `vmap` knows how to stack."""
        half = self.task.recipe.precision == "bf16"
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast(self.device.type, torch.bfloat16, half, cache_enabled=False),
        ):
            yield

    def loss(
        self, parameters: dict, buffers: dict, rows: Tensor, shares: Tensor, longest: int
    ) -> Tensor:
        """Of one run at one step."""
        targets = self.on_device
        indices = targets.indices[rows]
        batch = Batch(
            self.texts.take(indices, longest),
            targets.probabilities[rows],
            targets.weights[rows] * shares,
            indices,
        )
        return self.mitigation.loss(
            lambda: functional_call(self.base, (parameters, buffers), (batch.tokens,)),
            batch,
            lambda logits: task_loss(logits, batch),
        )

    def step(self, rows: Sequence[Tensor]) -> Tensor:
        """One step of every run, each with rows of its own; their losses (runs,)."""
        size = max(map(len, rows))  # a shorter batch is filled up with texts that do not count
        shares = torch.stack(
            [F.pad(torch.full((len(r),), size / len(r)), (0, size - len(r))) for r in rows]
        )
        filled = torch.stack([F.pad(r, (0, size - len(r))) for r in rows])
        longest = 8 * math.ceil(
            int(self.task.train.lengths[self.targets.indices[filled]].max()) / 8
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate(
                self.step_number, self.steps, self.task.recipe.warmup
            )
        self.base.train()
        with self.settings():
            gradients, losses = vmap(
                grad_and_value(partial(self.loss, longest=longest)), randomness="different"
            )(self.parameters, self.buffers, filled.to(self.device), shares.to(self.device))
        if self.task.recipe.clip:
            clip(gradients.values(), self.task.recipe.clip)
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        self.optimizer.step()
        self.step_number += 1
        return losses

    def predict(self, tokens: Tokens, size: int = 256) -> Tensor:
        """Probabilities (runs, texts, classes), float32, in evaluation mode."""
        self.base.eval()
        texts, order = Blocks.of(tokens, self.device), torch.argsort(tokens.lengths, stable=True)

        def logits(parameters: dict, buffers: dict, part: Blocks) -> Tensor:
            return functional_call(self.base, (parameters, buffers), (part,)).float()

        with self.settings():
            found = [
                vmap(
                    partial(
                        logits,
                        part=texts.take(rows.to(self.device), int(tokens.lengths[rows].max())),
                    )
                )(self.parameters, self.buffers)
                for rows in order.split(size)
            ]
        return torch.cat(found, 1)[:, torch.argsort(order)].softmax(-1).cpu()


def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Each run's gradient to a norm of at most `largest`, in place."""
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    factor = (largest / (norms + 1e-6)).clamp(max=1)
    for g in gradients:
        g *= factor.view(-1, *[1] * (g.ndim - 1))


def train(
    task: Task,
    mitigation: Mitigation,
    seeds: Sequence[Seeds],
    device: str = "cuda",
) -> list[dict[str, np.ndarray]]:
    """Train the runs of `seeds` at once; what each of them answered, as from `training.train`.

    `cpu_seconds` is a run's share of the time. Raises InputError for a mitigation that cannot train stacked, by name,
    and Diverged when the loss of a run is no number.
    """
    began, stack = time.process_time(), Stack(task, mitigation, seeds, device)
    recipe, seen = stack.task.recipe, []
    epoch_steps = stack.steps // recipe.epochs
    watched = {
        math.ceil(epoch_steps * k / recipe.checkpoints) for k in range(1, recipe.checkpoints + 1)
    }
    with torch.random.fork_rng([stack.device] if stack.device.type == "cuda" else []):
        torch.manual_seed(Stream("stack", *(s.dropout for s in seeds)).generator.initial_seed())
        for epoch in range(recipe.epochs):
            orders = [batch_indices(stack.task, stack.targets, s.order, epoch) for s in seeds]
            for done, rows in enumerate(zip(*orders, strict=True), start=1):
                losses = stack.step(rows)
                if done in watched:
                    seen.append(stack.predict(task.test))
            if not losses.isfinite().all():
                lost = [
                    s.init
                    for s, loss in zip(seeds, losses.tolist(), strict=True)
                    if not math.isfinite(loss)
                ]
                raise Diverged(
                    f"the loss became no number in epoch {epoch + 1} of {recipe.epochs}, init seeds {lost}, "
                    f"learning rate {recipe.learning_rate}; a lower one usually helps"
                )
    test, validation = torch.stack(seen, 1), stack.predict(task.validation)
    if not (
        test[:, -1].isfinite().all() and validation.isfinite().all()
    ):  # the last step ruined the weights
        raise Diverged(
            f"the answers are no numbers at a learning rate of {recipe.learning_rate}; a lower one usually "
            "helps"
        )
    gold = torch.tensor(task.test_labels).expand(*test.shape[:3])[..., None]
    answers = {
        "labels": test[:, -1].argmax(-1),
        "probabilities": test[:, -1],
        "checkpoints": test.argmax(-1),
        "confidence": test.gather(-1, gold)[..., 0],
        "validation_labels": validation.argmax(-1),
        "validation_probabilities": validation,
    }
    seconds = np.array((time.process_time() - began) / len(seeds))
    return [
        {name: rows[i].numpy() for name, rows in answers.items()} | {"cpu_seconds": seconds}
        for i in range(len(seeds))
    ]

"""One pass of a network over texts: what it answers in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from stabutils.training.task import Recipe, Tokens


def precision(recipe: Recipe, device: torch.device | str = "cpu") -> AbstractContextManager:
    """Where passes are computed as the recipe says."""
    if recipe.precision != "bf16":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def predict(model: nn.Module, tokens: Tokens, recipe: Recipe, size: int = 256) -> Tensor:
    """Probabilities (texts, classes), float32, in evaluation mode; the model's mode is as before
    afterwards."""
    return evaluate(model, model, tokens, recipe, size).softmax(-1)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    part: Callable[[Tokens], Tensor],
    tokens: Tokens,
    recipe: Recipe,
    size: int = 256,
) -> Tensor:
    """What `part` of the model makes of texts, (texts, width) on the CPU, as `predict` does."""
    was_training = model.training
    model.eval()
    order = torch.argsort(tokens.lengths, stable=True)
    with precision(recipe, order.device):
        rows = torch.cat([part(tokens.take(rows)).float() for rows in order.split(size)]).cpu()
    model.train(was_training)
    return torch.empty_like(rows).index_copy_(0, order.cpu(), rows)

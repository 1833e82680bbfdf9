"""What people would use: the compact network on padded blocks, trained by Hugging Face's Trainer or a plain loop.

Same architecture, same weights, same answers as `stabutils.models.Compact` (a test holds the two against each other);
every layer computes the padding too.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.models import Compact, Task, Tokens


class Padded(nn.Module):
    """The layers of a `Compact` applied to padded blocks: ids and mask (texts, longest), logits (texts, classes)."""

    def __init__(self, compact: Compact):
        super().__init__()
        self.compact = compact

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        compact, shape = self.compact, self.compact.shape
        texts, longest = input_ids.shape
        taken = attention_mask.bool()
        x = compact.embed(input_ids.flatten()).view(texts, longest, -1)
        x = F.dropout(x + compact.position(torch.arange(longest)), shape.input_dropout, self.training)
        for layer in compact.layers:
            keep = (torch.rand(texts, 1, 1) >= shape.skip) / (1 - shape.skip) if self.training else 1.0
            q, k, v = layer.qkv(layer.norm1(x)).view(texts, longest, 3, shape.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, taken[:, None, None, :])
            mixed = layer.out(mixed.transpose(1, 2).reshape(texts, longest, -1))
            x = x + keep * F.dropout(mixed, shape.dropout, self.training)
            x = x + keep * F.dropout(layer.down(F.gelu(layer.up(layer.norm2(x)))), shape.dropout, self.training)
        x = compact.norm(x)
        highest = x.masked_fill(~taken[..., None], -torch.inf).amax(1)
        mean = (x * taken[..., None]).sum(1) / taken.sum(1, keepdim=True)
        pooled = F.dropout(torch.cat([mean, highest], 1), shape.output_dropout, self.training)
        logits = compact.head(pooled)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Texts(torch.utils.data.Dataset):
    """The training split as Trainer expects it: one dictionary a text."""

    def __init__(self, task: Task):
        self.texts, self.labels = task.train.ids.split(task.train.lengths.tolist()), task.train_labels

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> dict:
        return {"input_ids": self.texts[row], "labels": int(self.labels[row])}


def collate(rows: list[dict]) -> dict[str, Tensor]:
    """A batch padded to its longest text."""
    return pad(Tokens.pack([row["input_ids"] for row in rows])) | {"labels": torch.tensor([r["labels"] for r in rows])}


def pad(tokens: Tokens) -> dict[str, Tensor]:
    slot, _, taken = tokens.slots()
    ids = torch.zeros(taken.numel(), dtype=torch.int64).index_copy(0, slot, tokens.ids).view(taken.shape)
    return {"input_ids": ids, "attention_mask": taken.long()}


def trainer(task: Task, network: nn.Module, steps: int, folder: str):
    """Hugging Face's Trainer at the task's recipe, without evaluation, checkpoints or reports."""
    from transformers import Trainer, TrainingArguments

    recipe = task.recipe
    arguments = TrainingArguments(
        folder, max_steps=steps, per_device_train_batch_size=recipe.batch_size, learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay, warmup_steps=round(recipe.warmup * steps), lr_scheduler_type="linear",
        optim="adamw_torch", save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False, seed=0)
    return Trainer(network, arguments, train_dataset=Texts(task), data_collator=collate)


def plain_loop(task: Task, network: nn.Module, steps: int) -> None:
    """The loop of a tutorial: random batches padded to their longest text, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.recipe.learning_rate)
    loader = torch.utils.data.DataLoader(Texts(task), task.recipe.batch_size, shuffle=True, collate_fn=collate)
    network.train()
    for _, batch in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        network(**batch)["loss"].backward()
        optimizer.step()

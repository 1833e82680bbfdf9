"""What people would use: the compact network on padded blocks, trained by Hugging Face's Trainer or
a plain loop.

Same architecture, same weights, same answers as the package's `Compact` (a test holds the two
against each other); every layer computes the padding too, and the texts that pass it by.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.training.networks import Compact, Pretrained
from stabutils.training.stacked import Blocks, CompactBlocks
from stabutils.training.task import Task, Tokens


class Padded(CompactBlocks):
    """As Trainer calls it: ids and mask (texts, longest) to logits (texts, classes), and a loss
    where labels come."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        logits = super().forward(Blocks(input_ids, attention_mask.bool()))
        return (
            {"logits": logits}
            if labels is None
            else {"loss": F.cross_entropy(logits, labels), "logits": logits}
        )

    def embed(self, ids: Tensor) -> Tensor:
        """On a CPU every distinct word is spelled once, as ours does: the comparison is about all
        the rest."""
        if ids.device.type == "cpu":
            return self.network.embed(ids.flatten()).view(*ids.shape, -1)
        return super().embed(ids)


class PaddedPretrained(nn.Module):
    """A checkpoint as Trainer calls it: ids and mask (texts, longest) to logits, and a loss where
    labels come."""

    def __init__(self, network: Pretrained):
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        network, taken = self.network, attention_mask.bool()
        ids = input_ids.where(taken, network.pad)
        hidden = network.backbone(input_ids=ids, attention_mask=attention_mask).last_hidden_state
        vectors = F.dropout(network.pool(hidden, taken), network.dropout, self.training)
        logits = network.head(vectors)
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def of(network: nn.Module) -> nn.Module:
    """The same network as Trainer calls it."""
    return (Padded if isinstance(network, Compact) else PaddedPretrained)(network)


class Texts(torch.utils.data.Dataset):
    """The training split as Trainer expects it: one dictionary a text."""

    def __init__(self, task: Task):
        self.texts, self.labels = (
            task.train.ids.split(task.train.lengths.tolist()),
            task.train_labels,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> dict:
        return {"input_ids": self.texts[row], "labels": int(self.labels[row])}


def collate(rows: list[dict]) -> dict[str, Tensor]:
    """A batch padded to its longest text."""
    return pad(Tokens.pack([row["input_ids"] for row in rows])) | {
        "labels": torch.tensor([r["labels"] for r in rows])
    }


def pad(tokens: Tokens) -> dict[str, Tensor]:
    block = Blocks.of(tokens, torch.device("cpu"))
    return {"input_ids": block.ids, "attention_mask": block.taken.long()}


def trainer(
    task: Task,
    network: Padded,
    steps: int,
    folder: str,
    seed: int = 0,
    device: str = "cpu",
    callbacks=(),
):
    """Hugging Face's Trainer at the task's recipe, without evaluation, checkpoints or reports."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    recipe = task.recipe
    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=round(recipe.warmup * steps),
        lr_scheduler_type="linear",
        optim="adamw_torch",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=recipe.precision == "bf16",
        dataloader_pin_memory=False,
        seed=seed,
    )
    made = Trainer(
        network,
        arguments,
        train_dataset=Texts(task),
        data_collator=collate,
        callbacks=list(callbacks),
    )
    made.remove_callback(PrinterCallback)
    return made


def plain_loop(task: Task, network: Padded, steps: int) -> None:
    """The loop of a tutorial: random batches padded to their longest text, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.recipe.learning_rate)
    loader = torch.utils.data.DataLoader(
        Texts(task), task.recipe.batch_size, shuffle=True, collate_fn=collate
    )
    network.train()
    for _, batch in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        network(**batch)["loss"].backward()
        optimizer.step()

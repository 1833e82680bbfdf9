"""What is retrained: `compact`, an encoder trained from scratch, or a pretrained `transformers` checkpoint.

`prepare` turns a dataset into a `Task`: everything a training needs, tokenised once. Texts travel packed (token ids end
to end, never padded); a network maps `Tokens` of B texts to logits (B, classes) and has `features` (B, width), a `head`
and nothing else that the training loop knows of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial

import torch

from stabutils.data.datasets import Dataset
from stabutils.errors import InputError
from stabutils.training.checkpoints import find_checkpoint, fingerprint, pooling_of
from stabutils.training.networks import Compact, CompactShape, Pretrained, spelled, words
from stabutils.training.task import Recipe, Task, Tokens, _task, texts_of


def prepare_compact(data: Dataset, recipe: Recipe, shape: CompactShape) -> Task:
    splits = {
        name: [words(t)[: recipe.max_length] for t in texts]
        for name, texts in texts_of(data).items()
    }
    known = {
        word: i
        for i, word in enumerate(sorted({w for text in splits["train"] for w in text}), start=1)
    }
    every = {
        word: i
        for i, word in enumerate(sorted({w for texts in splits.values() for t in texts for w in t}))
    }
    first = len(known) + 1
    lexicon = Tokens.pack(
        [
            [known.get(word, 0), *(first + bucket for bucket in spelled(word, shape.buckets))]
            for word in every
        ]
    )
    tokens = {
        name: Tokens.pack([[every[w] for w in text] for text in texts])
        for name, texts in splits.items()
    }
    build = partial(
        Compact, shape, lexicon, first + shape.buckets, len(data.label_names), recipe.max_length
    )
    return _task(data, tokens, build, recipe, {"kind": "compact", **asdict(shape)})


def prepare_checkpoint(data: Dataset, recipe: Recipe, name: str, pooling: str) -> Task:
    """A task for a checkpoint; every way in which it can be unusable ends here, in one error, before any training."""
    folder = find_checkpoint(name)
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if len(tokenizer) <= len(
            tokenizer.all_special_ids
        ):  # transformers makes an empty one where files are missing
            raise ValueError("its tokenizer has no words")
        tokens = {
            name: _tokenize(tokenizer, texts, recipe.max_length)
            for name, texts in texts_of(data).items()
        }
        pooling = pooling_of(folder) if pooling == "auto" else pooling
        pad = tokenizer.pad_token_id or 0
        # Tokens in no text get no gradient: without them the optimizer has less to do, and every answer is the same.
        # Ids up to the padding's stay as they are: some networks find positions by it.
        kept = torch.cat(
            [torch.arange(pad + 1), *(split.ids for split in tokens.values())]
        ).unique()
        tokens = {
            split: replace(part, ids=torch.searchsorted(kept, part.ids))
            for split, part in tokens.items()
        }
        build = partial(Pretrained, str(folder), pooling, len(data.label_names), pad, kept)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model = build()
            for split in tokens.values():  # the longest text: it must fit into the positions
                model(split.take(split.lengths.argmax()[None]))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            "model",
            name,
            "a folder or hub id with config.json, a tokenizer and model.safetensors of a "
            f"sequence encoder that transformers can load ({type(error).__name__}: {reason})",
        ) from error
    return _task(
        data,
        tokens,
        build,
        recipe,
        {"kind": "checkpoint", "sha256": fingerprint(folder), "pooling": pooling},
    )


def _tokenize(tokenizer, texts: Iterable[str], max_length: int) -> Tokens:
    ids = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)["input_ids"]
    return Tokens.pack([text or [tokenizer.unk_token_id or 0] for text in ids])


# ---------------------------------------------------------------------------------------------------- defaults

COMPACTS = {
    "compact": CompactShape(),
    "compact-words": CompactShape(buckets=0),  # what the encoder does by itself
    "compact-bag": CompactShape(layers=0),  # what the vectors of words and n-grams do without it
    # Parameters and training time of five: an ensemble's budget in one network.
    "compact-wide": CompactShape(width=512, heads=16),
}

COMPACT = Recipe(
    epochs=9,
    batch_size=64,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup=0.05,
    clip=0.0,
    head_rate=1.0,
    bucket=1,
    checkpoints=1,
    max_length=64,
)
CHECKPOINT = Recipe(
    epochs=3,
    batch_size=32,
    learning_rate=2e-4,
    weight_decay=0.01,
    warmup=0.06,
    clip=1.0,
    head_rate=10.0,
    bucket=50,
    checkpoints=2,
    max_length=64,
)


def default_recipe(model: str, examples: int) -> Recipe:
    """The recipe of a kind of model. From scratch, a small corpus means few steps, and few steps need a higher rate:
    it grows with the root of what a training is short of 1,620 steps (MASSIVE's), to four times at most.
    """
    if model not in COMPACTS:
        return CHECKPOINT
    steps = COMPACT.epochs * math.ceil(examples / COMPACT.batch_size)
    return replace(
        COMPACT, learning_rate=COMPACT.learning_rate * min(4.0, max(1.0, math.sqrt(1620 / steps)))
    )


def prepare(model: str, data: Dataset, recipe: Recipe, pooling: str = "auto") -> Task:
    """The task of a dataset for one of COMPACTS or a checkpoint (folder, package or hub id); InputError for one that
    cannot be used."""
    if model in COMPACTS:
        return prepare_compact(data, recipe, COMPACTS[model])
    return prepare_checkpoint(data, recipe, model, pooling)

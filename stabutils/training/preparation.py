"""A dataset as a network reads it: tokenised once, for `compact` or a `transformers` checkpoint.

`prepare` turns a dataset into a `Task`: everything a training needs. Texts travel packed (token ids
end to end, never padded); a network maps `Tokens` of B texts to logits (B, classes) and has
`features` (B, width), a `head` and nothing else that the training loop knows of.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from stabutils.data.datasets import Dataset
from stabutils.errors import InputError
from stabutils.training.checkpoints import (
    encoder_of,
    find_checkpoint,
    fingerprint,
    lowest,
    pooling_of,
)
from stabutils.training.networks import Compact, CompactShape, Pretrained, spelled, words
from stabutils.training.task import Recipe, Task, Tokens, _task, texts_of


def prepare_compact(data: Dataset, recipe: Recipe, shape: CompactShape) -> Task:
    splits = {
        name: [words(t)[: recipe.max_length] for t in texts]
        for name, texts in texts_of(data).items()
    }
    known = numbered(splits["train"], start=1)
    every = numbered(chain.from_iterable(splits.values()))
    first = len(known) + 1
    bags = []
    for word in every:
        grams = [first + bucket for bucket in spelled(word, shape.buckets)]
        bags.append([known.get(word, 0), *grams])
    lexicon = Tokens.pack(bags)
    tokens = {
        name: Tokens.pack([[every[w] for w in text] for text in texts])
        for name, texts in splits.items()
    }
    build = partial(
        Compact, shape, lexicon, first + shape.buckets, len(data.label_names), recipe.max_length
    )
    return _task(data, tokens, build, recipe, {"kind": "compact", **asdict(shape)})


def numbered(texts: Iterable[list[str]], start: int = 0) -> dict[str, int]:
    """The words of texts, in alphabetical order, and their numbers."""
    distinct = sorted({word for text in texts for word in text})
    return {word: number for number, word in enumerate(distinct, start)}


def prepare_checkpoint(data: Dataset, recipe: Recipe, name: str, pooling: str) -> Task:
    """A task for a checkpoint, tried out on its longest texts before any training.

    Parameters
    ----------
    data
        The dataset.
    recipe
        How runs are trained; its `max_length` cuts texts.
    name
        A folder, an installed package or a hub id; with ":3" at its end, its lowest 3 layers.
    pooling
        "mean", "first", "last", or "auto" for what the checkpoint notes.

    Raises
    ------
    InputError
        Every way in which a checkpoint can be unusable ends here, in one error.
    """
    try:
        whole, layers = lowest(name)
        root = find_checkpoint(whole)
        folder = encoder_of(root)
        pooling = pooling_of(root) if pooling == "auto" else pooling
        tokens, pad, kept = _tokens(folder, data, recipe)
        classes = len(data.label_names)
        build = partial(Pretrained, str(folder), pooling, classes, pad, kept, layers=layers)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model = build().eval()
            for split in tokens.values():
                longest = split.take(split.lengths.argmax()[None])
                _refuse_short_positions(model, longest, recipe, name)
                _refuse_deaf_pooling(model, longest)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        allowed = (
            "a folder or hub id with config.json, a tokenizer and model.safetensors of a "
            f"sequence encoder that transformers can load ({reason})"
        )
        raise InputError("model", name, allowed) from error
    identity: dict[str, str | int] = {
        "kind": "checkpoint",
        "sha256": fingerprint(folder),
        "pooling": pooling,
    }
    if layers is not None:
        identity["layers"] = layers
    return _task(data, tokens, build, recipe, identity)


def _tokens(folder: Path, data: Dataset, recipe: Recipe) -> tuple[dict[str, Tokens], int, Tensor]:
    """Tokens of each split, the padding's id, and the ids that ids in tokens number.

    Tokens in no text get no gradient: without them the optimizer has less to do, and every answer
    is the same. Ids up to the padding's stay as they are: some networks find positions by it.
    """
    from transformers import AutoConfig, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers made an empty one
        raise ValueError(
            "its tokenizer has no words; save it beside the weights: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    whole = {
        name: _tokenize(tokenizer, texts, recipe.max_length)
        for name, texts in texts_of(data).items()
    }
    pad = tokenizer.pad_token_id or 0
    of_network = getattr(AutoConfig.from_pretrained(folder, **local), "pad_token_id", None) or 0
    first = torch.arange(max(pad, of_network) + 1)
    kept = torch.cat([first, *(split.ids for split in whole.values())]).unique()
    tokens = {
        name: replace(split, ids=torch.searchsorted(kept, split.ids))
        for name, split in whole.items()
    }
    return tokens, pad, kept


def _refuse_short_positions(model: Pretrained, text: Tokens, recipe: Recipe, name: str) -> None:
    """Refuse texts longer than the network has positions for, and say how many it has."""

    def runs(length: int) -> bool:
        try:
            model(Tokens(text.ids[:length], torch.tensor([length])))
        except (IndexError, RuntimeError, ValueError):
            return False
        return True

    try:
        model(text)
    except (IndexError, RuntimeError, ValueError):
        longest = int(text.lengths)
        limit = bisect_left(range(1, longest + 1), True, key=lambda length: not runs(length))
        if not limit:
            raise
        allowed = f"at most {limit}, the positions of {name}; a text has {longest} tokens"
        raise InputError("max_length", recipe.max_length, allowed) from None


def _refuse_deaf_pooling(model: Pretrained, text: Tokens) -> None:
    """Refuse a pooling that gives a text and its beginning one vector, as the first token's is
    where a network reads from left to right."""
    if text.lengths < 2:
        return
    both = Tokens.pack([text.ids, text.ids[:-1]])
    whole, beginning = model.features(both)
    if not torch.isfinite(whole).all():
        raise ValueError("its weights give numbers that are not finite")
    if torch.allclose(whole, beginning, rtol=0, atol=1e-6):
        allowed = "last or mean: a left-to-right network has seen no text at its first token"
        raise InputError("pooling", model.pooling, allowed)


def _tokenize(tokenizer, texts: Iterable[str], max_length: int) -> Tokens:
    ids = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)["input_ids"]
    return Tokens.pack([text or [tokenizer.unk_token_id or 0] for text in ids])


# ---- defaults

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


def default_recipe(model: str, examples: int, classes: int) -> Recipe:
    """The recipe of a kind of model for a corpus of so many training examples and classes.

    From scratch, nine passes over a small corpus are few steps, in which little is learned. Epochs
    are then as many as make `least_steps(classes)`. Few steps also need a higher rate: it grows
    with the root of what a training is short of 1,620 steps (MASSIVE's).

    Examples
    --------
    >>> few, many = default_recipe("compact", 385, 77), default_recipe("compact", 11514, 60)
    >>> few.epochs, few.epochs * math.ceil(385 / few.batch_size), many.epochs  # 77 x 4 steps
    (44, 308, 9)
    """
    if model not in COMPACTS:
        return CHECKPOINT
    an_epoch = math.ceil(examples / COMPACT.batch_size)
    epochs = max(COMPACT.epochs, math.ceil(least_steps(classes) / an_epoch))
    factor = max(1.0, math.sqrt(1620 / (epochs * an_epoch)))
    return replace(COMPACT, epochs=epochs, learning_rate=COMPACT.learning_rate * factor)


def least_steps(classes: int) -> int:
    """Optimiser steps of a training from scratch below which validation accuracy falls.

    Measured on 5 and 10 examples an intent of CLINC150 and BANKING77 (docs/your_data.md); with
    nine epochs the embedded corpus has 216.
    """
    return max(216, 4 * classes)


def prepare(model: str, data: Dataset, recipe: Recipe, pooling: str = "auto") -> Task:
    """The task of a dataset for one of COMPACTS or a checkpoint (folder, package or hub id);
    InputError for one that cannot be used.
    """
    if model in COMPACTS:
        return prepare_compact(data, recipe, COMPACTS[model])
    if lowest(model)[0] in COMPACTS:
        raise InputError("model", model, "a checkpoint where a number of layers follows")
    return prepare_checkpoint(data, recipe, model, pooling)

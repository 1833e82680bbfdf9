"""What is retrained: `compact`, an encoder trained from scratch, or a pretrained `transformers` checkpoint.

`prepare` turns a dataset into a `Task`: everything a training needs, tokenised once. Texts travel packed (token ids end
to end, never padded); a network maps `Tokens` of B texts to logits (B, classes) and has `features` (B, width), a `head`
and nothing else that the training loop knows of.
"""
from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .datasets import Dataset
from .errors import InputError


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
    checkpoints: int  # evaluations an epoch
    max_length: int  # tokens of a text that are read
    precision: str = "fp32"  # or bf16 (autocast)


@dataclass(frozen=True)
class Tokens:
    """Token ids of several texts end to end (total,), and how many belong to each text (texts,)."""

    ids: Tensor
    lengths: Tensor

    @classmethod
    def pack(cls, texts: Sequence[Sequence[int]]) -> Tokens:
        ids = np.concatenate([np.asarray(text, np.int64) for text in texts]) if len(texts) else np.zeros(0, np.int64)
        return cls(torch.from_numpy(ids), torch.tensor([len(text) for text in texts], dtype=torch.int64))

    def take(self, rows: Tensor) -> Tokens:
        """The texts `rows`, in that order, packed again."""
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        shift = starts - (lengths.cumsum(0) - lengths)
        ids = self.ids[torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)]
        return Tokens(ids, lengths)


def slots(lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where packed tokens stand in a padded (texts, longest) block: flat slot and position of each token (total,),
    and which slots of the block are taken, bool (texts, longest)."""
    longest = int(lengths.max())
    taken = torch.arange(longest) < lengths[:, None]
    slot = taken.flatten().nonzero()[:, 0]
    return slot, slot % longest, taken


@dataclass(frozen=True)
class Task:
    """A dataset as one model sees it, and how to make a fresh network for it (call `build` inside a random stream)."""

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
    out_of_scope: Tokens | None = None  # test texts that belong to no class, where a corpus has some


# ---------------------------------------------------------------------------------------------------- compact

WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


def words(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks; an empty text reads as one mark.

    >>> words("Wake me at 7:30, please")
    ['wake', 'me', 'at', '7', ':', '30', ',', 'please']
    """
    return WORD.findall(text.lower()) or ["?"]


def grams(word: str, shortest: int = 3, longest: int = 5) -> list[str]:
    """Character n-grams of a word with its borders marked (Bojanowski et al. 2017, "Enriching Word Vectors with
    Subword Information").

    >>> grams("hey")
    ['<he', '<hey', '<hey>', 'ey>', 'hey', 'hey>']
    """
    marked = f"<{word}>"
    spans = (marked[i:i + n] for n in range(shortest, longest + 1) for i in range(len(marked) - n + 1))
    return sorted(set(spans)) or [marked]


def spelled(word: str, buckets: int) -> list[int]:
    """The buckets of a word's n-grams, 0 .. buckets - 1; none without buckets."""
    return [zlib.crc32(gram.encode()) % buckets for gram in grams(word)] if buckets else []


@dataclass(frozen=True)
class CompactShape:
    """Settings of the compact encoder; every field can change its answers."""

    width: int = 128
    layers: int = 1
    heads: int = 4
    buckets: int = 8192  # of hashed character n-grams; 0: words only
    input_dropout: float = 0.4
    dropout: float = 0.2  # inside a layer
    skip: float = 0.5  # share of texts that pass a layer by in a step: stochastic depth (Huang et al. 2016)
    output_dropout: float = 0.4
    word_dropout: float = 0.1  # share of words a step reads by their spelling only, so that spelling learns to carry


class Compact(nn.Module):
    """A transformer encoder over words; a word's vector is its own plus those of its hashed character n-grams.

    Ids in `Tokens` are rows of the lexicon, which lists every word of every split as a bag of rows of one table: first
    the word's own row (0 when the training split does not have it), then those of its n-grams.
    """

    def __init__(self, shape: CompactShape, lexicon: Tokens, rows: int, classes: int, max_length: int):
        super().__init__()
        self.shape, self.lexicon = shape, lexicon
        self.table = nn.Embedding(rows, shape.width)
        self.position = nn.Embedding(max_length, shape.width)
        nn.init.normal_(self.table.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(2 * shape.width, classes)

    def forward(self, tokens: Tokens) -> Tensor:
        return self.head(dropout(self.features(tokens), self.shape.output_dropout, self.training))

    def features(self, tokens: Tokens) -> Tensor:
        """Mean and maximum over the text of the last layer's vectors: (texts, 2 * width)."""
        slot, position, taken = slots(tokens.lengths)
        texts, longest = taken.shape
        x = self.embed(tokens.ids) + self.position(position)
        x = dropout(x, self.shape.input_dropout, self.training)
        for layer in self.layers:
            x = layer(x, tokens.lengths)
        x = self.norm(x)
        block = x.new_full((texts * longest, x.shape[1]), -torch.inf).index_copy(0, slot, x)
        highest = block.view(texts, longest, -1).amax(1)
        mean = x.new_zeros(texts, x.shape[1]).index_add(0, slot // longest, x) / tokens.lengths[:, None]
        return torch.cat([mean, highest], 1)

    def embed(self, ids: Tensor) -> Tensor:
        """Vectors of words (total, width); each distinct word of the batch is spelled once."""
        words, which = ids.unique(return_inverse=True)
        bags = self.lexicon.take(words)
        starts = bags.lengths.cumsum(0) - bags.lengths
        rows = bags.ids
        if self.training:
            hidden = torch.rand(len(words)) < self.shape.word_dropout
            rows = rows.index_fill(0, starts[hidden], 0)
        shares = (bags.lengths - 1).to(self.table.weight.dtype).rsqrt().repeat_interleave(bags.lengths)
        shares = shares.index_fill(0, starts, 1.0)  # the word's own row counts in full
        return F.embedding_bag(rows, self.table.weight, starts, mode="sum", per_sample_weights=shares)[which]


class Layer(nn.Module):
    """Pre-norm transformer layer; only attention looks at padded blocks, all else is computed on packed tokens."""

    def __init__(self, shape: CompactShape):
        super().__init__()
        self.shape, width = shape, shape.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        for last in (self.out, self.down):  # a layer begins as the identity: reliable from the first step on
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Vectors after the layer; in training the texts that pass it by are not computed at all."""
        if not (self.training and self.shape.skip):
            return x + self.change(x, lengths)
        kept = torch.rand(len(lengths)) >= self.shape.skip
        if not kept.any():
            return x
        rows = kept.repeat_interleave(lengths).nonzero()[:, 0]
        change = self.change(x[rows], lengths[kept]) / (1 - self.shape.skip)
        return x.index_add(0, rows, change.to(x.dtype))

    def change(self, x: Tensor, lengths: Tensor) -> Tensor:
        """What the layer adds to the vectors."""
        drop = partial(dropout, rate=self.shape.dropout, training=self.training)
        mixed = drop(self.out(self.attention(self.qkv(self.norm1(x)), *slots(lengths)[::2])))
        return mixed + drop(self.down(F.gelu(self.up(self.norm2(x + mixed)))))

    def attention(self, packed: Tensor, slot: Tensor, taken: Tensor) -> Tensor:
        texts, longest = taken.shape
        block = packed.new_zeros(texts * longest, packed.shape[1]).index_copy(0, slot, packed)
        q, k, v = block.view(texts, longest, 3, self.shape.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, taken[:, None, None, :])
        return mixed.transpose(1, 2).reshape(texts * longest, -1)[slot]


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout, its rate rounded to 1/256: one random byte a number instead of one draw, which on a CPU is a third of
    the time of torch's own."""
    dropped = round(256 * rate)
    if not training or not dropped:
        return x
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-2**63, None)
    kept = draws.view(torch.uint8)[:x.numel()].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


def prepare_compact(data: Dataset, recipe: Recipe, shape: CompactShape) -> Task:
    splits = {name: [words(t)[:recipe.max_length] for t in texts] for name, texts in texts_of(data).items()}
    known = {word: i for i, word in enumerate(sorted({w for text in splits["train"] for w in text}), start=1)}
    every = {word: i for i, word in enumerate(sorted({w for texts in splits.values() for t in texts for w in t}))}
    first = len(known) + 1
    lexicon = Tokens.pack([[known.get(word, 0), *(first + bucket for bucket in spelled(word, shape.buckets))]
                           for word in every])
    tokens = {name: Tokens.pack([[every[w] for w in text] for text in texts]) for name, texts in splits.items()}
    build = partial(Compact, shape, lexicon, first + shape.buckets, len(data.label_names), recipe.max_length)
    return _task(data, tokens, build, recipe, {"kind": "compact", **asdict(shape)})


# ------------------------------------------------------------------------------------------------ checkpoints

class Pretrained(nn.Module):
    """A pretrained encoder, one vector a text, and a new linear head.

    `kept`: the tokens it keeps vectors of, and that ids number from then on; None keeps all.
    """

    def __init__(self, folder: str, pooling: str, classes: int, pad: int, kept: Tensor | None = None,
                 dropout: float = 0.1):
        super().__init__()
        self.backbone, self.pooling, self.pad, self.dropout = load_backbone(folder), pooling, pad, dropout
        if kept is not None:
            vectors = self.backbone.get_input_embeddings().weight.detach()
            if kept.max() >= len(vectors):
                raise ValueError("its tokenizer has more tokens than the network knows")
            self.backbone.set_input_embeddings(nn.Embedding.from_pretrained(vectors[kept], freeze=False))
        self.head = nn.Linear(self.backbone.config.hidden_size, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tokens) -> Tensor:
        return self.head(F.dropout(self.features(tokens), self.dropout, self.training))

    def features(self, tokens: Tokens) -> Tensor:
        slot, _, taken = slots(tokens.lengths)
        ids = torch.full((taken.numel(),), self.pad).index_copy(0, slot, tokens.ids).view(taken.shape)
        hidden = self.backbone(input_ids=ids, attention_mask=taken.long()).last_hidden_state
        return self.pool(hidden, taken)

    def pool(self, hidden: Tensor, taken: Tensor) -> Tensor:
        """One vector a text, (texts, width), of its tokens' (texts, longest, width)."""
        if self.pooling == "first":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden.take_along_dim(taken.sum(1)[:, None, None] - 1, 1)[:, 0]
        return (hidden * taken[..., None]).sum(1) / taken.sum(1, keepdim=True)


def load_backbone(folder: str) -> nn.Module:
    from transformers import AutoModel, logging

    logging.disable_progress_bar()  # one a run would drown the study's own
    return AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                                     dtype=torch.float32)


def prepare_checkpoint(data: Dataset, recipe: Recipe, name: str, pooling: str) -> Task:
    """A task for a checkpoint; every way in which it can be unusable ends here, in one error, before any training."""
    folder = find_checkpoint(name)
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes an empty one where files are missing
            raise ValueError("its tokenizer has no words")
        tokens = {name: _tokenize(tokenizer, texts, recipe.max_length) for name, texts in texts_of(data).items()}
        pooling = pooling_of(folder) if pooling == "auto" else pooling
        pad = tokenizer.pad_token_id or 0
        # Tokens in no text get no gradient: without them the optimizer has less to do, and every answer is the same.
        # Ids up to the padding's stay as they are: some networks find positions by it.
        kept = torch.cat([torch.arange(pad + 1), *(split.ids for split in tokens.values())]).unique()
        tokens = {split: replace(part, ids=torch.searchsorted(kept, part.ids)) for split, part in tokens.items()}
        build = partial(Pretrained, str(folder), pooling, len(data.label_names), pad, kept)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model = build()
            for split in tokens.values():  # the longest text: it must fit into the positions
                model(split.take(split.lengths.argmax()[None]))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError("model", name, "a folder or hub id with config.json, a tokenizer and model.safetensors of a "
                         f"sequence encoder that transformers can load ({type(error).__name__}: {reason})") from error
    return _task(data, tokens, build, recipe, {"kind": "checkpoint", "sha256": fingerprint(folder), "pooling": pooling})


def find_checkpoint(name: str) -> Path:
    """The folder of a checkpoint: a local one, an installed package's, or the hub's (downloaded once; weights only as
    safetensors)."""
    if Path(name).is_dir():
        return Path(name)
    if folder := packaged(name):
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError("model", name, '"compact", a folder, an installed package, or a hub id such as "owner/name"')
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", "model*.safetensors"]))
    except Exception as error:
        raise InputError("model", name, '"compact", a folder, or a hub id that can be downloaded '
                         f"({type(error).__name__})") from error


def packaged(name: str) -> Path | None:
    """The folder `model` of an installed package, where it holds a checkpoint; the package is not run."""
    spec = importlib.util.find_spec(name.replace("-", "_")) if re.fullmatch(r"[A-Za-z][\w-]*", name) else None
    folders = [Path(place) / "model" for place in spec.submodule_search_locations or ()] if spec else []
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def pooling_of(folder: Path) -> str:
    """How the checkpoint itself makes one vector of a text: its own note, else last token (causal) or first."""
    note = folder / "1_Pooling" / "config.json"
    if note.is_file():
        return "mean" if json.loads(note.read_text(encoding="utf-8")).get("pooling_mode_mean_tokens") else "first"
    from transformers.models.auto import modeling_auto

    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    reads_ahead = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES  # encoders; some of them can also be made causal
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in reads_ahead
    return "last" if causal else "first"


DECISIVE = re.compile(r"(config|tokenizer.*|vocab.*|merges.*|special_tokens.*|added_tokens.*)\.(json|txt)$"
                      r"|.*\.(safetensors|model)$")


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over what decides a checkpoint's answers: configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if DECISIVE.match(file.name):
            digest.update(f"{file.name}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def texts_of(data: Dataset) -> dict[str, tuple[str, ...]]:
    """All texts that a network reads, by the name of their field in a task."""
    texts = {name: getattr(data, name).texts for name in ("train", "validation", "test")}
    beside = data.out_of_scope.get("test", ())
    return texts | ({"out_of_scope": beside} if beside else {})


def _tokenize(tokenizer, texts: Iterable[str], max_length: int) -> Tokens:
    ids = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)["input_ids"]
    return Tokens.pack([text or [tokenizer.unk_token_id or 0] for text in ids])


def _task(data: Dataset, tokens: dict[str, Tokens], build: Callable, recipe: Recipe, identity: dict) -> Task:
    return Task(**tokens, train_labels=data.train.labels, validation_labels=data.validation.labels,
                test_labels=data.test.labels, classes=len(data.label_names), build=build, recipe=recipe,
                identity=identity)


# ---------------------------------------------------------------------------------------------------- defaults

COMPACTS = {"compact": CompactShape(), "compact-words": CompactShape(buckets=0),  # what the encoder does by itself
            "compact-bag": CompactShape(layers=0)}  # what the vectors of words and n-grams do without it

COMPACT = Recipe(epochs=9, batch_size=64, learning_rate=2e-3, weight_decay=0.05, warmup=0.05, clip=0.0, head_rate=1.0,
                 bucket=1, checkpoints=1, max_length=64)
CHECKPOINT = Recipe(epochs=3, batch_size=32, learning_rate=2e-4, weight_decay=0.01, warmup=0.06, clip=1.0,
                    head_rate=10.0, bucket=50, checkpoints=2, max_length=64)


def default_recipe(model: str, examples: int) -> Recipe:
    """The recipe of a kind of model. From scratch, a small corpus means few steps, and few steps need a higher rate:
    it grows with the root of what a training is short of 1,620 steps (MASSIVE's), to four times at most.
    """
    if model not in COMPACTS:
        return CHECKPOINT
    steps = COMPACT.epochs * math.ceil(examples / COMPACT.batch_size)
    return replace(COMPACT, learning_rate=COMPACT.learning_rate * min(4.0, max(1.0, math.sqrt(1620 / steps))))


def prepare(model: str, data: Dataset, recipe: Recipe, pooling: str = "auto") -> Task:
    """The task of a dataset for one of COMPACTS or a checkpoint (folder, package or hub id); InputError for one that
    cannot be used."""
    if model in COMPACTS:
        return prepare_compact(data, recipe, COMPACTS[model])
    return prepare_checkpoint(data, recipe, model, pooling)

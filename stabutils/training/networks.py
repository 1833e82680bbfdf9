"""What is retrained: `compact`, an encoder trained from scratch, or a pretrained `transformers`
checkpoint.

A network maps `Tokens` of B texts to logits (B, classes) and has `features` (B, width), a `head`
and nothing else that the training loop knows of.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.training.task import Tokens, padded, slots

# ---- compact

WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


def words(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks; an empty text reads as one mark.

    >>> words("Wake me at 7:30, please")
    ['wake', 'me', 'at', '7', ':', '30', ',', 'please']
    """
    return WORD.findall(text.lower()) or ["?"]


def grams(word: str) -> list[str]:
    """Character n-grams, n from 3 to 5, of a word with its borders marked (Bojanowski et al. 2017,
    "Enriching Word Vectors with Subword Information").

    >>> grams("hey")
    ['<he', '<hey', '<hey>', 'ey>', 'hey', 'hey>']
    """
    marked = f"<{word}>"
    spans = {marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)}
    return sorted(spans) or [marked]


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
    # Share of texts that pass a layer by in a step: stochastic depth (Huang et al. 2016).
    skip: float = 0.5
    output_dropout: float = 0.4
    # Share of words a step reads by their spelling only, so that spelling learns to carry.
    word_dropout: float = 0.1


class Compact(nn.Module):
    """A transformer encoder over words; a word's vector is its own plus those of its hashed
    character n-grams.

    Ids in `Tokens` are rows of the lexicon, which lists every word of every split as a bag of rows
    of one table: first the word's own row (0 when the training split does not have it), then those
    of its n-grams.
    """

    def __init__(
        self, shape: CompactShape, lexicon: Tokens, rows: int, classes: int, max_length: int
    ):
        super().__init__()
        self.shape, self.lexicon = shape, lexicon
        self.table = nn.Embedding(rows, shape.width)
        self.position = nn.Embedding(max_length, shape.width)
        nn.init.normal_(self.table.weight, std=0.1)
        nn.init.normal_(self.position.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(2 * shape.width, classes)

    def _apply(self, fn: Callable, recurse: bool = True) -> Compact:
        self.lexicon = Tokens(fn(self.lexicon.ids), fn(self.lexicon.lengths))
        return super()._apply(fn, recurse)

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
        sums = x.new_zeros(texts, x.shape[1]).index_add(0, slot // longest, x)
        return torch.cat([sums / tokens.lengths[:, None], highest], 1)

    def embed(self, ids: Tensor) -> Tensor:
        """Vectors of words (total, width); each distinct word of the batch is spelled once."""
        words, which = ids.unique(return_inverse=True)
        bags = self.lexicon.take(words)
        starts = bags.lengths.cumsum(0) - bags.lengths
        rows = bags.ids
        if self.training:
            hidden = torch.rand(len(words), device=ids.device) < self.shape.word_dropout
            rows = rows.index_fill(0, starts[hidden], 0)
        table = self.table.weight
        shares = (bags.lengths - 1).to(table.dtype).rsqrt().repeat_interleave(bags.lengths)
        shares = shares.index_fill(0, starts, 1.0)  # the word's own row counts in full
        vectors = F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=shares)
        return vectors[which]


class Layer(nn.Module):
    """Pre-norm transformer layer; only attention looks at padded blocks, all else is computed on
    packed tokens.
    """

    def __init__(self, shape: CompactShape):
        super().__init__()
        self.shape, width = shape, shape.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        # A layer begins as the identity: reliable from the first step on.
        for last in (self.out, self.down):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Vectors after the layer; in training the texts that pass it by are not computed at
        all.
        """
        if not (self.training and self.shape.skip):
            return x + self.change(x, lengths)
        kept = torch.rand(len(lengths), device=x.device) >= self.shape.skip
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
    """Dropout, its rate rounded to 1/256: one random byte a number instead of one draw, which on a
    CPU is a third of the time of torch's own.
    """
    dropped = round(256 * rate)
    if not training or not dropped:
        return x
    if x.device.type == "cpu":
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = draws.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
    else:
        kept = torch.rand(x.shape, device=x.device) >= dropped / 256
    return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


# ---- checkpoints


class Pretrained(nn.Module):
    """A pretrained encoder, one vector a text, and a new linear head.

    Parameters
    ----------
    folder
        Where the encoder lies.
    pooling
        Of its tokens' vectors a text gets the "first", the "last" or the "mean".
    classes
        How many the head tells apart.
    pad
        The token that fills a block up.
    kept
        The tokens it keeps vectors of, and that ids number from then on; None keeps all.
    dropout
        Share of a text's vector that is dropped in training.
    layers
        How many of the encoder's lowest layers it has; None for all.
    """

    def __init__(
        self,
        folder: str,
        pooling: str,
        classes: int,
        pad: int,
        kept: Tensor | None = None,
        dropout: float = 0.1,
        layers: int | None = None,
    ):
        super().__init__()
        self.backbone = load_backbone(folder)
        if layers is not None:
            keep_lowest(self.backbone, layers)
        self.pooling, self.pad, self.dropout = pooling, pad, dropout
        if kept is not None:
            vectors = self.backbone.get_input_embeddings().weight.detach()
            if kept.max() >= len(vectors):
                raise ValueError("its tokenizer has more tokens than the network knows")
            few = nn.Embedding.from_pretrained(vectors[kept], freeze=False)
            self.backbone.set_input_embeddings(few)
        self.head = nn.Linear(self.backbone.config.hidden_size, classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tokens) -> Tensor:
        return self.head(F.dropout(self.features(tokens), self.dropout, self.training))

    def features(self, tokens: Tokens) -> Tensor:
        """One vector a text: (texts, width)."""
        ids, taken, _ = padded(tokens, self.pad)
        return self.pool(encode(self.backbone, ids, taken), taken)

    def pool(self, hidden: Tensor, taken: Tensor) -> Tensor:
        """One vector a text, (texts, width), of its tokens' (texts, longest, width)."""
        if self.pooling == "first":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden.take_along_dim(taken.sum(1)[:, None, None] - 1, 1)[:, 0]
        return (hidden * taken[..., None]).sum(1) / taken.sum(1, keepdim=True)


def encode(backbone: nn.Module, ids: Tensor, taken: Tensor) -> Tensor:
    """Last hidden states (texts, longest, width) of a block of ids."""
    return backbone(input_ids=ids, attention_mask=taken.long()).last_hidden_state


def load_backbone(folder: str) -> nn.Module:
    """The encoder in a folder, with all of its weights.

    Raises
    ------
    InputError
        Weights that the configuration asks for are not in the file, or more layers are in it:
        transformers alone would go on with random ones, or without.
    """
    from transformers import AutoModel, logging

    logging.disable_progress_bar()  # one a run would drown the study's own
    network, loading = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    beside = sorted(loading["unexpected_keys"])
    if missing:
        allowed = (
            f"all weights of the network; {len(missing)} are missing, such as {missing[0]}"
            f"{_instead(missing, beside)}"
        )
        raise InputError("model", folder, allowed)
    layers = {re.sub(r"[0-9]+", "#", key) for key in network.state_dict()}
    more = [key for key in beside if re.sub(r"[0-9]+", "#", key) in layers]
    if more:
        allowed = f"as many layers in config.json as in the weights, which also have {more[0]}"
        raise InputError("model", folder, allowed)
    return network


def layers_of(backbone: nn.Module) -> nn.ModuleList:
    """The list of an encoder's layers. Raises InputError for one without, as where all layers share
    their weights."""
    count = getattr(backbone.config, "num_hidden_layers", 0)
    lists = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    found = [layers for layers in lists if len(layers) == count]
    if not found:
        raise InputError("model", type(backbone).__name__, "an encoder with a list of layers")
    return found[0]


def keep_lowest(backbone: nn.Module, layers: int) -> None:
    """Remove all but the lowest layers of an encoder. Raises InputError where it has no more."""
    every = layers_of(backbone)
    if not 1 <= layers < len(every):
        allowed = f"1 to {len(every) - 1}, fewer than this checkpoint has, or none for all"
        raise InputError("layers after the colon of model", layers, allowed)
    del every[layers:]
    backbone.config.num_hidden_layers = layers


def _instead(missing: list[str], beside: list[str]) -> str:
    """What a file has in place of the weights, and what to do about it."""
    if any("lora_" in key for key in beside):
        return "; the file holds an adapter: merge it into its network and save that"
    for key in beside:
        for name in missing:
            if key.endswith(f".{name}"):
                prefix = key.removesuffix(name)
                return f"; in the file it is {key}: save the network without {prefix!r} in front"
    return f"; the file has {beside[0]}" if beside else ""


# ---- two networks


class Twins(nn.Module):
    """Two networks: in training logits of both, (2, texts, classes); in evaluation those of the
    kept one alone.
    """

    def __init__(self, kept: nn.Module, other: nn.Module):
        super().__init__()
        self.kept, self.other = kept, other

    @property
    def head(self) -> nn.Module:
        return nn.ModuleList([self.kept.head, self.other.head])

    def features(self, tokens) -> Tensor:
        return self.kept.features(tokens)

    def forward(self, tokens) -> Tensor:
        if not self.training:
            return self.kept(tokens)
        return torch.stack([self.kept(tokens), self.other(tokens)])


# ---- around another network


class Around(nn.Module):
    """A network that is another one, but for what those derived from it change."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @property
    def head(self) -> nn.Module:
        return self.network.head

    def features(self, tokens) -> Tensor:
        return self.network.features(tokens)

    def forward(self, tokens) -> Tensor:
        return self.network(tokens)


class Awake(Around):
    """A network that goes on dropping when it is told to evaluate."""

    def train(self, mode: bool = True):
        self.network.train()
        return self

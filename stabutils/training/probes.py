"""What a training can be asked to keep beside its answers: `study.retrain(..., keep=("hidden",))`.

hidden    (examples, width): the vector of each test text before the head, float16;
          `hidden training` and `hidden validation` likewise
head      (classes, width + 1): the weights and, last, the bias that make logits of such vectors,
          float32
weights   (parameters,): all weights of the trained network, one after another, float32
training  (checkpoints, training examples, classes): probabilities on the training split, float16
out_of_scope  (texts, classes): probabilities on test texts that belong to no class, float16, of
          which published runs have the highest alone; no texts where a corpus has none
PROXIES   (examples,): how unstable one training by itself says each test text is, higher meaning
          more likely to flip

Everything is measured on the network that answers, a mitigation's averaged weights for example.
Proxies with a strength come in several (STRENGTHS): tune it on one corpus, judge on another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from stabutils.data.datasets import Dataset
from stabutils.errors import InputError
from stabutils.metrics.measures import label_entropy
from stabutils.training.loop import answer, evaluate, predict
from stabutils.training.networks import Awake
from stabutils.training.preparation import default_recipe, prepare
from stabutils.training.state import Probe, Stream, Training
from stabutils.training.task import Tokens

PASSES = 10  # disturbed answers behind a label entropy
STRENGTHS = {"weight noise": (0.2, 0.4, 0.8), "word drop": (0.1, 0.2, 0.4)}


def vectors(training: Training, tokens: Tokens) -> Tensor:
    """Vectors before the head (texts, width), float32; their mean where the answer takes several
    passes.
    """
    recipe = training.task.recipe
    found = of_passes(
        training, tokens, lambda network: evaluate(network, network.features, tokens, recipe)
    )
    return torch.stack(found).mean(0)


def of_passes(
    training: Training, tokens: Tokens, read: Callable[[nn.Module], Tensor]
) -> list[Tensor]:
    """What is read of the networks that answer, a pass each; `tokens` lend a text to answer."""
    found = []
    text = tokens.take(torch.tensor([0]))

    def see(network: nn.Module) -> Tensor:
        found.append(read(network))
        return predict(network, text, training.task.recipe)

    training.mitigation.answer(training, see)
    return found


def hidden(split: str, training: Training) -> np.ndarray:
    return vectors(training, getattr(training.task, split)).numpy().astype(np.float16)


def head(training: Training) -> np.ndarray:
    def read(network: nn.Module) -> Tensor:
        head = getattr(network, "kept", network).head
        return torch.cat([head.weight, head.bias[:, None]], 1)

    first, *_ = of_passes(training, training.task.test, read)
    return first.detach().cpu().numpy().copy()


def pretrained(name: str, data: Dataset) -> np.ndarray:
    """Mean token vectors (examples, width) of the test texts by a checkpoint as it comes, trained
    on none of this.

    name: folder, package or hub id. Raises InputError for a checkpoint that cannot be used.
    """
    task = prepare(name, data, default_recipe(name, len(data.train), len(data.label_names)), "mean")
    with Stream("init", 0):  # of a head that is not asked
        network = task.build()
    return evaluate(network, network.features, task.test, task.recipe).numpy()


def flat(network: nn.Module) -> Tensor:
    """All parameters of a network, one after another."""
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def weights(training: Training) -> np.ndarray:
    return flat(training.model).cpu().numpy()


def on_training_split(training: Training) -> np.ndarray:
    return answer(training, "train").numpy().astype(np.float16)


def out_of_scope(training: Training) -> np.ndarray:
    task = training.task
    if task.out_of_scope is None:
        return np.zeros((0, task.classes), np.float16)
    return answer(training, "out_of_scope").numpy().astype(np.float16)


# ---- proxies


def margin(training: Training) -> np.ndarray:
    """How little the likeliest label leads: 1 - (p1 - p2), 0 .. 1."""
    first, second = answer(training, "test").topk(2).values.T
    return (1 - first + second).numpy()


def class_distance(training: Training) -> np.ndarray:
    """Distance to the mean of the answered class's vectors, as a share of that and the nearest
    other mean's.

    0 .. 1; above 0.5 another mean is nearer. Means are over the texts that the run trains on. After
    DBLE (Xing et al. 2020), which makes a softmax of such distances; a share needs no temperature.
    """
    task, seen = training.task, training.targets.indices
    rows = vectors(training, task.train)[seen]
    classes = torch.tensor(training.targets.task.train_labels)[seen]
    sums = rows.new_zeros(task.classes, rows.shape[1]).index_add_(0, classes, rows)
    means = sums / torch.bincount(classes, minlength=task.classes)[:, None]
    labels = answer(training, "test").argmax(1)
    return distance_share(vectors(training, task.test), means, labels).numpy()


def distance_share(rows: Tensor, means: Tensor, labels: Tensor) -> Tensor:
    """d / (d + d'), d from each row to its label's mean and d' to the nearest other; a class
    without a mean (NaN) is infinitely far, and 1 what cannot be told.
    """
    distances = torch.cdist(rows, means, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances.nan_to_num(torch.inf)
    own = distances.gather(1, labels[:, None])[:, 0]
    other = distances.scatter(1, labels[:, None], torch.inf).amin(1)
    share = torch.where(other.isinf(), 0.0, own / (own + other))
    return torch.where(own.isinf(), 1.0, share).nan_to_num(1.0)


def disturbed(
    disturb: Callable[[nn.Module, Tokens], tuple[nn.Module, Tokens]], training: Training
) -> np.ndarray:
    """Entropy of the labels of PASSES answers, each with the network or the texts disturbed anew:
    nats.
    """
    task = training.task

    def once(network: nn.Module) -> Tensor:
        return predict(*disturb(getattr(network, "kept", network), task.test), task.recipe)

    training.split, mitigation = "test", training.mitigation
    labels = []
    for _ in range(PASSES):
        probabilities = mitigation.answer(training, once)
        labels.append(mitigation.postprocess(training, probabilities).argmax(1).numpy())
    return label_entropy(np.stack(labels)).astype(np.float32)


def awake(network: nn.Module, tokens: Tokens) -> tuple[nn.Module, Tokens]:
    """As in training, all that is dropped there dropped (MC dropout, Gal and Ghahramani 2016)."""
    return Awake(network), tokens


def weight_noise(strength: float, network: nn.Module, tokens: Tokens) -> tuple[nn.Module, Tokens]:
    """Every weight times 1 + strength * a standard normal draw (the idea of Morwani et al. 2020,
    here an example's).
    """
    network = copy.deepcopy(network)
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(1 + strength * torch.randn_like(weights))
    return network, tokens


def word_drop(share: float, network: nn.Module, tokens: Tokens) -> tuple[nn.Module, Tokens]:
    """Each word (piece of a word, for a checkpoint) left out with probability `share`, never all of
    a text.
    """
    every = torch.arange(len(tokens.lengths), device=tokens.lengths.device)
    text = every.repeat_interleave(tokens.lengths)
    draws = torch.rand(len(text), device=text.device).masked_fill(marks(tokens), -1)
    highest = draws.new_full((len(tokens.lengths),), -1).scatter_reduce_(0, text, draws, "amax")
    stays = (draws < 0) | (draws >= share) | (draws == highest[text])
    lengths = torch.bincount(text[stays], minlength=len(tokens.lengths))
    return network, Tokens(tokens.ids[stays], lengths)


def marks(tokens: Tokens) -> Tensor:
    """Which tokens (total,) begin or end a text as they do every text: the tokenizer's marks, which
    are no words.
    """
    last = tokens.lengths.cumsum(0) - 1
    found = torch.zeros(len(tokens.ids), dtype=torch.bool, device=tokens.ids.device)
    for place in (last - tokens.lengths + 1, last):
        found[place] |= (tokens.ids[place] == tokens.ids[place[0]]).all()
    return found


MEASURES: dict[str, Callable[[Training], np.ndarray]] = {
    "margin": margin,
    "class distance": class_distance,
    "dropout": partial(disturbed, awake),
}
MEASURES |= {
    f"{name} {strength:g}": partial(disturbed, partial(disturb, strength))
    for name, disturb in (("weight noise", weight_noise), ("word drop", word_drop))
    for strength in STRENGTHS[name]
}
PROXIES = ("margin", "class distance", "dropout", "weight noise 0.4", "word drop 0.2")
SMALL = {"out_of_scope", *MEASURES}  # extras that are published; the others are large
PROBES = {
    probe.name: probe
    for probe in (
        Probe("hidden", partial(hidden, "test")),
        Probe("head", head),
        Probe("training", on_training_split, often=True),
        Probe("weights", weights),
        Probe("out_of_scope", out_of_scope),
        Probe("hidden training", partial(hidden, "train")),
        Probe("hidden validation", partial(hidden, "validation")),
        *(Probe(name, measure) for name, measure in MEASURES.items()),
    )
}


def published_part(keep: Sequence[str]) -> str:
    """What runs with these extras are called when they are published, beside plain ones.

    Examples
    --------
    >>> published_part(()), published_part(("margin",)), published_part(("training",))
    ('', 'probed', 'unpublished')
    """
    if not keep:
        return ""
    if set(keep) == {"hidden"}:
        return "heldout"
    return "probed" if SMALL >= set(keep) else "unpublished"


def names(keep: str | Sequence[str]) -> tuple[str, ...]:
    """What is asked for, each once. Raises InputError for what no probe measures.

    >>> names(("hidden", "margin", "hidden"))
    ('hidden', 'margin')
    """
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    for name in keep:
        if name not in PROBES:
            raise InputError("keep", name, f"names out of {', '.join(PROBES)}")
    return tuple(dict.fromkeys(keep))

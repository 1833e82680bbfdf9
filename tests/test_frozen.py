"""Freezing with remembered activations answers as plain freezing does, and what is not frozen
trains as ever."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_models import make_checkpoint

from stabutils.errors import InputError
from stabutils.mitigations import Composed, Mitigation, identity
from stabutils.mitigations.frozen import Frozen
from stabutils.mitigations.regularizers import EMA, SAM, CoDistillation, RDrop
from stabutils.training import frozen
from stabutils.training.frozen import PartlyFrozen
from stabutils.training.loop import predict, train
from stabutils.training.networks import Pretrained
from stabutils.training.preparation import prepare
from stabutils.training.probes import PROBES
from stabutils.training.state import Seeds, Stream
from stabutils.training.task import Tokens

LAYERS = 3
RECIPE = replace(tiny.RECIPE, learning_rate=1e-3, epochs=2, checkpoints=2, head_rate=3.0, clip=1.0)


def deeper(folder: Path, pooling: str = "mean") -> Path:
    """A BERT of three layers."""
    from transformers import BertConfig, BertModel

    make_checkpoint(folder)
    with Stream("checkpoint", 1):
        BertModel(BertConfig.from_pretrained(folder, num_hidden_layers=LAYERS)).save_pretrained(
            folder
        )
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return deeper(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def task(checkpoint):
    return prepare(str(checkpoint), tiny.dataset(), RECIPE, "mean")


class Still(torch.nn.Module):
    """A `Pretrained` some of whose modules stay in evaluation mode."""

    def __init__(self, network: Pretrained, layers: int):
        super().__init__()
        self.network, backbone = network, network.backbone
        self.frozen = [backbone.embeddings, *backbone.encoder.layer[:layers]]
        for module in self.frozen:
            module.requires_grad_(False)

    @property
    def head(self):
        return self.network.head

    def forward(self, tokens):
        return self.network(tokens)

    def features(self, tokens):
        return self.network.features(tokens)

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


@dataclass(frozen=True)
class Plainly(Mitigation):
    """Freezing as a tutorial does it: no gradient, no dropout, nothing remembered."""

    layers: int

    def model(self, build):
        return Still(build(), self.layers)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_answers_as_plain_freezing_does(task, layers):
    keep = [PROBES["hidden"], PROBES["head"], PROBES["training"]]
    seeds = Seeds(0, 1, 2)
    expected, found = (
        train(task, mitigation, seeds, keep=keep)
        for mitigation in (Plainly(layers), Frozen(layers))
    )
    control = train(task, Mitigation(), seeds, keep=keep)
    assert expected.keys() == found.keys()
    for name in ("probabilities", "validation_probabilities", "confidence", "kept.head"):
        assert np.allclose(expected[name], found[name], atol=1e-4), name
    for name in ("kept.hidden", "kept.training"):  # kept in half precision
        assert np.allclose(expected[name], found[name], atol=5e-3), name
    assert not np.allclose(control["probabilities"], found["probabilities"], atol=1e-3)


@pytest.mark.parametrize(
    "other", [RDrop(0.5), SAM(0.05), EMA(0.9)], ids=lambda other: type(other).__name__
)
def test_it_composes_with_other_mitigations(task, other):
    seeds = Seeds(3, 3, 3)
    expected = train(task, Composed((Plainly(2), other)), seeds)
    found = train(task, Composed((Frozen(2), other)), seeds)
    assert np.allclose(expected["probabilities"], found["probabilities"], atol=1e-4)
    with pytest.raises(InputError, match=r"Frozen \+ CoDistillation'; expected at most one"):
        Composed((Frozen(2), CoDistillation(1.0)))


def test_no_layer_frozen_is_control_bit_for_bit(task):
    seeds = Seeds(0, 0, 0)
    assert Frozen(0).is_noop and identity(Frozen(0)) == identity(Mitigation())
    assert tiny.same(train(task, Frozen(0), seeds), train(task, Mitigation(), seeds))


def test_no_frozen_weight_moves_or_is_a_parameter(task, checkpoint):
    from transformers import BertModel

    stored = BertModel.from_pretrained(checkpoint).state_dict()
    networks = []

    @dataclass(frozen=True)
    class Watched(Frozen):
        def epoch(self, training):
            networks.append(training.model)

    train(task, Watched(2), Seeds(0, 0, 0))
    network = networks[-1]
    lower = network.lower.backbone.state_dict()
    frozen_names = [name for name in lower if "layer.0" in name or "layer.1" in name]
    assert len(frozen_names) == 2 * 16
    assert all(torch.equal(lower[name], stored[name]) for name in frozen_names)
    upper = {name.removeprefix("network.backbone."): p for name, p in network.named_parameters()}
    assert not upper.keys() & {*frozen_names} and not [n for n in upper if "embeddings" in n]
    moved = [name for name in upper if "layer.2" in name]
    assert len(moved) == 16
    assert not any(
        torch.equal(upper[name], stored[name]) for name in moved if "key.bias" not in name
    )


def test_each_text_is_read_once_and_by_all_runs_of_a_process(task, monkeypatch):
    read = []
    compute = frozen.Lower.compute

    def counted(self, tokens):
        read.extend(frozen.keys(tokens))
        return compute(self, tokens)

    monkeypatch.setattr(frozen.Lower, "compute", counted)
    frozen.activations.cache_clear()
    first = train(task, Frozen(1), Seeds(0, 0, 0))
    splits = (task.train, task.validation, task.test)
    texts = {key for split in splits for key in frozen.keys(split)}
    sample = frozen.keys(Tokens.pack([[0, 1, 2], [0]]))  # the cut is tried on these
    assert sorted(read) == sorted([*texts, *sample])
    read.clear()
    train(task, Frozen(1), Seeds(1, 1, 1))
    assert read == sample
    assert tiny.same(first, train(task, Frozen(1), Seeds(0, 0, 0)))  # remembered or not: equal bits
    read.clear()
    train(task, Frozen(2), Seeds(0, 0, 0))
    assert len(read) == len(texts) + 2


def test_a_large_corpus_is_remembered_in_a_file(task, monkeypatch):
    frozen.activations.cache_clear()
    in_memory = train(task, Frozen(2), Seeds(0, 0, 0))
    frozen.activations.cache_clear()
    monkeypatch.setattr(frozen, "IN_MEMORY", 0)
    files, memmap = [], np.memmap
    monkeypatch.setattr(
        np, "memmap", lambda *given, **named: files.append(given) or memmap(*given, **named)
    )
    assert tiny.same(in_memory, train(task, Frozen(2), Seeds(0, 0, 0)))
    assert len(files) == 1


def test_other_texts_and_copies_are_read_too(task):
    with Stream("init", 0):
        plain = task.build()
    network = PartlyFrozen(copy.deepcopy(plain), 2)
    network.lower.remember([task.train])
    twin = copy.deepcopy(network)
    assert twin.lower is network.lower and twin.head is not network.head
    for tokens in (task.train, task.test):
        expected = predict(plain, tokens, task.recipe)
        assert torch.allclose(predict(twin, tokens, task.recipe), expected, atol=1e-5)
    doubled = network.double()
    assert predict(doubled, task.train, task.recipe).shape == (len(task.train_labels), task.classes)


def test_an_interrupted_training_goes_on_with_the_same_bits(task, tmp_path):
    class Stop(Exception):
        pass

    @dataclass(frozen=True)
    class Halted(Frozen):
        def epoch(self, training):
            if training.epoch == 1:
                raise Stop

    path = tmp_path / "unfinished.safetensors"
    with pytest.raises(Stop):
        train(task, Halted(2), Seeds(0, 0, 0), path, save_every=0)
    frozen.activations.cache_clear()
    continued = train(task, Frozen(2), Seeds(0, 0, 0), path)
    assert tiny.same(continued, train(task, Frozen(2), Seeds(0, 0, 0)))


def test_what_cannot_be_frozen_is_refused_by_name(task):
    with pytest.raises(InputError, match="model: got 'compact'; expected a pretrained checkpoint"):
        train(tiny.task(), Frozen(1), Seeds(0, 0, 0))
    with pytest.raises(InputError, match="Frozen layers: got 4; expected an integer of at most 3"):
        train(task, Frozen(4), Seeds(0, 0, 0))
    for layers in (-1, 1.5, True):
        with pytest.raises(InputError, match="Frozen layers"):
            Frozen(layers)


def kinds() -> dict:
    """Small encoders of other families, by name."""
    import transformers as t

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 24}
    distil = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 40}
    modern = {
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    return {
        "RoBERTa": t.RobertaConfig(**sizes),
        "DistilBERT": t.DistilBertConfig(**distil),
        "DeBERTa": t.DebertaV2Config(**sizes, relative_attention=True, pos_att_type=["p2c", "c2p"]),
        "ModernBERT": t.ModernBertConfig(**sizes, **modern),
        "MPNet": t.MPNetConfig(**sizes),
        "ELECTRA": t.ElectraConfig(**sizes, embedding_size=16),
    }


@pytest.mark.filterwarnings("ignore:`torch.jit.script")  # DeBERTa in older transformers
@pytest.mark.parametrize(
    "name", ["RoBERTa", "DistilBERT", "DeBERTa", "ModernBERT", "MPNet", "ELECTRA"]
)
def test_other_encoders_can_be_cut_too(name, tmp_path):
    from transformers import AutoModel

    config = kinds()[name]
    with Stream("checkpoint", 0):
        AutoModel.from_config(config).save_pretrained(tmp_path)
        plain = Pretrained(str(tmp_path), "mean", 4, pad=config.pad_token_id or 0)
    tokens = Tokens.pack([[5, 6, 7, 8], [9, 10], [11]])
    network = PartlyFrozen(copy.deepcopy(plain), 1).eval()
    with torch.no_grad():
        assert torch.allclose(network(tokens), plain.eval()(tokens), atol=1e-5)


def test_an_encoder_whose_layers_share_weights_is_refused(tmp_path):
    from transformers import AlbertConfig, AlbertModel

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    AlbertModel(AlbertConfig(**shape, intermediate_size=32)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="AlbertModel'; expected an encoder with a list of layers"):
        PartlyFrozen(Pretrained(str(tmp_path), "mean", 4, pad=0), 1)

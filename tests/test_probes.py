from __future__ import annotations

from dataclasses import dataclass, replace
from time import process_time
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from test_models import make_checkpoint

from stabutils.errors import InputError
from stabutils.metrics import label_entropy
from stabutils.mitigations import Mitigation
from stabutils.mitigations.interventions import Without
from stabutils.mitigations.regularizers import EMA, CoDistillation, MCDropout
from stabutils.training import probes
from stabutils.training.loop import train
from stabutils.training.preparation import CHECKPOINT, prepare
from stabutils.training.probes import (
    PROBES,
    PROXIES,
    distance_share,
    marks,
    weight_noise,
    word_drop,
)
from stabutils.training.state import Probe, Seeds, Stream, Training
from stabutils.training.task import Tokens

TASK = tiny.task()
ALL = tuple(PROBES.values())
ANSWERS = {
    "labels",
    "probabilities",
    "checkpoints",
    "confidence",
    "validation_labels",
    "validation_probabilities",
}


def split(answers: dict) -> tuple[dict, dict]:
    """The answers, and what was kept."""
    return (
        {name: answers[name] for name in ANSWERS},
        {
            name.removeprefix("kept."): array
            for name, array in answers.items()
            if name.startswith("kept.")
        },
    )


@pytest.fixture(scope="module")
def kept():
    return split(train(TASK, Mitigation(), Seeds(0, 1, 2), keep=ALL))[1]


# ---- what a training keeps


def test_what_is_kept_has_the_promised_shapes(kept):
    assert kept.keys() == PROBES.keys()
    assert kept["hidden"].shape == (20, 32) and kept["hidden"].dtype == np.float16
    assert kept["training"].shape == (6, 60, 4) and kept["training"].dtype == np.float16
    assert np.allclose(kept["training"].sum(2, dtype=float), 1, atol=2e-3)
    for name in PROXIES:
        assert (
            kept[name].shape == (20,) and kept[name].dtype == np.float32 and np.ptp(kept[name]) > 0
        ), name
        assert (kept[name] >= 0).all() and kept[name].max() <= np.log(4), name


@pytest.mark.parametrize("mitigation", [Mitigation(), EMA(0.9), MCDropout(2), CoDistillation(1.0)])
def test_no_probe_changes_the_answers(mitigation):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    plain = train(TASK, mitigation, Seeds(0, 1, 2))
    answers, _ = split(train(TASK, mitigation, Seeds(0, 1, 2), keep=ALL))
    assert tiny.same(answers, split(plain)[0])
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_probe_draws_and_how_long_it_takes_is_its_own_affair(kept):
    def busy(training):
        end = process_time() + 0.2
        while process_time() < end:
            torch.rand(1000)
        return np.zeros(1)

    answers = train(
        TASK,
        Mitigation(),
        Seeds(0, 1, 2),
        keep=(Probe("busy", busy, often=True), PROBES["dropout"]),
    )
    plain = train(TASK, Mitigation(), Seeds(0, 1, 2))
    assert tiny.same(split(answers)[0], split(plain)[0])
    assert answers["kept.busy"].shape == (6, 1)
    assert np.array_equal(answers["kept.dropout"], kept["dropout"])  # whatever else was kept
    assert answers["cpu_seconds"] < plain["cpu_seconds"] + 0.8  # not 6 * 0.2


class Killed(Exception):
    pass


@dataclass(frozen=True)
class Dies(Mitigation):
    after: int = 1

    def epoch(self, training):
        if training.epoch == self.after:
            raise Killed


@dataclass(frozen=True)
class Steps(Mitigation):
    seen: list

    def step(self, training):
        self.seen.append(training.step)


@pytest.mark.parametrize(
    "first, then, steps",
    [
        ((), ("hidden", "margin"), 16),
        (("training",), ("training", "margin"), 16),
        (("training",), (), 16),
        ((), ("training",), 24),
    ],
)  # checkpoints have passed unseen: from the beginning
def test_interrupted_and_continued_it_keeps_the_same(tmp_path, kept, first, then, steps):
    unfinished, counted = tmp_path / "run.safetensors", Steps([])
    before, after = ([PROBES[name] for name in names] for names in (first, then))
    with pytest.raises(Killed):
        train(TASK, Dies(), Seeds(0, 1, 2), unfinished, before, save_every=0)
    answers, found = split(train(TASK, counted, Seeds(0, 1, 2), unfinished, after, save_every=1e9))
    assert len(counted.seen) == steps and found.keys() == set(then)
    assert all(np.array_equal(found[name], kept[name]) for name in then)
    assert tiny.same(answers, split(train(TASK, Mitigation(), Seeds(0, 1, 2)))[0])


# ---- each probe by an independent reference


def trained(mitigation: Mitigation | None = None) -> Training:
    """Where a training ends."""
    found = []
    catch = Probe("end", lambda training: found.append(training) or np.zeros(1))
    train(TASK, mitigation or Mitigation(), Seeds(0, 1, 2), keep=[catch])
    return found[0]


def test_hidden_vectors_and_training_probabilities_are_those_of_the_last_network(kept):
    end = trained()
    with torch.no_grad():
        vectors = end.model.eval().features(TASK.test)
        probabilities = end.model(TASK.train).softmax(1)
    assert np.allclose(kept["hidden"], vectors, atol=5e-3)
    assert np.allclose(kept["training"][-1], probabilities, atol=1e-3)
    logits = end.model.head(torch.tensor(kept["hidden"].astype(np.float32)))
    assert np.array_equal(logits.argmax(1), train(TASK, Mitigation(), Seeds(0, 1, 2))["labels"])


def test_what_is_kept_belongs_to_the_network_that_answers():
    end = trained(EMA(0.9))
    averaged = TASK.build()
    averaged.load_state_dict({n.removeprefix("average."): t for n, t in end.memory.items()})
    with torch.no_grad():
        vectors = averaged.eval().features(TASK.test)
    assert np.allclose(PROBES["hidden"].measure(end), vectors, atol=5e-3)
    assert not np.allclose(vectors, end.model.eval().features(TASK.test).detach(), atol=5e-3)


def test_margin_by_hand(monkeypatch):
    answers = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    monkeypatch.setattr(probes, "answer", lambda training, tokens: answers)
    assert PROBES["margin"].measure(SimpleNamespace(task=TASK)) == pytest.approx([0.8, 0.3, 1.0])


def test_distance_share_by_hand():
    means = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0], [torch.nan, torch.nan]])
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    share = distance_share(rows, means, torch.tensor([0, 1, 0, 0, 3]))
    assert share.tolist() == pytest.approx(
        [1 / 4, 3 / 4, 0, 1 / 2, 1]
    )  # the last class has no mean to be near to
    assert distance_share(rows[:1], means[[0, 3]], torch.tensor([0])).tolist() == [0]  # no other
    assert distance_share(rows[2:3], means[[0, 0]], torch.tensor([0])).tolist() == [
        1
    ]  # means in one place


def test_class_distance_is_to_the_means_of_the_training_texts(kept):
    end = trained()
    with torch.no_grad():
        learned, asked = (
            end.model.eval().features(tokens).numpy() for tokens in (TASK.train, TASK.test)
        )
    means = np.stack([learned[TASK.train_labels == label].mean(0) for label in range(4)])
    distances = np.linalg.norm(asked[:, None] - means, axis=2)
    labels = train(TASK, Mitigation(), Seeds(0, 1, 2))["labels"]
    own = distances[np.arange(20), labels]
    other = np.where(np.arange(4) == labels[:, None], np.inf, distances).min(1)
    assert np.allclose(kept["class distance"], own / (own + other), atol=1e-4)


def test_class_distance_knows_only_what_the_run_trains_on():
    few = Without(tuple(range(0, 60, 2)))
    probe = PROBES["class distance"]
    kept = train(
        TASK, few, Seeds(0, 1, 2), keep=[probe, PROBES["hidden"], PROBES["hidden training"]]
    )
    learned, asked = kept["kept.hidden training"][1::2], kept["kept.hidden"]
    labels = TASK.train_labels[1::2]
    means = np.stack([learned[labels == label].astype(float).mean(0) for label in range(4)])
    expected = distance_share(
        *(torch.tensor(array, dtype=torch.float) for array in (asked, means)),
        torch.tensor(kept["labels"]),
    )
    assert np.allclose(kept["kept.class distance"], expected, atol=2e-3)


def test_entropy_under_disturbance_is_that_of_the_disturbed_answers(monkeypatch):
    """Pass number i answers i % 3 to the first text and 2 to the others."""
    passes = iter(range(10))

    def rigged(network, tokens, recipe):
        labels = torch.full((20,), 2)
        labels[0] = next(passes) % 3
        return torch.nn.functional.one_hot(labels, 4).float()

    end = trained()
    monkeypatch.setattr(probes, "predict", rigged)
    entropy = PROBES["word drop 0.1"].measure(end)
    votes = np.array([4, 3, 3]) / 10
    assert entropy[0] == pytest.approx(-(votes * np.log(votes)).sum()) and (entropy[1:] == 0).all()
    assert next(passes, None) is None


def test_undisturbed_nothing_flips_and_more_disturbance_flips_more(kept):
    end = trained()
    for disturb in (weight_noise, word_drop):
        assert (
            probes.disturbed(lambda *given, disturb=disturb: disturb(0.0, *given), end) == 0
        ).all()
    for name, strengths in probes.STRENGTHS.items():
        means = [kept[f"{name} {strength:g}"].mean() for strength in strengths]
        assert means[0] < means[-1], name


def test_dropout_entropy_is_that_of_passes_in_training_mode(kept):
    end = trained()
    with Stream("keep dropout", 2, end.step), torch.no_grad():
        order = torch.argsort(TASK.test.lengths, stable=True)
        passes = []
        for _ in range(10):
            labels = torch.empty(20, dtype=torch.int64)
            labels[order] = end.model.train()(TASK.test.take(order)).argmax(1)
            passes.append(labels.numpy())
    assert np.allclose(label_entropy(np.stack(passes)), kept["dropout"], atol=1e-6)


def test_weight_noise_is_relative_to_each_weight_and_leaves_the_network_alone():
    network = trained().model
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with Stream("noise", 0):
        noisy, tokens = weight_noise(0.1, network, TASK.test)
    assert tokens is TASK.test and all(
        torch.equal(before[n], t) for n, t in network.state_dict().items()
    )
    ratio = torch.cat([(new / before[n]).flatten() for n, new in noisy.state_dict().items()])
    ratio = ratio[ratio.isfinite()]  # some biases are 0
    assert ratio.mean().item() == pytest.approx(
        1, abs=0.01
    ) and ratio.std().item() == pytest.approx(0.1, rel=0.1)


# ---- words left out


def test_words_are_left_out_at_the_rate_asked_for_and_never_all_of_a_text():
    draw = np.random.default_rng(0)
    texts = [draw.integers(1, 50, length).tolist() for length in [1, 2] + [40] * 200]
    tokens = Tokens.pack(texts)
    with Stream("drop", 0):
        dropped = [word_drop(0.25, None, tokens)[1] for _ in range(30)]
        _, last = word_drop(1.0, None, tokens)
    for found in dropped:
        assert found.lengths[0] == 1 and found.lengths.min() == 1 and found.ids[0] == texts[0][0]
    assert np.mean([found.lengths[2:].sum() / 8000 for found in dropped]) == pytest.approx(
        0.75, abs=0.01
    )
    assert {int(found.lengths[1]) for found in dropped} == {1, 2}
    assert last.lengths.tolist() == [1] * 202  # one word stays
    rest = iter(texts[2])
    assert all(
        word in rest for word in dropped[0].take(torch.tensor([2])).ids.tolist()
    )  # in their order


def test_marks_of_the_tokenizer_stay():
    marked = Tokens.pack([[101, 7, 8, 102], [101, 9, 102], [101, 102]])
    assert marks(marked).tolist() == [True, False, False, True, True, False, True, True, True]
    with Stream("drop", 0):
        _, found = word_drop(1.0, None, marked)
    assert found.lengths.tolist() == [3, 3, 2] and found.take(
        torch.tensor([1, 2])
    ).ids.tolist() == [101, 9, 102, 101, 102]
    assert not marks(Tokens.pack([[1, 2], [3, 4]])).any()
    assert marks(Tokens.pack([[1, 2], [1, 4]])).tolist() == [True, False, True, False]


def test_a_checkpoint_can_be_probed(tmp_path):
    folder = make_checkpoint(tmp_path / "bert")
    task = prepare(
        str(folder), tiny.dataset(), replace(CHECKPOINT, epochs=1, batch_size=16, checkpoints=2)
    )
    answers, found = split(train(task, Mitigation(), Seeds(0, 0, 0), keep=ALL))
    assert tiny.same(answers, split(train(task, Mitigation(), Seeds(0, 0, 0)))[0])
    assert found["hidden"].shape == (20, 32) and found["training"].shape == (2, 60, 4)
    assert all(np.isfinite(found[name]).all() for name in PROXIES)


# ---- names


def test_names_are_checked_and_come_once():
    assert probes.names(["margin", "hidden", "margin"]) == ("margin", "hidden")
    assert probes.names("hidden") == ("hidden",) and probes.names(()) == ()
    for wrong in (("hiden",), "all", (1,)):
        with pytest.raises(
            InputError, match="keep: got .*; expected names out of hidden, head, .*word drop 0.4"
        ):
            probes.names(wrong)


def test_a_pretrained_encoder_as_it_comes(tmp_path):
    data, folder = tiny.dataset(), make_checkpoint(tmp_path / "bert")
    found = probes.pretrained(str(folder), data)
    assert found.shape == (20, 32) and np.array_equal(found, probes.pretrained(str(folder), data))
    from transformers import AutoModel, AutoTokenizer

    asked = AutoTokenizer.from_pretrained(folder)([data.test.texts[3]], return_tensors="pt")
    with torch.no_grad():
        by_hand = AutoModel.from_pretrained(folder).eval()(**asked).last_hidden_state[0].mean(0)
    assert np.allclose(found[3], by_hand, atol=1e-5)

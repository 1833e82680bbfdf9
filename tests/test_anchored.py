"""A network beside a linear model: what it answers, with what it composes, how it is trained."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest
import tiny
import torch
from test_models import make_checkpoint

from stabutils.data.datasets import Split
from stabutils.data.linear import Linear, fit, out_of_fold
from stabutils.errors import InputError
from stabutils.metrics.mixtures import mix
from stabutils.mitigations import Composed, Mitigation, describe, identity, price
from stabutils.mitigations.anchored import AnchorDistillation, Anchored, Corrected
from stabutils.mitigations.data_centric import TemporalEnsembling
from stabutils.mitigations.interventions import LabelNoise, Without
from stabutils.mitigations.regularizers import EMA, SWA, CoDistillation, MCDropout, RDrop
from stabutils.mitigations.snapshots import Checkpoints
from stabutils.study.study import Study
from stabutils.study.verify import _mitigation
from stabutils.training import features, loop, stacked
from stabutils.training.changes import Change
from stabutils.training.checkpoints import fingerprint
from stabutils.training.features import frozen_vectors, linear_logits
from stabutils.training.loop import train
from stabutils.training.preparation import COMPACTS, prepare_checkpoint
from stabutils.training.probes import PROBES
from stabutils.training.state import Seeds

DATA = tiny.dataset()
TASK = tiny.task()
SEEDS = Seeds(0, 1, 2)
KINDS = (Anchored, Corrected, AnchorDistillation)


@dataclass(frozen=True)
class Spy(Mitigation):
    """Keeps what the training has in memory."""

    memory: dict = field(default_factory=dict)

    def epoch(self, training):
        self.memory.update(training.memory)


@pytest.fixture(scope="module")
def control():
    return train(TASK, Mitigation(), SEEDS)


@pytest.fixture(scope="module")
def model():
    return fit(Linear(), DATA.train, DATA.validation, 4)


# ---- what every mitigation owes


@pytest.mark.parametrize("kind", KINDS)
def test_a_dose_of_nothing_is_control_bit_for_bit(kind, control, monkeypatch):
    monkeypatch.setattr(features, "fit", None)  # no linear model is fitted for nothing
    features._model.cache_clear()
    nothing = kind(0.0)
    assert tiny.same(control, train(TASK, Composed((nothing,)), SEEDS))
    assert identity(nothing) == [] and describe(nothing) == "control"


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_changes_the_answers(kind, control):
    answers = train(TASK, kind(), SEEDS)
    assert not np.array_equal(answers["probabilities"], control["probabilities"])
    assert np.allclose(answers["probabilities"].sum(1), 1, atol=1e-5)
    assert identity(kind())[0]["name"] == kind.__name__


@dataclass(frozen=True)
class Kill(Mitigation):
    def epoch(self, training):
        if training.epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_one_goes_on_with_the_same_bits(kind, tmp_path):
    unfinished = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(TASK, Composed((kind(), Kill())), SEEDS, unfinished, save_every=0)
    assert unfinished.exists()
    continued = train(TASK, kind(), SEEDS, unfinished, save_every=1e9)
    assert tiny.same(train(TASK, kind(), SEEDS), continued)


@pytest.mark.parametrize("kind", KINDS)
def test_its_identity_holds_every_setting_and_can_be_built_again(kind):
    changed = kind(0.3, classifier="logistic", strengths=(3.0,))
    entry = identity(changed)[0]
    assert entry["settings"].keys() == {field.name for field in fields(kind)}
    stored = [{"name": entry["name"], "settings": entry["settings"] | {"strengths": [3.0]}}]
    assert _mitigation(stored) == changed
    assert describe(changed).endswith("=0.3, classifier=logistic, strengths=(3.0,))")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Anchored(1.5), "Anchored weight: got 1.5; expected a number from 0 to 1"),
        (lambda: Anchored(kind="harmonic"), "Anchored kind: got 'harmonic'"),
        (lambda: Anchored(features="words"), "features: got 'words'"),
        (lambda: Anchored(layer="first"), "layer: got 'first'; expected \"all\", or an integer"),
        (lambda: Corrected(-1.0), "Corrected scale: got -1.0"),
        (lambda: AnchorDistillation(2.0), "AnchorDistillation mixing: got 2.0"),
        (lambda: AnchorDistillation(temperature=0.0), "AnchorDistillation temperature: got 0.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("kind", [Anchored, Corrected])
def test_what_is_asked_at_an_answer_does_not_train_stacked(kind):
    with pytest.raises(InputError, match="to train stacked"):
        stacked.refuse(kind())
    stacked.refuse(AnchorDistillation())


# ---- anchored


@pytest.mark.parametrize("kind", ["arithmetic", "geometric"])
def test_every_split_is_mixed_with_what_the_linear_model_says_of_its_texts(kind, control, model):
    answers = train(TASK, Anchored(0.4, kind), SEEDS)
    for split, name in (("test", "probabilities"), ("validation", "validation_probabilities")):
        anchor = model.probabilities(getattr(DATA, split).texts)
        by_hand = mix(control[name], anchor, 0.4, kind)
        np.testing.assert_allclose(answers[name], by_hand, atol=1e-5)
    anchor = model.probabilities(DATA.test.texts)
    assert len(answers["checkpoints"]) == len(control["checkpoints"]) == 6
    assert np.array_equal(answers["checkpoints"][-1], answers["labels"])
    assert answers["confidence"].shape == control["confidence"].shape
    assert not np.array_equal(answers["labels"], control["labels"])


def test_all_of_the_weight_is_the_linear_model_whatever_the_seed(model):
    runs = [train(TASK, Anchored(1.0), Seeds(seed, seed, seed)) for seed in (3, 4)]
    assert np.array_equal(runs[0]["labels"], model.labels(DATA.test.texts))
    assert np.array_equal(runs[0]["labels"], runs[1]["labels"])


@pytest.mark.parametrize("other", [EMA(0.9), SWA(0.5), MCDropout(3), Checkpoints(2)])
def test_it_mixes_what_another_mitigation_answers(other, model):
    """In whichever order the two stand."""
    plain = train(TASK, other, SEEDS)
    by_hand = mix(plain["probabilities"], model.probabilities(DATA.test.texts), 0.5)
    for parts in ((other, Anchored(0.5)), (Anchored(0.5), other)):
        answers = train(TASK, Composed(parts), SEEDS)
        np.testing.assert_allclose(answers["probabilities"], by_hand, atol=1e-5)


def test_a_second_claim_on_the_answer_is_still_refused():
    with pytest.raises(
        InputError, match="EMA . SWA.; expected at most one that changes the answer"
    ):
        Composed((EMA(), Anchored(), SWA()))


def test_the_linear_model_learns_from_the_texts_that_the_run_trains_on(model):
    """And from no others, so that it moves with the data as the network does."""
    left_out = tuple(range(0, len(DATA.train), 3))
    kept = np.setdiff1d(np.arange(len(DATA.train)), left_out)
    fewer = Split(tuple(DATA.train.texts[row] for row in kept), DATA.train.labels[kept])
    other = fit(Linear(), fewer, DATA.validation, 4)
    answers = train(TASK, Composed((Without(left_out), Anchored(1.0))), SEEDS)
    expected = other.probabilities(DATA.test.texts)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert np.abs(expected - model.probabilities(DATA.test.texts)).max() > 0.01


def test_the_linear_model_learns_the_labels_that_the_run_learns(model):
    noise = LabelNoise(0.4)
    wrong = noise.labels(TASK.train_labels, 4, TASK.train)
    expected = fit(Linear(), Split(DATA.train.texts, wrong), DATA.validation, 4)
    expected = expected.probabilities(DATA.test.texts)
    assert np.abs(expected - model.probabilities(DATA.test.texts)).max() > 0.01
    answers = train(TASK, Composed((noise, Anchored(1.0))), SEEDS)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    taught = loop.build_targets(TASK, Composed((noise, AnchorDistillation(mixing=1.0))), SEEDS)
    plain = loop.build_targets(TASK, AnchorDistillation(mixing=1.0), SEEDS)
    assert not torch.allclose(taught.probabilities, plain.probabilities, atol=0.01)


def test_it_knows_the_labels_of_changed_data():
    change, seeds = Change.parse("relabel 40 %"), Seeds(0, 1, 2, 3)
    targets = loop.build_targets(replace(TASK, change=change), Mitigation(), seeds)
    other = Split(DATA.train.texts, targets.probabilities.argmax(1).numpy())
    expected = fit(Linear(), other, DATA.validation, 4).probabilities(DATA.test.texts)
    answers = train(replace(TASK, change=change), Anchored(1.0), seeds)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    offset = Spy()
    train(replace(TASK, change=change), Composed((Corrected(1.0), offset)), seeds)
    by_hand = linear_logits(targets.task, Linear(), "train", targets.indices)
    assert np.allclose(offset.memory["offset"], by_hand)


def test_training_texts_are_answered_by_models_without_them(model):
    probe = PROBES["training"]
    kept = train(TASK, Anchored(1.0), SEEDS, keep=[probe])["kept.training"][-1]
    margins = out_of_fold(model, DATA.train) / model.temperature
    by_hand = np.exp(margins) / np.exp(margins).sum(1, keepdims=True)
    np.testing.assert_allclose(kept, by_hand, atol=1e-3)


def test_probes_that_disturb_the_network_see_the_anchor_too():
    kept = train(TASK, Anchored(1.0), SEEDS, keep=[PROBES["dropout"], PROBES["hidden"]])
    assert not kept["kept.dropout"].any()  # no dropout moves the linear model
    assert train(TASK, Mitigation(), SEEDS, keep=[PROBES["dropout"]])["kept.dropout"].any()
    assert kept["kept.hidden"].shape == (len(DATA.test), 32)


@dataclass(frozen=True)
class Loudest(Mitigation):
    """A student's own: knows the answer of every text that says "jazz"."""

    weight: float = 1.0

    def postprocess(self, training, probabilities):
        texts = training.task.texts[training.split]
        jazz = torch.tensor(["jazz" in text for text in texts])
        certain = torch.eye(4)[2].expand_as(probabilities)
        return torch.where(jazz[:, None], certain, probabilities)


def test_a_mitigation_of_ones_own_reads_the_texts_of_every_split(control):
    answers = train(TASK, Loudest(), SEEDS)
    for split, name in (("test", "labels"), ("validation", "validation_labels")):
        jazz = np.array(["jazz" in text for text in getattr(DATA, split).texts])
        assert (answers[name][jazz] == 2).all()
        assert np.array_equal(answers[name][~jazz], control[name][~jazz])


@dataclass(frozen=True)
class Reader(Mitigation):
    """Writes down what it was asked about."""

    splits: list

    def answer(self, training, predict):
        probabilities = predict(training.model)
        texts = training.task.texts[training.split]
        assert len(probabilities) == len(texts)
        self.splits.append(training.split)
        return probabilities

    def data(self, targets):
        assert targets.task.texts["train"] == DATA.train.texts
        return targets


def test_an_answer_knows_its_split():
    reader = Reader([])
    train(TASK, reader, SEEDS, keep=[PROBES["training"]])
    assert set(reader.splits) == {"train", "validation", "test"}
    assert reader.splits[:1] == ["test"] and reader.splits.count("validation") == 1


def test_texts_are_no_part_of_what_a_run_is(tmp_path, monkeypatch):
    study = Study(dataset=str(tiny.project(tmp_path, monkeypatch)), runs=2, epochs=9)
    run = study.identify(Mitigation(), Seeds(0, 0, 0))
    assert study.task.texts["test"] == study.data.test.texts
    assert set(run.identity) == {"version", "dataset", "model", "recipe", "mitigation", "seeds"}
    assert run.identity["model"] == study.task.identity
    assert "texts" not in run.identity["model"] and "cache" not in run.identity["model"]


def test_a_study_trains_it_and_reads_it_again(tmp_path, monkeypatch):
    study = Study(dataset=str(tiny.project(tmp_path, monkeypatch)), runs=2, epochs=9, workers=1)
    arm = (RDrop(), Anchored(0.9))
    first = study.retrain(arm)
    assert first.arm == "RDrop(strength=0.5) + Anchored(weight=0.9)"
    monkeypatch.setattr(loop, "train", None)
    assert np.array_equal(study.retrain(arm).probabilities, first.probabilities)


def test_prices():
    recipe = TASK.recipe
    assert price(Anchored(), recipe) == price(Corrected(), recipe) == (1, 1)
    assert price(Anchored(features="both"), recipe) == (1, 2)
    assert price(AnchorDistillation(features="frozen"), recipe) == (1, 1)  # asked in training only
    assert price(Anchored(0.0, features="both"), recipe) == (1, 1)
    # The encoder is asked once beside ten passes, not once for each of them.
    assert price((MCDropout(10), Anchored(features="both")), recipe) == (1, 11)
    assert price((RDrop(), Checkpoints(3), Anchored()), recipe) == (2, 3)


# ---- trained towards the anchor


def test_a_correction_begins_as_the_linear_model(model):
    """A network that is not trained and says nothing leaves the offset as it is."""
    task = replace(TASK, recipe=replace(TASK.recipe, epochs=1, learning_rate=1e-12))

    def silent():
        network = TASK.build()
        torch.nn.init.zeros_(network.head.weight)
        torch.nn.init.zeros_(network.head.bias)
        return network

    answers = train(replace(task, build=silent), Corrected(1.0), SEEDS)
    expected = model.probabilities(DATA.test.texts)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-4)


def test_a_correction_trains_on_logits_of_models_without_the_text(model):
    seen = {}

    @dataclass(frozen=True)
    class Look(Mitigation):
        def loss(self, forward, batch, inner):
            seen.setdefault("offset", batch.memory["offset"].clone())
            return inner(forward())

    train(TASK, Composed((Corrected(0.5), Look())), SEEDS)
    margins = out_of_fold(model, DATA.train) / model.temperature
    logs = margins - np.log(np.exp(margins).sum(1, keepdims=True))
    np.testing.assert_allclose(seen["offset"], 0.5 * logs, atol=1e-4)


def test_a_correction_adds_to_the_loss_what_it_adds_to_the_answer():
    batch = type("Batch", (), {})()
    batch.indices = torch.tensor([1])
    batch.memory = {"offset": torch.tensor([[0.0, 0.0], [2.0, 1.0]])}
    logits = Corrected().loss(lambda: torch.tensor([[0.5, 3.0]]), batch, lambda given: given)
    assert logits.tolist() == [[2.5, 4.0]]


@pytest.mark.parametrize(
    "parts",
    [
        (RDrop(), Corrected()),
        (Corrected(), TemporalEnsembling()),
        (CoDistillation(), Corrected(), Anchored()),
        (EMA(), Corrected()),
    ],
)
def test_a_correction_composes(parts):
    assert np.isfinite(train(TASK, Composed(parts), SEEDS)["probabilities"]).all()


def test_a_loss_of_several_passes_stands_before_a_correction():
    with pytest.raises(InputError, match="the one whose loss makes several passes to stand first"):
        train(TASK, Composed((Corrected(), RDrop())), SEEDS)


def test_distillation_trains_towards_labels_and_out_of_fold_answers(model):
    targets = loop.build_targets(TASK, AnchorDistillation(0.3, temperature=2.0), SEEDS)
    margins = out_of_fold(model, DATA.train) / model.temperature / 2
    soft = np.exp(margins) / np.exp(margins).sum(1, keepdims=True)
    expected = 0.7 * np.eye(4)[DATA.train.labels] + 0.3 * soft
    np.testing.assert_allclose(targets.probabilities, expected, atol=1e-4)


def test_distillation_asks_the_linear_model_of_the_texts_that_are_left():
    left_out = (0, 5, 9)
    targets = loop.build_targets(
        TASK, Composed((Without(left_out), AnchorDistillation(1.0))), SEEDS
    )
    logits = linear_logits(TASK, Linear(), "train", targets.indices)
    assert len(targets.indices) == len(DATA.train) - 3
    np.testing.assert_allclose(targets.probabilities, np.exp(logits[targets.indices]), atol=1e-5)
    # Texts that were left out are answered by the model of all others.
    rows = targets.indices.tolist()
    texts = tuple(DATA.train.texts[row] for row in rows)
    others = fit(Linear(), Split(texts, DATA.train.labels[rows]), DATA.validation, 4)
    expected = others.probabilities([DATA.train.texts[5]])
    np.testing.assert_allclose(np.exp(logits[[5]]), expected, atol=1e-5)


# ---- frozen vectors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def task_of(checkpoint, cache=None, pooling="mean"):
    recipe = replace(tiny.RECIPE, epochs=1, checkpoints=1)
    return replace(prepare_checkpoint(DATA, recipe, str(checkpoint), pooling), cache=cache)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_vectors_equal_those_of_the_library(checkpoint, pooling):
    """Against transformers by itself, one text at a time, every layer."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(checkpoint),
        AutoModel.from_pretrained(checkpoint),
    )
    model.eval()
    task = task_of(checkpoint, pooling=pooling)
    with torch.no_grad():
        given = [tokenizer(text, return_tensors="pt") for text in DATA.test.texts]
        hidden = [model(**text, output_hidden_states=True).hidden_states for text in given]
    pool = {"mean": lambda h: h.mean(0), "first": lambda h: h[0], "last": lambda h: h[-1]}[pooling]
    layers = [
        unit(np.stack([pool(text[layer][0].numpy()) for text in hidden]))
        for layer in range(len(hidden[0]))
    ]
    for layer in (0, -1, len(layers) - 1):
        found = frozen_vectors(task, layer)["test"]
        np.testing.assert_allclose(found, layers[layer], atol=1e-5)
    every = frozen_vectors(task, "all")["test"]
    np.testing.assert_allclose(every, np.concatenate(layers, axis=1), atol=1e-5)
    assert frozen_vectors(task)["train"].shape == (len(DATA.train), layers[0].shape[1])


def test_of_several_that_want_the_same_one_computes_it_and_the_others_wait(tmp_path):
    task, computed = replace(tiny.task(), cache=tmp_path / "vectors"), []

    def compute():
        computed.append(1)
        time.sleep(0.3)
        return {"found": np.arange(3)}

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(features._kept, task, "any", {"of": 1}, compute) for _ in range(4)]
        found = [each.result()["found"].tolist() for each in asked]
    assert found == [[0, 1, 2]] * 4 and len(computed) == 1
    shutil.rmtree(tmp_path / "locks")
    (tmp_path / "locks").touch()  # where nothing can be written, what is kept is read all the same
    assert features._kept(task, "any", {"of": 1}, compute)["found"].tolist() == [0, 1, 2]
    assert len(computed) == 1


def test_vectors_are_computed_once_and_a_damaged_file_is_not_believed(
    checkpoint, tmp_path, monkeypatch
):
    task = task_of(checkpoint, tmp_path / "vectors")
    features._vectors.cache_clear()
    first = frozen_vectors(task)
    computed = []
    original = features._computed
    monkeypatch.setattr(features, "_computed", lambda *of: computed.append(of) or original(*of))
    features._vectors.cache_clear()
    again = frozen_vectors(task)
    assert not computed and again.keys() == first.keys()
    assert all(np.array_equal(again[split], first[split]) for split in first)
    (path,) = (tmp_path / "vectors").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    features._vectors.cache_clear()
    with pytest.warns(match="set aside"):
        assert np.array_equal(frozen_vectors(task)["test"], first["test"])
    assert len(computed) == 1
    for layer, pooling in ((0, "mean"), (-1, "first")):  # other vectors are other files
        frozen_vectors(task_of(checkpoint, tmp_path / "vectors", pooling), layer)
    assert len(computed) == 3
    assert len(list((tmp_path / "vectors").glob("*.safetensors"))) == 3
    assert fingerprint(checkpoint) == task.identity["sha256"]


def test_linear_models_are_fitted_once_for_all_processes(checkpoint, tmp_path, monkeypatch):
    task, rows = task_of(checkpoint, tmp_path / "kept"), torch.arange(30)
    settings, split = Linear("tfidf"), "validation"
    fits = []
    original = features.fit
    monkeypatch.setattr(features, "fit", lambda *of: fits.append(of) or original(*of))

    def asked(rows):
        for cached in (features._logits, features._model):
            cached.cache_clear()  # as in another process
        return linear_logits(task, settings, split, rows)

    first = asked(rows)
    assert np.array_equal(asked(rows.flip(0)), first) and len(fits) == 1
    assert not np.array_equal(asked(torch.arange(29)), first) and len(fits) == 2
    for path in (tmp_path / "kept").glob("linear-*"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.warns(match="set aside"):
        assert np.array_equal(asked(rows), first)
    assert len(fits) == 3
    monkeypatch.setattr(features, "_source_of_fit", lambda: "another way to fit")
    asked(rows)
    assert len(fits) == 4


def test_what_has_no_frozen_vectors_is_refused(checkpoint):
    with pytest.raises(InputError, match="model: got 'compact'; expected a checkpoint"):
        train(TASK, Anchored(features="both"), SEEDS)
    with pytest.raises(InputError, match='layer: got 9; expected "all", or an integer from -'):
        frozen_vectors(task_of(checkpoint), 9)


@pytest.mark.parametrize("kind", [Anchored(0.6), Corrected(0.5), AnchorDistillation(0.5)])
@pytest.mark.parametrize("read", [("frozen", -1), ("both", -1), ("both", "all")])
def test_a_checkpoint_is_anchored_to_its_own_frozen_vectors(checkpoint, kind, read):
    task = task_of(checkpoint)
    features, layer = read
    anchored = replace(kind, features=features, layer=layer, strengths=(1.0,))
    answers = train(task, anchored, SEEDS)
    plain = train(task, Mitigation(), SEEDS)
    assert not np.allclose(answers["probabilities"], plain["probabilities"], atol=1e-3)
    if isinstance(kind, Anchored):
        vectors = frozen_vectors(task, layer)
        model = fit(anchored.linear, DATA.train, DATA.validation, 4, vectors)
        anchor = model.probabilities(DATA.test.texts, vectors["test"])
        by_hand = mix(plain["probabilities"], anchor, 0.6)
        np.testing.assert_allclose(answers["probabilities"], by_hand, atol=1e-5)


def test_the_wide_network_has_the_budget_of_an_ensemble_of_five():
    data = replace(DATA)
    sizes = []
    for name in ("compact", "compact-wide"):
        network = tiny.task(shape=COMPACTS[name], data=data).build()
        sizes.append(sum(weights.numel() for weights in network.parameters()))
    assert 4 < sizes[1] / sizes[0] < 6

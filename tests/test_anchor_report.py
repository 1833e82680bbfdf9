"""An anchor for any system: what it would buy, and a file that answers without this package."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from test_linear import VECTORS
from test_models import make_checkpoint
from transformers import AutoConfig, AutoModel

from stabutils.__main__ import main
from stabutils.data.datasets import Dataset, Split
from stabutils.data.linear import Linear, fit
from stabutils.errors import InputError
from stabutils.metrics.mixtures import choose_weight, curve, mix
from stabutils.reports.anchor import (
    Anchor,
    Encoder,
    assess,
    encode,
    load,
    probabilities_of,
    read_rated,
    serve,
)
from stabutils.reports.reading import Predictions, read_predictions
from stabutils.study.study import Study
from stabutils.training.features import frozen_vectors
from stabutils.training.files import DamagedRun

DATA = tiny.dataset()
NEW = ("wake me at seven", "", "jazz jazz jazz", "größe 日本 🎵", DATA.test.texts[0])


def system(split: str, runs: int = 5, noise: float = 1.0, strength: float = 1.5) -> np.ndarray:
    """Probabilities of a system whose runs disagree on some texts."""
    gold = getattr(DATA, split).labels
    draw = np.random.default_rng(len(gold))
    logits = strength * np.eye(4)[gold] + noise * draw.normal(size=(runs, len(gold), 4))
    return (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)


def made(features: str = "tfidf", kind: str = "geometric", classifier: str = "svm") -> Anchor:
    model = fit(Linear(features, classifier), DATA.train, DATA.validation, 4, VECTORS)
    return Anchor(model, 0.3, kind, DATA.label_names)


def read(features: str) -> np.ndarray | None:
    return None if features == "tfidf" else VECTORS["test"][: len(NEW)]


@pytest.mark.parametrize("kind", ["arithmetic", "geometric"])
@pytest.mark.parametrize("features", ["tfidf", "frozen", "both"])
def test_a_saved_anchor_answers_as_it_did(features, kind, tmp_path):
    before = made(features, kind)
    path = before.save(tmp_path / "anchor.safetensors")
    after, vectors = load(path), read(features)
    assert (after.weight, after.kind, after.label_names) == (0.3, kind, DATA.label_names)
    assert after.model.settings == before.model.settings
    network = system("test")[0][: len(NEW)]
    for given in (None, network):
        expected = before.answer(NEW, given, vectors)
        assert np.array_equal(after.answer(NEW, given, vectors), expected)
        names, answer = serve(path)
        found = answer(NEW, given, vectors)
        assert tuple(names) == DATA.label_names
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert np.allclose(found.sum(-1), 1, atol=1e-5)


def test_a_service_needs_no_more_than_the_function(tmp_path):
    """Its text, run by itself where this package cannot be imported."""
    path = made().save(tmp_path / "anchor.safetensors")
    network = system("test")[0][: len(NEW)]
    np.save(tmp_path / "network.npy", network)
    code = f"""
import sys
sys.modules["stabutils"] = None
{inspect.getsource(serve)}
import json, numpy
network = numpy.load({str(tmp_path / "network.npy")!r})
names, answer = serve({str(path)!r})
assert names[0] == {DATA.label_names[0]!r}
singles = [answer([text], network[[row]])[0] for row, text in enumerate({list(NEW)!r})]
print(json.dumps(numpy.array(singles).tolist()))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    np.testing.assert_allclose(json.loads(run.stdout), made().answer(NEW, network), atol=1e-6)


def test_a_file_that_is_no_anchor_is_refused(tmp_path):
    with pytest.raises(InputError, match="anchor: got .*missing.safetensors"):
        load(tmp_path / "missing.safetensors")
    path = made().save(tmp_path / "anchor.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (tmp_path / "other.safetensors").write_bytes(b"a model of somebody")
    for wrong in (path, tmp_path / "other.safetensors"):  # which stay where they are
        with pytest.warns(DamagedRun), pytest.raises(InputError, match="an undamaged file"):
            load(wrong)
        assert wrong.exists() and not list(tmp_path.glob("*.damaged"))
    with pytest.raises(InputError, match="an undamaged file"):
        load(tmp_path)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    one, other = (made().save(tmp_path / name) for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


# ---- what it would buy


def test_an_assessment_chooses_on_validation_and_scores_on_test():
    validation, test = system("validation"), system("test")
    found = assess(DATA, validation, test)
    model = made().model
    held_out = model.probabilities(DATA.validation.texts)
    weight = choose_weight(validation, held_out, DATA.validation.labels)
    own = model.probabilities(DATA.test.texts)
    assert found.anchor.weight == weight
    by_hand = curve(test, own, DATA.test.labels, weights=(0.0, weight, 1.0))
    assert {name: found.chosen[name] for name in found.chosen} == by_hand.iloc[1, 1:].to_dict()
    assert found.alone == np.mean(model.labels(DATA.test.texts) == DATA.test.labels)
    assert found.test.weight.iloc[[0, -1]].tolist() == [0.0, 1.0]
    assert f"chosen on validation: {weight:g}" in found.summary()
    saved = found.chosen["reduction"]
    value, low = (f"{100 * number:.1f}" for number in (saved.value, saved.low))
    assert f"Label entropy reduced by {value} % [{low}, " in found.summary()


def test_test_texts_choose_nothing():
    validation, test = system("validation"), system("test")
    labels = np.where(np.arange(len(DATA.test)) < 6, 0, DATA.test.labels)
    relabelled = replace(DATA, test=replace(DATA.test, labels=labels))
    one, other = (assess(data, validation, test) for data in (DATA, relabelled))
    assert one.anchor.weight == other.anchor.weight
    assert one.anchor.model.strength == other.anchor.model.strength
    assert one.alone != other.alone


def test_a_perfect_system_needs_no_anchor():
    """And a system that knows little is better replaced than mixed with."""
    perfect = [system(split, strength=30) for split in ("validation", "test")]
    weak = [system(split, strength=0.8) for split in ("validation", "test")]
    found = assess(DATA, *perfect, kind="arithmetic")
    assert found.chosen["accuracy_change"].value <= 0
    assert "nothing to reduce" in found.summary() and "None" not in found.summary()
    found = assess(DATA, *weak)
    assert found.anchor.weight == 1 and found.chosen["accuracy_change"].value > 0.2
    assert "chosen on validation: 1 (use the linear model alone)" in found.summary()
    assert "differs by +0.0 points [+0.0, +0.0], not significantly more accurate" in found.summary()


@pytest.mark.parametrize("knows", [True, False])
def test_a_system_that_knows_the_validation_texts_from_its_training_is_called_out(knows):
    noise = 0.1 if knows else 1.0
    found = assess(DATA, system("validation", noise=noise), system("test", noise=1.0))
    assert ("CAUTION" in found.summary()) == bool(found.caution) == knows


def test_logits_and_rows_in_another_order_are_refused():
    validation, test = system("validation"), system("test")
    shuffled = np.random.default_rng(0).permutation(len(DATA.test))
    for wrong, said in (
        (np.log(test), "probabilities: got -"),
        (np.round(2 * test, 3), "row sum of probabilities"),
        (test[:, shuffled], "accuracy of the test probabilities: .* more than chance"),
        (test[..., ::-1], "accuracy of the test probabilities"),
    ):
        with pytest.raises(InputError, match=said):
            assess(DATA, validation, wrong)


def test_frozen_vectors_are_handed_in():
    given = system("validation"), system("test")
    found = assess(DATA, *given, Linear("both"), "arithmetic", VECTORS)
    assert found.anchor.kind == "arithmetic"
    assert found.anchor.model.coefficients.shape[1] > VECTORS["test"].shape[1]
    network, own = system("test")[0], found.anchor.model
    mixed = found.anchor.answer(DATA.test.texts, network, VECTORS["test"])
    anchor_alone = own.probabilities(DATA.test.texts, VECTORS["test"])
    assert np.array_equal(mixed, mix(network, anchor_alone, found.anchor.weight, "arithmetic"))


def test_probabilities_of_another_corpus_are_refused():
    validation, test = system("validation"), system("test")
    for wrong in (test[:, :-1], test[..., :-1], test[0]):
        with pytest.raises(InputError, match="shape of the test probabilities"):
            assess(DATA, validation, wrong)
    with pytest.raises(InputError, match="shape of the validation probabilities"):
        assess(DATA, test, test)


def test_classes_are_taken_by_their_names_also_without_names_of_examples():
    """Fails if a table's order of labels, 2 before 10, is taken for the corpus's."""
    names = [f"level{i}" for i in range(12)]
    part = Split(tuple(f"text {i}" for i in range(12)), np.arange(12))
    data = Dataset("levels", part, part, part, tuple(sorted(names)))
    right = data.label_names
    natural = tuple(names)
    shares = np.eye(12)[[natural.index(name) for name in right]][None]
    read = of_shares(shares, natural)
    assert (probabilities_of(read, data, "test")[0].argmax(-1) == part.labels).all()
    numbers = tuple(map(str, range(12)))
    assert (
        probabilities_of(of_shares(np.eye(12)[None], numbers), data, "test")[0] == np.eye(12)
    ).all()
    counted = replace(data, label_names=tuple(sorted(numbers)))
    with pytest.raises(InputError, match="numbers, which are labels too"):
        probabilities_of(of_shares(np.eye(12)[None], numbers), counted, "test")


def of_shares(shares, names):
    """Predictions of one run without names of examples."""
    examples = tuple(map(str, range(shares.shape[1])))
    more = {"probabilities": shares, "numbered": True}
    return Predictions(shares.argmax(-1), names, ("1",), examples, "by hand", **more)


# ---- the command line


@pytest.fixture
def files(tmp_path):
    """A corpus and what five runs of a system say of it, as people would save them."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "validation", "test"):
        part = getattr(DATA, split)
        rows = [
            {"text": text, "label": DATA.label_names[label]}
            for text, label in zip(part.texts, part.labels, strict=True)
        ]
        pd.DataFrame(rows).to_csv(corpus / f"{split}.csv", index=False)
        if split != "train":
            np.save(tmp_path / f"{split}.npy", system(split))
    return tmp_path


def table(split: str, order: list[int]) -> pd.DataFrame:
    """The same as a table in the long form, its columns of probabilities in some order."""
    part, rows = getattr(DATA, split), []
    for run, probabilities in enumerate(system(split)):
        for example, own in enumerate(probabilities):
            shares = {f"p_{DATA.label_names[label]}": own[label] for label in order}
            answer = {"label": DATA.label_names[own.argmax()], "text": part.texts[example]}
            rows.append({"run": run, "example": example, **answer, **shares})
    return pd.DataFrame(rows)


def test_the_command_line_assesses_and_saves_an_anchor_that_answers(files, capsys):
    given = [str(files / name) for name in ("corpus", "validation.npy", "test.npy")]
    output = str(files / "mine.safetensors")
    assert main(["anchor", *given, "-o", output, "--csv", str(files / "curve.csv")]) == 0
    expected = assess(DATA, system("validation"), system("test"))
    words = capsys.readouterr().out
    assert expected.summary() in words and words.endswith(f"anchor: {output}\n")
    network = system("test")[0]
    answers = serve(output)[1](DATA.test.texts, network)
    by_hand = expected.anchor.answer(DATA.test.texts, network)
    np.testing.assert_allclose(answers, by_hand, atol=1e-6)
    written = pd.read_csv(files / "curve.csv")
    assert written.weight.tolist() == expected.test.weight.tolist()
    churn = expected.test.churn[3]
    ends = written.loc[3, ["churn", "churn_low", "churn_high"]]
    np.testing.assert_allclose(ends.astype(float), [churn.value, churn.low, churn.high])


def test_its_document_for_programs_has_what_it_prints(files):
    given = [str(files / name) for name in ("corpus", "validation.npy", "test.npy")]
    output, document = str(files / "mine.safetensors"), files / "anchor.json"
    assert main(["anchor", *given, "-o", output, "--json", str(document)]) == 0
    found = json.loads(document.read_text(encoding="utf-8"))
    expected = assess(DATA, system("validation"), system("test"))
    assert (found["command"], found["status"], found["anchor"]) == ("anchor", 0, output)
    assert (found["weight"], found["alone"]) == (expected.anchor.weight, expected.alone)
    numbers = {(each["metric"], each["arm"]): each for each in found["numbers"]}
    before, after = numbers["churn", "before"], numbers["churn", "after"]
    assert before["value"] == expected.test.churn[0].value
    assert (after["low"], after["high"]) == (
        expected.chosen["churn"].low,
        expected.chosen["churn"].high,
    )
    assert numbers["over_linear", "after"]["value"] == expected.chosen["over_anchor"].value
    assert ("reduction", "after") in numbers

    assert main(["anchor", "nowhere.csv", *given[1:], "--json", str(document)]) == 2
    failed = json.loads(document.read_text(encoding="utf-8"))
    assert failed["status"] == 2 and "nowhere.csv" in failed["error"]


def test_columns_named_for_labels_are_put_in_order(files, capsys):
    given = [str(files / "corpus")]
    for split in ("validation", "test"):
        table(split, [2, 0, 3, 1]).to_csv(files / f"{split}.csv", index=False)
        given.append(str(files / f"{split}.csv"))
    assert main(["anchor", *given, "-o", str(files / "mine.safetensors")]) == 0
    assert assess(DATA, system("validation"), system("test")).summary() in capsys.readouterr().out


@pytest.mark.parametrize("named_by", ["text", "example"])
def test_rows_that_have_their_text_may_stand_in_any_order_and_need_no_label(files, named_by):
    rows = table("test", [1, 0, 2, 3]).drop(columns="label")
    if named_by == "example":
        rows = rows.assign(example=rows.text).drop(columns="text")
    else:
        rows["example"] = -rows.example
    rows.sample(frac=1, random_state=0).to_csv(files / "rows.csv", index=False)
    found = probabilities_of(read_rated(files / "rows.csv", {}), DATA, "test")
    np.testing.assert_allclose(found, system("test"), rtol=1e-6)


def test_frozen_vectors_come_from_a_file(files, capsys):
    from safetensors.numpy import save_file

    save_file({name: np.asarray(own) for name, own in VECTORS.items()}, files / "v.safetensors")
    given = [str(files / name) for name in ("corpus", "validation.npy", "test.npy")]
    output = str(files / "mine.safetensors")
    vectors = ["--features", "both", "--vectors", str(files / "v.safetensors"), "-o", output]
    assert main(["anchor", *given, *vectors, "--kind", "arithmetic"]) == 0
    expected = assess(
        DATA, system("validation"), system("test"), Linear("both"), "arithmetic", VECTORS
    )
    assert expected.summary() in capsys.readouterr().out
    assert load(output).model.settings == Linear("both")
    assert main(["anchor", *given, *vectors[2:], "--kind", "arithmetic"]) == 0  # both, unasked
    assert expected.summary() in capsys.readouterr().out
    assert main(["anchor", *given, "--features", "tfidf", *vectors[2:]]) == 2
    assert "--vectors would not be read" in capsys.readouterr().err
    assert main(["anchor", *given, "--features", "both"]) == 2
    assert "shape of the vectors" in capsys.readouterr().err
    (files / "junk.safetensors").write_bytes(b"no vectors")
    for wrong in ("junk.safetensors", "missing.safetensors"):
        assert main(["anchor", *given, "--vectors", str(files / wrong)]) == 2
        assert "vectors: got" in capsys.readouterr().err
    unwritable = ["--csv", str(files / "nowhere" / "curve.csv")]
    assert main(["anchor", *given, *vectors[2:], *unwritable]) == 2
    assert "output: got" in capsys.readouterr().err


def test_an_encoder_is_read_by_its_name_and_a_service_reads_the_same(files, tmp_path, capsys):
    checkpoint = str(make_checkpoint(tmp_path / "encoder"))
    halved = AutoModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    halved.save_pretrained(checkpoint)  # it is read in full precision all the same
    given = [str(files / name) for name in ("corpus", "validation.npy", "test.npy")]
    output = str(files / "mine.safetensors")
    assert main(["anchor", *given, "--encoder", checkpoint, "-o", output]) == 0
    settings = Linear("both", layer="all")
    study = Study(str(files / "corpus"), checkpoint, pooling="mean")
    vectors = frozen_vectors(study.task, "all")
    args = (settings, "geometric", vectors)
    expected = assess(DATA, system("validation"), system("test"), *args)
    said = capsys.readouterr().out
    assert expected.summary() in said and f"encoder: {checkpoint}, 64 tokens of a text\n" in said
    assert load(output).model.settings == settings
    vectors_of = encode(output, checkpoint)
    own = vectors_of(DATA.test.texts)
    np.testing.assert_allclose(own, vectors["test"], atol=1e-5)
    assert np.isfinite(vectors_of([""])).all()
    anchor = load(output)
    assert anchor.encoder.text == DATA.train.texts[0] and anchor.encoder.tokens == 64
    vector = encode(output, checkpoint)(["wake me"])[0]
    anchor = replace(anchor, encoder=Encoder(2, "wake me at seven", vector))
    short = encode(anchor.save(files / "short.safetensors"), checkpoint)
    assert np.array_equal(*[short([text]) for text in ("wake me at seven", "wake me")])
    for layers in (1, 2):  # of new weights, and of another width
        other = tmp_path / f"{layers} layers"
        shutil.copytree(checkpoint, other)
        AutoModel.from_config(
            AutoConfig.from_pretrained(checkpoint, num_hidden_layers=layers)
        ).save_pretrained(other)
        with pytest.raises(ValueError, match=f"{other} is not the encoder that {output}"):
            encode(output, str(other))
    answers = serve(output)[1](DATA.test.texts, system("test")[0], own)
    by_hand = expected.anchor.answer(DATA.test.texts, system("test")[0], vectors["test"])
    np.testing.assert_allclose(answers, by_hand, atol=1e-4)


def test_what_an_encoder_cannot_go_with_is_refused(files, capsys):
    given = [str(files / name) for name in ("corpus", "validation.npy", "test.npy")]
    for wrong, said in (
        (["--encoder", "some/model:3"], "encoder: got 'some/model:3'; expected a whole checkpoint"),
        (["--encoder", "some/model", "--features", "frozen"], "features: got 'frozen'"),
    ):
        assert main(["anchor", *given, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_predictions_that_do_not_belong_to_the_corpus_are_refused(files):
    right = table("test", [0, 1, 2, 3])
    other_texts = right.assign(text=[f"not {text}" for text in DATA.test.texts] * 5)
    other_gold = right.assign(gold=[DATA.label_names[0]] * len(right))
    no_probabilities = right.drop(columns=[f"p_{name}" for name in DATA.label_names])
    renamed = right.rename(columns={"p_music": "p_sports"}).replace({"label": {"music": "sports"}})
    for wrong, said in (
        (other_texts, "texts of the predictions on test"),
        (no_probabilities, "predictions on test: got 'labels only'"),
        (renamed, "labels of the predictions on test: got 'music'"),
        (other_gold, "gold labels of the predictions on test"),
    ):
        wrong.to_csv(files / "wrong.csv", index=False)
        with pytest.raises(InputError, match=said):
            probabilities_of(read_predictions(files / "wrong.csv"), DATA, "test")

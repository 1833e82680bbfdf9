from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from stabutils import metrics
from stabutils.errors import Incomplete, InputError
from stabutils.mitigations import Mitigation, resolve
from stabutils.mitigations.data_centric import TGTSS, StabilityWeights, self_distillation
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.study import dispatch, paths, publication
from stabutils.study.study import Study, recipe_of, requested
from stabutils.training import loop
from stabutils.training.files import PACKED, DamagedRun, slug
from stabutils.training.state import Seeds

HERE = Path(__file__).parent


@pytest.fixture
def tiny_study(tmp_path, monkeypatch):
    """Makes studies of the tiny corpus that share one fresh store and one fresh project."""
    corpus = tiny.project(tmp_path, monkeypatch)
    small = {"dataset": str(corpus), "runs": 2, "epochs": 2, "batch_size": 16, "workers": 1}
    return lambda **knobs: Study(**small | knobs)


@pytest.fixture
def trained(monkeypatch):
    """The seeds of the trainings that really take place."""
    seen, train = [], loop.train

    def counted(task, mitigation, seeds, *rest):
        seen.append(seeds.init)
        return train(task, mitigation, seeds, *rest)

    monkeypatch.setattr(loop, "train", counted)
    return seen


def test_probabilities_are_published_where_mixtures_and_ensembles_need_them(tiny_study):
    """Of control's plain sample, and of the old and the new models of an update."""

    def whole(study, arm=None, **given):
        return requested(study, arm or resolve("control"), **given).whole

    usual = {"epochs": None, "batch_size": None}
    same, changed = tiny_study(**usual), tiny_study(change="drop 10 %", **usual)
    assert whole(same) and whole(changed) and whole(changed, start=100)
    assert not whole(same, start=100) and not whole(same, n=1) and not whole(changed, n=1)
    assert not whole(changed, LabelSmoothing()) and not whole(changed, keep=["margin"])
    assert not whole(changed, seeds=[Seeds(0, 0, 0, 1), Seeds(0, 0, 0, 2)])


# ---- knobs


@pytest.mark.parametrize(
    "knob, value, allowed",
    [
        ("dataset", 3, "a text"),
        ("model", None, "a text"),
        ("runs", 1, "an integer of at least 2"),
        ("runs", "5", "an integer of at least 2"),
        ("runs", 5.0, "an integer"),
        ("runs", True, "an integer"),
        ("runs", None, "an integer of at least 2"),
        ("seed", -1, "an integer of at least 0"),
        ("seed", False, "an integer"),
        ("seed", None, "an integer of at least 0"),
        ("epochs", 0, "an integer of at least 1 or None"),
        ("epochs", 2.5, "an integer"),
        ("epochs", True, "an integer"),
        ("batch_size", 0, "at least 1"),
        ("learning_rate", 0, "a number above 0 or None"),
        ("learning_rate", float("nan"), "a number"),
        ("learning_rate", float("inf"), "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", "1e-3", "a number"),
        ("learning_rate", 10**400, "a number"),
        ("weight_decay", -0.1, "at least 0"),
        ("max_length", 0, "at least 1"),
        ("checkpoints", -1, "at least 0"),
        ("pooling", "max", "a text out of ('auto', 'mean', 'first', 'last')"),
        ("pooling", 1, "a text"),
        ("precision", "fp16", "out of ('fp32', 'bf16')"),
        ("workers", -1, "at least 0"),
        ("device", "gpu", "out of ('auto', 'cpu', 'mps', 'cuda', 'cuda:0'"),
        ("published", 1, "True or False"),
    ],
)
def test_a_wrong_knob_is_named_with_value_and_what_is_allowed(knob, value, allowed):
    with pytest.raises(InputError) as caught:
        Study(**{knob: value})
    assert str(caught.value).startswith(f"{knob}: got ") and allowed in str(caught.value)


def test_arms_of_long_names_are_published_to_files_of_their_own(tmp_path):
    def path(arm, part=""):
        return paths.published_answers(tmp_path, "compact", arm, part)

    long = "Very long " * 12
    one, other = (path(f"{long}{end}") for end in "ab")
    assert one != other and len(one.name) <= 80 + len(PACKED)
    assert path("control").name == f"compact-control{PACKED}"
    assert path(f"{long}a", "from 50").name == f"{one.name.removesuffix(PACKED)}-from-50{PACKED}"


def test_what_is_published_of_a_checkpoint_lies_apart():
    def folder(model):
        return paths.records_of("assistant", model).name

    assert folder("compact") == folder("compact-bag") == "assistant"
    assert folder("some/Mini-LM") == "assistant-mini-lm"
    assert (
        paths.published_answers(Path(), "some/Mini-LM", "control").name
        == f"mini-lm-control{PACKED}"
    )


def test_an_unknown_knob_is_refused():
    with pytest.raises(TypeError, match="sede"):
        Study(sede=7)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from([f.name for f in fields(Study)]),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.lists(st.integers()),
    ),
)
def test_any_value_of_any_knob_is_taken_or_refused_in_one_line(knob, value):
    try:
        assert getattr(Study(**{knob: value}), knob) is value
    except InputError as error:
        assert str(error).startswith(f"{knob}: got ") and "\n" not in str(error)


def test_zero_is_a_seed(tiny_study):
    zero, seven = tiny_study(seed=0), tiny_study(seed=7)
    assert zero.retrain().seeds.tolist() == [0, 1]
    assert seven.retrain().seeds.tolist() == [7, 8]


# ---- identity


def name(made: Study, mitigation: Mitigation | None = None, seeds: Seeds | None = None) -> str:
    return made.identify(mitigation or Mitigation(), seeds or Seeds(0, 0, 0)).name


def test_what_could_change_answers_changes_the_name(tiny_study, monkeypatch):
    knobs = [
        {},
        {"epochs": 3},
        {"batch_size": 8},
        {"learning_rate": 0.5},
        {"weight_decay": 0.5},
        {"max_length": 3},
        {"checkpoints": 0},
        {"precision": "bf16"},
    ]
    names = {name(tiny_study(**given)) for given in knobs}
    names |= {name(tiny_study(), LabelSmoothing(strength)) for strength in (0.1, 0.2)}
    names |= {
        name(tiny_study(), seeds=Seeds(*seeds)) for seeds in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    }
    with open(tiny_study().dataset, "a", encoding="utf-8") as file:
        file.write("one more,light,train\n")
    names.add(name(tiny_study()))
    monkeypatch.setattr(loop, "RECIPE_VERSION", loop.RECIPE_VERSION + 1)
    names.add(name(tiny_study()))
    assert len(names) == len(knobs) + 2 + 3 + 2


def test_checkpoints_are_at_least_four_unless_asked_for(tiny_study):
    counts = {asked: recipe_of(tiny_study(checkpoints=asked)).checkpoints for asked in (0, 1, 3)}
    assert counts == {0: 0, 1: 1, 3: 3} and recipe_of(tiny_study()).checkpoints == 2  # of 2 epochs


def test_runs_without_checkpoints_answer_alike_and_teach_nobody(tiny_study, trained):
    plain, once = tiny_study().retrain(), tiny_study(checkpoints=0).retrain()
    assert (plain.labels == once.labels).all() and once.checkpoints.shape[1] == 1
    assert (plain.probabilities == once.probabilities).all()
    proxies = {*once.proxies()}
    assert proxies == {*plain.proxies()} - {"single-run label entropy", "spread while training"}
    found = len(trained)
    expected = "expected 2 or more in all of a training: TGTSS learns from checkpoints of other"
    for study in (tiny_study(checkpoints=0), tiny_study(checkpoints=1, epochs=1)):
        for mitigation in (TGTSS(), TGTSS(checkpoints="last", unstable=0.2), StabilityWeights()):
            with pytest.raises(InputError, match="checkpoints: got [01]; expected 2 or more"):
                study.retrain(mitigation)
    with pytest.raises(InputError, match=expected):
        tiny_study(checkpoints=0).retrain(TGTSS())
    assert len(trained) == found
    tiny_study(checkpoints=0).retrain(self_distillation(), n=1)  # of its teacher's last answers


def test_what_could_not_change_answers_does_not(tiny_study, monkeypatch, tmp_path):
    first = name(tiny_study())
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "elsewhere"))
    for knobs in (
        {"workers": 2},
        {"device": "cpu"},
        {"published": False},
        {"runs": 9},
        {"seed": 5},
        {"pooling": "mean"},
    ):
        assert name(tiny_study(**knobs)) == first
    assert name(tiny_study(learning_rate=1, weight_decay=0)) == name(
        tiny_study(learning_rate=1.0, weight_decay=0.0)
    )


def test_a_run_has_a_readable_legal_name(tiny_study):
    run = tiny_study().identify(LabelSmoothing(0.1), Seeds(0, 1, 2))
    assert run.name.startswith("tiny-compact-labelsmoothing-strength-0.1-seed-0.1.2-")
    assert run.label.endswith("compact LabelSmoothing(strength=0.1) seed 0.1.2")
    assert (
        slug('../a\\b:c*?"<>|\0') == "a-b-c"
        and slug("") == slug("...") == "x"
        and len(slug("a" * 500)) == 80
    )


# ---- retrain


def test_the_same_request_twice_trains_nothing_the_second_time(tiny_study, trained):
    first = tiny_study().retrain("control", n=3)
    assert trained == [0, 1, 2]
    assert tiny_study().plan("control", n=4) == {
        "runs": 4,
        "stored": 3,
        "published": 0,
        "to train": 1,
    }
    again = tiny_study().retrain("control", n=3)
    assert trained == [0, 1, 2]
    for knob in fields(first):
        assert np.array_equal(getattr(first, knob.name), getattr(again, knob.name)), knob.name


def test_runs_have_the_promised_shapes(tiny_study):
    runs = tiny_study().retrain(n=3)
    assert len(runs) == 3 and runs.arm == "control"
    assert runs.labels.shape == (3, 20) and runs.labels.dtype == np.int64
    assert runs.probabilities.shape == (
        3,
        20,
        4,
    ) and runs.checkpoints.shape == runs.confidence.shape == (3, 4, 20)
    assert runs.validation_labels.shape == (3, 12) and runs.validation_probabilities.shape == (
        3,
        12,
        4,
    )
    for each in (runs.accuracy, runs.nll, runs.ece, runs.cpu_seconds, runs.seeds):
        assert each.shape == (3,)
    assert np.allclose(runs.accuracy, (runs.labels == runs.gold).mean(1))
    assert np.allclose(runs.nll, metrics.nll(runs.probabilities, runs.gold))
    assert np.allclose(runs.checkpoint_entropy, metrics.checkpoint_entropy(runs.checkpoints))
    assert np.allclose(runs.confidence_mean, runs.confidence.mean(1))
    assert np.allclose(runs.confidence_spread, runs.confidence.std(1))
    assert 0 < metrics.churn(runs.labels) < 1


def test_runs_come_in_the_order_asked_for(tiny_study, trained):
    made = tiny_study()
    later = made.retrain(n=1, start=2)
    runs = made.retrain(n=4)
    assert trained == [2, 0, 1, 3] and runs.seeds.tolist() == [0, 1, 2, 3]
    assert np.array_equal(runs.probabilities[2], later.probabilities[0])
    asked = [Seeds(3, 3, 3), Seeds(0, 0, 0), Seeds(0, 0, 0)]
    again = made.retrain(seeds=asked)
    assert np.array_equal(again.probabilities, runs.probabilities[[3, 0, 0]]) and len(trained) == 4


def test_seeds_one_by_one(tiny_study):
    runs = tiny_study().retrain(
        seeds=[Seeds(0, 0, 0), Seeds(0, 0, 1), Seeds(0, 1, 0), Seeds(1, 0, 0)]
    )
    assert runs.seeds.tolist() == [0, 0, 0, 1] and len(set(runs.names)) == 4
    assert len({row.tobytes() for row in runs.probabilities}) == 4


@pytest.mark.parametrize(
    "request_, says",
    [
        ({"n": 0}, "n: got 0; expected an integer of at least 1"),
        ({"n": "3"}, "n: got '3'"),
        ({"n": True}, "n: got True"),
        ({"start": -1}, "start: got -1"),
        ({"seeds": []}, "seeds: got []"),
        ({"mitigation": "ema"}, "mitigation: got 'ema'"),
        ({"keep": ("hiden",)}, "keep: got 'hiden'; expected names out of hidden, head, training"),
    ],
)
def test_an_impossible_request_is_refused_before_training(tiny_study, trained, request_, says):
    with pytest.raises(InputError) as caught:
        tiny_study().retrain(**request_)
    assert str(caught.value).startswith(says) and trained == []


def test_a_file_that_is_called_like_a_corpus_has_records_of_its_own(tmp_path):
    named, own = (
        Study(dataset=str(tiny.write_csv(tmp_path / f"{name}.csv"))) for name in ("massive", "own")
    )
    assert own.records.name == "own"
    assert named.records.name == f"massive-{named.data.fingerprint[:8]}"


def test_a_damaged_run_that_cannot_be_set_aside_is_named(tiny_study, trained, monkeypatch):
    """As on a store that is shared and read-only: without this the request asks for ever."""
    first = tiny_study().retrain()
    path = tiny_study().answers.store.path(first.names[1])
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(bytes(blob))

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(DamagedRun), pytest.raises(Incomplete, match=rf"{path.name}: damaged"):
        tiny_study().retrain()


def test_a_damaged_run_is_trained_again(tiny_study, trained):
    first = tiny_study().retrain()
    path = tiny_study().answers.store.path(first.names[1])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(DamagedRun, match=first.names[1]):
        again = tiny_study().retrain()
    assert trained == [0, 1, 1]
    assert np.array_equal(first.probabilities, again.probabilities)
    assert path.with_name(path.name + ".damaged").exists()


@dataclass(frozen=True)
class BreaksSeed(Mitigation):
    """Diverges when the master seed is `which`."""

    which: int

    def step(self, training):
        if training.seeds.init == self.which:
            training.model.head.weight.data.fill_(float("nan"))


def test_a_file_of_another_run_under_a_runs_name_is_trained_over(tiny_study, trained):
    """Fails, and never ends, if what lies there counts as trained while it is not read."""
    study = tiny_study()
    first = study.retrain()
    path = study.answers.store.path
    path(first.names[0]).write_bytes(path(first.names[1]).read_bytes())
    again = study.retrain()
    assert trained == [0, 1, 0] and np.array_equal(first.probabilities, again.probabilities)


def test_a_run_that_diverges_is_named_and_the_others_go_on(tiny_study, trained):
    with pytest.raises(Incomplete) as caught:
        tiny_study().retrain(BreaksSeed(which=1), n=3)
    assert trained == [0, 1, 2]
    message = str(caught.value)
    assert message.startswith("1 of 3 runs could not be trained, the others are stored")
    assert (
        "BreaksSeed(which=1) seed 1: " in message
        and "epoch 1 of 2" in message
        and "learning rate" in message
    )
    assert tiny_study().plan(BreaksSeed(which=1), n=3)["stored"] == 2
    assert tiny_study().retrain(BreaksSeed(which=1), n=1).seeds.tolist() == [0]


def test_a_learning_rate_without_bounds_ends_in_incomplete(tiny_study):
    with pytest.raises(Incomplete, match="2 of 2 runs could not be trained.*learning rate 1e\\+30"):
        tiny_study(learning_rate=1e30).retrain()


def test_label_smoothing_of_nothing_is_control_and_not_trained_again(tiny_study):
    mitigations = ("control", LabelSmoothing(0.3), LabelSmoothing(0))
    control, smoothed, none = (tiny_study().retrain(mitigation) for mitigation in mitigations)
    assert np.array_equal(control.probabilities, none.probabilities)
    assert not np.array_equal(control.probabilities, smoothed.probabilities)
    assert control.names == none.names != smoothed.names
    assert (none.arm, smoothed.arm) == ("control", "LabelSmoothing(strength=0.3)")


# ---- published answers


def publish(made: Study, whole: bool | None = None, part: str | None = None) -> Path | None:
    """Publish what was asked of a study last."""
    request = made.requests[-1]
    whole, part = (
        (request.whole if whole is None else whole),
        (request.part if part is None else part),
    )
    return publication.publish(made, replace(request, whole=whole, part=part))


def test_published_answers_need_no_training(tiny_study, trained, monkeypatch, tmp_path):
    made = tiny_study()
    runs = made.retrain(n=3)
    path = publish(made, whole=True, part="")
    assert path.is_relative_to(tmp_path / "project" / "records") and path.stat().st_size < 10_000
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    read = tiny_study().retrain(n=3)
    assert len(trained) == 3 and read.names == runs.names
    for missing in ("validation_probabilities", "checkpoints", "confidence"):
        assert getattr(read, missing) is None
    assert read.labels.dtype == np.int64
    assert np.allclose(read.probabilities, runs.probabilities, rtol=0.3, atol=0.01)
    same = ("labels", "validation_labels", "accuracy", "nll", "ece", "cpu_seconds", "gold", "seeds")
    for name in same:
        assert np.array_equal(getattr(read, name), getattr(runs, name)), name
    for rounded in ("checkpoint_entropy", "confidence_mean", "confidence_spread"):
        assert np.allclose(getattr(read, rounded), getattr(runs, rounded), atol=1e-3)
    assert tiny_study().plan(n=4) == {"runs": 4, "stored": 0, "published": 3, "to train": 1}
    mixed = tiny_study().retrain(n=4)
    assert trained[3:] == [3] and len(mixed) == 4 and mixed.checkpoints is None
    assert np.array_equal(mixed.labels[:3], runs.labels)
    again = tiny_study(published=False).retrain(n=3)
    assert trained[4:] == [0, 1, 2] and np.array_equal(again.probabilities, runs.probabilities)
    both = tiny_study().retrain(n=3)  # what is published comes first, the stored run adds the rest
    assert np.array_equal(both.checkpoints, runs.checkpoints)
    assert np.array_equal(both.probabilities, read.probabilities)


def test_an_arm_to_be_mixed_is_published_with_its_probabilities(tiny_study, trained, monkeypatch):
    made, arm = tiny_study(), LabelSmoothing(0.3)
    labels = made.retrain(arm, n=2)
    publish(made)
    monkeypatch.setenv("STABUTILS_RUNS", str(made.answers.store.folder.parent / "fresh"))
    fresh = tiny_study()
    assert fresh.retrain(arm, n=2).probabilities is None and trained == [0, 1]
    runs = fresh.retrain(arm, n=2, mixed=True)  # published without: trained again
    assert trained == [0, 1, 0, 1] and np.array_equal(runs.labels, labels.labels)
    publish(fresh)
    monkeypatch.setenv("STABUTILS_RUNS", str(made.answers.store.folder.parent / "fresher"))
    read = tiny_study().retrain(arm, n=2, mixed=True)
    assert len(trained) == 4 and read.confidence_mean is None  # proxies are asked of control
    assert np.allclose(read.probabilities, runs.probabilities, rtol=0.3, atol=0.01)


def test_answers_of_another_recipe_are_never_replaced(tiny_study):
    made = tiny_study()
    made.retrain(n=2)
    path = publish(made)
    before = path.read_bytes()
    other = tiny_study(precision="bf16")
    other.retrain(n=3)
    with pytest.raises(InputError, match=f"{path.name}.*under the same recipe"):
        publish(other)
    assert path.read_bytes() == before


def test_answers_of_another_machine_are_not_mixed_with_published_ones(tiny_study, trained):
    made = tiny_study()
    runs = made.retrain(n=2)
    publish(made, whole=True, part="")
    store = made.answers.store
    made.retrain(n=2, keep=("margin",))
    for name in runs.names:
        arrays, record = store.read(name)
        store.write(name, arrays | {"labels": (arrays["labels"] + 1) % 3}, record)
    read = tiny_study().retrain(n=2)
    assert trained == [0, 1, 0, 1]
    assert np.array_equal(read.labels, runs.labels) and read.checkpoints is None
    theirs = made.retrain(n=2, keep=("margin",))  # not published: the stored runs with their extras
    assert np.array_equal(theirs.labels, (runs.labels + 1) % 3)
    publish(made, part="probed")
    with_margin, plain = (replace(made.requests[-1], keep=keep) for keep in (("margin",), ()))
    assert not made.answers.published(with_margin) and len(made.answers.published(plain)) == 2


def test_less_never_takes_the_place_of_more(tiny_study, trained):
    own = {"epochs": None, "batch_size": None, "runs": 2}
    made = tiny_study(**own)
    whole = made.retrain()
    publish(made)
    few = tiny_study(**own | {"runs": 4})
    few.retrain(n=3)
    assert publish(few) is None  # less than that study's control
    assert publish(made) is None  # published already
    other = tiny_study(**own, seed=7)
    other.retrain()
    publish(other)
    bag = tiny_study(**own | {"runs": 4, "model": "compact-bag"})
    bag.retrain(n=2)
    assert publish(bag) is not None  # a network that competes, with fewer runs than control
    bag.retrain(n=3)
    publish(bag)
    names = {path.name.removesuffix(PACKED) for path in (made.records / "answers").iterdir()}
    assert names == {"compact-control", "compact-control-seed-7", "compact-bag-control"}
    assert len(bag.answers.published(bag.requests[-1])) == 3
    trained[5:] = []
    more = tiny_study(**own | {"runs": 3})
    assert np.array_equal(more.retrain().labels[:2], whole.labels)
    publish(more)
    assert len(more.answers.published(more.requests[-1])) == 5 and trained == [0, 1, 2, 7, 8]


def test_probabilities_join_answers_that_were_published_without(tiny_study, trained):
    made = tiny_study(epochs=None, batch_size=None)
    name = made.retrain().names[0]
    publish(made, whole=False)
    assert "shares" not in made.answers.published(made.requests[-1])
    publish(made, whole=False, part="once more")
    assert "shares" not in made.answers.published(made.requests[-1])[name]
    publish(made)
    assert "shares" in made.answers.published(made.requests[-1])[name] and trained == [0, 1]


def test_a_record_leads_to_the_runs_behind_it(tiny_study, trained, monkeypatch, tmp_path):
    """What `about` says of the runs is enough to find them in the store and publish them."""
    own = {"epochs": None, "batch_size": None}
    made = tiny_study(**own)
    runs = [made.retrain(), made.retrain(LabelSmoothing(0.3)), made.retrain(seeds=[Seeds(0, 1, 0)])]
    made.retrain(keep=("training",))  # never published: it is large
    about = json.loads(json.dumps(made.about()))
    written = publication.publish_answers(tiny_study(**own), about)
    assert [path.name.removesuffix(PACKED) for path in written] == [
        "compact-control",
        "compact-labelsmoothing-strength-0.3",
        "compact-control-crossed",
    ]
    assert publication.publish_answers(tiny_study(**own), about) == []
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    trained.clear()
    fresh = tiny_study(**own)
    read = [
        fresh.retrain(),
        fresh.retrain(LabelSmoothing(0.3)),
        fresh.retrain(seeds=[Seeds(0, 1, 0)]),
    ]
    assert trained == []
    for one, other in zip(runs, read, strict=True):
        assert one.names == other.names and np.array_equal(one.labels, other.labels)
    assert read[0].probabilities is not None and read[1].probabilities is None


def test_published_answers_of_another_recipe_are_not_taken(tiny_study, trained):
    made = tiny_study()
    made.retrain()
    publish(made)
    tiny_study(epochs=3).retrain()
    assert trained == [0, 1, 0, 1]


def test_everything_lands_where_the_user_is(monkeypatch, tmp_path):
    clone = paths.checkout()
    for name in ("STABUTILS_RUNS", "STABUTILS_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(clone / "docs")
    assert (paths.results_root(), paths.run_store()) == (clone / "results", clone / "runs")
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "stabutils-results"
    assert (paths.results_root(), paths.run_store()) == (here, here / "runs")
    monkeypatch.setattr(paths, "checkout", lambda: None)  # an installed wheel
    assert paths.results_root() == here
    monkeypatch.setenv("STABUTILS_RESULTS", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "shared"))
    assert (paths.results_root(), paths.run_store()) == (
        tmp_path / "elsewhere",
        tmp_path / "shared",
    )


def test_a_stored_run_says_what_made_it(tiny_study):
    made = tiny_study()
    runs = made.retrain()
    _, record = made.answers.store.read(runs.names[0])
    assert record["identity"]["seeds"] == {"init": 0, "order": 0, "dropout": 0}
    assert record["identity"]["dataset"] == made.data.fingerprint
    assert {"stabutils", "commit", "dirty", "libraries", "machine", "threads"} <= record.keys()
    assert record["threads"] == 1


# ---- what is kept beside the answers


def test_a_run_without_what_is_to_be_kept_is_trained_again_to_the_same_bits(
    tiny_study, trained, monkeypatch, tmp_path
):
    made = tiny_study()
    plain = made.retrain(n=2)
    assert plain.extras == {}
    assert made.plan(n=2, keep=("hidden",)) == {
        "runs": 2,
        "stored": 0,
        "published": 0,
        "to train": 2,
    }
    kept = made.retrain(n=2, keep=("hidden",))
    assert trained == [0, 1, 0, 1] and kept.names == plain.names
    assert list(kept.extras) == ["hidden"] and kept.extras["hidden"].shape == (2, 20, 32)
    more = made.retrain(n=3, keep=("training", "margin"))  # what was kept before stays
    assert trained[4:] == [0, 1, 2] and list(more.extras) == ["training", "margin"]
    assert more.extras["training"].shape == (3, 4, 60, 4) and more.extras["margin"].shape == (3, 20)
    assert made.plan(n=2, keep=("hidden", "margin"))["to train"] == 0
    again = made.retrain(n=2, keep=("margin", "hidden"))
    assert len(trained) == 7 and list(again.extras) == ["margin", "hidden"]
    assert np.array_equal(again.extras["hidden"], kept.extras["hidden"])
    first, second = (
        1 - np.diff(np.sort(more.probabilities[0])[:, -2:])[:, 0],
        more.extras["margin"][0],
    )
    assert np.allclose(first, second, atol=1e-6)
    assert made.retrain(n=3).extras == {} and len(trained) == 7
    for runs in (kept, more, again):
        for name in (
            "labels",
            "probabilities",
            "checkpoints",
            "confidence",
            "validation_probabilities",
        ):
            assert np.array_equal(getattr(runs, name)[:2], getattr(plain, name)), name


def test_without_torch_one_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for work in (lambda: Study().retrain(), lambda: Study().plan(), lambda: Study().task):
        with pytest.raises(InputError, match=r'torch: .*pip install "stabutils\[study\]"'):
            work()


def test_every_knob_is_described_where_help_looks():
    named = re.findall(r"^    (\w+) : ", Study.__doc__, re.MULTILINE)
    assert named == [knob.name for knob in fields(Study)]


def test_interrupted_while_trained_again_it_goes_on(tiny_study, monkeypatch, tmp_path):
    made, steps, one_step, save = tiny_study(epochs=3), [], loop.one_step, loop.save
    plain = made.retrain(n=1)
    monkeypatch.setattr(loop, "train", partial(loop.train, save_every=0))
    monkeypatch.setattr(
        loop, "one_step", lambda state, *rest: (steps.append(state.step), one_step(state, *rest))
    )

    def interrupt(*state):
        save(*state)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.retrain(n=1, keep=("training",))
    monkeypatch.setattr(loop, "save", save)
    assert np.array_equal(
        made.retrain(n=1).probabilities, plain.probabilities
    )  # the finished run is still there
    steps.append("again")
    kept = made.retrain(n=1, keep=("training",))
    assert steps == [0, 1, 2, 3, "again", *range(4, 12)]
    assert np.array_equal(kept.probabilities, plain.probabilities) and kept.extras[
        "training"
    ].shape == (1, 6, 60, 4)
    assert not list((tmp_path / "runs" / "unfinished").iterdir())
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "undisturbed"))
    undisturbed = tiny_study(epochs=3).retrain(n=1, keep=("training",))
    assert np.array_equal(kept.extras["training"], undisturbed.extras["training"])


# ---- several processes


def script(body: str) -> str:
    """A program of its own that finds the helpers of these tests."""
    head = (
        f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport tiny\nfrom "
        "stabutils.training import preparation\n"
    )
    return head + "preparation.prepare = tiny.prepare\n" + textwrap.dedent(body)


@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_processes_on_one_store_train_each_run_once(tiny_study, tmp_path, names):
    body = script("""
        import time
        from pathlib import Path
        from stabutils import Study
        from stabutils.training import loop
        folder, me = Path(sys.argv[1]), sys.argv[2]
        train = loop.train

        def noted(task, mitigation, seeds, *rest):
            with open(folder / "log", "a") as log:
                log.write(f"{me} {seeds.init}\\n")
            time.sleep(0.1)
            return train(task, mitigation, seeds, *rest)

        loop.train = noted
        study = Study(dataset=str(folder / "tiny.csv"), epochs=2, batch_size=16, workers=1, published=False)
        study.task
        (folder / f"ready-{me}").touch()
        while len(list(folder.glob("ready-*"))) < int(sys.argv[3]):
            time.sleep(0.01)
        print(study.retrain("control", n=12).labels.tolist())
    """)
    several = [
        subprocess.Popen(
            [sys.executable, "-c", body, str(tmp_path), me, str(len(names))],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for me in names
    ]
    answers = [process.communicate(timeout=600)[0] for process in several]
    assert len(set(answers)) == 1 and len(answers[0]) > 100
    log = [line.split() for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert sorted(int(seed) for _, seed in log) == list(range(12))
    assert {me for me, _ in log} == set(names)  # they shared the work
    assert not list((tmp_path / "runs").glob("*.damaged"))
    assert np.array_equal(tiny_study(published=False).retrain(n=12).labels, eval(answers[0]))


def test_workers_give_the_bits_of_this_process_and_take_a_students_mitigation(
    tiny_study, tmp_path, monkeypatch
):
    program = tmp_path / "student.py"
    program.write_text(
        script("""
        from dataclasses import dataclass
        from stabutils import Incomplete, Study
        from stabutils.mitigations import Mitigation

        @dataclass(frozen=True)
        class Louder(Mitigation):
            factor: float = 3.0

            def loss(self, forward, batch, inner):
                return inner(self.factor * forward())

        if __name__ == "__main__":
            study = Study(dataset=sys.argv[1], runs=2, epochs=2, batch_size=16, workers=2)
            print(study.retrain(Louder()).arm)
            study.retrain("control")
            try:
                study.retrain(Louder(1e39))
            except Incomplete as error:
                print(error)
    """),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, program, tmp_path / "tiny.csv"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    louder, incomplete = done.stdout.splitlines()
    assert louder == "Louder(factor=3.0)"
    assert (
        incomplete.startswith("2 of 2 runs could not be trained")
        and "Louder(factor=1e+39)" in incomplete
    )
    theirs = tiny_study()
    assert theirs.plan() == {"runs": 2, "stored": 2, "published": 0, "to train": 0}
    there = theirs.retrain()
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "mine"))
    assert np.array_equal(tiny_study().retrain().probabilities, there.probabilities)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_killed_anywhere_the_study_ends_with_the_same_bits(tiny_study, tmp_path, monkeypatch):
    """Each child goes one write further than the last and is killed before, in the midst of or
    after it.
    """
    body = script("""
        import functools, itertools, os, signal
        from pathlib import Path
        from stabutils import Study
        from stabutils.study import store
        from stabutils.training import files, loop
        from stabutils.training.state import Seeds
        from stabutils.mitigations import Mitigation
        folder = Path(sys.argv[1])
        loop.train = functools.partial(loop.train, save_every=0)
        write_file, writes = files.write_file, itertools.count()

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def deadly(path, blob, how):
            if next(writes) < 1:
                return write_file(path, blob)
            if how == "half":
                path.parent.mkdir(parents=True, exist_ok=True)
                files.temporary_name(path).write_bytes(blob[:len(blob) // 2])
            if how == "after":
                write_file(path, blob)
            die()

        study = Study(dataset=str(folder / "tiny.csv"), epochs=3, batch_size=16, workers=1, published=False)
        loop.train(study.task, Mitigation(), Seeds(0, 0, 0), None)  # so that torch is loaded once only
        for kills in itertools.count():
            child = os.fork()
            if not child:
                how = ("before", "half", "after")[kills % 3]
                store.write_file = loop.files.write_file = functools.partial(deadly, how=how)
                study.retrain("control", n=2)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
        print(kills)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", body, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4
    made = tiny_study(epochs=3, published=False)
    survived = made.retrain(n=2)
    left = [
        path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.suffix != ".lock"
    ]
    assert sorted(path.name for path in left) == sorted(
        f"{name}.safetensors" for name in survived.names
    )
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "undisturbed"))
    undisturbed = tiny_study(epochs=3, published=False).retrain(n=2)
    for what in ("probabilities", "checkpoints", "confidence", "validation_probabilities"):
        assert np.array_equal(getattr(survived, what), getattr(undisturbed, what))


def test_a_study_is_what_its_knobs_say():
    assert Study(runs=3) == Study(runs=3) != Study(runs=4)
    assert replace(Study(runs=3), runs=4) == Study(runs=4)


def test_a_worker_that_dies_is_one_clear_error_and_no_run(tiny_study, tmp_path):
    program = tmp_path / "deadly.py"
    program.write_text(
        script("""
        import os
        from dataclasses import dataclass
        from stabutils import Incomplete, Study
        from stabutils.mitigations import Mitigation

        @dataclass(frozen=True)
        class Deadly(Mitigation):
            def epoch(self, training):
                if training.seeds.init == 2:
                    os.kill(os.getpid(), 9)

        if __name__ == "__main__":
            study = Study(dataset=sys.argv[1], runs=3, epochs=2, batch_size=16, workers=2)
            try:
                study.retrain(Deadly())
            except Incomplete as error:
                print(error)
    """),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, program, tmp_path / "tiny.csv"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("a worker process died"), done.stdout + done.stderr
    assert done.returncode == 0 and not list((tmp_path / "runs").glob("*seed-2*"))


def test_what_was_kept_is_published_beside_the_answers(tiny_study, trained, monkeypatch, tmp_path):
    made = tiny_study()
    probed = made.retrain(n=2, keep=("margin",))
    publish(made, part="probed")
    made.retrain(n=3)
    publish(made, whole=True)
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    read = tiny_study().retrain(n=2, keep=("margin",))
    assert (
        trained == [0, 1, 2]
        and read.names == probed.names
        and tiny_study().retrain(n=3).extras == {}
    )
    assert np.allclose(read.extras["margin"], probed.extras["margin"], atol=1e-3)
    tiny_study().retrain(n=3, keep=("margin",))
    assert trained == [0, 1, 2, 2]  # only the run of which nothing was kept


def test_a_training_of_one_step_says_nothing_of_how_it_changes_its_mind(tiny_study):
    runs = tiny_study(epochs=1, batch_size=1000).retrain()
    assert runs.checkpoints.shape[1] == 1 and runs.checkpoint_entropy is None
    assert runs.confidence_spread is None and runs.confidence_mean is not None


def test_progress_counts_all_runs_that_were_asked_for(tiny_study, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, initial, **_):
            self.total, self.began, self.n = total, initial, initial
            bars.append(self)

        def update(self, count=1):
            self.n += count

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(dispatch, "progress", Bar)
    tiny_study().retrain("control", n=2)
    tiny_study().retrain("control", n=5)
    assert [(bar.began, bar.total, bar.n) for bar in bars] == [(0, 2, 2), (2, 5, 5)]
    tiny_study().retrain("control", n=5)
    assert len(bars) == 2, "nothing is trained, nothing is counted"

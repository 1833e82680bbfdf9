from __future__ import annotations

import os
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

from stabutils import metrics, training
from stabutils.errors import Incomplete, InputError
from stabutils.mitigations import Mitigation
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.store import PACKED, DamagedRun, slug
from stabutils.study import Study
from stabutils.training import Seeds

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
    seen, train = [], training.train

    def counted(task, mitigation, seeds, *rest):
        seen.append(seeds.init)
        return train(task, mitigation, seeds, *rest)

    monkeypatch.setattr(training, "train", counted)
    return seen


# ---- knobs

@pytest.mark.parametrize("knob, value, allowed", [
    ("dataset", 3, "a text"), ("model", None, "a text"),
    ("runs", 1, "an integer of at least 2"), ("runs", "5", "an integer of at least 2"), ("runs", 5.0, "an integer"),
    ("runs", True, "an integer"), ("runs", None, "an integer of at least 2"),
    ("seed", -1, "an integer of at least 0"), ("seed", False, "an integer"), ("seed", None, "an integer of at least 0"),
    ("epochs", 0, "an integer of at least 1 or None"), ("epochs", 2.5, "an integer"), ("epochs", True, "an integer"),
    ("batch_size", 0, "at least 1"), ("learning_rate", 0, "a number above 0 or None"),
    ("learning_rate", float("nan"), "a number"), ("learning_rate", float("inf"), "a number"),
    ("learning_rate", True, "a number"), ("learning_rate", "1e-3", "a number"), ("learning_rate", 10**400, "a number"),
    ("weight_decay", -0.1, "at least 0"), ("max_length", 0, "at least 1"),
    ("pooling", "max", "a text out of ('auto', 'mean', 'first', 'last')"), ("pooling", 1, "a text"),
    ("precision", "fp16", "out of ('fp32', 'bf16')"), ("workers", -1, "at least 0"), ("published", 1, "True or False")])
def test_a_wrong_knob_is_named_with_value_and_what_is_allowed(knob, value, allowed):
    with pytest.raises(InputError) as caught:
        Study(**{knob: value})
    assert str(caught.value).startswith(f"{knob}: got ") and allowed in str(caught.value)


def test_arms_of_long_names_are_published_to_files_of_their_own():
    study, long = Study(dataset="assistant"), "Very long " * 12
    one, other = (study.published_path(f"{long}{end}") for end in "ab")
    assert one != other and len(one.name) <= 80 + len(PACKED)
    assert study.published_path("control").name == f"compact-control{PACKED}"
    assert study.published_path(f"{long}a", "from 50").name == f"{one.name.removesuffix(PACKED)}-from-50{PACKED}"


def test_what_is_published_of_a_checkpoint_lies_apart():
    of = {model: Study(dataset="assistant", model=model) for model in ("compact", "compact-bag", "some/Mini-LM")}
    assert of["compact"].records == of["compact-bag"].records and of["compact"].records.name == "assistant"
    assert of["some/Mini-LM"].records.name == "assistant-mini-lm"
    assert of["some/Mini-LM"].published_path("control").name == f"mini-lm-control{PACKED}"


def test_an_unknown_knob_is_refused():
    with pytest.raises(TypeError, match="sede"):
        Study(sede=7)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from([f.name for f in fields(Study)]),
       st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers())))
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
    knobs = [{}, {"epochs": 3}, {"batch_size": 8}, {"learning_rate": 0.5}, {"weight_decay": 0.5}, {"max_length": 3},
             {"precision": "bf16"}]
    names = {name(tiny_study(**given)) for given in knobs}
    names |= {name(tiny_study(), LabelSmoothing(strength)) for strength in (0.1, 0.2)}
    names |= {name(tiny_study(), seeds=Seeds(*seeds)) for seeds in ((1, 0, 0), (0, 1, 0), (0, 0, 1))}
    with open(tiny_study().dataset, "a", encoding="utf-8") as file:
        file.write("one more,light,train\n")
    names.add(name(tiny_study()))
    monkeypatch.setattr(training, "RECIPE_VERSION", training.RECIPE_VERSION + 1)
    names.add(name(tiny_study()))
    assert len(names) == len(knobs) + 2 + 3 + 2


def test_what_could_not_change_answers_does_not(tiny_study, monkeypatch, tmp_path):
    first = name(tiny_study())
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "elsewhere"))
    for knobs in ({"workers": 2}, {"published": False}, {"runs": 9}, {"seed": 5}, {"pooling": "mean"}):
        assert name(tiny_study(**knobs)) == first
    assert name(tiny_study(learning_rate=1, weight_decay=0)) == name(tiny_study(learning_rate=1.0, weight_decay=0.0))


def test_a_run_has_a_readable_legal_name(tiny_study):
    run = tiny_study().identify(LabelSmoothing(0.1), Seeds(0, 1, 2))
    assert run.name.startswith("tiny-compact-labelsmoothing-strength-0.1-seed-0.1.2-")
    assert run.label.endswith("compact LabelSmoothing(strength=0.1) seed 0.1.2")
    assert slug('../a\\b:c*?"<>|\0') == "a-b-c" and slug("") == slug("...") == "x" and len(slug("a" * 500)) == 80


# ---- retrain

def test_the_same_request_twice_trains_nothing_the_second_time(tiny_study, trained):
    first = tiny_study().retrain("control", n=3)
    assert trained == [0, 1, 2]
    assert tiny_study().plan("control", n=4) == {"runs": 4, "stored": 3, "published": 0, "to train": 1}
    again = tiny_study().retrain("control", n=3)
    assert trained == [0, 1, 2]
    for knob in fields(first):
        assert np.array_equal(getattr(first, knob.name), getattr(again, knob.name)), knob.name


def test_runs_have_the_promised_shapes(tiny_study):
    runs = tiny_study().retrain(n=3)
    assert len(runs) == 3 and runs.arm == "control"
    assert runs.labels.shape == (3, 20) and runs.labels.dtype == np.int64
    assert runs.probabilities.shape == (3, 20, 4) and runs.checkpoints.shape == runs.confidence.shape == (3, 4, 20)
    assert runs.validation_labels.shape == (3, 12) and runs.validation_probabilities.shape == (3, 12, 4)
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
    runs = tiny_study().retrain(seeds=[Seeds(0, 0, 0), Seeds(0, 0, 1), Seeds(0, 1, 0), Seeds(1, 0, 0)])
    assert runs.seeds.tolist() == [0, 0, 0, 1] and len(set(runs.names)) == 4
    assert len({row.tobytes() for row in runs.probabilities}) == 4


@pytest.mark.parametrize("request_, says", [
    ({"n": 0}, "n: got 0; expected an integer of at least 1"), ({"n": "3"}, "n: got '3'"),
    ({"n": True}, "n: got True"), ({"start": -1}, "start: got -1"), ({"seeds": []}, "seeds: got []"),
    ({"mitigation": "ema"}, "mitigation: got 'ema'"),
    ({"keep": ("hiden",)}, "keep: got 'hiden'; expected names out of hidden, head, training")])
def test_an_impossible_request_is_refused_before_training(tiny_study, trained, request_, says):
    with pytest.raises(InputError) as caught:
        tiny_study().retrain(**request_)
    assert str(caught.value).startswith(says) and trained == []


def test_a_damaged_run_is_trained_again(tiny_study, trained):
    first = tiny_study().retrain()
    path = tiny_study().store.path(first.names[1])
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
    path = study.store.path
    path(first.names[0]).write_bytes(path(first.names[1]).read_bytes())
    again = study.retrain()
    assert trained == [0, 1, 0] and np.array_equal(first.probabilities, again.probabilities)


def test_a_run_that_diverges_is_named_and_the_others_go_on(tiny_study, trained):
    with pytest.raises(Incomplete) as caught:
        tiny_study().retrain(BreaksSeed(which=1), n=3)
    assert trained == [0, 1, 2]
    message = str(caught.value)
    assert message.startswith("1 of 3 runs could not be trained, the others are stored")
    assert "BreaksSeed(which=1) seed 1: " in message and "epoch 1 of 2" in message and "learning rate" in message
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

def test_published_answers_need_no_training(tiny_study, trained, monkeypatch, tmp_path):
    made = tiny_study()
    runs = made.retrain(n=3)
    path = made.publish(runs, whole=True)
    assert path.is_relative_to(tmp_path / "project" / "records") and path.stat().st_size < 10_000
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    read = tiny_study().retrain(n=3)
    assert len(trained) == 3 and read.names == runs.names
    assert read.validation_probabilities is None and read.checkpoints is None and read.confidence is None
    assert read.labels.dtype == np.int64 and np.allclose(read.probabilities, runs.probabilities, rtol=0.3, atol=0.01)
    for exact in ("labels", "validation_labels", "accuracy", "nll", "ece", "cpu_seconds", "gold", "seeds"):
        assert np.array_equal(getattr(read, exact), getattr(runs, exact)), exact
    for rounded in ("checkpoint_entropy", "confidence_mean", "confidence_spread"):
        assert np.allclose(getattr(read, rounded), getattr(runs, rounded), atol=1e-3)
    assert tiny_study().plan(n=4) == {"runs": 4, "stored": 0, "published": 3, "to train": 1}
    mixed = tiny_study().retrain(n=4)
    assert trained[3:] == [3] and len(mixed) == 4 and mixed.checkpoints is None
    assert np.array_equal(mixed.labels[:3], runs.labels)
    again = tiny_study(published=False).retrain(n=3)
    assert trained[4:] == [0, 1, 2] and np.array_equal(again.probabilities, runs.probabilities)
    both = tiny_study().retrain(n=3)  # stored and published: what is published comes first, the rest is added
    assert np.array_equal(both.checkpoints, runs.checkpoints) and np.array_equal(both.probabilities, read.probabilities)


def test_answers_of_another_machine_are_not_mixed_with_published_ones(tiny_study, trained):
    made = tiny_study()
    runs = made.retrain(n=2)
    made.publish(runs, whole=True)
    store_of = made.store
    made.retrain(n=2, keep=("margin",))
    for name in runs.names:
        arrays, record = store_of.read(name)
        store_of.write(name, arrays | {"labels": (arrays["labels"] + 1) % 3}, record)
    read = tiny_study().retrain(n=2)
    assert trained == [0, 1, 0, 1] and np.array_equal(read.labels, runs.labels) and read.checkpoints is None
    theirs = made.retrain(n=2, keep=("margin",))  # not published: the stored ones, with what was kept of these
    assert np.array_equal(theirs.labels, (runs.labels + 1) % 3)
    made.publish(theirs, "probed")
    assert not made.published_answers("control", ("margin",)) and len(made.published_answers("control")) == 2


def test_whatever_is_there_is_published_and_nothing_stands_in_the_place_of_more(tiny_study, trained, monkeypatch):
    monkeypatch.setenv("STABUTILS_PUBLISH", "1")
    own = {"epochs": None, "batch_size": None, "runs": 2}
    tiny_study(**own, published=False).retrain()
    whole = tiny_study(**own).retrain()
    assert len(tiny_study(**own | {"runs": 4}).retrain(n=3)) == 3  # less than the study's control: not committed
    assert np.array_equal(tiny_study(**own).retrain().probabilities, whole.probabilities)
    tiny_study(**own, seed=7).retrain()
    names = {path.name for path in tiny_study(**own).published_path("control").parent.iterdir()}
    assert names == {f"compact-control{PACKED}", f"compact-control-seed-7{PACKED}"}
    more = tiny_study(**own | {"runs": 3}).retrain()
    assert np.array_equal(more.labels[:2], whole.labels) and more.probabilities is not None
    assert trained == [0, 1, 2, 7, 8]


def test_probabilities_join_answers_that_were_published_without(tiny_study, trained, monkeypatch):
    made = tiny_study(epochs=None, batch_size=None)
    made.publish(made.retrain())
    assert "shares" not in made.published_answers("control")[made.retrain().names[0]]
    monkeypatch.setenv("STABUTILS_PUBLISH", "1")
    made.retrain()
    assert "shares" in made.published_answers("control")[made.retrain().names[0]] and trained == [0, 1]


def test_a_published_number_is_of_the_published_answers(tiny_study, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("STABUTILS_PUBLISH", "1")
    told = tiny_study(epochs=None, batch_size=None).retrain("control", n=2)
    assert tiny_study(epochs=None, batch_size=None).retrain(LabelSmoothing(0.3), n=2).probabilities is None
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    read = tiny_study(epochs=None, batch_size=None).retrain("control", n=2)
    assert trained == [0, 1, 0, 1] and np.array_equal(read.probabilities, told.probabilities)
    assert np.array_equal(read.doubt, told.doubt) and np.array_equal(read.doubt, read.doubt.astype(np.float16))


def test_published_answers_of_another_recipe_are_not_taken(tiny_study, trained):
    made = tiny_study()
    made.publish(made.retrain())
    tiny_study(epochs=3).retrain()
    assert trained == [0, 1, 0, 1]


def test_where_runs_and_published_answers_lie(tiny_study, monkeypatch, tmp_path):
    monkeypatch.delenv("STABUTILS_RUNS")
    made = tiny_study()
    assert made.store.folder == tmp_path / "project" / "runs"
    path = made.published_path("LabelSmoothing(strength=0.1)")
    assert path.relative_to(tmp_path / "project").as_posix() == (
        "records/tiny/answers/compact-labelsmoothing-strength-0.1.safetensors.xz")


def test_a_stored_run_says_what_made_it(tiny_study):
    made = tiny_study()
    runs = made.retrain()
    _, record = made.store.read(runs.names[0])
    assert record["identity"]["seeds"] == {"init": 0, "order": 0, "dropout": 0}
    assert record["identity"]["dataset"] == made.data.fingerprint
    assert {"stabutils", "commit", "dirty", "libraries", "machine", "threads"} <= record.keys()
    assert record["threads"] == 1


# ---- what is kept beside the answers

def test_a_run_without_what_is_to_be_kept_is_trained_again_to_the_same_bits(tiny_study, trained, monkeypatch, tmp_path):
    made = tiny_study()
    plain = made.retrain(n=2)
    assert plain.kept == {}
    assert made.plan(n=2, keep=("hidden",)) == {"runs": 2, "stored": 0, "published": 0, "to train": 2}
    kept = made.retrain(n=2, keep=("hidden",))
    assert trained == [0, 1, 0, 1] and kept.names == plain.names
    assert list(kept.kept) == ["hidden"] and kept.kept["hidden"].shape == (2, 20, 32)
    more = made.retrain(n=3, keep=("training", "margin"))  # what was kept before stays
    assert trained[4:] == [0, 1, 2] and list(more.kept) == ["training", "margin"]
    assert more.kept["training"].shape == (3, 4, 60, 4) and more.kept["margin"].shape == (3, 20)
    assert made.plan(n=2, keep=("hidden", "margin"))["to train"] == 0
    again = made.retrain(n=2, keep=("margin", "hidden"))
    assert len(trained) == 7 and list(again.kept) == ["margin", "hidden"]
    assert np.array_equal(again.kept["hidden"], kept.kept["hidden"])
    first, second = (1 - np.diff(np.sort(more.probabilities[0])[:, -2:])[:, 0], more.kept["margin"][0])
    assert np.allclose(first, second, atol=1e-6)
    assert made.retrain(n=3).kept == {} and len(trained) == 7
    for runs in (kept, more, again):
        for name in ("labels", "probabilities", "checkpoints", "confidence", "validation_probabilities"):
            assert np.array_equal(getattr(runs, name)[:2], getattr(plain, name)), name


def test_interrupted_while_trained_again_it_goes_on(tiny_study, monkeypatch, tmp_path):
    made, steps, one_step, save = tiny_study(epochs=3), [], training.one_step, training.save
    plain = made.retrain(n=1)
    monkeypatch.setattr(training, "train", partial(training.train, save_every=0))
    monkeypatch.setattr(training, "one_step", lambda state, *rest: (steps.append(state.step), one_step(state, *rest)))

    def interrupt(*state):
        save(*state)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.retrain(n=1, keep=("training",))
    monkeypatch.setattr(training, "save", save)
    assert np.array_equal(made.retrain(n=1).probabilities, plain.probabilities)  # the finished run is still there
    steps.append("again")
    kept = made.retrain(n=1, keep=("training",))
    assert steps == [0, 1, 2, 3, "again", *range(4, 12)]
    assert np.array_equal(kept.probabilities, plain.probabilities) and kept.kept["training"].shape == (1, 6, 60, 4)
    assert not list((tmp_path / "runs" / "unfinished").iterdir())
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "undisturbed"))
    undisturbed = tiny_study(epochs=3).retrain(n=1, keep=("training",))
    assert np.array_equal(kept.kept["training"], undisturbed.kept["training"])


# ---- several processes

def script(body: str) -> str:
    """A program of its own that finds the helpers of these tests."""
    head = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport tiny\nfrom stabutils import models\n"
    return head + "models.prepare = tiny.prepare\n" + textwrap.dedent(body)


@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_processes_on_one_store_train_each_run_once(tiny_study, tmp_path, names):
    body = script("""
        import time
        from pathlib import Path
        from stabutils import Study, training
        folder, me = Path(sys.argv[1]), sys.argv[2]
        train = training.train

        def noted(task, mitigation, seeds, *rest):
            with open(folder / "log", "a") as log:
                log.write(f"{me} {seeds.init}\\n")
            time.sleep(0.1)
            return train(task, mitigation, seeds, *rest)

        training.train = noted
        study = Study(dataset=str(folder / "tiny.csv"), epochs=2, batch_size=16, workers=1, published=False)
        study.task
        (folder / f"ready-{me}").touch()
        while len(list(folder.glob("ready-*"))) < int(sys.argv[3]):
            time.sleep(0.01)
        print(study.retrain("control", n=12).labels.tolist())
    """)
    several = [subprocess.Popen([sys.executable, "-c", body, str(tmp_path), me, str(len(names))], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for me in names]
    answers = [process.communicate(timeout=600)[0] for process in several]
    assert len(set(answers)) == 1 and len(answers[0]) > 100
    log = [line.split() for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert sorted(int(seed) for _, seed in log) == list(range(12))
    assert {me for me, _ in log} == set(names)  # they shared the work
    assert not list((tmp_path / "runs").glob("*.damaged"))
    assert np.array_equal(tiny_study(published=False).retrain(n=12).labels, eval(answers[0]))


def test_workers_give_the_bits_of_this_process_and_take_a_students_mitigation(tiny_study, tmp_path, monkeypatch):
    program = tmp_path / "student.py"
    program.write_text(script("""
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
    """), encoding="utf-8")
    done = subprocess.run([sys.executable, program, tmp_path / "tiny.csv"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    louder, incomplete = done.stdout.splitlines()
    assert louder == "Louder(factor=3.0)"
    assert incomplete.startswith("2 of 2 runs could not be trained") and "Louder(factor=1e+39)" in incomplete
    theirs = tiny_study()
    assert theirs.plan() == {"runs": 2, "stored": 2, "published": 0, "to train": 0}
    there = theirs.retrain()
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "mine"))
    assert np.array_equal(tiny_study().retrain().probabilities, there.probabilities)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_killed_anywhere_the_study_ends_with_the_same_bits(tiny_study, tmp_path, monkeypatch):
    """Each child goes one write further than the last and is killed before, in the midst of or after it."""
    body = script("""
        import functools, itertools, os, signal
        from pathlib import Path
        from stabutils import Study, store, training
        from stabutils.mitigations import Mitigation
        folder = Path(sys.argv[1])
        training.train = functools.partial(training.train, save_every=0)
        write_file, writes = store.write_file, itertools.count()

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def deadly(path, blob, how):
            if next(writes) < 1:
                return write_file(path, blob)
            if how == "half":
                path.parent.mkdir(parents=True, exist_ok=True)
                store._temporary(path).write_bytes(blob[:len(blob) // 2])
            if how == "after":
                write_file(path, blob)
            die()

        study = Study(dataset=str(folder / "tiny.csv"), epochs=3, batch_size=16, workers=1, published=False)
        training.train(study.task, Mitigation(), training.Seeds(0, 0, 0), None)  # so that torch is loaded once only
        for kills in itertools.count():
            child = os.fork()
            if not child:
                how = ("before", "half", "after")[kills % 3]
                store.write_file = functools.partial(deadly, how=how)
                study.retrain("control", n=2)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
        print(kills)
    """)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", body, str(tmp_path)], capture_output=True, text=True,
                          timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4
    made = tiny_study(epochs=3, published=False)
    survived = made.retrain(n=2)
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert sorted(path.name for path in left) == sorted(f"{name}.safetensors" for name in survived.names)
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "undisturbed"))
    undisturbed = tiny_study(epochs=3, published=False).retrain(n=2)
    for what in ("probabilities", "checkpoints", "confidence", "validation_probabilities"):
        assert np.array_equal(getattr(survived, what), getattr(undisturbed, what))


def test_a_study_is_what_its_knobs_say():
    assert Study(runs=3) == Study(runs=3) != Study(runs=4)
    assert replace(Study(runs=3), runs=4) == Study(runs=4)
    assert {f.name for f in fields(Study) if not f.metadata.get("help")} == set()


def test_a_worker_that_dies_is_one_clear_error_and_no_run(tiny_study, tmp_path):
    program = tmp_path / "deadly.py"
    program.write_text(script("""
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
    """), encoding="utf-8")
    done = subprocess.run([sys.executable, program, tmp_path / "tiny.csv"], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("a worker process died"), done.stdout + done.stderr
    assert done.returncode == 0 and not list((tmp_path / "runs").glob("*seed-2*"))


def test_what_was_kept_is_published_beside_the_answers(tiny_study, trained, monkeypatch, tmp_path):
    made = tiny_study()
    probed = made.retrain(n=2, keep=("margin",))
    made.publish(made.retrain(n=3))
    made.publish(probed, "probed")
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    read = tiny_study().retrain(n=2, keep=("margin",))
    assert trained == [0, 1, 2] and read.names == probed.names and tiny_study().retrain(n=3).kept == {}
    assert np.allclose(read.kept["margin"], probed.kept["margin"], atol=1e-3)
    tiny_study().retrain(n=3, keep=("margin",))
    assert trained == [0, 1, 2, 2]  # only the run of which nothing was kept


def test_publishing_commits_every_plain_sample_that_is_asked_for(tiny_study, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("STABUTILS_PUBLISH", "1")
    made = tiny_study()
    asked = [lambda s: s.retrain(n=3), lambda s: s.retrain(n=2, start=3), lambda s: s.retrain(LabelSmoothing(0.3), n=2),
             lambda s: replace(s, epochs=1).retrain(n=2)]
    first = [ask(made) for ask in asked]
    crossed = made.retrain(seeds=[Seeds(0, 1, 0), Seeds(1, 0, 0)])
    held_out = made.retrain(n=1, start=5, keep=("hidden",))
    made.retrain(n=1, start=6, keep=("training",))  # large: committed by nobody
    files = {path.name for path in made.published_path("control").parent.iterdir()}
    assert files == {f"compact-{arm}-batch-size-16{PACKED}" for arm in
                     ("control-epochs-2", "control-from-3-epochs-2", "labelsmoothing-strength-0.3-epochs-2",
                      "control-epochs-1", "control-heldout-from-5-epochs-2")}
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    before = len(trained)
    again = [ask(tiny_study()) for ask in asked]
    read = tiny_study().retrain(n=1, start=5, keep=("hidden",))
    assert np.array_equal(read.kept["hidden"], held_out.kept["hidden"]) and read.kept["hidden"].ndim == 3
    assert len(trained) == before and [runs.names for runs in again] == [runs.names for runs in first]
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(again, first, strict=True))
    assert again[0].confidence_mean is not None and again[2].confidence_mean is None  # of control's plain sample only
    assert not set(crossed.names) & made.published_answers("control").keys()


def test_a_training_of_one_step_agrees_with_itself(tiny_study):
    runs = tiny_study(epochs=1, batch_size=1000).retrain()
    assert runs.checkpoints.shape[1] == 1 and not runs.checkpoint_entropy.any()

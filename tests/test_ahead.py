"""What several notebooks train is trained once, by the time each of them asks for it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
import tiny

from stabutils.analysis import reliability
from stabutils.analysis.perturbed import Beside
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation
from stabutils.mitigations.data_centric import TGTSS
from stabutils.publishing import ahead, notebooks, plans
from stabutils.publishing.ahead import Ahead, trainings
from stabutils.study.forecast import Forecast
from stabutils.study.study import Study, StudyOfTexts
from stabutils.training.probes import PROXIES

OWN = {
    "01": {"probed": 3},
    "02": {"levels": 0, "pokes": 0, "crossed_epochs": None},
    "04": {"turned": 0, "blamed": 3},
}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Plans of three notebooks on a tiny corpus, whose trainings are of three steps."""
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    corpus = tiny.write_csv(tmp_path / "tiny.csv")
    study = Study(dataset=str(corpus), runs=4, epochs=3, workers=2)
    knobs = {"runs": 4, "runs_per_method": 3, "methods": "TGTSS"}
    return {number: (study, knobs | own) for number, own in OWN.items()}


def test_runs_of_several_notebooks_are_trained_once_with_all_that_is_kept_of_them(asked):
    found = trainings(asked)
    names = [training.run.name for training in found]
    assert len(set(names)) == len(names)
    of_control = {
        training.run.seeds.init: (training.number, training.keep)
        for training in found
        if training.mitigation == Mitigation() and training.study.task.identity["layers"]
    }
    teachers = {seed: ("04", {"training"}) for seed in (100_000, 100_100, 100_200)}
    assert of_control == teachers | {
        **dict.fromkeys(range(4), ("01", set())),
        4: ("01", {*PROXIES, "hidden"}),  # for notebook 02 too
        **dict.fromkeys((5, 6), ("01", {*PROXIES})),  # and the placebo of 04
    }
    rows = {training.run.name: row for row, training in enumerate(found)}
    taught = [training for training in found if training.mitigation == TGTSS()]
    assert len(taught) == 3
    for training in taught:
        for teacher in training.study.dispatch.teachers(training.mitigation, [training.run]):
            assert rows[teacher.name] < rows[training.run.name]


def test_a_worker_trains_what_the_notebook_asks_for(asked):
    """A process makes its study anew, of the knobs; one of other texts would be another study."""
    study, knobs = asked["01"]
    more = {"noise": "10", "few_shot": "2", "runs_per_condition": 4, "methods": "ZerO"}
    both = {"01": asked["01"], "09": (study, knobs | more)}
    parts = plans.parts_of("09", *both["09"])
    assert {type(part.study) for part in parts} == {Study, StudyOfTexts, Beside}
    found = trainings(both)
    assert {training.number for training in found} == {"01", "09"}
    for training in found:
        own = training.study.identify(training.mitigation, training.run.seeds)
        assert own.name == training.run.name


def untrained(parts) -> int:
    """How many trainings these parts of a plan still take, at most."""
    return sum([*part.count(Forecast()).values()][-1] for part in parts)


def test_what_a_notebook_waited_for_is_all_that_it_is_known_to_need(asked, monkeypatch, capsys):
    monkeypatch.setenv("STABUTILS_BAR", "lines")
    parts = {number: plans.parts_of(number, *own) for number, own in asked.items()}
    known = {
        number: [part for part in own if part.arm is not None] for number, own in parts.items()
    }
    assert all(untrained(own) for own in known.values())
    with Ahead(asked) as found:
        for number, own in known.items():
            found.wait(number)
            assert untrained(own) == 0
    count = sum(map(len, found.futures.values()))
    said = f"trainings for 01 ({count} runs in all, about 1 min): "
    assert said in capsys.readouterr().err


def test_one_notebook_trains_for_itself(asked, monkeypatch):
    monkeypatch.setattr(
        ahead, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("a process began")
    )
    with Ahead({"02": asked["02"]}) as found:
        found.wait("02")


def test_studies_of_other_texts_are_told_apart(asked, monkeypatch):
    """Else a plan takes the runs of one for those of another, and counts them once."""
    study, knobs = asked["01"]
    few, fewer = (reliability.few_shot(study, size) for size in (3, 2))
    assert few != fewer and few != study and len({few, fewer, study}) == 3 and few == few
    more = {"noise": "", "runs_per_condition": 4, "methods": "ZerO"}
    [path] = Path(__file__).parents[1].glob("notebooks/09_*.ipynb")
    monkeypatch.setattr(notebooks.Study, "of", lambda values: study)

    def least(few_shot):
        lines = notebooks.plan({path: knobs | more | {"few_shot": few_shot}})
        return int(re.search(r"to train (?:at most )?(\d+)", lines[-1])[1])

    assert least("2, 3") == least("2") + 4


@pytest.mark.parametrize("text", ["inf", "nan", "5, 1e400"])
def test_texts_an_intent_are_finite(text):
    with pytest.raises(InputError, match="few_shot: got"):
        reliability.sizes_of(text)


def test_a_copy_of_a_study_of_other_texts_does_not_take_the_whole_corpus(asked):
    """`replace` copies knobs, which lead to all texts."""
    few = reliability.few_shot(asked["01"][0], 2)
    with pytest.raises(TypeError, match="with_data"):
        _ = replace(few, epochs=9).data


def alive(process: int) -> bool:
    """Asked of the system: whoever waits for a child first leaves no exit code to the others."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_who_stops_the_notebooks_stops_what_trains_for_them(asked):
    with pytest.raises(KeyboardInterrupt), Ahead(asked) as found:
        workers = active_children()
        raise KeyboardInterrupt
    for worker in workers:
        worker.join(10)
    assert workers and found.futures
    assert not any(map(alive, [worker.pid for worker in workers]))
    left = [future for own in found.futures.values() for future in own if future.cancelled()]
    assert left

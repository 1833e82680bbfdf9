"""Stored runs trained again: equal bits, near enough, another answer, or not to be had here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from stabutils.__main__ import main
from stabutils.mitigations.interventions import Poke, TurnOver
from stabutils.mitigations.regularizers import EMA, LabelSmoothing
from stabutils.study import verify as verify_module
from stabutils.study.study import Study
from stabutils.study.verify import verify
from stabutils.training import preparation


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    study = Study(
        dataset=str(tiny.write_csv(tmp_path / "tiny.csv")),
        epochs=2,
        batch_size=16,
        workers=1,
        published=False,
    )
    study.retrain("control", n=3)
    return study


def change(study: Study, name: str, **arrays) -> None:
    answers, record = study.answers.store.read(name)
    study.answers.store.write(name, answers | arrays, record)


def test_runs_come_out_again_bit_for_bit(made, capsys, tmp_path):
    made.retrain((LabelSmoothing(0.1), EMA(0.9)), n=1)
    made.retrain(Poke(), n=1)
    made.retrain(TurnOver(), n=1)
    words = ["--dataset", made.dataset, "--json", str(tmp_path / "v.json")]
    assert main(["verify", "--sample", "9", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7 and printed[-1].startswith("6 trained again: 6 with the same bits")
    document = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert (document["command"], document["status"]) == ("verify", 0)
    assert [run["outcome"] for run in document["runs"]] == 6 * ["bits"]
    assert document["outcomes"]["bits"] == 6 and document["outcomes"]["another answer"] == 0


def test_a_sample_is_drawn_by_its_seed(made):
    names = {
        seed: [each.name for each in verify(made.answers.store, 2, seed, [made.dataset])]
        for seed in range(6)
    }
    assert names == {
        seed: [each.name for each in verify(made.answers.store, 2, seed, [made.dataset])]
        for seed in range(6)
    }
    assert len({tuple(drawn) for drawn in names.values()}) > 1 and {
        len(drawn) for drawn in names.values()
    } == {2}


def test_rounding_is_told_from_another_answer(made, capsys):
    name = made.retrain(n=1).names[0]
    answers, _ = made.answers.store.read(name)
    change(made, name, probabilities=np.nextafter(answers["probabilities"], 1, dtype=np.float32))
    outcomes = {each.name: each for each in verify(made.answers.store, 3, 0, [made.dataset])}
    assert outcomes[name].outcome == "statistics" and outcomes[name].why.startswith(
        "0.0% of the answers differ"
    )
    assert [each.outcome for each in outcomes.values()].count("bits") == 2
    change(made, name, labels=(answers["labels"] + 1) % 4)
    for other in made.retrain(n=3).names[1:]:
        change(made, other, labels=answers["labels"])  # so that seeds change nothing
    assert main(["verify", "--dataset", made.dataset]) == 1
    assert "another answer (100.0% of the answers differ" in capsys.readouterr().out


@pytest.mark.parametrize("differ, seeds, outcome", [
    (0.10, 0.10, "statistics"),
    (0.09, 0.10, "statistics"),
    (0.11, 0.10, "another answer"),
    (0.01, 0.0, "another answer"),
    (0.0, 0.0, "statistics"),
    (0.0, None, "statistics"),
    (0.01, None, "cannot be judged"),
])  # fmt: skip
def test_as_near_as_another_seed_is_near_enough(differ, seeds, outcome):
    """Fails if the threshold is another than the churn between seeds, or equal is not enough."""
    assert verify_module._statistics("run", differ, seeds).outcome == outcome


def test_the_threshold_is_the_largest_churn_of_two_stored_runs_of_the_same_kind(made):
    made.retrain(EMA(0.5), n=2)
    names, store = made.retrain(n=3).names, made.answers.store
    count = len(store.read(names[0])[0]["labels"])
    for place, name in enumerate(names):
        labels = np.zeros(count, int)
        labels[: (0, 2, 5)[place]] = 1
        change(made, name, labels=labels)
    other = made.retrain(EMA(0.5), n=2).names[0]
    change(made, other, labels=np.full(count, 3))  # another mitigation does not count
    identity, fresh = store.read(names[0])[1]["identity"], np.zeros(count, int)
    change(made, names[0], labels=np.full(count, 2))  # the run in question has no say
    assert verify_module._churn(store, identity, fresh) == pytest.approx(5 / count)
    fresh[10:] = 1  # ten more than the one, and of the other
    assert verify_module._churn(store, identity, fresh) == pytest.approx((count - 10 + 5) / count)
    store.path(names[2]).unlink()
    assert verify_module._churn(store, identity, fresh) == pytest.approx((count - 10 + 2) / count)
    store.path(names[1]).unlink()
    assert verify_module._churn(store, identity, fresh) is None


def test_a_lone_run_that_differs_cannot_be_judged(made, capsys):
    """As on another machine: without runs of other seeds nobody knows whether it is much."""
    name, *others = made.retrain(n=3).names
    for other in others:
        made.answers.store.path(other).unlink()
    answers, _ = made.answers.store.read(name)
    labels = answers["labels"].copy()
    labels[0] = (labels[0] + 1) % 4
    change(made, name, labels=labels)
    assert main(["verify", "--dataset", made.dataset]) == 2  # as if nothing had been tried
    printed = capsys.readouterr()
    assert f"{name}: cannot be judged (5.0% of the answers differ; no stored run" in printed.out
    assert "runs: got" in printed.err and "judged here" in printed.err
    made.retrain(EMA(0.5), n=1)  # something else that can be judged
    assert main(["verify", "--dataset", made.dataset]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "2 trained again: 1 with the same bits, 0 as near as another seed is, 0 with another "
        "answer, 1 that cannot be judged"
    )


def test_what_is_not_to_be_had_here_is_said(made, monkeypatch, capsys):
    assert main(["verify"]) == 2
    printed = capsys.readouterr()
    assert (
        printed.out.count("not tried (its data set is none of those known here") == 3
        and "runs: got" in printed.err
    )
    assert main(["verify", "--dataset", "nowhere.csv"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err
    monkeypatch.setattr("stabutils.training.loop.RECIPE_VERSION", -1)
    assert {each.outcome for each in verify(made.answers.store, 3, 0, [made.dataset])} == {
        "not tried"
    }
    assert main(["verify", "--sample", "0"]) == 2

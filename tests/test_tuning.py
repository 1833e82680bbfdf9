"""Fair tuning: the same number of strengths and runs for all, validation only, accuracy first."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.mitigations import Mitigation, regularizers
from stabutils.mitigations.data_centric import TGTSS
from stabutils.mitigations.neighbours import Mixout, UnitDropout, ZerO
from stabutils.mitigations.regularizers import (
    CATALOGUE,
    EMA,
    FAMILIES,
    QUICK,
    LabelSmoothing,
    LongerTraining,
    MCDropout,
)
from stabutils.study import tuning
from stabutils.study.study import Study, requested
from stabutils.training import preparation

GOLD = np.zeros(200, int)


def arm(unstable: int, wrong: int = 0, runs: int = 3) -> np.ndarray:
    """Runs that disagree on the first examples, each wrong on every third of them; the last are
    wrong in all runs.
    """
    labels = np.zeros((runs, 200), int)
    for example in range(unstable):
        labels[example % runs, example] = 1
    labels[:, 200 - wrong :] = 1
    return labels


CONTROL = arm(60)  # each run is wrong on 20 of 200


def chosen(**strengths):
    table = tuning.choose(
        CONTROL, {"a": {float(name[1:]): labels for name, labels in strengths.items()}}, GOLD
    )
    return table[table.chosen].iloc[0]


def test_the_steadiest_strength_is_chosen():
    row = chosen(s1=arm(60), s2=arm(30, 10), s3=arm(45, 5))
    assert row.strength == 2 and row.why == "least label entropy" and row.accuracy == 0.9
    # 30 of 200 examples have votes 2 to 1
    assert (
        row.label_entropy == pytest.approx(0.15 * (np.log(3) - 2 / 3 * np.log(2)))
        and row.n == row.runs == 3
    )
    assert row.label_entropy == pytest.approx(metrics.label_entropy(arm(30, 10), 3).mean())


def test_intervals_of_the_table_are_over_runs_and_queries():
    table = tuning.scored([CONTROL, arm(30, 10)], GOLD)
    for row, labels in zip(table.itertuples(), (CONTROL, arm(30, 10)), strict=True):
        entropy = scores.label_entropy(labels, 3).interval()
        accuracy = scores.accuracy(labels, GOLD).interval()
        assert (row.label_entropy_low, row.label_entropy_high) == (entropy.low, entropy.high)
        assert (row.accuracy_low, row.accuracy_high) == (accuracy.low, accuracy.high)
        assert accuracy.speaks_of == "new runs and new queries"


def test_half_a_point_of_accuracy_may_be_lost_and_no_more():
    assert chosen(s1=arm(60), s2=arm(0, 21), s3=arm(60)).strength == 2  # 0.895 against 0.9
    assert chosen(s1=arm(60), s2=arm(0, 22), s3=arm(60)).strength == 1


def test_just_half_a_point_less_is_kept():
    """301 and 298 of 600 answers right: in floating point more than half a point apart."""
    gold = np.zeros(60, int)
    arms = [(np.arange(600) >= right).astype(int).reshape(10, 60) for right in (301, 298, 297)]
    assert tuning.scored(arms, gold).kept.tolist() == [True, True, False]


def test_the_weakest_is_taken_where_each_costs_too_much_and_it_says_so():
    row = chosen(s1=arm(60, 30), s2=arm(0, 40), s3=arm(0, 50))
    assert row.strength == 1 and row.why.startswith("the weakest")


def test_equal_strengths_leave_the_weaker():
    assert chosen(s1=arm(30), s2=arm(30), s3=arm(30)).strength == 1


def test_every_method_has_one_choice_and_every_row_an_interval():
    arms = {name: {1.0: arm(30), 2.0: arm(20)} for name in ("b", "a")}
    table = tuning.choose(CONTROL, arms, GOLD)
    assert table.method.tolist() == ["control", "b", "b", "a", "a"] and table.chosen.sum() == 2
    assert np.isnan(table.strength[0]) and not table.chosen[0]
    for name in ("label_entropy", "accuracy"):
        assert (table[f"{name}_low"] <= table[name]).all() and (
            table[name] <= table[f"{name}_high"]
        ).all()


def test_entropy_is_over_five_votes_at_most():
    table = tuning.choose(arm(60, runs=7), {"a": {1.0: arm(30, runs=7)}}, GOLD)
    assert table.n.tolist() == [5, 5]
    assert table.label_entropy[1] == pytest.approx(metrics.label_entropy(arm(30, runs=7), 5).mean())


def test_unequal_chances_are_refused():
    with pytest.raises(
        InputError, match=r"strengths of the methods: got \[1, 2\]; expected the same number"
    ):
        tuning.choose(CONTROL, {"a": {1.0: arm(1)}, "b": {1.0: arm(1), 2.0: arm(1)}}, GOLD)
    with pytest.raises(InputError, match=r"runs of the arms: got \[3, 4\]"):
        tuning.choose(CONTROL, {"a": {1.0: arm(1, runs=4)}}, GOLD)


def test_a_candidate_is_judged_by_entropy_and_kept_by_accuracy():
    control = np.array([[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    table = tuning.tried(
        control, {"calm": np.zeros((3, 4), int), "wrong": np.ones((3, 4), int)}, np.zeros(4, int)
    )
    assert table.candidate.tolist() == ["control", "calm", "wrong"]
    assert table.reduction.tolist() == [0, 1, 1] and table.kept.tolist() == [True, True, False]


# ---- the table on disk


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    monkeypatch.setattr("stabutils.study.paths.project_root", lambda: tmp_path)
    return Study(
        dataset=str(tiny.write_csv(tmp_path / "tiny.csv")),
        epochs=2,
        batch_size=16,
        workers=1,
        seed=5,
    )


def test_tuning_has_seeds_of_its_own_and_its_table_comes_back(study, tmp_path):
    doses = {"EMA": CATALOGUE["EMA"], "MC dropout": (MCDropout(2), MCDropout(3), MCDropout(4))}
    assert tuning.read(study) is None and "defaults" in tuning.source(study, None)
    table = tuning.tune(study, doses, runs=2)
    assert (
        study.plan("control", 2)["to train"] == study.plan(EMA(0.8), 2)["to train"] == 2
    )  # fresh ones for the board
    files = [file.name for file in (tmp_path / "runs").glob("*.safetensors")]
    assert len(files) == 2 * 7 and all("seed-1005" in name or "seed-1006" in name for name in files)
    written = tuning.write(table, tuning.path(study))
    assert (
        written == tmp_path / "records" / "tiny" / "tuning.csv"
        and b"\r" not in written.read_bytes()
    )
    back = tuning.read(study)
    assert tuning.chosen(back, doses) == tuning.chosen(table, doses)
    assert (
        back.strength[1:].tolist() == [0.8, 0.95, 0.999, 2, 3, 4]
        and (back.why[back.chosen] != "").all()
    )
    assert "under this recipe, 2 runs each, LE@2" in tuning.source(study, back)
    assert "under another recipe" in tuning.source(replace(study, epochs=3), back)
    back.assign(model="another").to_csv(written, index=False)
    assert tuning.read(study) is None


def test_arms_and_recipes_are_tried_on_seeds_of_their_own(study):
    longer = replace(study, epochs=3)
    candidates = {"3 epochs": longer, "EMA": EMA(0.8), "3 epochs as an arm": LongerTraining(1.5)}
    table = tuning.try_out(study, candidates, runs=2)
    assert table.candidate.tolist() == ["control", *candidates]
    assert table.trainings.tolist() == [1, 1.5, 1, 1.5]
    for own in (study, longer):
        assert own.plan("control", 2)["to train"] == 2  # fresh ones for the board
    tried = requested(longer, Mitigation(), 2, tuning.START).runs
    assert all(longer.answers.has(run) for run in tried)
    again = longer.retrain("control", n=2, start=tuning.START).validation_labels
    accuracy = (again == study.data.validation.labels).mean()
    assert table.accuracy[1] == pytest.approx(accuracy)


def test_the_chosen_strength_is_used_and_a_default_where_none_was_chosen():
    arms = {
        "label smoothing": {
            dose.dose: arm(60 - int(100 * dose.dose)) for dose in CATALOGUE["label smoothing"]
        }
    }
    table = tuning.choose(CONTROL, arms, GOLD)
    doses = {name: CATALOGUE[name] for name in ("label smoothing", "EMA")}
    found = tuning.chosen(table, doses)
    assert found == {"label smoothing": LabelSmoothing(0.4), "EMA": EMA()}
    defaults = tuning.chosen(None, doses)
    assert defaults == {"label smoothing": LabelSmoothing(), "EMA": EMA()}


# ---- the catalogue's strengths


def test_each_method_has_three_strengths_of_one_kind_and_one_family():
    kinds = {
        kind
        for kind in vars(regularizers).values()
        if isinstance(kind, type) and issubclass(kind, regularizers.ScalarMitigation)
    }
    listed = {type(doses[0]) for doses in CATALOGUE.values()}
    assert listed == kinds - {regularizers.ScalarMitigation, regularizers.Averaged} and len(
        listed
    ) == len(CATALOGUE)
    for doses in CATALOGUE.values():
        assert len(doses) == 3 == len({dose.dose for dose in doses}) and not any(
            dose.is_noop for dose in doses
        )
        assert {type(dose) for dose in doses} == {type(doses[0])}
    assert sorted(name for family in FAMILIES.values() for name in family) == sorted(CATALOGUE)
    assert len(QUICK) >= 4 and set(QUICK) <= set(CATALOGUE)
    for name, doses in CATALOGUE.items():  # weakest first: farther from control at each step
        neutral = doses[0].neutral or 0.0
        away = [abs(dose.dose - neutral) for dose in doses]
        assert away == sorted(away), name


# ---- the exercise of notebook 03


def test_a_students_cell_is_retrained_when_its_body_is_edited(tmp_path, monkeypatch):
    pytest.importorskip("IPython")
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    path = Path(__file__).resolve().parents[1] / "notebooks" / "03_regularizers.ipynb"
    cell = next(
        "".join(cell["source"])
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if "class SmallLogits" in "".join(cell["source"])
    ).split("\n\n\n")[0]
    assert len(cell.splitlines()) <= 10 and "square" in cell
    begin = (
        "import stabutils as st; from dataclasses import dataclass; "
        f"study = st.Study(dataset={str(tiny.write_csv(tmp_path / 'tiny.csv'))!r}, epochs=2, "
        "workers=1)"
    )
    train = "print(study.retrain(SmallLogits(), n=1).nll[0])"
    script = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {[begin, cell, train, cell, train, cell.replace("square", "abs"), train]!r}:
    shell.run_cell(cell).raise_error()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, again, edited = (line.split()[-1] for line in done.stdout.splitlines())
    assert first == again != edited and len(list((tmp_path / "runs").glob("*.safetensors"))) == 2


def test_methods_of_both_catalogues_are_found_at_their_chosen_strengths(monkeypatch):
    study, strength = Study(dataset="assistant"), regularizers.CATALOGUE["label smoothing"][0].dose
    assert tuning.methods(study, "TGTSS, label smoothing", "both", ()) == {
        "TGTSS": TGTSS(),
        "label smoothing": LabelSmoothing(),
    }
    table = pd.DataFrame({"method": ["label smoothing"], "strength": [strength], "chosen": [True]})
    monkeypatch.setattr(tuning, "read", lambda study: table)
    assert tuning.methods(study, "label smoothing", "both", ()) == {
        "label smoothing": LabelSmoothing(strength)
    } and (strength != LabelSmoothing().strength)
    for catalogue in ("regularizers", "data_centric", "both", "anchored", "updates"):
        mixed = tuning.methods(study, "most stable single, TGTSS, EMA", catalogue)
        assert list(mixed) == ["most stable single", "TGTSS", "EMA"]
    assert list(tuning.methods(study, "warm start", "updates")) == ["warm start"]
    with pytest.raises(InputError, match="asked for in 07"):
        tuning.methods(study, "warm start", "anchored")
    with pytest.raises(InputError, match="method: got 'TGST'"):
        tuning.methods(study, "TGST", "both", ())


def test_a_regularizer_may_name_its_strength():
    study = Study(dataset="assistant")
    asked = tuning.methods(study, "label smoothing 0.4, MC dropout 3, label smoothing", "both")
    assert asked == {
        "label smoothing 0.4": LabelSmoothing(0.4),
        "MC dropout 3": MCDropout(3),
        "label smoothing": LabelSmoothing(),
    }
    assert "label smoothing 0.4" not in tuning.methods(study, "all", "both")
    with pytest.raises(InputError, match="LabelSmoothing strength: got 1.5"):
        tuning.methods(study, "label smoothing 1.5", "both")
    with pytest.raises(InputError, match="MCDropout passes: got 0.5"):
        tuning.methods(study, "MC dropout 0.5", "both")
    for unknown in ("label smoothing strong", "TGTSS 0.4"):
        with pytest.raises(InputError, match=f"method: got '{unknown}'"):
            tuning.methods(study, unknown, "both")


def test_neighbours_methods_stand_at_what_validation_chose_or_in_the_middle(tmp_path, monkeypatch):
    """Fails if a strength that costs too much accuracy is taken, or one of another method."""
    monkeypatch.setattr(Study, "records", tmp_path)
    study = Study(dataset="assistant")
    before = tuning.methods(study, "all", "neighbours", ())
    assert before["ZerO"] == ZerO(0.9) and before["mixout to zero"] == Mixout(0.1, "zero")
    rows = [("ZerO 0.5", 0.2, True), ("ZerO 0.9", 0.1, False), ("ZerO 1", 0.15, True)]
    rows += [("mixout 0.3", 0.1, True), ("unit dropout 0.4", 0.3, True)]
    table = pd.DataFrame(rows, columns=["candidate", "label_entropy", "kept"])
    table.assign(model="compact").to_csv(tmp_path / "neighbours.csv", index=False)
    after = tuning.methods(study, "all", "neighbours", ())
    assert after["ZerO"] == ZerO(1.0) and after["mixout"] == Mixout(0.3)
    assert after["mixout to zero"] == Mixout(0.1, "zero")
    assert after["unit dropout"] == UnitDropout(0.4)
    bag = replace(study, model="compact-bag")  # whose records lie in the same folder
    assert tuning.methods(bag, "all", "neighbours", ())["mixout"] == before["mixout"]
    pretrained = tuning.catalogues(replace(study, model="gt/all-MiniLM-L6-v2"))["neighbours"]
    assert set(after) - set(pretrained) == {"unit dropout"}

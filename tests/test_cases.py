"""Inputs after public bug reports, each from the file to what a user sees of it.

Those of the Recorder are in test_recorder.py, those of checkpoints in test_families.py, and what
other tools do to files in test_metamorphic.py.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

import stabutils as st
from stabutils import __main__ as main
from stabutils.reports.columns import assign

NAMES = ("refund", "track", "cancel", "hours")


def write(path: Path, header, rows) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def answers(examples=60, runs=3, classes=3, noise=0.15, first=1):
    gold = np.arange(examples) % classes
    labels = []
    for seed in range(first, first + runs):
        rng = np.random.default_rng(seed)
        wrong = rng.random(examples) < noise
        labels.append(np.where(wrong, rng.integers(classes, size=examples), gold))
    return gold, np.array(labels)


def command(capsys, *words) -> tuple[int, str]:
    status = main.main(list(map(str, words)))
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize("name", ["pred", "predicted_label", "predictions", "y_pred", "pred_label"])
def test_a_gate_does_not_pass_on_the_churn_of_the_truth(tmp_path, capsys, name):
    """`label` is the truth: its churn is 0 %, that of the answers 38 %."""
    gold, labels = answers(400, classes=4, noise=0.3)
    rows = [
        (11 + run, i, f"text {i}", NAMES[gold[i]], NAMES[labels[run, i]], 0.9)
        for run in range(3)
        for i in range(400)
    ]
    path = write(tmp_path / "p.csv", ("seed", "id", "text", "label", name, "score"), rows)
    words = ["report", path, "-o", tmp_path / "p.html", "--max-churn", 0.05, "--strict"]
    status, said = command(capsys, *words)
    assert status == 2 and f"got '{name}, label'; expected told apart" in said
    assert f'--columns "label={name}, gold=label"' in said
    status, said = command(capsys, *words, "--columns", f"label={name}, gold=label")
    assert status == 1 and "FAILED: all of" in said
    layout = (
        f"long form, 3 runs x 400 examples (run: seed; example: id; label: {name}; gold: label; "
        "text: text; not used: score)"
    )
    assert said.startswith(layout)
    assert f"Read as {layout}" in (tmp_path / "p.html").read_text(encoding="utf-8")


HEADERS = {  # of a table -> its answers and truth, or the candidates that a question names
    "run id pred gold": ("pred", "gold"),
    "run id y_pred y_true": ("y_pred", "y_true"),
    "seed uid Predicted_Class True_Class": ("Predicted_Class", "True_Class"),
    "run id label ground_truth": ("label", "ground_truth"),
    "run id output expected_output": ("output", "expected_output"),
    "seed utterance_id response correct_answer": ("response", "correct_answer"),
    "run id label.pred label.gold": ("label.pred", "label.gold"),
    "run id predLabel targetLabel": ("predLabel", "targetLabel"),
    "run id label_text score": ("label_text", None),
    "run id label label_id target_lang true_positive pred_score": ("label", None),
    "run id label pred_label": "pred_label, label",
    "run id label class": "label, class",
    "run id label label_text": "label, label_text",
    "run id prediction_model intent": "prediction_model, intent",
    "run id intent": "intent",
    "run id label Label": "label, Label",
    "run id pred target y_true": "target, y_true",
    "id run1 run2 model_3": "run1, run2, model_3",
    "id label prediction1 prediction2": "label, prediction1, prediction2",
    "id gold prediction prediction_0 prediction_1": "prediction, prediction_0, prediction_1",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_column_is_taken_for_the_answers_only_where_no_other_could_be(header):
    expected = HEADERS[header]
    if isinstance(expected, str):
        with pytest.raises(st.InputError, match=f"got '{expected}'; expected told apart"):
            assign(header.split(), {}, "mine.csv")
        return
    roles = assign(header.split(), {}, "mine.csv")
    assert (roles["label"][0], roles.get("gold", [None])[0]) == expected


def test_files_joined_with_their_headers(tmp_path, capsys):
    """PNNL-CompBio/coderdata#161, beiko-lab/arete#99."""
    part = "text,label\n" + "".join(f"lamp {i},{'on' if i % 2 else 'off'}\n" for i in range(30))
    (tmp_path / "all.csv").write_text(part + part, encoding="utf-8")
    with pytest.raises(st.InputError, match="all.csv, line 32: got 'text, label'.*header"):
        st.load_dataset(tmp_path / "all.csv")
    part = "example,run1,run2,gold\n" + "".join(f"{i},a,a,a\n" for i in range(6))
    (tmp_path / "wide.csv").write_text(part + part, encoding="utf-8")
    status, said = command(capsys, "report", tmp_path / "wide.csv", "-o", tmp_path / "w.html")
    assert status == 2 and "wide.csv, line 8: got 'example, run1, run2, gold'" in said
    assert not (tmp_path / "w.html").exists()


def test_a_text_as_long_as_in_a_corpus(tmp_path):
    """pytorch/text#549, NatLibFi/Annif#902, biolab/orange3#2404: csv alone stops at 131,072."""
    long = "contract clause " * 10_000
    texts = [long if i == 3 else f"text {i}" for i in range(6)]
    rows = [(run, i, texts[i], "ab"[(i + run) % 2]) for run in (1, 2) for i in range(6)]
    read = st.read_predictions(write(tmp_path / "p.csv", ("run", "example", "text", "label"), rows))
    assert read.texts[3] == long.strip()
    longer = write(tmp_path / "q.csv", ("run", "example", "text", "label"), [(1, 1, long * 7, "a")])
    for read in (st.read_predictions, st.load_dataset):
        with pytest.raises(st.InputError, match="line 2: got 'a cell of more than 1,000,000 char"):
            read(longer)
    assert csv.field_size_limit() == 131_072


BEFORE = ("0", "1", "2")
CODES = {
    "decimals": (("0.0", "1.0", "2.0"), "labels"),
    "names": (("neg", "neu", "pos"), "labels of run 1 of before"),
    "LABEL_k": (("LABEL_0", "LABEL_1", "LABEL_2"), "labels"),
}


@pytest.mark.parametrize("what", CODES)
def test_labels_in_two_codes_are_not_compared(tmp_path, capsys, what):
    """huggingface/transformers#13298: a churn of 100 % between them is that of the codes."""
    names, says = CODES[what]
    for file, code, first in (("before", BEFORE, 1), ("after", names, 4)):
        _, labels = answers(30, first=first)
        rows = [(first + r, i, code[labels[r, i]]) for r in range(3) for i in range(30)]
        write(tmp_path / f"{file}.csv", ("run", "example", "label"), rows)
    status, said = command(capsys, "compare", tmp_path / "before.csv", tmp_path / "after.csv")
    assert status == 2 and said.startswith(f"stabutils: {says}: got ")


def test_two_of_four_runs_in_another_code_are_refused(tmp_path):
    """Fails if each run is compared with all others together: each shares its code with one."""
    _, labels = answers(30, 4)
    words = {r: ("neg", "neu", "pos") if r < 2 else CODES["LABEL_k"][0] for r in range(4)}
    rows = [(r, i, words[r][labels[r, i]]) for r in range(4) for i in range(30)]
    path = write(tmp_path / "p.csv", ("run", "example", "label"), rows)
    with pytest.raises(st.InputError, match="labels of run '0': got ..neg', 'neu', 'pos'"):
        st.read_predictions(path)


def test_numbers_in_another_order_are_refused_and_bad_runs_are_not(tmp_path):
    """mljar/mljar-supervised#245: an encoder fitted on each file gives other numbers."""
    gold, labels = answers(120, 3)
    labels[2] = (labels[2] + 1) % 3
    rows = [(r, i, labels[r, i]) for r in range(3) for i in range(120)]
    header = ("run", "example", "label")
    with pytest.raises(
        st.InputError, match="labels of run '2': .*with the labels in another order"
    ):
        st.read_predictions(write(tmp_path / "p.csv", header, rows))
    rng = np.random.default_rng(0)
    for draw in range(30):  # runs that only guess, of which one always says the same
        labels = rng.integers(2, size=(3, 30))
        labels[0] = draw % 2
        rows = [(r, i, labels[r, i]) for r in range(3) for i in range(30)]
        st.read_predictions(write(tmp_path / "p.csv", header, rows))


def test_class_probabilities_are_not_runs(tmp_path):
    """mljar/mljar-supervised#245 and the scores of Hugging Face's pipelines."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([0.3] * 3, size=60)
    rows = [(i, *(f"{x:.2f}" for x in row)) for i, row in enumerate(shares)]
    for stem in ("prediction_", "LABEL_"):
        path = write(tmp_path / "p.csv", ("id", *(f"{stem}{k}" for k in range(3))), rows)
        with pytest.raises(
            st.InputError, match=f"got '{stem}0, .*sum to 1 in every row, as the pr"
        ):
            st.read_predictions(path)
    golds = [(*row, f"LABEL_{i % 3}") for i, row in enumerate(rows)]
    path = write(tmp_path / "p.csv", ("id", "LABEL_0", "LABEL_1", "LABEL_2", "gold"), golds)
    with pytest.raises(st.InputError, match="sum to 1 in every row"):  # and not: no header
        st.read_predictions(path)
    both = [(run, *row) for run in (1, 2) for row in rows]
    path = write(tmp_path / "p.csv", ("run", "id", "LABEL_0", "LABEL_1", "LABEL_2"), both)
    read = st.read_predictions(path, "probabilities=LABEL_0 LABEL_1 LABEL_2")
    assert read.label_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert np.array_equal(read.labels[0], shares.round(2).argmax(axis=1))


def test_rows_are_not_joined_where_texts_disagree(tmp_path, capsys):
    """bird-bench/mini_dev#41, open-mmlab/mmaction2#283: another order of rows, or new numbers."""
    order = np.random.default_rng(9).permutation(60)
    for file, first, rows in (
        ("before", 1, range(60)),
        ("same", 4, range(60)),
        ("after", 4, order),
    ):
        _, labels = answers(first=first)
        cells = [(f"what about thing {i}", *("abc"[k] for k in labels[:, i])) for i in rows]
        header = ("text", *(f"run{first + r}" for r in range(3)))
        write(tmp_path / f"{file}.csv", header, cells)
        numbered = [(number, *row) for number, row in enumerate(cells)]
        write(tmp_path / f"{file}_id.csv", ("example", *header), numbered)
    for ending in ("", "_id"):
        before, same, after = (
            tmp_path / f"{name}{ending}.csv" for name in ("before", "same", "after")
        )
        assert "Between: churn" in command(capsys, "compare", before, same)[1]
        status, said = command(capsys, "compare", before, after)
        assert status == 2 and "text of example 0" in said and "what about thing 0" in said
    status, said = command(capsys, "compare", tmp_path / "before.csv", tmp_path / "same_id.csv")
    assert status == 2 and "a column of them in after, the order of rows in before" in said


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_without_the_letters_of_a_name_costs_no_report(tmp_path, encoding):
    """xinjli/allosaurus#73: the page is written first, and what a console lacks is escaped."""
    rows = [(i, "退货", "退货" if i % 5 else "🙂", "退货") for i in range(20)]
    write(tmp_path / "w.csv", ("example", "v1 → base", "v2 → 更新", "gold"), rows)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = ["report", "w.csv", "-o", "w.html", "--label", "v1 → base", "v2 → 更新"]
    folder = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "stabutils", *words],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": folder},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"v2 \\u2192 \\u66f4\\u65b0" in done.stdout and b"report: w.html" in done.stdout
    assert "v2 → 更新" in (tmp_path / "w.html").read_text(encoding="utf-8")


def test_a_console_that_fails_leaves_the_page(tmp_path, monkeypatch, capsys):
    rows = [(i, "a", "b" if i % 5 else "a") for i in range(20)]
    path = write(tmp_path / "w.csv", ("example", "run1", "run2"), rows)
    module = importlib.import_module("stabutils.reports.stability")
    monkeypatch.setattr(module, "print", lambda *_, **__: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        main.main(["report", str(path), "-o", str(tmp_path / "w.html")])
    assert (tmp_path / "w.html").exists()


PULL = 1.0


def pull(step):
    return PULL


@dataclass(frozen=True)
class Shrink(st.Mitigation):
    """Pulls logits to nothing, with the strength of a constant of the script."""

    def loss(self, forward, batch, inner):
        logits = forward()
        return inner(logits) + pull(0) * logits.square().mean()


def test_runs_of_a_helper_that_has_changed_do_not_come_back(tmp_path, monkeypatch):
    """joblib/joblib#1287, joblib/joblib#659."""
    dataset = str(tiny.project(tmp_path, monkeypatch))
    study = st.Study(dataset=dataset, runs=2, epochs=9, workers=1)
    monkeypatch.setattr(sys.modules[__name__], "PULL", 0.0001)
    weak = study.retrain(Shrink())
    assert study.plan(Shrink())["to train"] == 0
    monkeypatch.setattr(sys.modules[__name__], "PULL", 100.0)
    assert study.plan(Shrink())["to train"] == 2
    assert not np.array_equal(study.retrain(Shrink()).probabilities, weak.probabilities)


# ---- forms of files

LONG = [(run, i, f"text {i}", "ab"[(i + run) % 2]) for run in (1, 2) for i in range(4)]
HEADER = ("run", "example", "text", "label")


def test_a_named_index_of_parquet_is_a_column(tmp_path, monkeypatch):
    """Without pyarrow its absence is said."""
    tables = importlib.import_module("stabutils.data.tables")
    path = tmp_path / "p.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(st.InputError, match="p.parquet: got 'a Parquet file'.*pyarrow"):
        st.read_predictions(path)
    monkeypatch.setattr(tables, "find_spec", lambda name: name)
    frame = pd.DataFrame(LONG, columns=HEADER).set_index("example")
    monkeypatch.setattr(pd, "read_parquet", lambda file: frame)
    assert st.read_predictions(path).examples == ("0", "1", "2", "3")
    frame = pd.DataFrame(LONG, columns=HEADER).set_index(["run", "example"])
    assert st.read_predictions(path).runs == ("1", "2")
    frame = pd.DataFrame({"text": ["a", "b"] * 10, "label": ["x", "y"] * 10})
    assert len(st.load_dataset(path).train) == 14
    frame = frame.set_index("text", drop=False)  # a column and the index bear one name
    with pytest.raises(st.InputError, match="p.parquet: got 'cannot insert text"):
        st.load_dataset(path)


def test_a_corpus_is_read_from_any_form_of_table(tmp_path):
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(20)]
    csv_file = write(tmp_path / "c.csv", ("text", "label"), rows)
    text = csv_file.read_text(encoding="utf-8")
    (tmp_path / "c.tsv").write_text(text.replace(",", "\t"), encoding="utf-8")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(text.encode("utf-8")))
    expected = st.load_dataset(csv_file)
    for name in ("c.tsv", "c.csv.gz"):
        assert st.load_dataset(tmp_path / name).fingerprint == expected.fingerprint
        assert st.load_dataset(tmp_path / name).name == "c"
    (tmp_path / "cut.csv.gz").write_bytes((tmp_path / "c.csv.gz").read_bytes()[:40])
    with pytest.raises(st.InputError, match="cut.csv.gz: got .*compressed with gzip"):
        st.load_dataset(tmp_path / "cut.csv.gz")


ODD = [None, 3, 2.5, "x", b"x", [], {}, object(), [1], [[1, 2], [3]], [None, None], np.nan, float]


@pytest.mark.parametrize("value", ODD)
def test_a_value_of_any_type_is_refused_in_one_line(tmp_path, value):
    """Where a text, a list or a path belongs; whatever is taken for what it is may pass."""
    path = write(tmp_path / "p.csv", HEADER, LONG)
    labels = [["a", "b"], ["a", "a"]]
    attempts = [
        lambda: st.report(value),
        lambda: st.compare(value, labels),
        lambda: st.compare(labels, labels, seeds=value),
        lambda: st.read_predictions(value),
        lambda: st.read_predictions(path, value),
        lambda: st.read_predictions(path, {"label": value}),
        lambda: st.load_dataset(value),
    ]
    names = ("gold", "texts", "probabilities", "label_names", "weights", "identical_data")
    for name in (*names, "examples", "checkpoints", "run_names"):
        attempts.append(lambda name=name: st.report(labels, **{name: value}))
    for attempt in attempts:
        try:
            attempt()
        except st.InputError as error:
            assert "\n" not in str(error)

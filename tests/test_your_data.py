"""Corpora that nobody tuned for, from a file to a report and to notebooks."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stabutils as st
from stabutils import __main__ as main
from stabutils.analysis import enrichment, regions
from stabutils.analysis.baselines import linear_models


def mixed(
    classes: dict[str, str], each: int, length: int, gap: str = " ", seed: int = 0
) -> list[tuple[str, str]]:
    """Texts of a class: draws from its own words and from everybody's."""
    draw, rows = np.random.default_rng(seed), []
    every = sorted({word for words in classes.values() for word in words.split()})
    for label, words in classes.items():
        for _ in range(each):
            rows.append(
                (
                    gap.join([*draw.choice(words.split(), length), *draw.choice(every, length)]),
                    label,
                )
            )
    return rows


CORPORA = {
    "chinese": mixed(
        {
            "退货 / 退款": "退货 退款 不要了 寄回",
            "物流": "快递 包裹 到哪了 签收",
            "其他?": "你好 谢谢 在吗 人工",
        },
        40,
        3,
        gap="",
    ),
    "arabic": mixed({"نعم": "أريد موافق طبعا جيد", "لا": "أرفض مستحيل أبدا سيئ"}, 60, 3),
    "tiny": mixed(
        {
            "yes, please!": "sure yes fine",
            "=no": "never no stop",
            "<b>maybe</b>": "hm well perhaps",
            "I don't know; ask": "who what why",
        },
        5,
        2,
    ),
    "long": mixed({"one": "alpha beta gamma", "two": "delta epsilon zeta"}, 15, 2_000),
    "many": [
        (f"topic{c} word{w} word{(c * w) % 9}", f"class {c}: {'a/b'[c % 3]} {c % 7} %")
        for c in range(500)
        for w in range(4)
    ],
}


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name} texts & labels.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *CORPORA[name]])
    return path


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_nobody_tuned_for_gets_a_study(tmp_path, monkeypatch, name):
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    study = st.Study(dataset=str(write(tmp_path, name)), runs=3, epochs=2, workers=1)
    data, control = study.data, study.retrain("control")
    assert set(data.label_names) == {label for _, label in CORPORA[name]}
    assert control.labels.shape == (3, len(data.test)) and np.isfinite(control.probabilities).all()
    found = st.report(
        control.labels,
        control.gold,
        data.test.texts,
        control.probabilities,
        data.label_names,
        checkpoints=control.checkpoints,
    )
    page = found.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<b>maybe" not in page and found.to_csv(tmp_path / "q.csv").exists()
    assert st.compare(control, control).verdicts["churn"] == "does not hold"
    assert all(own.shape == control.gold.shape for own in linear_models(study).values())
    assert np.isfinite(
        enrichment.attributes(data.train.texts, data.train.labels, data.test.texts)
    ).all(axis=None)


@pytest.mark.parametrize("name", ["chinese", "arabic", "many"])
def test_texts_of_any_script_have_neighbours(name):
    """Texts of one class lie nearer to each other than chance has it, also without spaces."""
    texts, labels = zip(*CORPORA[name], strict=True)
    graph = regions.neighbours(regions.lsa(texts[::2], texts[1::2]), k=1)
    gold = np.array(labels)[1::2]
    nearest = np.asarray([gold[row] for row in graph.toarray().argmax(axis=1)])
    assert np.mean(nearest == gold) > 1.5 * max(np.unique(gold, return_counts=True)[1]) / len(gold)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chinese", "tiny"])
def test_notebook_01_on_it(tmp_path, monkeypatch, name):
    """As a newcomer calls it, the file named from where one is."""
    monkeypatch.chdir(tmp_path)
    given = [
        "-p",
        "dataset",
        write(tmp_path, name).name,
        "-p",
        "output",
        "out",
        "-p",
        "runs",
        "3",
        "-p",
        "epochs",
        "2",
    ]
    assert main.main(["run", "01", *given]) == 0
    record = json.loads(
        (tmp_path / "out" / "01_measuring_instability.json").read_text(encoding="utf-8")
    )
    [churn] = [
        each
        for each in record["numbers"]
        if each["metric"] == "churn" and not each.get("condition") and not each.get("arm")
    ]
    assert churn["runs"] == 3
    page = (tmp_path / "out" / "01_measuring_instability.html").read_text(encoding="utf-8")
    assert "<b>maybe" not in page and ("物流" in page or name == "tiny")


def test_notebook_06_on_predictions_named_from_where_one_is(tmp_path, monkeypatch):
    """One run with checkpoints, in another script, columns called otherwise."""
    monkeypatch.chdir(tmp_path)
    rows = [["seed", "epoch", "id", "answer", "text"]]
    rows += [
        ["7", str(step), str(i), "ab"[(i % 5 == 0) and step == 1], CORPORA["chinese"][i][0]]
        for step in (1, 2, 3)
        for i in range(40)
    ]
    with open("mine.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    given = [
        "-p",
        "predictions",
        "mine.csv",
        "-p",
        "columns",
        "checkpoint=epoch",
        "-p",
        "output",
        "out",
    ]
    assert main.main(["run", "08", *given]) == 0
    record = json.loads((tmp_path / "out" / "08_your_predictions.json").read_text(encoding="utf-8"))
    [changed] = [each for each in record["numbers"] if each["metric"] == "share_changed"]
    assert changed["value"] == pytest.approx(0.2)
    assert {claim["verdict"] for claim in record["claims"]} == {"cannot be tested here"}
    with open("out/queries.csv", encoding="utf-8", newline="") as file:
        ranked = sorted(csv.DictReader(file), key=lambda row: int(row["flip_rank"]))
    assert {int(row["example"]) % 5 for row in ranked[:8]} == {0}


# ---- exports of other tools, each by the line that the page shows

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your_data.md"


def shown(first: str) -> str:
    """The command of the page's table that stands beside a source."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {first}")]
    return line.split("`")[-2]


def shell(folder: Path, command: str) -> None:
    code = command.removeprefix('python -c "').removesuffix('"')
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def test_a_corpus_of_label_studio(tmp_path):
    rows = [(7, "2026-11-01", ("good", "bad")[i % 2], f"text, {i}") for i in range(20)]
    header = ("annotator", "created_at", "sentiment", "text")
    with open(tmp_path / "project.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    shell(tmp_path, shown("Label Studio"))
    data = st.load_dataset(tmp_path / "corpus.csv")
    assert data.label_names == ("bad", "good") and len(data.train) == 14


def test_a_corpus_of_rasa(tmp_path):
    examples = [{"text": f"你好 {i}", "intent": ("greet", "bye")[i % 2]} for i in range(20)]
    content = {"rasa_nlu_data": {"common_examples": examples}}
    (tmp_path / "nlu.json").write_text(json.dumps(content), encoding="utf-8")
    shell(tmp_path, shown("Rasa, after"))
    assert st.load_dataset(tmp_path / "corpus.json").label_names == ("bye", "greet")


def test_predictions_of_rasa(tmp_path):
    (tmp_path / "results").mkdir()
    for run in (1, 2):
        for part, wanted in (("successes", 0), ("errors", 1)):
            entries = [
                {
                    "text": f"hello {i}",
                    "intent": "greet",
                    "intent_prediction": {"name": ("greet", "bye")[wanted], "confidence": 0.9},
                }
                for i in range(12)
                if (i % (3 + run) == 0) == wanted
            ]
            path = tmp_path / "results" / f"intent_{part}.json"
            path.write_text(json.dumps(entries), encoding="utf-8")
        command = shown("Rasa, `rasa test").replace("'run': 1", f"'run': {run}")
        shell(tmp_path, command.replace("run1.csv", f"run{run}.csv"))
    assert shown("several such files") == "python -m stabutils report run1.csv run2.csv run3.csv"
    read = st.read_predictions([tmp_path / "run1.csv", tmp_path / "run2.csv"])
    assert read.labels.shape == (2, 12) and st.report(read).numbers["accuracy"].value > 0.6


def test_predictions_of_a_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [f"text {i}" for i in range(12)]
    for seed in range(3):

        def classifier(texts, seed=seed):
            return [{"label": "ab"[(i + seed) % 5 == 0], "score": 0.9} for i in range(len(texts))]

        names = {"pd": pd, "seed": seed, "texts": texts, "classifier": classifier}
        exec(shown("a `pipeline`"), names)
    assert st.read_predictions("predictions.csv").labels.shape == (3, 12)

"""Reports on predictions of any system: reading, numbers, the page, the command, comparisons."""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.numpy import save_file

from stabutils import __main__ as main
from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.intervals import (
    Interval,
    jackknife,
    jackknife_arms,
    jeffreys,
    over_examples,
    runs_needed,
    runs_to_detect,
)
from stabutils.reports import comparison
from stabutils.reports.comparison import compare
from stabutils.reports.gate import Check, PairGate, decisions, pass_chance
from stabutils.reports.reading import Predictions, read_predictions
from stabutils.reports.stability import report

module = importlib.import_module("stabutils.reports.stability")
SAMPLE = Path(__file__).parent.parent / "examples" / "predictions.csv"
LONG = (
    "run,example,label,gold,text\n1,a,yes,yes,is it?\n1,b,no,no,<b>no</b>\n"
    "2,a,yes,yes,is it?\n2,b,yes,no,<b>no</b>\n"
)


def answers(runs, examples=40, seed=0, noise=0.3, classes=4):
    rng = np.random.default_rng(seed)
    gold = rng.integers(classes, size=examples)
    labels = np.where(
        rng.random((runs, examples)) < noise, rng.integers(classes, size=(runs, examples)), gold
    )
    return labels, gold


def softmax(runs, examples=40, classes=4):
    scores = np.exp(np.random.default_rng(5).normal(size=(runs, examples, classes)))
    return scores / scores.sum(axis=2, keepdims=True)


def ends(interval):
    return [interval.value, interval.low, interval.high]


def write(folder, text, name="mine.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def run(*words):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.command(parser.parse_args(list(map(str, words))))


# ---- the numbers ----


def test_by_hand():
    found = report([["a", "b"], ["a", "b"], ["a", "c"]], ["a", "c"], label_names=("a", "b", "c"))
    values = {name: round(interval.value, 4) for name, interval in found.numbers.items()}
    assert values == {
        "churn": 0.3333,
        "label_entropy@3": 0.3183,
        "share_unstable@3": 0.5,
        "right_to_wrong": 0.3333,
        "wrong_to_wrong": 0.0,
        "accuracy": 0.6667,
        "kappa": 0.4545,
    }
    assert {interval.runs for interval in found.numbers.values()} == {3}
    table = found.examples
    assert table["answer"].tolist() == ["a", "b"] and table["votes"].tolist() == [3, 2]
    assert table["flip_probability"].round(4).tolist() == [0.0, 0.3333]
    assert table["flip_high"].tolist() == jeffreys([0, 1], 3)[1].tolist()
    assert table["flip_low"][0] == 0 and table["gold"].tolist() == ["a", "c"]


@pytest.mark.parametrize("runs", [3, 5, 6, 12])
def test_over_runs_the_intervals_are_those_of_the_plain_jackknife(runs):
    labels, gold = answers(runs)
    probabilities, weights = softmax(runs), np.arange(40.0)
    n, many = min(5, runs), min(10, runs)
    slow = {
        "churn": lambda a, p, g: metrics.churn(a),
        "churn_weighted": lambda a, p, g: np.average(metrics.disagreement(a), weights=weights),
        f"label_entropy@{n}": lambda a, p, g: metrics.label_entropy(a, min(n, len(a))).mean(),
        f"share_unstable@{many}": lambda a, p, g: metrics.share_unstable(a, min(many, len(a))),
        "right_to_wrong": lambda a, p, g: metrics.churn_parts(a, g)["right_to_wrong"],
        "wrong_to_wrong": lambda a, p, g: metrics.churn_parts(a, g)["wrong_to_wrong"],
        "accuracy": lambda a, p, g: metrics.accuracy(a, g).mean(),
        "kappa": lambda a, p, g: metrics.fleiss_kappa(a),
        "nll": lambda a, p, g: metrics.nll(p, g).mean(),
        "ece": lambda a, p, g: metrics.ece(p, g).mean(),
        "jensen_shannon": lambda a, p, g: metrics.jensen_shannon(p),
    }
    found = report(labels, gold, probabilities=probabilities, weights=weights).numbers
    assert set(found) == set(slow)
    for name, statistic in slow.items():
        expected = jackknife(statistic, labels, probabilities, examples=(gold,))
        interval = found[name]
        over_runs = interval if name == "jensen_shannon" else interval.over_runs
        assert interval.value == pytest.approx(expected.value, abs=1e-9), name
        assert (over_runs.se, over_runs.df) == pytest.approx((expected.se, expected.df)), name
        assert interval.se >= over_runs.se and interval.runs == runs
        whom = "new runs on these queries" if over_runs is interval else "new runs and new queries"
        assert interval.speaks_of == whom


@pytest.mark.parametrize("name", ["nll", "ece"])
def test_what_needs_probabilities_leaves_out_queries_too(name):
    """The two variances add up: of what one run says of one query nothing is taken off."""
    labels, gold = answers(6)
    probabilities, metric = softmax(6), getattr(metrics, name)
    interval = report(labels, gold, probabilities=probabilities).numbers[name]
    left = [np.delete(np.arange(40), query) for query in range(40)]
    deleted = [metric(probabilities[:, rest], gold[rest]).mean() for rest in left]
    expected = interval.over_runs.se**2 + plain.variance(deleted)
    assert interval.se**2 == pytest.approx(expected) and 0 < interval.low < interval.high
    two = report(labels[:2], gold, probabilities=probabilities[:2]).numbers[name]
    assert two.note == "these two models only" and two.low < two.value < two.high


def test_two_runs_have_an_interval_over_examples():
    labels, gold = answers(2)
    found = report(labels, gold, probabilities=softmax(2))
    assert {interval.note for interval in found.numbers.values()} == {"these two models only"}
    expected = over_examples(metrics.churn, labels)
    churn = found.numbers["churn"]
    assert ends(churn) == pytest.approx(ends(expected.within(0, 1))) and churn.df == 39
    assert found.numbers["label_entropy@2"].value == pytest.approx(
        metrics.churn(labels) * np.log(2)
    )
    assert (
        found.runs_needed == {}
        and "A third" in found.notes[0]
        and "these two models only" in found._repr_html_()
    )


def test_of_one_query_intervals_are_over_runs():
    labels, probabilities = np.array([[0], [1], [0], [2]]), softmax(4, examples=1, classes=3)
    found = report(labels, [0], probabilities=probabilities).numbers
    assert {each.speaks_of for each in found.values()} == {"new runs on these queries"}
    assert found["nll"].se == pytest.approx(jackknife(np.mean, metrics.nll(probabilities, [0])).se)
    compared = compare(labels, labels[::-1], [0])
    assert {each.speaks_of for each in compared.between.values()} == {"new runs on these queries"}
    with pytest.raises(InputError, match="queries: got 1; expected at least 2"):
        report(labels[:2])


def test_runs_that_all_agree():
    found = report([[0, 1], [0, 1], [0, 1]], [0, 1])
    assert ends(found.numbers["churn"]) == [0, 0, 0] and ends(found.numbers["kappa"]) == [1, 1, 1]
    assert found.runs_needed == {0.01: 2, 0.005: 2}
    assert "same answer to every query" in found._repr_html_()
    assert ends(report([[1, 1]] * 3).numbers["kappa"]) == [1, 1, 1]  # one label only


def test_runs_needed_grows_as_the_square():
    needed = report(*answers(10)).runs_needed
    assert needed[0.005] / needed[0.01] == pytest.approx(4, rel=0.1)


def test_the_plan_counts_what_more_runs_narrow():
    """Fails if the width that queries cause stands beside runs that would not narrow it."""
    found = report(*answers(10))
    churn, over_runs = found.numbers["churn"], found.numbers["churn"].over_runs
    halves = [50 * (each.high - each.low) for each in (over_runs, churn)]
    assert halves[0] < halves[1]
    assert (
        f"on these queries is known to ±{halves[0]:.2g} points; ±1 point needs " in found.notes[0]
    )
    assert f"With new queries as well it is known to ±{halves[1]:.2g} points." in found.notes[0]
    assert found.runs_needed[0.01] == runs_needed(over_runs, 0.01)


@pytest.mark.parametrize(
    "given_, thing",
    [
        ({"labels": [[0, 1]]}, "runs in labels"),
        ({"labels": [[0.5, 1], [0, 1]]}, "type of labels"),
        ({"labels": [0, 1]}, "shape of labels"),
        ({"labels": [[0], [0, 1]]}, "labels"),
        ({"labels": [[-1], [0]]}, "labels"),
        ({"labels": [["a", None], ["b", "a"]]}, "type of labels"),
        ({"labels": [[True], [False]]}, "type of labels"),
        ({"gold": [0]}, "gold"),
        ({"gold": ["a", "b"]}, "gold"),
        ({"texts": ["one"]}, "texts"),
        ({"texts": "ab"}, "texts"),
        ({"label_names": ["a"]}, "labels"),
        ({"weights": [1, -1]}, "weights"),
        ({"weights": [0, 0]}, "weights"),
        ({"probabilities": [[[1.0, 0.0]]]}, "shape of probabilities"),
        ({"identical_data": "yes"}, "identical_data"),
        ({"labels": [["a", "b"]] * 2, "label_names": ["a"]}, "labels"),
        ({"examples": [1]}, "examples"),
        ({"probabilities": [[[3.0, 0.0]] * 2] * 2}, "probabilities"),
        ({"probabilities": [[["a", "b"]] * 2] * 2}, "type of probabilities"),
        ({"probabilities": [[[0.5, 0.0]] * 2] * 2}, "row sum of probabilities"),
    ],
)
def test_what_cannot_be_reported_is_named(given_, thing):
    with pytest.raises(InputError) as caught:
        report(**{"labels": [[0, 1], [0, 1]], **given_})
    assert caught.value.thing == thing


def test_strings_and_integers_give_the_same():
    labels, gold = answers(4)
    words = np.array(["a", "b", "c", "d"])
    one, other = report(labels, gold), report(words[labels], words[gold])
    assert one.numbers == other.numbers
    assert [words[int(name)] for name in one.examples["answer"]] == other.examples[
        "answer"
    ].tolist()


# ---- reading ----


def test_long_form(tmp_path):
    found = read_predictions(write(tmp_path, LONG))
    assert found.labels.tolist() == [[1, 0], [1, 1]] and found.label_names == ("no", "yes")
    assert (
        found.gold.tolist() == [1, 0]
        and found.texts == ("is it?", "<b>no</b>")
        and found.examples == ("a", "b")
    )
    assert found.layout == (
        "long form, 2 runs x 2 examples (run: run; example: example; label: label; gold: gold; "
        "text: text)"
    )


def test_wide_form(tmp_path):
    found = read_predictions(
        write(
            tmp_path,
            "example,tag,run10,run2,note\n10,x,NA,None\n2,x,null,NA\n".replace(
                "None\n", "None,z\n"
            ).replace("NA\n", "NA,z\n"),
        )
    )
    assert np.array(found.label_names)[found.labels].tolist() == [["null", "NA"], ["NA", "None"]]
    assert found.runs == ("run10", "run2") and found.examples == ("2", "10")
    assert found.layout.endswith("not used: tag, note)")


def test_columns_are_mapped(tmp_path):
    wide = write(tmp_path, "id,old,new,truth\n1,a,a,a\n2,b,a,b\n")
    found = read_predictions(wide, {"label": ["old", "new"], "gold": "truth"})
    assert (
        found.runs == ("old", "new")
        and found.gold.tolist() == [0, 1]
        and found.labels.tolist() == [[0, 1], [0, 0]]
    )
    found = read_predictions(
        write(tmp_path, LONG.replace("run,example,label", "who,what,said")),
        {"run": "who", "example": "what", "label": "said"},
    )
    assert found.labels.tolist() == [[1, 0], [1, 1]]


def test_the_truth_is_not_taken_for_an_answer(tmp_path):
    """Fails if a column `label` beside one of predictions is read as the answers: churn of the
    truth is 0.
    """
    long = write(tmp_path, "run,example,label,prediction\n1,a,x,x\n1,b,x,x\n2,a,x,y\n2,b,x,x\n")
    found = read_predictions(long, {"label": "prediction", "gold": "label"})
    assert found.gold.tolist() == [0, 0] and report(found).numbers["churn"].value == 0.5
    wide = write(tmp_path, "example,label,prediction1,prediction2\na,x,x,y\nb,x,x,x\n")
    found = read_predictions(wide, {"gold": "label"})
    assert found.gold.tolist() == [0, 0] and report(found).numbers["accuracy"].value == 0.75


def test_weights_and_probabilities(tmp_path):
    text = "run,example,label,weight,p_b,p_a,p_c\n1,x,a,3,.25,.75,0\n1,y,b,1,1,0,0\n2,x,a,3,0,1,0\n2,y,a,1,.5,.5,0\n"
    found = read_predictions(write(tmp_path, text))
    assert found.label_names == ("a", "b", "c") and found.weights.tolist() == [3, 1]
    assert found.probabilities.tolist() == [
        [[0.75, 0.25, 0], [0, 1, 0]],
        [[1, 0, 0], [0.5, 0.5, 0]],
    ]
    numbers = report(found.labels, probabilities=found.probabilities, weights=found.weights).numbers
    assert numbers["churn"].value == 0.5 and numbers["churn_weighted"].value == 0.25
    with pytest.raises(InputError, match="there is no p_b"):
        read_predictions(write(tmp_path, text.replace("p_b", "q_b")))


def test_long_wide_and_arrays_give_one_report(tmp_path):
    labels, gold = answers(4, classes=12)
    long = "run,example,label,gold\n" + "".join(
        f"{r},{e},{labels[r, e]},{gold[e]}\n" for e in range(40) for r in (2, 0, 3, 1)
    )
    wide = "example,gold,run0,run1,run2,run3\n" + "".join(
        f"{e},{gold[e]},{','.join(map(str, labels[:, e]))}\n" for e in range(40)
    )
    save_file({"labels": labels, "gold": gold}, tmp_path / "b.safetensors")
    paths = [
        write(tmp_path, long, "l.csv"),
        write(tmp_path, wide, "w.csv"),
        tmp_path / "b.safetensors",
    ]
    reports = [
        report(p.labels, p.gold, label_names=p.label_names, examples=p.examples)
        for p in map(read_predictions, paths)
    ]
    for other in reports[1:]:
        assert other.numbers == reports[0].numbers
        pd.testing.assert_frame_equal(other.examples, reports[0].examples)
    np.save(tmp_path / "a.npy", labels)
    plain = read_predictions(tmp_path / "a.npy")
    assert report(plain.labels).numbers["churn"] == reports[0].numbers["churn"]


def test_arrays_of_probabilities_and_of_words(tmp_path):
    probabilities = softmax(3)
    np.save(tmp_path / "p.npy", probabilities)
    found = read_predictions(tmp_path / "p.npy")
    assert (
        np.array_equal(found.labels, probabilities.argmax(axis=2)) and len(found.label_names) == 4
    )
    np.save(tmp_path / "w.npy", [["a", "b"], ["c", "b"]])
    assert read_predictions(tmp_path / "w.npy").label_names == ("a", "b", "c")


def test_parquet(tmp_path, monkeypatch):
    path = write(tmp_path, b"PAR1", "mine.parquet")
    tables = importlib.import_module("stabutils.data.tables")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pyarrow"):
        read_predictions(path)
    monkeypatch.setattr(tables, "find_spec", lambda name: name)
    monkeypatch.setattr(pd, "read_parquet", lambda path: pd.read_csv(io.StringIO(LONG)))
    assert read_predictions(path).labels.tolist() == [[1, 0], [1, 1]]


MANY = "example,run1,run2\n" + "".join(f"{i},{i % 2},{'ab'[i % 2]}\n" for i in range(4))
DISJOINT = "example,run1,run2\n" + "".join(f"{i},y{i % 2},n{i % 2}\n" for i in range(20))


@pytest.mark.parametrize(
    "text, words",
    [
        (LONG + "2,b,no,no,<b>no</b>\n", "example 'b' of run '2': got '2 rows'"),
        (LONG.replace("2,b,yes,no,<b>no</b>\n", ""), "example 'b' of run '2': got 'no row'"),
        (LONG + "2,c,no,no,c\n", "example 'c' of run '1': got 'no row'"),
        (
            LONG.replace("2,a,yes,yes", "2,a,yes,no"),
            "line 4: gold of example 'a' of run '2': got 'no'",
        ),
        (LONG.replace("2,a,yes,yes,is it?", "2,a,yes,yes,other"), "text of example 'a'"),
        (
            LONG.replace("no,<b>", ",<b>"),
            "line 3: gold of example 'b' of run '1': got 'an empty cell'; expected",
        ),
        (
            LONG.replace("1,a,yes,", "1,a,,"),
            "mine.csv, line 2: label of example 'a' of run '1': got 'an empty",
        ),
        (
            LONG.replace("yes,no,<b>", "yes,,<b>"),
            "line 5: gold of example 'b' of run '2': got 'an e",
        ),
        ("example,run1,run2\na,x,x\nb,x,\n", "line 3: label of example 'b' of run 'run2': got 'an"),
        (
            "run,query,gold,predicted\n1,q,x,x\n2,q,x,y\n",
            "expected a column that tells the examples",
        ),
        ("example,run1,run2\na,x,x\na,x,y\n", "example 'a': got '2 rows'"),
        ("example,run1\na,x\nb,x\n", "runs in mine.csv: got 'no column of them"),
        ("run,example,label\n1,a,x\n1,b,x\n", "runs in mine.csv: got 1"),
        (
            MANY,
            "labels of run 'run1': got ['0', '1']; expected the encoding of the others, such "
            "as ['a', 'b']",
        ),
        (DISJOINT, "labels of run 'run1'"),
        (LONG.replace(",yes,yes", ",yes,1").replace("no,<b>", "0,<b>"), "labels of gold"),
        ("", "file that is not empty"),
        ("run,example,label\n", "rows below the header"),
        (LONG.encode() + b"3,\xe9,yes,yes,x\n", "mine.csv, line 6: got 'byte 0xe9'"),
        (LONG.encode("utf-16"), "UTF-8"),
        (LONG + "3,\0,a,a,a\n", "line 6: got 'byte 0x00'"),
        (LONG + "3,a\n", "mine.csv, line 6: got '2 cells'; expected 5"),
        (LONG + '3,a,"x\n', "mine.csv, line 6"),
        (LONG.replace("gold", "run"), "header of mine.csv"),
        (
            LONG.replace("run", "who"),
            "runs in mine.csv: got 'no column of them: who, example, label, gold, text'",
        ),
        (
            "run,example,label,prediction\n1,a,x,x\n2,a,x,y\n",
            "got 'prediction, label'; expected told apart: which are answers, and which the truth? "
            'As in --columns "label=prediction, gold=label"',
        ),
        (
            "example,label,prediction1,prediction2\na,x,x,y\n",
            "got 'label, prediction1, prediction2'; expected told apart",
        ),
        ("run,example,label,weight\n1,a,x,1\n2,a,x,much\n", "weight of example 'a'"),
        (
            "run,example,label,weight\n1,a,x,much\n2,a,x,much\n",
            "mine.csv, line 2: weight: got 'much'",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        read_predictions(write(tmp_path, text))


SEEN = "run,checkpoint,example,label,gold\n" + "".join(
    f"0,{step},{example},{label},x\n"
    for example, answers in (("a", "xxx"), ("b", "xyy"), ("c", "yxz"))
    for step, label in zip(("10", "2", "9.5"), answers, strict=True)
)
TWO_TO_ONE = -(np.log(1 / 3) + 2 * np.log(2 / 3)) / 3  # entropy of three answers, two of them alike


def test_checkpoints_of_one_run_rank_the_queries(tmp_path):
    """The last checkpoint by number, 10 and not 9.5, is the answer."""
    read = read_predictions(write(tmp_path, SEEN))
    names = np.array(read.label_names)
    assert names[read.labels].tolist() == [["x", "x", "y"]]
    assert names[read.checkpoints[0]].tolist() == [
        ["x", "y", "x"],
        ["x", "y", "z"],
        ["x", "x", "y"],
    ]
    found = report(read)
    assert found.alone and set(found.numbers) == {"share_changed", "checkpoint_entropy", "accuracy"}
    assert found.numbers["share_changed"].value == pytest.approx(2 / 3)
    assert found.examples["checkpoint_entropy"].tolist() == pytest.approx(
        [0, TWO_TO_ONE, np.log(3)]
    )
    assert found.examples["flip_rank"].tolist() == [3, 2, 1]
    assert found.worst(1)["answers"].tolist() == ["x ×1, y ×1, z ×1"]
    page = found.to_html(tmp_path / "one.html").read_text(encoding="utf-8")
    assert "most likely to flip" in page and page.count("<img") == 1 and "this run only" in page
    doubt = np.array([[[0.4, 0.3, 0.3], [0.9, 0.1, 0], [0.2, 0.8, 0]]])
    sure = report(read.labels, probabilities=doubt, checkpoints=read.checkpoints)
    assert sure.examples["flip_rank"].tolist() == [1, 3, 2]


def test_the_rank_is_that_of_each_query_and_not_the_order_of_queries():
    """Rankings that are no inverse of themselves: the second query is first, then the third."""
    checkpoints = [[[0, 0, 0], [0, 1, 1], [0, 2, 1]]]
    found = report([[0, 2, 1]], checkpoints=checkpoints)
    assert found.examples["checkpoint_entropy"].tolist() == pytest.approx(
        [0, np.log(3), TWO_TO_ONE]
    )
    assert found.examples["flip_rank"].tolist() == [3, 1, 2]
    assert found.worst()["example"].tolist() == [1, 2, 0]
    certain = [0.05, 0.4, 0.9, 0.5]  # uncertainty, whatever the entropies are
    probabilities = [[[1 - each, each / 2, each / 2] for each in certain]]
    found = report(
        [[0, 0, 1, 0]], probabilities=probabilities, checkpoints=[[[0, 1, 1, 0], [0, 0, 1, 0]]]
    )
    assert found.examples["flip_rank"].tolist() == [4, 3, 1, 2]


def test_checkpoints_of_several_runs_leave_churn_alone(tmp_path):
    text = SEEN + SEEN.partition("\n")[2].replace("0,", "1,").replace("11,", "10,").replace(
        "1,10,c,y", "1,10,c,x"
    )
    found, plain = (
        report(read_predictions(write(tmp_path, text))),
        report([[0, 0, 1], [0, 0, 0]], [0, 0, 0]),
    )
    assert found.numbers["churn"] == plain.numbers["churn"] and "flip_rank" not in found.examples
    entropies = [0, TWO_TO_ONE, np.log(3), 0, TWO_TO_ONE, TWO_TO_ONE]
    assert found.numbers["checkpoint_entropy"].value == pytest.approx(np.mean(entropies))


@pytest.mark.parametrize(
    "text, words",
    [
        (SEEN.replace("0,2,a,x,x\n", ""), "example 'a' of run '0, checkpoint 2': got 'no row'"),
        (SEEN.replace("0,2,", "0,last,"), "mine.csv, line 3: checkpoint: got 'last'"),
        (
            "".join(line for line in SEEN.splitlines(True) if not line.startswith(("0,2", "0,9"))),
            "a column checkpoint",
        ),
    ],
)
def test_checkpoints_that_cannot_be_read_are_named(tmp_path, text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        read_predictions(write(tmp_path, text))


def test_checkpoints_must_fit_the_labels():
    for checkpoints in ([[[0, 1]]], [[0, 1]], [[[0], [1]]]):
        with pytest.raises(InputError, match="shape of checkpoints"):
            report([[0, 1]], checkpoints=checkpoints)


def test_a_planted_region_is_on_the_page_and_scattered_flips_are_not(tmp_path):
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice([f"{topic}{i}" for i in range(8)], 4, replace=False))
        for topic in ("bank", "lamp", "rain", "song", "taxi")
        for _ in range(40)
    ]
    labels = np.zeros((6, 200), int)
    labels[:, :40] = rng.integers(2, size=(6, 40))  # everything about banks
    labels[:, 7] = [0, 1, 2, 0, 1, 2]  # the most unstable of all, so it is the region's example
    texts[7] = f"<script>{texts[7]}</script>"
    found = report(labels, texts=texts, label_names=["<i>a</i>", "b", "c"])
    assert "bank" in found.regions()["words"][0] and found.regions()["queries"].sum() >= 20
    page = found.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Where they gather" in page and "<i>a" not in page
    assert texts[7] in set(found.regions()["example"]) and "<script>" not in page
    gathered = page.partition("Where they gather")[2]
    assert f"<bdi>&lt;script&gt;{texts[7][8:-9]}&lt;/script&gt;</bdi>" in gathered
    scattered = report(labels[:, rng.permutation(200)], texts=texts)
    assert scattered.regions().empty and "No region of the texts was found" in scattered.to_html(
        tmp_path / "s.html"
    ).read_text(encoding="utf-8")
    four = report(labels[:4], texts=texts)  # too few to choose by some and describe by others
    assert four.regions()[
        "queries"
    ].sum() >= 20 and "Chosen and described by the same runs" in four.to_html(
        tmp_path / "f.html"
    ).read_text(encoding="utf-8")
    for few in (["", "!", "?"], ["same"] * 3, ["a", "b", "c"]):  # nothing to compare texts by
        assert report([[0, 1, 0], [1, 1, 1], [0, 0, 1]], texts=few).regions().empty


def test_figures_are_shown_by_name(capsys):
    report([[0, 1], [1, 1]]).show("accuracy-and-churn")
    assert "it needs three runs or more, and gold labels" in capsys.readouterr().out


def test_columns_as_text(tmp_path):
    path = write(tmp_path, "id,old,new,truth\n1,a,a,a\n2,b,a,b\n")
    assert read_predictions(path, "label=old new, gold=truth").gold.tolist() == [0, 1]
    with pytest.raises(InputError, match="role=column"):
        read_predictions(path, "label")


def test_columns_and_files_that_do_not_exist(tmp_path):
    path = write(tmp_path, LONG)
    with pytest.raises(
        InputError, match="column for gold: got 'truth'.*run, example, label, gold, text"
    ):
        read_predictions(path, {"gold": "truth"})
    with pytest.raises(InputError, match="role of a column: got 'labl'"):
        read_predictions(path, {"labl": "label"})
    with pytest.raises(InputError, match=r"columns for example: got \['example', 'text'\].*one"):
        read_predictions(path, "example=example text")
    for name, says in (
        ("none.csv", "a file that exists"),
        ("mine.xlsx", "others saved as CSV"),
    ):
        with pytest.raises(InputError, match=says):
            read_predictions(tmp_path / name)


def test_separators_of_other_countries_are_read(tmp_path):
    expected = read_predictions(write(tmp_path, LONG)).labels.tolist()
    for mark in ";\t|":
        assert (
            read_predictions(write(tmp_path, LONG.replace(",", mark))).labels.tolist() == expected
        )
    with pytest.raises(InputError, match="';' between cells"):
        read_predictions(write(tmp_path, LONG.replace(",", ";") + '3;"a'))


@pytest.mark.parametrize("column", ["", "idx", "index", "row", "nr", "Unnamed: 0"])
def test_files_of_one_run_each_are_joined_by_the_column_that_names_their_rows(tmp_path, column):
    """Fails if rows of another order are held against each other, as if all had flipped."""
    orders, answers = (range(12), (5, 0, 9, 2, 11, 7, 1, 3, 10, 4, 8, 6)), "abcabbcaacbc"
    paths = []
    for run, order in enumerate(orders):
        rows = "".join(f"{i},{answers[i]}\n" for i in order)
        paths.append(write(tmp_path, f"{column},label\n{rows}", f"run{run}.csv"))
    read = read_predictions(paths)
    assert metrics.churn(read.labels) == 0 and not read.numbered


def test_files_whose_indices_name_no_common_rows_are_joined_by_position(tmp_path):
    """A long table that was cut into runs: its index goes on."""
    texts = ["idx,label\n0,a\n1,b\n2,b\n", "idx,label\n3,a\n4,a\n5,b\n"]
    paths = [write(tmp_path, text, f"{i}.csv") for i, text in enumerate(texts)]
    read = read_predictions(paths)
    assert read.labels.tolist() == [[0, 1, 1], [0, 0, 1]] and read.numbered
    shifted = write(tmp_path, "idx,label\n1,b\n2,b\n3,a\n", "2.csv")
    with pytest.raises(
        InputError, match="'idx' of 0.csv or 2.csv: got '0'; expected the same rows"
    ):
        read_predictions([paths[0], shifted])
    for other in ("2.0,b\n1.0,b\n0.0,a", "02,b\n01,b\n00,a", "r1,b\nr2,b\nr3,a"):
        written = write(tmp_path, f"idx,label\n{other}\n", "3.csv")
        with pytest.raises(
            InputError, match="no row|the same rows"
        ):  # other spellings are no other rows
            read_predictions([paths[0], written])
    ids = write(tmp_path, "example,run1,run2\n0,b,b\n1,a,a\n2,a,b\n", "after.csv")
    with pytest.raises(InputError, match="the order of rows in before"):
        compare(read, read_predictions(ids))


def test_one_file_for_each_run(tmp_path, capsys):
    rows = ("x,x,hm\n", "y,x,hm\n", "y,y,oh\n")
    texts = [[rows[0], rows[2]], [rows[1], rows[2]], [rows[0], rows[2]]]
    paths = [
        write(tmp_path, "".join(["label,gold,text\n", *lines]), f"old{i}.csv")
        for i, lines in enumerate(texts)
    ]
    read = read_predictions(paths)
    assert read.labels.tolist() == [[0, 1], [1, 1], [0, 1]]
    assert read.runs == ("old0", "old1", "old2") and read.texts == ("hm", "oh")
    assert run(*paths, "-o", tmp_path / "r.html") == 0
    assert "3 runs x 2 examples (run: file name;" in capsys.readouterr().out
    named = [f"run,example,label\n{i},b,x\n{i},a,{i}\n" for i in "12"]
    files = [write(tmp_path, text, f"{i}.csv") for i, text in enumerate(named)]
    assert read_predictions(files).runs == ("1", "2")  # as the files say themselves
    with pytest.raises(
        InputError, match="columns of 0.csv: .* those of old0.csv: label, gold, text"
    ):
        read_predictions([paths[0], files[0]])
    with pytest.raises(InputError, match="of different names"):
        read_predictions([paths[0], paths[0]])
    for text, says in (
        ("label,gold,text\nx,x,hm\n", "example '1' of run 'old1': got 'no row'"),
        ("label,gold,text\nx,x,other\ny,y,oh\n", "old1.csv, line 2: text of example '0' of run"),
        ("label,gold,text\ny,y,oh\nx,,hm\n", "old1.csv, line 3: gold of example '1': got 'an e"),
    ):
        paths[1].write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=says):
            read_predictions(paths)


def test_arrays_that_cannot_be_read(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([["a", {}]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "one.npy", np.zeros((1, 5), int))
    np.save(tmp_path / "four.npy", np.zeros((2, 2, 2, 2), int))
    np.save(tmp_path / "counts.npy", np.zeros((2, 2, 2), int))
    write(tmp_path, b"\x93NUMPY", "cut.npy")
    write(tmp_path, b"12345678901", "cut.safetensors")
    save_file({"x": np.zeros(2), "y": np.zeros(2)}, tmp_path / "other.safetensors")
    for name, words in {
        "objects.npy": "pickled",
        "one.npy": "runs in one.npy: got 1",
        "four.npy": "shape of labels",
        "counts.npy": "probabilities in counts.npy",
        "cut.npy": "pickled",
        "cut.safetensors": "safetensors",
        "other.safetensors": "arrays in other",
    }.items():
        with pytest.raises(InputError, match=words):
            read_predictions(tmp_path / name)
    with pytest.raises(InputError, match="holds arrays"):
        read_predictions(tmp_path / "one.npy", {"run": "r"})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(some.integers(2, 5), some.integers(2, 12), some.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(tmp_path_factory, runs, examples, random):
    rows = [
        [f"run {r}", f"e{e}", random.choice("abc"), "abc"[e % 3]]
        for r in range(runs)
        for e in range(examples)
    ]
    found = []
    for name in ("one.csv", "other.csv"):
        text = io.StringIO()
        csv.writer(text).writerows([["run", "example", "label", "gold"], *rows])
        p = read_predictions(write(tmp_path_factory.getbasetemp(), text.getvalue(), name))
        found.append(report(p.labels, p.gold, label_names=p.label_names, examples=p.examples))
        random.shuffle(rows)
    assert found[0].numbers == found[1].numbers
    pd.testing.assert_frame_equal(found[0].examples, found[1].examples)
    labels = np.array(
        [row[2] for row in sorted(rows, key=lambda row: (row[0], int(row[1][1:])))]
    ).reshape(runs, -1)
    pairs = [(a != b).mean() for i, a in enumerate(labels) for b in labels[:i]]
    assert found[0].numbers["churn"].value == pytest.approx(np.mean(pairs))


# ---- page, table, command ----


def test_page_says_whom_its_intervals_speak_of_and_how_many_queries_it_leaves_out():
    labels = np.zeros((3, 40), int)
    labels[0, :22] = 1
    page = report(labels)._repr_html_()
    assert "95 % intervals: they speak of new runs and new queries." in page
    assert "7 more unstable queries are not shown; the option --csv" in page  # 22 less 15
    assert "not shown" not in report(labels[:, 10:])._repr_html_()


def test_page_escapes_what_the_data_says(tmp_path):
    evil = "<script>alert(1)</script>"
    found = report(
        [[evil, "a"], ['b" onload=x', "a"], [evil, "a"]], texts=[evil, "x"], examples=[evil, "y"]
    )
    page = found.to_html(tmp_path / "r.html", evil).read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "onload=x" in page
    assert not re.search(r'(src|href)="(?!data:image/svg)', page)
    assert "<script" not in found._repr_html_() and "<html" not in found._repr_html_()
    assert all(re.findall(r'<img alt="([^"]+)"', page))


def test_page_in_other_scripts(tmp_path):
    found = report(
        [["音楽", "да"], ["ニュース", "да"], ["音楽", "да"]], texts=["曲をかけて $x$ $", "привет"]
    )
    page = found.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert (
        "曲をかけて" in page and page.count("<img") == 4
    )  # answers, entropies, pairs, runs needed; no gold


def test_table_for_spreadsheets(tmp_path):
    texts = ["=1+1", "+1", "-5 degrees", "@x", "\tx", "fine, really"]
    found = report(np.zeros((3, 6), int), texts=texts, label_names=["=cmd"])
    table = pd.read_csv(found.to_csv(tmp_path / "t.csv"), dtype=str)
    assert table["text"].tolist() == ["'=1+1", "'+1", "'-5 degrees", "'@x", "'\tx", "fine, really"]
    assert set(table["answer"]) == {"'=cmd"} and found.examples["text"][0] == "=1+1"
    with pytest.raises(InputError, match="output: got"):
        found.to_csv(tmp_path / "none" / "t.csv")


def test_command_on_the_sample(tmp_path, capsys):
    assert (
        run(
            SAMPLE,
            "-o",
            tmp_path / "r.html",
            "--csv",
            tmp_path / "q.csv",
            "--identical-data",
            "yes",
        )
        == 0
    )
    said = capsys.readouterr().out
    assert said.startswith("long form, 5 runs x 200 examples (run: run; ")
    assert str(tmp_path / "r.html") in said and "so churn is what the randomness" in said
    read = read_predictions(SAMPLE)
    assert f"Churn                     {100 * metrics.churn(read.labels):.1f} %" in said
    assert len(pd.read_csv(tmp_path / "q.csv")) == 200
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<img") == 5 and "predictions.csv" in page


def test_of_two_releases_the_weightiest_change_comes_first_with_both_answers(tmp_path):
    path = write(
        tmp_path, "example,v1.0,v2.0,gold,traffic\na,x,y,z,1\nb,x,x,x,9\nc,x,y,x,1\nd,y,x,z,5\n"
    )
    read = read_predictions(path, {"label": ["v1.0", "v2.0"]})
    found = report(read)
    assert found.runs == ("v1.0", "v2.0") and found.worst()["example"].tolist() == ["d", "c", "a"]
    table = pd.read_csv(found.to_csv(tmp_path / "q.csv"))
    assert (
        table["example"].tolist() == ["d", "c", "a", "b"]
        and table["answers"][1] == "v1.0: x, v2.0: y"
    )
    page = found.to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    assert (
        "Churn by weight</span>" in page and page.count("<img") == 2
    )  # answers and pairs; two runs are one pair


def test_equal_votes_are_told_apart_by_weight_not_by_rounding():
    labels = np.array([[0] * 6 + [1] * 4, [0] * 4 + [1] * 6]).T
    for weights, first in (((9, 1), 0), ((1, 9), 1)):
        assert report(labels, weights=weights).worst(1).index[0] == first


def test_more_runs_than_queries_are_questioned_and_no_interval_is_impossible():
    rows = [[0, 1], [0, 2], [1, 2]]
    assert any("other way round" in note for note in report(rows).notes)
    assert not any("other way round" in note for note in report(rows[:2]).notes)
    tiny = report([["x", "x", "z"], ["y", "x", "z"]]).summary()
    assert "-" not in tiny.split("Fleiss")[0].replace("Jensen-Shannon", "") and "1.000]" in tiny


def test_checkpoints_without_a_run_are_those_of_one(tmp_path):
    read = read_predictions(
        write(tmp_path, "checkpoint,example,label\n1,a,x\n2,a,y\n1,b,x\n2,b,x\n")
    )
    assert read.labels.tolist() == [[1, 0]] and read.checkpoints.tolist() == [[[0, 0], [1, 0]]]
    assert report(read).alone


def test_command_guards_a_release(tmp_path, capsys):
    churn = report(read_predictions(SAMPLE).labels).numbers["churn"]
    words = [SAMPLE, "-o", tmp_path / "r.html", "--max-churn"]
    assert (
        run(*words, max(0, churn.low - 0.001)) == 1 and "FAILED: all of" in capsys.readouterr().out
    )
    assert run(*words, churn.value) == 0
    assert "undecided, which passes without --strict: at 5 runs 17.5 %" in capsys.readouterr().out
    assert run(*words, churn.high + 0.001) == 0 and "passed: nothing of" in capsys.readouterr().out
    with pytest.raises(InputError, match="--max-churn"):
        run(*words, 5)
    assert run(*words, churn.value, "--strict") == 1
    assert "undecided, which --strict fails: at 5 runs 17.5 %" in capsys.readouterr().out
    assert run(*words, churn.high + 0.001, "--strict") == 0


def test_no_change_seen_on_few_queries_passes_no_tight_limit(tmp_path, capsys):
    """Fails if ten equal answers count as proof: up to 21.7 % of churn goes with them (Jeffreys, 95
    %).
    """
    still = write(tmp_path, "example,run1,run2\n" + "".join(f"{i},a,a\n" for i in range(10)))
    assert run(still, "-o", tmp_path / "r.html", "--max-churn", 0.05) == 0
    said = capsys.readouterr().out
    assert "undecided" in said and "with 10 of them churn could still be as high as 22 %" in said
    assert run(still, "-o", tmp_path / "r.html", "--max-churn", 0.05, "--strict") == 1
    assert run(still, "-o", tmp_path / "r.html", "--max-churn", 0.22) == 0
    assert "passed" in capsys.readouterr().out


def test_two_versions_say_what_was_fixed_and_what_regressed():
    old, new, gold = [0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]  # two fixed, one not
    found = report([old, new], gold, run_names=["v1", "v2"])
    assert (
        found.notes[-1].startswith("From v1 to v2: accuracy 60.0 %")
        and "to 80.0 %" in found.notes[-1]
    )
    fixed, regressed = found.notes[-1].split("; ")[1].split("became right (positive flips), ")
    assert fixed.startswith("40.0 % ") and regressed.startswith("20.0 % ")
    assert "became wrong (negative flips)." in regressed
    assert regressed.endswith("p = 0.62.")  # of 3, 1 or 2 fixed: 1 - (3/8) counted half twice
    assert "another run leaves" not in found._repr_html_()
    assert "another run leaves" in report([old, new, old], gold)._repr_html_()
    assert "No query changed" in report([old, old], gold).notes[0]


def test_command_on_one_run(tmp_path, capsys):
    path = write(tmp_path, SEEN.replace("checkpoint", "epoch"))
    assert (
        run(path, "--checkpoint", "epoch", "-o", tmp_path / "r.html", "--csv", tmp_path / "q.csv")
        == 0
    )
    assert "1 run, 3 checkpoints, 3 queries" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "q.csv")
    assert table["flip_rank"].tolist() == [1, 2, 3] and table["answers"].str.contains("×").all()
    with pytest.raises(InputError, match="--max-churn"):
        run(path, "--checkpoint", "epoch", "-o", tmp_path / "r.html", "--max-churn", 0.1)


def test_command_maps_columns(tmp_path, capsys):
    path = write(tmp_path, "id,old,new\n1,a,a\n2,b,a\n")
    assert run(path, "--label", "old", "new", "-o", tmp_path / "r.html") == 0
    assert (
        "wide form, 2 runs x 2 examples (example: id; label: old, new)" in capsys.readouterr().out
    )


@pytest.mark.parametrize("instead", ["old.csv", Path("old.csv"), pd.DataFrame({"run": [1, 2]})])
def test_a_file_or_table_in_the_place_of_labels_is_told_where_to_go(instead):
    for ask in (lambda: report(instead), lambda: compare(instead, instead)):
        with pytest.raises(InputError, match=r"st.read_predictions\(path\)"):
            ask()


def test_needs_no_torch():
    code = (
        "import sys, stabutils.reports.stability, stabutils.reports.comparison; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=SAMPLE.parent.parent).returncode == 0


# ---- comparing ----


def test_compare_with_the_plain_jackknife():
    (before, gold), (after, _) = answers(6), answers(7, noise=0.1)
    found = compare(before, after, gold)
    seeds = [np.arange(6), 6 + np.arange(7)]
    expected = plain.interval(
        lambda old, new: new - old, metrics.disagreement, [before, after], seeds
    )
    plain.alike(found.difference["churn"], expected)
    entropy = {
        name: metrics.label_entropy(labels, 5).mean()
        for name, labels in (("b", before), ("a", after))
    }
    assert found.difference["label_entropy@5"].value == pytest.approx(entropy["a"] - entropy["b"])
    assert found.before["label_entropy@5"].value == pytest.approx(entropy["b"])
    expected = metrics.churn_between(before, after, gold)
    assert {name: part.value for name, part in found.between.items()} == pytest.approx(expected)
    for name, part in found.between.items():

        def share(old, new, right, name=name):
            return metrics.churn_between(old, new, right)[name]

        over_runs = jackknife_arms(share, [before, after], seeds, examples=(gold,))
        left = [np.delete(np.arange(40), query) for query in range(40)]
        deleted = [share(before[:, rest], after[:, rest], gold[rest]) for rest in left]
        assert part.over_runs.se == pytest.approx(over_runs.se)
        assert part.se**2 == pytest.approx(over_runs.se**2 + plain.variance(deleted))
    assert found.stability == found.guard == found.verdict == "holds"
    assert "After is more stable: holds" in found.summary()


def test_compare_pairs_by_seed():
    before, gold = answers(5)
    same = compare(before, before, gold, seeds=(range(5), range(5)))
    assert (
        ends(same.difference["churn"]) == pytest.approx([0, 0, 0], abs=1e-12)
        and same.verdict == "does not hold"
    )
    apart = compare(before, before, gold)
    assert apart.difference["churn"].high > 0 and apart.verdict == "undecided at 5 runs"
    for seeds in ((range(4), range(5)), ([1] * 5, range(5))):
        with pytest.raises(InputError, match="seeds"):
            compare(before, before, gold, seeds=seeds)


def test_compare_guards_accuracy():
    before, gold = answers(6)
    constant = np.zeros_like(before)  # perfectly stable, and useless
    found = compare(before, constant, gold)
    assert (
        found.stability == "holds"
        and found.guard == "does not hold"
        and found.verdict == "does not hold"
    )
    blind = compare(before, constant)
    assert (
        blind.guard == "cannot be tested here"
        and blind.verdict == "holds"
        and "not guarded" in str(blind)
    )
    assert list(blind.between) == ["churn"]


def test_compare_two_releases():
    found = compare(
        [["a", "b", "b"], ["a", "a", "b"]], [["a", "b", "c"], ["a", "b", "c"]], ["a", "b", "c"]
    )
    assert found.difference["churn"].note == "these two models only"
    assert found.summary().count("these two models only") == 1
    assert {name: round(part.value, 3) for name, part in found.between.items()} == {
        "churn": 0.5,
        "positive_flips": 0.5,
        "negative_flips": 0.0,
        "wrong_to_wrong": 0.0,
    }
    assert {name: round(part.value, 3) for name, part in found.difference.items()} == {
        "churn": -0.333,
        "label_entropy@2": round(-np.log(2) / 3, 3),
        "right_to_wrong": -0.333,
        "wrong_to_wrong": 0.0,
        "accuracy": 0.5,
    }


def test_of_two_releases_of_two_runs_the_sign_tells_which_is_more_stable():
    """Fails if the difference is the wrong way round where intervals are over queries alone."""
    rng = np.random.default_rng(0)
    gold = np.zeros(200, int)
    wild, calm = ((rng.random((2, 200)) < flip).astype(int) for flip in (0.4, 0.02))
    better, worse = compare(wild, calm, gold), compare(calm, wild, gold)
    assert better.difference["churn"].high < 0 < worse.difference["churn"].low
    assert (better.stability, worse.stability) == ("holds", "does not hold")
    assert better.difference["accuracy"].low > 0.2 and better.verdict == "holds"
    assert worse.guard == worse.verdict == "does not hold"
    for name, one in better.difference.items():
        other = worse.difference[name]
        assert (one.value, one.low, one.high) == pytest.approx(
            (-other.value, -other.high, -other.low)
        )
    gaps = (calm == 0).mean(axis=0) - (wild == 0).mean(axis=0)
    assert better.difference["accuracy"].value == pytest.approx(gaps.mean())
    assert better.difference["accuracy"].df == 199  # queries less one


@pytest.mark.parametrize("lost, guard", [
    (0, "holds"), (4, "holds"), (5, "does not hold"), (6, "does not hold"), (-4, "holds"),
])  # fmt: skip
def test_half_a_point_of_accuracy_may_be_lost_and_no_more(monkeypatch, lost, guard):
    """Of a thousand queries; fails if the guard lies at 0 or on the other side of it."""
    gold = np.zeros(1000, int)
    before = np.tile(np.where(np.arange(1000) < 100, 1, 0), (3, 1))
    after = np.tile(np.where(np.arange(1000) < 100 + lost, 1, 0), (3, 1))
    before[0, 500:520] = 1  # something that changes by the seed
    before[1, 520:540] = before[2, 540:560] = 1
    after[:, 500:560] = before[:, 500:560]
    exact = importlib.import_module("stabutils.reports.comparison").scores
    plain_compare = exact.compare

    def without_width(function, scores, seeds=None):
        interval = plain_compare(function, scores, seeds)
        return replace(interval, low=interval.value, high=interval.value)

    monkeypatch.setattr(exact, "compare", without_width)
    assert compare(before, after, gold).guard == guard


def test_compare_files_pairs_runs_by_name_and_queries_by_id(tmp_path, capsys):
    (before, gold), (after, _) = answers(5, seed=1), answers(5, seed=1, noise=0.1)
    words, rows = np.array(["b", "a", "c", "d"]), "run,example,label,gold\n"
    for name, labels, order in (("old", before, range(40)), ("new", after, range(39, -1, -1))):
        write(
            tmp_path,
            rows
            + "".join(
                f"s{r},{e},{words[labels[r, e]]},{words[gold[e]]}\n"
                for e in order
                for r in range(5)
            ),
            f"{name}.csv",
        )
    old, new = (read_predictions(tmp_path / f"{name}.csv") for name in ("old", "new"))
    found, plain = compare(old, new), compare(before, after, gold, seeds=(range(5), range(5)))
    one_seed = (
        "runs of the same name in both files share a seed, it is assumed: s0, s1, s2, s3, s4 "
        "(Between counts each run before beside each run after, also beside the one of the same name)"
    )
    assert (
        str(found) == f"{old.layout}\n{new.layout}\n{one_seed}\n{plain}"
        and found.verdicts["churn"] == "holds"
        and found.verdicts["accuracy"] == found.guard
    )
    assert main.main(["compare", str(tmp_path / "old.csv"), str(tmp_path / "new.csv")]) == 0
    assert capsys.readouterr().out.strip() == str(found)
    other = Predictions(
        new.labels, new.label_names, new.runs, ("x", *new.examples[1:]), "", new.gold
    )
    for wrong, thing in (
        (other, "examples of before and after"),
        (
            Predictions(
                new.labels, new.label_names, new.runs, new.examples, "", 1 - new.gold.clip(0, 1)
            ),
            "gold labels of after",
        ),
    ):
        with pytest.raises(InputError, match=thing):
            compare(old, wrong)


@pytest.mark.parametrize(
    "before, after, thing",
    [
        ([0, 1], [[0, 1]] * 2, "shape of before"),
        ([[0, 1]] * 2, [0, 1], "shape of after"),
        ([[0, 1]] * 2, [[0]] * 2, "examples in after"),
    ],
)
def test_what_cannot_be_compared_is_named(before, after, thing):
    with pytest.raises(InputError) as caught:
        compare(before, after)
    assert caught.value.thing == thing


def test_two_models_of_one_run_each_by_hand():
    """Of ten queries one is fixed, two regress and one is wrong in two ways."""
    gold = np.zeros(10, int)
    before, after = [[1, 0, 0, 1, *[0] * 6]], [[0, 1, 1, 2, *[0] * 6]]
    found = compare(before, after, gold)
    assert {name: part.value for name, part in found.between.items()} == pytest.approx(
        {"churn": 0.4, "positive_flips": 0.1, "negative_flips": 0.2, "wrong_to_wrong": 0.1}
    )
    assert found.difference["accuracy"].value == pytest.approx(-0.1)
    assert found.between["churn"].note == "these two models only"
    assert found.verdict == "cannot be tested here" and not found.retrained
    assert "Retraining alone flips answers too" in found.summary()
    whole = {check.name: check for check in found.checks(comparison.FAIL_ON, 0.05)}
    assert whole["negative-flips"].interval.value == pytest.approx(0.2)
    assert whole["accuracy"].interval.value == pytest.approx(0.1)
    churn = found.between["churn"]
    assert (churn.low, churn.high) == pytest.approx([float(end) for end in jeffreys(4, 10)])
    unmoved = compare(before, before, gold).between["churn"]
    assert unmoved.low == 0 and unmoved.high == pytest.approx(float(jeffreys(0, 10)[1]))
    (pair,) = found.pairs
    assert pair.mcnemar_p == metrics.mcnemar(before[0], after[0], gold)
    assert set(compare(before, after).regressions) == {"churn"}


def test_a_threshold_counts_for_one_run_each_too():
    """Of four queries one is answered by the first model only, and one by the second only."""
    first, second = ([0.9, 0.6, 0.9, 0.9], [0.6, 0.9, 0.9, 0.9])
    sides = []
    for confidence in (first, second):
        probabilities = np.stack([confidence, 1 - np.array(confidence)], axis=-1)[None]
        labels, names = np.zeros((1, 4), int), ("a", "b")
        examples = ("1", "2", "3", "4")
        sides.append(Predictions(labels, names, ("1",), examples, "", probabilities=probabilities))
    between = compare(*sides, threshold=0.7).between
    assert between["decision_flips"].value == between["served_churn"].value == 0.5
    assert between["churn"].value == 0


def test_one_run_beside_several_is_compared_with_each_of_them():
    draw = np.random.default_rng(3)
    deployed, candidates, gold = (draw.integers(0, 2, (runs, 60)) for runs in (1, 3, 1))
    found = compare(deployed, candidates, gold[0])
    expected = np.mean(candidates != deployed)
    assert found.between["churn"].value == pytest.approx(expected)
    assert len(found.pairs) == 3 and not found.passing


@pytest.mark.parametrize("header", ["example,label,gold", "text,pred,gold", "label,gold"])
def test_files_of_one_run_each_can_be_compared_and_not_reported_on(tmp_path, header, capsys):
    paths = []
    for name, answers in (("before", "aabb"), ("after", "abbb")):
        paths.append(tmp_path / f"{name}.csv")
        named = header.count(",") == 2
        rows = [f"q{i},{answer},a" if named else f"{answer},a" for i, answer in enumerate(answers)]
        paths[-1].write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    limit = ["--fail-on", "negative-flips", "--margin", "0.05"]
    assert main.main(["compare", *map(str, paths), *limit]) == 0
    said = capsys.readouterr().out
    assert "negative-flips: undecided, which passes without --strict (25.00 % of the" in said
    assert "allowed: 5 %); to decide it, take more queries" in said
    before, after = (read_predictions(path, least=1) for path in paths)
    assert before.labels.shape == (1, 4) and before.gold is not None
    assert compare(before, after).between["negative_flips"].value == 0.25
    with pytest.raises(InputError, match="before.csv: got"):
        read_predictions(paths[0])


def test_predictions_hold_what_a_report_takes():
    found = read_predictions(SAMPLE)
    assert (
        isinstance(found, Predictions)
        and found.labels.shape == (5, 200)
        and len(found.texts) == 200
    )


def test_two_runs_say_of_their_checkpoints_what_other_queries_would_change():
    rng = np.random.default_rng(0)
    checkpoints = rng.integers(0, 2, (3, 4, 50))
    for runs, note in ((2, True), (3, False)):
        found = report(checkpoints[:runs, -1], checkpoints=checkpoints[:runs]).numbers[
            "checkpoint_entropy"
        ]
        assert found.value == pytest.approx(metrics.checkpoint_entropy(checkpoints[:runs]).mean())
        assert bool(found.note) is note


# ---- release gates


def test_the_chance_to_pass_is_calibrated():
    """Over many studies of one recipe the estimate is right on average, and its interval holds the
    true chance at least as often as it says.
    """
    rng = np.random.default_rng(0)
    difficulty = rng.beta(0.3, 3, size=300)  # chance of each query to be answered wrong

    def runs_of(count):
        return (rng.random((count, 300)) < difficulty).astype(int)

    gold = np.zeros(300, int)
    for gate in (PairGate(0.15, None), PairGate(None, 0.005), PairGate(0.15, 0.02)):
        many = runs_of(400)
        truth = gate.passes(many[:200], many[200:], gold).mean()
        chances = [pass_chance(gate, runs_of(8), gold=gold) for _ in range(400)]
        assert abs(np.mean([chance.value for chance in chances]) - truth) < 0.03
        held = np.mean([chance.low <= truth <= chance.high for chance in chances])
        assert held >= 0.94
        updates = [pass_chance(gate, runs_of(6), runs_of(8), gold) for _ in range(200)]
        assert np.mean([update.low <= truth <= update.high for update in updates]) >= 0.94


def test_a_gate_of_a_pair_by_hand():
    gold = [0, 0, 0, 0]
    labels = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]
    gate = PairGate(max_churn=0.5, accuracy_loss=0.25)
    first = gate.passes(labels[:1], labels, gold)[0]  # the last changes all answers
    assert first.tolist() == [True, True, True, False]
    assert gate.passes(labels[3:], labels, gold)[0].tolist() == [False, False, False, True]
    assert pass_chance(gate, labels, gold=gold).value == 6 / 12
    chance = pass_chance(gate, labels[:1], labels, gold)
    assert (chance.value, chance.runs) == (3 / 4, 1)
    again = pass_chance(PairGate(0.1, None), [[0, 0], [0, 0], [0, 1]])  # 1 of 3 pairs, as of 1.5
    low, high = metrics.intervals.jeffreys(0.5, 1.5)
    assert (again.value, again.low, again.high, again.runs) == (1 / 3, low, high, 3)
    with pytest.raises(InputError, match="gold"):
        gate.passes(labels, labels)


def test_a_gate_asks_for_all_that_it_names():
    gold, before, after = [0, 0, 0, 0], [[0, 0, 0, 0]], [[0, 0, 0, 1], [0, 0, 0, 0]]
    for gate, passed in (
        ((0.5, 0.1), [False, True]),
        ((0.1, 0.5), [False, True]),
        ((1, 1), [True] * 2),
    ):
        assert PairGate(*gate).passes(before, after, gold)[0].tolist() == passed


def test_a_gate_in_words():
    both = "at most 2 % churn and accuracy not lower by more than 0.5 points"
    assert str(PairGate(max_churn=0.02)) == both and str(PairGate(0.02, None)) == both[:17]


def test_a_check_in_words_and_for_programs():
    interval = metrics.intervals.Interval(0.1, 0.05, 0.15, 5)
    checks = [Check("churn", interval, limit) for limit in (0.01, 0.1, 0.2)]
    words = ["failed", "undecided, which --strict fails", "passed"]
    assert [check.in_words(True) for check in checks] == words
    words[1] = "undecided, which passes without --strict"
    assert [check.in_words(False) for check in checks] == words
    assert [check.status(True) for check in checks] == [1, 1, 0]
    assert [check.status(False) for check in checks] == [1, 0, 0]
    entry = {"name": "churn", "limit": 0.1, "outcome": "undecided", "value": 0.1, "low": 0.05}
    entry |= {"high": 0.15, "runs": 5, "speaks_of": interval.speaks_of, "runs_to_decide": None}
    assert checks[1].entry() == entry


def test_the_gate_speaks_of_new_runs_and_new_queries(tmp_path):
    """Fails if --max-churn is held against the interval over runs alone, which misses the queries:
    on few queries that is most of it.
    """
    labels, _ = answers(8, examples=60, noise=0.2)
    rows = "".join(f"{i},{','.join(map(str, column))}\n" for i, column in enumerate(labels.T))
    header = "example," + ",".join(f"run{i}" for i in range(8)) + "\n"
    path, target = write(tmp_path, header + rows), tmp_path / "r.json"
    words = [path, "-o", tmp_path / "r.html", "--json", target, "--max-churn"]
    churn = report(labels).numbers["churn"]
    limit = (churn.over_runs.low + churn.low) / 2  # below all of the interval over runs alone
    assert churn.low < limit < churn.over_runs.low
    assert run(*words, limit) == 0
    [check] = json.loads(target.read_text(encoding="utf-8"))["checks"]
    assert check["outcome"] == "undecided" and check["speaks_of"] == "new runs and new queries"
    assert [check["value"], check["low"], check["high"]] == ends(churn)
    assert run(*words, churn.low * 0.99) == 1
    two = write(
        tmp_path, "example,run1,run2\n" + "".join(f"{i},x,{'xy'[i < 9]}\n" for i in range(60))
    )
    assert run(two, "-o", tmp_path / "r.html", "--json", target, "--max-churn", 0.05) == 1
    [check] = json.loads(target.read_text(encoding="utf-8"))["checks"]
    assert check["speaks_of"] == "these two models only" and check["low"] > 0.05


def test_a_model_answers_from_the_threshold_on():
    shares = [[0.7, 0.6], [0.5, 1.0]]
    assert decisions(shares, 0.7).tolist() == [[1, 0], [0, 1]]
    assert decisions(shares, 0).tolist() == [[1, 1]] * 2
    assert decisions(shares, 1).tolist() == [[0, 0], [0, 1]]
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="threshold: got .*; expected a confidence of 0 .. 1"):
            decisions(shares, wrong)


def test_flips_across_a_threshold_by_hand(tmp_path, capsys):
    """Three runs, two queries: the first is always answered; the second once with a confidence
    below 0.7, so two of three pairs of runs differ on it.
    """
    rows = [
        (0, 0.9, 0.1),
        (0, 0.8, 0.2),
        (1, 0.9, 0.1),
        (1, 0.6, 0.4),
        (2, 0.9, 0.1),
        (2, 0.8, 0.2),
    ]
    text = "".join(f"{row},{'ab'[i % 2]},x,x,{x},{y}\n" for i, (row, x, y) in enumerate(rows))
    path = write(tmp_path, "run,example,label,gold,p_x,p_y\n" + text)
    words = [path, "-o", tmp_path / "r.html", "--json", tmp_path / "r.json"]
    assert run(*words, "--threshold", 0.7) == 0
    assert "At a confidence threshold of 0.7, 33.3 %" in capsys.readouterr().out
    document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    release = {entry["metric"]: entry for entry in document["numbers"] if entry["arm"] == "release"}
    assert (
        release["decision_flips"]["value"]
        == release["served_churn"]["value"]
        == pytest.approx(1 / 3)
    )
    assert release["negative_flips"]["value"] == 0 and release["pass_chance"]["value"] == 1
    assert run(*words) == 0  # at the default of 0.5 all are answered
    assert "At a confidence threshold of 0.5, 0.0 %" in capsys.readouterr().out
    bare = write(tmp_path, "example,run1,run2\n1,a,b\n2,a,a\n", "bare.csv")
    with pytest.raises(InputError, match="--threshold.* column confidence .*p_<label>"):
        run(bare, "-o", tmp_path / "r.html", "--threshold", 0.7)
    logged = "".join(f"{row},{'ab'[i % 2]},x,{x}\n" for i, (row, x, _) in enumerate(rows))
    log = write(tmp_path, "run,example,label,score\n" + logged, "log.csv")
    words = ["--columns", "confidence=score", "--threshold", 0.7]
    capsys.readouterr()
    assert run(log, "-o", tmp_path / "r.html", *words) == 0
    assert "At a confidence threshold of 0.7, 33.3 %" in capsys.readouterr().out
    files = [str(log), str(path), *map(str, words[2:])]
    assert main.main(["compare", *files, "--confidence", "score"]) == 2  # no such column in path
    assert main.main(["compare", str(path), str(path), *map(str, words[2:])]) == 0


def test_the_confidence_of_an_answer_is_read_and_checked(tmp_path):
    text = "run,example,label,confidence\n1,a,x,0.9\n1,b,y,0.5\n2,b,x,0.6\n2,a,x,1\n"
    read = read_predictions(write(tmp_path, text))
    assert read.confidence.tolist() == [[0.9, 0.5], [1, 0.6]] and len(repr(read)) < 200
    for wrong in ("1.2", "high", "", "-0.1", "nan"):
        path = write(tmp_path, text.replace("0.5", wrong))
        with pytest.raises(InputError, match=f"mine.csv, line 3: confidence: got '{wrong}'"):
            read_predictions(path)
        assert read_predictions(path, "confidence=none").confidence is None
    wide = "example,run1,run2,c1,c2,confidence\na,x,y,0.5,0.6,z\nb,x,x,0.7,0.8,z\n"
    path = write(tmp_path, wide)
    assert read_predictions(path).confidence is None  # one column cannot be that of two runs
    assert read_predictions(path, "confidence=c1 c2").confidence.tolist() == [
        [0.5, 0.7],
        [0.6, 0.8],
    ]
    with pytest.raises(InputError, match="2, in the order of the columns of labels: run1, run2"):
        read_predictions(path, "confidence=c1")
    both = "run,example,label,p_x,p_y,confidence\n1,a,x,0.904,0.096,0.9\n2,a,y,0.4,0.6,{}\n"
    assert read_predictions(write(tmp_path, both.format("0.6"))).confidence.tolist() == [
        [0.9],
        [0.6],
    ]
    with pytest.raises(InputError, match="of run '2': got 0.4; expected 0.6, the highest"):
        read_predictions(write(tmp_path, both.format("0.4")))


def test_an_unused_column_that_is_named_like_a_role_plays_none(tmp_path):
    """Without a column of examples every unused column may name them; these three do not."""
    rows = "".join(f"{'ab'[i % 2]},a,0.{i},{i},t{i}\n" for i in range(10, 30))
    for name in ("confidence", "checkpoint", "run"):
        path = write(tmp_path, f"run1,run2,{name},note,word\n{rows}")
        read = read_predictions(path, "confidence=none")
        assert read.labels.shape == (2, 20) and read.confidence is None and read.checkpoints is None
        assert f"not used: {name}" in read.layout
    long = "".join(f"{run},{i},a,other {i},query {i}\n" for run in (1, 2) for i in range(4))
    path = write(tmp_path, f"run,example,label,text,question\n{long}")
    assert read_predictions(path, "text=question").texts[0] == "query 0"
    with pytest.raises(InputError, match="column for confidence: got 'none'"):
        read_predictions(path, "confidence=none label")


def test_checkpoints_with_confidence_rank_by_uncertainty(tmp_path):
    rows = "1,1,a,x,0.2\n1,2,a,x,0.9\n1,1,b,x,0.3\n1,2,b,x,0.6\n"
    path = write(tmp_path, "run,checkpoint,example,label,confidence\n" + rows)
    assert report(read_predictions(path)).examples["uncertainty"].round(3).tolist() == [0.1, 0.4]


def test_negative_flips_of_a_report_are_half_of_those_of_either_way():
    labels, gold = answers(5)
    release = report(labels, gold).release
    flips = [
        np.mean((old == gold) & (new != gold))
        for i, old in enumerate(labels)
        for j, new in enumerate(labels)
        if i != j
    ]
    assert release["negative_flips"].value == pytest.approx(np.mean(flips))
    assert release["pass_chance"].value == pass_chance(PairGate(), labels, gold=gold).value


def files_of(folder, before, after, gold):
    """Two files in wide form."""
    paths = []
    for name, labels in (("before", before), ("after", after)):
        header = "example,gold," + ",".join(f"run{i}" for i in range(len(labels)))
        rows = [
            ",".join(map(str, [f"q{place}", right, *column]))
            for place, (right, column) in enumerate(zip(gold, np.transpose(labels), strict=True))
        ]
        text = "\n".join([header, *rows]) + "\n"
        paths.append(str(write(folder, text, f"{name}.csv")))
    return paths


def test_a_comparison_fails_on_what_it_is_asked_for(tmp_path, capsys):
    gold = np.random.default_rng(1).integers(4, size=400)
    good, worse = (
        np.where(np.random.default_rng(seed).random((5, 400)) < noise, (gold + 1) % 4, gold)
        for seed, noise in ((2, 0.05), (3, 0.25))
    )
    files, target = files_of(tmp_path, good, worse, gold), tmp_path / "c.json"
    every = [word for name in comparison.FAIL_ON for word in ("--fail-on", name)]
    assert main.main(["compare", *files]) == 0
    assert main.main(["compare", *files, *every, "--json", str(target)]) == 1
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["status"] == 1
    assert {check["name"]: check["outcome"] for check in document["checks"]} == dict.fromkeys(
        comparison.FAIL_ON, "failed"
    )
    assert {check["speaks_of"] for check in document["checks"]} == {"new runs and new queries"}
    assert main.main(["compare", *files[::-1], *every, "--strict"]) == 0  # an improvement
    assert main.main(["compare", *files, "--fail-on", "accuracy", "--margin", "0.9"]) == 0
    same = files_of(tmp_path, good, np.roll(good, 1, axis=0), gold)
    assert main.main(["compare", *same, *every]) == 0
    capsys.readouterr()
    target.unlink()
    assert main.main(["compare", *same, *every, "--strict", "--json", str(target)]) == 1
    out = capsys.readouterr().out
    assert "undecided, which --strict fails" in out and "take more queries or another limit" in out
    assert "at most 0 % churn and at most 0 % negative flips and accuracy not lower by" in out
    document = json.loads(target.read_text(encoding="utf-8"))
    assert None in {check["runs_to_decide"] for check in document["checks"]}
    words = ["--fail-on", "accuracy", "--margin", "0.001", "--json", str(target)]
    assert main.main(["compare", *same, *words]) == 0
    [check] = json.loads(target.read_text(encoding="utf-8"))["checks"]
    assert check["outcome"] == "undecided" and check["runs_to_decide"] > 5
    assert f"{check['runs_to_decide']:,} runs per system would" in capsys.readouterr().out
    bare = write(tmp_path, "example,run1,run2\n1,a,b\n2,a,a\n", "bare.csv")
    assert main.main(["compare", str(bare), str(bare), "--fail-on", "accuracy"]) == 2
    assert "accuracy needs gold labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lost, guard", [(4, "holds"), (20, "undecided at 4 runs"), (40, "does not hold")]
)
def test_half_a_point_of_accuracy_may_be_lost_in_a_comparison(lost, guard):
    """Of 4,000 queries; the interval is over queries alone, as all runs answer alike."""
    before = np.zeros((4, 4000), int)
    after = before.copy()
    after[:, :lost] = 1
    assert compare(before, after, np.zeros(4000, int)).guard == guard


def test_the_chance_to_pass_is_that_of_the_checks_asked_for(tmp_path, capsys):
    """Of three runs before one has one of ten queries wrong; of those after one has two wrong."""
    gold = [0] * 10
    before = [gold, gold, [1, *gold[1:]]]
    after = [gold, [1, 1, *gold[2:]], gold]
    files, target = files_of(tmp_path, before, after, gold), tmp_path / "c.json"
    for words, asked, update, again in (
        (["--fail-on", "negative-flips", "--margin", "0.1"], "10 % negative flips", 7 / 9, 1),
        (["--fail-on", "churn", "--margin", "0.05"], "5 % churn", 4 / 9, 1 / 3),
        (["--fail-on", "accuracy", "--margin", "0.2"], "more than 20 points", 1, 1),
        ([], "more than 0.5 points", 2 / 3, 2 / 3),
    ):
        assert main.main(["compare", *files, *words, "--json", str(target)]) == 0
        numbers = json.loads(target.read_text(encoding="utf-8"))["numbers"]
        chance = {n["condition"]: n["value"] for n in numbers if n["metric"] == "pass_chance"}
        assert chance == pytest.approx({"update": update, "again": again})
        out = capsys.readouterr().out
        assert f"{asked} passes {100 * update:.1f} % [" in out
        assert f"and {100 * again:.1f} % [" in out


def test_runs_to_decide_are_those_of_the_plan():
    undecided = Interval(0.004, -0.001, 0.009, runs=5, se=0.002, df=4)
    assert Check("churn", undecided, 0.001).runs_to_decide == runs_to_detect(undecided, 0.003)
    assert Check("churn", undecided, 0.01).runs_to_decide is None  # decided
    queries = Interval(
        0.004, -0.001, 0.009, 5, se=0.002, df=20, over_runs=replace(undecided, se=0.0)
    )
    for interval in (queries, replace(undecided, note="these two models only")):
        check = Check("churn", interval, 0.0)
        assert check.runs_to_decide is None and "more queries" in check.advice


def test_no_interval_of_a_comparison_is_impossible():
    labels = [[0, 1, 1], [1, 1, 1], [1, 1, 0]]
    for before, after in ((labels, labels[::-1]), (labels[:1], labels[1:2])):
        found = compare(before, after, [0, 1, 0])
        for part in (found.before, found.after, found.between):
            assert all(0 <= share.low for share in part.values())
            assert all(part[name].high <= 1 for name in part if not name.startswith("label"))
        for interval in (*found.difference.values(), *found.regressions.values()):
            assert -1 <= interval.low <= interval.value <= interval.high <= 1


def test_runs_of_one_name_are_one_seed_and_it_says_so(tmp_path, capsys):
    labels, gold = answers(6, examples=60)
    files = files_of(tmp_path, labels[:3], labels[3:], gold)
    assert main.main(["compare", *files]) == 0
    said = "runs of the same name in both files share a seed, it is assumed: run0, run1, run2"
    assert said in capsys.readouterr().out
    other = Path(files[1])
    other.write_text(other.read_text(encoding="utf-8").replace("run", "run1"), encoding="utf-8")
    assert main.main(["compare", *files]) == 0
    assert "share a seed" not in capsys.readouterr().out
    assert main.main(["compare", *files, "--margin", "0.005"]) == 2
    assert "together with --fail-on" in capsys.readouterr().err


def test_probabilities_may_be_rounded_to_three_decimals(tmp_path):
    shares = softmax(3, classes=6).round(3)
    assert not np.allclose(shares.sum(axis=2), 1, atol=5e-4)
    found = report(shares.argmax(axis=2), np.zeros(40, int), probabilities=shares)
    assert found.numbers["nll"].value > 0
    with pytest.raises(InputError, match="row sum of probabilities"):
        report(shares.argmax(axis=2), probabilities=shares.round(1))


def test_negative_flips_are_held_against_those_of_retraining():
    """Fails if flips that the old recipe makes by itself count as the change's."""
    labels, gold = answers(6, examples=200)
    before, after = labels[:3], labels[3:]
    lost = compare(before, after, gold).regressions["negative-flips"]
    of_update = np.mean([(old == gold) & (new != gold) for old in before for new in after])
    pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    by_itself = np.mean([(before[i] == gold) & (before[j] != gold) for i, j in pairs])
    assert lost.value == pytest.approx(of_update - by_itself)
    assert lost.low < 0 < lost.high


def test_pairs_and_queries_of_a_comparison_by_hand(tmp_path):
    gold = [0] * 8
    before = [[0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0]]
    after = [[1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
    files = files_of(tmp_path, before, after, gold)
    words = ["--csv", str(tmp_path / "q.csv"), "--pairs", str(tmp_path / "p.csv")]
    assert main.main(["compare", *files, *words]) == 0
    pairs = pd.read_csv(tmp_path / "p.csv")  # run by run, as they have one name
    assert pairs["before"].tolist() == pairs["after"].tolist() == ["run0", "run1"]
    assert pairs["churn"].tolist() == [1, 0] and pairs["negative_flips"].tolist() == [7 / 8, 0]
    assert pairs["positive_flips"].tolist() == [1 / 8, 0]
    assert pairs["mcnemar_p"].round(4).tolist() == [0.0391, 1]  # 2 (1 + 8) / 2^8 - 8 / 2^8
    queries = pd.read_csv(tmp_path / "q.csv").set_index("example")
    assert queries.loc["q0", ["flip_probability", "regressed", "fixed"]].tolist() == [0.5, 0.5, 0]
    assert queries.loc["q7", ["flip_probability", "regressed", "fixed"]].tolist() == [0.5, 0, 0.5]
    assert len(compare(before, after, gold).pairs) == 4  # without names each beside each
    ungraded = [(pair.churn, pair.negative_flips) for pair in compare(before, after).pairs]
    assert ungraded == [(1, None), (1 / 8, None), (7 / 8, None), (0, None)]


def test_of_files_with_probabilities_a_comparison_says_who_crosses_the_threshold(tmp_path, capsys):
    header = "run,example,label,p_x,p_y\n"
    sure = "".join(f"{run},{i},x,0.9,0.1\n" for run in (1, 2, 3) for i in range(4))
    unsure = "".join(
        f"{run},{i},x,{0.6 if i == 0 else 0.9},{0.4 if i == 0 else 0.1}\n"
        for run in (1, 2, 3)
        for i in range(4)
    )
    files = [
        str(write(tmp_path, header + text, name))
        for text, name in ((sure, "a.csv"), (unsure, "b.csv"))
    ]
    target = tmp_path / "c.json"
    assert main.main(["compare", *files, "--threshold", "0.7", "--json", str(target)]) == 0
    numbers = json.loads(target.read_text(encoding="utf-8"))["numbers"]
    between = {entry["metric"]: entry["value"] for entry in numbers if entry["arm"] == "between"}
    assert between["decision_flips"] == between["served_churn"] == 0.25 and between["churn"] == 0
    out = capsys.readouterr().out
    assert "Between: decision flips" in out and "from a confidence of 0.7 on, else by a" in out


# ---- what is given and would not be used, or could not be right


def test_logits_are_no_probabilities_in_a_comparison_either(tmp_path):
    logits = np.random.default_rng(0).normal(0, 3, (3, 20, 4)).astype(np.float32)
    for form, write in {".npy": np.save, ".safetensors": save_logits}.items():
        write(tmp_path / f"logits{form}", logits)
        with pytest.raises(InputError, match=r"probabilities: got -.*not logits"):
            read_predictions(tmp_path / f"logits{form}")
    labels = logits.argmax(2)
    with pytest.raises(InputError, match="not logits"):
        report(labels[:1], probabilities=logits[:1], checkpoints=np.stack([labels[:1]] * 2, axis=1))


@pytest.mark.parametrize("runs, examples", [(2, 5), (3, 4)])
def test_probabilities_of_other_answers_are_refused(tmp_path, runs, examples):
    shares = np.random.default_rng(0).dirichlet(np.ones(3), (3, 5))
    arrays = {"labels": shares.argmax(2)[:runs, :examples].copy(), "probabilities": shares}
    save_file(arrays, tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=r"shape of probabilities: got \(3, 5, 3\)"):
        read_predictions(tmp_path / "mine.safetensors")


def save_logits(path, logits):
    save_file({"probabilities": logits}, path)


def test_arrays_beside_answers_that_bring_their_own_are_refused(tmp_path):
    labels, _ = answers(3)
    np.save(tmp_path / "labels.npy", labels)
    read = read_predictions(tmp_path / "labels.npy")
    with pytest.raises(InputError, match="gold: got 'a ndarray beside them'"):
        report(read, gold=labels[0])
    for name, beside in {"gold": labels[0], "seeds": (range(3), range(3))}.items():
        with pytest.raises(InputError, match=f"{name}: got 'a .* beside them'"):
            compare(read, read, **{name: beside})


def test_every_label_name_is_given_once():
    with pytest.raises(InputError, match="label_names: got 'a'; expected each name once"):
        report([["a", "b"], ["b", "b"]], label_names=["a", "b", "a"])


def test_integers_of_any_size_are_labels():
    labels = np.array([[0, 1, 2], [0, 1, 1]])
    gold = np.array([0, 1, 2])
    found = [
        report(labels.astype(kind), gold.astype(other)).numbers["accuracy"].value
        for kind, other in ((int, int), (np.uint8, np.int64), (np.int64, np.uint64))
    ]
    assert found == [pytest.approx(5 / 6)] * 3


@pytest.mark.parametrize("name, value", [("max_churn", 5), ("max_churn", "x"), ("threshold", "x")])
def test_a_share_is_a_number_of_0_to_1(name, value):
    with pytest.raises(InputError, match=f"{name}: got .*; expected a number from 0 to 1"):
        report(answers(3)[0], **{name: value})


def test_a_column_of_runs_that_numbers_rows_is_refused_without_a_table_of_all_pairs(tmp_path):
    """30,000 runs of 30,000 examples would be 900 million pairs."""
    count = 30_000
    rows = "".join(f"{row},{row},a\n" for row in range(count))
    (tmp_path / "wide.csv").write_text("run,example,label\n" + rows, encoding="utf-8")
    tracemalloc.start()
    with pytest.raises(InputError, match="example '1' of run '0': got 'no row'.* 899970000 such"):
        read_predictions(tmp_path / "wide.csv")
    assert tracemalloc.get_traced_memory()[1] < 2e8
    tracemalloc.stop()

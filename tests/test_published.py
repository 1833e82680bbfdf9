"""The published study: headline numbers follow from the committed answers, and prose says what the
records say.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stabutils import metrics, records
from stabutils.metrics.intervals import jackknife
from stabutils.publishing import drawing, quotes, results

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "records").glob("*/answers"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_headline_numbers_follow_from_the_committed_answers(folder):
    arrays, record = results.control(folder)
    assert record["arm"] == "control" and not record["model"].startswith("compact-")
    numbers = records.read(folder / "01_measuring_instability.json").numbers
    labels, gold = arrays["labels"].astype(int), np.array(record["gold"])
    assert (
        len(labels)
        == len(record["runs"])
        == len(set(record["seeds"]))
        == numbers["churn"]["runs"]
        >= 10
    )
    for name, interval in (
        ("churn", jackknife(metrics.churn, labels)),
        ("accuracy", jackknife(lambda votes: np.mean(votes == gold), labels)),
    ):
        assert [interval.value, interval.low, interval.high] == pytest.approx(
            [numbers[name][end] for end in ("value", "low", "high")], abs=1e-9
        )
    assert metrics.label_entropy(labels, n=5).mean() == pytest.approx(
        numbers["label_entropy@5"]["value"], abs=1e-9
    )
    assert arrays["accuracy"] == pytest.approx(metrics.accuracy(labels, gold))


def test_there_is_a_published_study_and_prose_says_what_it_says():
    assert {folder.name for folder in FOLDERS} >= {"massive", "clinc150", "banking77"}
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        prose = page.read_text(encoding="utf-8")
        assert quotes.quote(prose, ROOT) == prose and "-->not measured<" not in prose, page
        # A line that begins with a comment ends the paragraph before it, and is not read as
        # Markdown.
        assert not re.findall(r"^ *<!--.*?-->(?=.)", prose, re.MULTILINE), page
    for path in sorted(
        [*ROOT.glob("notebooks/[0-9]*.ipynb"), *ROOT.glob("records/*/[0-9]*.ipynb")]
    ):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                source = "".join(cell["source"])
                assert quotes.quote(source, ROOT) == source and "not measured" not in source


def test_ensembles_follow_from_the_committed_answers(corpora, monkeypatch, tmp_path):
    """Of probabilities, as they were measured, and without a training."""
    from stabutils.analysis import ensembles
    from stabutils.study.dispatch import Dispatch
    from stabutils.study.study import Study

    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(Dispatch, "train", lambda *given: pytest.fail("nothing is to be trained"))
    control = Study(dataset="massive", runs=50).retrain("control")
    found = ensembles.Pool(control).measure(10, 5)
    numbers = records.read(ROOT / "records" / "massive" / "05_ensembles.json").numbers
    for name in ("reduction", "churn", "accuracy"):
        interval, number = found[name], numbers[f"{name} ensemble of 10"]
        assert (interval.value, interval.low, interval.high) == pytest.approx(
            (number["value"], number["low"], number["high"]), rel=1e-9
        ), name


def test_what_is_said_of_the_moonshot_is_what_was_found():
    record = records.read(ROOT / "records" / "massive" / "07_moonshot.json")
    verdicts = {claim.name: claim.verdict for claim in record.claims}
    assert verdicts == {"better moonshot": "holds", "nine tenths": "does not hold"}
    assert "**Nine tenths are not reached**" in (ROOT / "docs" / "moonshot.md").read_text(
        encoding="utf-8"
    )
    five = records.read(ROOT / "records" / "massive" / "05_ensembles.json").numbers[
        "reduction ensemble of 5"
    ]
    assert (
        record.numbers["reduction moonshot"]["value"] >= five["value"]
    )  # "no more than this one network"


def test_figures_are_redrawn_from_records_alone(tmp_path):
    written = drawing.draw(ROOT / "records" / "massive", tmp_path)
    assert {path.suffix for path in written} == {".png", ".svg"}
    assert {path.name for path in written} == {
        path.name for path in (ROOT / "figures" / "massive").iterdir()
    }


def test_a_quoted_number_is_replaced_and_an_unknown_one_said_to_be_missing(tmp_path):
    folder = tmp_path / "records" / "toy"
    churn = {"value": 0.0812, "low": 0.07, "high": 0.0924, "runs": 10, "unit": "share"}
    records.Record("01_x", {}, {}, {"churn": churn}).write(folder)
    text = (
        "a <!--churn of toy in %-->old<!--end--> b <!--churn of none in %-->old<!--end--> "
        "<!--a comment-->"
    )
    assert quotes.quote(text, tmp_path) == (
        "a <!--churn of toy in %-->8.1 % [7.0, 9.2] (10 runs)<!--end--> b "
        "<!--churn of none in %-->not measured<!--end--> <!--a comment-->"
    )


def test_a_number_that_two_notebooks_have_is_that_of_most_runs(tmp_path):
    folder = tmp_path / "records" / "toy"
    for notebook, value, runs in (("01_x", 0.1, 50), ("02_x", 0.2, 40), ("03_x", 0.3, 50)):
        number = {"value": value, "low": value, "high": value, "runs": runs, "unit": "share"}
        records.Record(notebook, {}, {}, {"churn": number}).write(folder)
        text = quotes.quote("<!--churn of toy in 1-->?<!--end-->", tmp_path)
        assert ("0.300" if notebook == "03_x" else "0.100") in text


def test_a_board_is_read_from_records_and_quoted(tmp_path):
    def number(value, width=0.05):
        return {
            "value": value,
            "low": value - width,
            "high": value + width,
            "runs": 10,
            "unit": "share",
        }

    found = {
        "reduction rash": number(-0.1),
        "reduction calm": number(0.2),
        "reduction placebo": number(0.01),
        "reduction convex": number(1.0, 0),
        "trainings calm": number(2.0, 0),
    }
    found |= {
        f"accuracy_change {arm}": number(0.003, 0.001)
        for arm in ("rash", "calm", "placebo", "convex")
    }
    claims = tuple(
        records.Claim(f"better {arm}", "", 0, 0, 0, verdict)
        for arm, verdict in (("calm", "holds"), ("rash", "does not hold"))
    )
    records.Record("03_x", {}, {}, found, claims).write(tmp_path / "records" / "toy")
    table = results.board(tmp_path / "records" / "toy").set_index("arm")
    assert table.index.tolist() == ["convex", "calm", "placebo", "rash"]
    assert table.trainings.tolist() == [1, 2, 1, 1] and table.better.tolist() == [
        "",
        "holds",
        "",
        "does not hold",
    ]
    text = quotes.quote("<!--board of toy-->old<!--end-->", tmp_path)
    assert (
        "On toy, 1 of 2 methods" in text
        and "takes away calm: 20.0 % [15.0, 25.0] (10 runs)" in text
    )
    assert (
        "| calm | 20.0 % [15.0, 25.0] | 0.30 [0.20, 0.40] | 2 | holds |" in text
        and "| convex" not in text
    )
    records.Record(
        "04_y", {}, {}, {"reduction soft": number(0.3), "accuracy_change soft": number(0)}, ()
    ).write(tmp_path / "records" / "toy")
    boards = [
        results.board(tmp_path / "records" / "toy", notebook).arm.tolist()
        for notebook in ("", "03", "04")
    ]
    assert (
        boards[0] == ["convex", "soft", "calm", "placebo", "rash"]
        and boards[1] == table.index.tolist()
    )
    assert (
        boards[2] == ["soft"]
        and quotes.quote("<!--board 03 of toy-->old<!--end-->", tmp_path)[22:] == text[19:]
    )
    assert "No board is published for none yet." in quotes.quote(
        "<!--board of none--><!--end-->", tmp_path
    )


def test_all_methods_stand_in_one_table_with_the_verdict_of_the_board_of_most_runs(tmp_path):
    def number(value):
        return {
            "value": value,
            "low": value - 0.05,
            "high": value + 0.05,
            "runs": 10,
            "unit": "share",
        }

    for corpus, arms in (("big", {"calm": 0.2, "soft": 0.1}), ("small", {"calm": 0.3})):
        found = {
            f"{name} {arm}": number(value)
            for arm, value in arms.items()
            for name in ("reduction", "accuracy_change")
        }
        found |= {f"trainings {arm}": number(2.0) for arm in arms}
        for notebook, verdict in (("04_x", "holds"), ("05_y", "undecided at 10 runs")):
            claims = (
                records.Claim("better calm", "", 0, 0, 0, verdict if corpus == "big" else "holds"),
            )
            records.Record(notebook, {}, {}, found, claims).write(tmp_path / "records" / corpus)
    text = quotes.quote("<!--methods-->old<!--end-->", tmp_path)
    assert (
        text.splitlines()[1] == "| method | trainings | passes an answer | big | small |"
        and "old" not in text
    )
    [calm] = [line for line in text.splitlines() if line.startswith("| calm | 2 | 1 |")]
    assert "| 20.0 % [15.0, 25.0] (10)<br>" in calm and "| **30.0 % [25.0, 35.0] (10)**<br>" in calm
    assert "accuracy +20.00 [+15.00, +25.00]" in calm
    assert any(line.startswith("| soft") and line.endswith("|  |") for line in text.splitlines())


def test_the_benchmark_is_quoted_beside_what_was_aimed_at(tmp_path):
    ratio = {"value": 3.0, "low": 2.5, "high": 3.5, "runs": 5, "unit": "times"}
    records.Record("benchmark", {}, {}, {"throughput_ratio_fp32": ratio}).write(
        tmp_path / "records"
    )
    text = quotes.quote("<!--benchmark--><!--end-->", tmp_path)
    assert "| 3 [2.5, 3.5] (5) | 2 | holds |" in text and "bf16" not in text
    assert {path.suffix for path in drawing.draw_benchmark(tmp_path, tmp_path / "figures")} == {
        ".png",
        ".svg",
    }


def test_what_was_tried_stands_in_order_of_entropy(tmp_path):
    folder = tmp_path / "records" / "toy"
    folder.mkdir(parents=True)
    assert "not measured" in quotes.quote("<!--tried for moonshot on toy--><!--end-->", tmp_path)
    ends = ",".join(
        f"{score}{end}" for score in ("label_entropy", "accuracy") for end in ("", "_low", "_high")
    )
    (folder / "moonshot.csv").write_text(
        f"candidate,trainings,runs,n,{ends},taken_away,kept\n"
        "control,1,3,3,0.1,0.09,0.11,0.85,0.84,0.86,0,True\n"
        "calm,2,3,3,0.04,0.03,0.05,0.8,0.79,0.81,0.6,False\n",
        encoding="utf-8",
    )
    lines = quotes.quote("<!--tried for moonshot on toy--><!--end-->", tmp_path).splitlines()
    assert lines[3] == "| calm | 2 | 0.040 [0.030, 0.050] | 60.0 % | 80.0 % [79.0, 81.0] | no |"
    assert lines[4].startswith("| control | 1 |") and lines[4].endswith("| yes |")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("notebooks/0[1-5]*.ipynb")), ids=lambda path: path.stem[:2]
)
def test_the_first_cell_shows_a_published_figure_and_a_number(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    [figure] = re.findall(r"\]\(\.\./(figures/massive/[\w-]+\.png)\)", first)
    assert (ROOT / figure).is_file() and quotes.QUOTE.search(first)


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("records/*/0[1-5]*.ipynb")),
    ids=lambda path: f"{path.parent.name} {path.stem[:2]}",
)
def test_an_executed_notebook_opens_with_its_own_corpus(path):
    """Fails if the figure or the board of another corpus stands above what was found on this
    one.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, corpus = "".join(cells[0]["source"]), path.parent.name
    [figure] = re.findall(r"\]\(\.\./\.\./(figures/[\w-]+/[\w-]+\.png)\)", first)
    assert (ROOT / figure).is_file() and f"figures/{corpus}/" in figure
    quoted = [quote["what"] for quote in quotes.QUOTE.finditer(first)]
    assert quoted and (path.stem[:2] == "01" or all(f" of {corpus}" in what for what in quoted))


def test_what_notebooks_say_of_massive_is_said_of_another_corpus(tmp_path):
    (tmp_path / "records" / "clinc150").mkdir(parents=True)
    (tmp_path / "records" / "clinc150" / "02_b.ipynb").touch()
    text = (
        "On MASSIVE <!--churn of massive in %-->9 %<!--end-->.\n![a of "
        "MASSIVE](../../figures/massive/a.png)\n"
        "[02](../../notebooks/02_b.ipynb) [03](../../notebooks/03_c.ipynb)"
    )
    assert quotes._own(text, tmp_path, "clinc150") == (
        "On CLINC150 <!--churn of clinc150 in %-->9 %<!--end-->.\n![a of "
        "CLINC150](../../figures/clinc150/a.png)\n"
        "[02](02_b.ipynb) [03](../../notebooks/03_c.ipynb)"
    )
    both = text.replace("churn of massive in %", "churn of clinc150 in %")
    assert "On MASSIVE" in quotes._own(both, tmp_path, "clinc150")  # it speaks of several corpora


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
    assert table.label_entropy[1].value == pytest.approx(metrics.label_entropy(labels, 3).mean())
    assert (
        set(table.n) == {3} == {min(table.runs)}
    )  # one number of votes for all, or more of them look less steady
    assert not len(results.lengths(ROOT / "records" / "banking77"))  # one length only


def test_committed_records_stay_small():
    assert (
        sum(path.stat().st_size for path in (ROOT / "records").rglob("*") if path.is_file()) < 20e6
    )

"""The study notebooks as committed: executed, current, and finding what was planted."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

import stabutils as st
from stabutils.analysis.baselines import linear_models
from stabutils.data.assistant import CAUSES
from stabutils.metrics import detection
from stabutils.publishing import quotes
from stabutils.publishing.cells import of_corpus

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_executed_from_top_to_bottom_without_error(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [
        output
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures and all(output.metadata["image/png"]["alt"] for output in pictures)


@pytest.fixture(scope="module")
def control():
    """The runs of notebook 01 at its defaults; nbval finds them in the session's store
    afterwards.
    """
    study = st.Study()
    return study, study.retrain("control")


def test_clear_cases_stay_and_strong_causes_are_found(control):
    study, runs = control
    tags = np.array(study.data.test.tags)
    assert 0.05 <= st.metrics.churn(runs.labels) <= 0.15
    assert st.metrics.churn(runs.labels[:, tags == "clear"]) < 0.02
    found = {
        region: interval.value for region, interval in detection.planted(runs.labels, tags).items()
    }
    # Ten runs; with 29 of them all three were above 0.97.
    assert min(value for region, value in found.items() if region.endswith("strong")) >= 0.85
    for cause in CAUSES:
        entropy = [
            st.metrics.label_entropy(runs.labels)[tags == f"{cause}:{strength}"].mean()
            for strength in ("weak", "strong")
        ]
        assert entropy[0] < entropy[1]


def test_a_linear_model_is_as_good_as_it_is_said_to_be(control):
    study, _ = control
    [(name, labels)] = linear_models(study).items()
    assert name == "linear (TF-IDF)" and np.mean(labels == study.data.test.labels) > 0.8


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_half_of_the_code_cells_have_five_lines_at_most(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    lines = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in cells]
    assert np.median(lines) <= 5


@pytest.mark.parametrize("path", [*NOTEBOOKS[:7], NOTEBOOKS[8]], ids=lambda path: path.stem)
def test_a_users_corpus_meets_no_published_number_and_no_planted_cause(path):
    own = of_corpus(nbformat.read(path, 4), "mine.csv").cells
    texts = [cell.source for cell in own if cell.cell_type == "markdown"]
    every = [cell.source for cell in nbformat.read(path, 4).cells]
    for phrase in ("<!--", "figures/massive", "planted", "*Quick"):
        assert not [text for text in texts if phrase in text], phrase
    assert any("<!--" in text and "*Quick" in text for text in every)
    assert texts[0].startswith("# ") and "**You will learn**" in texts[0]


@pytest.mark.parametrize("path", NOTEBOOKS[:7], ids=lambda path: path.stem)
def test_what_we_found_begins_with_three_sentences(path):
    cells = nbformat.read(path, 4).cells
    place = [cell.source for cell in cells].index("## What we found")
    answer = cells[place + 1]
    assert answer.metadata.tags == ["published"]
    assert len(quotes.QUOTE.findall(answer.source)) >= 2
    prose = quotes.QUOTE.sub("number", answer.source)
    assert len(re.findall(r"\.(?=\s|$)", prose)) == 3 and not re.search(r"\d", prose)


def test_a_corpus_with_planted_causes_keeps_their_cells():
    path = NOTEBOOKS[0]
    whole, kept = (nbformat.read(path, 4), of_corpus(nbformat.read(path, 4), "assistant"))
    massive = of_corpus(nbformat.read(path, 4), "massive")
    assert len(kept.cells) == len(whole.cells) > len(massive.cells)
    assert any("<!--" in cell.source for cell in massive.cells)

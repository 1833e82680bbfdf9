"""docs/pipelines.md: its pipelines run, and its tables hold what the commands write."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stabutils import __main__ as main
from stabutils import compare, read_predictions
from stabutils.errors import InputError
from stabutils.reports import comparison, gate

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
GITHUB, GITLAB = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))
LINES = [
    *(step["run"] for step in GITHUB["jobs"]["gate"]["steps"] if "run" in step),
    *GITLAB["stability"]["script"],
]
COMMANDS = [line for line in LINES if line.startswith("python -m stabutils")]


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """What the two pipelines write, of a system that is as it was."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "predictions").mkdir()
    for name in ("deployed", "new"):
        shutil.copy(ROOT / "examples" / "predictions.csv", folder / f"predictions/{name}.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        statuses = [main.main(shlex.split(command)[3:]) for command in COMMANDS]
    return folder, statuses


def test_the_pipelines_run_and_leave_what_they_keep(documents):
    folder, statuses = documents
    assert len(COMMANDS) == 2 and set(statuses) <= {0, 1}
    kept = GITHUB["jobs"]["gate"]["steps"][-1]["with"]["path"].split()
    kept += GITLAB["stability"]["artifacts"]["paths"]
    assert len(kept) == 6 and all((folder / path).is_file() for path in kept)
    for path, status in (("gate.json", statuses[0]), ("report.json", statuses[1])):
        assert json.loads((folder / path).read_text(encoding="utf-8"))["status"] == status
    assert statuses[0] == 0, "the same predictions twice are no regression"


def test_the_schema_is_that_of_the_page(documents):
    folder, _ = documents
    for path in ("gate.json", "report.json"):
        document = json.loads((folder / path).read_text(encoding="utf-8"))
        assert document["schema"] == int(re.search(r"`schema` is (\d+)", PAGE)[1])
        entries = [document, *document["checks"], *document["numbers"]]
        entries += document.get("pairs", [])
        for entry in entries:
            assert not [name for name in entry if f"`{name}`" not in PAGE]
        assert all(number["speaks_of"] for number in document["numbers"])


def test_every_check_and_outcome_is_on_the_page():
    assert all(f"--fail-on {name}`" in PAGE for name in comparison.FAIL_ON)
    assert all(f"`{outcome}`" in PAGE for outcome in [*gate.OUTCOMES.values(), "undecided"])


def wide(path, labels, **columns):
    """A file of runs as columns, without a column of examples."""
    table = pd.DataFrame(columns | {f"run{run}": row for run, row in enumerate(labels, 1)})
    table.to_csv(path, index=False)
    return str(path)


def test_rows_in_another_order_are_refused_by_whatever_column_tells_them(tmp_path):
    """A gate on rows that are counted, not named, would compare other queries and say nothing."""
    draw = np.random.default_rng(0)
    labels = draw.choice(["a", "b", "c"], (3, 30))
    order = draw.permutation(30)
    calls = [f"q-{place}" for place in range(30)]
    old = wide(tmp_path / "old.csv", labels, handle=calls)
    new = wide(tmp_path / "new.csv", labels[:, order], handle=np.array(calls)[order])
    same = wide(tmp_path / "same.csv", labels, handle=calls)
    with pytest.raises(InputError, match=r"^handle of example .*--columns example=<column>"):
        compare(read_predictions(old), read_predictions(new))
    named = [read_predictions(path, "example=handle") for path in (old, new)]
    plain = [read_predictions(path) for path in (old, same)]
    assert compare(*named).between["churn"].value == compare(*plain).between["churn"].value
    other = wide(tmp_path / "other.csv", labels[:, order], note=draw.choice(["x", "y"], 30))
    once = wide(tmp_path / "once.csv", labels, note=draw.choice(["x", "y"], 30))
    assert compare(read_predictions(once), read_predictions(other)).between["churn"].value > 0


def test_strict_without_a_gate_is_refused_and_with_one_says_why_it_fails(tmp_path, capsys):
    draw = np.random.default_rng(1)
    files = [wide(tmp_path / name, draw.choice(["a", "b"], (3, 40))) for name in ("x.csv", "y.csv")]
    assert main.main(["compare", *files, "--strict"]) == 2
    assert capsys.readouterr().err.startswith("stabutils: --strict: got 'no gate'; expected one")
    assert main.main(["report", files[0], "--strict", "-o", str(tmp_path / "r.html")]) == 2
    capsys.readouterr()
    assert main.main(["compare", *files, "--strict", "--fail-on", "churn"]) == 1
    assert "churn: undecided, which --strict fails (better by" in capsys.readouterr().out


def test_three_models_against_two_are_not_called_two_models():
    draw = np.random.default_rng(2)
    change = compare(draw.integers(0, 3, (3, 60)), draw.integers(0, 3, (2, 60)))
    assert change.difference["churn"].note == "these models only"
    pair = compare(draw.integers(0, 3, (2, 60)), draw.integers(0, 3, (2, 60)))
    assert pair.difference["churn"].note == "these two models only"


def test_a_misspelt_gold_column_is_asked_for_where_it_is_said_to_be_unused(tmp_path):
    labels = np.random.default_rng(3).choice(["a", "b"], (2, 20))
    read = read_predictions(wide(tmp_path / "x.csv", labels, glod=labels[0]))
    assert read.gold is None and "not used: glod (gold? --columns gold=glod)" in read.layout
    said = read_predictions(tmp_path / "x.csv", "gold=glod")
    assert said.gold is not None and "not used" not in said.layout

"""docs/pipelines.md: its pipelines run, and its tables hold what the commands write."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from stabutils import __main__ as main
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
    assert len(kept) == 5 and all((folder / path).is_file() for path in kept)
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

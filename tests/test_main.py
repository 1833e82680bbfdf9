"""The checked runner: what papermill would let pass is refused before anything runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from stabutils import __main__ as main
from stabutils.errors import Incomplete, InputError
from stabutils.publishing import notebooks
from stabutils.study.study import Study

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["model", "encoder"])
def test_a_folder_of_a_checkpoint_is_meant_from_everywhere(tmp_path, monkeypatch, name):
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)
    whole = str((tmp_path / "mini").resolve())
    assert notebooks.absolute(name, "mini") == whole
    assert notebooks.absolute(name, "mini:3") == f"{whole}:3"
    assert notebooks.absolute(name, "owner/mini:3") == "owner/mini:3"
    assert notebooks.absolute(name, "compact") == "compact" or name == "encoder"


KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
FIRST = ROOT / "notebooks" / "01_measuring_instability.ipynb"


def test_schema_reads_the_parameters_cell_and_its_values_are_those_of_study():
    schema = notebooks.schema(FIRST)
    assert schema["runs"] == (int, 10) and schema["epochs"] == (int | None, None)
    defaults = Study()
    for name, (_, value) in schema.items():
        assert name in ("output", "probed") or getattr(defaults, name) == value


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", int, 7),
        ("0.001", float, 0.001),
        ("1e-3", float, 0.001),
        ("none", int | None, None),
        ("3", int | None, 3),
        ("false", bool, False),
        ("True", bool, True),
        ("007", str, "007"),
        (5, int, 5),
        (None, float | None, None),
    ],
)
def test_a_value_takes_the_type_of_its_cell(text, kind, value):
    parsed = notebooks.parse("knob", text, kind)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("many", int),
        ("1.5", int),
        ("no", bool),
        ("nan", float),
        ("none", int),
        (True, int),
        ([1], str),
        ("1_0x", int),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(text, kind):
    with pytest.raises(InputError, match="knob"):
        notebooks.parse("knob", text, kind)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "01", "-p", "sede", "7"], "sede"),
        (["run", "01", "-p", "runs", "many"], "runs"),
        (["run", "01", "-p", "runs", "1"], "runs"),
        (["run", "01", "-p", "precision", "fp16"], "precision"),
        (["run", "99"], "99"),
        (["run", "01", "--preset", "quik"], "quik"),
        (["publish", "01", "-p", "seed", "-1"], "seed"),
        (["run", "03", "--plan", "-p", "runs_per_method", "2"], "runs_per_method"),
        (["run", "03", "-p", "methods", "R-Dorp"], "R-Dorp"),
        (["run", "04", "--plan", "-p", "methods", "R-Dorp"], "R-Dorp"),
        (["run", "06", "--plan", "-p", "methods", "corected"], "corected"),
        (["run", "06", "-p", "methods", "deployed labels"], "asked for in 07"),
        (["run", "05", "--plan", "-p", "methods", "warm start"], "asked for in 07"),
        (["run", "07", "-p", "methods", "warm strat"], "warm strat"),
        (["run", "07", "-p", "runs", "101"], "runs"),
        (["run", "07", "-p", "change", "drop many"], "drop many"),
        (["run", "07", "--plan", "-p", "resampled", "drop many"], "drop many"),
        (["run", "01", "--plan", "-p", "probed", "2"], "probed"),
        (["run", "02", "-p", "permutations", "98"], "permutations"),
        (["run", "02", "-p", "levels", "1"], "levels"),
        (["run", "04", "-p", "turned", "-1"], "turned"),
        (["run", "04", "--plan", "-p", "blamed", "1531"], "blamed"),
        (["run", "05", "-p", "sizes", "2, 9"], "sizes"),
        (["run", "06", "--plan", "-p", "runs", "5"], "runs"),
        (["run", "09", "-p", "noise", "5, 100"], "noise"),
        (["run", "09", "--plan", "-p", "few_shot", "2.5"], "few_shot"),
        (["run", "09", "-p", "runs_per_condition", "3"], "runs_per_condition"),
        (["report", "no-such-file.csv"], "no-such-file.csv"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_line(arguments, named, capsys, monkeypatch):
    monkeypatch.setattr(main, "execute", lambda *_: pytest.fail("a notebook was run"))
    assert main.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and named in printed.err


def test_bad_input_is_also_said_where_programs_look(tmp_path, capsys):
    path = tmp_path / "end.json"
    assert main.main(["compare", "none.csv", "none.csv", "--json", str(path)]) == 2
    end = json.loads(path.read_text(encoding="utf-8"))
    assert (end["schema"], end["command"], end["status"]) == (1, "compare", 2)
    assert "none.csv" in end["error"]


def test_a_preset_is_overruled_by_p_and_must_name_known_parameters(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("runs: 20\nepochs: 3\n", encoding="utf-8")
    values = notebooks.parameters([FIRST], str(preset), [["runs", "6"]])[FIRST]
    assert values == {"runs": 6, "epochs": 3}
    for wrong in ("sede: 3\n", "runs: many\n", "- 1\n", "runs: [1\n", "\t"):
        preset.write_text(wrong, encoding="utf-8")
        with pytest.raises(InputError):
            notebooks.parameters([FIRST], str(preset), [])


@pytest.mark.parametrize("preset", ["quick", "course", "full"])
def test_a_preset_gives_each_notebook_what_it_knows(preset):
    every = notebooks.notebooks([])
    values = notebooks.parameters(every, preset, [])
    assert all(
        set(given) == set(notebooks.presets(preset)) & set(notebooks.schema(path))
        for path, given in values.items()
    )
    assert set().union(*values.values()) == set(notebooks.presets(preset))
    assert set(notebooks.parameters([FIRST], preset, [])[FIRST]) == {
        "runs",
        "probed",
    }  # alone too: not what others know


def test_a_parameter_cannot_become_code(tmp_path, monkeypatch):
    """A text with quotes and newlines arrives as that text."""
    nasty = 'x"\nraise SystemExit("code ran")\n"'
    notebook = nbformat.v4.new_notebook(metadata=KERNEL)
    cell = nbformat.v4.new_code_cell('output: str = ""', metadata={"tags": ["parameters"]})
    notebook.cells = [cell, nbformat.v4.new_code_cell("print(repr(output))")]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    notebooks.execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {"output": nasty})
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs[0].text.strip() == repr(nasty)


def test_a_notebook_that_fails_or_whose_kernel_dies_is_a_failure_by_name(tmp_path):
    for source, named in (
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 9)", "in.ipynb"),
    ):
        notebook = nbformat.v4.new_notebook(metadata=KERNEL)
        notebook.cells = [nbformat.v4.new_code_cell(source)]
        nbformat.write(notebook, tmp_path / "in.ipynb")
        with pytest.raises(Incomplete, match=named):
            notebooks.execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {})


OWN_NOTEBOOK = """
import sys
from pathlib import Path
from stabutils import __main__ as main
main.notebooks = lambda wanted: [Path(sys.argv[1])]
sys.exit(main.main(["run", *sys.argv[2:]]))
"""


def test_ctrl_c_ends_in_one_line_and_keeps_what_was_executed_where_the_command_ran(tmp_path):
    """Fails too if a run outside the clone would store its runs or results inside of it."""
    first = nbformat.v4.new_code_cell('output: str = ""', metadata={"tags": ["parameters"]})
    places = "from stabutils.study import paths\nprint(paths.results_root(), paths.run_store())"
    busy = "open('busy', 'w')\nimport time; time.sleep(300)"
    notebook = nbformat.v4.new_notebook(metadata=KERNEL)
    notebook.cells = [first, nbformat.v4.new_code_cell(places), nbformat.v4.new_code_cell(busy)]
    nbformat.write(notebook, tmp_path / "own.ipynb")
    unset = ("STABUTILS_RESULTS", "STABUTILS_RUNS")
    own = {name: value for name, value in os.environ.items() if name not in unset}
    words = [str(tmp_path / "own.ipynb"), "-o", "mine", "--json", "end.json"]
    process = subprocess.Popen(
        [sys.executable, "-c", OWN_NOTEBOOK, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=tmp_path,
        env={**own, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a job of a shell ignores it
    )
    while not (tmp_path / "busy").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    lines = [line for line in errors.splitlines() if line and "Executing" not in line]
    assert process.returncode == 130 and len(lines) == 1, errors
    assert lines[0].startswith("stabutils: stopped. ") and "the same command" in lines[0]
    assert "0 runs are stored in " in lines[0] and "Traceback" not in errors
    assert json.loads((tmp_path / "end.json").read_text(encoding="utf-8"))["status"] == 130
    kept = nbformat.read(tmp_path / "mine" / "own.ipynb", 4)
    text = "".join(cell.outputs[0].get("text", "") for cell in kept.cells if cell.get("outputs"))
    root = (tmp_path / "stabutils-results").resolve()
    assert list(map(Path, text.split()[:2])) == [root, root / "runs"]


def test_a_notebook_is_found_by_its_number_alone():
    assert notebooks.notebooks(["1"]) == notebooks.notebooks(["01"])


def test_without_jupyter_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nbformat", None)
    assert main.main(["run", "--plan"]) == 2
    assert capsys.readouterr().err.endswith('expected pip install "stabutils[study]"\n')


def test_a_misspelt_parameter_ends_the_command_with_status_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "stabutils", "run", "01", "-p", "sede", "7"],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (
        done.returncode == 2
        and "sede" in done.stderr
        and "seed" in done.stderr
        and not list(tmp_path.iterdir())
    )


def test_notebook_01_with_other_values_leaves_report_figures_and_record(tmp_path, monkeypatch):
    """The injection takes, the claims carry verdicts, and text of the data stays text in the
    report.
    """
    corpus = tmp_path / "mine.csv"
    rows = [
        f'"{word} {i} <script>alert({i})</script>",{label}'
        for i in range(60)
        for word, label in (
            ("turn on the light", "lights"),
            ("play a song", "music"),
            ("will it rain", "weather"),
        )
    ]
    corpus.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    folder = tmp_path / "out"
    given = [
        "-p",
        "dataset",
        str(corpus),
        "-p",
        "runs",
        "4",
        "-p",
        "epochs",
        "2",
        "-p",
        "workers",
        "2",
        "-o",
        str(folder),
        "--json",
        str(tmp_path / "run.json"),
    ]
    assert main.main(["run", "01", *given]) == 0
    [found] = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["notebooks"]
    churn = next(entry for entry in found["numbers"] if entry["metric"] == "churn")
    assert churn["low"] <= churn["value"] <= churn["high"] and churn["runs"] == 4
    assert all(claim["verdict"] for claim in found["claims"]) and Path(found["page"]).is_file()
    record = json.loads((folder / "01_measuring_instability.json").read_text(encoding="utf-8"))
    assert record["parameters"]["runs"] == 4 and record["provenance"]["recipe"]["epochs"] == 2
    churn = next(each for each in record["numbers"] if each["metric"] == "churn")
    assert churn["runs"] == 4
    verdicts = {claim["verdict"] for claim in record["claims"]}
    assert verdicts <= {"holds", "does not hold", "undecided at 4 runs", "cannot be tested here"}
    page = (folder / "01_measuring_instability.html").read_text(encoding="utf-8")
    assert "<script>alert(" not in page and "&lt;script&gt;alert(" in page
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}
    cells = nbformat.read(folder / "01_measuring_instability.ipynb", 4).cells
    assert sum("injected-parameters" in cell.metadata.get("tags", ()) for cell in cells) == 1


def test_an_executed_notebook_is_kept_with_links_that_lead_from_where_it_lies(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell(
            "[a](../README.md) [b](02_x.ipynb) [c](https://x.org) [d](#e)"
        ),
        nbformat.v4.new_code_cell(f'output = "{tmp_path.resolve()}"'),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_y.ipynb")
    notebooks.keep_executed(tmp_path / "01_y.ipynb", tmp_path / "kept.ipynb")
    prose, code = nbformat.read(tmp_path / "kept.ipynb", as_version=4).cells
    assert (
        prose.source
        == "[a](../../README.md) [b](../../notebooks/02_x.ipynb) [c](https://x.org) [d](#e)"
    )
    assert code.source == 'output = ""'


def test_a_kept_notebook_names_no_place_on_a_machine(tmp_path):
    given = nbformat.v4.new_code_cell(
        f'encoder = "/srv/models/tiny"\noutput = "{tmp_path.as_posix()}"',
        metadata={"tags": ["injected-parameters"]},
    )
    link = nbformat.v4.new_markdown_cell("[next](02.ipynb), [web](https://x.org)")
    nbformat.write(nbformat.v4.new_notebook(cells=[given, link]), tmp_path / "01.ipynb")
    notebooks.keep_executed(tmp_path / "01.ipynb", tmp_path / "kept.ipynb")
    cells = nbformat.read(tmp_path / "kept.ipynb", as_version=4).cells
    assert cells[0].source == 'encoder = "models/tiny"\noutput = ""'
    assert cells[1].source == "[next](../../notebooks/02.ipynb), [web](https://x.org)"

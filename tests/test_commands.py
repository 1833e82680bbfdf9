"""Every command that the documents show is executed, outside the clone, from an installed wheel.

What cannot be, because it trains for minutes or needs a network, is executed in a smaller form; HOW
says which and why. A command that HOW does not know fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "examples" / "README.md"]
PROGRAMS = "python|make|pip|pipx|uvx|conda|dask|papermill|pytest|jupyter"

# Beginning of a command -> how it is executed, and why not as it stands.
#   whole    as it stands, by the installed wheel, outside the clone
#   plan     with --plan, by the wheel, outside the clone
#   make     `make -n` in the clone; the `python -m stabutils run` that it prints, as a plan
#   dry      `make -n` in the clone alone
#   select   the tests that it names are there
#   test     the test that is named executes it
#   never    not at all
HOW = {
    "python -m stabutils run": ("plan", "trains for minutes, and starts kernels"),
    "python -m stabutils": ("whole", ""),
    "make study": ("make", "trains for minutes"),
    "make setup": ("dry", "installs from the network"),
    "make test": ("dry", "is what runs here"),
    "make lab": ("dry", "opens a browser"),
    "make site": ("dry", "minutes; tests/test_book.py builds a page"),
    "make figures": ("dry", "writes to the clone; tests/test_records.py and test_docs.py hold it"),
    "make verify": ("dry", "needs trained runs; tests/test_verify.py"),
    "make bundle": ("dry", "trains for minutes; tests/test_bundle.py"),
    "make benchmark": ("dry", "minutes; tests/test_benchmark.py"),
    "pip install .": ("test", "test_commands.py::wheel"),
    "pip wheel": ("test", "test_commands.py::wheel"),
    "pip install gt-all": ("never", "network"),
    "pip install": ("never", "network; the wheel is built and installed here without it"),
    "python -m pip install": ("never", "network"),
    "conda": ("never", "network, and no conda here"),
    "dask": ("never", "other machines; tests/test_cluster.py starts both"),
    "python benchmarks/benchmark.py": ("test", "test_benchmark.py::test_"),
    "python benchmarks/sweep.py": ("test", "test_benchmark.py::test_"),
    "python benchmarks/coverage.py": ("test", "test_coverage.py::test_"),
    "python benchmarks/few_texts.py": ("test", "test_benchmark.py::test_"),
    'python -c "import pandas as pd; pd.read_csv': ("test", "test_your_data.py::label_studio"),
    'python -c "import json; json.dump': ("test", "test_your_data.py::test_a_corpus_of_rasa"),
    'python -c "import json, pandas': ("test", "test_your_data.py::test_predictions_of_rasa"),
    'python -c "import glob': ("test", "test_your_data.py::test_predictions_of_rasa"),
    "python -m pytest": ("test", "test_commands.py::test_"),
    "pytest": ("select", "is part of what runs here, or takes minutes"),
}
# Names of files, corpora and checkpoints that would need the network, or an answer of the reader.
STANDS_FOR = {
    "massive": "my_corpus.csv",
    "distilbert-base-multilingual-cased": "compact",
    "<folder, package or hub id>": "compact",
}


def commands(page: str) -> list[str]:
    """The commands in a page's code, each as it stands.

    >>> commands("see `make lab` and `pip install x && make test`\\n\\n    dask scheduler    # prints\\n")
    ['make lab', 'pip install x', 'make test', 'dask scheduler']
    >>> commands("```yaml\\n    python -m x\\n```\\n`python-version`, `make`")
    []
    """
    prose = re.sub(r"^```.*?^```", "", page, flags=re.M | re.S)
    pieces = [inline or line for inline, line in re.findall(r"`([^`\n]+)`|^ {4}(.*)$", prose, re.M)]
    lines = [re.sub(r"\s+#.*", "", piece) for piece in pieces]
    parts = [part.strip() for line in lines for part in line.split(" && ")]
    return [part for part in parts if re.match(rf"(?:{PROGRAMS}) \S", part)]


def pipelines() -> list[str]:
    """The commands of the two pipelines on docs/pipelines.md, each as it stands."""
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    github, gitlab = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S))
    steps = github["jobs"]["gate"]["steps"]
    return [*(step["run"] for step in steps if "run" in step), *gitlab["stability"]["script"]]


def how(command: str) -> tuple[str, str]:
    """How a command is executed, and why: by the longest beginning that HOW has."""
    beginnings = [beginning for beginning in HOW if command.startswith(beginning)]
    return HOW[max(beginnings, key=len)] if beginnings else ("unknown", "")


GATES = [command for command in pipelines() if command.startswith("python -m stabutils")]
INSTALLS = set(pipelines()) - set(GATES)
EVERY = list(
    dict.fromkeys(
        command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))
    )
)
RUNNER = """
import contextlib, io, json, sys, traceback
from stabutils import __file__ as where, __main__ as main
found = {}
for name, words in json.load(sys.stdin).items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main.main(words)
        except SystemExit as end:
            status = end.code
        except Exception:
            status, _ = "raised", traceback.print_exc()
    found[name] = [status, said.getvalue()]
print(json.dumps({"where": where, "found": found}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The folder into which the package was installed as a wheel."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    shutil.copytree(
        ROOT / "stabutils", source / "stabutils", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", *quiet, "--no-build-isolation", str(source), "-w", str(source)]
    subprocess.run(build, check=True, capture_output=True)
    [built] = source.glob("*.whl")
    [line] = INSTALLS  # the same in both pipelines
    settings = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_TARGET": str(target)}
    words = [str(built) if word == "$STABUTILS" else word for word in shlex.split(line)]
    subprocess.run(
        [sys.executable, *words[1:]], check=True, capture_output=True, env=os.environ | settings
    )
    return target


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """A folder of what a reader has: a corpus, predictions, the notebooks and the examples."""
    folder = tmp_path_factory.mktemp("outside")
    for name in ("notebooks", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    sample = folder / "examples" / "predictions.csv"
    (folder / "predictions").mkdir()
    for name in ("predictions", "before", "after", "predictions/deployed", "predictions/new"):
        shutil.copy(sample, folder / f"{name}.csv")
    header, rows = sample.read_text(encoding="utf-8").split("\n", 1)
    for name, other in {"label": "pred", "gold": "label", "run": "seed", "example": "id"}.items():
        header = re.sub(rf"\b{name}\b", other, header)
    (folder / "exported.csv").write_text(f"{header}\n{rows}", encoding="utf-8")
    for run in (1, 2, 3):
        answers = "\n".join(f"{row},{'ab'[row % run % 2]}" for row in range(6))
        (folder / f"run{run}.csv").write_text(f"example,label\n{answers}\n", encoding="utf-8")
    for name in ("my_corpus", "switches"):
        tiny.write_csv(folder / f"{name}.csv")
    (folder / "my_intents").mkdir()
    data, draw = tiny.dataset(), np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        part = getattr(data, split)
        rows = [
            f"{text},{tiny.NAMES[label]}"
            for text, label in zip(part.texts, part.labels, strict=True)
        ]
        path = folder / "my_intents" / f"{split}.csv"
        path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
        right = np.eye(len(tiny.NAMES))[part.labels]
        answers = (right + draw.dirichlet(np.ones(len(tiny.NAMES)), (3, len(part)))) / 2
        np.save(folder / f"{split}.npy", answers.astype(np.float32))
    return folder


def printed_by_make(command: str) -> str:
    """What a target would do, from `make -n` as if the environment were ready."""
    for name, other in STANDS_FOR.items():
        command = command.replace(name, f'"{other}"' if "<" in name else other)
    _, target, *variables = shlex.split(command)
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "-n", "--no-print-directory", "-o", ".venv/.ready", target, *variables]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8", env=plain)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def words_of(command: str) -> list[str]:
    """The arguments of `python -m stabutils` by which a command is executed here."""
    kind = how(command)[0]
    if kind == "make":
        line = printed_by_make(command).splitlines()[-1].strip()
        command = "python " + line[line.index("-m stabutils") :]
    words = [STANDS_FOR.get(word, word) for word in shlex.split(command)[3:]]
    if "--columns" in words:
        words[1] = "exported.csv"
    return [*words, "--plan"] if kind in ("make", "plan") and "--plan" not in words else words


def test_how_every_command_is_executed_is_known_and_nothing_is_left_in_the_table():
    used = [how(command) for command in EVERY]
    assert not [command for command in EVERY if how(command)[0] == "unknown"]
    assert len(EVERY) > 40 and len(GATES) == 2
    assert not [command for command in HOW if not any(map(HOW[command].__eq__, used))]
    assert all(why for kind, why in used if kind != "whole")


@pytest.mark.parametrize("command", [each for each in EVERY if how(each)[0] in ("select", "test")])
def test_the_tests_that_stand_for_a_command_are_there(command):
    kind, why = how(command)
    file, _, name = why.partition("::")
    names = [name]
    if kind == "select":
        file = Path(next(word for word in shlex.split(command) if word.endswith(".py"))).name
        names = re.findall(r"-k (?:\"(.*?)\"|(\w+))", command)
        names = [part for pair in names for part in "".join(pair).split(" or ")]
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert all(re.search(rf"^def \w*{name}", source, re.M) for name in names)


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_what_make_would_do_is_a_line_of_python():
    targets = [command for command in EVERY if how(command)[0] == "dry"]
    assert len(targets) >= 6
    for command in targets:
        assert "python" in printed_by_make(command) or command.startswith("make setup")


def test_commands_run_outside_the_clone_from_an_installed_wheel(wheel, outside):
    asked = [*EVERY, *GATES]
    shown = {each: words_of(each) for each in asked if how(each)[0] in ("whole", "plan", "make")}
    assert len(shown) > 20
    own = {name: value for name, value in os.environ.items() if name != "STABUTILS_RESULTS"}
    own |= {"PYTHONPATH": str(wheel), "STABUTILS_RUNS": str(outside / "runs")}
    before = set(wheel.rglob("*.csv")) | set(ROOT.glob("*"))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(shown),
        capture_output=True,
        encoding="utf-8",
        cwd=outside,
        env=own,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert Path(answer["where"]).is_relative_to(wheel)
    fails = {each for each in shown if "--max-churn" in each}  # the sample's churn is above 5 %
    wrong = [each for each, end in answer["found"].items() if end[0] != int(each in fails)]
    assert {each: answer["found"][each] for each in wrong} == {}
    left = ["report.html", "report.json", "gate.json", "flips.csv", "pairs.csv"]
    assert all((outside / name).is_file() for name in [*left, "anchor.safetensors"])
    assert set(wheel.rglob("*.csv")) | set(ROOT.glob("*")) == before
    assert not (outside / "runs").exists() or not any((outside / "runs").iterdir())

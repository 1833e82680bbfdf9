"""The files around the package agree with each other, and the source keeps the promises made about
it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PACKAGE = sorted(ROOT.glob("stabutils/**/*.py"))
CONDA_NAMES = {"torch": "pytorch"}  # what conda-forge calls differently
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(text("pyproject.toml"))["project"]


def requirements() -> dict[str, Requirement]:
    """What the package needs with its extras, by name."""
    extras = project()["optional-dependencies"]
    names = list(project()["dependencies"])
    for extra in ("study", "test", "book", "cluster"):
        names += extras[extra]
    return {canonicalize_name(need.name): need for need in map(Requirement, names)}


def lock() -> dict[str, str]:
    lines = [
        line for line in text("requirements.lock").splitlines() if line and not line.startswith("#")
    ]
    return {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines)
    }


def output(*command: str) -> str:
    """What a command prints, run in the repository's root."""
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    ).stdout


def tracked() -> list[Path]:
    """Files of the repository that hold text, also those not yet committed."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = output("git", "ls-files", "-co", "--exclude-standard", "-z")
    paths = [ROOT / name for name in listed.split("\0") if name]
    binary = {".png", ".pdf", ".safetensors", ".npy", ".xz", ".zip", ".parquet", ".woff2"}
    return [path for path in paths if path.is_file() and path.suffix not in binary]


# --- pyproject.toml, requirements.lock, environment.yml, and what else names a version


def test_lock_is_sorted_plain_and_in_the_tested_ranges():
    versions = lock()
    assert list(versions) == sorted(versions)
    assert not [
        name for name, version in versions.items() if not re.fullmatch(r"[0-9][0-9a-z.]*", version)
    ]
    wrong = {
        name: versions.get(name)
        for name, need in requirements().items()
        if versions.get(name) not in need.specifier
    }
    assert wrong == {}
    assert versions["torch"] == "2.13.0"


def test_the_lowest_versions_are_the_bounds():
    lines = text("requirements-lowest.txt").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {name: Version(version) for name, version in pins.items()}
    bounds = {
        need.name: Version(str(need.specifier).removeprefix(">="))
        for need in map(Requirement, project()["dependencies"])
    }
    assert {name: pinned.get(name) for name in bounds} == bounds


def test_the_pythons_of_ci_are_those_the_package_is_for():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    tested = {each["python"] for each in jobs["base"]["strategy"]["matrix"]["include"]}
    listed = re.findall(r"Python :: (3\.\d+)", " ".join(project()["classifiers"]))
    assert tested == set(listed)
    assert all(version in SpecifierSet(project()["requires-python"]) for version in tested)


@pytest.mark.skipif(
    sys.platform != "linux", reason="made on Linux; other systems add a few packages"
)
def test_lock_is_closed():
    versions, missing = lock(), {}
    for name, version in versions.items():
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed.version.split("+")[0] == version:
            needs = [Requirement(each) for each in installed.requires or []]
            # torch's own build for a GPU brings its libraries along, under names of that build
            needs = [need for need in needs if not re.match("nvidia|cuda|triton", need.name)]
            missing |= {
                need.name: name
                for need in needs
                if canonicalize_name(need.name) not in versions
                and (need.marker is None or need.marker.evaluate({"extra": ""}))
            }
    assert missing == {}


def test_conda_environment_has_the_same_packages():
    entries = yaml.safe_load(text("environment.yml"))["dependencies"]
    needs = [Requirement(entry) for entry in entries if isinstance(entry, str)]
    conda = {need.name: need.specifier for need in needs}
    assert conda.pop("python") == Requirement("python" + project()["requires-python"]).specifier
    assert conda.pop("pip") is not None
    assert conda == {
        CONDA_NAMES.get(name, name): need.specifier for name, need in requirements().items()
    }
    assert {"pip": ["-e ."]} in entries


def test_conda_environment_uses_conda_forge_only():
    assert yaml.safe_load(text("environment.yml"))["channels"] == ["conda-forge", "nodefaults"]


def test_hooks_run_the_locked_tools():
    repos = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    revisions = {repo["repo"].rsplit("/", 1)[1]: repo["rev"].removeprefix("v") for repo in repos}
    assert revisions == {"ruff-pre-commit": lock()["ruff"], "nbstripout": lock()["nbstripout"]}


def test_citation_names_this_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert citation["title"].startswith(project()["name"]) and citation["authors"]


# --- Makefile, presets


def targets() -> set[str]:
    return set(re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.M).group(1).split())


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_help_lists_every_target():
    assert set(re.findall(r"^  make ([a-z]+) ", output("make", "help"), re.M)) == targets()


def test_every_target_the_documents_name_exists():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    prose = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    code = re.findall(r"```.*?```|`[^`\n]+`", prose, re.S)
    named = {target for piece in code for target in re.findall(r"(?:^|[\s`])make ([a-z]+)", piece)}
    assert named <= targets()


def make_study(*variables: str) -> subprocess.CompletedProcess:
    """What `make study` would do, without doing it and as if the environment were ready; also from
    within make.
    """
    command = ["make", "-n", "--no-print-directory", "-o", ".venv/.ready", "study", *variables]
    outside = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", env=outside)


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_variables_reach_the_runner():
    line = make_study(
        "PRESET=quick",
        "DATASET=massive",
        "MODEL=compact",
        "RUNS=10",
        "NOTEBOOKS=01 02",
        "PARAMS=epochs=4 seed=7",
    ).stdout
    words = line.replace("'", "").split()
    assert (
        words[words.index("-m") :]
        == (
            "-m stabutils run 01 02 --preset quick -p dataset massive "
            "-p model compact -p runs 10 -p epochs 4 -p seed 7"
        ).split()
    )


@pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")
def test_parameter_without_value_is_refused():
    outcome = make_study("PARAMS=epochs")
    assert outcome.returncode != 0
    assert "PARAMS: got epochs; expected name=value" in outcome.stderr


def test_presets_grow():
    presets = [
        yaml.safe_load(text(f"notebooks/presets/{name}.yaml"))
        for name in ("quick", "course", "full")
    ]
    runs = [preset["runs"] for preset in presets]
    assert runs == sorted(set(runs)) and runs[0] >= 2


# --- the source


def places(content: str) -> list[str]:
    """Absolute paths that exist on somebody's machine only.

    >>> places("see /home/ann/x, C:\\\\Users\\\\ann and file:///tmp/y")
    ['/home/ann', 'C:\\\\Users\\\\ann', '/tmp/y']
    >>> places("https://example.org/home/ann, ../work/x, ~/tmp/x, either/or")
    []
    """
    unix = r"(?<![\w.~<>{}$-])/(?:work|tmp|home|root|opt|Users)/\w+"
    return re.findall(rf"{unix}|\b[A-Z]:\\+Users\\+\w+", content)


def test_no_text_names_a_place_on_a_machine():
    sources = [path for path in tracked() if path != Path(__file__).resolve()]
    found = {
        str(path.relative_to(ROOT)): named
        for path in sources
        if (named := places(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, stabutils; print(sorted({'torch', 'transformers', 'IPython'} & "
        "set(sys.modules)))"
    )
    assert output(sys.executable, "-c", code).strip() == "[]"


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def without_encoding(source: str) -> list[int]:
    """Lines that open a text file in whatever encoding the machine happens to have.

    >>> without_encoding("open(p); path.read_text()")
    [1, 1]
    >>> without_encoding("open(p, 'rb'); open(p, encoding='utf-8'); path.read_text('utf-8')")
    []
    """
    return [call.lineno for call in calls(source) if is_careless(call)]


def is_careless(call: ast.Call) -> bool:
    positions = {
        "open": 3,
        "fdopen": 3,
        "read_text": 0,
        "write_text": 1,
    }  # of an encoding that is not named
    name = getattr(call.func, "attr", getattr(call.func, "id", None))
    if name not in positions or name == "open" and not isinstance(call.func, ast.Name):
        return False  # the open of an archive or an image is another thing
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    mode = named.get("mode", call.args[1] if "open" in name and len(call.args) > 1 else None)
    binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
    return not binary and len(call.args) <= positions[name] and "encoding" not in named


def unpicklers(source: str) -> list[str]:
    """Whatever could run code that a file brings along.

    >>> unpicklers("import pickle")
    ['pickle']
    >>> unpicklers("torch.load(p); np.load(p, allow_pickle=True); f(trust_remote_code=flag)")
    ['torch.load', 'allow_pickle', 'trust_remote_code']
    >>> unpicklers("np.load(p); np.load(p, allow_pickle=False); json.load(f)")
    []
    """
    modules = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal"}
    functions = r"(torch|joblib|pickle)\.load|\w+\.(read_pickle|hub\.load|load_state_dict_from_url)"
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in modules]
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [n for n in names if n.split(".")[0] in modules or re.fullmatch(functions, n)]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if re.fullmatch(functions, called) else []
            found += [
                k.arg
                for k in node.keywords
                if k.arg in ("allow_pickle", "trust_remote_code")
                and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            ]
    return found


def test_text_files_are_opened_as_utf8():
    sources = [*PACKAGE, *sorted(ROOT.glob("tests/**/*.py"))]
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sources
        if (lines := without_encoding(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_nothing_is_unpickled():
    sources = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PACKAGE}
    for path in NOTEBOOKS:  # magics are no Python; they call no loader either
        lines = "\n".join(
            code_of(cell) for cell in notebook(path)["cells"] if cell["cell_type"] == "code"
        )
        sources[path.name] = re.sub(r"^\s*[%!].*$", "", lines, flags=re.M)
    assert {name: found for name, source in sources.items() if (found := unpicklers(source))} == {}


# --- the notebooks


def notebook(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code_of(cell: dict) -> str:
    return "".join(cell["source"])


@each_notebook
def test_notebook_runs_anywhere(path):
    """No private kernel; which paths may not be named is checked for all text above."""
    kernel = notebook(path)["metadata"]["kernelspec"]
    assert kernel["name"] == "python3"
    assert path.stat().st_size < 500_000


@each_notebook
def test_notebook_has_one_parameters_cell_and_short_cells(path):
    cells = [cell for cell in notebook(path)["cells"] if cell["cell_type"] == "code"]
    tags = [tag for cell in cells for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1
    assert "injected-parameters" not in tags
    assert max(len(code_of(cell).splitlines()) for cell in cells) <= 25


@each_notebook
def test_notebook_holds_no_error(path):
    outputs = [output for cell in notebook(path)["cells"] for output in cell.get("outputs", [])]
    assert "error" not in {output["output_type"] for output in outputs}


@each_notebook
def test_notebook_metadata_is_stripped(path):
    holders = [notebook(path), *notebook(path)["cells"]]
    left = {
        key for holder in holders for key in holder["metadata"] if key in ("papermill", "execution")
    }
    assert left == set()

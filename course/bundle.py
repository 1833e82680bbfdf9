"""`make bundle`: one folder for a room without network, to be carried on a stick.

    python course/bundle.py [--to bundle] [--no-wheels] [--torch-index
    https://download.pytorch.org/whl/cpu]

Wheels are those of requirements.lock for this system and this version of Python: machines of
another kind need a bundle of their own. Trained runs of the embedded corpora come along, so that
nothing has to be trained twice.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "stabutils",
    "notebooks",
    "course",
    "docs",
    "examples",
    "figures",
    "records",
    "Makefile",
    "README.md",
    "LICENSE",
    "CITATION.cff",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "pyproject.toml",
    "requirements.lock",
)
README = """# stabutils, without network

For {system} and Python {python}. In this folder:

    PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels make setup PYTHON=python{python}
    make lab                        # notebooks, and the exercises in course/exercises
    make study NOTEBOOKS=01 PRESET=course  # a report to look at: a minute or two, its runs are here

The first command takes about five minutes, without network. Without Make (Windows):

    python -m pip install --no-index --find-links wheels -r requirements.lock -e .
    python -m jupyter lab

Open `notebooks/01_measuring_instability.ipynb`, or an exercise in `course/exercises`. `runs/`
has {runs} trained runs: what they answer is read, and only what is missing is trained. Everything
else: [README.md](README.md), [the course](course/README.md).
"""


def bundle(target: Path, runs: Path, wheels: bool = True, torch_index: str = "") -> None:
    """Writes the folder; one that is there already is added to, so that wheels are not fetched
    twice.
    """
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.egg-info")
    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target / part, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / part, target / part)
    (target / "runs").mkdir(exist_ok=True)
    trained = sorted(runs.glob("assistant*.safetensors"))
    for path in trained:
        shutil.copy(path, target / "runs")
    python = ".".join(map(str, sys.version_info[:2]))
    (target / "START.md").write_text(
        README.format(system=platform.system(), python=python, runs=len(trained)), encoding="utf-8"
    )
    if wheels:
        download(target / "wheels", torch_index)


def download(folder: Path, torch_index: str) -> None:
    """All that `make setup` would fetch: torch first, from its own index, for the others would
    bring another build.
    """
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--dest",
        str(folder),
        "--find-links",
        str(folder),
    ]
    if torch_index:
        subprocess.run([*pip, "--index-url", torch_index, "--no-deps", torch], check=True)
    subprocess.run([*pip, "-r", str(ROOT / "requirements.lock"), "setuptools>=77"], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=ROOT / "bundle")
    parser.add_argument("--no-wheels", action="store_true")
    parser.add_argument("--torch-index", default="")
    given = parser.parse_args()
    try:
        runs = Path(os.environ.get("STABUTILS_RUNS") or ROOT / "runs")
        bundle(given.to, runs, not given.no_wheels, given.torch_index)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bundle: {error}")
    print(given.to / "START.md")

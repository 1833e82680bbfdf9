"""The folder for a room without network, as far as it goes without one here: all but the wheels."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
bundling = runpy.run_path(str(ROOT / "course" / "bundle.py"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stick")
    runs = folder / "store"
    runs.mkdir()
    for name in (
        "assistant-compact-control-seed-0-00.safetensors",
        "assistant-7-compact-control-seed-0-00.safetensors",
        "mine-compact-control-seed-0-00.safetensors",
    ):
        (runs / name).write_bytes(b"run")
    for _ in range(2):  # what is there already is no obstacle
        bundling["bundle"](folder / "bundle", runs, wheels=False)
    return folder / "bundle"


def test_a_bundle_has_what_a_room_needs(bundle):
    for part in (
        "notebooks/01_measuring_instability.ipynb",
        "course/exercises/01_measuring_instability.ipynb",
        "course/README.md",
        "requirements.lock",
        "Makefile",
        "pyproject.toml",
        "stabutils/__init__.py",
    ):
        assert (bundle / part).is_file(), part
    names = sorted(path.name for path in (bundle / "runs").iterdir())
    assert len(names) == 2 and all(
        name.startswith("assistant") for name in names
    )  # nobody's own corpus is given away
    assert not list(bundle.rglob("__pycache__")) and not (bundle / "wheels").exists()


def test_its_readme_has_commands_that_exist_and_links_that_lead_somewhere(bundle):
    start = (bundle / "START.md").read_text(encoding="utf-8")
    first = start[start.index("In this folder") : start.index("Without Make")]
    assert (
        len(re.findall("^    .+", first, re.M)) == 3
        and "2 trained runs" in " ".join(start.split())
        and "{" not in start
    )
    targets = re.findall(r"^(\w+):", (bundle / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"make (\w+)", start)) <= set(targets)
    assert all((bundle / link).is_file() for link in re.findall(r"\]\(([^)]+)\)", start))


def test_the_package_in_a_bundle_takes_the_bundle_for_its_project(bundle):
    code = "from stabutils.provenance import project_root; print(project_root())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=bundle,
        env=os.environ | {"PYTHONPATH": str(bundle)},
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert Path(done.stdout.strip()) == bundle.resolve()

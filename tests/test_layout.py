"""The house: ten floors, imports only from the left, no circle, and no name that hides a module."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import stabutils

PACKAGE = Path(stabutils.__file__).parent
FLOORS = (
    {"errors", "provenance"},
    {"metrics", "data"},
    {"training", "records"},
    {"mitigations"},
    {"study"},
    {"analysis"},
    {"figures"},
    {"reports"},
    {"publishing"},
    {"__main__"},
)
LEVELS = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in FILES} | {"stabutils"}


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules of the package that a file imports, anywhere in it, also for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in NAMES else node.module)
    return frozenset(name for name in found if name.split(".")[0] == "stabutils")


def test_every_folder_has_a_floor():
    folders = {name_of(path).split(".")[1] for path in FILES}
    assert folders == set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_folder_imports_only_from_those_left_of_it(path):
    folder = name_of(path).split(".")[1]
    for name in imports(path):
        assert name != "stabutils", f"{name_of(path)} imports the package as a whole"
        other = name.split(".")[1]
        assert other == folder or LEVELS[other] < LEVELS[folder], f"{name_of(path)} imports {name}"


def test_no_imports_go_round():
    graph = {name_of(path): imports(path) - {name_of(path)} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_no_function_hides_a_module_of_its_name():
    for module in pkgutil.walk_packages(stabutils.__path__, "stabutils."):
        if module.name.endswith("__main__"):
            continue
        parent, _, name = module.name.rpartition(".")
        value = getattr(importlib.import_module(parent), name, None)
        assert value is None or inspect.ismodule(value), f"{module.name} is hidden"


def test_a_study_is_short():
    from stabutils.study.study import Study

    described = len(Study.__doc__.splitlines())
    assert len(inspect.getsource(Study).splitlines()) - described <= 115

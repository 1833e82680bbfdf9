"""Where the project lies and what made a result: kept beside answers, never part of their
identity.
"""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


def checkout() -> Path | None:
    """The clone that this package was installed from, or None for an installed wheel."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def project_root() -> Path:
    """The clone that this package was installed from, else the current folder."""
    return checkout() or Path.cwd()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project_root()), *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The kind of processor, as its bits depend on it: a name where the system tells one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()


@cache
def provenance() -> dict:
    """Package version, commit and whether it was changed since, library versions, kind of machine,
    threads a run.
    """
    libraries = ("numpy", "scipy", "scikit-learn", "torch", "transformers")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "stabutils")
    return {
        "stabutils": _version("stabutils"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changed is None else bool(changed),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in libraries},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "processor": _processor(),
        "threads": 1,
    }

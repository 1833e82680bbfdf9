"""One run store for the whole session: nothing is trained twice, and the user's own store is left
alone.

The store is named in the environment, so that worker processes, commands and notebook kernels
started by a test share it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import matplotlib
import pytest

collect_ignore = ["chaos.py"]  # whoever imports it trains small networks from then on

matplotlib.use("Agg")
HOME = pytest.StashKey[Path]()


def pytest_configure(config):
    if hasattr(
        config, "workerinput"
    ):  # a worker of pytest-xdist inherits the environment of its controller
        return
    home = Path(tempfile.mkdtemp(prefix="stabutils-tests-")).resolve()
    config.stash[HOME] = home
    os.environ |= {
        "STABUTILS_RUNS": str(home / "runs"),
        # read by torch when it is first imported, here and in every child process
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # the processes of pytest-xdist are one a core already; tests of workers name how many
        "LOKY_MAX_CPU_COUNT": "1",
        "IPYTHONDIR": str(
            home / "ipython"
        ),  # a kernel must not depend on the user's start-up files
        # otherwise jupyter_core warns about where it will look one day
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    if os.environ.get("STABUTILS_DATA"):  # notebooks run in their own folder
        os.environ["STABUTILS_DATA"] = str(Path(os.environ["STABUTILS_DATA"]).resolve())


def pytest_unconfigure(config):
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)


@pytest.fixture(scope="session")
def store() -> Path:
    """The session's run store."""
    return Path(os.environ["STABUTILS_RUNS"])


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora; tests that need it are skipped where there is none."""
    folder = os.environ.get("STABUTILS_DATA")
    if not folder:
        pytest.skip("STABUTILS_DATA names no folder of real corpora")
    if not Path(folder).is_dir():
        pytest.fail(f"STABUTILS_DATA: got {folder!r}; expected an existing folder")
    return Path(folder)

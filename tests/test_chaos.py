"""Killed anywhere, interrupted, out of disk: what is finished stays, and the bits are those of an
undisturbed study.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tiny

from stabutils import Study
from stabutils import __main__ as main
from stabutils.mitigations import Mitigation
from stabutils.training import preparation
from stabutils.training.files import read_file

HERE = Path(__file__).parent
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")


def python(
    body: str, *arguments: object, runs: Path, before=(), **more
) -> subprocess.CompletedProcess:
    """A program that finds the helpers of these tests and keeps its runs in a store of its own."""
    runs.mkdir(exist_ok=True)
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    command = [
        *before,
        sys.executable,
        "-W",
        "ignore",
        "-c",
        textwrap.dedent(body),
        *map(str, arguments),
    ]
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "STABUTILS_RUNS": str(runs), "PYTHONPATH": path},
        **more,
    )


def contents(runs: Path) -> dict:
    return {path.name: read_file(path) for path in sorted(runs.glob("*.safetensors"))}


def survive(folder: Path, kills: int, workers: int, runs: int, timeout: float) -> dict:
    """Kill a study so many times; hold what it leaves against an undisturbed one's. Returns the
    counts.
    """
    tiny.write_csv(folder / "tiny.csv")
    done = python(
        "import chaos; chaos.main()",
        folder,
        kills,
        workers,
        runs,
        runs=folder / "killed",
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert sum(counts["kills"].values()) == kills and counts["processes left"] == 0
    found, wanted = contents(folder / "killed"), contents(folder / "calm")
    assert found.keys() == wanted.keys() and len(found) == counts["runs"] >= runs
    for name in found:
        assert tiny.same(found[name][0], wanted[name][0]), name
        assert found[name][1]["identity"] == wanted[name][1]["identity"]
    left = {
        path.name
        for path in (folder / "killed").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    assert left == found.keys() | {"log"}  # nothing temporary, unfinished or damaged
    counts |= epochs(folder / "killed" / "log")
    assert counts["trainings resumed"] > 0  # the first kill sees to one
    return counts


def epochs(log: Path) -> dict:
    """Each training went on where the last epoch kept had left it, and none of a finished run was
    begun.
    """
    rows = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    assert [row for row in rows if row[2] == "True"] == []
    resumed = again = 0
    for seed in {row[0] for row in rows}:
        own = [(int(epoch), process) for one, epoch, _, process in rows if one == seed]
        steps = [
            (later - earlier, one != other) for (earlier, one), (later, other) in pairwise(own)
        ]
        assert own[0][0] == 0 and own[-1][0] == 3 and {step for step, _ in steps} <= {0, 1}
        resumed += sum(moved and step == 1 for step, moved in steps)
        again += sum(step == 0 for step, _ in steps)  # killed after an epoch and before it was kept
    return {"epochs": len(rows), "trainings resumed": resumed, "epochs done again": again}


@forks
def test_killed_at_random_moments(tmp_path):
    print(survive(tmp_path, kills=6, workers=1, runs=10, timeout=300))


@forks
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("kills", "workers", "runs"), [(60, 1, 80), (30, 2, 50)])
def test_killed_many_times(tmp_path, kills, workers, runs):
    print(survive(tmp_path, kills, workers, runs, timeout=1500))


@dataclass(frozen=True)
class Interrupted(Mitigation):
    """The user presses the stop button in the first epoch of the third run; once."""

    def epoch(self, training):
        if training.seeds.init == 2 and not os.environ.get("STABUTILS_INTERRUPTED"):
            os.environ["STABUTILS_INTERRUPTED"] = "yes"
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Makes studies in this process that share one fresh store."""
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    corpus = str(tiny.write_csv(tmp_path / "tiny.csv"))
    return lambda: Study(dataset=corpus, epochs=2, batch_size=16, workers=1, published=False)


def test_an_interrupt_from_the_keyboard_loses_the_run_at_work_only(small, tmp_path, monkeypatch):
    monkeypatch.setenv("STABUTILS_INTERRUPTED", "")
    usual = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # jobs in the background of a shell ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            small().retrain(Interrupted(), n=4)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert small().plan(Interrupted(), n=4)["stored"] == 2
    assert len(small().retrain(Interrupted(), n=4)) == 4  # its lock was given back
    assert not list((tmp_path / "runs").glob("unfinished/*"))


@forks
@pytest.mark.slow
@pytest.mark.long
def test_an_interrupt_of_workers_too_and_the_same_process_goes_on(tmp_path):
    """As a notebook's stop button does it: the signal goes to the kernel and to its workers."""
    tiny.write_csv(tmp_path / "tiny.csv")
    done = python(
        """
        import chaos, os, signal, sys, threading, time
        from pathlib import Path
        folder = Path(sys.argv[1])

        def interrupt():
            while chaos.lines(folder) < 6:
                time.sleep(0.01)
            os.killpg(os.getpid(), signal.SIGINT)

        study = chaos.study(folder, workers=2)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            study.retrain(chaos.Logged(), n=8)
        except KeyboardInterrupt:
            print(len(list((folder / "killed").glob("*.safetensors"))))
        print(len(study.retrain(chaos.Logged(), n=8)))
    """,
        tmp_path,
        runs=tmp_path / "killed",
        timeout=300,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr  # of a worker: all of them are silent
    stopped, finished = map(int, done.stdout.split())
    assert stopped < 8 == finished
    epochs(tmp_path / "killed" / "log")
    assert not list((tmp_path / "killed" / "unfinished").iterdir())


@forks
def test_workers_that_are_just_starting_say_nothing_at_an_interrupt(tmp_path):
    tiny.write_csv(tmp_path / "tiny.csv")
    done = python(
        """
        import chaos, multiprocessing, os, signal, sys, threading, time
        from pathlib import Path

        def interrupt():
            while not multiprocessing.active_children():
                time.sleep(0.01)
            time.sleep(0.3)
            os.killpg(os.getpid(), signal.SIGINT)

        study = chaos.study(Path(sys.argv[1]), workers=2)
        study.task
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            study.retrain(chaos.Logged(), n=200)
        except KeyboardInterrupt:
            print("stopped")
    """,
        tmp_path,
        runs=tmp_path / "stopped",
        timeout=300,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's job ignores it
    )
    assert done.stdout == "stopped\n" and "Traceback" not in done.stderr, done.stderr[-3000:]


# ---- a store that cannot be written


def test_a_limit_on_the_size_of_files(small, tmp_path):
    resource = pytest.importorskip("resource")
    first = small().retrain(n=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OSError, match="what was finished before is kept: .*seed-2-"):
            small().retrain(n=3)
        assert np.array_equal(small().retrain(n=2).labels, first.labels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "runs").rglob(".*"))
    assert len(small().retrain(n=3)) == 3


@pytest.mark.slow
@pytest.mark.long
def test_a_full_disk_and_one_that_can_only_be_read(tmp_path):
    alone = ["unshare", "--mount"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "mount", "-t", "tmpfs", "x", tmp_path]).returncode
    ):
        pytest.skip("no right to mount a small disk")
    tiny.write_csv(tmp_path / "tiny.csv")
    done = python(
        """
        import chaos, os, subprocess, sys
        from contextlib import suppress
        from pathlib import Path
        folder, runs = Path(sys.argv[1]), os.environ["STABUTILS_RUNS"]

        def mount(*options):
            subprocess.run(["mount", *options, runs], check=True)

        def attempt(n):
            try:
                return chaos.study(folder, 1).retrain(chaos.Logged(), n=n).labels.tolist()
            except OSError as error:
                print(error)

        mount("-t", "tmpfs", "-o", "size=256k", "tmpfs")
        first, filler = attempt(2), Path(runs, "filler")
        with suppress(OSError):
            filler.write_bytes(bytes(300_000))
        assert attempt(3) is None and attempt(2) == first and not list(Path(runs).rglob(".*"))
        mount("-o", "remount,ro")
        assert attempt(3) is None and attempt(2) == first
        mount("-o", "remount,rw")
        filler.unlink()
        print(len(attempt(3)))
    """,
        tmp_path,
        runs=tmp_path / "killed",
        timeout=200,
        before=alone,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    full, readonly, last = done.stdout.splitlines()
    assert "No space left on device; what was finished before is kept" in full and "seed-2-" in full
    assert "Read-only file system" in readonly and last == "3"


# ---- notebooks


def test_a_notebook_whose_kernel_dies_ends_the_command_with_a_status(tmp_path, monkeypatch, capsys):
    """The notebook that papermill leaves says that all cells were completed; nobody may believe
    it.
    """
    notebook = nbformat.v4.new_notebook(metadata=KERNEL)
    notebook.cells = [
        nbformat.v4.new_code_cell('output: str = ""', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)"),
    ]
    nbformat.write(notebook, tmp_path / "01_dies.ipynb")
    monkeypatch.setattr(main, "notebooks", lambda wanted: [tmp_path / "01_dies.ipynb"])
    assert main.main(["run", "01", "-p", "output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "stabutils: 01_dies.ipynb: its kernel died, often for want of memory"
    )
    assert not list((tmp_path / "out").glob("*.html"))


def test_a_notebook_on_an_incomplete_sweep_says_so_first_and_leaves_no_report(
    tmp_path, monkeypatch, capsys
):
    notebook = nbformat.v4.new_notebook(metadata=KERNEL)
    notebook.cells = [
        nbformat.v4.new_code_cell('output: str = ""', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import stabutils\nraise stabutils.Incomplete('1 of 3 runs could not be trained')"
        ),
    ]
    nbformat.write(notebook, tmp_path / "01_diverges.ipynb")
    monkeypatch.setattr(main, "notebooks", lambda wanted: [tmp_path / "01_diverges.ipynb"])
    assert main.main(["run", "01", "-p", "output", str(tmp_path / "out")]) == 1
    first = next(
        line for line in capsys.readouterr().err.splitlines() if line.startswith("stabutils")
    )
    assert re.match(
        r"stabutils: 01_diverges.ipynb, cell \d: Incomplete: 1 of 3 runs could not be trained",
        first,
    )
    assert not list((tmp_path / "out").glob("*.html"))

"""A study on a Dask cluster: a real scheduler and two workers as processes of their own, one of which is killed."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from stabutils import models
from stabutils.errors import InputError
from stabutils.mitigations import Mitigation
from stabutils.study import Study

dask = pytest.importorskip("dask")
pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Patient(Mitigation):
    """Control, slow enough to be killed: notes process, seed and epoch."""

    def epoch(self, training):
        with open(os.environ["CLUSTER_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {training.seeds.init} {training.epoch}\n")
        time.sleep(0.2)


class Shipped:
    """A task's `build` that notes each process it is unpickled in."""

    def __init__(self, build):
        self.build = build

    def __call__(self):
        return self.build()

    def __setstate__(self, state):
        vars(self).update(state)
        with open(os.environ["CLUSTER_LOG"] + ".shipped", "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()}\n")


def prepare(*given):
    task = tiny.prepare(*given)
    return replace(task, build=Shipped(task.build))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a scheduler with two workers on loopback."""
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "CLUSTER_LOG": str(folder / "log"), "PYTHONWARNINGS": "ignore",
                   "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "300s"}  # also on a machine that is busy with other things
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--no-dashboard", "--scheduler-file", str(folder / "scheduler.json")]
    settings = {"env": environment, "cwd": folder, "stderr": subprocess.DEVNULL, "start_new_session": True}
    processes = [subprocess.Popen(command, **settings)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(folder / "scheduler.json"),
              "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
    processes += [subprocess.Popen(worker, **settings) for _ in "ab"]
    until = time.monotonic() + 60
    while not (folder / "scheduler.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    yield json.loads((folder / "scheduler.json").read_text(encoding="utf-8"))["address"], folder / "log"
    for process in reversed(processes):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "prepare", prepare)
    corpus = str(tiny.write_csv(tmp_path / "tiny.csv"))

    def make(folder: str, **knobs) -> Study:
        monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / folder))
        return Study(dataset=corpus, epochs=3, batch_size=16, published=False, **knobs)

    return make


@pytest.mark.filterwarnings("ignore")  # of Dask, when a worker is lost
def test_a_worker_killed_in_a_training_costs_that_training_only(cluster, small, tmp_path, monkeypatch):
    address, log = cluster
    monkeypatch.setenv("CLUSTER_LOG", str(log))

    def kill():
        """The worker that has just ended the first epoch of a training, once some are done."""
        process, epoch, done = 0, -1, 0
        while done < 5 or epoch != 0:
            time.sleep(0.02)
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
            process, _, epoch = map(int, lines[-1].split()) if lines else (0, 0, -1)
            done = len(lines)
        os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with dask.config.set({"distributed.comm.timeouts.tcp": "300s"}):
        runs = small("far", cluster=address).retrain(Patient(), n=6)
    killer.join()
    rows = [tuple(map(int, line.split())) for line in log.read_text(encoding="utf-8").splitlines()]
    trained = {(process, seed) for process, seed, _ in rows}
    # Six, the one that was lost, and at most one that had ended there and had not been fetched.
    assert len({process for process, _, _ in rows}) >= 2 and len(trained) <= 8
    assert len(runs) == 6 <= sum(epoch == 2 for _, _, epoch in rows) <= 8
    shipped = (log.parent / "log.shipped").read_text(encoding="utf-8").split()
    assert len(shipped) <= len({process for process, _, _ in rows}) + 2  # not once a run
    near = small("near", workers=1).retrain(Patient(), n=6)
    assert np.array_equal(runs.probabilities, near.probabilities) and runs.names == near.names
    left = [path.name for path in (tmp_path / "far").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert sorted(left) == sorted(f"{name}.safetensors" for name in runs.names)
    _, record = small("far").store.read(runs.names[0])
    assert {"commit", "libraries", "processor"} <= record.keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "tcp://", "ftp://x:1", "local:3"])
def test_a_scheduler_that_cannot_be_reached_is_one_clear_error(small, address, monkeypatch):
    monkeypatch.setattr("stabutils.cluster.SECONDS", 2)
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        small("far", cluster=address).retrain(n=2)
    assert str(caught.value).startswith(f"cluster: got {address!r}; expected ") and "\n" not in str(caught.value)
    assert time.monotonic() - began < 15


def test_a_cluster_is_named_by_knob_or_environment(small, monkeypatch):
    monkeypatch.setenv("STABUTILS_CLUSTER", "tcp://there:1")
    assert small("far").address == "tcp://there:1" and small("far", cluster="local").address == "local"
    assert small("far").output() == small("far", cluster="local").output()

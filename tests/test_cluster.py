"""A study on a Dask cluster: a real scheduler and two workers as processes of their own, one of
which is killed.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from stabutils.errors import Incomplete, InputError
from stabutils.mitigations import Mitigation
from stabutils.study.study import Study
from stabutils.training import preparation

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
cluster_module = importlib.import_module("stabutils.study.cluster")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Held(Mitigation):
    """Control that notes process, seed and epoch. Seed 2 stands still after its first epoch until
    its process was killed, which is noted in the log's name with `.killed` behind it.
    """

    def epoch(self, training):
        log = Path(os.environ["CLUSTER_LOG"])
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {training.seeds.init} {training.epoch}\n")
        while training.seeds.init == 2 and not log.with_suffix(".killed").exists():
            time.sleep(0.05)


class Shipped:
    """A task's `build` that notes each process it is unpickled in."""

    def __init__(self, build):
        self.build = build

    def __call__(self):
        return self.build()

    def __setstate__(self, state):
        vars(self).update(state)
        with open(
            Path(os.environ["CLUSTER_LOG"]).with_suffix(".shipped"), "a", encoding="utf-8"
        ) as log:
            log.write(f"{os.getpid()}\n")


def prepare(*given):
    task = tiny.prepare(*given)
    return replace(task, build=Shipped(task.build))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a scheduler with two workers on loopback."""
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "CLUSTER_LOG": str(folder / "log"),
        "PYTHONWARNINGS": "ignore",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "300s",
    }  # also on a machine that is busy with other things
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(folder / "scheduler.json"),
    ]
    settings = {
        "env": environment,
        "cwd": folder,
        "stderr": subprocess.DEVNULL,
        "start_new_session": True,
    }
    processes = [subprocess.Popen(command, **settings)]
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        "--scheduler-file",
        str(folder / "scheduler.json"),
        "--nthreads",
        "1",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
    ]
    processes += [subprocess.Popen(worker, **settings) for _ in "ab"]
    try:
        with distributed.Client(
            scheduler_file=str(folder / "scheduler.json"), timeout=60, set_as_default=False
        ) as one:
            one.wait_for_workers(2, timeout=60)
            address = one.scheduler.address
        yield address, folder / "log"
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "prepare", prepare)
    corpus = str(tiny.write_csv(tmp_path / "tiny.csv"))

    def make(folder: str, **knobs) -> Study:
        monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / folder))
        return Study(dataset=corpus, epochs=3, batch_size=16, published=False, **knobs)

    return make


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills processes of its own")
@pytest.mark.filterwarnings("ignore")  # of Dask, when a worker is lost
def test_a_worker_killed_in_a_training_costs_that_training_only(
    cluster, small, tmp_path, monkeypatch
):
    address, log = cluster
    monkeypatch.setenv("CLUSTER_LOG", str(log))

    def kill():
        """The worker that seed 2 stands still on, once the other has trained all other runs."""
        while len(list((tmp_path / "far").glob("*.safetensors"))) < 5:
            time.sleep(0.05)
        (process,) = [process for process, seed, _ in rows() if seed == 2]
        os.kill(process, signal.SIGKILL)
        log.with_suffix(".killed").touch()

    def rows():
        return [
            tuple(map(int, line.split())) for line in log.read_text(encoding="utf-8").splitlines()
        ]

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    runs = small("far", cluster=address).retrain(Held(), n=6)
    killer.join()
    trained = Counter((process, seed) for process, seed, _ in rows())
    assert (
        len(runs) == 6 and len(trained) == 7 and sorted(trained.values()) == [1, 3, 3, 3, 3, 3, 3]
    )
    shipped = log.with_suffix(".shipped").read_text(encoding="utf-8").split()
    assert (
        len(shipped) == len(set(shipped)) <= 3
    )  # once a process: two, and the one that was started for the dead
    near = small("near", workers=1).retrain(Held(), n=6)
    assert np.array_equal(runs.probabilities, near.probabilities) and runs.names == near.names
    left = [
        path.name
        for path in (tmp_path / "far").rglob("*")
        if path.is_file() and path.suffix != ".lock"
    ]
    assert sorted(left) == sorted(f"{name}.safetensors" for name in runs.names)
    _, record = small("far").answers.store.read(runs.names[0])
    assert {"commit", "libraries", "processor"} <= record.keys()


class Fake:
    """A cluster of one worker that ends every training with an error."""

    id = "fake"

    def __init__(self, error):
        self.error, self.submitted, self.unregistered = error, 0, False

    def register_plugin(self, plugin, name):
        assert name == self.id and plugin.task == "task"

    def unregister_worker_plugin(self, name):
        self.unregistered = name == self.id

    def nthreads(self):
        return {"worker": 1}

    def submit(self, function, *call, pure):
        self.submitted += 1
        return self

    def done(self):
        return True

    def result(self):
        raise self.error


def errors():
    from distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    worker = SimpleNamespace(address="tcp://there:1", name="one")
    return [KilledWorker("run", worker, 3), CancelledError("run"), CommClosedError("gone")]


@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
def test_a_cluster_that_is_lost_is_one_clear_error(error, monkeypatch):
    """Fails if it is passed over in silence: then runs would be missing and nobody told."""
    fake = Fake(error)
    monkeypatch.setattr(cluster_module, "connected", lambda *given: nullcontext(fake))
    results = cluster_module.trained("there", 0, "task", iter([("one",), ("two",)]), len)
    with pytest.raises(Incomplete, match=rf"lost a training \({type(error).__name__}\)"):
        list(results)
    assert fake.submitted == 1 and fake.unregistered


def test_workers_that_nobody_can_reach_are_ended(monkeypatch):
    """Else the processes of a local cluster outlive the error."""
    closed = []

    class Local:
        def __init__(self, **settings):
            pass

        def close(self):
            closed.append(self)

    def unreachable(*given, **settings):
        raise OSError("nobody there")

    monkeypatch.setattr(cluster_module, "LocalCluster", Local)
    monkeypatch.setattr(cluster_module, "Client", unreachable)
    with pytest.raises(InputError, match="cluster: got 'local'"):
        with cluster_module.connected("local", 1):
            pass
    assert len(closed) == 1


def test_another_error_of_a_training_is_passed_on(monkeypatch):
    fake = Fake(ZeroDivisionError("in the training"))
    monkeypatch.setattr(cluster_module, "connected", lambda *given: nullcontext(fake))
    with pytest.raises(ZeroDivisionError):
        list(cluster_module.trained("there", 0, "task", iter([("one",)]), len))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "nonsense", "tcp://", "ftp://x:1", "local:3"]
)
def test_a_scheduler_that_cannot_be_reached_is_one_clear_error(small, address, monkeypatch):
    monkeypatch.setattr("stabutils.study.cluster.SECONDS", 2)
    with pytest.raises(InputError) as caught:
        small("far", cluster=address).retrain(n=2)
    assert str(caught.value).startswith(f"cluster: got {address!r}; expected ") and "\n" not in str(
        caught.value
    )


def test_a_cluster_is_named_by_knob_or_environment(small, monkeypatch):
    monkeypatch.setenv("STABUTILS_CLUSTER", "tcp://there:1")
    assert (
        small("far").dispatch.cluster == "tcp://there:1"
        and small("far", cluster="local").dispatch.cluster == "local"
    )
    assert small("far").output() == small("far", cluster="local").output()

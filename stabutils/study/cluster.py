"""More than one machine: the trainings of a study on a Dask cluster. An extra: `pip install
stabutils[cluster]`.

Workers need this package and one thread each; they share neither disk nor store with the process
that asks. Dask pickles between the two: a cluster is trusted as this machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from distributed import (
    CancelledError,
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    WorkerPlugin,
    get_worker,
)
from distributed.comm import CommClosedError
from joblib import cpu_count

from stabutils.errors import Incomplete, InputError

if TYPE_CHECKING:
    from stabutils.training.task import Task

SECONDS = 10  # until a scheduler must have answered
LATE = 60  # until one that has answered must have a worker
ALLOWED = '"local", or the address of a Dask scheduler such as tcp://10.0.0.1:8786'


class Held(WorkerPlugin):
    """A task, given once to each worker, also to one that comes later or is started again.

    Scattered data would not do: Dask keeps one copy of what no worker is at, and that is lost for
    ever with its worker.
    """

    def __init__(self, task: Task):
        self.task = task


def _on_worker(held: str, function: Callable, *call):
    plugins: Mapping[str, Any] = get_worker().plugins
    return function(plugins[held].task, *call)


def trained(
    address: str, workers: int, task: Task, calls: Iterator[tuple], function: Callable
) -> Generator:
    """What `function(task, *call)` returns for each of `calls`, as it comes, from a cluster.

    A call is drawn when a worker is free for it. Raises InputError when there is no cluster to be
    had, Incomplete when it is lost, or several workers with the same training.
    """
    underway: list[Future] = []
    with connected(address, workers) as client:
        try:
            client.register_plugin(Held(task), client.id)
            while True:
                new = islice(calls, max(0, size(client) - len(underway)))
                underway += [
                    client.submit(_on_worker, client.id, function, *call, pure=False)
                    for call in new
                ]
                if not underway:
                    return
                for future in [future for future in underway if future.done()]:
                    underway.remove(future)
                    yield future.result()
                time.sleep(0.2)  # and look again: there may be more workers, too
        except (KilledWorker, CancelledError, CommClosedError) as error:
            raise Incomplete(
                f"the cluster lost a training ({type(error).__name__}); what is finished is "
                "stored, and the same request goes on from there"
            ) from error
        finally:
            with suppress(OSError):  # of a worker that has just died
                client.unregister_worker_plugin(client.id)


def size(client: Client) -> int:
    """How many trainings the cluster can be at."""
    threads = client.nthreads()
    most = max(threads.values(), default=1)
    if most > 1:  # torch has one state of its randomness a process
        raise InputError("threads of a cluster's worker", most, "1: dask worker --nthreads 1")
    return len(threads)


@contextmanager
def connected(address: str, workers: int) -> Iterator[Client]:
    """ "local" starts `workers` processes here (0: one a core)."""
    with ExitStack() as ends:
        at: str | LocalCluster = address
        if address == "local":
            at = LocalCluster(
                n_workers=workers or cpu_count(), threads_per_worker=1, dashboard_address=None
            )
            ends.callback(at.close)
        try:
            client = Client(at, timeout=SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # nobody there, or no address at all
            allowed = f"{ALLOWED}, that can be reached ({type(error).__name__})"
            raise InputError("cluster", address, allowed) from None
        ends.callback(client.close)
        try:
            client.wait_for_workers(1, timeout=LATE)
        except TimeoutError:
            allowed = f"a scheduler that has a worker within {LATE} seconds"
            raise InputError("cluster", address, allowed) from None
        yield client

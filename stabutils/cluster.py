"""More than one machine: the trainings of a study on a Dask cluster. An extra: `pip install stabutils[cluster]`.

Workers need this package and one thread each; they share neither disk nor store with the process that asks. Dask and
joblib pickle between the two: a cluster is trusted as this machine is.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from joblib import cpu_count, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from .errors import InputError

SECONDS = 10  # until a scheduler must have answered
LATE = 60  # until one that has answered must have a worker
ALLOWED = '"local", or the address of a Dask scheduler such as tcp://10.0.0.1:8786'


@contextmanager
def connected(address: str, workers: int, shared: object) -> Iterator[int]:
    """Let joblib train on the cluster at `address`, `shared` sent there once; yields how many trainings run at a time.

    "local" starts `workers` processes here (0: one a core). InputError when there is no cluster to be had.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError("cluster", address, "the extra that it needs: pip install stabutils[cluster]") from None
    if address == "local":
        at = LocalCluster(n_workers=workers or cpu_count(), threads_per_worker=1, dashboard_address=None)
    else:
        at = address
    try:
        client = Client(at, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # nobody there, or no address at all
        raise InputError("cluster", address, f"{ALLOWED}, that can be reached ({type(error).__name__})") from None
    try:
        yield from _backend(client, address, shared)
    finally:
        client.close()
        if address == "local":
            at.close()


def _backend(client, address: str, shared: object) -> Iterator[int]:
    try:
        client.wait_for_workers(1, timeout=LATE)
    except TimeoutError:
        raise InputError("cluster", address, f"a scheduler that has a worker within {LATE} seconds") from None
    threads = client.nthreads()
    if set(threads.values()) != {1}:  # torch has one state of its randomness a process
        raise InputError("threads of a cluster's worker", max(threads.values()), "1: dask worker --nthreads 1")
    from distributed import CancelledError, KilledWorker

    with parallel_config(backend="dask", client=client, scatter=[shared], wait_for_workers_timeout=LATE):
        try:
            yield len(threads)
        except (KilledWorker, CancelledError) as error:  # several workers died of a training, or the line was cut
            raise TerminatedWorkerError(str(error)) from error

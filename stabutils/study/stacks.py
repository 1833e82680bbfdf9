"""Runs on a device: several at once where the mitigation allows it, in this process."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from stabutils.errors import Incomplete, InputError
from stabutils.provenance import provenance
from stabutils.training.hooks import describe, source

if TYPE_CHECKING:
    from stabutils.training.task import Task

AT_ONCE = 10  # runs stacked: beyond about ten a GPU gains little


class Slower(UserWarning):
    """Runs are trained one after another, or fewer of them at once."""


def trained_on(device: str, task: Task, calls: Iterable[tuple], alone) -> Generator:
    """What each of `calls` answers, as `dispatch.train_run` returns it, in their order.

    Parameters
    ----------
    calls : of tuples
        Arguments of `dispatch.train_run` after the task, all of one mitigation.
    alone : callable
        `dispatch.train_run`, for runs that cannot be stacked.

    Raises
    ------
    Incomplete
        When the device has no room for one run.
    """
    calls = iter(calls)
    size = 1 if device == "mps" else AT_ONCE  # mps does not know all that stacking takes
    while waiting := list(islice(calls, size)):
        while waiting:
            some = waiting[:size]
            try:
                if len(some) > 1:
                    results = together(device, task, some)
                else:
                    results = [alone(task, *some[0], device=device)]
            except RuntimeError as error:
                size = fewer(device, len(some), error)
                gc.collect()
                continue
            if results is None:
                size = 1
                continue
            yield from results
            waiting = waiting[len(results) :]


def together(device: str, task: Task, calls: Sequence[tuple]) -> list[tuple] | None:
    """The results of some runs trained at once; None, with a warning, where they cannot be."""
    from stabutils.training import devices, stacked
    from stabutils.training.probes import PROBES
    from stabutils.training.state import Diverged

    (mitigation, *_), runs, _, extras, _, teachers = zip(*calls, strict=True)
    keep = set().union(*extras)
    probes = [probe for name, probe in PROBES.items() if name in keep]
    seeds = [run.seeds for run in runs]
    made_by = provenance() | {"device": devices.describe(device), "together": len(runs)}
    try:
        answers = stacked.train(task, mitigation, seeds, probes, teachers, device)
    except Diverged as error:
        answers = [error] * len(runs)
    except (InputError, RuntimeError) as error:
        reason = str(error)
        if not isinstance(error, InputError):
            foreign = any(source(type(atom)) for atom in mitigation.flattened())
            if devices.lacks_memory(error) or not foreign:
                raise
            reason = f"{describe(mitigation)} cannot train stacked ({reason.splitlines()[0]})"
        message = f"runs are trained one after another on {device}: {reason}"
        warnings.warn(message, Slower, stacklevel=2)
        return None
    return [
        (run, {}, str(found), made_by) if isinstance(found, Diverged) else (run, found, "", made_by)
        for run, found in zip(runs, answers, strict=True)
    ]


def fewer(device: str, count: int, error: RuntimeError) -> int:
    """How many runs to train at once after `count` were too many; raises what is no want of
    memory."""
    from stabutils.training import devices

    if not devices.lacks_memory(error):
        raise error
    if count == 1:
        raise Incomplete(
            f"{device} has no room for one run; a smaller batch_size or model needs less, and "
            "device='cpu' has more. What is finished is stored"
        ) from error
    half = count // 2
    message = f"{device} has no room for {count} runs at once; going on with {half}"
    warnings.warn(message, Slower, stacklevel=3)
    return half

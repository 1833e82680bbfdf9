"""A real study that is killed again and again. Worker processes import this module too, with its
mitigation.

Run as `python -c "import chaos; chaos.main()" folder kills workers runs`: forks the study's
process, kills it, or one of its workers, or all of them at a random moment, and starts it anew
until all runs are done; then once more, in another store, undisturbed. A study that ends before all
kills is asked for one run more. Prints counts as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tiny

from stabutils import Incomplete, Study
from stabutils.mitigations import Mitigation
from stabutils.training import loop, preparation, state

preparation.prepare = tiny.prepare
loop.train = partial(loop.train, save_every=0)  # where a training stands is kept after every epoch
EPOCHS = 4


@dataclass(frozen=True)
class Logged(Mitigation):
    """Control that notes each epoch: seed, epoch, and whether the run was finished, so that this
    one is in vain.

    As long as there is a file `hold` it stands still in its second epoch, to be killed with its
    first one kept.
    """

    def step(self, training):
        while training.epoch == 1 and (Path(os.environ["STABUTILS_RUNS"]) / "hold").exists():
            time.sleep(0.01)

    def epoch(self, training):
        folder, seed = Path(os.environ["STABUTILS_RUNS"]), training.seeds.init
        finished = any(folder.glob(f"*-seed-{seed}-*.safetensors"))
        with open(folder / "log", "a", encoding="utf-8") as log:
            log.write(f"{seed} {training.epoch} {finished} {os.getpid()}\n")


def study(folder: Path, workers: int) -> Study:
    return Study(
        dataset=str(folder / "tiny.csv"),
        epochs=EPOCHS,
        batch_size=16,
        workers=workers,
        published=False,
    )


def begin(folder: Path, workers: int, runs: int) -> int:
    """The study in a forked process, the leader of a group of its own with its workers."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    try:
        study(folder, workers).retrain(Logged(), n=runs)
    except Incomplete as error:  # a worker was killed
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def ended(child: int, seconds: float) -> int | None:
    """Wait status of the study's process; None when it is still at it after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    return None


def workers_of(leader: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, encoding="utf-8"
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [
        int(pid) for pid, parent, args in rows if parent == str(leader) and "LokyProcess" in args
    ]


def strike(leader: int, draw: random.Random, which: str = "") -> str:
    """SIGKILL to a worker (if there is one yet), to the study's process alone, or to all of them;
    at random.
    """
    found = workers_of(leader)
    which = which or draw.choice(["driver", "worker", "all"] if found else ["driver"])
    if which == "all":
        os.killpg(leader, signal.SIGKILL)
    else:
        os.kill(leader if which == "driver" else draw.choice(found), signal.SIGKILL)
    return which


def alive(leader: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(leader, 0)
        return True
    return False


def lines(folder: Path) -> int:
    log = folder / "killed" / "log"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def moment(child: int, folder: Path, draw: random.Random) -> int | None:
    """Wait for a random moment: so many more epochs, and a little. The wait status when the study
    ended before.
    """
    wanted, status = lines(folder) + draw.randrange(EPOCHS + 2), None
    while status is None and lines(folder) < wanted:
        status = ended(child, 0.01)
    return ended(child, draw.uniform(0, 0.1)) if status is None else status


def under_way(child: int, folder: Path) -> int | None:
    """Wait until a training has kept its first epoch. The wait status when the study ended
    before.
    """
    while not lines(folder) or not any((folder / "killed" / "unfinished").glob("*.safetensors")):
        if (status := ended(child, 0.01)) is not None:
            return status
    return None


def main() -> None:
    folder, (kills, workers, runs) = Path(sys.argv[1]), map(int, sys.argv[2:])
    # What is loaded once is loaded here. But no progress bar is drawn: its lock would be shared by
    # all that are forked, and kept for ever by one that is killed.
    loop.train(study(folder, workers).task, Mitigation(), state.Seeds(0, 0, 0))
    draw, killed, leaders, status = random.Random(0), [], [], None
    hold = folder / "killed" / "hold"
    hold.touch()
    while status != 0:
        leaders.append(begin(folder, workers, runs))
        if len(killed) == kills:
            status = ended(leaders[-1], 600)
            assert status is not None, "the study hangs"
        elif not killed and (status := under_way(leaders[-1], folder)) is None:
            killed.append(
                strike(leaders[-1], draw, "all")
            )  # one that must be resumed, whatever chance has in store
            hold.unlink()
            status = ended(leaders[-1], 60)
        elif killed and (status := moment(leaders[-1], folder, draw)) is None:
            killed.append(strike(leaders[-1], draw))
            status = ended(leaders[-1], 60)
        if status == 0 and len(killed) < kills:  # done sooner than a starved machine could strike
            runs, status = runs + 1, None
    os.environ["STABUTILS_RUNS"] = str(folder / "calm")
    assert ended(begin(folder, 1, runs), 600) == 0
    until = time.monotonic() + 15
    while (left := sum(map(alive, leaders))) and time.monotonic() < until:
        time.sleep(0.1)
    print(
        json.dumps(
            {
                "kills": {kind: killed.count(kind) for kind in sorted(set(killed))},
                "processes left": left,
                "runs": runs,
            }
        )
    )

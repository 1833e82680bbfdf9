"""What stability costs: ensembles of independent runs, the gold standard, and every method on one frontier.

What is said of ensembles is the mean over many random partitions of a pool of runs into replicas that share no member.
Its interval leaves out a whole group of runs at a time, and it is compared with single runs of the same pool at the
same number of votes.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd

from . import metrics
from .board import better
from .errors import InputError
from .intervals import GUARD, Interval, delete_a_group, divisions, holm, over_examples, verdict
from .mitigations.ensembles import cast, check, partition, vote
from .study import Runs, Study


@dataclass(frozen=True, eq=False)
class Pool:
    """Runs as members: what ensembles of them answer on average over `partitions`, and single runs beside them."""

    runs: Runs
    how: str = "probability"
    partitions: int = 20
    found: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        check(self.runs, self.how)

    @cached_property
    def split(self) -> np.ndarray:
        """Where not all runs agree, bool (examples,): where they do, so does every ensemble of them."""
        return (self.runs.labels != self.runs.labels[0]).any(axis=0)

    @cached_property
    def entries(self) -> np.ndarray | None:
        found = self.runs.probabilities
        return None if found is None else cast(found[:, self.split], self.how)

    def answers(self, groups: np.ndarray) -> np.ndarray:
        """Labels of replicas: positions (replicas, size) to (replicas, examples)."""
        labels = np.repeat(self.runs.labels[:1], len(groups), axis=0)
        if self.entries is not None:
            some = np.stack([self.entries[members].mean(axis=0).argmax(axis=-1) for members in groups])
        else:
            some = vote(*(part[:, self.split][groups.T] for part in (self.runs.labels, self.runs.doubt)))
        labels[:, self.split] = some
        return labels

    def scores(self, kept: np.ndarray, size: int, n: int) -> np.ndarray:
        """By example: label entropy at n votes, disagreement and share of right answers, of ensembles of the runs kept
        and then of these runs themselves: (6, examples). n falls to the number of replicas where these are fewer."""
        n = min(n, len(kept) // size)
        if (key := (kept.tobytes(), size, n)) not in self.found:
            every = [self.answers(kept[partition(len(kept), size, seed)]) for seed in range(self.partitions)]
            self.found[key] = np.concatenate([np.mean([_by_example(labels, self.runs.gold, n) for labels in every], 0),
                                              _by_example(self.runs.labels[kept], self.runs.gold, n)])
        return self.found[key]

    def measure(self, size: int, n: int = 5) -> dict[str, Interval]:
        """label_entropy (at n votes, or as many as there are replicas), churn and accuracy of ensembles of a size, and
        against single runs reduction, churn_reduction (shares) and accuracy_change.

        Leaves out groups of runs, as many groups as replicas. Two replicas: intervals over examples, as their note
        says. Raises InputError where the runs make fewer than two.
        """
        runs = len(self.runs)
        if not 2 <= size <= runs // 2:
            raise InputError("size of an ensemble", size, f"an integer from 2 to {runs // 2}, half of the runs")
        if runs // size > 2:
            return intervals_of(lambda kept: _numbers(self.scores(kept, size, n)), runs, runs // size)
        pair = [np.stack([row, row]) for row in self.scores(np.arange(runs), size, n)]
        return {name: over_examples(lambda *rows, name=name: _numbers(rows)[name], *pair)
                for name in _numbers(pair)}


def _by_example(labels, gold, n):
    return np.stack([metrics.label_entropy(labels, n), metrics.disagreement(labels), (labels == gold).mean(axis=0)])


def _numbers(rows: Sequence[np.ndarray]) -> dict[str, float]:
    entropy, churn, right, entropy_before, churn_before, right_before = (float(np.mean(row)) for row in rows)
    less = {name: 1 - after / before if before else np.nan for name, after, before in (
        ("reduction", entropy, entropy_before), ("churn_reduction", churn, churn_before))}
    return {"label_entropy": entropy, "churn": churn, "accuracy": right} | less | {
        "accuracy_change": right - right_before}


def intervals_of(statistic: Callable[[np.ndarray], dict[str, float]], runs: int, groups: int) -> dict[str, Interval]:
    """Intervals of several numbers at once, by leaving out groups of runs; statistic(positions of the runs kept)."""
    found = cache(lambda kept: statistic(np.array(kept)))
    every, divided = np.arange(runs), divisions(np.zeros(runs), groups)
    return {name: delete_a_group(lambda kept, name=name: found(tuple(kept))[name], every, groups=divided)
            for name in found(tuple(every))}


def measured(pool: Pool, sizes: Sequence[int], n: int = 5) -> pd.DataFrame:
    """One row a size, as a board has them: arm, size, runs (replicas), n, what `Pool.measure` finds, guard, trainings,
    passes. Two replicas decide nothing."""
    name, runs = {"probability": "ensemble", "logit": "logits", "vote": "vote"}[pool.how], len(pool.runs)
    found = {size: pool.measure(size, n) for size in sizes}
    return pd.DataFrame([{"arm": f"{name} of {size}", "size": size, "runs": runs // size, "n": min(n, runs // size),
                          **own, "guard": _decided(own["accuracy_change"], verdict(own["accuracy_change"], -GUARD)),
                          "trainings": float(size), "passes": float(size)} for size, own in found.items()])


def _decided(interval, verdict):
    """A verdict, unless the interval is over examples only."""
    return f"undecided at {interval.runs} runs" if interval.note else verdict


def only(runs: Runs, queries: np.ndarray | slice = slice(None), kept: np.ndarray | slice = slice(None)) -> Runs:
    """The runs kept, as far as some test queries go, to be scored: what scores ask for, the rest is as it was."""
    found = None if runs.probabilities is None else runs.probabilities[kept][:, queries]
    return replace(runs, gold=runs.gold[queries], labels=runs.labels[kept][:, queries], seeds=runs.seeds[kept],
                   doubt=runs.doubt[kept][:, queries], probabilities=found)


def by_group(runs: Runs, groups: Mapping[str, np.ndarray], size: int, how: str) -> pd.DataFrame:
    """What ensembles of a size do in groups of queries, bool (examples,) each: one row a group that has any.

    queries (the group's name), number, churn of ensembles, share_left (of all churn that they leave), churn_reduction
    and accuracy_change against single runs. churn_reduction is None where single runs hardly flip, less than 1 %.
    """
    rows = []
    for name, where in groups.items():
        if where.any():
            some = only(runs, where)
            found = Pool(some, how).measure(size, 2)
            flips = metrics.churn(some.labels) > 0.01  # of next to nothing there is no share
            rows.append({"queries": name, "number": int(where.sum()), "churn": found["churn"],
                         "churn_reduction": found["churn_reduction"] if flips else None,
                         "accuracy_change": found["accuracy_change"]})
    left = np.array([row["number"] * row["churn"].value for row in rows])
    table = pd.DataFrame(rows).astype({"churn_reduction": object})
    return table.assign(share_left=left / left.sum() if left.sum() else 0.0)


def sizes_of(text: str, runs: int) -> list[int]:
    """Sizes of ensembles from a text such as "2, 3, 5", ascending. Raises InputError for what is no size, or makes
    fewer than two replicas of the runs, and where none makes three."""
    words = [word.strip() for word in text.split(",")]
    sizes = sorted({int(word) for word in words if word.isascii() and word.isdigit()})
    if not all(word.isascii() and word.isdigit() for word in words) or not 2 <= sizes[0] <= runs // 3 \
            or sizes[-1] > runs // 2:
        raise InputError("sizes", text, f"integers from 2 to {runs // 2}, half of the runs, one of at most {runs // 3}")
    return sizes


def share(pool: Pool, arm: Runs | int, size: int, n: int = 5) -> Interval:
    """How much of the label entropy that ensembles of `size` take away an arm takes away: 1 is as much.

    arm: runs, or the size of other ensembles of the pool. The ratio is taken whole: a group of seeds is left out of
    every arm that used them, as many groups as there are replicas, of which it takes 3. Its runs are those of the
    smaller arm.
    """
    runs = pool.runs
    if len(runs) // size < 3:
        raise InputError("size of an ensemble", size, f"an integer up to {len(runs) // 3}, a third of the runs")
    seeds = runs.seeds if isinstance(arm, int) else np.union1d(runs.seeds, arm.seeds)

    def taken(kept):
        own = np.flatnonzero(np.isin(runs.seeds, kept))
        reference = _numbers(pool.scores(own, size, n))["reduction"]
        if isinstance(arm, int):
            return _numbers(pool.scores(own, arm, n))["reduction"] / reference
        votes = min(n, len(own) // size)
        before, after = (metrics.label_entropy(labels, votes).mean()
                         for labels in (runs.labels[own], arm.labels[np.isin(arm.seeds, kept)]))
        return (1 - after / before) / reference

    others = 0 if isinstance(arm, int) else np.isin(seeds, arm.seeds)
    divided = divisions(2 * np.isin(seeds, runs.seeds) + others, len(runs) // size)
    least = len(runs) if isinstance(arm, int) else min(len(runs), len(arm))
    return replace(delete_a_group(taken, seeds, groups=divided), runs=least)


def vote_model(labels: np.ndarray, size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """What ensembles would answer if each query had odds of its own, and every member voted by them, independently.

    The odds are how often single runs gave each answer: labels (runs, examples). Each of `draws` imagined ensembles
    takes the majority of `size` votes drawn with replacement, a tie going to the first vote: (draws, examples), to be
    scored as labels of runs are. Drawn, not summed over all outcomes: expectations are met but for the draws' noise.
    """
    if size < 1 or draws < 1:
        raise InputError("size and draws", (size, draws), "integers of at least 1")
    columns = np.arange(labels.shape[1])
    return np.stack([vote(labels[rng.integers(len(labels), size=(size, len(columns))), columns])
                     for _ in range(draws)])



# ------------------------------------------------------------------------------------------------------- frontier

def frontier(control: Runs, ensembles: pd.DataFrame, board: pd.DataFrame | None = None,
             seconds: Mapping[str, float] | None = None, networks: Mapping[str, int] | None = None,
             latency: float = np.nan) -> pd.DataFrame:
    """Every method by what it costs and what it buys, the one that takes most label entropy away first.

    ensembles: of `measured`; board: of `board.board` (its placebo is left out). Columns: arm; trainings, passes and
    networks held to answer, of control's; cpu_seconds of its training (`seconds` by arm; that of ensembles from
    control's); latency of one query (of control's `latency` by the passes, in its unit); reduction, churn and
    accuracy_change (Intervals), guard; p (Holm's, over the methods) and better as on a board; dominated: the name of
    another retrained arm that costs no more trainings and passes, takes no less away and answers no worse, one of them
    strictly; "" else. By the values, not beyond doubt.
    """
    own = float(control.cpu_seconds.mean())
    nothing = Interval(0.0, 0.0, 0.0, len(control), se=0.0)
    rows = [{**row, "networks": row["trainings"], "cpu_seconds": row["size"] * own}
            for row in ensembles.to_dict("records")]
    for row in () if board is None else board[board.arm != "placebo"].to_dict("records"):
        alone = {"trainings": 0.0, "passes": 0.0} if row["arm"] == "convex" else {}
        if row["arm"] == "control":
            alone = {"reduction": nothing, "accuracy_change": nothing, "guard": "holds"}
        rows.append({**row, **alone, "networks": (networks or {}).get(row["arm"], 1),
                     "cpu_seconds": {"control": own, **(seconds or {})}.get(row["arm"], np.nan)})
    table = pd.DataFrame(rows)
    table["latency"] = table.passes.where(table.arm != "convex") * latency
    tried = ~table.arm.isin(["control", "convex"])
    table.loc[tried, "p"] = holm([interval.p_value() for interval in table.reduction[tried]])
    table["better"] = [_decided(row.reduction, better(row.reduction, row.p, row.guard)) if np.isfinite(row.p) else
                       {"convex": row.guard}.get(row.arm, "") for row in table.itertuples()]
    retrained = table.arm != "convex"
    table["dominated"] = pd.Series(dominated(table[retrained]), table.index[retrained]).reindex(table.index).fillna("")
    columns = ["arm", "trainings", "passes", "networks", "cpu_seconds", "latency", "n", "reduction", "churn",
               "accuracy_change", "guard", "p", "better", "dominated"]
    order = sorted(table.index, key=lambda i: -table.reduction[i].value)
    return table.loc[order, columns].reset_index(drop=True)


def dominated(table: pd.DataFrame) -> list[str]:
    """For each row the name of one that is no worse in trainings, passes, reduction and accuracy_change and better in
    one of them, or "": of several the one that takes most away."""
    found = []
    points = np.column_stack([-table.trainings, -table.passes, [i.value for i in table.reduction],
                              [i.value for i in table.accuracy_change]]).astype(float)
    for own in points:
        over = np.flatnonzero((points >= own).all(axis=1) & (points > own).any(axis=1))
        found.append(table.arm.iloc[over[points[over, 2].argmax()]] if len(over) else "")
    return found


def choose(table: pd.DataFrame, trainings: float, passes: float, churn: float = 1.0) -> pd.DataFrame:
    """The rows of a frontier within a budget of trainings and of passes and with at most so much churn, without those
    whose accuracy is lower beyond doubt: the one that takes most away first. No row: nothing will do."""
    fits = (table.trainings <= trainings) & (table.passes <= passes) & (table.guard != "does not hold")
    return table[fits & np.array([i.value <= churn for i in table.churn])].reset_index(drop=True)


def latency(study: Study, queries: int = 50) -> float:
    """Milliseconds of one core that control's network takes to answer a query: the median over test queries, one at a
    time."""
    import torch

    from .training import Stream, predict

    with Stream("init", study.seed):  # what the weights are does not matter for the time
        network, found = study.task.build(), []
    for row in range(min(queries, len(study.data.test))):
        began = time.process_time()
        predict(network, study.task.test.take(torch.tensor([row])), study.task.recipe)
        found.append(time.process_time() - began)
    return 1000 * float(np.median(found))

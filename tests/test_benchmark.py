"""The benchmark compares like with like, and its small version runs to the end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_models import make_checkpoint

from stabutils import records
from stabutils.analysis import reliability
from stabutils.publishing import quotes
from stabutils.training import state

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def padded(benchmarks):
    import padded

    return padded


@pytest.fixture
def timing(benchmarks):
    pytest.importorskip("accelerate")
    import timing

    return timing


def test_the_padded_network_answers_like_the_packed_one(padded):
    task = tiny.task()
    compact = task.build().eval()
    blocks = padded.pad(task.test)
    with torch.no_grad():
        theirs = padded.Padded(compact).eval()(**blocks)["logits"]
        assert torch.allclose(theirs, compact(task.test), atol=1e-5)
    assert blocks["attention_mask"].sum() == len(task.test.ids)


def test_the_plain_loop_learns(padded):
    task = tiny.task()
    network = padded.Padded(task.build())
    before = [p.clone() for p in network.parameters()]
    padded.plain_loop(task, network, steps=2)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_ours_and_the_trainer_are_looked_at_in_the_same_steps(timing):
    task, labels = tiny.task(), tiny.dataset().validation.labels
    assert timing.looks(task) == {2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24}
    for curve in (timing.ours(task, labels, 0), timing.trainers(task, labels, 0)):
        seconds, accuracy = zip(*curve, strict=True)
        assert len(curve) == 12 and sorted(seconds) == list(seconds) and seconds[0] > 0
        assert len(set(accuracy)) > 2  # it learns


def test_the_clock_stands_still_during_a_look(timing):
    watch = timing.Watch(lambda: sum(range(3_000_000)))
    watch.look()
    watch.look()
    assert watch.curve[1][0] < 0.01


def test_time_to_accuracy_is_where_the_mean_curve_first_reaches_the_reference(timing, monkeypatch):
    slow = {0: [(2, 0.5), (4, 0.9)], 1: [(2, 0.7), (4, 0.8)], 2: [(2, 0.6), (4, 0.7)]}
    fast = {
        seed: [(1, accuracy - 0.1), (2, accuracy + 0.2)]
        for seed, ((_, accuracy), _) in slow.items()
    }
    monkeypatch.setattr(timing, "trainers", lambda task, labels, seed: slow[seed])
    monkeypatch.setattr(timing, "ours", lambda task, labels, seed: fast[seed])
    task = tiny.task()
    found, curves = timing.time_to_accuracy(
        task, np.zeros(12), task.recipe, task.recipe, None, range(3)
    )
    assert found["reference_accuracy"]["value"] == pytest.approx(0.99 * 0.8)
    assert found["time_to_accuracy_ratio"]["value"] == 2
    assert len(curves) == 12 and curves[curves.way == "ours"].seconds.max() == 2
    never, _ = timing.time_to_accuracy(task, np.zeros(12), task.recipe, task.recipe, 0.85, range(3))
    assert "time_to_accuracy_ratio" not in never and "seconds_to_reference ours" not in never


def test_what_a_linear_model_costs_is_told_in_trainings_and_in_answers(
    benchmarks, tmp_path, monkeypatch
):
    pytest.importorskip("accelerate")
    import benchmark

    monkeypatch.setattr(benchmark, "MINILM", str(make_checkpoint(tmp_path / "encoder")))
    monkeypatch.setattr(benchmark, "packaged", lambda name: name)
    seconds = {"pass": 1, "fits": 2, "steps": 0.5, "alone": 4, "anchor": 1, "one text": 8}

    def alternate(ways, rounds, work):
        for way in ways.values():
            way()
        return {name: [work / seconds[name]] * rounds for name in ways}

    monkeypatch.setattr(benchmark, "alternate", alternate)
    data = tiny.dataset()
    epoch, some = benchmark.steps_of(benchmark.minilm_task(data), 1)
    found = benchmark.linear(data, 1, 3)
    assert found["linear_seconds"]["value"] == 1 + 2
    trainings = 0.5 * len(epoch) / len(some) * 3  # of three epochs
    assert found["linear_price"]["value"] == pytest.approx((1 + 2) / trainings)
    found = benchmark.anchor(data, tiny.task().recipe, 3)
    assert found["anchor_price"]["value"] == (4 + 1) / 4
    texts = len(data.test)
    assert found["answer_milliseconds anchor"]["value"] == pytest.approx(1000 / texts)


def test_networks_of_few_texts_and_the_linear_model_stand_in_one_table(
    benchmarks, tmp_path, monkeypatch
):
    import few_texts

    data = tiny.project(tmp_path, monkeypatch)
    root = tmp_path / "project"
    given = ["--datasets", str(data), "--sizes", "1", "2", "--runs", "2"]
    assert few_texts.main([*given, "-o", str(root / "records")]) == 0
    [path] = root.glob("records/*/few_texts.json")
    record = records.read(path)
    study = few_texts.st.Study(dataset=str(data), runs=2)
    few = reliability.few_shot(study, 2)
    assert few.task.recipe.epochs > few_texts.NINE
    runs, condition = few.retrain("control"), "2 texts an intent"
    assert record[f"accuracy, control; {condition}"].value == np.mean(runs.labels == runs.gold)
    assert record[f"accuracy, nine epochs; {condition}"].runs == 2
    shown = quotes.quote("<!--table: few_texts-->old<!--end-->", root)
    header, _, one, two = shown.splitlines()[1:5]
    assert header == "| corpus | training texts | runs | nine epochs | the default | linear model |"
    assert "| 1 texts an intent | 2 |" in one and f"| {condition} | 2 |" in two
    assert records.shown(record[f"accuracy, linear (TF-IDF); {condition}"], "%") in two


@pytest.mark.slow
def test_a_small_benchmark_writes_its_record(benchmarks, tmp_path, monkeypatch):
    """Without the package of MiniLM, whose steps take a second each."""
    pytest.importorskip("accelerate")
    import benchmark

    monkeypatch.setattr(benchmark, "packaged", lambda name: None)
    data = str(tiny.write_csv(tmp_path / "tiny.csv"))
    assert benchmark.main(["--quick", "--dataset", data, "-o", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))["numbers"]
    assert all(
        number["value"] > 0
        for name, number in numbers.items()
        if not name.startswith(("churn", "overhead"))
    )
    assert numbers.keys() >= {
        "throughput_ratio_fp32",
        "throughput_ratio_fp32_no_text_skipped",
        "two_worker_ratio",
        "entropy_ratio",
        "overhead",
        "share_of_product_rate",
        "anchor_price",
        "peak memory ours",
        "seconds churn_matrix",
    }
    assert ("throughput_ratio_bf16" in numbers) == benchmark.has_bf16()
    assert (tmp_path / "benchmark_curves.csv").is_file()


@pytest.mark.slow
def test_a_small_benchmark_of_the_gpu_writes_its_record_and_goes_on(benchmarks, tmp_path):
    pytest.importorskip("accelerate")
    import gpu

    small = "--sizes 1 2 --runs 3 --steps 2 --epochs 1 --device cpu".split()
    small += ["--dataset", str(tiny.write_csv(tmp_path / "tiny.csv")), "-o", str(tmp_path)]
    gpu.main(small)
    before = (tmp_path / "gpu.json").read_bytes()
    numbers = json.loads(before)["numbers"]
    assert numbers.keys() >= {
        "throughput compact: gpu_ratio",
        "throughput compact: gpu_ratio_bf16",
        "throughput compact: texts per second 2 runs fp32",
        "time to accuracy compact: final accuracy ours",
        "board compact control: churn",
        "board compact TGTSS: label_entropy@2",
    }
    assert all(number["value"] > 0 for name, number in numbers.items() if "churn" not in name)
    answers = sorted(path.name for path in (tmp_path / "compact" / "answers").iterdir())
    assert len(answers) == 11 and "compact-control.safetensors.xz" in answers
    gpu.main(small)
    assert (tmp_path / "gpu.json").read_bytes() == before  # nothing was left to measure


def test_a_small_gpu_step_that_would_end_late_does_not_begin(benchmarks, tmp_path, capsys):
    pytest.importorskip("accelerate")
    import gpu
    from measure import Costs, read

    number = {"value": 1.0, "low": 1.0, "high": 1.0, "runs": 1, "unit": "times"}
    session = gpu.Session(Costs("gpu"), tmp_path, time.monotonic() + 3600)
    session.step("board", "first", lambda: {"churn": number})
    session.slowest["board"] = 3600.0
    session.step("board", "second", lambda: {"churn": number})
    session.step("throughput", "compact", lambda: {"ratio": number})
    assert [*session.record.numbers] == ["board first: churn", "throughput compact: ratio"]
    assert "board second: no time left" in capsys.readouterr().out
    assert read(tmp_path / "gpu.json").numbers == session.record.numbers


def test_a_carried_checkpoint_reads_the_texts_as_the_whole_one(benchmarks, tmp_path):
    from carry import carry
    from test_frozen import deeper

    from stabutils.training.loop import predict
    from stabutils.training.preparation import prepare

    whole, data = deeper(tmp_path / "whole"), tiny.dataset()
    few = replace(data, train=data.validation, test=data.validation)
    small = carry(str(whole), few.train.texts, tmp_path / "small")
    size = {path: (path / "model.safetensors").stat().st_size for path in (whole, small)}
    assert size[small] < 0.55 * size[whole]
    tasks = [prepare(str(path), few, tiny.RECIPE, "mean") for path in (whole, small)]
    answers = []
    for task in tasks:
        with state.Stream("init", 0):
            answers.append(predict(task.build(), task.test, task.recipe))
    assert torch.allclose(*answers, atol=1e-3)
    words = {len(task.build().backbone.get_input_embeddings().weight) for task in tasks}
    assert len(words) == 1  # of both the tokens that the texts have


def test_the_padded_checkpoint_answers_like_the_packed_one(padded, tmp_path):
    from test_frozen import deeper

    from stabutils.training.preparation import prepare

    task = prepare(str(deeper(tmp_path)), tiny.dataset(), tiny.RECIPE, "mean")
    network = task.build().eval()
    with torch.no_grad():
        theirs = padded.of(network).eval()(**padded.pad(task.test))["logits"]
        assert torch.allclose(theirs, network(task.test), atol=1e-5)


def test_several_runs_share_the_seconds_and_have_accuracies_of_their_own(timing):
    task, labels = tiny.task(), tiny.dataset().validation.labels
    curves = timing.together(task, labels, range(3), "cpu")
    assert len(curves) == 3 and all(len(curve) == 12 for curve in curves)
    seconds = {tuple(second for second, _ in curve) for curve in curves}
    accuracies = {tuple(accuracy for _, accuracy in curve) for curve in curves}
    assert len(seconds) == 1 and len(accuracies) > 1


def test_bf16_is_held_against_fp32_seed_by_seed(benchmarks):
    from types import SimpleNamespace

    import precision

    gold, seeds = np.zeros(4, int), np.arange(3)
    full = SimpleNamespace(
        gold=gold, seeds=seeds, labels=np.array([[0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    )
    half = SimpleNamespace(
        gold=gold, seeds=seeds, labels=np.array([[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])
    )
    found = {number.key: number.value for number in precision.measure(full, half)}
    assert found["churn, bf16; equal seeds"] == pytest.approx(1 / 12)
    assert found["churn_change, bf16"] == pytest.approx((2 + 2 + 2) / 12 - (2 + 1 + 1) / 12)
    assert found["accuracy_change, bf16"] == pytest.approx(-1 / 12)
    assert found["accuracy, bf16"] == 0.75


def test_the_committed_record_can_be_added_to(benchmarks, tmp_path):
    """Fails where `--parts` could not read what is there, and what it kept would be lost."""
    import measure

    committed = BENCHMARKS.parent / "records" / "benchmark.json"
    record = measure.read(committed)
    assert record.numbers["throughput_ratio_fp32"]["runs"] == 5
    assert record.write(tmp_path).read_bytes() == committed.read_bytes()

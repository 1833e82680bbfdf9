"""The benchmark compares like with like, and its small version runs to the end."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def padded(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import padded

    return padded


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


@pytest.mark.slow
def test_a_small_benchmark_writes_its_record(tmp_path):
    pytest.importorskip("accelerate")
    command = [sys.executable, BENCHMARKS / "benchmark.py", "--dataset", "assistant", "--steps", "5", "--rounds", "3"]
    subprocess.run([*command, "-o", tmp_path], check=True, timeout=300)
    numbers = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))["numbers"]
    assert numbers.keys() >= {"throughput_ratio_fp32", "throughput_ratio_bf16", "two_worker_ratio", "entropy_ratio"}
    assert all(number["value"] > 0 for number in numbers.values())

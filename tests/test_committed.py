"""What is committed is near what was answered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stabutils.study import committed
from stabutils.study.runs import of_answers
from stabutils.training.files import pack


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(2, 60), st.floats(0.5, 12), st.integers(0, 2**32 - 1))
def test_probabilities_come_back_from_what_is_committed(classes, sharpness, seed):
    draw = np.random.default_rng(seed)
    logits, gold = sharpness * draw.normal(size=(3, 5, classes)), draw.integers(0, classes, 5)
    told = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)
    labels, doubt = told.argmax(-1), 1 - told.max(-1)
    read = committed.decoded(
        **committed.coded(told, gold), labels=labels, doubt=committed.narrow(doubt), gold=gold
    )
    assert (
        np.array_equal(read.argmax(-1), labels)
        and np.allclose(read.sum(-1), 1, atol=1e-5)
        and (read >= 0).all()
    )
    assert np.allclose(1 - read.max(-1), doubt, rtol=0.02, atol=1e-4)
    right, kept = (
        np.take_along_axis(each, gold[None, :, None], -1)[..., 0] for each in (told, read)
    )
    cost, read_cost = -np.log(np.maximum(right, 1e-30)), -np.log(kept)
    assert (
        np.abs(read_cost - cost) <= 0.02 + 0.01 * cost + 0.004 / told.max(-1)
    ).all()  # doubt is to 0.4 %
    wrong = np.where(labels == gold, 0, right)  # 0.4 % of its cost in nats are so much of it
    slack = 0.07 * (doubt - wrong) + 0.01 * doubt + wrong * -np.log(np.maximum(wrong, 1e-30)) / 200
    assert (
        np.abs(read - told).max(-1) <= slack + 1e-5
    ).all()  # shares below 1/16 of what is left are alike


def test_what_is_committed_of_numbers_is_near_them_and_packs():
    numbers = np.random.default_rng(0).normal(size=20_000)
    narrow = committed.narrow(numbers)
    assert narrow.dtype == np.float16 and np.allclose(narrow, numbers, rtol=0.005, atol=1e-6)
    assert not committed.narrow([0.0]).any()
    assert len(pack(narrow.tobytes())) < 0.85 * len(pack(numbers.astype(np.float16).tobytes()))


def test_of_texts_of_no_class_how_sure_a_run_is_of_its_answer_is_committed(tmp_path):
    draw, gold = np.random.default_rng(0), np.array([0, 1, 2])
    beside = draw.dirichlet(np.ones(4), size=(2, 7)).astype(np.float16)
    labels = np.array([[0, 1, 2], [0, 1, 1]])
    made = of_answers("control", labels, gold, np.array([3, 4]))
    runs = replace(
        made,
        names=("one", "other"),
        validation_labels=labels,
        cpu_seconds=np.ones(2),
        extras={"out_of_scope": beside, "hidden": beside},
    )
    path = committed.write(tmp_path / "control.safetensors.xz", runs, 4, {})
    found = committed.read(path, ("out_of_scope", "hidden"))
    assert list(found) == ["one", "other"]
    for read, own in zip(found.values(), beside, strict=True):
        told = read["kept.out_of_scope"]
        assert np.array_equal(told.argmax(-1), own.argmax(-1))
        assert np.allclose(told.max(-1), own.max(-1), rtol=0.07)  # three bits
        assert ((told > 0).sum(-1) == 1).all()
        assert np.allclose(read["kept.hidden"], own, rtol=0.07)

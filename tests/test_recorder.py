"""The predictions file that anyone's Trainer leaves, from the training to the report."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

import stabutils as st

WORDS = np.random.default_rng(0).integers(2, 12, size=(40, 5))
TEXTS = [" ".join(map(str, row)) for row in WORDS]
DATA = [{"input_ids": row, "labels": sum(row) % 2} for row in WORDS.tolist()]


def train(folder, seed, record=True, epochs=3, **settings):
    """A network of a few thousand weights, dropout included; returns its weights."""
    set_seed(seed)
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=12,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=8,
            id2label={0: "even, or =so", 1: "odd"},
        )
    )
    arguments = TrainingArguments(
        str(folder / "trainer"),
        seed=seed,
        num_train_epochs=epochs,
        learning_rate=0.03,
        per_device_train_batch_size=8,
        report_to=[],
        logging_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **{"save_strategy": "no", **settings},
    )
    trainer = Trainer(network, arguments, train_dataset=DATA[:24], eval_dataset=DATA[24:])
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if record:
        trainer.add_callback(st.Recorder(trainer, folder / "mine.csv", DATA[24:], texts=TEXTS[24:]))
    trainer.train()
    return torch.cat([weight.detach().ravel() for weight in network.parameters()])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run recorded twice (the second time in place of the first), one of another seed, one not recorded."""
    folder = tmp_path_factory.mktemp("trained")
    weights = [
        train(folder, 1, epochs=1),
        train(folder, 1),
        train(folder, 2, eval_strategy="epoch"),
    ]
    return folder / "mine.csv", weights, train(folder, 1, record=False)


def test_recording_leaves_the_training_as_it_is(trained):
    _, weights, unwatched = trained
    assert torch.equal(weights[1], unwatched) and not torch.equal(weights[1], weights[2])


def test_two_seeds_make_a_report(trained):
    read = st.read_predictions(trained[0])
    assert (
        read.runs == ("1", "2")
        and read.labels.shape == (2, 16)
        and read.checkpoints.shape == (2, 3, 16)
    )
    assert read.texts == tuple(TEXTS[24:]) and np.array_equal(
        read.probabilities.argmax(2), read.labels
    )
    assert [read.label_names[label] for label in read.gold] == [
        ("even, or =so", "odd")[row["labels"]] for row in DATA[24:]
    ]
    found = st.report(read, identical_data=True)
    assert {"churn", "accuracy", "checkpoint_entropy", "jensen_shannon"} <= set(found.numbers)


def test_one_seed_with_checkpoints_makes_a_ranked_list(trained, tmp_path):
    rows = list(csv.reader(trained[0].read_text(encoding="utf-8").splitlines()))
    with open(tmp_path / "one.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if row[0] == "2")])
    found = st.report(st.read_predictions(tmp_path / "one.csv"))
    assert found.alone and sorted(found.examples["flip_rank"]) == list(range(1, 17))
    assert found.worst(16)["doubt"].is_monotonic_decreasing


def test_the_weights_that_stay_are_recorded_last(tmp_path):
    """The best checkpoint answers for the run, not the last one."""
    train(
        tmp_path,
        3,
        epochs=2,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    assert st.read_predictions(tmp_path / "mine.csv").checkpoints.shape == (1, 3, 16)


def trainer_of(folder, epochs=1, **settings):
    arguments = TrainingArguments(
        str(folder / "trainer"),
        num_train_epochs=epochs,
        report_to=[],
        use_cpu=True,
        logging_strategy="no",
        disable_tqdm=True,
        **{"save_strategy": "no", **settings},
    )
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=12,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=8,
        )
    )
    trainer = Trainer(network, arguments, train_dataset=DATA[:24], eval_dataset=DATA[24:])
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(st.Recorder(trainer, folder / "mine.csv", DATA[24:]))
    return trainer


def test_evaluations_before_and_after_the_training_are_no_checkpoints(tmp_path):
    """Fails if a network that is not trained yet is recorded, or the one that stays is recorded twice."""
    trainer = trainer_of(
        tmp_path,
        2,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="loss",
    )
    trainer.evaluate()
    assert not (tmp_path / "mine.csv").exists()
    trainer.train()
    trainer.evaluate()
    assert st.read_predictions(tmp_path / "mine.csv").checkpoints.shape == (1, 3, 16)


def test_trained_again_one_recorder_writes_anew_and_another_seed_beside(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.train()
    assert len((tmp_path / "mine.csv").read_text(encoding="utf-8").splitlines()) == 17
    trainer.args.seed = 7
    trainer.train()
    read = st.read_predictions(tmp_path / "mine.csv")
    assert read.runs == ("7", "42") and read.labels.shape == (2, 16)


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / "mine.csv").write_text("name,age\nann,7\n", encoding="utf-8")
    with pytest.raises(
        st.InputError, match="Recorder path: got .*expected a file that a Recorder wrote"
    ):
        train(tmp_path, 1, epochs=1)
    assert (tmp_path / "mine.csv").read_text(encoding="utf-8") == "name,age\nann,7\n"


def resumed(trainer, folder, step):
    trainer.train(resume_from_checkpoint=str(folder / "trainer" / f"checkpoint-{step}"))


def test_a_training_that_is_resumed_has_each_checkpoint_once(tmp_path):
    """Fails if the step it is resumed at is recorded again, lost, or later rows of old stay."""
    settings = {"save_strategy": "epoch", "eval_strategy": "epoch", "eval_on_start": True}
    trainer_of(tmp_path, 3, **settings).train()  # steps 3, 6, 9
    whole = (tmp_path / "mine.csv").read_text(encoding="utf-8").splitlines()
    steps = [line.split(",")[1] for line in whole[1:]]
    assert steps == ["3"] * 16 + ["6"] * 16 + ["9"] * 16
    resumed(trainer_of(tmp_path, 3, **settings), tmp_path, 6)
    again = (tmp_path / "mine.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[1] for line in again[1:]] == steps
    assert again[:33] == whole[:33]  # what came before is as it was
    assert st.read_predictions(tmp_path / "mine.csv").checkpoints.shape == (1, 3, 16)


def test_without_a_file_a_resumed_training_begins_after_its_step(tmp_path):
    settings = {"save_strategy": "epoch", "eval_strategy": "epoch", "eval_on_start": True}
    trainer_of(tmp_path, 3, **settings).train()
    (tmp_path / "mine.csv").unlink()
    resumed(trainer_of(tmp_path, 3, **settings), tmp_path, 3)
    rows = (tmp_path / "mine.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == {"6", "9"}

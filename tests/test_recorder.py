"""The predictions file that anyone's Trainer leaves, from the training to the report.

Each of the faults below was found in public bug reports (huggingface/transformers #15466, #33514,
#48025, #18052 and others).
"""

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
    """One run recorded twice (the second time in place of the first), one of another seed, and one
    that is not recorded."""
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
    assert found.worst(16)["uncertainty"].is_monotonic_decreasing


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
    """Fails if a network is recorded that is not trained yet, or the one that stays twice."""
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


# ---- whatever the Trainer does with its data, answers stand in the order of the dataset

UNEVEN = [
    {"input_ids": row[: 2 + number % 4], "labels": row[0] % 3}
    for number, row in enumerate(WORDS.tolist())
]
UNEVEN_TEXTS = [" ".join(map(str, example["input_ids"])) for example in UNEVEN]
OUT = UNEVEN[24:]


def pad(batch):
    longest = max(len(example["input_ids"]) for example in batch)
    rows = [example["input_ids"] + [0] * (longest - len(example["input_ids"])) for example in batch]
    found = {"input_ids": torch.tensor(rows)}
    found["attention_mask"] = (found["input_ids"] > 0).long()
    if "labels" in batch[0]:
        found["labels"] = torch.tensor([example["labels"] for example in batch])
    return found


def record(folder, seed=1, data=OUT, kind=Trainer, names=None, config=(), options=(), **settings):
    """A short training that is recorded; the trainer, and what the file says."""
    set_seed(seed)
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=12,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=8,
            **{"num_labels": 3, **dict(config)},
        )
    )
    arguments = TrainingArguments(
        str(folder / "trainer"),
        seed=seed,
        learning_rate=0.03,
        per_device_train_batch_size=8,
        report_to=[],
        logging_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **{"num_train_epochs": 1, "per_device_eval_batch_size": 5, **settings},
    )
    callables = {"data_collator": pad, **dict(options)}
    trainer = kind(network, arguments, train_dataset=UNEVEN[:24], eval_dataset=data, **callables)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    texts = UNEVEN_TEXTS[24:] if names is None else None
    trainer.add_callback(
        st.Recorder(trainer, folder / "mine.csv", data, texts=texts, label_names=names)
    )
    trainer.train()
    return trainer


def rows_of(folder):
    with open(folder / "mine.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def alone(trainer, example):
    """What the trained network answers to one example by itself."""
    trainer.model.eval()
    with torch.no_grad():
        scores = trainer.model(input_ids=torch.tensor([example["input_ids"]])).logits
    return f"LABEL_{int(scores.argmax())}"


def softmaxed(scores, labels):
    return scores.softmax(-1)


def argmaxed(scores, labels):
    return scores.argmax(-1)


class Sampled(Trainer):
    """A Trainer that draws what it evaluates."""

    def get_test_dataloader(self, test_dataset):
        loader = super().get_test_dataloader(test_dataset)
        return torch.utils.data.DataLoader(
            test_dataset, batch_size=5, collate_fn=loader.collate_fn, sampler=range(15, -1, -1)
        )


UNLABELLED = [{"input_ids": example["input_ids"]} for example in OUT]
SETTINGS = {
    "as it is": {},
    "grouped by length": {"train_sampling_strategy": "group_by_length"},
    "without labels, grouped": {
        "data": UNLABELLED,
        "train_sampling_strategy": "group_by_length",
    },
    "last batch dropped": {"dataloader_drop_last": True},
    "loss only": {"prediction_loss_only": True},
    "batches apart": {"eval_do_concat_batches": False},
    "argmaxed": {"options": {"preprocess_logits_for_metrics": argmaxed}},
    "softmaxed": {"options": {"preprocess_logits_for_metrics": softmaxed}},
    "with hidden states": {"config": {"output_hidden_states": True}},
    "metrics of its own": {"options": {"compute_metrics": lambda answers: 1 / 0}},
}


@pytest.mark.parametrize("what", SETTINGS)
def test_every_row_is_the_answer_to_its_own_example(tmp_path, what):
    trainer = record(tmp_path, **SETTINGS[what])
    rows = rows_of(tmp_path)
    assert [row["example"] for row in rows] == [str(number) for number in range(16)]
    assert [row["text"] for row in rows] == UNEVEN_TEXTS[24:]
    assert [row["label"] for row in rows] == [alone(trainer, example) for example in OUT]
    if "labels" in trainer.eval_dataset[0]:
        assert [row["gold"] for row in rows] == [f"LABEL_{example['labels']}" for example in OUT]
    assert ("p_LABEL_0" in rows[0]) == (what != "argmaxed")
    if what == "softmaxed":  # and not softmaxed once more: a third each, nearly
        trainer.model.eval()
        batch = pad(OUT)
        shares = trainer.model(**batch).logits.softmax(-1)[:, 0]
        assert [float(row["p_LABEL_0"]) for row in rows] == pytest.approx(shares.tolist(), abs=1e-4)


def test_a_text_of_several_lines_is_read_back(tmp_path):
    """A lone carriage return ends a row for whoever reads CSV, and csv does not quote it."""
    trainer = trainer_of(tmp_path)
    recorder = next(c for c in trainer.callback_handler.callbacks if isinstance(c, st.Recorder))
    recorder.texts = ["one\rtwo\r\nthree, four"] + ["x"] * 15
    trainer.train()
    trainer.args.seed = 2
    trainer.train()
    assert st.read_predictions(tmp_path / "mine.csv").texts[0] == "one\ntwo\nthree, four"


@pytest.mark.parametrize("missing", [-100, -1])
def test_no_label_is_no_gold(tmp_path, missing):
    record(tmp_path, data=[{**example, "labels": missing} for example in OUT])
    assert "gold" not in rows_of(tmp_path)[0]


def test_class_k_has_the_name_of_k_in_whatever_order_they_stand(tmp_path):
    """Fails if names are taken in the order of the file, where "10" comes before "2"."""
    names = {number: f"intent {number}" for number in (0, 10, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9)}
    record(tmp_path, config={"num_labels": 12, "id2label": names})
    golds = [row["gold"] for row in rows_of(tmp_path)]
    assert golds == [f"intent {example['labels']}" for example in OUT]


class Headless(Trainer):
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        return super().prediction_step(model, inputs, True, ignore_keys)


class Regression(Trainer):
    def prediction_step(self, *arguments, **options):
        loss, scores, labels = super().prediction_step(*arguments, **options)
        return loss, scores[:, :1], labels


def many(number):
    return lambda scores, labels: (scores, scores)[:number] if number == 2 else scores[:, None]


REFUSED = {
    "a sampler of its own": ({"kind": Sampled}, "examples that the Trainer reads: got .15, 14"),
    "nothing but a loss": ({"kind": Headless}, "predictions of the Trainer: got None"),
    "one score each": ({"kind": Regression}, "expected scores .16, classes. or labels"),
    "too many names": ({"names": ["a", "b", "c", "d"]}, "expected scores .16, classes. or labels"),
    "a name twice": ({"names": ["a", "b", "a"]}, "label_names: got .'a', 'a'"),
    "a name in two spellings": ({"names": ["a", "b", "A"]}, "label_names: got .'A', 'a'"),
    "names of other classes": (
        {"config": {"id2label": {1: "a", 2: "b", 3: "c"}}},
        "id2label: got .1, 2, 3.; expected a name for each of 0 .. 2",
    ),
    "a label that is no class": (
        {"data": [{**example, "labels": 0} for example in OUT[:-1]] + [{**OUT[-1], "labels": -2}]},
        "-2",
    ),
    "a word that the network lacks": (
        {"data": [*OUT[:-1], {"input_ids": [99], "labels": 0}]},
        "Recorder dataset: got 'IndexError.*expected examples that the Trainer can predict",
    ),
    "more axes": ({"options": {"preprocess_logits_for_metrics": many(1)}}, "float32 .16, 1, 3"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_recorded_is_refused_before_the_first_epoch(tmp_path, what, monkeypatch):
    settings, says = REFUSED[what]
    steps = []
    monkeypatch.setattr(Trainer, "training_step", lambda *_: steps.append(1))
    if what == "a label that is no class":  # no loss takes it
        monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda x, *_, **__: x.mean())
    with pytest.raises(st.InputError, match=says):
        record(tmp_path, **settings)
    assert not steps and not (tmp_path / "mine.csv").exists()


def test_texts_paths_and_processes_are_checked_before_the_first_epoch(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path)
    recorder = next(c for c in trainer.callback_handler.callbacks if isinstance(c, st.Recorder))
    for name, value, says in (
        ("texts", ["a"] * 15, "Recorder texts: got 15; expected 16"),
        ("texts", 5, "Recorder texts: got 5; expected 16"),
        ("texts", ["a"] * 15 + ["\0"], "without NUL characters"),
        ("path", tmp_path / "no" / "mine.csv", "in a folder that exists"),
        ("path", tmp_path / "mine.csv.gz", "a .csv file"),
        ("dataset", iter(DATA), "Recorder dataset: got 'list_iterator'"),
    ):
        with monkeypatch.context() as patch, pytest.raises(st.InputError, match=says):
            patch.setattr(recorder, name, value)
            trainer.train()
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(st.InputError, match="Recorder: got '2 processes'; expected one process"):
        recorder.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_another_run_must_fit_the_file(tmp_path):
    """Fails if rows with other columns, or of other examples, are put below the header of a run."""
    trainer_of(tmp_path).train()
    before = (tmp_path / "mine.csv").read_bytes()
    with pytest.raises(st.InputError, match="columns for .*mine.csv: got .*'p_LABEL_2'"):
        record(tmp_path, seed=7)
    trainer = trainer_of(tmp_path, seed=7)
    recorder = next(c for c in trainer.callback_handler.callbacks if isinstance(c, st.Recorder))
    recorder.dataset = DATA[20:]
    with pytest.raises(st.InputError, match="examples in the Recorder's dataset: got 20"):
        trainer.train()
    assert (tmp_path / "mine.csv").read_bytes() == before


def test_an_error_while_recording_ends_the_recording_and_not_the_training(tmp_path, monkeypatch):
    trainer_of(tmp_path, seed=3).train()
    trainer = trainer_of(tmp_path, epochs=3, seed=4)
    recorder = next(c for c in trainer.callback_handler.callbacks if isinstance(c, st.Recorder))
    append = recorder._append

    def full(rows):
        if trainer.state.epoch > 1.5:
            raise OSError(28, "No space left on device")
        append(rows)

    monkeypatch.setattr(recorder, "_append", full)
    with pytest.warns(
        UserWarning, match="Recorder stopped at step 6, and run '4' is not in .*No sp"
    ):
        trainer.train()
    assert trainer.state.global_step == 9
    assert {row["run"] for row in rows_of(tmp_path)} == {"3"}


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

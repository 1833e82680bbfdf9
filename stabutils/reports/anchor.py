"""A linear model to set beside any system: what it would buy, and a file that answers anywhere.

    import stabutils as st
    from stabutils.reports import anchor

    data = st.load_dataset("my_intents.csv")
    found = anchor.assess(data, validation_probabilities, test_probabilities)
    print(found.summary())
    found.anchor.save("anchor.safetensors")
    anchor.load("anchor.safetensors").answer(["wake me at six"], network_probabilities)

The file holds arrays and one JSON text (no pickle). `serve` is all that a service needs to use it:
numpy, scipy, scikit-learn and safetensors, nothing of this package. Where the linear model reads an
encoder's vectors, `encode` gives them; it needs torch and transformers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils.data.datasets import Dataset, load_dataset
from stabutils.data.linear import ALL, FEATURES, VECTORIZERS, Linear, LinearModel, fit
from stabutils.data.tables import read_table
from stabutils.errors import InputError, needs
from stabutils.metrics import nll
from stabutils.metrics.intervals import Interval, verdict
from stabutils.metrics.mixtures import KINDS, choose_weight, curve, mix
from stabutils.records import Number, for_programs, number, write_document
from stabutils.reports.codes import agreement
from stabutils.reports.reading import ARRAYS, Predictions, read_predictions
from stabutils.reports.stability import add_columns, columns_of, in_words, save
from stabutils.training import files

CONTENT = "anchor"  # what the record of a file says it is
ADVICE = {0.0: " (the system alone: no anchor helps)", 1.0: " (use the linear model alone)"}
SLIGHT = 0.2  # Cohen's kappa up to which an agreement is slight (Landis and Koch 1977)


@dataclass(frozen=True, eq=False)
class Encoder:
    """What an anchor knows of the encoder that it reads: how many tokens of a text it reads, and
    what it makes of one text, so that no other is taken for it.
    """

    tokens: int
    text: str
    vector: ndarray


@dataclass(frozen=True, eq=False)
class Anchor:
    """A linear model, the weight it has beside a network, and the names of the labels.

    encoder: whose vectors the linear model reads, where the anchor was told.
    """

    model: LinearModel
    weight: float
    kind: str
    label_names: tuple[str, ...]
    encoder: Encoder | None = None

    def answer(
        self,
        texts: Sequence[str],
        probabilities: ndarray | None = None,
        vectors: ndarray | None = None,
    ) -> ndarray:
        """Probabilities (texts, classes), classes in the order of `label_names`.

        probabilities: a network's, to be mixed; without them the linear model answers alone.
        vectors: of the frozen encoder (texts, width), where the linear model reads them.
        """
        own = self.model.probabilities(texts, vectors)
        return own if probabilities is None else mix(probabilities, own, self.weight, self.kind)

    def save(self, path: str | Path) -> Path:
        """Write the anchor to a .safetensors file: arrays and one JSON text."""
        model, path = self.model, Path(path)
        arrays = {f"idf {name}": weights for name, weights in model.idf.items()}
        arrays |= {"coefficients": model.coefficients, "intercepts": model.intercepts}
        vectorizers = [
            {"name": name, "options": VECTORIZERS[name], "terms": terms}
            for name, terms in model.vocabularies.items()
        ]
        record = {
            "content": CONTENT,
            "settings": asdict(model.settings),
            "vectorizers": vectorizers,
            "strength": model.strength,
            "temperature": model.temperature,
            "weight": self.weight,
            "kind": self.kind,
            "label_names": self.label_names,
        }
        if self.encoder is not None:
            arrays["encoder"] = self.encoder.vector
            record["encoder"] = {"tokens": self.encoder.tokens, "text": self.encoder.text}
        try:
            files.write_file(path, files.encode(arrays, record))
        except OSError as error:
            allowed = f"a file that can be written ({error.strerror})"
            raise InputError("output", str(path), allowed) from None
        return path


def load(path: str | Path) -> Anchor:
    """The anchor in a file, every byte verified. Raises InputError for a file that holds none."""
    try:
        arrays, record = files.read_file(Path(path), set_aside=False) or ({}, {})
    except OSError:
        arrays, record = {}, {}
    if record.get("content") != CONTENT:
        raise InputError("anchor", str(path), "an undamaged file that Anchor.save wrote")
    settings = record["settings"]
    terms = {entry["name"]: entry["terms"] for entry in record["vectorizers"]}
    model = LinearModel(
        settings=Linear(**settings | {"strengths": tuple(settings["strengths"])}),
        vocabularies=terms,
        idf={name: arrays[f"idf {name}"] for name in terms},
        coefficients=arrays["coefficients"],
        intercepts=arrays["intercepts"],
        strength=record["strength"],
        temperature=record["temperature"],
    )
    encoder = None
    if "encoder" in arrays:
        encoder = Encoder(**record["encoder"], vector=arrays["encoder"])
    return Anchor(model, record["weight"], record["kind"], tuple(record["label_names"]), encoder)


def serve(path):
    """Names of the labels, and a function that answers as `Anchor.answer` does: to copy into a
    service, for it needs nothing of this package.

    It reads the file once, without verifying it.
    """
    import json

    import numpy as np
    from safetensors import safe_open
    from scipy.sparse import csr_array, hstack
    from scipy.special import softmax
    from sklearn.feature_extraction.text import TfidfVectorizer

    with safe_open(path, "np") as file:
        record = json.loads(file.metadata()["record"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    vectorizers = []
    for entry in record["vectorizers"]:
        options = entry["options"] | {"ngram_range": tuple(entry["options"]["ngram_range"])}
        vectorizers.append(TfidfVectorizer(**options, vocabulary=entry["terms"]))
        vectorizers[-1].idf_ = arrays[f"idf {entry['name']}"]
    slopes = arrays["coefficients"].T.astype(float, order="C")
    weight, smallest = record["weight"], np.finfo(np.float32).tiny

    def answer(texts, probabilities=None, vectors=None):
        blocks = [vectorizer.transform(texts) for vectorizer in vectorizers]
        if vectors is not None:
            blocks.append(csr_array(np.asarray(vectors, float)))
        margins = hstack(blocks, format="csr") @ slopes + arrays["intercepts"]
        own = softmax(margins / record["temperature"], axis=1)
        if probabilities is None:
            return own
        if record["kind"] == "arithmetic":
            return (1 - weight) * probabilities + weight * own
        logs = [np.log(np.maximum(part, smallest)) for part in (probabilities, own)]
        return softmax((1 - weight) * logs[0] + weight * logs[1], axis=-1)

    return record["label_names"], answer


def encode(path, folder):
    """A function from texts to the vectors of all layers of a frozen encoder, (texts, width), as
    the anchor in a file reads them: to copy into a service, for it needs nothing of this package.

    They are those of `training.features.frozen_vectors(task, "all")` for a checkpoint whose tokens
    are averaged: the mean of each layer, of length 1, side by side; texts one after another.

    path : of the anchor. folder : of config.json, tokenizer and weights, or a hub id. Raises
    ValueError for another encoder than the anchor's
    """
    import json

    import torch
    from safetensors import safe_open
    from transformers import AutoModel, AutoTokenizer

    with safe_open(path, "pt") as file:
        known = json.loads(file.metadata()["record"])["encoder"]
        expected = file.get_tensor("encoder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    unknown = tokenizer.unk_token_id or 0

    def vector(text):
        ids = tokenizer(text, truncation=True, max_length=known["tokens"])["input_ids"] or [unknown]
        tokens = torch.tensor([ids])
        given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        layers = encoder(**given, output_hidden_states=True).hidden_states
        means = [layer.mean(1) for layer in layers]
        return torch.cat([torch.nn.functional.normalize(mean) for mean in means], 1)

    def vectors(texts):
        with torch.no_grad():
            return torch.cat([vector(text) for text in texts]).numpy()

    found = torch.from_numpy(vectors([known["text"]])[0])
    if found.shape != expected.shape or not torch.allclose(found, expected, atol=0.01):
        raise ValueError(f"{folder} is not the encoder that {path} was made with")
    return vectors


# ---- what it would buy


@dataclass(frozen=True, eq=False)
class Assessment:
    """What an anchor would buy a system.

    Attributes
    ----------
    anchor : the linear model with the weight that validation chose
    test : one row a weight, scores on the test texts (`metrics.mixtures.curve`)
    chosen : the scores at the weight of the anchor, by name
    alone : accuracy of the linear model by itself on the test texts, 0 .. 1
    caution : in words, where the system seems to know the validation texts from its training
    """

    anchor: Anchor
    test: pd.DataFrame
    chosen: Mapping[str, Interval]
    alone: float
    caution: str = ""

    @property
    def better_than_alone(self) -> str:
        """Verdict on "the mixture is more accurate than the linear model alone"."""
        return verdict(self.chosen["over_anchor"], 0.0)

    def summary(self) -> str:
        """The numbers as lines of plain text."""
        before, after, weight = self.test.iloc[0], self.chosen, self.anchor.weight
        reduced = "Label entropy is 0, or close to it, without an anchor: nothing to reduce"
        if after["reduction"] is not None:
            reduced = f"Label entropy reduced by {_in_percent(after['reduction'])}"
        better = "" if self.better_than_alone == "holds" else "not "
        against = f"by {_in_percent(after['over_anchor'], signed=True)}, {better}significantly"
        lines = [
            f"Weight of the anchor, chosen on validation: {weight:g}{ADVICE.get(weight, '')}",
            f"Accuracy    {_in_percent(before.accuracy)} -> {_in_percent(after['accuracy'])}",
            f"Churn       {_in_percent(before.churn)} -> {_in_percent(after['churn'])}",
            reduced,
            f"Linear model alone: accuracy {100 * self.alone:.1f} %, churn over seeds 0",
            f"Mixture less the linear model alone: accuracy differs {against} more accurate",
        ]
        return "\n".join(lines + [self.caution] * bool(self.caution))

    def numbers(self) -> list[Number]:
        """Scores of the system `before` and `after` it has the anchor, for programs."""
        scores = ("accuracy", "churn")
        rows = {"before": self.test.iloc[0], "after": self.chosen}
        found = [number(name, row[name], arm) for arm, row in rows.items() for name in scores]
        if self.chosen["reduction"] is not None:
            found.append(number("reduction", self.chosen["reduction"], "after"))
        return [*found, number("over_linear", self.chosen["over_anchor"], "after")]

    def plain(self) -> pd.DataFrame:
        """`test` as numbers: beside each score its ends, columns <score>_low and <score>_high."""
        columns = {"weight": self.test.weight}
        for name in self.test.columns[1:]:
            for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                columns[name + suffix] = [getattr(cell, end, None) for cell in self.test[name]]
        return pd.DataFrame(columns)


def _in_percent(interval: Interval, signed: bool = False) -> str:
    """A share, or a difference of shares, with its interval.

    >>> _in_percent(Interval(0.1, 0.05, 0.15, runs=5)), _in_percent(Interval(0, 0, 0, 5), True)
    ('10.0 % [5.0, 15.0]', '+0.0 points [+0.0, +0.0]')
    """
    return " ".join(in_words("accuracy", interval, signed))


def assess(
    data: Dataset,
    validation: ndarray,
    test: ndarray,
    settings: Linear = Linear(),  # noqa: B008, it is frozen
    kind: str = "geometric",
    vectors: Mapping[str, ndarray] | None = None,
) -> Assessment:
    """What an anchor would buy a system whose retrainings answered these texts.

    The linear model is fitted on the training texts; its strength, its temperature and the weight
    of the mixture are chosen on the validation texts; the test texts are only scored.

    Parameters
    ----------
    data : the corpus
    validation, test : probabilities by run, (runs, examples, classes), at least two runs of test;
        classes in the order of `data.label_names`
    settings : of the linear model
    kind : of the mixture, "geometric" or "arithmetic"
    vectors : of a frozen encoder by split, (examples, width), where the settings read them

    Raises
    ------
    InputError
        for probabilities that do not fit the corpus, that are none (logits), or whose agreement
        with the gold labels is slight, as where their rows stand in another order.
    """
    for name, given in (("validation", validation), ("test", test)):
        _refuse_misfits(name, given, getattr(data, name).labels, len(data.label_names))
    vectors = vectors or {}
    model = fit(settings, data.train, data.validation, len(data.label_names), vectors)
    held_out = model.probabilities(data.validation.texts, vectors.get("validation"))
    weight = choose_weight(validation, held_out, data.validation.labels, kind)
    anchor = Anchor(model, weight, kind, tuple(data.label_names))
    own = model.probabilities(data.test.texts, vectors.get("test"))
    table = curve(test, own, data.test.labels, kind)
    row = table[table.weight == weight].iloc[0]
    alone = float(np.mean(own.argmax(1) == data.test.labels))
    chosen, caution = row.drop("weight").to_dict(), _caution(data, validation, test)
    return Assessment(anchor, table, chosen, alone, caution)


def _caution(data: Dataset, validation: ndarray, test: ndarray) -> str:
    """What to say of a system that errs far less on the validation texts than on the test texts:
    by half, and by three standard errors.
    """
    wrong, variance = [], 0.0
    for probabilities, split in ((validation, data.validation), (test, data.test)):
        share = float(np.mean(probabilities.argmax(-1) != split.labels))
        wrong.append(share)
        variance += share * (1 - share) / len(split.labels)
    if 2 * wrong[0] > wrong[1] or wrong[1] - wrong[0] <= 3 * variance**0.5:
        return ""
    return (
        f"CAUTION: the system is wrong on {wrong[0]:.1%} of the validation texts and on "
        f"{wrong[1]:.1%} of the test texts. If it was trained on the validation texts, the weight "
        "means nothing: hand in texts that it never saw."
    )


def _refuse_misfits(split: str, probabilities: ndarray, gold: ndarray, classes: int) -> None:
    """Refuse another shape, what is no probability, and rows that seem to be of other texts."""
    shape = np.shape(probabilities)
    if len(shape) != 3 or shape[1:] != (len(gold), classes):
        allowed = f"(runs, {len(gold)}, {classes}): runs, examples, classes"
        raise InputError(f"shape of the {split} probabilities", shape, allowed)
    nll(probabilities, gold)  # it refuses what is no probability
    labels = np.argmax(probabilities, axis=-1)
    accuracy, chance = agreement(labels.ravel(), np.tile(gold, len(labels)))
    if accuracy - chance <= SLIGHT * (1 - chance):
        allowed = (
            f"far more than chance, {chance:.3f}; are the rows in the order of the corpus's "
            f"{split} texts, and the classes in that of its labels?"
        )
        raise InputError(f"accuracy of the {split} probabilities", f"{accuracy:.3f}", allowed)


# ---- the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m stabutils anchor`."""
    parser.add_argument("dataset", help="the corpus: a name, a file or a folder of splits")
    of_runs = "probabilities of two runs or more: .csv, .parquet, .npy or .safetensors"
    parser.add_argument("validation", help=f"{of_runs}, on the validation texts")
    parser.add_argument("test", help="the same on the test texts")
    parser.add_argument("-o", "--output", default="anchor.safetensors", help="the anchor's file")
    parser.add_argument("--features", choices=FEATURES, help="tfidf; both, with vectors")
    parser.add_argument("--kind", choices=KINDS, default="geometric", help="of the mixture")
    vectors = ".safetensors of a frozen encoder's vectors: arrays train, validation and test"
    read = parser.add_mutually_exclusive_group()
    read.add_argument("--vectors", help=f"{vectors}; for the features frozen and both")
    checkpoint = "a transformers checkpoint (folder, package or hub id)"
    all_layers = "its vectors of all layers, without fine-tuning, are read beside words"
    read.add_argument("--encoder", help=f"{checkpoint}: {all_layers}")
    parser.add_argument("--csv", help="write what every weight gives on the test texts")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers for programs")
    add_columns(parser)


def command(arguments: argparse.Namespace) -> int:
    """Assess an anchor, save it, say what it would buy and where it lies."""
    _refuse_features(arguments)
    data = load_dataset(arguments.dataset)
    columns = columns_of(arguments)
    validation, test = (
        probabilities_of(read_rated(getattr(arguments, split), columns), data, split)
        for split in ("validation", "test")
    )
    vectors = _read_vectors(arguments.vectors) if arguments.vectors else {}
    settings = Linear(arguments.features or ("both" if arguments.vectors else "tfidf"))
    encoder = None
    if arguments.encoder:
        settings = Linear("both", layer=ALL)
        vectors, encoder = vectors_of(arguments, data)
    found = assess(data, validation, test, settings, arguments.kind, vectors)
    path = replace(found.anchor, encoder=encoder).save(Path(arguments.output))
    if arguments.csv:
        save(arguments.csv, found.plain().to_csv(index=False, lineterminator="\n"))
    if arguments.json:
        about = {"weight": found.anchor.weight, "alone": found.alone, "anchor": str(path)}
        about |= {"caution": found.caution}
        numbers = for_programs(found.numbers())
        write_document(arguments.json, "anchor", 0, {**about, "numbers": numbers})
    print(data, found.summary(), f"anchor: {path}", sep="\n")
    return 0


def _read_vectors(path: str) -> dict[str, ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        allowed = f"a safetensors file of vectors by split ({str(error)[:80]})"
        raise InputError("vectors", path, allowed) from None


def _refuse_features(arguments: argparse.Namespace) -> None:
    """Refuse features that do not fit what is read of an encoder, before anything is read."""
    if arguments.vectors and arguments.features == "tfidf":
        raise InputError("features", "tfidf", "frozen or both: --vectors would not be read")
    if not arguments.encoder:
        return
    needs("torch")
    from stabutils.training.checkpoints import lowest

    if arguments.features not in (None, "both"):
        raise InputError("features", arguments.features, '"both", or none: --encoder reads both')
    if lowest(arguments.encoder)[1] is not None:
        raise InputError("encoder", arguments.encoder, "a whole checkpoint, without a :number")


def vectors_of(arguments: argparse.Namespace, data: Dataset) -> tuple[dict[str, ndarray], Encoder]:
    """Vectors of all layers of the encoder by split, and what an anchor knows of it; it prints
    where the encoder lies.
    """
    from stabutils.study.study import Study
    from stabutils.training.checkpoints import encoder_of, find_checkpoint
    from stabutils.training.features import frozen_vectors

    study = Study(dataset=arguments.dataset, model=arguments.encoder, pooling="mean")
    vectors = frozen_vectors(study.task, ALL)
    folder = encoder_of(find_checkpoint(arguments.encoder))
    tokens = study.task.recipe.max_length
    print(f"encoder: {folder}, {tokens} tokens of a text")
    return vectors, Encoder(tokens, data.train.texts[0], vectors["train"][0])


def read_rated(path: str | Path, columns: Mapping[str, str | Sequence[str]]) -> Predictions:
    """Predictions of a file; a table needs no column of labels, its columns p_<label> say them."""
    path, rated = Path(path), {}
    if path.suffix.lower() not in ARRAYS and path.is_file():
        header = read_table(path, path.name).header
        rated = {"probabilities": [column for column in header if column.startswith("p_")]}
    return read_predictions(path, {**rated, **columns})


def probabilities_of(predictions: Predictions, data: Dataset, split: str) -> ndarray:
    """Probabilities (runs, examples, classes) as `assess` takes them, texts and classes in the
    order of the corpus.

    Columns that are named for labels, and rows that have their text in a column or as their id, are
    put in order; others, such as the classes of an array, must be so. Raises InputError where there
    are no probabilities, where numbers may be labels or places of classes, or where texts, labels
    or gold labels are not those of the split.
    """
    thing, part = f"predictions on {split}", getattr(data, split)
    probabilities, given = predictions.probabilities, list(predictions.label_names)
    places = predictions.numbered and given == list(map(str, range(len(given))))
    names = given if places else list(data.label_names)
    if probabilities is None:
        raise InputError(thing, "labels only", "probabilities, a column p_<label> for each label")
    if places and sorted(given) == sorted(data.label_names) and given != list(data.label_names):
        allowed = "a table with a column of examples and p_<label> for each label"
        raise InputError(f"classes of the {thing}", "numbers, which are labels too", allowed)
    if set(given) != set(names):
        strange = sorted(set(given) ^ set(names))[0]
        raise InputError(f"labels of the {thing}", strange, "the labels of the corpus")
    ids = predictions.texts or predictions.examples
    rows = np.arange(len(ids))
    if sorted(ids) == sorted(part.texts):
        rows[_sorted_rows(part.texts)] = _sorted_rows(ids)
    elif predictions.texts is not None:
        raise InputError(f"texts of the {thing}", "others", f"the {split} texts")
    classes = [given.index(name) for name in names]
    if predictions.gold is not None:
        gold = np.argsort(classes)[predictions.gold[rows]]
        if not np.array_equal(gold, part.labels):
            allowed = f"the labels of the {split} texts, in their order"
            raise InputError(f"gold labels of the {thing}", "others", allowed)
    return probabilities[:, rows][..., classes]


def _sorted_rows(texts: Sequence[str]) -> list[int]:
    """The rows of texts in alphabetical order, equal ones as they stand."""
    return sorted(range(len(texts)), key=texts.__getitem__)

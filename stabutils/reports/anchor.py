"""A linear model to set beside any system: what it would buy, and a file that answers anywhere.

    import stabutils as st
    from stabutils.reports import anchor

    data = st.load_dataset("my_intents.csv")
    found = anchor.assess(data, validation_probabilities, test_probabilities)
    print(found.summary())
    found.anchor.save("anchor.safetensors")
    anchor.load("anchor.safetensors").answer(["wake me at six"], network_probabilities)

The file holds arrays and one JSON text (no pickle). `answer_from_file` is all that a service needs
to use it: numpy, scikit-learn and safetensors, nothing of this package.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils.data.datasets import Dataset, load_dataset
from stabutils.data.linear import FEATURES, VECTORIZERS, Linear, LinearModel, fit
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, verdict
from stabutils.metrics.mixtures import KINDS, choose_weight, curve, mix
from stabutils.reports.reading import Predictions, read_predictions
from stabutils.training import files

CONTENT = "anchor"  # what the record of a file says it is


@dataclass(frozen=True, eq=False)
class Anchor:
    """A linear model, the weight it has beside a network, and the names of the labels."""

    model: LinearModel
    weight: float
    kind: str
    label_names: tuple[str, ...]

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
        files.write_file(path, files.encode(arrays, record))
        return path


def load(path: str | Path) -> Anchor:
    """The anchor in a file, every byte verified. Raises InputError for a file that holds none."""
    arrays, record = files.read_file(Path(path)) or ({}, {})
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
    return Anchor(model, record["weight"], record["kind"], tuple(record["label_names"]))


def answer_from_file(path, texts, probabilities=None, vectors=None):
    """`load(path).answer(texts, probabilities, vectors)` without this package: to copy into a
    service.

    It reads the file without verifying it.
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
    blocks = []
    for entry in record["vectorizers"]:
        options = entry["options"] | {"ngram_range": tuple(entry["options"]["ngram_range"])}
        vectorizer = TfidfVectorizer(**options, vocabulary=entry["terms"])
        vectorizer.idf_ = arrays[f"idf {entry['name']}"]
        blocks.append(vectorizer.transform(texts))
    if vectors is not None:
        blocks.append(csr_array(np.asarray(vectors, float)))
    margins = hstack(blocks) @ arrays["coefficients"].T.astype(float) + arrays["intercepts"]
    own = softmax(margins / record["temperature"], axis=1)
    if probabilities is None:
        return own
    weight, smallest = record["weight"], np.finfo(np.float32).tiny
    if record["kind"] == "arithmetic":
        return (1 - weight) * probabilities + weight * own
    logs = [np.log(np.maximum(part, smallest)) for part in (probabilities, own)]
    return softmax((1 - weight) * logs[0] + weight * logs[1], axis=-1)


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
    """

    anchor: Anchor
    test: pd.DataFrame
    chosen: Mapping[str, Interval]
    alone: float

    @property
    def better_than_alone(self) -> str:
        """Verdict on "the mixture is more accurate than the linear model alone"."""
        return verdict(self.chosen["over_anchor"], 0.0)

    def summary(self) -> str:
        """The numbers as lines of plain text."""
        before, after = self.test.iloc[0], self.chosen
        lines = [
            f"Weight of the anchor, chosen on validation: {self.anchor.weight:g}",
            f"Accuracy    {before.accuracy} -> {after['accuracy']}",
            f"Churn       {before.churn} -> {after['churn']}",
            f"Label entropy reduced by {after['reduction']}",
            f"Linear model alone: accuracy {self.alone:.3f}, churn over seeds 0",
            f"Mixture more accurate than the linear model alone: {self.better_than_alone}",
        ]
        return "\n".join(lines)


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
        for probabilities that do not fit the corpus.
    """
    for name, given in (("validation", validation), ("test", test)):
        expected = (len(getattr(data, name)), len(data.label_names))
        if np.ndim(given) != 3 or np.shape(given)[1:] != expected:
            allowed = f"(runs, {expected[0]}, {expected[1]}): runs, examples, classes"
            raise InputError(f"shape of the {name} probabilities", np.shape(given), allowed)
    vectors = vectors or {}
    model = fit(settings, data.train, data.validation, len(data.label_names), vectors)
    held_out = model.probabilities(data.validation.texts, vectors.get("validation"))
    weight = choose_weight(validation, held_out, data.validation.labels, kind)
    anchor = Anchor(model, weight, kind, tuple(data.label_names))
    own = model.probabilities(data.test.texts, vectors.get("test"))
    table = curve(test, own, data.test.labels, kind)
    row = table[table.weight == weight].iloc[0]
    alone = float(np.mean(own.argmax(1) == data.test.labels))
    return Assessment(anchor, table, row.drop("weight").to_dict(), alone)


# ---- the command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m stabutils anchor`."""
    parser.add_argument("dataset", help="the corpus: a name, a file or a folder of splits")
    of_runs = "probabilities of two runs or more: .csv, .parquet, .npy or .safetensors"
    parser.add_argument("validation", help=f"{of_runs}, on the validation texts, in their order")
    parser.add_argument("test", help="the same on the test texts")
    parser.add_argument("-o", "--output", default="anchor.safetensors", help="the anchor's file")
    parser.add_argument("--features", choices=FEATURES, default="tfidf")
    parser.add_argument("--kind", choices=KINDS, default="geometric", help="of the mixture")
    vectors = ".safetensors of a frozen encoder's vectors: arrays train, validation and test"
    parser.add_argument("--vectors", help=f"{vectors}; for the features frozen and both")
    parser.add_argument("--csv", help="write what every weight gives on the test texts")


def command(arguments: argparse.Namespace) -> int:
    """Assess an anchor, save it, say what it would buy and where it lies."""
    from safetensors.numpy import load_file

    data, settings = load_dataset(arguments.dataset), Linear(arguments.features)
    validation, test = (
        probabilities_of(read_predictions(getattr(arguments, split)), data, split)
        for split in ("validation", "test")
    )
    vectors = load_file(arguments.vectors) if arguments.vectors else {}
    found = assess(data, validation, test, settings, arguments.kind, vectors)
    path = found.anchor.save(Path(arguments.output))
    if arguments.csv:
        found.test.to_csv(arguments.csv, index=False)
    print(data, found.summary(), f"anchor: {path}", sep="\n")
    return 0


def probabilities_of(predictions: Predictions, data: Dataset, split: str) -> ndarray:
    """Probabilities (runs, examples, classes) as `assess` takes them, classes in order of the
    corpus.

    Columns that are named for the labels are put in order; those of an array must be so. Raises
    InputError where there are no probabilities, or texts or gold labels are not those of the split.
    """
    thing, part, names = f"predictions on {split}", getattr(data, split), list(data.label_names)
    probabilities = predictions.probabilities
    if probabilities is None:
        raise InputError(thing, "labels only", "probabilities, a column p_<label> for each label")
    given = list(predictions.label_names)
    if not predictions.numbered:
        if set(given) != set(names):
            strange = sorted(set(given) ^ set(names))[0]
            raise InputError(f"labels of the {thing}", strange, "the labels of the corpus")
        probabilities = probabilities[..., [given.index(name) for name in names]]
    if predictions.texts is not None and predictions.texts != tuple(part.texts):
        raise InputError(f"texts of the {thing}", "others", f"the {split} texts, in their order")
    return probabilities

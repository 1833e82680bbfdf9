"""How the training data of a run differ: decided by a change and the run's `data` seed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer

from stabutils.errors import InputError
from stabutils.training.state import Stream, Targets
from stabutils.training.task import Tokens

APART = 100  # seeds between a model and the one that replaces it
ALLOWED = (
    '"drop 10 %", "new examples 10 %", "relabel 1 %" (or another share below 100 %), or "bootstrap"'
)
ALTERNATIVES = 3  # classes that a relabelled text's new label is drawn from


@dataclass(frozen=True)
class Change:
    """What a run's data seed decides about its training examples.

    drop : a random `share` of the examples is left out
    bootstrap : as many examples as there are, drawn with replacement
    new examples : before an update, at data seeds below APART, a random `share` of the examples is
        left out; the update sees all of them
    relabel : a random `share` of the examples gets one of the three labels that are most easily
        confused with its own
    """

    kind: str
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Change | None:
        """The change that a text names; None for "". Raises InputError.

        Examples
        --------
        >>> Change.parse("drop 10 %")
        Change(kind='drop', share=0.1)
        """
        if not text:
            return None
        match = re.fullmatch(r"(drop|new examples|relabel) (\d+(?:\.\d+)?) ?%|(bootstrap)", text)
        if match is None:
            raise InputError("change", text, ALLOWED)
        if match[3]:
            return cls("bootstrap")
        share = float(match[2]) / 100
        if not 0 < share < 1:
            raise InputError("change", text, ALLOWED)
        return cls(match[1], share)

    @property
    def words(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind} {100 * self.share:g} %" if self.share else self.kind

    def number(self, count: int) -> int:
        """How many of the examples a share is; InputError where it is all of them.

        >>> Change("drop", 0.1).number(58)
        6
        """
        number = max(1, round(self.share * count))
        if number >= count:
            value = f"{self.words} of {count} training texts"
            raise InputError("change", value, "a share that leaves one of them as it is")
        return number

    def check_seed(self, seed: int, runs: int) -> None:
        """Raises InputError where some of a study's models from before an update would see what is
        new."""
        if self.kind == "new examples" and seed + runs > APART:
            allowed = f"at most {APART} together: models of seeds from there on are updates"
            raise InputError("seed and runs", (seed, runs), allowed)

    def apply(self, targets: Targets, texts: Tokens, seed: int) -> Targets:
        """The changed targets of a training split; texts are those of the whole split."""
        count = len(targets.indices)
        generator = Stream("data", seed).generator
        if self.kind == "bootstrap":
            rows = torch.randint(count, (count,), generator=generator).sort().values
            return targets.take(rows)
        if self.kind == "new examples" and seed >= APART:
            return targets
        order = torch.randperm(count, generator=generator)
        changed = self.number(count)
        if self.kind != "relabel":
            return targets.take(order[changed:].sort().values)
        chosen = order[:changed]
        draws = torch.randint(ALTERNATIVES, (changed,), generator=generator)
        labels = targets.probabilities.argmax(1)
        candidates = confusable_labels(texts, labels.numpy(), targets.probabilities.shape[1])
        places = draws % candidates.shape[1]
        new = torch.from_numpy(candidates)[chosen, places]
        probabilities = targets.probabilities.clone()
        probabilities[chosen] = torch.nn.functional.one_hot(new, probabilities.shape[1]).float()
        return targets.with_labels(probabilities)


def tfidf(texts: Tokens, dtype: type[np.floating]) -> csr_array:
    """TF-IDF vectors of texts over their tokens, each of length 1."""
    rows = np.repeat(np.arange(len(texts.lengths)), texts.lengths.numpy())
    shape = len(texts.lengths), int(texts.ids.max()) + 1
    counts = csr_array((np.ones(len(rows), dtype), (rows, texts.ids.numpy())), shape=shape)
    return TfidfTransformer().fit_transform(counts)


def confusable_labels(texts: Tokens, labels: np.ndarray, classes: int) -> np.ndarray:
    """The labels most easily confused with each text's own: (texts, at most ALTERNATIVES).

    The classes whose mean text is most similar to it (TF-IDF of its tokens, cosine), without its
    own; no seed has a say in it.
    """
    vectors = tfidf(texts, np.float64)
    members = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))))
    members.resize((classes, len(labels)))
    sums = (members @ vectors).toarray()
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    similarity = vectors @ means.T
    similarity[np.arange(len(labels)), labels] = -np.inf
    count = min(ALTERNATIVES, classes - 1)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]

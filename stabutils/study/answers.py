"""Where the answers of a study's runs come from: published ones first, then the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stabutils.study import committed, paths
from stabutils.study.runs import Request, Run, Runs, missing_runs, stack, summarise
from stabutils.study.store import Store
from stabutils.training import files


@dataclass(frozen=True)
class Answers:
    """The answers that need no training: `store`, and published ones below `records`.

    records: None to read no published answers.
    """

    store: Store
    records: Path | None
    gold: np.ndarray

    def has(self, run: Run, extras: Sequence[str] = ()) -> bool:
        """Whether a run is stored with all of these extras; its arrays are not read."""
        names, record = self.store.header(run.name) or (set(), {})
        return _same_run(record, run) and {f"kept.{name}" for name in extras} <= names

    def extras(self, run: Run) -> set[str]:
        """What the stored file of a run holds beside its answers."""
        names, _ = self.store.header(run.name) or (set(), {})
        return {name.removeprefix("kept.") for name in names if name.startswith("kept.")}

    def stored(self, run: Run, extras: Sequence[str] = ()) -> files.Arrays | None:
        """A run's answers from the store with their summaries and these extras, else None."""
        arrays, record = self.store.read(run.name) or ({}, {})
        wanted = {f"kept.{name}" for name in extras}
        if not _same_run(record, run) or not wanted <= arrays.keys():
            return None
        beside = {name for name in arrays if name.startswith("kept.")} - wanted
        answers = {name: array for name, array in arrays.items() if name not in beside}
        answers["processors"] = np.array(record.get("processor", ""))
        return answers | summarise(answers, self.gold)

    def published(self, request: Request) -> dict[str, files.Arrays]:
        """The published answers of an arm by run name, of runs with all that is asked for."""
        if self.records is None:
            return {}
        path = paths.published_answers(self.records, request.model, request.arm)
        found = committed.read(path, request.keep)
        if request.mixed:
            found = {name: answers for name, answers in found.items() if "shares" in answers}
        return found

    def stack(self, request: Request) -> Runs | Sequence[Run]:
        """The runs of a request where all have answers, else those that are to be trained."""
        published, answers = self.published(request), {}
        for run in request.runs:
            known, stored = published.get(run.name), self.stored(run, request.keep)
            if known or stored:
                answers[run.name] = committed.first(known, stored, self.gold)
        return missing_runs(request, answers) or stack(request, answers, self.gold)


def _same_run(record: dict, run: Run) -> bool:
    return record.get("identity") == json.loads(files.canonical(run.identity))

"""Publishing answers: what a notebook used is collected from the store into `records/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stabutils.errors import InputError
from stabutils.provenance import provenance
from stabutils.study import committed, paths
from stabutils.study.runs import Request, Run, Runs, run_label
from stabutils.study.study import Study
from stabutils.training import files


def publish_answers(study: Study, about: Mapping) -> list[Path]:
    """Publish the answers that a notebook used, as its record names them in `about["answers"]`.

    Answers that are published already stay as they are. Returns the files written.
    """
    requests = [request_of(study, about, entry) for entry in about.get("answers", ())]
    written = [publish(study, request) for request in requests]
    return [file for file in written if file is not None]


def request_of(study: Study, about: Mapping, entry: Mapping) -> Request:
    """The request that a record tells of, the inverse of `Request.as_json`."""
    from stabutils.training.loop import RECIPE_VERSION
    from stabutils.training.state import Seeds

    shared = {
        "version": RECIPE_VERSION,
        "dataset": about["dataset"],
        "model": entry["network"],
        "recipe": entry["recipe"],
        "mitigation": entry["mitigation"],
    }
    if entry["change"]:
        shared["change"] = entry["change"]
    runs = []
    count = 4 if entry["change"] else 3  # seeds of a run
    for numbers in entry["seeds"]:
        if not isinstance(numbers, list):
            numbers = [numbers] * count
        seeds = Seeds(*numbers)
        label = run_label(study.data.name, entry["model"], entry["arm"], seeds)
        runs.append(Run(label, seeds, shared | {"seeds": seeds.identity()}))
    return Request(
        entry["arm"],
        tuple(runs),
        entry["model"],
        tuple(entry["keep"]),
        entry["part"],
        entry["whole"],
    )


def publish(study: Study, request: Request) -> Path | None:
    """Publish the answers of a request; None where that is done, or would replace more by less.

    Raises InputError where published answers of another recipe bear the name.
    """
    published = study.answers.published(request)
    runs = study.answers.stack(request)
    if "unpublished" in request.part or not isinstance(runs, Runs):
        return None
    path = paths.published_answers(study.records, request.model, request.arm, request.part)
    complete = published.keys() >= set(runs.names)
    whole = request.whole and runs.probabilities is not None
    if complete and not (whole and "shares" not in published[runs.names[0]]):
        return None
    identity = request.runs[0].identity
    arrays, there = files.read_file(path) or ({}, {"runs": (), "recipe": identity["recipe"]})
    if len(there["runs"]) > len(runs) or ("shares" in arrays and not whole):
        return None
    if there["recipe"] != identity["recipe"]:
        allowed = "a file that holds answers under the same recipe; delete it to publish these"
        raise InputError("published answers", path.name, allowed)
    about = {
        "dataset": study.data.name,
        "model": request.model,
        "recipe": identity["recipe"],
        "identity": identity["model"],
    }
    classes = len(study.data.label_names)
    watched = request.arm == "control" and not request.part  # what proxies are asked of
    return committed.write(path, runs, classes, about | provenance(), request.whole, watched)

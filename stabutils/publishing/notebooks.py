"""Notebooks run with parameters: `python -m stabutils run | notebooks | publish`.

It is papermill with the checks it lacks: a name or type that no notebook knows, or a value that a
study would refuse, ends it before anything is computed.
"""

from __future__ import annotations

import ast
import logging
import os
import posixpath
import re
import shutil
import sys
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import cpu_count

from stabutils import records
from stabutils.data.datasets import NAMES
from stabutils.errors import Incomplete, InputError, check, needs
from stabutils.provenance import project_root
from stabutils.publishing.cells import of_corpus
from stabutils.publishing.plans import cpu_seconds, parts_of, refuse
from stabutils.reports.reading import SAMPLE, read_predictions
from stabutils.reports.stability import escape_formula
from stabutils.study.forecast import Forecast
from stabutils.study.paths import results_of_file, results_root, run_store
from stabutils.study.publication import publish_answers
from stabutils.study.study import Study, recipe_in_words
from stabutils.training.checkpoints import lowest

KINDS = {"int": int, "float": float, "str": str, "bool": bool}
WORDS = {"true": True, "false": False}
# Parameters that may name a file or a folder.
FILES = ("dataset", "model", "encoder", "predictions", "before")
LINK = re.compile(r"\]\((?!\w+:|#)([^)]*)")  # to another file
# A file on this machine, of which only the last two names stay.
PLACE = re.compile(r'"(?:/|[A-Za-z]:)[^"]*?([^"/\\]+[/\\]+[^"/\\]+)"')
MEMORY = re.compile(r" at 0x[0-9a-f]+")  # where an object stood


def notebooks(wanted: list[str]) -> list[Path]:
    """The notebooks whose file names begin with one of `wanted` ("01"); all of them when nothing is
    wanted.
    """
    every = sorted((project_root() / "notebooks").glob("[0-9]*.ipynb"))
    if not every:
        folder = str(project_root() / "notebooks")
        allowed = "the notebooks of a clone, inside of it or copied here: a package has none"
        raise InputError("notebooks", folder, allowed)
    if not wanted:
        return every
    numbers = tuple(name.zfill(2) for name in wanted)  # 1 is 01
    for number in numbers:
        if not any(path.name.startswith(number) for path in every):
            known = ", ".join(path.stem[:2] for path in every)
            raise InputError("notebook", number, f"one of {known}")
    return [path for path in every if path.name.startswith(numbers)]


def schema(path: Path) -> dict[str, tuple[object, object]]:
    """Name -> (type, default) of a notebook's parameters cell: annotated assignments of plain
    values.
    """
    needs("nbformat")
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    tagged = (cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    source = next(tagged, "")
    found: dict[str, tuple[object, object]] = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.AnnAssign):
            words = ast.unparse(line.annotation)
            plain = KINDS[words.removeprefix("Optional[").removesuffix("]")]
            kind = plain | None if words.startswith("Optional") else plain
            found[line.target.id] = kind, ast.literal_eval(line.value)
    return found


def parameters(
    paths: list[Path], preset: str | None, given: list[list[str]]
) -> dict[Path, dict[str, object]]:
    """The values for each notebook, held against its parameters cell and against `Study`, before
    any of them runs.
    """
    known = {path: schema(path) for path in paths}
    kinds = {name: kind for table in known.values() for name, (kind, _) in table.items()}
    elsewhere = {name for path in notebooks([]) for name in schema(path)} - kinds.keys()
    settings = [(name, value) for name, value in presets(preset).items() if name not in elsewhere]
    values: dict[str, object] = {}
    for name, text in [*settings, *given]:
        if name not in kinds:
            raise InputError("parameter", name, f"one of {', '.join(sorted(kinds))}")
        values[name] = absolute(name, parse(name, text, kinds[name]))
    Study.of(values)
    for path in paths:
        refuse(path.stem[:2], defaults(path) | values, methods="methods" in values)
    for name in ("predictions", "before"):
        if values.get(name):
            read_predictions(values[name], values.get("columns") or None)
    return {
        path: {name: value for name, value in values.items() if name in table}
        for path, table in known.items()
    }


def absolute(name: str, value: object) -> object:
    """A file or folder that exists, by its whole path, for a notebook runs in a folder of its
    own.
    """
    known = value in NAMES or name == "model" and str(value).startswith("compact")
    if name not in FILES or known:
        return value
    path, layers = str(value), None
    if name in ("model", "encoder"):
        path, layers = lowest(path)
    if not os.path.exists(path):
        return value
    whole = str(Path(path).resolve())
    return whole if layers is None else f"{whole}:{layers}"


def presets(name: str | None) -> dict[str, object]:
    """The values of notebooks/presets/<name>.yaml, or of a YAML file by path."""
    import yaml

    if name is None:
        return {}
    folder = project_root() / "notebooks" / "presets"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(preset.stem for preset in folder.glob("*.yaml")))
        raise InputError("preset", name, f"a YAML file, or one of {known}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    # The last two: a date of month 13 or 5,000 digits, and deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError("preset", name, f"YAML of names and values ({reason})") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError("preset", name, "YAML of names and values")
    return values


def parse(name: str, text: object, kind: object) -> object:
    """A parameter's value from the command line's text or from a preset, of the type its cell
    declares.
    """
    plain = next(each for each in KINDS.values() if kind in (each, each | None))
    value = text
    if isinstance(text, str) and plain is not str:
        word = text.lower()
        if word == "none" and kind != plain:
            value = None
        elif plain is bool:
            value = WORDS.get(word, text)
        else:
            with suppress(ValueError):
                value = plain(text)
    check(name, value, kind, {})
    return value


def plan(plans: dict[Path, dict[str, object]]) -> list[str]:
    """What would be trained, an arm a line, what notebooks share once; in all, in the last line."""
    lines: list[str] = []
    # A run of which two notebooks keep different things is trained once for both.
    forecast, most, certain = Forecast(), 0, len(plans) == 1
    studies: dict[Study, Study] = {}  # equal ones read their texts once
    effort = 0.0  # in trainings of control
    for path, values in plans.items():
        knobs = defaults(path) | values
        if "dataset" not in knobs:
            lines.append(f"{path.stem}: nothing is trained")
            continue
        study = Study.of(knobs)
        study = studies.setdefault(study, study)
        recipe = recipe_in_words(study)
        if recipe not in lines:
            lines.append(recipe)
        for part in parts_of(path.stem[:2], study, knobs):
            part = replace(part, study=studies.setdefault(part.study, part.study))
            counts = part.count(forecast)
            words = ", ".join(f"{what} {count}" for what, count in counts.items())
            lines.append(f"{path.stem}: {part.name}: {words}")
            certain &= "to train" in counts
            to_train = list(counts.values())[-1]
            most += to_train
            effort += to_train * part.cost(study)
    words = f"{len(forecast.published)} published and {len(forecast.stored)} stored runs are read"
    last = f"in all: {words}, to train {'' if certain else 'at most '}{most}"
    control = next(iter(studies), None)
    if most and control.dispatch.device == "cpu" and not control.dispatch.cluster:
        processes = control.workers or cpu_count()
        minutes = effort * cpu_seconds(control) / processes / 60
        if np.isfinite(minutes):
            last += f", about {max(1, round(minutes))} min on {processes} free cores"
    if control is not None and control.task.pretrained:
        last += "; linear models on the encoder's vectors are not counted, seconds to minutes each"
    return [*lines, last]


def defaults(path: Path) -> dict[str, object]:
    """The values of a notebook's parameters where nobody gives others."""
    return {name: default for name, (_, default) in schema(path).items()}


def output_of(path: Path, values: dict[str, object]) -> Path:
    """Where a notebook's results go: a folder named after the study, or after the predictions where
    there is none.
    """
    given = str(values.get("output", ""))
    if "dataset" in schema(path):
        return Study.of(values).output(given)
    if given:
        return Path(given)
    return results_of_file(Path(values.get("predictions") or SAMPLE))


def execute(source: Path, target: Path, values: dict[str, object]) -> None:
    """Run a notebook with the values given; its folder is the working folder, as under nbval.
    Raises Incomplete.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of a notebook that is stopped
    # The notebook runs in a folder of its own: what is relative means the caller's.
    if os.environ.get("STABUTILS_DATA"):
        os.environ["STABUTILS_DATA"] = str(Path(os.environ["STABUTILS_DATA"]).resolve())
    places = {"STABUTILS_RESULTS": results_root(), "STABUTILS_RUNS": run_store()}
    os.environ |= {name: str(folder.resolve()) for name, folder in places.items()}
    # The kernel's bar goes to this terminal, not into the notebook.
    os.environ["STABUTILS_BAR"] = "text" if sys.stderr.isatty() else "lines"
    # Of workers that are still idle when a kernel ends.
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    target = target.resolve()  # papermill works in the folder of the source
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset = str((defaults(source) | values).get("dataset", ""))
    nbformat.write(of_corpus(nbformat.read(source, as_version=4), dataset), target)
    with warnings.catch_warnings():
        # Of the Jupyter machinery; a study's own warnings appear in the notebook.
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                target,
                target,
                values,
                kernel_name="python3",
                cwd=source.parent,
                autosave_cell_every=0,
                progress_bar=sys.stderr.isatty(),
                stderr_file=sys.stderr,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            )
        except KeyboardInterrupt:
            raise stopped(target) from None
        except papermill.PapermillExecutionError as error:
            if error.ename == "KeyboardInterrupt":
                raise stopped(target) from None
            raise Incomplete(
                f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue} "
                f"(all of it is in {target})"
            ) from error
        except DeadKernelError as error:  # the notebook's own metadata would say that all went well
            raise Incomplete(f"{source.name}: its kernel died, often for want of memory") from error
    tidy(target)


def stopped(notebook: Path) -> KeyboardInterrupt:
    """Tidy what was executed of a notebook that was stopped; the error that says so."""
    tidy(notebook)
    return KeyboardInterrupt(f"{notebook} has what was executed so far; ")


def entry(path: Path, page: Path) -> dict:
    """What an executed notebook found, as a document for programs has it."""
    found = {"notebook": path.stem, "page": str(page.resolve())}
    record = page.with_name(f"{path.stem}.json")
    if record.is_file():
        content = records.read(record)
        found["numbers"] = records.for_programs(content.numbers)
        found["claims"] = [asdict(claim) for claim in content.claims]
    return found


def publish_one(path: Path, values: dict[str, object]) -> Path:
    """Run a notebook, then publish its record, the answers behind it, and the executed notebook.

    Where answers are published for the first time, the notebook is run once more and reads them, so
    that its record follows from what is published.
    """
    study = Study.of(values)
    folder, results = study.records, study.output()
    values = {**values, "output": str(results.resolve())}
    folder.mkdir(parents=True, exist_ok=True)
    record = results / f"{path.stem}.json"
    execute(path, results / path.name, values)
    if publish_answers(study, records.read(record).provenance):
        execute(path, results / path.name, values)
    publish_queries(study, folder)
    shutil.copy(record, folder)
    keep_executed(results / path.name, folder / path.name)
    return folder


def publish_queries(study: Study, folder: Path) -> None:
    """The texts that the published figures and tables show: corpora themselves are not
    published.
    """
    from stabutils.publishing import drawing, results  # brings seaborn

    test, names = study.data.test, study.data.label_names
    labels = study.retrain("control").labels
    if results.arms(folder, "*-control"):  # which figures show, whatever was asked for here
        labels = results.control(folder)[0]["labels"].astype(int)
    rows = drawing.telling(labels)
    queries = pd.DataFrame(
        {
            "query": rows,
            "text": [test.texts[row] for row in rows],
            "gold": [names[test.labels[row]] for row in rows],
        }
    )
    queries = queries.map(escape_formula)
    queries.to_csv(folder / "queries.csv", index=False, lineterminator="\n")


def keep_executed(notebook: Path, target: Path) -> None:
    """Copy an executed notebook to records/<dataset>/: links lead from there, and it names no place
    on a machine.
    """
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        cell.source = cell.source.replace(str(notebook.parent.resolve()), "")
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.source = PLACE.sub(r'"\1"', cell.source)
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(from_records, cell.source)
    nbformat.write(content, target)


def from_records(link: re.Match[str]) -> str:
    """The start of a link in a notebook, as it leads from a folder of records/."""
    return "](" + posixpath.normpath(f"../../notebooks/{link[1]}")


def tidy(path: Path) -> None:
    """Leave out timings, progress bars, warnings of the machinery and places in memory; tags and
    results stay.
    """
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = _only(notebook.metadata, "kernelspec", "language_info")
    for cell in notebook.cells:
        cell.metadata = _only(cell.metadata, "tags", "jupyter", "nbgrader")
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_result(output)]
            for output in cell.outputs:
                data = output.get("data", {})
                if "text/html" in data:
                    data["text/plain"] = MEMORY.sub("", data.get("text/plain", ""))
    nbformat.write(notebook, path)


def _only(metadata: dict, *names: str) -> dict:
    return {name: value for name, value in metadata.items() if name in names}


def _is_result(output: dict) -> bool:
    """Whether an output of a cell is neither a warning nor a progress bar."""
    bar = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return output.get("name") != "stderr" and not bar

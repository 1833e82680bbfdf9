"""The command line: `python -m stabutils run | report | compare | notebooks | publish | figures | site | verify`.

`run` is papermill with the checks it lacks: a name or type that no notebook knows, or a value that a study would
refuse, ends it with exit status 2 before anything is computed.
"""
from __future__ import annotations

import argparse
import ast
import logging
import os
import posixpath
import re
import shutil
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import pandas as pd

from . import claims, comparison, published, quotes, site, verify
from .committed import publishing
from .datasets import NAMES
from .errors import Incomplete, InputError
from .predictions import SAMPLE, read_predictions
from .provenance import project_root
from .report import add_arguments, harmless
from .report import command as write_report
from .study import Study, check, results_of


class Failed(RuntimeError):
    """A notebook stopped at an error."""


KINDS = {"int": int, "float": float, "str": str, "bool": bool}
FILES = ("dataset", "model", "encoder", "predictions", "before")  # parameters that may name a file or a folder


def notebooks(wanted: list[str]) -> list[Path]:
    """The notebooks whose file names begin with one of `wanted` ("01"); all of them when nothing is wanted."""
    every = sorted((project_root() / "notebooks").glob("[0-9]*.ipynb"))
    for name in wanted:
        if not any(path.name.startswith(name) for path in every):
            raise InputError("notebook", name, f"one of {', '.join(path.stem[:2] for path in every)}")
    return [path for path in every if not wanted or any(path.name.startswith(name) for name in wanted)]


def schema(path: Path) -> dict[str, tuple[object, object]]:
    """Name -> (type, default) of a notebook's parameters cell: annotated assignments of plain values."""
    import nbformat

    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    found = {}
    for line in ast.parse(source).body:
        kind = ast.unparse(line.annotation)
        plain = KINDS[kind.removeprefix("Optional[").removesuffix("]")]
        found[line.target.id] = (plain | None if kind.startswith("Optional") else plain, ast.literal_eval(line.value))
    return found


def parameters(paths: list[Path], preset: str | None, given: list[list[str]]) -> dict[Path, dict[str, object]]:
    """The values for each notebook, held against its parameters cell and against `Study`, before any of them runs."""
    known = {path: schema(path) for path in paths}
    values: dict[str, object] = {}
    elsewhere = {name for path in notebooks([]) for name in schema(path)} - {n for t in known.values() for n in t}
    settings = [(name, value) for name, value in presets(preset).items() if name not in elsewhere]
    for name, text in [*settings, *map(tuple, given)]:
        kinds = {kind for table in known.values() if name in table for kind, _ in [table[name]]}
        if not kinds:
            raise InputError("parameter", name, "one of " + ", ".join(sorted({n for t in known.values() for n in t})))
        values[name] = absolute(name, parse(name, text, kinds.pop()))
    study_of(values)
    for name in ("predictions", "before"):
        if values.get(name):
            read_predictions(values[name], values.get("columns") or None)
    return {path: {name: value for name, value in values.items() if name in table} for path, table in known.items()}


def absolute(name: str, value: object) -> object:
    """A file or folder that exists, by its whole path, for a notebook runs in a folder of its own."""
    known = value in NAMES or name == "model" and str(value).startswith("compact")
    return str(Path(value).resolve()) if name in FILES and not known and os.path.exists(value) else value


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
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of month 13, 5,000 digits, deep nesting
        raise InputError("preset", name, f"YAML of names and values ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError("preset", name, "YAML of names and values")
    return values


def parse(name: str, text: object, kind: object) -> object:
    """A parameter's value from the command line's text or from a preset, of the type its cell declares."""
    plain = next(k for k in KINDS.values() if kind == k or kind == k | None)
    if isinstance(text, str) and plain is not str:
        words = {"true": True, "false": False} if plain is bool else {}
        try:
            value = None if text.lower() == "none" and kind != plain else words[text.lower()] if words else plain(text)
        except (ValueError, KeyError):
            value = text
    else:
        value = text
    check(name, value, kind, {})
    return value


def run(arguments: argparse.Namespace) -> int:
    plans = parameters(notebooks(arguments.notebooks), arguments.preset, arguments.parameters)
    if arguments.plan:
        return plan(plans)
    for path, values in plans.items():
        folder = output_of(path, values)
        execute(path, folder / path.name, {**values, "output": str(folder.resolve())})
        page = html(folder / path.name)
        print(f"{path.stem}: {page}")
    return 0


def plan(plans: dict[Path, dict[str, object]]) -> int:
    """Say what control would need, once for notebooks that share it, and stop."""
    said: dict[Study, str] = {}
    for path, values in plans.items():
        study = study_of(values) if "dataset" in schema(path) else None
        if study is None:
            print(f"{path.stem}: nothing is trained")
        elif study in said:
            print(f"{path.stem}: control as in {said[study]}, and what its methods need")
        else:
            needs = ", ".join(f"{name} {count}" for name, count in study.plan().items())
            print(f"{path.stem}: control: {needs}; and what its methods need")
            said[study] = path.stem[:2]
    return 0


def study_of(values: dict[str, object]) -> Study:
    return Study(**{knob.name: values[knob.name] for knob in fields(Study) if knob.name in values})


def output_of(path: Path, values: dict[str, object]) -> Path:
    """Where a notebook's results go: a folder named after the study, or after the predictions where there is none."""
    given = str(values.get("output", ""))
    if "dataset" in schema(path):
        return study_of(values).output(given)
    return results_of(Path(values.get("predictions") or SAMPLE), given)


def execute(source: Path, target: Path, values: dict[str, object]) -> None:
    """Run a notebook with the values given; its folder is the working folder, as under nbval. Raises Failed."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    for name in ("STABUTILS_DATA", "STABUTILS_RUNS"):  # a relative one means the caller's folder, not the notebook's
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).resolve())
    os.environ["STABUTILS_BAR"] = "text"  # the kernel's bar goes to this terminal, not into the notebook
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # of workers that are still idle when a kernel ends
    target.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter machinery; a study's own warnings appear in the notebook
        try:
            papermill.execute_notebook(source, target, values, kernel_name="python3", cwd=source.parent,
                                       request_save_on_cell_execute=False, autosave_cell_every=0,
                                       stderr_file=sys.stderr, extra_arguments=["--IPKernelApp.log_level=ERROR"])
        except papermill.PapermillExecutionError as error:
            raise Failed(f"{source.name}, cell {error.exec_count}: {error.ename}: {error.evalue} "
                         f"(all of it is in {target})") from error
        except DeadKernelError as error:  # the notebook's own metadata would say that all went well
            raise Failed(f"{source.name}: its kernel died, often for want of memory") from error
    nbformat.write(tidy(nbformat.read(target, as_version=4)), target)


def publish(arguments: argparse.Namespace) -> int:
    """Run notebooks and keep what they found, and what the runs answered, in records/<dataset>/ (of a checkpoint:
    records/<dataset>-<model>/)."""
    paths = [path for path in notebooks(arguments.notebooks) if "dataset" in schema(path)]  # 06 is about no corpus
    plans = parameters(paths, arguments.preset, arguments.parameters)
    if arguments.plan:
        return plan(plans)
    with publishing():
        for path, values in plans.items():
            print(publish_one(path, values))
    return 0


def publish_one(path: Path, values: dict[str, object]) -> Path:
    study = study_of(values)
    folder, results = study.records, study.output()
    control = study.retrain("control")
    rows = published.telling(control.labels)
    queries = pd.DataFrame({"query": rows, "text": [study.data.test.texts[row] for row in rows],
                            "gold": [study.data.label_names[study.data.test.labels[row]] for row in rows]})
    folder.mkdir(parents=True, exist_ok=True)
    queries.map(harmless).to_csv(folder / "queries.csv", index=False, lineterminator="\n")
    execute(path, results / path.name, {**values, "output": str(results.resolve())})
    shutil.copy(results / f"{path.stem}.json", folder)
    keep_executed(results / path.name, folder / path.name)
    return folder


def keep_executed(notebook: Path, target: Path) -> None:
    """Copy an executed notebook to records/<dataset>/: links lead from there, and it names no place on a machine."""
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        cell.source = cell.source.replace(str(notebook.parent.resolve()), "")
        if "injected-parameters" in cell.metadata.get("tags", ()):  # of other places their last two names
            cell.source = re.sub(r'"(?:/|[A-Za-z]:)[^"]*?([^"/\\]+[/\\]+[^"/\\]+)"', r'"\1"', cell.source)
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((?!\w+:|#)([^)]*)", lambda link: "](" + posixpath.normpath(
                f"../../notebooks/{link[1]}"), cell.source)
    nbformat.write(content, target)


def draw(arguments: argparse.Namespace) -> int:
    """figures/<dataset>/ and the numbers quoted in prose, from records/ alone."""
    for folder in sorted((project_root() / "records").glob("*/answers")):
        for path in published.draw(folder.parent, project_root() / "figures" / folder.parent.name):
            print(path)
    for path in published.draw_benchmark(project_root(), project_root() / "figures"):
        print(path)
    for path in quotes.requote():
        print(path)
    page = project_root() / "docs" / "claims.md"
    page.write_text(claims.markdown(project_root()), encoding="utf-8", newline="\n")
    return 0


def pages(arguments: argparse.Namespace) -> int:
    """site/: README, docs and notebooks as pages that need no network."""
    print(site.build(project_root(), project_root() / "site")[0])
    return 0


def html(notebook: Path) -> Path:
    """Write the executed notebook as a page beside it."""
    page = notebook.with_suffix(".html")
    page.write_text(site.alone(notebook, project_root()), encoding="utf-8", newline="\n")
    return page


def refresh(arguments: argparse.Namespace) -> int:
    """Execute the committed notebooks in place, at their defaults, and keep only what a reader needs of the outputs."""
    for path in notebooks(arguments.notebooks):
        finished = path.with_name(f".{path.name}")
        try:
            execute(path, finished, {})
            finished.replace(path)
        finally:
            finished.unlink(missing_ok=True)
        print(path)
    return 0


def tidy(notebook):
    """Without timings, progress bars, warnings of the machinery and places in memory; tags and results stay."""
    notebook.metadata = {name: value for name, value in notebook.metadata.items()
                         if name in ("kernelspec", "language_info")}
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name in ("tags", "jupyter")}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"
                            and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})]
            for data in (output.data for output in cell.outputs if "text/html" in output.get("data", {})):
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data.get("text/plain", ""))  # of where it stood
    return notebook


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stabutils", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, act, text in (("run", run, "run notebooks of the study"),
                            ("publish", publish, "run them and keep what they found in records/")):
        command = commands.add_parser(name, help=text)
        command.add_argument("notebooks", nargs="*", help="numbers, such as 01 02; all when none is given")
        command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
        command.add_argument("--preset", help="quick, course, full, paper, or a YAML file")
        command.add_argument("--plan", action="store_true", help="say how many trainings control needs, and stop")
        command.set_defaults(command=act)
    command = commands.add_parser("report", help="the same report for predictions of any system")
    add_arguments(command)
    command.set_defaults(command=write_report)
    command = commands.add_parser("compare", help="did a change make a system's predictions more stable?")
    comparison.add_arguments(command)
    command.set_defaults(command=comparison.command)
    command = commands.add_parser("notebooks", help="execute the committed notebooks in place")
    command.add_argument("notebooks", nargs="*")
    command.set_defaults(command=refresh)
    command = commands.add_parser("figures", help="make figures/ and the quoted numbers from records/")
    command.set_defaults(command=draw)
    command = commands.add_parser("site", help="README, docs and notebooks as pages to browse without network: site/")
    command.set_defaults(command=pages)
    command = commands.add_parser("verify", help="train a random sample of the stored runs again and compare")
    verify.add_arguments(command)
    command.set_defaults(command=verify.command)
    arguments = parser.parse_args(argv)
    try:
        return arguments.command(arguments)
    except InputError as error:
        print(f"stabutils: {error}", file=sys.stderr)
        return 2
    except (Failed, Incomplete, OSError) as error:
        print(f"stabutils: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

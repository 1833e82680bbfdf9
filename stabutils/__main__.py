"""The command line: `python -m stabutils run | report | compare | anchor | notebooks | publish |
figures | site | verify`.

`run` is papermill with the checks it lacks: a name or type that no notebook knows, or a value that
a study would refuse, ends it with exit status 2 before anything is computed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from stabutils.errors import Incomplete, InputError
from stabutils.provenance import project_root
from stabutils.publishing import pages
from stabutils.publishing.ahead import Ahead
from stabutils.publishing.notebooks import (
    defaults,
    entry,
    execute,
    notebooks,
    output_of,
    parameters,
    plan,
    publish_one,
    schema,
)
from stabutils.publishing.overview import overview
from stabutils.records import write_document
from stabutils.reports import anchor, comparison, stability
from stabutils.study import verify
from stabutils.study.paths import run_store
from stabutils.study.study import Study


def run(arguments: argparse.Namespace) -> int:
    """Run notebooks and say where their pages lie: below `results_root()`, or where -o says."""
    plans = parameters(notebooks(arguments.notebooks), arguments.preset, arguments.parameters)
    lines = plan(plans)
    if arguments.plan:
        print(*lines, sep="\n")
        return 0
    print(lines[-1], flush=True)
    names = [path.stem for path in notebooks([])]
    finished, folders, whole = [], [], {}
    with ahead_of(plans) as ahead:
        for path, values in plans.items():
            if arguments.output:
                values = {**values, "output": arguments.output}
            folder = output_of(path, values)
            ahead.wait(path.stem[:2])
            execute(path, folder / path.name, {**values, "output": str(folder.resolve())})
            page = pages.write(folder / path.name)
            finished.append(entry(path, page))
            print(f"{path.stem}: {page}")
            folders.append(folder)
            whole[folder] = overview(folder, names)
    for folder in whole:
        if folders.count(folder) > 1:
            print(f"all of it on one page: {whole[folder]}")
    if arguments.json:
        write_document(arguments.json, "run", 0, {"notebooks": finished})
    return 0


def ahead_of(plans: dict[Path, dict[str, object]]) -> Ahead:
    """What trains for notebooks while those before them are executed."""
    every = {path.stem[:2]: defaults(path) | values for path, values in plans.items()}
    trained = {number: knobs for number, knobs in every.items() if "dataset" in knobs}
    return Ahead({number: (Study.of(knobs), knobs) for number, knobs in trained.items()})


def publish(arguments: argparse.Namespace) -> int:
    """Run notebooks and keep what they found, and what the runs answered, in records/<dataset>/ (of
    a checkpoint: records/<dataset>-<model>/).
    """
    # 08 is about no corpus.
    paths = [path for path in notebooks(arguments.notebooks) if "dataset" in schema(path)]
    plans = parameters(paths, arguments.preset, arguments.parameters)
    if arguments.plan:
        print(*plan(plans), sep="\n")
        return 0
    for path, values in plans.items():
        print(publish_one(path, values))
    return 0


def draw(arguments: argparse.Namespace) -> int:
    """figures/<dataset>/ and the numbers quoted in prose, from records/ alone."""
    from stabutils.publishing import claims, drawing, quotes

    root = project_root()
    target = root / "figures"
    for answers in sorted((root / "records").glob("*/answers")):
        folder = answers.parent
        print_each(drawing.draw(folder, target / folder.name))
    for draw_all in (drawing.draw_benchmark, drawing.draw_updates, drawing.draw_claims):
        print_each(draw_all(root, target))
    print_each(quotes.requote(root))
    page = root / "docs" / "claims.md"
    page.write_text(claims.markdown(root), encoding="utf-8", newline="\n")
    return 0


def print_each(paths: list[Path]) -> None:
    for path in paths:
        print(path)


def build_book(arguments: argparse.Namespace) -> int:
    """site/: the book, as pages that need no network."""
    from stabutils.publishing import book

    print(book.build(project_root(), project_root() / "site"))
    return 0


def refresh(arguments: argparse.Namespace) -> int:
    """Execute the committed notebooks in place, at their defaults, and keep only what a reader
    needs of the outputs.
    """
    for path in notebooks(arguments.notebooks):
        finished = path.with_name(f".{path.name}")
        try:
            execute(path, finished, {})
            finished.replace(path)
        finally:
            finished.unlink(missing_ok=True)
        print(path)
    return 0


def add_plan_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of a command that runs notebooks of the study."""
    command.add_argument(
        "notebooks", nargs="*", help="numbers, such as 01 02; all when none is given"
    )
    command.add_argument(
        "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
    )
    command.add_argument("--preset", help="quick, course, full, paper, or a YAML file")
    command.add_argument(
        "--plan", action="store_true", help="say how many runs would be trained, and stop"
    )


def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):  # a console may lack the letters of somebody's labels
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        prog="python -m stabutils",
        description="How much a classifier's answers change when it is trained again, and why.",
    )
    commands = parser.add_subparsers(required=True, metavar="command", dest="name")

    def add(name: str, act: Callable, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(command=act)
        return command

    command = add("run", run, "run notebooks of the study")
    add_plan_arguments(command)
    command.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="where to write; else a folder of results/ when inside the clone, and of "
        "stabutils-results/ (or STABUTILS_RESULTS) elsewhere",
    )
    command.add_argument(
        "--json", metavar="FILE", help="also write numbers and verdicts for programs"
    )
    command = add("publish", publish, "run them and keep what they found in records/")
    add_plan_arguments(command)
    command = add("report", stability.command, "the same report for predictions of any system")
    stability.add_arguments(command)
    text = "did a change make a system's predictions more stable?"
    comparison.add_arguments(add("compare", comparison.command, text))
    text = "what a linear model beside a system would buy"
    anchor.add_arguments(add("anchor", anchor.command, text))
    command = add("notebooks", refresh, "execute the committed notebooks in place")
    command.add_argument("notebooks", nargs="*")
    add("figures", draw, "make figures/ and the quoted numbers from records/")
    add("site", build_book, "the book, as pages to browse without network: site/")
    text = "train a random sample of the stored runs again and compare"
    verify.add_arguments(add("verify", verify.command, text))
    arguments = parser.parse_args(argv)
    try:
        return arguments.command(arguments)
    except InputError as error:
        return ended(arguments, 2, error)
    except (Incomplete, OSError) as error:
        return ended(arguments, 1, error)
    except KeyboardInterrupt as error:
        return ended(arguments, 130, f"stopped. {error}{kept(arguments.name)}".strip())


def kept(command: str) -> str:
    """What a command that was stopped leaves behind, where it trains runs."""
    if command not in ("run", "publish", "notebooks"):
        return ""
    count = len(list(run_store().glob("*.safetensors")))
    return f"{count} runs are stored in {run_store()}: the same command goes on from there"


def ended(arguments: argparse.Namespace, status: int, error: Exception | str) -> int:
    """Say why a command ended, in one line and where programs look; its exit status."""
    print(f"stabutils: {error}", file=sys.stderr)
    if getattr(arguments, "json", None):
        try:
            write_document(arguments.json, arguments.name, status, {"error": str(error)})
        except InputError as unwritten:
            print(f"stabutils: {unwritten}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``python -m explainlib``, then doctor, data, study, notebooks, course, slides or panels.

Each command imports what it needs when it runs, so that ``--help`` answers at once. A mistake gets one line and exit
code 2; only an error of the library itself shows a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

SCALES = ("quick", "cpu", "paper")
DEVICE = "auto (a GPU if torch finds one, else the CPU), cpu, cuda, or a number such as cuda:1 (default: auto)"


def doctor(options: argparse.Namespace) -> int:
    """Print what is installed and found, and the remedies for gaps; return 0."""
    from explainlib.doctor import report

    print(report(options.device))
    return 0


def data(options: argparse.Namespace) -> int:
    """Print the registry, or describe one data set after downloading what it lacks."""
    from explainlib import datasets

    entries = {entry.name: entry for entry in datasets.catalogue()}
    for pool in datasets.pool_catalogue():
        entries.setdefault(pool.name, pool)  # digits are both
    if options.name is None:
        print("\n".join(f"{entry.name:<14} {entry.found or 'not found: ' + entry.how}" for entry in entries.values()))
        return 0
    if options.name not in entries:
        raise ValueError(f"data set {options.name!r} is unknown; choose one of {', '.join(entries)}.")
    entry = entries[options.name]
    pools = entry.name not in {source.name for source in datasets.catalogue()}
    if entry.found is None:
        (datasets.fetch_pool if pools else datasets.fetch)(entry.name)
        listed = datasets.pool_catalogue() if pools else datasets.catalogue()
        entry = next(again for again in listed if again.name == entry.name)
    print(f"{entry.name}: {entry.found}\norigin: {entry.origin}\nlicence: {entry.licence}")
    if pools:
        print(datasets.class_pool(entry.name))
        return 0
    split = datasets.load(entry.name)
    print(f"train {list(split.train.x.shape)}, test {list(split.test.x.shape)}, classes {_listed(split.train.classes)}")
    return 0


def _listed(names: Sequence[str] | None) -> str:
    """Return names separated by commas."""
    return ", ".join(names) if names else "not named"


def study(options: argparse.Namespace) -> int:
    """Run one study, or judge the claims of all from their kept tables, and print the paths of what it wrote."""
    from explainlib import studies
    from explainlib.figures.studies import draw
    from explainlib.studies.record import job_minutes

    names = tuple(studies.names())
    if options.name != "all" and options.name not in names:
        raise ValueError(f"study {options.name!r} is unknown; choose one of {', '.join([*names, 'all'])}.")
    if options.name == "all":
        return _judge_all(options)
    out = options.out or Path("results")
    tables = studies.run(
        options.name, scale=options.scale or "quick", data=options.data, out=out, jobs=options.jobs or 1,
        device=options.device or "auto",
    )  # fmt: skip
    for path in [*tables, draw(options.name, tables)]:
        print(path)
    for line in job_minutes(tables):
        print(line)
    return 0


def _judge_all(options: argparse.Namespace) -> int:
    """Print the paths of the scoreboard and of all claims' tables; return 0."""
    from explainlib.studies.scoreboard import write_scoreboard

    for name in ("scale", "data", "jobs", "device"):
        if getattr(options, name) is not None:
            raise ValueError(f"study all runs nothing, it judges tables that are there; leave --{name} out.")
    for path in write_scoreboard(options.out):
        print(path)
    return 0


def notebooks(options: argparse.Namespace) -> int:
    """Run notebooks and save them, or check their anatomy."""
    from explainlib.course import notebooks as tool

    if options.check:
        problems = tool.check_all(options.paths)
        print(
            "\n".join(problems) if problems else f"{len(tool.notebook_paths(options.paths))} notebooks, nothing wrong."
        )
        return 1 if problems else 0
    tool.execute_all(options.paths)
    return 0


def course(options: argparse.Namespace) -> int:
    """Write the editions of the notebooks, or the table of exercises, and print the paths."""
    from explainlib.course import notebooks as tool
    from explainlib.course.table import table
    from explainlib.storage import write_text

    if options.student is None and options.solutions is None and options.exercises is None:
        raise ValueError("course writes nothing yet; pass --student DIR, --solutions DIR or --exercises FILE.")
    if options.nbgrader and options.student is None:
        raise ValueError("--nbgrader is about the student's edition; pass --student DIR with it.")
    if options.exercises is not None:
        print(write_text(table(), options.exercises))
    if options.student is not None or options.solutions is not None:
        written = tool.editions(options.student, options.solutions, options.paths, graded=options.nbgrader)
        print("\n".join(map(str, written)))
    return 0


def slides(options: argparse.Namespace) -> int:
    """Write slides of notebooks, and print the paths."""
    from explainlib.course.slides import REVEAL, write_slides

    written = write_slides(options.out, options.paths, code=not options.no_code, reveal=options.reveal or REVEAL)
    print("\n".join(map(str, written)))
    return 0


def panels(options: argparse.Namespace) -> int:
    """Serve the pages of the panels until interrupted."""
    from explainlib.serving import serve

    return serve(ip=options.ip, port=options.port, idle=options.idle, arguments=options.arguments)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(
        prog="python -m explainlib", description="What a trained model owes to its training data."
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="command")

    command = commands.add_parser("doctor", help="report what is installed, found and missing")
    command.add_argument("--device", metavar="NAME", default="auto", help=DEVICE)
    command.set_defaults(run=doctor)

    command = commands.add_parser("data", help="list the data sets, or fetch and describe one")
    command.add_argument("name", nargs="?", help="one data set")
    command.set_defaults(run=data)

    command = commands.add_parser("study", help="compute a study's tables and figures, or judge all claims")
    command.add_argument("name", help="which study, or all: judge every claim from its kept tables")
    command.add_argument("--scale", choices=SCALES, help="how much to compute (default: quick)")
    command.add_argument("--data", metavar="NAME", help="the data set (default: the study's own)")
    command.add_argument(
        "--out", metavar="DIR", type=Path, help="where to write (default: results; of all, where its tables are)"
    )
    command.add_argument("--jobs", type=int, metavar="N", help="processes, one core each (default: 1)")
    command.add_argument("--device", metavar="NAME", help=DEVICE)
    command.set_defaults(run=study)

    command = commands.add_parser("notebooks", help="run notebooks and save their outputs")
    command.add_argument("paths", nargs="*", type=Path, help="notebooks or folders (default: notebooks/)")
    command.add_argument("--check", action="store_true", help="only check their anatomy; exit code 1 for a fault")
    command.set_defaults(run=notebooks)

    command = commands.add_parser("course", help="write the student's edition of notebooks, or the table of exercises")
    command.add_argument("paths", nargs="*", type=Path, help="notebooks or folders (default: notebooks/)")
    command.add_argument("--student", metavar="DIR", type=Path, help="write the student's edition into DIR")
    command.add_argument("--solutions", metavar="DIR", type=Path, help="write notebooks with open solutions into DIR")
    command.add_argument("--nbgrader", action="store_true", help="with locked cells that give points in nbgrader")
    command.add_argument("--exercises", metavar="FILE", type=Path, help="write the table of all exercises into FILE")
    command.set_defaults(run=course)

    command = commands.add_parser("slides", help="make slides of notebooks from their saved outputs")
    command.add_argument("paths", nargs="*", type=Path, help="notebooks or folders (default: notebooks/)")
    command.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("build/slides"), help="(default: build/slides)"
    )
    command.add_argument("--no-code", action="store_true", help="show outputs only")
    command.add_argument("--reveal", metavar="URL", help="address or folder of reveal.js (default: its public one)")
    command.set_defaults(run=slides)

    command = commands.add_parser("panels", help="serve all panels as pages, a kernel of its own for every visitor")
    command.add_argument("--ip", default="127.0.0.1", help="address to listen at (default: this machine only)")
    command.add_argument("--port", type=int, default=8866, help="(default: 8866)")
    command.add_argument(
        "--idle", type=int, default=600, metavar="SECONDS", help="until a page without a browser ends (default: 600)"
    )
    command.add_argument("arguments", nargs="*", help="more options of Voila's own, after --")
    command.set_defaults(run=panels)
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 a check failed, 2 a mistake in the call or in the data, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "explainlib":
            raise
        from explainlib.doctor import install_command

        command = install_command(error.name)
        print(f"explainlib: the package {error.name} is not installed; run `{command}`.", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"explainlib: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("explainlib: interrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())

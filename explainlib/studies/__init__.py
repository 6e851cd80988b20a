"""Studies: one file a paper, three scales of the same code, tables on disk with how they came about."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from explainlib.checks import require_choice, require_count
from explainlib.studies import bilevel, fragility, group, influence, representers, tlxml
from explainlib.studies.record import PartialResults, write_provenance, write_table
from explainlib.studies.workers import compute_parts

STUDIES = {
    "influence": influence,
    "group": group,
    "fragility": fragility,
    "representers": representers,
    "tlxml": tlxml,
    "bilevel": bilevel,
}
SCALES = ("quick", "cpu", "paper")


def names() -> tuple[str, ...]:
    """Return the studies that can be run."""
    return tuple(STUDIES)


def run(
    name: str, *, scale: str = "quick", data: str | None = None, out: str | Path = "results", jobs: int = 1
) -> list[Path]:
    """Run a study and return the paths of its tables: ``<out>/<name>-<data>-<scale>-<table>.csv`` and a ``.json``.

    An interrupted run goes on where it was when it is started again with the same words.

    Args:
        name: one of ``names()``.
        scale: "quick", "cpu" or "paper".
        data: the data set; None takes the study's own.
        out: a folder, made if need be.
        jobs: processes at work, where a study's pieces do not wait for each other; more than one needs the memory of
            as many.

    Raises:
        ValueError: an unknown name, scale or data set; an ``out`` that holds pieces of another run; several jobs for a
            study whose pieces wait for each other.
        FileNotFoundError: a data set whose files are not at hand; the message says where to put them.
    """
    require_choice("study", name, names())
    require_choice("scale", scale, SCALES)
    study = STUDIES[name]
    settings = study.config(scale, data)
    stem = f"{name}-{settings.data}-{scale}"
    pieces = PartialResults(Path(out) / f"{stem}-pieces", asdict(settings))
    if require_count("jobs", jobs) > 1:
        if not hasattr(study, "jobs"):
            known = ", ".join(other for other, module in STUDIES.items() if hasattr(module, "jobs"))
            raise ValueError(f"jobs={jobs}: study {name!r} runs in one process; {known} can use more. Leave jobs out.")
        compute_parts(study.__name__, settings, pieces.folder, jobs)
    tables = study.run(settings, pieces)
    command = f"python -m explainlib study {name} --scale {scale} --data {settings.data}"
    if "claims" in tables:
        tables["claims"] = tables["claims"].assign(scale=scale, command=command)
    paths = [write_table(frame, Path(out) / f"{stem}-{table}.csv") for table, frame in tables.items()]
    told = {"command": command, "settings": asdict(settings), "seconds": pieces.seconds(), "tables": paths}
    paths = [*paths, write_provenance(Path(out) / f"{stem}.json", **told)]
    pieces.finish()
    return paths

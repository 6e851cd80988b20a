"""Studies: one folder a paper, three scales of the same code, tables on disk with how they came about."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from explainlib.checks import require_choice, require_count
from explainlib.compute import chosen_device
from explainlib.studies import bilevel, fragility, group, influence, removal, representers, tlxml
from explainlib.studies.record import write_provenance, write_table
from explainlib.studies.runner import compute

STUDIES = {
    "influence": influence,
    "group": group,
    "fragility": fragility,
    "fragility_design": fragility.design,
    "representers": representers,
    "tlxml": tlxml,
    "removal": removal,
    "removal_cnn": removal.convolutional,
    "bilevel": bilevel,
}
SCALES = ("quick", "cpu", "paper")


def names() -> tuple[str, ...]:
    """Return the studies that can be run."""
    return tuple(STUDIES)


def run(
    name: str,
    *,
    scale: str = "quick",
    data: str | None = None,
    out: str | Path = "results",
    jobs: int = 1,
    device: str = "auto",
) -> list[Path]:
    """Run a study and return the paths of its tables: ``<out>/<name>-<data>-<scale>-<table>.csv`` and a ``.json``.

    An interrupted run goes on where it was when it is started again with the same words.

    Args:
        name: one of ``names()``.
        scale: "quick", "cpu" or "paper".
        data: the data set; None takes the study's own.
        out: a folder, made if need be.
        jobs: processes at work, one core each; more than one needs the memory of as many.
        device: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda", or "cuda:1"; data and models begin there.

    Raises:
        ValueError: an unknown name, scale, data set or device; a GPU that is not there; an ``out`` that holds partial
            results of another run.
        FileNotFoundError: a data set whose files are not at hand; the message says where to put them.
    """
    require_choice("study", name, names())
    require_choice("scale", scale, SCALES)
    study = STUDIES[name]
    place = chosen_device(device)
    settings = study.config(scale, data)
    stem = f"{name}-{settings.data}-{scale}"
    folder = Path(out) / f"{stem}-partial"
    tables, seconds = compute(study, settings, folder, processes=require_count("jobs", jobs), device=place)
    command = f"python -m explainlib study {name} --scale {scale} --data {settings.data}"
    if "claims" in tables:
        tables["claims"] = tables["claims"].assign(scale=scale, command=command)
    paths = [write_table(frame, Path(out) / f"{stem}-{table}.csv") for table, frame in tables.items()]
    told = {"command": command, "settings": asdict(settings), "seconds": seconds, "tables": paths}
    paths = [*paths, write_provenance(Path(out) / f"{stem}.json", **told, device=place)]
    shutil.rmtree(folder, ignore_errors=True)  # the tables are complete
    return paths

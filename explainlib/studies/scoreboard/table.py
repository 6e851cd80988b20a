"""The 46 claims judged together, from the tables that are kept; nothing is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas

from explainlib.storage import write_text
from explainlib.studies.bilevel import bilevel_evidence
from explainlib.studies.claims import CLAIMS, NOT_APPLICABLE, Evidence, Judgement, claims_table, judge, merged
from explainlib.studies.fragility import fragility_evidence
from explainlib.studies.fragility.design import design_evidence
from explainlib.studies.group import group_evidence
from explainlib.studies.kept import FINISHED, kept_tables
from explainlib.studies.record import as_csv, checksum, parse_table, read_record
from explainlib.studies.removal import questions
from explainlib.studies.representers import representers_evidence
from explainlib.studies.tlxml import tlxml_evidence

Tables = Mapping[str, pandas.DataFrame]
EVIDENCE: dict[str, Callable[[Tables, str], dict[str, Evidence]]] = {
    "tlxml": lambda tables, data: tlxml_evidence(tables),
    "bilevel": lambda tables, data: bilevel_evidence(tables),
    "fragility": lambda tables, data: fragility_evidence(tables),
    "fragility_design": lambda tables, data: design_evidence(tables),
    "representers": representers_evidence,
    "group": group_evidence,
}
LETTERS = {
    "T": ("tlxml",),
    "R": ("bilevel",),
    "E": ("fragility", "fragility_design"),  # each has claims of its own
    "P": ("representers",),
    "B": ("group",),
}
DATA = {  # each study's data sets, the paper's own first; of the group study's digits no claim is judged
    "tlxml": ("omniglot",),
    "bilevel": ("omniglot", "mnist", "digits", "glyphs"),
    "fragility": ("iris",),
    "fragility_design": ("iris",),
    "representers": ("mnist", "cifar10", "toxicity", "ag_news"),
    "group": ("mnist",),
}
SCALE = "cpu"


def command_of(study: str, data: str) -> str:
    """Return the command that makes a run's tables."""
    return f"python -m explainlib study {study} --scale {SCALE} --data {data}"


def stems(folder: Path | None = None) -> list[str]:
    """Return the runs in a folder whose claims can be judged, such as "tlxml-omniglot-cpu".

    Args:
        folder: of tables; None takes those that come with explainlib.
    """
    found = {path.stem for path in (folder or FINISHED).glob(f"*-{SCALE}.json")}
    return sorted(stem for stem in found if stem.split("-")[0] in EVIDENCE)


def evidence_by_run(folder: Path | None = None) -> dict[str, dict[str, Evidence]]:
    """Return what each run says about each claim of its paper, by stem and by the claim's id.

    Args:
        folder: of tables; None takes those that come with explainlib.

    Raises:
        FileNotFoundError: no run of a study; the message says how to make one.
        ValueError: a damaged table.
    """
    return {stem: EVIDENCE[stem.split("-")[0]](kept_tables(stem, folder), stem.split("-")[1]) for stem in stems(folder)}


def judgements(runs: Mapping[str, Mapping[str, Evidence]]) -> list[Judgement]:
    """Return the judgement on each of the 46 claims, over all data sets that it is about.

    Args:
        runs: ``evidence_by_run``.

    Raises:
        FileNotFoundError: no run of a study; the message says how to make one.
    """
    found = []
    for name, claim in CLAIMS.items():
        parts = _parts(name, runs)
        found.append(judge(claim, merged({stem.split("-")[1]: runs[stem][name] for stem in parts})))
    return found


def _parts(name: str, runs: Mapping[str, Mapping[str, Evidence]]) -> list[str]:
    """Return the runs that speak of the claim, in the order of ``DATA``."""
    stems = {f"{study}-{data}-{SCALE}": (study, data) for study in LETTERS[name[0]] for data in DATA[study]}
    parts = [stem for stem in stems if name in runs.get(stem, {})]
    if not parts:
        command = command_of(*list(stems.values())[-1])
        raise FileNotFoundError(f"claim {name} has no tables; run `{command} --out DIR`, or take the kept ones.")
    return parts


def scoreboard(folder: Path | None = None) -> pandas.DataFrame:
    """Return the scoreboard: a row for each of the 46 claims.

    Args:
        folder: of tables; None takes those that come with explainlib.

    Raises:
        FileNotFoundError: no run of a study; the message says how to make one.
        ValueError: a damaged table.
    """
    runs = evidence_by_run(folder)
    commands = []
    for name in CLAIMS:
        parts = _parts(name, runs)
        about = [s for s in parts if (runs[s][name].withheld or ("",))[0] != NOT_APPLICABLE] or parts
        commands.append("; ".join(command_of(*stem.split("-")[:2]) for stem in about))
    return claims_table(judgements(runs)).assign(command=commands)


def kept_scoreboard(folder: Path | None = None) -> pandas.DataFrame:
    """Return the scoreboard as it was written, a row for each claim; nothing is judged.

    Args:
        folder: that ``python -m explainlib study all`` wrote into; None takes the one that comes with explainlib.

    Raises:
        FileNotFoundError: no ``scoreboard.csv``.
        ValueError: a damaged table.
    """
    path, remedy = (folder or FINISHED) / "scoreboard.csv", "run `python -m explainlib study all`"
    if not path.is_file():
        raise FileNotFoundError(f"no scoreboard.csv in {path.parent}; {remedy}, or pass the folder that holds it.")
    return parse_table(path.read_bytes(), path, remedy)


def claims_by_run(folder: Path | None = None) -> dict[str, pandas.DataFrame]:
    """Return the claims' table of each run, and the questions' of the removal study, by file name.

    Args:
        folder: of tables; None takes those that come with explainlib.
    """
    found = {}
    for stem, evidence in evidence_by_run(folder).items():
        table = claims_table([judge(CLAIMS[name], evidence[name]) for name in CLAIMS if name in evidence])
        found[f"{stem}-claims.csv"] = table.assign(scale=SCALE, command=command_of(*stem.split("-")[:2]))
    for path in sorted((folder or FINISHED).glob(f"removal*-{SCALE}.json")):
        found[f"{path.stem}-questions.csv"] = questions(kept_tables(path.stem, folder)["removal"])
    return found


def rewrite_claims(folder: Path) -> list[Path]:
    """Judge each run in a folder again from its own tables; return the paths of the claims' tables.

    The checksums in the runs' records follow.

    Args:
        folder: of tables.
    """
    paths = []
    for name, table in claims_by_run(folder).items():
        path = write_text(as_csv(table), folder / name)
        record = folder / f"{name.rpartition('-')[0]}.json"
        told = read_record(record, "restore the file")
        if isinstance(told.get("tables"), dict) and name in told["tables"]:
            told["tables"][name] = checksum(path.read_bytes())
            write_text(json.dumps(told, indent=2) + "\n", record)
        paths.append(path)
    return paths

"""Everything that ``python -m explainlib study all`` writes."""

from __future__ import annotations

from pathlib import Path

import pandas

from explainlib.storage import write_text
from explainlib.studies.claims import simulation
from explainlib.studies.kept import REPOSITORY
from explainlib.studies.record import parse_table, write_table
from explainlib.studies.scoreboard.documents import DOCUMENTS, NOTEBOOKS, filled_document, filled_notebook
from explainlib.studies.scoreboard.page import page
from explainlib.studies.scoreboard.power import power_table
from explainlib.studies.scoreboard.table import claims_by_run, evidence_by_run, judgements, rewrite_claims, scoreboard

EARLIER = "scoreboard-earlier.csv"


def earlier_verdicts(folder: Path) -> pandas.DataFrame:
    """Return the verdicts of the time before one judge: id, study, data, verdict, and the rule that gave it.

    Args:
        folder: of tables; without such a table nothing was earlier.
    """
    path = folder / EARLIER
    if not path.exists():
        return pandas.DataFrame(columns=["id", "study", "data", "verdict", "rule"])
    return parse_table(path.read_bytes(), path, "restore the file")


def verdicts_by_run(folder: Path) -> pandas.DataFrame:
    """Return today's verdicts by run: id, study, data, verdict.

    Args:
        folder: of tables.
    """
    rows = []
    for name, table in claims_by_run(folder).items():
        study, data = name.split("-")[:2]
        rows += [(one, study, data, verdict) for one, verdict in zip(table["id"], table["verdict"], strict=True)]
    return pandas.DataFrame(rows, columns=["id", "study", "data", "verdict"])


def write_scoreboard(folder: Path | None = None) -> list[Path]:
    """Judge every claim again from the tables in a folder; return the paths of what was written.

    Written are the claims' tables of each run, ``scoreboard.csv``, ``judge-simulation.csv`` and ``judge-power.csv``
    into the folder, and the page: ``docs/scoreboard.md`` of the repository's tables, ``scoreboard.md`` of another's.
    The marks of the studies' documents and of the notebooks are filled in from the repository's tables too.

    Args:
        folder: of tables; None takes the repository's ``data/results``.

    Raises:
        FileNotFoundError: no run of a study; the message says how to make one.
        ValueError: a damaged table; or None in an installed package, which nobody should write into.
    """
    if folder is None and not REPOSITORY.is_dir():
        raise ValueError("the tables of an installed package stay as they are; pass --out with a folder of your own.")
    where = REPOSITORY if folder is None else folder
    text = where.parents[1] / "docs" if folder is None else folder
    board = scoreboard(where)  # before anything is written
    powers, simulated = power_table(judgements(evidence_by_run(where))), simulation()
    paths = rewrite_claims(where)
    frames = {"scoreboard": board, "judge-simulation": simulated, "judge-power": powers}
    paths += [write_table(frame, where / f"{name}.csv") for name, frame in frames.items()]
    whole = page(board, earlier_verdicts(where), verdicts_by_run(where), simulated, powers)
    paths.append(write_text(whole, text / "scoreboard.md"))
    if folder is None:
        paths += [
            write_text(filled_document(name, (text / name).read_text(), where, board), text / name)
            for name in DOCUMENTS
        ]
        notebooks = text.parent / "notebooks"
        paths += [
            write_text(filled_notebook(name, (notebooks / name).read_text(), where, board), notebooks / name)
            for name in NOTEBOOKS
        ]
    return paths

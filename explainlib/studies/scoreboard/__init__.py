"""The scoreboard: all 46 claims judged from the kept tables, as a table and as a page."""

from explainlib.studies.scoreboard.page import LETTERS, PAPERS, page
from explainlib.studies.scoreboard.power import power_table
from explainlib.studies.scoreboard.table import (
    claims_by_run,
    evidence_by_run,
    judgements,
    kept_scoreboard,
    rewrite_claims,
    scoreboard,
)
from explainlib.studies.scoreboard.write import earlier_verdicts, verdicts_by_run, write_scoreboard

__all__ = [
    "LETTERS",
    "PAPERS",
    "claims_by_run",
    "earlier_verdicts",
    "evidence_by_run",
    "judgements",
    "kept_scoreboard",
    "page",
    "power_table",
    "rewrite_claims",
    "scoreboard",
    "verdicts_by_run",
    "write_scoreboard",
]

"""The judge of the studies' verdicts: claims as data, rules by kind, and a verdict with effect, interval and reason."""

from explainlib.studies.claims.claim import (
    ABSENT,
    HELD,
    KINDS,
    NOT_APPLICABLE,
    NOT_HELD,
    UNDECIDED,
    VERDICTS,
    Claim,
    Rule,
)
from explainlib.studies.claims.comparison import Comparison, Evidence, by_cluster, merged
from explainlib.studies.claims.intervals import (
    bootstrap_interval,
    exact_interval,
    fisher_interval,
    mean_interval,
    student_interval,
)
from explainlib.studies.claims.judge import COLUMNS, Judgement, claims_table, holm, judge, judged
from explainlib.studies.claims.register import BILEVEL, CLAIMS, CLOSE, FRAGILITY, GROUP, REPRESENTERS, TLXML
from explainlib.studies.claims.simulation import power, simulation

__all__ = [
    "ABSENT",
    "BILEVEL",
    "CLAIMS",
    "CLOSE",
    "COLUMNS",
    "FRAGILITY",
    "GROUP",
    "HELD",
    "KINDS",
    "NOT_APPLICABLE",
    "NOT_HELD",
    "REPRESENTERS",
    "TLXML",
    "UNDECIDED",
    "VERDICTS",
    "Claim",
    "Comparison",
    "Evidence",
    "Judgement",
    "Rule",
    "bootstrap_interval",
    "by_cluster",
    "claims_table",
    "exact_interval",
    "fisher_interval",
    "holm",
    "judge",
    "judged",
    "mean_interval",
    "merged",
    "power",
    "simulation",
    "student_interval",
]

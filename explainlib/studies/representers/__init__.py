"""The study of representers (Tsai et al.)."""

from explainlib.studies.representers.claims import representers_claims, representers_evidence
from explainlib.studies.representers.document import MAKERS, PARTS
from explainlib.studies.representers.methods import SUMMED
from explainlib.studies.representers.study import Config, config, jobs, tables

__all__ = [
    "MAKERS",
    "PARTS",
    "SUMMED",
    "Config",
    "config",
    "jobs",
    "representers_claims",
    "representers_evidence",
    "tables",
]

"""The study of fragility (Epifano et al.)."""

from explainlib.studies.fragility import design
from explainlib.studies.fragility.bench import KINDS
from explainlib.studies.fragility.claims import fragility_claims, fragility_evidence
from explainlib.studies.fragility.document import MAKERS
from explainlib.studies.fragility.parts import LEAST
from explainlib.studies.fragility.study import Config, config, jobs, tables
from explainlib.studies.fragility.truths import NetworkResult, Truths, read_truths

__all__ = [
    "KINDS",
    "LEAST",
    "MAKERS",
    "Config",
    "NetworkResult",
    "Truths",
    "config",
    "design",
    "fragility_claims",
    "fragility_evidence",
    "jobs",
    "read_truths",
    "tables",
]

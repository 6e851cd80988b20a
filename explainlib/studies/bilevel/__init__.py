"""The study of bilevel influence (Ren et al.)."""

from explainlib.studies.bilevel.claims import bilevel_claims, bilevel_evidence
from explainlib.studies.bilevel.document import MAKERS
from explainlib.studies.bilevel.study import Config, config, jobs, tables

__all__ = ["MAKERS", "Config", "bilevel_claims", "bilevel_evidence", "config", "jobs", "tables"]

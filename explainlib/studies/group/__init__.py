"""The study of group influence (Basu et al.)."""

from explainlib.studies.group.claims import group_claims, group_evidence
from explainlib.studies.group.document import MAKERS
from explainlib.studies.group.study import Config, config, jobs, tables

__all__ = ["MAKERS", "Config", "config", "group_claims", "group_evidence", "jobs", "tables"]

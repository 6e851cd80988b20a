"""The study of task influence in meta-learning (TLXML)."""

from explainlib.studies.tlxml.settings import Config, config
from explainlib.studies.tlxml.study import jobs, tables

__all__ = ["Config", "config", "jobs", "tables"]

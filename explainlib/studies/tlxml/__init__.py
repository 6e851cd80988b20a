"""The study of task influence in meta-learning (TLXML)."""

from explainlib.studies.tlxml.study import Config, config, jobs, tables

__all__ = ["Config", "config", "jobs", "tables"]

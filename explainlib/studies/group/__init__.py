"""The study of group influence (Basu et al.)."""

from explainlib.studies.group.study import Config, config, jobs, tables

__all__ = ["Config", "config", "jobs", "tables"]

"""The study of influence of single examples."""

from explainlib.studies.influence.study import Config, config, jobs, tables

__all__ = ["Config", "config", "jobs", "tables"]

"""The study of influence of single examples."""

from explainlib.studies.influence.study import ON_GPU, Config, config, jobs, tables

__all__ = ["ON_GPU", "Config", "config", "jobs", "tables"]

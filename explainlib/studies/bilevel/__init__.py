"""The study of bilevel influence (Ren et al.)."""

from explainlib.studies.bilevel.study import Config, config, jobs, tables

__all__ = ["Config", "config", "jobs", "tables"]

"""The study of representers (Tsai et al.)."""

from explainlib.studies.representers.study import Config, config, jobs, tables

__all__ = ["Config", "config", "jobs", "tables"]

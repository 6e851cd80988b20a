"""The study of group influence (Basu et al.)."""

from explainlib.studies.group.study import Config, config, run

__all__ = ["Config", "config", "run"]

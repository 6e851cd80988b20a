"""The study of task influence in meta-learning (TLXML)."""

from explainlib.studies.tlxml.study import Config, config, run

__all__ = ["Config", "config", "run"]

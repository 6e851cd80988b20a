"""The study of influence of single examples."""

from explainlib.studies.influence.study import Config, config, run

__all__ = ["Config", "config", "run"]

"""The study of removed tasks on the paper's convolutional network: ``study removal_cnn``."""

from __future__ import annotations

from explainlib.studies.removal.settings import Config
from explainlib.studies.removal.settings import config as settings_of
from explainlib.studies.removal.study import jobs, tables

__all__ = ["config", "jobs", "tables"]


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale, of the convolutional network; see ``removal.config``."""
    return settings_of(scale, data, network="cnn")

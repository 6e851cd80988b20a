"""The study of removed tasks: does task influence foretell meta-training without a group of tasks?"""

from explainlib.studies.removal import convolutional
from explainlib.studies.removal.questions import questions
from explainlib.studies.removal.settings import Config, config
from explainlib.studies.removal.study import jobs, tables

__all__ = ["Config", "config", "convolutional", "jobs", "questions", "tables"]

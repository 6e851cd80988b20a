"""The study of removed tasks: does task influence foretell meta-training without a group of tasks?"""

from explainlib.studies.removal import convolutional
from explainlib.studies.removal.document import MAKERS
from explainlib.studies.removal.questions import questions
from explainlib.studies.removal.settings import Config, config
from explainlib.studies.removal.study import jobs, tables

__all__ = ["MAKERS", "Config", "config", "convolutional", "jobs", "questions", "tables"]

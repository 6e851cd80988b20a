"""The course: the notebooks and their anatomy, exercises and the check of answers, editions for students."""

from explainlib.course.checking import check
from explainlib.course.ledger import report

__all__ = ["check", "report"]

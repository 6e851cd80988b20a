"""The study of group influence (Basu et al.)."""

from explainlib.studies.group.claims import HELD, NOT_HELD, UNDECIDED

__all__ = ["HELD", "NOT_HELD", "UNDECIDED"]

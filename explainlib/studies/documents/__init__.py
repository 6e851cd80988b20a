"""A study's document: every number from a table stands in a mark that says where it is from, and is filled in."""

from explainlib.studies.documents.marks import MARK, fill_marks, unmarked, without_marks
from explainlib.studies.documents.words import (
    MINUS,
    WORDS,
    Maker,
    Tables,
    column_text,
    fill_document,
    interval_text,
    mean_text,
    number_text,
    range_text,
    table_text,
)

__all__ = [
    "MARK",
    "MINUS",
    "WORDS",
    "Maker",
    "Tables",
    "column_text",
    "fill_document",
    "fill_marks",
    "interval_text",
    "mean_text",
    "number_text",
    "range_text",
    "table_text",
    "unmarked",
    "without_marks",
]

"""A study's document: every number from a table stands in a mark that says where it is from, and is filled in."""

from explainlib.studies.documents.marks import MARK, fill_marks, unmarked
from explainlib.studies.documents.words import (
    WORDS,
    Maker,
    Tables,
    fill_document,
    interval_text,
    number_text,
    table_text,
)

__all__ = [
    "MARK",
    "WORDS",
    "Maker",
    "Tables",
    "fill_document",
    "fill_marks",
    "interval_text",
    "number_text",
    "table_text",
    "unmarked",
]

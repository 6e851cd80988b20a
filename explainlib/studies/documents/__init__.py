"""A study's document: every number from a table stands in a mark that says where it is from, and is filled in."""

from explainlib.studies.documents.marks import MARK, fill_marks, unmarked
from explainlib.studies.documents.words import WORDS, Maker, Tables, fill_document, table_text

__all__ = ["MARK", "WORDS", "Maker", "Tables", "fill_document", "fill_marks", "table_text", "unmarked"]

"""Right or refused: families of models against functions of the library, each cell judged by plain autograd alone."""

from benchmarks.quality.families import FAMILIES, Family
from benchmarks.quality.functions import FUNCTIONS, SINGLE
from benchmarks.quality.table import (
    PAGE,
    Cell,
    document,
    kinds,
    measured,
    parsed,
    printed,
    third_states,
    written_by_hand,
)

__all__ = [
    "FAMILIES",
    "FUNCTIONS",
    "PAGE",
    "SINGLE",
    "Cell",
    "Family",
    "document",
    "kinds",
    "measured",
    "parsed",
    "printed",
    "third_states",
    "written_by_hand",
]

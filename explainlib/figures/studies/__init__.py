"""The studies' figures, drawn from their tables alone: the same file gives the same figure anywhere."""

from explainlib.figures.studies.fragility import LOOKS, draw_curves, draw_ladder, draw_sweep
from explainlib.figures.studies.group import draw

__all__ = ["LOOKS", "draw", "draw_curves", "draw_ladder", "draw_sweep"]

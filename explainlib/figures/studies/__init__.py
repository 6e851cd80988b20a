"""The studies' figures, drawn from their tables alone: the same file gives the same figure anywhere."""

from explainlib.figures.studies.draw import STUDY_FIGURES, draw
from explainlib.figures.studies.fragility import LOOKS, draw_curves, draw_ladder, draw_sweep
from explainlib.figures.studies.tlxml_order import noise_order

__all__ = ["LOOKS", "STUDY_FIGURES", "draw", "draw_curves", "draw_ladder", "draw_sweep", "noise_order"]

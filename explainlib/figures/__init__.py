"""From tables to axes: one colour-blind-safe palette, and a plain sentence beside every picture."""

from explainlib.figures.bars import influence_bars, probabilities
from explainlib.figures.examples import as_image, class_name, draw_example, thumbnails
from explainlib.figures.fidelity import predicted_versus_true
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import Picture, alt_text, png, set_alt

__all__ = [
    "PALETTE",
    "SERIES",
    "Picture",
    "alt_text",
    "as_image",
    "class_name",
    "draw_example",
    "influence_bars",
    "png",
    "predicted_versus_true",
    "probabilities",
    "set_alt",
    "style",
    "thumbnails",
]

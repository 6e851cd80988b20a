"""From tables to axes: one colour-blind-safe palette, and a text equivalent of every picture."""

from explainlib.figures.bars import influence_bars, probabilities
from explainlib.figures.examples import as_image, class_name, draw_example, thumbnails
from explainlib.figures.fidelity import predicted_versus_true
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import Picture, alt_text, literal, png, set_alt
from explainlib.figures.primer import training_curves
from explainlib.figures.pruning import eigenvalue_spectrum, pruning_curve
from explainlib.figures.tasks import ranked_tasks, task_grid

__all__ = [
    "PALETTE",
    "SERIES",
    "Picture",
    "alt_text",
    "as_image",
    "class_name",
    "draw_example",
    "eigenvalue_spectrum",
    "influence_bars",
    "literal",
    "png",
    "predicted_versus_true",
    "probabilities",
    "pruning_curve",
    "ranked_tasks",
    "set_alt",
    "style",
    "task_grid",
    "thumbnails",
    "training_curves",
]

"""Panels: drag and see the prediction, click and see the truth. The only room that imports ipywidgets."""

from explainlib.panels.group_removal import GroupRemoval
from explainlib.panels.removal import Removal

__all__ = ["GroupRemoval", "Removal"]

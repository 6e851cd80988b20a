"""The panel that removes groups and compares the orders of prediction."""

from explainlib.panels.group_removal.panel import GroupRemoval

__all__ = ["GroupRemoval"]

"""Panels: drag and see the prediction, click and see the truth. The only room that imports ipywidgets."""

from explainlib.panels.adaptation import Adaptation
from explainlib.panels.distributions import Distributions
from explainlib.panels.fragility import Fragility
from explainlib.panels.group_removal import GroupRemoval
from explainlib.panels.harmful import Harmful
from explainlib.panels.removal import Removal
from explainlib.panels.representer import Representer
from explainlib.panels.scoreboard import Scoreboard
from explainlib.panels.task_removal import TaskRemoval

__all__ = [
    "Adaptation",
    "Distributions",
    "Fragility",
    "GroupRemoval",
    "Harmful",
    "Removal",
    "Representer",
    "Scoreboard",
    "TaskRemoval",
]

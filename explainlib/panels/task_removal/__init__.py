"""The panel that removes training tasks of a meta-learner."""

from explainlib.panels.task_removal.panel import TaskRemoval

__all__ = ["TaskRemoval"]

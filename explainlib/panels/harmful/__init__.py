"""The panel that finds harmful tasks."""

from explainlib.panels.harmful.panel import Harmful

__all__ = ["Harmful"]

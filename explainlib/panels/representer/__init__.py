"""The panel of representers: a score as its two factors, and deletion curves."""

from explainlib.panels.representer.panel import Representer

__all__ = ["Representer"]

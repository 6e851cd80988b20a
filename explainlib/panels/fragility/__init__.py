"""The panel of fragility: thousands of networks looked up, one of them trained again."""

from explainlib.panels.fragility.panel import Fragility

__all__ = ["Fragility"]

"""Figures on fragility for the notebook and the panel."""

from explainlib.figures.fragility.panel import fragility_view

__all__ = ["fragility_view"]

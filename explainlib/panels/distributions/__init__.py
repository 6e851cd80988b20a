"""The panel of distributions: learners on normal and noise tasks looked up, a small one trained here."""

from explainlib.panels.distributions.panel import Distributions

__all__ = ["Distributions"]

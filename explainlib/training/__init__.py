"""Training: to an exact minimum, or as people do it, recording what explanations need."""

from explainlib.training.fit import Trajectory, fit
from explainlib.training.minimise import Minima, MinimiseError, MinimiseWarning, minimise

__all__ = ["Minima", "MinimiseError", "MinimiseWarning", "Trajectory", "fit", "minimise"]

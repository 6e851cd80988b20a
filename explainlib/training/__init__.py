"""Training: to an exact minimum, or as people do it, recording what explanations need."""

from explainlib.training.ensembles import Ensemble, fit_ensemble, fit_risks
from explainlib.training.fit import Trajectory, fit
from explainlib.training.minima import Minima, MinimiseError, MinimiseWarning
from explainlib.training.minimise import minimise
from explainlib.training.starts import fresh_starts
from explainlib.training.steps import Plateau
from explainlib.training.variational import ElboRisk, fit_variational, fit_variational_ensemble
from explainlib.training.without import fit_without

__all__ = [
    "ElboRisk",
    "Ensemble",
    "Minima",
    "MinimiseError",
    "MinimiseWarning",
    "Plateau",
    "Trajectory",
    "fit",
    "fit_ensemble",
    "fit_risks",
    "fit_variational",
    "fit_variational_ensemble",
    "fit_without",
    "fresh_starts",
    "minimise",
]

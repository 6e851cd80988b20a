"""The gate: the checks that every model and loss passes before a formula is applied to it.

The forward of a copy is checked once: randomness, state that it writes, dependence between examples. Derivatives are
compared with finite differences in float64, once for each route used. A finding names the layer that causes it.
"""

from explainlib.gate.check import check_model
from explainlib.gate.entry import admit, admit_objective, require_derivatives, require_loss_derivatives
from explainlib.gate.report import Finding, ModelReport
from explainlib.gate.routes import FORWARD, FORWARD_HESSIAN, GRADIENT, HESSIAN, THIRD

__all__ = [
    "FORWARD",
    "FORWARD_HESSIAN",
    "GRADIENT",
    "HESSIAN",
    "THIRD",
    "Finding",
    "ModelReport",
    "admit",
    "admit_objective",
    "check_model",
    "require_derivatives",
    "require_loss_derivatives",
]

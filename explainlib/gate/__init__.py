"""The gate: what every model and loss passes before a formula is applied to it.

A forward is run on a copy and watched once: what is random in it, what it writes to, whether examples depend on each
other. Derivatives are compared with differences in float64, once, by the routes that will be used. A finding names the
layer that causes it.
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

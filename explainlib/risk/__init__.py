"""The regularised empirical risk of a model at fixed parameters, and fingerprints of what is computed from one."""

from explainlib.risk.fingerprints import risk_fingerprint
from explainlib.risk.risk import PART, NotAtMinimumWarning, Risk, minimum_tolerance, require_minimum

__all__ = ["PART", "NotAtMinimumWarning", "Risk", "minimum_tolerance", "require_minimum", "risk_fingerprint"]

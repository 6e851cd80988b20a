"""explainlib: what a trained model owes to its training data, exactly and approximately.

    import explainlib as xl

Test comes first: every table is [test, train or group]. Influence > 0 is harmful; ``loss_change`` > 0 means the removed
data were helpful.
"""

from __future__ import annotations

import importlib

from explainlib import (
    checks,
    compute,
    curvature,
    datasets,
    gate,
    influence,
    kernels,
    layerwise,
    meta,
    models,
    representers,
    retraining,
    solvers,
    training,
)
from explainlib.checks import NotAvailableYet
from explainlib.gate import ModelReport, check_model
from explainlib.risk import NotAtMinimumWarning, Risk

__version__ = "0.1.0"

_LATER = {  # imported on first use: they bring matplotlib, pandas or ipywidgets
    "metrics": "explainlib.metrics",
    "figures": "explainlib.figures",
    "panels": "explainlib.panels",
    "studies": "explainlib.studies",
    "explanation": "explainlib.explanation",
}

__all__ = [
    "Explanation",
    "ModelReport",
    "NotAtMinimumWarning",
    "NotAvailableYet",
    "Risk",
    "check",
    "check_model",
    "checks",
    "compute",
    "curvature",
    "datasets",
    "explain",
    "figures",
    "gate",
    "influence",
    "kernels",
    "layerwise",
    "meta",
    "metrics",
    "models",
    "panels",
    "report",
    "representers",
    "retraining",
    "solvers",
    "studies",
    "training",
]


def __getattr__(name: str) -> object:
    """Return a room that is imported on first use."""
    if name in ("explain", "Explanation"):
        return getattr(importlib.import_module("explainlib.explanation"), name)
    if name in ("check", "report"):
        return getattr(importlib.import_module("explainlib.course"), name)
    if name in _LATER:
        return importlib.import_module(_LATER[name])
    raise AttributeError(f"module 'explainlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)

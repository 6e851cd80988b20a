"""Fused GPU kernels beside their plain PyTorch references; one dispatch point per operation.

xl.kernels.available()             what is here, and what is missing
xl.kernels.use("torch")            for good, or `with xl.kernels.use("torch"): ...`
python -m explainlib.kernels       times kernel, reference and the memory floor on a GPU
"""

from __future__ import annotations

import importlib

_MODULES = {  # imported on first use: they bring Triton
    "available": "explainlib.kernels.choice",
    "group_hessians": "explainlib.kernels.groups",
    "layer_gram": "explainlib.kernels.gram",
    "linear_moments": "explainlib.kernels.moments",
    "runs_on_triton": "explainlib.kernels.choice",
    "trained_perceptrons": "explainlib.kernels.perceptrons",
    "unfolded_moments": "explainlib.kernels.moments",
    "use": "explainlib.kernels.choice",
}

__all__ = [
    "available",
    "group_hessians",
    "layer_gram",
    "linear_moments",
    "runs_on_triton",
    "trained_perceptrons",
    "unfolded_moments",
    "use",
]


def __getattr__(name: str) -> object:
    """Return a public function, from a module that is imported on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'explainlib.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)

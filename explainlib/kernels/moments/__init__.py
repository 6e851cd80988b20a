"""Moments of a linear layer with Gaussian weights, both in one pass; beside it, plain PyTorch."""

from __future__ import annotations

import importlib

_MODULES = {  # imported on first use: they bring Triton, which ``plain`` does not
    "LAYOUTS": "explainlib.kernels.moments.build",
    "build_moments": "explainlib.kernels.moments.build",
    "linear_moments": "explainlib.kernels.moments.layer",
    "unfolded_moments": "explainlib.kernels.moments.layer",
}

__all__ = ["LAYOUTS", "build_moments", "linear_moments", "plain", "program", "unfolded_moments"]


def __getattr__(name: str) -> object:
    """Return a function of this corridor, from a module that is imported on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'explainlib.kernels.moments' has no attribute {name!r}")

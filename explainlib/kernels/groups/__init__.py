"""Hessian blocks of many groups of examples of softmax regression, in one launch; beside it, plain PyTorch."""

from __future__ import annotations

import importlib

_MODULES = {  # imported on first use: they bring Triton, which ``plain`` does not
    "LAYOUTS": "explainlib.kernels.groups.build",
    "build_groups": "explainlib.kernels.groups.build",
    "group_hessians": "explainlib.kernels.groups.hessians",
}

__all__ = ["LAYOUTS", "build_groups", "group_hessians", "plain", "program"]


def __getattr__(name: str) -> object:
    """Return a function of this corridor, from a module that is imported on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'explainlib.kernels.groups' has no attribute {name!r}")

"""Third derivatives of two-layer networks in closed form, for MAML's Hessian."""

from explainlib.meta.two_layer.hessian import as_two_layer, two_layer_hessians

__all__ = ["as_two_layer", "two_layer_hessians"]

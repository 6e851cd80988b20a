"""The one place where the layer-wise Gram is asked for: it checks the arguments and picks kernel or plain PyTorch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice, require_same_kind, require_shape, require_tensor
from explainlib.kernels import reference
from explainlib.kernels.choice import DTYPES, nested_forward_mode, runs_on_triton
from explainlib.kernels.transforms import FusedGram


def layer_gram(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    precision: str = "ieee",
) -> Float[Tensor, "n m"]:
    """Return K[i, j] = sum_{p,q} (a_ip . a_jq)(g_ip . g_jq), the inner products of two sets of weight gradients.

    Differentiable backwards and forwards as often as one likes, and usable under ``torch.func`` transforms, vmap
    included, on either route; inside two nested forward modes plain PyTorch runs.

    Args:
        a_i: layer inputs at each of P positions: n examples, d numbers each.
        g_i: output gradients at the same positions, o numbers each.
        a_j: of the other side; the very tensor ``a_i`` (and ``g_j`` that of ``g_i``) halves the kernel's work.
        g_j: likewise.
        precision: of the kernel's products of float32 numbers: "ieee", or "tf32", which is faster and keeps 10 bits
            of each factor. Plain PyTorch follows torch's own setting.

    Returns:
        [n, m], in the inputs' dtype; float16 and bfloat16 are summed in float32. Cost: n m P Q (d + o); the kernel
        needs no memory beside the result.

    Raises:
        TypeError: not tensors, not of one floating-point dtype, or a dtype other than the usual four.
        ValueError: shapes that do not belong together, an empty dimension, two devices, or an unknown precision; or
            the kernel was demanded for tensors it cannot read.

    Example: one position each, so the inner product of two outer products.

        >>> import torch
        >>> a, g = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0]]])
        >>> layer_gram(a, g, a, g).item()  # |3 (1, 2)|^2
        45.0
    """
    require_factors(a_i, g_i, a_j, g_j)
    require_choice("precision", precision, ("ieee", "tf32"))
    if nested_forward_mode() or not runs_on_triton(a_i, a_i.shape[1] * a_j.shape[1]):
        return reference.layer_gram(a_i, g_i, a_j, g_j)
    symmetric = a_i is a_j and g_i is g_j
    return FusedGram.apply(*(x.unsqueeze(0) for x in (a_i, g_i, a_j, g_j)), symmetric, precision).squeeze(0)


def require_factors(a_i: Tensor, g_i: Tensor, a_j: Tensor, g_j: Tensor) -> None:
    """Raise an error that names the argument if the four do not belong together."""
    named = {"a_i": a_i, "g_i": g_i, "a_j": a_j, "g_j": g_j}
    for name, x in named.items():
        require_shape(name, require_tensor(name, x), (None, None, None), meaning="(examples, positions, width)")
        if x.dtype not in DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"{name} has dtype {x.dtype}, expected one of {known}; pass {name}.float().")
        if x.numel() == 0:
            raise ValueError(f"{name} has shape {list(x.shape)}: nothing to multiply; pass at least one example.")
        require_same_kind(name, x, "a_i", a_i)
    require_shape("g_i", g_i, (*a_i.shape[:2], None), meaning="(the examples and positions of a_i)")
    require_shape("a_j", a_j, (None, None, a_i.shape[2]), meaning="(the width of a_i last)")
    require_shape("g_j", g_j, (*a_j.shape[:2], g_i.shape[2]), meaning="(those of a_j, and the width of g_i)")

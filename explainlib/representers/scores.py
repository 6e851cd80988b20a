"""Representer scores: a training example's contribution to an explained output, global importance times kernel."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_finite, require_tensor


def representer_scores(
    importance: Float[Tensor, "n C"],
    kernel: Float[Tensor, "t n"] | Float[Tensor, "t n C"] | Float[Tensor, "t n C C"],
    *,
    output: int,
) -> Float[Tensor, "t n"]:
    """Return phi(x_i -> x) = alpha_i K(x_i, x) for one output; positive raises it.

    With the kernel between outputs, phi_c(x_i -> x) = sum_d alpha_id K_cd(x, x_i): what reaches c through d is in it.

    Args:
        importance: alpha, from ``target_importance``, ``surrogate_importance`` or ``tracking_importance``.
        kernel: ``kernel(model, test.x, train.x)`` [t, n]; [t, n, C], of which the slice ``output`` is taken; or
            ``kernel(..., output="cross")`` [t, n, C, C].
        output: which output is explained, 0 to C - 1.

    Returns:
        [t, n], in the output's unit (target: times loss per output).

    Raises:
        ValueError: tables that do not belong together, or an output outside the importance's.

    Source: Tsai et al. 2023, eq. (2); kernels with vector outputs: section 2, footnote 2.

    Example:
        >>> import torch
        >>> representer_scores(torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0, 4.0]]), output=0)
        tensor([[ 3., -8.]])
    """
    require_finite("importance", require_tensor("importance", importance))
    require_finite("kernel", require_tensor("kernel", kernel))
    if importance.ndim != 2 or kernel.ndim not in (2, 3, 4) or kernel.shape[1] != len(importance):
        raise ValueError(
            f"importance has shape {list(importance.shape)}, kernel {list(kernel.shape)}; pass [n, C] and [t, n], "
            "[t, n, C] or [t, n, C, C] of the same n training examples."
        )
    outputs = importance.shape[1]
    if isinstance(output, bool) or not isinstance(output, int) or not 0 <= output < outputs:
        raise ValueError(f"output={output!r} has to be one of the outputs 0 to {outputs - 1}.")
    if kernel.ndim > 2 and set(kernel.shape[2:]) != {outputs}:
        raise ValueError(f"the kernel has {kernel.shape[2]} outputs, the importance {outputs}; use one model for both.")
    if kernel.ndim == 4:
        return (kernel[:, :, output] * importance).sum(-1)
    return importance[:, output] * (kernel if kernel.ndim == 2 else kernel[..., output])

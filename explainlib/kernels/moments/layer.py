"""The one place where moments of a Gaussian layer are asked for: it picks kernel or plain PyTorch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import unfold

from explainlib.checks import require_choice, require_same_kind
from explainlib.kernels.agreement import agrees
from explainlib.kernels.choice import nested_forward_mode, runs_on_triton
from explainlib.kernels.moments import plain
from explainlib.kernels.moments.transforms import FusedMoments

DTYPES = (torch.float32, torch.float64)


def linear_moments(
    mean: Float[Tensor, "... n d"],
    variance: Float[Tensor, "... n d"] | None,
    weight: tuple[Float[Tensor, "... o d"], Float[Tensor, "... o d"]],
    bias: tuple[Float[Tensor, "... o"], Float[Tensor, "... o"]] | None,
    *,
    precision: str = "ieee",
) -> tuple[Float[Tensor, "... n o"], Float[Tensor, "... n o"]]:
    """Return mean and variance of the outputs of a linear layer with independent Gaussian weights.

        mu_y = W mu_x + mu_b          var_y = S var_x + W^2 var_x + S mu_x^2 + var_b

    The kernel reads each tile of inputs and weights once for both, and runs where it was chosen by ``use("triton")``:
    "auto" leaves these matrix products to the vendor's library. Differentiable backwards and forwards as often as one
    likes, and usable under ``torch.func`` transforms, vmap included, on either route; inside two nested forward modes,
    and in half precision, plain PyTorch runs.

    Args:
        mean: of the inputs; leading dimensions, of any argument, are over networks.
        variance: of the inputs, or None where they are known.
        weight: W and S, mean and variance of the weights.
        bias: mean and variance of the biases, or None.
        precision: of the kernel's products of float32 numbers: "ieee", or "tf32", which is faster and keeps 10 bits
            of each factor. Plain PyTorch follows torch's own setting.

    Returns:
        Two tensors of the inputs' dtype. Cost: 6 n d o flops, 4 n d o without a variance.

    Raises:
        TypeError: two dtypes.
        ValueError: two devices, an unknown precision, or the kernel was demanded for tensors it cannot read; torch's
            own error for shapes that do not belong together.

    Source: Epifano et al., eqs (6), (7) and (12).

    Example: x = 2 and a weight of mean 3 and variance 1: the product has mean 6 and variance 4.

        >>> x, one = torch.tensor([[2.0]]), torch.tensor([[1.0]])
        >>> [each.item() for each in linear_moments(x, None, (3 * one, one), None)]
        [6.0, 4.0]
    """
    require_choice("precision", precision, ("ieee", "tf32"))
    given = (mean, variance, *weight, *(bias or (None, None)))
    for name, x in zip(("mean", "variance", "weight", "weight", "bias", "bias"), given, strict=True):
        if x is not None:
            require_same_kind(name, x, "mean", mean)
    fits = mean.dtype in DTYPES and 0 not in (*mean.shape, *weight[0].shape) and not nested_forward_mode()
    if not (fits and runs_on_triton(mean, positions=1) and _agrees(mean, precision)):
        return plain.linear_moments(mean, variance, weight, bias)
    return _batched(given, precision)


def _batched(given: tuple[Tensor | None, ...], precision: str) -> tuple[Tensor, Tensor]:
    """Return the kernel's moments, all leading dimensions as one."""
    trailing = (2, 2, 2, 2, 1, 1)
    lead = torch.broadcast_shapes(
        *(x.shape[: x.ndim - own] for x, own in zip(given, trailing, strict=True) if x is not None)
    )
    whole = [
        None if x is None else x.expand(*lead, *x.shape[x.ndim - own :]).reshape(lead.numel(), *x.shape[x.ndim - own :])
        for x, own in zip(given, trailing, strict=True)
    ]
    for x, other in ((whole[1], whole[0]), (whole[3], whole[2])):
        if x is not None and x.shape != other.shape:
            raise ValueError(f"a variance has shape {list(x.shape)}, its mean {list(other.shape)}; pass equal shapes.")
    if whole[2].shape[-1] != whole[0].shape[-1] or (whole[4] is not None and whole[4].shape[-1] != whole[2].shape[-2]):
        shapes = [None if x is None else list(x.shape) for x in given]
        raise ValueError(f"mean, variance, weight and bias have shapes {shapes}; pass [n, d], [n, d], [o, d] and [o].")
    found = FusedMoments.apply(*whole, precision)
    return tuple(x.reshape(*lead, *x.shape[1:]) for x in found)


def _agrees(x: Tensor, precision: str) -> bool:
    """Return whether the kernel agrees with the plain route on this device, tried once a kind of numbers."""

    def trial() -> bool:
        make = lambda step, *shape: torch.sin(  # noqa: E731
            step * torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
        ).view(shape)
        wide = [make(1.3, 1, 5, 37), make(0.7, 1, 5, 37).square(), make(2.1, 1, 3, 37), make(0.9, 1, 3, 37).square()]
        wide += [make(1.7, 1, 3), make(1.1, 1, 3).square()]
        found = FusedMoments.apply(*(each.to(x) for each in wide), precision)
        m, v, w, s, b, t = (each.to(x.device) for each in wide)
        tolerance = 5e-3 if precision == "tf32" else 100 * torch.finfo(x.dtype).eps
        pairs = zip(found, plain.linear_moments(m, v, (w, s), (b, t)), strict=True)
        return all(bool((got - want).abs().max() <= tolerance * want.abs().max()) for got, want in pairs)

    return agrees("for moments of Gaussian layers", (x.dtype, precision), x.device, trial)


def unfolded_moments(
    mean: Float[Tensor, "n c h w"],
    variance: Float[Tensor, "n c h w"] | None,
    weight: tuple[Float[Tensor, "o c kh kw"], Float[Tensor, "o c kh kw"]],
    bias: tuple[Float[Tensor, " o"], Float[Tensor, " o"]] | None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    precision: str = "ieee",
) -> tuple[Float[Tensor, "n o u v"], Float[Tensor, "n o u v"]]:
    """Return the moments of a convolution with Gaussian kernels: ``linear_moments`` at every position, unfolded.

    Args:
        mean: of the inputs.
        variance: of the inputs, or None where they are known.
        weight: mean and variance of the kernels; no groups.
        bias: mean and variance of the biases, or None.
        stride: of the convolution.
        padding: zeros, known for certain, on each side.
        dilation: of the kernels.
        precision: as in ``linear_moments``.

    Raises:
        TypeError, ValueError: as ``linear_moments``.
    """
    size = weight[0].shape[-2:]
    unfolded = [
        None if x is None else unfold(x, size, dilation, padding, stride).mT for x in (mean, variance)
    ]  # [n, positions, c kh kw]
    n, positions, _ = unfolded[0].shape
    flat = [None if x is None else x.reshape(n * positions, -1) for x in unfolded]
    found = linear_moments(*flat, tuple(w.flatten(1) for w in weight), bias, precision=precision)
    pairs = [(k if isinstance(k, tuple) else (k, k)) for k in (stride, padding, dilation)]
    shape = [
        (mean.shape[2 + side] + 2 * pairs[1][side] - pairs[2][side] * (size[side] - 1) - 1) // pairs[0][side] + 1
        for side in (0, 1)
    ]
    return tuple(x.view(n, *shape, -1).movedim(-1, 1) for x in found)

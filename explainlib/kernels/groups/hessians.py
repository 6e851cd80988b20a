"""The one place where Hessian blocks of groups are asked for: it checks the arguments and picks kernel or PyTorch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_choice, require_same_kind, require_shape, require_tensor
from explainlib.kernels.agreement import agrees
from explainlib.kernels.choice import nested_forward_mode, runs_on_triton
from explainlib.kernels.groups import plain
from explainlib.kernels.groups.transforms import FusedGroups

DTYPES = (torch.float32, torch.float64)
PASSES = 3  # of the plain route over the blocks


def group_hessians(
    p: Float[Tensor, "n C"],
    x: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"],
    members: Int[Tensor, " k"],
    offsets: Int[Tensor, " h"],
    *,
    precision: str = "ieee",
) -> Float[Tensor, "g r r"]:
    """Return H_g = sum_{i in U_g} w_i (diag(p_i) - p_i p_i^T) kron (x_i x_i^T), a block for each group of examples.

    The Hessian of sum_{i in U_g} w_i l_i, cross-entropy l_i, in the weights W [C, d] of softmax regression or of a last
    layer; no 1/n, no ridge. No member's outer product is formed. Differentiable backwards and forwards in p, x and
    weights as often as one likes, and usable under ``torch.func`` transforms, vmap included, on either route; inside
    two nested forward modes plain PyTorch runs.

    Args:
        p: probabilities of C classes. The formula is taken as it stands also where rows do not sum to 1.
        x: features; a column of ones at the end for a bias.
        weights: of the examples.
        members: int64 numbers of examples, group after group; one may be in many groups, or in one several times.
        offsets: int64, where each group's members begin and, last, their number: [0, 2, 2, 5] is three groups, of
            2, 0 and 3 members. An empty group's block is zero.
        precision: of the kernel's products of float32 numbers: "ieee", or "tf32", which is faster and keeps 10 bits
            of each factor. Plain PyTorch follows torch's own setting.

    Returns:
        [g, C d, C d] for g groups, row (c, k) = c d + k, symmetric, in the inputs' dtype; an entry is right to a few
        roundings of w p |x|^2. Cost: 2 (C d)^2 flops a member.

    Raises:
        TypeError: not tensors, not of one floating-point dtype, another dtype than float32 and float64, or groups that
            are not int64.
        ValueError: shapes that do not belong together, two devices, offsets that fall or end elsewhere than members,
            a member that is no example, or an unknown precision; or the kernel was demanded for tensors it cannot read.

    Source: Bishop, Pattern Recognition and Machine Learning, 2006, eq. (4.110).

    Example: p = 1/2 has curvature 1/4, with opposite signs between the two classes.

        >>> p, x, one = torch.full((1, 2), 0.5), torch.tensor([[2.0]]), torch.ones(1)
        >>> group_hessians(p, x, one, torch.tensor([0]), torch.tensor([0, 1, 1])).tolist()
        [[[1.0, -1.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
    """
    require_factors(p, x, weights)
    require_members(members, offsets, p)
    require_choice("precision", precision, ("ieee", "tf32"))
    scaled = weights[:, None] * p
    if not nested_forward_mode() and runs_on_triton(x, PASSES) and _agrees(x, precision):
        factors = (each[None] for each in (scaled, scaled, p, x, x))
        return FusedGroups.apply(*factors, members, offsets, True, precision)[0]
    return plain.group_products(scaled, scaled, p, x, x, members, offsets)


def _agrees(x: Tensor, precision: str) -> bool:
    """Return whether the kernel agrees with the plain route on this device, tried once a kind of numbers."""

    def trial() -> bool:
        place = torch.arange(40, dtype=torch.float64)
        make = lambda step, width: torch.sin(step * place[:, None] + torch.arange(width))  # noqa: E731
        wide = [make(1.3, 3), make(0.7, 3), make(2.1, 3), make(0.9, 5), make(1.7, 5)]
        groups = torch.arange(40).flip(0).to(x.device), torch.tensor([0, 0, 3, 40], device=x.device)
        given = [each.to(x)[None] for each in wide]
        found = FusedGroups.apply(*given, *groups, False, precision)[0]
        want = plain.group_products(*(each.to(x.device) for each in wide), *groups)
        tolerance = 5e-3 if precision == "tf32" else 100 * torch.finfo(x.dtype).eps
        return bool((found - want).abs().max() <= tolerance * want.abs().max())

    return agrees("that sums Hessians of groups", (x.dtype, precision), x.device, trial)


def require_factors(p: Tensor, x: Tensor, weights: Tensor) -> None:
    """Raise an error that names the argument if the three do not belong together."""
    for name, each in {"x": x, "p": p, "weights": weights}.items():
        require_same_kind(name, require_tensor(name, each), "x", x)
        if each.dtype not in DTYPES:
            raise TypeError(f"{name} has dtype {each.dtype}, expected float32 or float64; pass {name}.float().")
    require_shape("p", p, (None, None), meaning="(examples, classes)")
    require_shape("x", x, (len(p), None), meaning="(the examples of p, features)")
    require_shape("weights", weights, (len(p),), meaning="(one for each example of p)")
    if not p.numel() or not x.numel():
        raise ValueError(f"p has shape {list(p.shape)}, x {list(x.shape)}: nothing to multiply; pass an example.")


def require_members(members: Tensor, offsets: Tensor, p: Tensor) -> None:
    """Raise an error that names the argument if the two describe no groups of the examples of ``p``."""
    for name, each in {"members": members, "offsets": offsets}.items():
        require_shape(name, require_tensor(name, each), (None,), meaning="(one dimension)")
        if each.dtype != torch.int64:
            raise TypeError(f"{name} has dtype {each.dtype}, expected int64; pass {name}.long().")
        if each.device != p.device:
            raise ValueError(f"{name} is on {each.device}, p on {p.device}; pass {name}.to(p.device).")
    falls = len(offsets) > 1 and bool((offsets[1:] < offsets[:-1]).any())
    if not len(offsets) or int(offsets[0]) != 0 or int(offsets[-1]) != len(members) or falls:
        raise ValueError(
            f"offsets has to rise from 0 to the {len(members)} members, one number more than there are groups; pass "
            "torch.tensor([0, *sizes]).cumsum(0)."
        )
    if len(members) and not 0 <= int(members.min()) <= int(members.max()) < len(p):
        wrong = int(members.max()) if int(members.min()) >= 0 else int(members.min())
        raise ValueError(f"member {wrong} is outside the {len(p)} examples; pass numbers from 0 to {len(p) - 1}.")

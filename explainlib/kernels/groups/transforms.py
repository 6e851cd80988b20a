"""The kernel of group products as an autograd function: its vjp, its jvp and its rule for vmap.

K is linear in x, in y, in (a, u) and in (a, v), so its tangent is a sum of kernels with factors replaced; its
cotangents are plain PyTorch (``plain.cotangents``). Both can be differentiated again, any number of times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from explainlib.kernels.groups import program
from explainlib.kernels.groups.plain import cotangents
from explainlib.kernels.transforms import batch_dim_first, in_memory

FACTORS = 5


class FusedGroups(torch.autograd.Function):
    """K [b, g, C d, C d] of a, u, v [b, n, C], x, y [b, n, d], and members, offsets, symmetric, precision."""

    @staticmethod
    def forward(
        a: Tensor, u: Tensor, v: Tensor, x: Tensor, y: Tensor, members: Tensor, offsets: Tensor, symmetric: bool,
        precision: str,
    ) -> Tensor:  # fmt: skip
        """Return the kernel's result."""
        factors = map(in_memory, (a, u, v, x, y))
        return program.launch(*factors, members, offsets, symmetric=symmetric, precision=precision)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        """Save the arguments; all derivatives are functions of them."""
        ctx.save_for_backward(*inputs[: FACTORS + 2])
        ctx.save_for_forward(*inputs[: FACTORS + 2])
        ctx.precision = inputs[-1]

    @staticmethod
    def backward(ctx: FunctionCtx, k: Tensor) -> tuple[Tensor | None, ...]:
        """Return the cotangents of the five factors."""
        return *cotangents(k, *ctx.saved_tensors), None, None, None, None

    @staticmethod
    def jvp(ctx: FunctionCtx, *tangents: Tensor | None) -> Tensor:
        """Return the sum of K with factors replaced by tangents: (a, u) together, v, x and y."""
        a, u, v, x, y, *groups = ctx.saved_tensors
        zero = torch.zeros_like
        da, du, dv, dx, dy = tangents[:FACTORS]
        replaced = []
        if da is not None or du is not None:
            replaced.append((zero(a) if da is None else da, zero(u) if du is None else du, v, x, y))
        if dv is not None:
            replaced.append((zero(a), u, dv, x, y))
        replaced += [(a, u, v, dx, y)] * (dx is not None) + [(a, u, v, x, dy)] * (dy is not None)
        return torch.stack([FusedGroups.apply(*each, *groups, False, ctx.precision) for each in replaced]).sum(0)

    @staticmethod
    def vmap(info: object, in_dims: tuple[int | None, ...], *given: object) -> tuple[Tensor, int]:
        """Return one launch for the whole map: more batches."""
        factors, groups, (symmetric, precision) = given[:FACTORS], given[FACTORS : FACTORS + 2], given[FACTORS + 2 :]
        if in_dims[FACTORS] is not None or in_dims[FACTORS + 1] is not None:
            raise ValueError("members and offsets cannot be mapped over; pass the groups of all maps in one call.")
        whole = [
            batch_dim_first(factor, dim, info.batch_size)
            for factor, dim in zip(factors, in_dims[:FACTORS], strict=True)
        ]
        found = FusedGroups.apply(*(factor.flatten(0, 1) for factor in whole), *groups, symmetric, precision)
        return found.unflatten(0, (info.batch_size, -1)), 0

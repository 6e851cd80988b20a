r"""Hessian blocks of many groups of examples in plain PyTorch: what the kernel has to equal.

Of softmax regression on features x_i (a one at their end for the bias), with probabilities p_i and weights w_i,

    H_g = sum_{i in U_g} w_i (diag(p_i) - p_i p_i^T) kron (x_i x_i^T)                     [C d, C d], row (c, k)

It is one case, u = v = p, a = w p, u multiplied by w, y = x, of

    K_g = sum_{i in U_g} (diag(a_i) - u_i v_i^T) kron (x_i y_i^T)

which is linear in x, in y, in (a, u) and in (a, v): the first derivatives of K are K again, with a factor replaced.
No member's outer product is formed. Members of several groups are gathered side by side, padded with zeros to the
longest, and K_g is a product of [L, C d] matrices less its C diagonal blocks, which are products of [L, d] matrices.
Long groups come in parts, so that the gathered numbers stay within a bound.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

MEMORY = 64 * 2**20  # bytes of gathered numbers that are alive at a time


def group_products(
    a: Float[Tensor, "*b n C"],
    u: Float[Tensor, "*b n C"],
    v: Float[Tensor, "*b n C"],
    x: Float[Tensor, "*b n d"],
    y: Float[Tensor, "*b n d"],
    members: Int[Tensor, " k"],
    offsets: Int[Tensor, " h"],
    *,
    memory: int = MEMORY,
) -> Float[Tensor, "*b g r r"]:
    """Return K_g = sum_{i in U_g} (diag(a_i) - u_i v_i^T) kron (x_i y_i^T), [..., g, C d, C d].

    Args:
        a: of the diagonal.
        u: left factor of the outer product.
        v: its right factor.
        x: left features.
        y: right features.
        members: numbers of examples, group after group.
        offsets: where each group's members begin and, last, how many there are: g + 1 numbers.
        memory: bytes of gathered numbers at a time, as far as one member of one group fits into them.

    Returns:
        In the dtype of x. Cost: 2 (C d)^2 + 2 C d^2 flops a member.
    """
    batch, (C, d) = x.shape[:-2], (u.shape[-1], x.shape[-1])
    bytes_each = x.element_size() * max(1, batch.numel())
    room = memory // ((3 * C * d + 3 * C + 2 * d) * bytes_each)  # three factors [C, d], and what is gathered for them
    most = memory // (2 * (C * d) ** 2 * bytes_each)
    parts: dict[int, Tensor] = {}
    for groups, index, inside in gathers(members, offsets, room, most):
        part_x, part_y = x[..., index, :], y[..., index, :]  # [..., g, L, d]
        left = -(u[..., index, :] * inside)[..., None] * part_x[..., None, :]  # [..., g, L, C, d]
        right = v[..., index, :][..., None] * part_y[..., None, :]
        whole = (left.flatten(-2).mT @ right.flatten(-2)).unflatten(-1, (C, d)).unflatten(-3, (C, d))
        scaled = (a[..., index, :] * inside)[..., None] * part_x[..., None, :]
        blocks = (scaled.transpose(-3, -2).mT @ part_y[..., None, :, :]).movedim(-3, -1)  # [..., g, d, d, C]
        blocks = blocks + torch.diagonal(whole, dim1=-4, dim2=-2)
        found = torch.diagonal_scatter(whole, blocks, dim1=-4, dim2=-2)
        before = parts.get(groups.start)
        parts[groups.start] = found if before is None else before + found
    if not parts:
        return x.new_zeros(*batch, 0, C * d, C * d)
    return torch.cat([parts[first] for first in sorted(parts)], len(batch)).flatten(-4, -3).flatten(-2)


def gathers(
    members: Int[Tensor, " k"], offsets: Int[Tensor, " h"], room: int, most: int
) -> Iterator[tuple[slice, Int[Tensor, "g l"], Tensor]]:
    """Yield neighbouring groups, a rectangle of their members, and whether each is a member or only pads [g, l, 1].

    A run of groups grows while its rectangle has at most ``room`` places; a group that is longer comes in several
    rectangles.

    Args:
        members: numbers of examples, group after group.
        offsets: where each group's members begin, and how many there are.
        room: places; at least one is taken.
        most: groups of a run; at least one is taken.
    """
    at, room, first = offsets.tolist(), max(1, room), 0
    sizes = [max(1, stop - start) for start, stop in zip(at, at[1:], strict=False)]
    padded = torch.cat([members, members.new_zeros(1)])
    while first < len(sizes):
        last, longest = first + 1, sizes[first]
        while last < min(len(sizes), first + most) and (last + 1 - first) * max(longest, sizes[last]) <= room:
            longest, last = max(longest, sizes[last]), last + 1
        begin, end = offsets[first:last, None], offsets[first + 1 : last + 1, None]
        for part in range(0, longest, room):
            place = begin + torch.arange(part, min(part + room, longest), device=offsets.device)
            inside = place < end
            yield slice(first, last), padded[torch.where(inside, place, len(members))], inside[..., None]
        first = last


def cotangents(
    k: Float[Tensor, "*b g r r"],
    a: Float[Tensor, "*b n C"],
    u: Float[Tensor, "*b n C"],
    v: Float[Tensor, "*b n C"],
    x: Float[Tensor, "*b n d"],
    y: Float[Tensor, "*b n d"],
    members: Int[Tensor, " k"],
    offsets: Int[Tensor, " h"],
    *,
    memory: int = MEMORY,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the cotangents of a, u, v, x and y for the cotangent ``k`` of K (a vjp); differentiable again.

    Args:
        k: the cotangent of K.
        a: as in ``group_products``, like all that follow.
        u: left factor.
        v: right factor.
        x: left features.
        y: right features.
        members: numbers of examples.
        offsets: where each group's members begin.
        memory: bytes of gathered numbers at a time.
    """
    C, d = u.shape[-1], x.shape[-1]
    bytes_each = x.element_size() * max(1, x.shape[:-2].numel())
    blocks = k.reshape(*k.shape[:-2], C, d, C, d).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
    found = [torch.zeros_like(factor) for factor in (a, u, v, x, y)]
    for groups, index, inside in gathers(members, offsets, memory // ((6 * C * d + 4 * (C + d)) * bytes_each), len(k)):
        at = [factor[..., index, :] * inside for factor in (a, u, v, x, y)]
        parts = _member_cotangents(k[..., groups, :, :], blocks[..., groups, :, :, :], *at)
        places = index.flatten()
        found = [
            total.index_add(-2, places, (part * inside).reshape(*total.shape[:-2], -1, total.shape[-1]))
            for total, part in zip(found, parts, strict=True)
        ]
    return tuple(found)


def _member_cotangents(
    k: Tensor, blocks: Tensor, a: Tensor, u: Tensor, v: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the cotangents of each member's factors, [..., g, L, C] and [..., g, L, d]; blocks [..., g, C, d, d]."""
    left, right = u[..., :, None] * x[..., None, :], v[..., :, None] * y[..., None, :]  # [..., g, L, C, d]
    of_left = -(right.flatten(-2) @ k.mT).reshape(left.shape)
    of_right = -(left.flatten(-2) @ k).reshape(left.shape)
    y_block = (y[..., None, :, :] @ blocks.mT).transpose(-3, -2)  # [..., g, L, C, d]
    x_block = (x[..., None, :, :] @ blocks).transpose(-3, -2)
    return (
        (y_block @ x[..., None])[..., 0],
        (of_left @ x[..., None])[..., 0],
        (of_right @ y[..., None])[..., 0],
        (u[..., None, :] @ of_left + a[..., None, :] @ y_block)[..., 0, :],
        (v[..., None, :] @ of_right + a[..., None, :] @ x_block)[..., 0, :],
    )

"""BatchNorm by the statistics of its batch, fused, with first and second derivatives and none beyond.

    y = w x^ + b,   x^ = r (x - mean),   r = 1 / sqrt(variance + eps)
    backward of g:                 dw = sum g x^,   db = sum g,   dx = w r (g - db/m - x^ dw/m)
    backward of that, of (h, a, c) for (dx, dw, db):
        S_h = sum h,   S_hx = sum h x^,   S_hg = sum h g,   T = S_hg - S_h db/m - S_hx dw/m,
        dg = w r (h - S_h/m - x^ S_hx/m) + a x^ + c,        d'w = r T,
        d'x = r (u - mean u - x^ mean(u x^)) - w T r^2 x^/m,   u = a g - w r (h dw + g S_hx)/m

Sums are over the m numbers of a channel. torch's own fused layer has the same second derivative in four times as many
passes over memory, and a wrong third one; here a third derivative is an error. For gradients, vjps and Hessian products
of networks whose cost is their convolutions (``second_order_norms``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_fused: ContextVar[bool] = ContextVar("second order norms", default=False)


@contextmanager
def second_order_norms() -> Iterator[None]:
    """Use the fused BatchNorm inside: exact up to second derivatives in reverse mode; a third one raises."""
    token = _fused.set(True)
    try:
        yield
    finally:
        _fused.reset(token)


def is_second_order() -> bool:
    """Return whether the caller is inside ``second_order_norms``."""
    return _fused.get()


def fused_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return the batch [n, c, ...], normalised for each c over all other dimensions; twice differentiable."""
    weight = x.new_ones(x.shape[1]) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    return _BatchNorm.apply(x, weight, bias, eps)[0]


class _BatchNorm(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ANN001
        x, weight, _, ctx.eps = inputs
        _, mean, scale = output
        ctx.mark_non_differentiable(mean, scale)
        ctx.save_for_backward(x, weight, mean, scale)

    @staticmethod
    def backward(ctx, g, *_):  # noqa: ANN001
        x, weight, mean, scale = ctx.saved_tensors
        return *_BatchNormBackward.apply(g, x, weight, mean, scale, ctx.eps), None


class _BatchNormBackward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, ...]:
        every = [True, True, True]
        return torch.ops.aten.native_batch_norm_backward(g, x, weight, None, None, mean, scale, True, eps, every)

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ANN001
        ctx.save_for_backward(*inputs[:5], *output[1:])

    @staticmethod
    def backward(ctx, h, a, c):  # noqa: ANN001
        g, x, w, mean, r, dw, db = ctx.saved_tensors
        return *_BatchNormSecond.apply(h, a, c, g, x, w, mean, r, dw, db), None, None, None


class _BatchNormSecond(torch.autograd.Function):
    """The backward of the backward; a class of its own, so that a third derivative reaches its ``backward``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        h: Tensor,
        a: Tensor,
        c: Tensor,
        g: Tensor,
        x: Tensor,
        w: Tensor,
        mean: Tensor,
        r: Tensor,
        dw: Tensor,
        db: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims, shape = [d for d in range(x.ndim) if d != 1], [1, -1, *[1] * (x.ndim - 2)]
        m, wr = x.numel() / x.shape[1], w * r

        def affine(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
            """Return constant + sum of coefficient * tensor, the coefficients by channel."""
            (first, factor), *more = terms
            total = torch.addcmul(constant.view(shape), first, factor.view(shape))
            for tensor, coefficient in more:
                total.addcmul_(tensor, coefficient.view(shape))
            return total

        normal = affine(-mean * r, (x, r))
        s_h, s_hx, s_hg = h.sum(dims), (h * normal).sum(dims), (h * g).sum(dims)
        t = s_hg - (s_h * db + s_hx * dw) / m
        of_g = affine(c - wr * s_h / m, (h, wr), (normal, a - wr * s_hx / m))
        to_g, to_h = a - wr * s_hx / m, -wr * dw / m  # u = to_g g + to_h h
        mean_u, mean_ux = (to_g * db + to_h * s_h) / m, (to_g * dw + to_h * s_hx) / m
        of_x = affine(-r * mean_u, (h, r * to_h), (g, r * to_g), (normal, -r * mean_ux - wr * r * t / m))
        return of_g, of_x, r * t

    @staticmethod
    def setup_context(ctx, inputs, output):  # noqa: ANN001
        pass

    @staticmethod
    def backward(ctx, *_):  # noqa: ANN001
        raise RuntimeError("the fused BatchNorm has no third derivative; leave second_order_norms() to take one.")

"""``vmap``, with a loop as fallback.

Recurrent layers, Boolean masks and other operations without a batching rule fail under ``torch.func.vmap``. A loop
gives the same result, only slower, with one warning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from explainlib.checks import warn_caller


class LoopWarning(UserWarning):
    """A layer has no batching rule; examples, tasks or vectors are processed one by one."""


def vmap(function: Callable, in_dims: int | tuple = 0, *, chunk_size: int | None = None) -> Callable:
    """Return ``function`` mapped over the first dimension, as ``torch.func.vmap`` does, or by a loop where that fails.

    Args:
        function: of tensors (or tuples of them), returning tensors.
        in_dims: 0 or None for each argument.
        chunk_size: size of a batch.
    """
    batched = torch.func.vmap(function, in_dims=in_dims, chunk_size=chunk_size)

    def mapped(*args):
        try:
            return batched(*args)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "allocate" in str(error):
                raise
            out = _loop(function, in_dims, args)  # other errors are raised here
            reason = str(error).strip().split("\n")[0][:160]
            warn_caller(
                f"torch cannot map over this model ({reason}); examples are taken one by one: exact, but slower.",
                LoopWarning,
            )
            return out

    return mapped


def _loop(function: Callable, in_dims: int | tuple, args: tuple):
    """Return the results for each position of the mapped arguments, stacked."""
    dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
    size = next(len(tree_flatten(arg)[0][0]) for arg, dim in zip(args, dims, strict=True) if dim is not None)
    results = [
        function(*(arg if dim is None else tree_map(lambda t: t[i], arg) for arg, dim in zip(args, dims, strict=True)))  # noqa: B023
        for i in range(size)
    ]
    flat = [tree_flatten(result) for result in results]
    leaves = [torch.stack(each) for each in zip(*(leaves for leaves, _ in flat), strict=True)]
    return tree_unflatten(leaves, flat[0][1])

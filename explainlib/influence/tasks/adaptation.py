"""I_adpt: the derivative of adapted parameters in the weight of training tasks, in memory or in a file.

I_adpt(i, j) = dA(support_i, w)/dw  I_meta(j)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.func import jvp

from explainlib.datasets import Tasks
from explainlib.derivatives import vmap
from explainlib.memory import require_memory, slices
from explainlib.meta.learner import Episode, Learner, require_learned

NUMBERS = 2**22  # of directions at a time


def adaptation_table(
    learner: Learner,
    w: Float[Tensor, " q"],
    tests: Tasks,
    chosen: Int[Tensor, " m"],
    meta: Callable[[Int[Tensor, " k"]], Float[Tensor, "k q"]],
    out: str | Path | None,
) -> Float[Tensor, "T m P"]:
    """Return the products of each test task's dA/dw with I_meta of the chosen training tasks.

    Args:
        learner: its adaptation is differentiated, forward.
        w: meta-parameters [q].
        tests: T tasks.
        chosen: indices of training tasks.
        meta: I_meta of some indices.
        out: a file of numpy's format that is written; None is memory.

    Raises:
        TooLargeError: more than memory, without a file.
    """
    q = len(w)
    table = _empty((len(tests), len(chosen), q), w, out)
    columns = max(1, min(len(chosen), NUMBERS // q))

    def one(task: Episode, directions: Float[Tensor, "k q"]) -> Float[Tensor, "k P"]:
        return vmap(lambda v: jvp(lambda u: learner.adapted_one(u, task), (w,), (v,))[1])(directions)

    for some in slices(len(chosen), columns):
        directions = meta(chosen[some])
        for rows in slices(len(tests), learner.chunk(tests) // len(directions)):
            found = vmap(one, (0, None))(Episode(*tests[rows].arrays()), directions)
            table[rows, some] = require_learned(learner, "adaptations", found)
    return table


def _empty(shape: tuple[int, int, int], like: Tensor, out: str | Path | None) -> Tensor:
    """Return an empty table in memory, or mapped to a file of numpy's format."""
    if out is not None:
        kind = str(like.dtype).removeprefix("torch.")
        return torch.from_numpy(open_memmap(out, mode="w+", dtype=kind, shape=shape))
    what = f"the adaptation of {shape[0]:,} tasks to {shape[1]:,}, q = {shape[2]:,} numbers each"
    size = 2 * shape[0] * shape[1] * shape[2] * like.element_size()
    require_memory(what, size, like.device, otherwise="pass training=[...], or out= to write to a file")
    return like.new_empty(shape)

"""Groups of training tasks as columns of zeros and ones: influence is summed over the members (TLXML, eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_indices, require_lists


def membership(groups: Sequence[Sequence[int]] | Int[Tensor, " M"], m: int) -> Float[Tensor, "M G"]:
    """Return 1 where a training task belongs to a group, else 0, in float64.

    Args:
        groups: a list of index lists, or a LongTensor [M] of group numbers.
        m: training tasks.

    Raises:
        ValueError: an index outside the training tasks, or numbers of another length.
    """
    if isinstance(groups, Tensor):
        if groups.shape != (m,) or groups.dtype != torch.int64:
            raise ValueError(
                f"groups is {groups.dtype} {list(groups.shape)}, expected int64 [{m}], one per task (its "
                "group's number); pass a list of index lists to name tasks, [[0, 3], [1]]."
            )
        return (groups[:, None] == groups.unique()).double()
    columns = torch.zeros(m, len(groups), dtype=torch.float64)
    require_lists(groups)
    for g, members in enumerate(groups):
        columns[require_indices(members, m, name=f"groups[{g}]", of="training tasks"), g] = 1
    return columns

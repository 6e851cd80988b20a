"""Whether a kernel agrees with plain PyTorch on a device: tried once a kind of call, and said where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable

import torch

_agreed: dict[tuple[str, Hashable, torch.device], bool] = {}


def agrees(kernel: str, key: Hashable, device: torch.device, trial: Callable[[], bool]) -> bool:
    """Return whether the kernel may run: the answer of its first trial.

    Args:
        kernel: what the warning says of it: "that trains small networks for 4-5-3".
        key: what makes another build of the kernel.
        device: of the operands.
        trial: runs both routes on few numbers and says whether they agree.
    """
    if (kernel, key, device) not in _agreed:
        _agreed[kernel, key, device] = trial()
        if not _agreed[kernel, key, device]:
            warnings.warn(
                f"The kernel {kernel} does not agree with plain PyTorch on {device}; plain PyTorch runs instead.",
                stacklevel=4,
            )
    return _agreed[kernel, key, device]

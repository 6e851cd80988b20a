"""A network's first weights depend on its seed alone: not on the caller's generator, the dtype or the device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from explainlib.checks import require_count


def seeded(
    layers: Callable[[], OrderedDict[str, nn.Module]],
    *,
    seed: int,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return the layers as one Sequential with PyTorch's default initialisation drawn from ``seed``.

    Args:
        layers: makes the named layers; called once, inside a forked generator.
        seed: whole number of at least 0.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        The network, in training mode as PyTorch makes it (there is nothing in it that the mode would change).

    Raises:
        ValueError: a negative seed.
        TypeError: a dtype that is not floating point.
    """
    require_count("seed", seed, least=0)
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype} is not a floating point type; pass torch.float32 or torch.float64.")
    # Always drawn in float32 on the CPU, so that one seed names one network at every precision and on every device.
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the caller's GPUs too
        torch.set_default_dtype(torch.float32)
        try:
            network = nn.Sequential(layers())
        finally:
            torch.set_default_dtype(default)
    return network.to(dtype=dtype or default, device=device or torch.get_default_device())

"""The small convolutional networks of the representers study: 3x3 convolutions of stride 2, a mean, and a read-out."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from explainlib.checks import require_count
from explainlib.models.seeded import seeded


def cnn2(
    channels_in: int,
    C: int,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return two 3x3 convolutions (8 and 16 channels, stride 2, ReLU), means over quarters, and a read-out.

    It trains in a fifth of a second, for studies that retrain it ten thousand times.

    Args:
        channels_in: 1 for grey images, 3 for colour.
        C: classes, at least 2.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network that takes [n, channels_in, h, w] with any h and w of at least 5; its last Linear is ``output``.

    Raises:
        ValueError: channels_in below 1, C below 2 or a negative seed.

    Example:
        >>> sum(p.numel() for p in cnn2(1, 2).parameters())
        1378
    """
    return seeded(lambda: _layers(channels_in, C, (8, 16), "quarters", 2), seed=seed, dtype=dtype, device=device)


def cnn3(
    channels_in: int,
    C: int,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return three 3x3 convolutions (32, 64, 128 channels, stride 2, ReLU), the mean over positions, and a read-out.

    The mean makes the parameter count the same for every image size: 92,672 + 288 (channels_in - 1) + 129 C, which
    is 93,962 for ten classes of grey images and 93,506 for two classes of colour images.

    Args:
        channels_in: 1 for grey images, 3 for colour.
        C: classes, at least 2.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network that takes [n, channels_in, h, w] with any h and w; its last Linear is ``output``.

    Raises:
        ValueError: channels_in below 1, C below 2 or a negative seed.

    Source: Tsai et al. 2023, section 6 ("3 layers", "around 95,000 parameters"). Deviation: the paper gives neither
    the widths nor the pooling; these are chosen to meet its count on MNIST and on CIFAR-10 alike. The three layers
    are read as the convolutions, without the read-out.

    Example:
        >>> sum(p.numel() for p in cnn3(1, 10).parameters())
        93962
    """
    return seeded(lambda: _layers(channels_in, C, (32, 64, 128), "mean", 1), seed=seed, dtype=dtype, device=device)


def _layers(channels_in: int, C: int, widths: tuple[int, ...], pooling: str, side: int) -> OrderedDict[str, nn.Module]:
    """Return a convolution and a ReLU for each width, means over ``side`` x ``side`` regions, and the read-out."""
    require_count("channels_in", channels_in)
    require_count("C", C, least=2)
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for k, (before, width) in enumerate(zip((channels_in, *widths), widths, strict=False), start=1):
        named[f"conv{k}"] = nn.Conv2d(before, width, 3, stride=2, padding=1)
        named[f"relu{k}"] = nn.ReLU()
    named[pooling] = nn.AdaptiveAvgPool2d(side)
    named["flatten"] = nn.Flatten()
    named["output"] = nn.Linear(widths[-1] * side**2, C)
    return named

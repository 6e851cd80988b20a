"""The small convolutional network of the representers paper: three layers, about 95,000 parameters."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from explainlib.checks import require_count
from explainlib.models.seeded import seeded


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
    require_count("channels_in", channels_in)
    require_count("C", C, least=2)
    return seeded(
        lambda: OrderedDict(
            conv1=nn.Conv2d(channels_in, 32, 3, stride=2, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3, stride=2, padding=1),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(64, 128, 3, stride=2, padding=1),
            relu3=nn.ReLU(),
            mean=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            output=nn.Linear(128, C),
        ),
        seed=seed,
        dtype=dtype,
        device=device,
    )

"""LeNet-5, the small convolutional network of the fragility papers."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from explainlib.checks import require_count
from explainlib.models.seeded import seeded


def lenet(
    channels_in: int,
    C: int,
    *,
    side: int = 28,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return two 5x5 convolutions (6 and 16 channels), each with ReLU and 2x2 max pooling, then 120, 84 and C units.

    61,706 parameters for ten classes of grey 28 x 28 images, 83,126 for colour images of side 32.

    Args:
        channels_in: 1 for grey images, 3 for colour.
        C: classes, at least 2.
        side: height and width of the images, at least 12; the first convolution is padded.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network that takes [n, channels_in, side, side]; its last Linear is ``output``.

    Raises:
        ValueError: channels_in below 1, C below 2, a side below 12 or a negative seed.

    Source: LeCun et al. 1998, section II.B; Epifano et al., section 3.2. Deviation: ReLU and max pooling, as it is used
    today, and every map of the second convolution sees all maps of the first.

    Example:
        >>> sum(p.numel() for p in lenet(1, 10).parameters())
        61706
    """
    require_count("channels_in", channels_in)
    require_count("C", C, least=2)
    left = (require_count("side", side, least=12) // 2 - 4) // 2
    return seeded(
        lambda: OrderedDict(
            conv1=nn.Conv2d(channels_in, 6, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(16 * left * left, 120),
            relu3=nn.ReLU(),
            linear2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            output=nn.Linear(84, C),
        ),
        seed=seed,
        dtype=dtype,
        device=device,
    )

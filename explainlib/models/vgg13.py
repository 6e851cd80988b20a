"""VGG13, the large convolutional network of the fragility papers, for images of side 32."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from explainlib.checks import require_count
from explainlib.models.seeded import seeded

BLOCKS = (1, 2, 4, 8, 8)  # channels in units of ``width``; each block is two convolutions and a pooling


class HeConv2d(nn.Conv2d):
    """A convolution that draws its first weights so that a ReLU after it keeps the signal's size.

    PyTorch's own draw shrinks it by 2.4 a layer, and ten layers without normalisation would start out blind.
    """

    def reset_parameters(self) -> None:
        """Draw the weights as He et al. 2015, eq. (10), and set the biases to zero."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def vgg13(
    channels_in: int,
    C: int,
    *,
    width: int = 64,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return ten 3x3 convolutions in five blocks, 2x2 max pooling after each, and one read-out.

    9,410,122 parameters for ten classes of colour images; without batch normalisation and dropout, so that an example
    stands for itself.

    Args:
        channels_in: 1 for grey images, 3 for colour.
        C: classes, at least 2.
        width: channels of the first block, 64 in the paper; a smaller one shrinks all layers alike.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network that takes [n, channels_in, 32, 32]; its last Linear is ``output``.

    Raises:
        ValueError: channels_in or width below 1, C below 2 or a negative seed.

    Source: Simonyan & Zisserman 2015, table 1, column B; Epifano et al., section 3.2. Deviation: one linear read-out
    instead of three layers made for images of side 224.

    Example:
        >>> sum(p.numel() for p in vgg13(3, 10, width=4).parameters())
        37342
    """
    require_count("channels_in", channels_in)
    require_count("C", C, least=2)
    require_count("width", width)

    def layers() -> OrderedDict[str, nn.Module]:
        named: OrderedDict[str, nn.Module] = OrderedDict()
        channels, k = channels_in, 0
        for block, factor in enumerate(BLOCKS, start=1):
            for _ in range(2):
                k += 1
                named[f"conv{k}"] = HeConv2d(channels, factor * width, 3, padding=1)
                named[f"relu{k}"] = nn.ReLU()
                channels = factor * width
            named[f"pool{block}"] = nn.MaxPool2d(2)
        named["flatten"] = nn.Flatten()
        named["output"] = nn.Linear(channels, C)
        return named

    return seeded(layers, seed=seed, dtype=dtype, device=device)

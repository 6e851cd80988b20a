"""The networks of few-shot learning: small, with BatchNorm, which learners evaluate on the statistics of a batch."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from explainlib.checks import require_count
from explainlib.models.seeded import seeded


def fc_bn(
    features: int,
    C: int = 5,
    *,
    hidden: int = 32,
    activation: type[nn.Module] = nn.ReLU,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return Linear, BatchNorm, activation, Linear: the two-layer network on which TLXML is exact.

    Args:
        features: of one example; inputs are flattened.
        C: ways.
        hidden: width.
        activation: ReLU, or ``nn.Tanh`` where derivatives should exist everywhere.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network with layers ``linear1``, ``norm``, ``activation``, ``linear2``.

    Raises:
        ValueError: a count below 1 or a negative seed.

    Source: TLXML, sections 5.1 and B.2.1 (1,285 and 1,413 parameters).

    Example:
        >>> [sum(p.numel() for p in fc_bn(d).parameters()) for d in (32, 36)]
        [1285, 1413]
    """
    for name, value in (("features", features), ("C", C), ("hidden", hidden)):
        require_count(name, value)

    def layers() -> OrderedDict[str, nn.Module]:
        return OrderedDict(
            flatten=nn.Flatten(),
            linear1=nn.Linear(features, hidden),
            norm=nn.BatchNorm1d(hidden),
            activation=activation(),
            linear2=nn.Linear(hidden, C),
        )

    return seeded(layers, seed=seed, dtype=dtype, device=device)


def cnn4(
    channels_in: int,
    size: int,
    C: int | None = 5,
    *,
    filters: int = 64,
    norm: bool = True,
    activation: type[nn.Module] = nn.ReLU,
    pooling: type[nn.Module] = nn.MaxPool2d,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return four blocks of 3x3 convolution, BatchNorm, ReLU and 2x2 pooling, and a Linear unless C is None.

    Without the Linear it is the backbone of a Prototypical Network.

    Args:
        channels_in: 1 for grey images, 3 for colour.
        size: height and width of the images; 84 and 28 in the paper. At least 16, four times halved.
        C: ways; None leaves the embedding.
        filters: of every convolution.
        norm: False leaves BatchNorm out, so that each example is independent of the others (``xl.meta.Bilevel``).
        activation: ReLU, or ``nn.Tanh`` where derivatives should exist everywhere.
        pooling: the maximum, or ``nn.AvgPool2d`` for the same reason.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network that takes [n, channels_in, size, size].

    Raises:
        ValueError: a count below 1, or images too small to halve four times.

    Source: TLXML, section 5.2 and B.3. Deviation: the paper prints 111,261 parameters for Omniglot, less than its own
    backbone of 111,936; with the Linear layer there are 112,261.

    Example:
        >>> def count(*args):
        ...     return sum(p.numel() for p in cnn4(*args).parameters())
        >>> count(3, 84), count(1, 28), count(3, 84, None), count(1, 28, None)
        (121093, 112261, 113088, 111936)
    """
    for name, value in (("channels_in", channels_in), ("filters", filters)):
        require_count(name, value)
    require_count("size", size, least=16)
    channels = [channels_in, *[filters] * 4]

    def layers() -> OrderedDict[str, nn.Module]:
        named: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, 5):
            named[f"conv{i}"] = nn.Conv2d(channels[i - 1], channels[i], 3, padding=1)
            if norm:
                named[f"norm{i}"] = nn.BatchNorm2d(channels[i])
            named[f"relu{i}"] = activation()
            named[f"pool{i}"] = pooling(2)
        named["flatten"] = nn.Flatten()
        if C is not None:
            named["output"] = nn.Linear(filters * (size // 16) ** 2, require_count("C", C))
        return named

    return seeded(layers, seed=seed, dtype=dtype, device=device)

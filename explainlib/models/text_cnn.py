"""The text network of the representers paper: a vector for each word, convolutions over neighbours, the best match.

Padding counts for nothing, by a mask on the word vectors. ``nn.Embedding``'s own ``padding_idx`` stops gradients only
backwards: a forward derivative still goes through the padding's vector, so that the two would disagree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from explainlib.checks import require_count
from explainlib.datasets.tokenizer import PAD
from explainlib.models.seeded import seeded


class WordVectors(nn.Module):
    """Embeds tokens; the vector of the padding is zero, independent of its parameters.

    Args:
        vocabulary: how many tokens there are, padding included.
        dim: of each vector.
    """

    def __init__(self, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=PAD)

    def forward(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n dim length"]:
        """Return the vectors as channels."""
        vectors = self.embedding(tokens)
        return (vectors * (tokens != PAD).unsqueeze(-1).to(vectors.dtype)).transpose(-1, -2)


class BestMatches(nn.Module):
    """Convolutions of several widths, and for each filter its largest value over all positions, at least zero.

    Args:
        dim: channels in.
        filters: of each width.
        widths: neighbouring words that a filter sees.
    """

    def __init__(self, dim: int, filters: int, widths: Sequence[int]) -> None:
        super().__init__()
        for width in widths:
            self.add_module(f"conv{width}", nn.Conv1d(dim, filters, width, padding=width // 2))

    def forward(self, vectors: Float[Tensor, "n dim length"]) -> Float[Tensor, "n features"]:
        """Return one feature for each filter of each width."""
        return torch.cat([torch.relu(convolution(vectors)).amax(-1) for convolution in self.children()], dim=-1)


def text_cnn(
    vocabulary: int,
    C: int,
    *,
    dim: int = 48,
    filters: int = 235,
    widths: Sequence[int] = (3, 4, 5),
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return word vectors, convolutions of some widths with ReLU, the maximum over positions, and a read-out.

    Args:
        vocabulary: tokens, padding (0) included, at least 2: ``len(tokenizer)``. Inputs have to lie below it.
        C: classes, at least 2.
        dim: of the word vectors.
        filters: of each width.
        widths: neighbouring words that a filter sees; distinct.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network that takes int64 tokens [n, length] of any length; layers ``words.embedding``, ``matches.conv<width>``
        and ``output``.

    Raises:
        TypeError: widths that are one number.
        ValueError: a count below its least, no widths or one twice, or a negative seed.

    Source: Tsai et al. 2023, section 6 (1,602,257 parameters, 30,522 word vectors of dimension 48, "3 layers").
    Deviation: the paper gives neither widths nor filters. The three layers are read as word vectors, convolutions and
    read-out, and the filters are chosen to meet its count within 276.

    Example:
        >>> sum(p.numel() for p in text_cnn(30_522, 2).parameters())
        1602533
    """
    require_count("vocabulary", vocabulary, least=2)
    require_count("C", C, least=2)
    require_count("dim", dim)
    require_count("filters", filters)
    if isinstance(widths, int):
        raise TypeError(f"widths={widths} is one number, expected several; pass ({widths},).")
    for i, width in enumerate(widths):
        require_count(f"widths[{i}]", width)
    if not widths or len(set(widths)) != len(widths):
        raise ValueError(f"widths={tuple(widths)} has to name at least one width, each once; pass (3, 4, 5).")
    return seeded(
        lambda: OrderedDict(
            words=WordVectors(vocabulary, dim),
            matches=BestMatches(dim, filters, widths),
            output=nn.Linear(filters * len(widths), C),
        ),
        seed=seed,
        dtype=dtype,
        device=device,
    )

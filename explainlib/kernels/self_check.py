"""The self-check of the fused Gram against its plain reference: on a GPU, or in Triton's interpreter on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from explainlib.kernels import reference
from explainlib.kernels.choice import use
from explainlib.kernels.gram import layer_gram

# n m P Q d o: one position; several tiles of pairs; several blocks of positions and of widths; none filled
RAGGED_SHAPES = [(5, 3, 7, 2, 37, 5), (3, 5, 1, 1, 7, 2), (66, 1, 3, 1, 4, 33), (2, 3, 66, 5, 17, 1)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class Comparison(NamedTuple):
    """One comparison: what was compared, the largest error relative to the largest entry, and the tolerance."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Return whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"{'ok  ' if self.passed else 'FAIL'} {self.name:<52} error {self.error:.1e}, allowed {self.tolerance:.1e}"
        )


def factors(n: int, m: int, P: int, Q: int, d: int, o: int, *, seed: int = 0) -> list[Tensor]:
    """Return a_i, g_i, a_j, g_j of these sizes: float64 normal numbers, the same on every machine."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n, P, d), (n, P, o), (m, Q, d), (m, Q, o))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def comparisons(
    device: str, dtypes: tuple[torch.dtype, ...] = tuple(TOLERANCE), *, route: str = "triton"
) -> list[Comparison]:
    """Return every comparison of the kernel with the reference in float64.

    Args:
        device: "cuda", or "cpu" with Triton's interpreter on.
        dtypes: of the inputs.
        route: what is compared: "triton", or "torch" to try the comparisons themselves.

    Raises:
        RuntimeError: kernels cannot run here.
    """
    found = []
    with use(route):
        for dtype in dtypes:
            for shape in RAGGED_SHAPES if dtype == torch.float32 else RAGGED_SHAPES[::2]:
                found += value_comparisons(shape, dtype, device)
        found += derivative_comparisons(device)
    return found


def value_comparisons(shape: tuple[int, int, int, int, int, int], dtype: torch.dtype, device: str) -> list[Comparison]:
    """Return the comparisons of one shape: two sides, one side against itself, and memory in another order."""
    given = [x.to(device, dtype) for x in factors(*shape)]
    wide = [x.double() for x in given]
    a, g = given[:2]
    strided = [x.mT.contiguous().mT for x in given]
    name, tolerance = f"{str(dtype).removeprefix('torch.')} {list(shape)}", TOLERANCE[dtype]
    itself = layer_gram(a, g, a, g)
    return [
        Comparison(name, relative_error(layer_gram(*given), reference.layer_gram(*wide)), tolerance),
        Comparison(f"{name} strided", relative_error(layer_gram(*strided), reference.layer_gram(*wide)), tolerance),
        Comparison(f"{name} itself", relative_error(itself, reference.layer_gram(*wide[:2], *wide[:2])), tolerance),
        Comparison(f"{name} itself, its asymmetry", relative_error(itself, itself.T), 0.0),
        Comparison(f"{name} again, its difference", relative_error(layer_gram(*given), layer_gram(*given)), 0.0),
    ]


def derivative_comparisons(device: str) -> list[Comparison]:
    """Return the comparisons of grad, jvp and vmap through the kernel, in float64."""
    given = [x.to(device) for x in factors(3, 2, 4, 5, 2, 3)]
    tangents = tuple(x.to(device) for x in factors(3, 2, 4, 5, 2, 3, seed=1))
    stacked = [torch.stack([x, -2 * x, x + 1]) for x in given]

    def gradients(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        return grad(lambda *x: torch.sin(function(*x)).sum(), (0, 1, 2, 3))(*given)

    tolerance, plain = TOLERANCE[torch.float64], reference.layer_gram
    one_side, mixed = (0, 0, None, None), [*stacked[:2], *given[2:]]
    by_argument = zip(gradients(layer_gram), gradients(plain), strict=True)
    pairs = {
        **{f"grad by argument {k}": pair for k, pair in enumerate(by_argument)},
        "jvp": (jvp(layer_gram, tuple(given), tangents)[1], jvp(plain, tuple(given), tangents)[1]),
        "vmap": (vmap(layer_gram)(*stacked), vmap(plain)(*stacked)),
        "vmap over one side": (vmap(layer_gram, one_side)(*mixed), vmap(plain, one_side)(*mixed)),
    }
    return [Comparison(name, relative_error(*pair), tolerance) for name, pair in pairs.items()]


def relative_error(got: Tensor, want: Tensor) -> float:
    """Return the largest difference, relative to the largest entry wanted."""
    return float((got.double() - want.double()).abs().max() / want.double().abs().max())

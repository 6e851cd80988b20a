"""The one place where small perceptrons are trained by the thousand: it checks, and picks kernel or plain PyTorch."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import (
    require_choice,
    require_count,
    require_labels,
    require_nonnegative,
    require_positive,
    require_same_kind,
    require_shape,
    require_tensor,
)
from explainlib.kernels.agreement import agrees
from explainlib.kernels.choice import runs_on_triton
from explainlib.kernels.perceptrons import fused, plain
from explainlib.kernels.perceptrons.options import Options

TOLERANCE = 1e-3  # between kernel and plain route after the first steps, relative to the way gone
_said: set[str] = set()


def trained_perceptrons(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    weights: Float[Tensor, "m n"],
    starts: Float[Tensor, "m p"],
    *,
    widths: tuple[int, ...],
    activation: str = "relu",
    epochs: int,
    lr: float = 1e-3,
    optimizer: str = "adam",
    l2: float = 0.0,
    plateau: tuple[float, int, float, float] | None = None,
    batches: Int[Tensor, "r b"] | None = None,
) -> Float[Tensor, "m p"]:
    """Return the parameters of m small perceptrons after training; on a GPU all epochs of all of them are one launch.

    Network j minimises  1/n sum_i w_ji l_i(theta) + l2/2 |theta|^2  with the cross-entropy l_i, from its own start. In
    batches of b examples the sum is over the batch and n is b.

    Args:
        x: inputs of the n examples.
        y: their classes, 0 to c - 1.
        weights: of each network's examples; 0 leaves an example out while n in 1/n stays.
        starts: initial parameters, W [out, in] and then b [out], layer by layer, as torch keeps them.
        widths: d, hidden layers, c; at least one hidden layer.
        activation: "relu", "tanh", "sigmoid" or "selu", of all hidden layers.
        epochs: passes through the batches, >= 1.
        lr: learning rate.
        optimizer: "adam" (as ``torch.optim.Adam``) or "sgd" (no momentum).
        l2: ridge, added to the gradient.
        plateau: factor, patience, threshold and least rate of ``training.Plateau``, for each network's own rate; with
            full batches only.
        batches: numbers of the examples of each of r steps of an epoch, the same for all networks; None takes all.

    Returns:
        [m, p], not differentiable. Shapes that do not fit into registers take the plain route; a warning says so once.

    Raises:
        TypeError, ValueError: operands that do not belong together, or bad options.

    Example: of one example with two equal outputs only the last bias has a gradient, (-1/2, 1/2).

        >>> x, y, one = torch.tensor([[1.0]]), torch.tensor([0]), torch.ones(1, 1)
        >>> widths, start = (1, 1, 2), torch.zeros(1, 6)
        >>> trained_perceptrons(x, y, one, start, widths=widths, epochs=1, lr=1.0, optimizer="sgd").tolist()
        [[0.0, 0.0, 0.0, 0.0, 0.5, -0.5]]
    """
    _require_operands(x, y, weights, starts, widths)
    options = Options(tuple(widths), activation, epochs, lr, optimizer, l2, plateau, batches)
    _require_options(options, len(x))
    if fits_kernel(options.widths, activation, starts) and _agrees(x, y, weights, starts, options):
        return fused.launch(x, y, weights, starts, options)
    return plain.trained(x, y, weights, starts, options)


def _agrees(x: Tensor, y: Tensor, weights: Tensor, starts: Tensor, options: Options) -> bool:
    """Return whether the kernel agrees with the plain route on this device; tried once a shape, on the first steps."""

    def trial() -> bool:
        few, some = options._replace(epochs=min(options.epochs, 3)), slice(2)
        found, want = (run(x, y, weights[some], starts[some], few) for run in (fused.launch, plain.trained))
        gone = (want - starts[some]).norm()
        return bool((found - want).norm() <= TOLERANCE * gone + torch.finfo(starts.dtype).eps)

    kinds = (options.activation, options.optimizer, options.plateau is None, options.batches is None, starts.dtype)
    name = f"that trains small networks {'-'.join(map(str, options.widths))}"
    return agrees(name, kinds, starts.device, trial)


def fits_kernel(widths: tuple[int, ...], activation: str, starts: Tensor) -> bool:
    """Return whether the kernel trains such networks here; warn once where it would run but for their shape.

    Args:
        widths: of the inputs, hidden layers and outputs.
        activation: of the hidden layers.
        starts: initial parameters; their device and dtype decide.
    """
    if not runs_on_triton(starts, positions=2):
        return False
    reason = obstacle(widths, activation, starts.dtype)
    if reason and reason not in _said:
        _said.add(reason)
        warnings.warn(f"{reason} Plain PyTorch trains these networks instead.", stacklevel=3)
    return not reason


def obstacle(widths: tuple[int, ...], activation: str, dtype: torch.dtype) -> str:
    """Return why a shape does not fit the kernel, in a sentence; an empty string if it does.

    Args:
        widths: of the inputs, hidden layers and outputs.
        activation: of the hidden layers.
        dtype: of the parameters.
    """
    name = "-".join(map(str, widths))
    if activation not in plain.ACTIVATIONS:
        return f"The kernel that trains small networks knows no {activation}."
    if dtype not in (torch.float32, torch.float64):
        return f"The kernel that trains small networks takes float32 and float64, not {dtype}."
    if not fused.fits(widths, dtype):
        return f"A network {name} in {str(dtype).removeprefix('torch.')} does not fit into a program's registers."
    return ""


def _require_operands(x: Tensor, y: Tensor, weights: Tensor, starts: Tensor, widths: tuple[int, ...]) -> None:
    for name, tensor in {"x": x, "y": y, "weights": weights, "starts": starts}.items():
        require_same_kind(name, require_tensor(name, tensor), "starts", starts)
        if tensor.requires_grad:
            raise ValueError(f"{name} requires a gradient, which training does not have; pass {name}.detach().")
    if len(widths) < 3 or min(widths) < 1:
        raise ValueError(f"widths={widths} has to name inputs, at least one hidden layer and outputs, all above 0.")
    require_shape("x", x, (None, widths[0]), meaning="(examples, the first of widths)")
    require_shape("starts", starts, (None, fused.parameters(widths)), meaning="(networks, their parameters)")
    require_shape("weights", weights, (len(starts), len(x)), meaning="(networks, examples)")
    require_labels("y", y, widths[-1])
    require_shape("y", y, (len(x),), meaning="(the examples of x)")
    if not weights.numel():
        raise ValueError(f"weights has shape {list(weights.shape)}: nothing to train; pass an example and a start.")


def _require_options(options: Options, n: int) -> None:
    _, activation, epochs, lr, optimizer, l2, plateau, batches = options
    require_choice("activation", activation, tuple(plain.ACTIVATIONS))
    require_choice("optimizer", optimizer, ("adam", "sgd"))
    require_count("epochs", epochs)
    require_positive("lr", lr)
    require_nonnegative("l2", l2)
    if batches is None:
        return
    if plateau is not None:
        raise ValueError("plateau watches the objective of all examples; pass batches=None, or plateau=None.")
    require_shape("batches", require_tensor("batches", batches), (None, None), meaning="(steps, examples of a step)")
    if batches.dtype != torch.int64 or not batches.numel() or not 0 <= int(batches.min()) <= int(batches.max()) < n:
        raise ValueError(f"batches has to hold int64 numbers of examples, 0 to {n - 1}; pass them with .long().")

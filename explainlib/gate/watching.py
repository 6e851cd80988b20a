"""What is seen of the operations of a forward: random numbers, parameters of somebody else, and rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from explainlib.params import Parameters

OFF = {"dropout_p": 0.0, "dropout": 0.0, "p": 0.0, "train": False, "training": False}  # at these nothing is drawn


class Watcher(TorchDispatchMode):
    """Sees every operation of a forward: those that draw random numbers, and those that read somebody else's parameter.

    Each is remembered with the layer around it.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.drawn, self.foreign, self._inside = module, [], [], []

    @contextmanager
    def layers(self) -> Iterator[None]:
        """Follow which layer is running."""

        def enter(name: str) -> Callable:
            return lambda *_: self._inside.append(name)

        def leave(*_: object) -> None:
            self._inside.pop()

        hooks = []
        for name, layer in self.module.named_modules():
            hooks += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation; torch tags those that read its generator."""
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs or {}):
            self.drawn.append((self._inside[-1] if self._inside else "", str(func.overloadpacket)))
        for read in args:  # a private copy's own parameters require no gradient
            if isinstance(read, nn.Parameter) and read.requires_grad:
                self.foreign.append((self._inside[-1] if self._inside else "", list(read.shape)))
        return func(*args, **(kwargs or {}))


def _draws(func, args: tuple, kwargs: dict) -> bool:
    """Return whether a tagged operation draws: not with a dropout of zero, or outside training."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    given = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()} | given
    return not any(name in given and given[name] == off for name, off in OFF.items())


class _Rounding(TorchDispatchMode):
    """Remembers the lowest precision that a floating-point number is rounded to."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation."""
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point() and any(isinstance(a, Tensor) for a in args):
            self.eps = max(self.eps, torch.finfo(out.dtype).eps)
        return out


def rounds(parameters: Parameters, x: Tensor) -> bool:
    """Return whether a forward rounds on its way to less than its own precision, as some normalisations do.

    Args:
        parameters: of the model.
        x: a few examples.
    """
    with torch.no_grad(), _Rounding() as seen:
        parameters.outputs(parameters.theta, x)
    return seen.eps > torch.finfo(parameters.theta.dtype).eps

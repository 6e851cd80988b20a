"""The gradients of n examples as recorded by forward and backward passes, in memory or recomputed tile by tile.

The gradient of example i is that of c_i . f(x_i) in the chosen parameters: with c = dl/df it is the loss gradient, with
a one-hot c that of one output, with ones that of their sum. Several cotangents an example give several rows, the
example's rows next to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_finite, require_same_kind, require_shape, require_tensor
from explainlib.layerwise.blocks import GradientBlock, gradient_blocks
from explainlib.layerwise.gradient_matrix.self_check import checked_plan
from explainlib.layerwise.recording import ForwardPass, flat_slices, forward_pass, per_example_gradients
from explainlib.memory import format_bytes, memory_limit, slices
from explainlib.params import Parameters, require_outputs


@runtime_checkable
class PartialCotangents(Protocol):
    """Cotangents, one an example, as a function of some examples' outputs: never those of all at once."""

    def of(self, outputs: Float[Tensor, "e C"], examples: slice) -> Float[Tensor, "e C"]:
        """Return c of these examples."""


Cotangents = Tensor | Callable[[Tensor], Tensor] | PartialCotangents
MAX_PASS = 512  # examples in one forward and backward pass
PASS_BYTES = 4  # bytes that a pass needs per byte that it records


@dataclass(frozen=True)
class Capture:
    """The gradients of n rows as layer inputs and output gradients, all in memory.

    Args:
        blocks: the gradients of each parameter.
        theta: the parameters they were taken at.
        n: rows.
        rows_per_example: cotangents an example.
    """

    blocks: tuple[GradientBlock, ...]
    theta: Float[Tensor, " p"]
    n: int
    rows_per_example: int

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return -(-sum(block.nbytes for block in self.blocks) // self.n)

    @property
    def working_bytes(self) -> int:
        """The bytes of temporary numbers that one row takes in a product with the most expensive block."""
        return max((block.working_bytes for block in self.blocks), default=0)

    def tile(self, start: int, stop: int) -> Capture:
        """Return some rows, whole examples, as views."""
        if (start, stop) == (0, self.n):
            return self
        blocks = tuple(block.part(slice(start, stop)) for block in self.blocks)
        return Capture(blocks, self.theta, stop - start, self.rows_per_example)

    def cached(self, memory: int) -> Capture:
        """Return itself: it is in memory already."""
        return self

    def first_example(self) -> Capture:
        """Return the rows of the first example."""
        return self.tile(0, self.rows_per_example)


class GradientSource:
    """The gradients of n rows, captured a tile at a time when they are needed.

    Args:
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: e examples.
        cotangents: c [e, C], several of them [e, k, C], a function from the outputs [e, C] to either, or
            ``PartialCotangents``, which are computed pass by pass.
        memory: bytes of one pass and of the rows in memory; None is a quarter of what is free.

    Raises:
        TypeError, ValueError: tensors of another shape, dtype or device, NaN, a forward that reads randomness.
    """

    def __init__(
        self,
        parameters: Parameters,
        theta: Float[Tensor, " p"],
        x: Tensor,
        cotangents: Cotangents,
        *,
        memory: int | float | None = None,
    ) -> None:
        p = parameters.theta.numel()
        require_shape("theta", require_tensor("theta", theta), [p], meaning="(the chosen parameters, flattened)")
        require_same_kind("theta", theta, "the model", parameters.theta)
        if len(require_tensor("x", x)) == 0:
            raise ValueError("x holds no examples; pass at least one.")
        require_same_kind("x", x, "the model", theta)
        self.parameters, self.theta, self.x = parameters, theta.detach(), x
        self.memory = memory_limit(memory, theta.device)
        self.plan = checked_plan(parameters, self.theta, x)
        self._forward_passes: list[tuple[slice, ForwardPass]] = []  # kept for their backward passes
        self.partial = cotangents if isinstance(cotangents, PartialCotangents) else None
        self.cotangents = None if self.partial is not None else self._require_cotangents(cotangents)
        self.rows_per_example = 1 if self.cotangents is None else self.cotangents.shape[1]
        self.n = len(x) * self.rows_per_example
        self._first_example: Capture | None = None

    def cotangent(self, index: int) -> GradientSource:
        """Return the gradients for one of several cotangents: one row an example."""
        return GradientSource(self.parameters, self.theta, self.x, self.cotangents[:, index], memory=self.memory)

    def first_example(self) -> Capture:
        """Return the rows of the first example."""
        if self._first_example is None:
            self._first_example = self._capture_of(slice(0, 1))
        return self._first_example

    @property
    def row_bytes(self) -> int:
        """The bytes of one captured row."""
        return self.first_example().row_bytes

    @property
    def working_bytes(self) -> int:
        """The bytes of temporary numbers that one row takes in a product with the most expensive block."""
        return self.first_example().working_bytes

    def tile(self, start: int, stop: int) -> Capture:
        """Return some rows, whole examples, by as many passes as the memory asks for."""
        k = self.rows_per_example
        passes, self._forward_passes = self._forward_passes, []
        if passes and (start, stop) == (0, self.n):
            parts = (self._capture_after(forward, examples) for examples, forward in _popped(passes))
        else:
            size = max(1, min(MAX_PASS, self.memory // 4 // (PASS_BYTES * k * self.row_bytes)))
            parts = (
                self._capture_of(slice(start // k + s.start, start // k + s.stop))
                for s in slices((stop - start) // k, size)
            )
        return _concatenated(parts, stop - start)

    def cached(self, memory: int) -> Capture | GradientSource:
        """Return all rows captured if they fit into the memory, else itself."""
        return self.tile(0, self.n) if self.n * self.row_bytes <= memory else self

    def _cotangents_of(self, forward: ForwardPass, examples: slice) -> Float[Tensor, "e k C"]:
        if self.partial is None:
            return self.cotangents[examples]
        outputs = forward.outputs.detach()
        found = require_tensor("cotangents", self.partial.of(outputs, examples)).detach()
        require_shape("cotangents", found, list(outputs.shape), meaning="(examples, then outputs)")
        return require_finite("cotangents", require_same_kind("cotangents", found, "the model", self.theta))[:, None]

    def _require_cotangents(self, cotangents: Cotangents) -> Float[Tensor, "e k C"]:
        size = max(1, min(MAX_PASS, self.memory // (64 * self.x[0].nbytes)))
        parts = slices(len(self.x) if callable(cotangents) else 1, size)
        outputs = self._recorded_outputs(parts) if callable(cotangents) else None
        if outputs is None:
            outputs = [self._outputs(self.x[part]) for part in parts]
        C = outputs[0].shape[1]
        value = require_tensor("cotangents", cotangents(torch.cat(outputs)) if callable(cotangents) else cotangents)
        several = value.ndim == 3
        shape = [len(self.x), None, C] if several else [len(self.x), C]
        require_shape("cotangents", value, shape, meaning="(examples, then outputs; or [examples, k, outputs])")
        if several and value.shape[1] == 0:
            raise ValueError("cotangents holds none for each example; pass at least one, [examples, k >= 1, outputs].")
        require_same_kind("cotangents", value, "the model", self.theta)
        return require_finite("cotangents", value.detach() if several else value.detach()[:, None])

    def _recorded_outputs(self, parts: list[slice]) -> list[Tensor] | None:
        """Return the outputs, with their passes kept for the backward half; None where that needs too much memory."""
        if self.plan.fallback or len(self.x) > 2**16:
            return None
        for part in parts:
            forward = self._forward_pass(part)
            if len(parts) * PASS_BYTES * forward.nbytes > self.memory // 4 or not forward.calls:
                self._forward_passes = []
                return None
            self._forward_passes.append((part, forward))
        return [
            require_outputs(lambda x, forward=forward: forward.outputs, self.x[part], "x").detach()
            for part, forward in self._forward_passes
        ]

    def _outputs(self, x: Tensor) -> Tensor:
        return require_outputs(lambda part: self.parameters.outputs(self.theta, part), x, "x")

    def _forward_pass(self, examples: slice) -> ForwardPass:
        x, plan = self.x[examples], self.plan
        return forward_pass(self.parameters, self.theta, x, plan.layers, repeated=plan.repeated)

    def _capture_of(self, examples: slice) -> Capture:
        forward = self._forward_pass(examples)
        require_outputs(lambda x: forward.outputs, self.x[examples], "x")
        return self._capture_after(forward, examples)

    def _capture_after(self, forward: ForwardPass, examples: slice) -> Capture:
        """Return the rows of some examples, by the backward half of their pass."""
        x, cotangents = self.x[examples], self._cotangents_of(forward, examples)
        calls = forward.backward(cotangents)
        fallback = []
        if self.plan.fallback:
            spans = [flat_slices(self.parameters)[name] for name in self.plan.fallback]
            rows = per_example_gradients(self.parameters, self.theta, x, cotangents, self.plan.fallback)
            fallback = list(zip(spans, rows.split([span.stop - span.start for span in spans], dim=1), strict=True))
        blocks = gradient_blocks(self.plan, calls, rows_per_example=self.rows_per_example, fallback=fallback)
        return Capture(tuple(blocks), self.theta, len(x) * self.rows_per_example, self.rows_per_example)


def _popped(pending: list) -> Iterator:
    """Yield the items of a list and remove them, so that each is freed after its use."""
    while pending:
        yield pending.pop(0)


def _concatenated(parts: Iterator[Capture], n: int) -> Capture:
    """Return the n rows of several captures below each other; each is copied and freed at once."""
    first = next(parts)
    if first.n == n:
        return first
    buffers = [
        [t.new_empty(len(t) * n // first.n, *t.shape[1:]) for t in block.tensors()] for block in first.blocks
    ]  # fmt: skip
    filled = 0
    for part in chain([first], parts):
        for block, buffer in zip(part.blocks, buffers, strict=True):
            for t, target in zip(block.tensors(), buffer, strict=True):
                start = filled * len(t) // part.n
                target[start : start + len(t)] = t
        filled += part.n
    blocks = tuple(block.with_tensors(buffer) for block, buffer in zip(first.blocks, buffers, strict=True))
    return Capture(blocks, first.theta, n, first.rows_per_example)


def gradients(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Cotangents,
    *,
    memory: int | float | None = None,
) -> GradientSource:
    """Return the gradients of c_i . f(x_i), captured tile by tile when they are needed.

    Args:
        parameters: see ``GradientSource``, like all others.
        theta: where the gradients are taken.
        x: e examples.
        cotangents: c.
        memory: bytes of one pass and of the rows in memory.
    """
    with compute.settings(len(x) * parameters.theta.numel()):
        return GradientSource(parameters, theta, x, cotangents, memory=memory)


def capture(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Cotangents,
    *,
    memory: int | float | None = None,
) -> Capture:
    """Return the gradients of c_i . f(x_i) as layer inputs and output gradients, all in memory.

    Args:
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: inputs.
        cotangents: c, as for ``GradientSource``.
        memory: bytes of one pass and of all rows; None is a quarter of what is free.

    Raises:
        ValueError: more than the memory; ``gradients`` recomputes them tile by tile instead.
    """
    with compute.settings(len(x) * parameters.theta.numel()):
        source = GradientSource(parameters, theta, x, cotangents, memory=memory)
        needed = source.n * source.row_bytes
        if needed > source.memory:
            raise ValueError(
                f"the layers of {source.n} rows take {format_bytes(needed)}, more than "
                f"memory={format_bytes(source.memory)}; "
                "use gradients(...), which captures tile by tile, or raise memory."
            )
        return source.tile(0, source.n)

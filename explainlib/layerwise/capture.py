"""What one forward and backward pass knows about the gradients of n examples, kept or made again tile by tile.

The gradient of example i is that of c_i . f(x_i) in the chosen parameters: with c = dl/df it is the loss gradient, with
a one-hot c that of one output, with ones that of their sum. Several cotangents an example give several rows, the
example's rows next to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_finite, require_same_kind, require_shape, require_tensor
from explainlib.layerwise.fallback import formed_rows
from explainlib.layerwise.pieces import Piece, pieces_of
from explainlib.layerwise.plan import places
from explainlib.layerwise.positions import slices
from explainlib.layerwise.recording import Call, Watched, watched
from explainlib.layerwise.trial import plan_of
from explainlib.memory import format_bytes, memory_limit
from explainlib.params import Parameters, require_outputs

Cotangents = Tensor | Callable[[Tensor], Tensor]
PASS = 512  # examples in one forward and backward pass, at most
ACTIVATIONS = 4  # bytes of a pass per byte that is kept of it


@dataclass(frozen=True)
class Capture:
    """The gradients of n rows as layer inputs and output gradients, all in memory.

    Args:
        pieces: the gradients of each weight.
        theta: the parameters they were taken at.
        n: rows.
        several: rows an example.
    """

    pieces: tuple[Piece, ...]
    theta: Float[Tensor, " p"]
    n: int
    several: int

    @property
    def row_bytes(self) -> int:
        """The bytes that one row keeps."""
        return -(-sum(piece.held() for piece in self.pieces) // self.n)

    @property
    def working_bytes(self) -> int:
        """The bytes that one row takes while its most expensive weight is worked with, beside those kept."""
        return max((piece.working() for piece in self.pieces), default=0)

    def tile(self, start: int, stop: int) -> Capture:
        """Return some rows, whole examples, as views."""
        pieces = tuple(piece.part(slice(start, stop)) for piece in self.pieces)
        return self if (start, stop) == (0, self.n) else Capture(pieces, self.theta, stop - start, self.several)

    def held(self, memory: int) -> Capture:
        """Return itself: it is in memory already."""
        return self

    def one(self) -> Capture:
        """Return the rows of the first example."""
        return self.tile(0, self.several)


class GradientSource:
    """The gradients of n rows, captured a tile at a time when they are needed.

    Args:
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: e examples.
        cotangents: c [e, C], several of them [e, k, C], or a function from the outputs [e, C] to either.
        memory: bytes of one pass and of what is held; None is a quarter of what is free.

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
        memory: int | None = None,
    ) -> None:
        p = parameters.theta.numel()
        require_shape("theta", require_tensor("theta", theta), [p], meaning="(the chosen parameters, flattened)")
        require_same_kind("theta", theta, "the model", parameters.theta)
        if len(require_tensor("x", x)) == 0:
            raise ValueError("x holds no examples; pass at least one.")
        require_same_kind("x", x, "the model", theta)
        self.parameters, self.theta, self.x = parameters, theta.detach(), x
        self.memory = memory_limit(memory, theta.device)
        self.plan = plan_of(parameters, self.theta, x)
        self._forward: list[tuple[slice, Watched]] = []  # passes that wait for their cotangents
        self.cotangents = self._require_cotangents(cotangents)
        self.several = self.cotangents.shape[1]
        self.n = len(x) * self.several
        self._one: Capture | None = None

    def cotangent(self, at: int) -> GradientSource:
        """Return the gradients for one of several cotangents: one row an example."""
        return GradientSource(self.parameters, self.theta, self.x, self.cotangents[:, at], memory=self.memory)

    def one(self) -> Capture:
        """Return the rows of the first example."""
        if self._one is None:
            self._one = self._passed(slice(0, 1))
        return self._one

    @property
    def row_bytes(self) -> int:
        """The bytes that one captured row keeps."""
        return self.one().row_bytes

    @property
    def working_bytes(self) -> int:
        """The bytes that one row takes while its most expensive weight is worked with, beside those kept."""
        return self.one().working_bytes

    def tile(self, start: int, stop: int) -> Capture:
        """Return some rows, whole examples, by as many passes as the memory asks for."""
        k = self.several
        forward, self._forward = self._forward, []
        if forward and (start, stop) == (0, self.n):
            parts = (self._captured(rows, past.calls(self.cotangents[rows])) for rows, past in _taken(forward))
        else:
            size = max(1, min(PASS, self.memory // 4 // (ACTIVATIONS * k * self.row_bytes)))
            parts = (
                self._passed(slice(start // k + s.start, start // k + s.stop))
                for s in slices((stop - start) // k, size)
            )
        return _joined(parts, stop - start)

    def held(self, memory: int) -> Capture | GradientSource:
        """Return all rows captured if they fit into the memory, else itself."""
        return self.tile(0, self.n) if self.n * self.row_bytes <= memory else self

    def _require_cotangents(self, cotangents: Cotangents) -> Float[Tensor, "e k C"]:
        size = max(1, min(PASS, self.memory // (64 * self.x[0].nbytes)))
        parts = slices(len(self.x) if callable(cotangents) else 1, size)
        outputs = self._watched(parts) if callable(cotangents) else None
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

    def _watched(self, parts: list[slice]) -> list[Tensor] | None:
        """Return the outputs, their passes kept for the backward half; None where that asks for too much memory."""
        if self.plan.fallback or len(self.x) > 2**16:
            return None
        for part in parts:
            past = watched(self.parameters, self.theta, self.x[part], self.plan.layers)
            if len(parts) * ACTIVATIONS * past.nbytes > self.memory // 4 or not past.seen:
                self._forward = []
                return None
            self._forward.append((part, past))
        return [
            require_outputs(lambda x, past=past: past.outputs, self.x[part], "x").detach()
            for part, past in self._forward
        ]

    def _outputs(self, x: Tensor) -> Tensor:
        return require_outputs(lambda part: self.parameters.outputs(self.theta, part), x, "x")

    def _passed(self, examples: slice) -> Capture:
        past = watched(self.parameters, self.theta, self.x[examples], self.plan.layers)
        require_outputs(lambda x: past.outputs, self.x[examples], "x")
        return self._captured(examples, past.calls(self.cotangents[examples]))

    def _captured(self, examples: slice, calls: list[Call]) -> Capture:
        x, cotangents = self.x[examples], self.cotangents[examples]
        formed = []
        if self.plan.fallback:
            at = [places(self.parameters)[name] for name in self.plan.fallback]
            rows = formed_rows(self.parameters, self.theta, x, cotangents, self.plan.fallback)
            formed = list(zip(at, rows.split([place.stop - place.start for place in at], dim=1), strict=True))
        pieces = pieces_of(self.plan, calls, several=self.several, formed=formed)
        return Capture(tuple(pieces), self.theta, len(x) * self.several, self.several)


def _taken(waiting: list) -> Iterator:
    """Yield what is in a list and let go of it, so that it is freed once it is used."""
    while waiting:
        yield waiting.pop(0)


def _joined(parts: Iterator[Capture], n: int) -> Capture:
    """Return the n rows of several captures below each other; each is copied to its place and freed at once."""
    first = next(parts)
    if first.n == n:
        return first
    rooms = [
        [t.new_empty(len(t) * n // first.n, *t.shape[1:]) for t in piece.tensors()] for piece in first.pieces
    ]  # fmt: skip
    done = 0
    for part in chain([first], parts):
        for piece, room in zip(part.pieces, rooms, strict=True):
            for t, to in zip(piece.tensors(), room, strict=True):
                at = done * len(t) // part.n
                to[at : at + len(t)] = t
        done += part.n
    pieces = tuple(piece.holding(room) for piece, room in zip(first.pieces, rooms, strict=True))
    return Capture(pieces, first.theta, n, first.several)


def gradients(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Cotangents,
    *,
    memory: int | None = None,
) -> GradientSource:
    """Return the gradients of c_i . f(x_i), captured tile by tile when they are needed.

    Args:
        parameters: see ``GradientSource``, like all others.
        theta: where the gradients are taken.
        x: e examples.
        cotangents: c.
        memory: bytes.
    """
    with compute.settings(len(x) * parameters.theta.numel()):
        return GradientSource(parameters, theta, x, cotangents, memory=memory)


def capture(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Cotangents,
    *,
    memory: int | None = None,
) -> Capture:
    """Return the gradients of c_i . f(x_i) as layer inputs and output gradients, kept; arguments as before.

    Args:
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: inputs.
        cotangents: c, as for ``GradientSource``.
        memory: bytes of a work array.

    Raises:
        ValueError: more than the memory; ``gradients`` makes them again tile by tile instead.
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

"""What a kernel does, step by step: Triton's interpreter runs the fused Gram and tells of each load, product and store.

The interpreter is chosen when Triton is imported, so a process of its own runs the kernel: the answer is the same on a
machine with a GPU and on one without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import NamedTuple

import torch

from explainlib.checks import require_count
from explainlib.kernels import gram_triton

WATCHED = ("load", "product", "store")
SECONDS = 120  # after which small shapes are none


class Step(NamedTuple):
    """One step of one program.

    Attributes:
        program: its number.
        action: "load" or "store" of a tile, or "product" of two.
        shape: of the tile; of a product rows, columns and the width summed over.
        numbers: really read or written, padding left out; of a product its flops, padding included.
    """

    program: int
    action: str
    shape: tuple[int, ...]
    numbers: int


def gram_steps(n: int, P: int, d: int, o: int) -> list[Step]:
    """Return all steps of the fused Gram of n examples with themselves, in float32, in the order of the interpreter.

    Args:
        n: examples.
        P: positions of each.
        d: width of the inputs.
        o: width of the output gradients.

    Raises:
        RuntimeError: there is no Triton, or its interpreter fails; the message says what to do.
        ValueError: a size below one.
    """
    sizes = [require_count(name, value) for name, value in (("n", n), ("P", P), ("d", d), ("o", o))]
    command = [sys.executable, "-m", "explainlib.kernels.report.steps", *map(str, sizes)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"Triton's interpreter cannot run here ({last}): pip install 'explainlib[cuda]'.")
    return [Step(program, action, tuple(shape), numbers) for program, action, shape, numbers in json.loads(told.stdout)]


def totals(steps: list[Step]) -> dict[str, int]:
    """Return numbers read, numbers written and flops of all steps together."""
    found = Counter()
    for step in steps:
        found[step.action] += step.numbers
    return {"read": found["load"], "written": found["store"], "flops": found["product"]}


def watched(n: int, P: int, d: int, o: int) -> list[Step]:
    """Return the steps of a launch in this process, whose Triton interprets."""
    from triton.runtime.interpreter import InterpreterBuilder

    found: list[Step] = []

    def watch(action: str, name: str) -> None:
        plain = getattr(InterpreterBuilder, name)

        def told(self: InterpreterBuilder, *given: object) -> object:
            found.append(_step(self.grid_idx[0], action, given))
            return plain(self, *given)

        setattr(InterpreterBuilder, name, told)

    for action, name in zip(WATCHED, ("create_masked_load", "create_dot", "create_masked_store"), strict=True):
        watch(action, name)
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(1, n, P, width, generator=generator) for width in (d, o))
    gram_triton.launch(a, g, a, g, symmetric=True, precision="ieee")
    return found


def _step(program: int, action: str, given: tuple) -> Step:
    if action == "product":
        (rows, width), columns = given[0].data.shape, given[1].data.shape[1]
        return Step(program, action, (rows, columns, width), 2 * rows * columns * width)
    mask = given[1 if action == "load" else 2].data
    return Step(program, action, tuple(mask.shape), int(mask.sum()))


if __name__ == "__main__":
    print(json.dumps(watched(*map(int, sys.argv[1:]))))

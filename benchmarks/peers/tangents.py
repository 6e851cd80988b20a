"""Kernels of gradients beside what everybody writes first: gradients one by one, or all in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

import explainlib as xl
from benchmarks.peers import problems
from benchmarks.peers.race import OWN, Action, Bar, Problem, Race, Side

OUTPUT, CHUNK = 0, 250


def own(problem: Problem) -> Action:
    """Return explainlib's call; the harness's first call is not timed, so this is the second."""
    return lambda: xl.representers.kernel(problem["model"], problem["x"], problem["z"], output=OUTPUT)


def one_by_one(problem: Problem) -> Action:
    """Return a backward pass an example, and one product."""
    model = problem["model"]
    parameters = list(model.parameters())

    def rows(x: Tensor) -> Tensor:
        found = []
        for one in x:
            parts = torch.autograd.grad(model(one[None])[0, OUTPUT], parameters)
            found.append(torch.cat([part.reshape(-1) for part in parts]))
        return torch.stack(found)

    return lambda: rows(problem["x"]) @ rows(problem["z"]).T


def materialised(problem: Problem) -> Action:
    """Return all gradients by vmap, in memory, and one product."""
    model = problem["model"]
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def of_one(values: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, values, (x[None],))[0, OUTPUT]

    def run() -> Tensor:
        rows = vmap(grad(of_one), in_dims=(None, 0), chunk_size=CHUNK)(parameters, problem["z"])
        flat = torch.cat([part.flatten(1) for part in rows.values()], dim=1)
        del rows
        return flat @ flat.T

    return run


def pictures(n: int) -> Problem:
    """Return the convolutional network of 93,962 parameters and n digits of 28 x 28, as both sides of the kernel."""
    z = problems.digits(n, 1)[0].x
    model = xl.models.cnn3(1, 10, dtype=torch.float32)
    return {"model": model, "z": z, "x": z} | problems.told(model)


KERNEL = Race(
    name="kernel",
    title="NTK of a transformer of 8 layers, second call, float32",
    problem=problems.transformer,
    sides=(
        Side(OWN, "`kernel(model, x, z, output=0)`", own),
        Side("PyTorch", "`autograd.grad` example by example, one product", one_by_one, Bar(2.0)),
    ),
    full={"layers": 8, "width": 64, "tokens": 200, "length": 16, "n": 64, "tests": 8},
    quick={"layers": 1, "width": 8, "tokens": 20, "length": 4, "n": 6, "tests": 3},
    facts="No library here has such a kernel; beside it stands the loop it replaces.",
)
NTK = Race(
    name="ntk",
    title="n x n NTK of a convolutional network of 93,962 parameters, float32",
    problem=pictures,
    sides=(
        Side(OWN, "`kernel(model, z, z, output=0)`", own),
        Side("PyTorch", f"`vmap(grad)` in chunks of {CHUNK}, all gradients in memory", materialised, Bar(2.0)),
    ),
    full={"n": 5000},
    quick={"n": 30},
    runs=1,
    facts="No library here has such a kernel; beside it stands what needs the gradients in memory.",
)

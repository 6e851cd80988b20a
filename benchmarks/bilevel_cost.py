"""What bilevel influence costs by size and route: seconds, peak memory, and error against the exact curvature.

``python -m benchmarks.bilevel_cost`` runs every row in a process of its own and prints a table. Rows: the proximal
problem of 185 parameters (softmax), 1,349 (one hidden layer), 7,205 and 111,749 (Conv4 with 16 and 64 filters, tanh and
mean pooling), at the first weights, with an outer ridge that makes S positive definite there;
for the largest the head problem too. Routes:

    exact    S as a matrix, dense inner Hessians (small only)
    cg       the same S by conjugate gradients, relative residual 1e-3, inner solves by conjugate gradients
    paper    EK-FAC inside, Gamma outside, Neumann series (Ren et al., Algorithms 1, 3 and 4)

Errors are of the influence of the first two tasks, |found - exact| / |exact|, and its cosine, against the exact route,
or against cg where that does not fit.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import explainlib as xl
from explainlib.datasets import Tasks
from explainlib.influence import BilevelInfluence
from explainlib.meta import Bilevel

STRENGTH, SHOTS, WAYS, RESIDUAL = 20.0, 5, 5, 1e-3
MODELS = {
    185: lambda: xl.models.logistic(36, WAYS, dtype=torch.float64),
    1349: lambda: xl.models.mlp([36, 32, WAYS], "tanh", dtype=torch.float64),
    7205: lambda: conv4(16),
    111749: lambda: conv4(64),
}
ROUTES = {
    "exact": {"solver": "dense"},
    "cg": {"solver": "cg", "tolerance": RESIDUAL},
    "paper": {"hessian": "gamma", "solver": "neumann", "inner_hessian": "ekfac"},
}
PLAN = [(185, 60, "exact"), (185, 60, "cg"), (185, 60, "paper"), (185, 1000, "exact"), (185, 1000, "cg")]
PLAN += [(1349, 60, "exact"), (1349, 60, "cg"), (1349, 60, "paper"), (1349, 1000, "paper")]
PLAN += [(7205, 60, "cg"), (7205, 60, "paper"), (111749, 60, "cg"), (111749, 60, "paper")]
PLAN = [("proximal", *row) for row in PLAN]
PLAN += [("head", 111749, 60, "cg"), ("head", 111749, 60, "paper")]  # lambda is all below the last layer


def conv4(filters: int) -> nn.Module:
    """Return Conv4 without BatchNorm, smooth, in float32."""
    options = {"norm": False, "activation": nn.Tanh, "pooling": nn.AvgPool2d, "dtype": torch.float32}
    return xl.models.cnn4(1, 28, WAYS, filters=filters, **options)


def random_tasks(parameters: int, count: int) -> Tasks:
    """Return tasks of five overlapping classes, vectors or pictures."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 28, 28) if parameters > 5000 else (36,)
    centres = torch.randn(count, WAYS, 1, *shape, generator=generator)

    def part() -> tuple[Tensor, Tensor]:
        x = centres + 2 * torch.randn(count, WAYS, SHOTS, *shape, generator=generator)
        return x.flatten(1, 2) / 4, torch.arange(WAYS).repeat_interleave(SHOTS).expand(count, -1)

    tasks = Tasks(*part(), *part())
    return tasks.double() if parameters < 5000 else tasks


def measure(inner_problem: str, parameters: int, count: int, route: str, folder: Path) -> dict[str, object]:
    """Return a row: the influence of all tasks for "exact" and "paper", of two for "cg"; kept for the comparison."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tasks, inner = random_tasks(parameters, count), "dense" if route == "exact" else "auto"
    options = {"inner": inner_problem, "inner_solver": inner}
    learner = Bilevel(MODELS[parameters](), strength=STRENGTH, l2=10.0 * count, **options)
    started = time.perf_counter()
    influence = BilevelInfluence(learner, learner.lam0, tasks, **ROUTES[route])
    ready = time.perf_counter() - started
    rhs = influence.gradients[:2] if route == "cg" else influence.gradients
    found = -influence._outer.solve(rhs, influence.hessian)
    row = {
        "problem": inner_problem,
        "parameters": parameters,
        "tasks": count,
        "route": route,
        "rows": len(rhs),
        "seconds": ready,
    }
    row["seconds_all"] = time.perf_counter() - started
    row |= {"steps": influence.solution.steps, "residual": float(influence.solution.residual.max())}
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    torch.save(found[:2], folder / f"{inner_problem}-{parameters}-{count}-{route}.pt")
    for other in ("exact", "cg"):
        path = folder / f"{inner_problem}-{parameters}-{count}-{other}.pt"
        if other != route and path.is_file():
            want = torch.load(path, weights_only=True).double()
            row |= {"against": other, "error": float((found[:2].double() - want).norm() / want.norm())}
            row["cosine"] = float(torch.nn.functional.cosine_similarity(found[:2].double(), want, dim=1).mean())
            break
    return row


def main() -> None:
    """Run the plan, or one row of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bilevel_cost")
    parser.add_argument("--row", nargs=4)
    parser.add_argument("--folder", type=Path, default=Path("results/bilevel-cost"))
    parser.add_argument("--most", type=int, default=111749, help="parameters")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.row:
        problem, parameters, count, route = options.row
        print(json.dumps(measure(problem, int(parameters), int(count), route, options.folder)), flush=True)
        return
    for problem, parameters, count, route in PLAN:
        if parameters <= options.most:
            command = [sys.executable, "-m", "benchmarks.bilevel_cost", "--folder", str(options.folder)]
            done = subprocess.run(
                [*command, "--row", problem, str(parameters), str(count), route], capture_output=True, text=True
            )
            said = done.stdout.strip() or (done.stderr.strip().splitlines() or ["no output"])[-1]
            print(said if done.returncode == 0 else f"{problem} {parameters} {count} {route}: {said[:300]}", flush=True)


if __name__ == "__main__":
    main()

"""The steps of ``benchmarks.gpu``: each takes a device, sizes and a route ("triton", "torch") and returns a record."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable

import torch

import explainlib as xl
from benchmarks.cnn_tasks import learner_of, random_tasks
from explainlib.curvature import ekfac
from explainlib.datasets import Examples, Tasks, class_pool, sample_tasks
from explainlib.kernels import comparisons, reference, self_check, timing
from explainlib.kernels.groups import group_hessians
from explainlib.kernels.moments import linear_moments
from explainlib.kernels.report import GPUS, work
from explainlib.kernels.timing import Layer, bytes_per_millisecond, milliseconds, synchronise

TINY = {
    "layers": (Layer("tiny", 3, 2, 4, 2),), "groups": (work.Groups("tiny", 3, 2, 6, 3, 4),),
    "moments": (work.Layer("tiny", 3, 4, 2),), "networks": 3, "epochs": 2, "tasks": 2, "filters": 2, "buffer": 8,
    "compress": 4, "widths": (6, 5, 3), "n": 12, "removals": 3, "retrained": 4,
}  # fmt: skip
FULL = {
    "layers": timing.LAYERS, "groups": work.GROUPS[:3], "moments": work.LAYERS, "networks": 3250, "epochs": 3000,
    "tasks": 64, "filters": 64, "buffer": 1024, "compress": 32, "widths": (784, 1024, 384, 10), "n": 4096,
    "removals": 100, "retrained": 1000,
}  # fmt: skip
Record = dict[str, object]


def correctness(device: str, sizes: Record, route: str) -> Record:
    """Return every comparison of a kernel with plain PyTorch in float64."""
    found = []
    for compare in (
        self_check.comparisons, comparisons.group_comparisons, comparisons.moment_comparisons,
        comparisons.perceptron_comparisons,
    ):  # fmt: skip
        new = compare(device, route=route)
        if route != "triton":  # exact symmetry is a promise of the kernels
            new = [c._replace(tolerance=max(c.tolerance, 1e-6)) for c in new]
        print(*new, sep="\n", flush=True)
        found += [{"name": c.name, "error": c.error, "allowed": c.tolerance, "passed": c.passed} for c in new]
    return {"failed": [c["name"] for c in found if not c["passed"]], "comparisons": found}


def times(device: str, sizes: Record, route: str) -> Record:
    """Return milliseconds of kernel and plain PyTorch, and the least by formula, predicted, where the GPU is known."""
    traffic = bytes_per_millisecond(device, 2**28 if device == "cuda" else 2**16)
    kernel = timing.fused if route == "triton" else lambda *x, precision: reference.layer_gram(*x)
    found = []
    for layer in sizes["layers"]:
        for dtype, precision in timing.KINDS:
            line = timing.layer_timing(layer, dtype, precision, device=device, traffic=traffic, kernel=kernel)
            found.append(_timed("layer_gram", layer.name, line.kind, line.kernel, line.plain, line.floor))
    gpu = known_gpu(device)
    for name, cases, problem, count in (
        ("group_hessians", sizes["groups"], group_problem, work.group_work),
        ("linear_moments", sizes["moments"], moment_problem, work.moment_work),
    ):
        for case in cases:
            for kind in ("float32", "float64"):
                run = problem(case, getattr(torch, kind), device)
                with xl.kernels.use(route):
                    fused = milliseconds(run, device)
                with xl.kernels.use("torch"):
                    plain = milliseconds(run, device)
                least = None if gpu is None else 1e3 * count(case, kind, plain_route=False).seconds(GPUS[gpu], kind)
                found.append(_timed(name, case.name, kind, fused, plain, least))
    return {"bytes_per_second_of_a_copy": 1e3 * traffic, "gpu": gpu, "times": found}


def _timed(kernel: str, case: str, kind: str, fused: float, plain: float, least: float | None) -> Record:
    predicted = "unknown" if least is None else f"{least:.3f}"
    numbers = f"kernel {fused:9.3f} ms, plain {plain:9.3f}, predicted floor {predicted}"
    print(f"{kernel:<16}{case:<42}{kind:<14}{numbers}", flush=True)
    row = {"kernel": kernel, "case": case, "numbers": kind, "kernel_ms": fused, "plain_ms": plain}
    return row | {"predicted_ms": least}


def known_gpu(device: str) -> str | None:
    """Return the key of ``GPUS`` that the device's name holds, or None."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((known for known in GPUS if known.split()[0] in name), None)


def normal(*shape: int, device: str, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return normal numbers, the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def group_problem(case: work.Groups, dtype: torch.dtype, device: str) -> Callable[[], object]:
    """Return a call of ``group_hessians`` of one case."""
    p, x = (normal(case.n, k, device=device, dtype=dtype, seed=k) for k in (case.C, case.d))
    drawn = torch.rand(case.groups, case.n, generator=torch.Generator().manual_seed(1)).argsort(1)[:, : case.members]
    offsets = case.members * torch.arange(case.groups + 1, device=device)
    given = p.softmax(1), x, x.new_ones(case.n), drawn.flatten().to(device), offsets
    return lambda: group_hessians(*given)


def moment_problem(case: work.Layer, dtype: torch.dtype, device: str) -> Callable[[], object]:
    """Return a call of ``linear_moments`` of one case."""
    m, v, w, s = (
        normal(rows, case.d, device=device, dtype=dtype, seed=k) for k, rows in enumerate(2 * [case.n] + 2 * [case.o])
    )
    b, t = (normal(case.o, device=device, dtype=dtype, seed=k) for k in (5, 6))
    return lambda: linear_moments(m, v.abs(), (w, s.abs()), (b, t.abs()))


def timed(device: str, run: Callable[[], object]) -> tuple[object, float]:
    """Return what a call returns, and its seconds."""
    synchronise(device)
    started = time.perf_counter()
    found = run()
    synchronise(device)
    return found, time.perf_counter() - started


def sweep(device: str, sizes: Record, route: str) -> Record:
    """Return the seconds of the fragility sweep's training, 4-5-3 on iris, by the kernel and by the batched route."""
    train, found = xl.datasets.load("iris").train, {}
    for dtype in (torch.float32, torch.float64):
        network, kind = xl.models.mlp([4, 5, 3], "relu").to(device, dtype), str(dtype).removeprefix("torch.")
        data = Examples(train.x.to(device, dtype), train.y.to(device))
        starts = xl.training.fresh_starts(xl.Risk(network, data), range(sizes["networks"]))
        weights, ended = torch.ones(len(starts), len(data), device=device, dtype=dtype), {}
        for name, chosen in (("kernel", route), ("batched", "torch")):
            fit = functools.partial(_fitted, chosen, network, data, starts, weights)
            fit(2)  # compiled once
            ended[name], found[f"{kind} {name}"] = timed(device, functools.partial(fit, sizes["epochs"]))
            what = f"sweep, {len(starts)} networks, {sizes['epochs']} epochs, {kind}, {name}"
            print(f"{what}: {found[f'{kind} {name}']:.2f} s", flush=True)
        apart = (ended["kernel"] - ended["batched"]).norm() / (ended["batched"] - starts).norm()
        found[f"{kind} apart, of the way gone"] = float(apart)
    return found


def _fitted(
    route: str, network: torch.nn.Module, data: Examples, starts: torch.Tensor, weights: torch.Tensor, epochs: int
) -> torch.Tensor:
    options = {"starts": starts, "weights": weights, "epochs": epochs, "lr": 1e-3, "l2": 5e-3}
    with xl.kernels.use(route):
        return xl.training.fit_ensemble(network, data, **options).theta


def omniglot_tasks(count: int) -> tuple[Tasks, str]:
    """Return tasks of 5 ways with 5 + 5 pictures each, and whether they are Omniglot's or, without it, random."""
    try:
        return sample_tasks(class_pool("omniglot"), count), "Omniglot"
    except (OSError, RuntimeError, ValueError) as error:
        print(f"random pictures in place of Omniglot: {str(error)[:150]}", flush=True)
        return random_tasks(count, 1, 28), "random pictures"


def gauss_newton(device: str, sizes: Record, route: str) -> Record:
    """Return the seconds of Gauss-Newton task influence of a convolutional MAML on Omniglot, or on random pictures."""
    tasks, source = omniglot_tasks(sizes["tasks"])
    learner = learner_of(1, 28, sizes["filters"])
    learner = xl.meta.Maml(learner.model_at(learner.w0).to(device), inner_lr=0.1)
    tasks = Tasks(*(getattr(tasks, k).to(device) for k in ("support_x", "support_y", "query_x", "query_y")))
    options = {"curvature": "gauss_newton", "buffer": sizes["buffer"], "compress": sizes["compress"]}
    with warnings.catch_warnings(), xl.kernels.use("auto" if route == "triton" else "torch"):
        warnings.simplefilter("ignore")  # the learner is not at a minimum, which a time does not ask for
        influence, built = timed(device, lambda: xl.influence.TaskInfluence(learner, learner.w0, tasks, **options))
        scores, scored = timed(device, lambda: influence.performance(tasks[:4]))
    what = f"Gauss-Newton, {learner.q:,} parameters, {sizes['tasks']} tasks ({source})"
    print(f"{what}: {built:.1f} s, then {scored:.1f} s", flush=True)
    found = {"tasks": source, "parameters": learner.q, "buffer_seconds": built, "score_seconds": scored}
    return found | {"finite": bool(torch.isfinite(scores).all())}


def random_risk(device: str, widths: tuple[int, ...], n: int, dtype: torch.dtype) -> xl.Risk:
    """Return a perceptron's risk on random examples."""
    x = normal(n, widths[0], device=device, dtype=dtype)
    network = xl.models.mlp(list(widths), "relu").to(device, dtype)
    return xl.Risk(network, Examples(x, x[:, : widths[-1]].argmax(1)), l2=1e-2)


def ekfac_step(device: str, sizes: Record, route: str) -> Record:
    """Return the seconds of EK-FAC influence of a perceptron of 1.2 M parameters."""
    risk = random_risk(device, sizes["widths"], sizes["n"], torch.float32)
    test = Examples(risk.train.x[:8], risk.train.y[:8])
    with warnings.catch_warnings(), xl.kernels.use("auto" if route == "triton" else "torch"):
        warnings.simplefilter("ignore")  # the network is not at a minimum, which a time does not ask for
        fitted, factors = timed(device, lambda: ekfac.Ekfac(risk))
        scores, scored = timed(device, lambda: xl.influence.loss_influence(risk, test, curvature=fitted, damping=1e-3))
    print(f"EK-FAC, {risk.p:,} parameters, {risk.n:,} examples: {factors:.1f} s, then {scored:.1f} s", flush=True)
    finite = bool(torch.isfinite(scores).all())
    return {"parameters": risk.p, "fit_seconds": factors, "score_seconds": scored, "finite": finite}


def panel(device: str, sizes: Record, route: str) -> Record:
    """Return the seconds of what a removal panel does for many groups: predict, then retrain."""
    train = xl.datasets.load("digits").train[: sizes["retrained"]]
    data = Examples(train.x.to(device, torch.float64).flatten(1), train.y.to(device))
    model = xl.models.logistic(data.x.shape[1], 10).to(device, torch.float64)
    risk = xl.training.minimise(xl.Risk(model, data, l2=1e-2))
    groups = [[k] for k in range(sizes["removals"])]
    with xl.kernels.use("auto" if route == "triton" else "torch"):
        step, predicted = timed(device, lambda: xl.influence.removal_effect(risk, groups, order="newton"))
        truth, retrained = timed(device, lambda: xl.retraining.leave_out(risk, groups))
    what = f"panel, {risk.p} parameters, {len(groups)} removals"
    print(f"{what}: Newton steps {predicted:.2f} s, retraining {retrained:.2f} s", flush=True)
    apart = float((step.change - truth.change).norm() / truth.change.norm())
    return {"newton_seconds": predicted, "retraining_seconds": retrained, "apart": apart}


STEPS = {
    "correctness": correctness, "times": times, "sweep": sweep, "gauss_newton": gauss_newton, "ekfac": ekfac_step,
    "panel": panel,
}  # fmt: skip

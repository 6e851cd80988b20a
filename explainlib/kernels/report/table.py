"""The report as two tables: what each build takes, and the least time of each operation beside the plain route's."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import torch

from explainlib.kernels import build
from explainlib.kernels.groups import build_groups
from explainlib.kernels.moments import build_moments
from explainlib.kernels.perceptrons import build_perceptrons, programs
from explainlib.kernels.report import work
from explainlib.kernels.report.resources import occupancy, resources
from explainlib.kernels.report.roofline import GPUS, LAUNCH_COSTS, Work, gram_work, issue_seconds, perceptron_work
from explainlib.kernels.timing import LAYERS

Row = dict[str, str | int | float]
PERCEPTRONS = (  # widths, numbers, networks, examples, steps of the row of times
    ((4, 5, 3), "float32", 3250, 120, 3000),
    ((4, 5, 3), "float64", 3250, 120, 3000),
    ((4, 20, 3), "float64", 250, 120, 3000),
    ((36, 32, 5), "float32", 1000, 100, 1000),
    ((64, 32, 10), "float32", 500, 500, 1000),
)
REPORTED = ("", "aligned")  # layouts of the Gram in the table; the tests build all of them


def gram_builds() -> Iterator[Row]:
    """Yield a row for each kind of numbers, layout and architecture of the fused Gram."""
    for kind, options in build.KINDS.items():
        for layout in REPORTED:
            for sm in build.TARGETS:
                code = build.build(sm, **options, **build.LAYOUTS[layout])
                yield build_row("layer_gram", "tile 64 x 64", kind, layout or "any", sm, code)


def build_row(kernel: str, shape: str, kind: str, layout: str, sm: int, code: dict[str, str | bytes | int]) -> Row:
    """Return what one build takes, as a row.

    Args:
        kernel: the operation's name.
        shape: what the build is for.
        kind: of numbers.
        layout: of memory.
        sm: compute capability times ten.
        code: of ``build.build``.
    """
    taken = resources(code)
    return {
        "kernel": kernel, "shape": shape, "numbers": kind, "layout": layout, "sm": sm,
        "registers": taken.registers, "spilled_bytes": taken.spills, "shared_bytes": taken.shared,
        "warps": taken.warps, "occupancy": round(occupancy(taken, sm), 4), "instructions": taken.instructions,
    }  # fmt: skip


def gram_times() -> Iterator[Row]:
    """Yield a row for each layer of ``timing.LAYERS``, kind of numbers and GPU."""
    for layer in LAYERS:
        for kind in ("float32", "float32 tf32", "bfloat16", "float64"):
            fused, plain = (gram_work(layer.n, layer.P, layer.d, layer.o, kind, plain=route) for route in (False, True))
            for gpu in GPUS:
                yield time_row("layer_gram", f"{layer.name}, n {layer.n}", kind, gpu, fused, plain)


def perceptron_builds() -> Iterator[Row]:
    """Yield a row for each network of ``PERCEPTRONS`` and architecture, with Adam, falling rates and full batches."""
    for widths, kind, *_ in PERCEPTRONS:
        for sm in build.TARGETS:
            code = build_perceptrons(sm, widths, getattr(torch, kind))
            yield build_row("trained_perceptrons", "-".join(map(str, widths)), kind, "any", sm, code)


def perceptron_times(builds: list[Row]) -> Iterator[Row]:
    """Yield a row for each network of ``PERCEPTRONS`` and GPU.

    Args:
        builds: rows of ``perceptron_builds``; every instruction of a build counts once for each block of examples,
            which is more than is executed.
    """
    taken = {(row["shape"], row["numbers"], int(row["sm"])): row for row in builds}
    for widths, kind, m, n, steps in PERCEPTRONS:
        name = "-".join(map(str, widths))
        for gpu, device in GPUS.items():
            row, (block, warps) = taken[name, kind, device.sm], programs(widths, getattr(torch, kind))
            works = [
                perceptron_work(widths, n, m, steps, kind, plain=plain, cache=device.cache) for plain in (False, True)
            ]
            issue = issue_seconds(device, m, warps, steps * -(-n // block) * int(row["instructions"]))
            shape = f"{name}, {m} networks, {n} examples, {steps} steps"
            yield time_row("trained_perceptrons", shape, kind, gpu, *works, issue)


def product_builds() -> Iterator[Row]:
    """Yield a row for each kind of numbers and architecture of the Hessians of groups and the moments of layers."""
    for kind in work.KINDS:
        dtype, precision = work.numbers(kind)
        for sm in build.TARGETS:
            yield build_row("group_hessians", "any", kind, "any", sm, build_groups(sm, dtype, precision=precision))
    for kind in work.KINDS:
        dtype, precision = work.numbers(kind)
        for sm in build.TARGETS:
            yield build_row("linear_moments", "any", kind, "any", sm, build_moments(sm, dtype, precision=precision))


def product_times() -> Iterator[Row]:
    """Yield a row for each case of ``work.GROUPS`` and ``work.LAYERS``, kind of numbers and GPU."""
    for cases, count, kernel in (
        (work.GROUPS, work.group_work, "group_hessians"),
        (work.LAYERS, work.moment_work, "linear_moments"),
    ):
        for case in cases:
            for kind in work.KINDS:
                fused, plain = (count(case, kind, plain_route=route) for route in (False, True))
                for gpu in GPUS:
                    yield time_row(kernel, case.name, kind, gpu, fused, plain)


def time_row(kernel: str, shape: str, kind: str, gpu: str, fused: Work, plain: Work, issue: float | int = 0.0) -> Row:
    """Return the least times of both routes, as a row; every number is predicted.

    Args:
        kernel: the operation's name.
        shape: sizes of the operands.
        kind: of numbers.
        gpu: a key of ``GPUS``.
        fused: the kernel's work.
        plain: the plain route's.
        issue: seconds in which the kernel's instructions can be issued, where they are counted.
    """
    device = GPUS[gpu]
    row: Row = {
        "kernel": kernel, "shape": shape, "numbers": kind, "gpu": gpu, "flops": f"{fused.flops:.4g}",
        "bytes": f"{fused.bytes:.4g}", "plain_bytes": f"{plain.bytes:.4g}",
        "flops_per_byte": f"{fused.intensity:.4g}", "plain_flops_per_byte": f"{plain.intensity:.4g}",
        "launches": fused.launches, "plain_launches": plain.launches,
    }  # fmt: skip
    for cost in LAUNCH_COSTS:
        least = max(fused.seconds(device, kind), issue) + fused.launches * cost
        other = plain.seconds(device, kind, cost)
        name = f"{1e6 * cost:.0f}us"
        row |= {f"predicted_ms_{name}": f"{1e3 * least:.4g}", f"predicted_plain_ms_{name}": f"{1e3 * other:.4g}"}
        row[f"predicted_ratio_{name}"] = f"{other / least:.3g}"
    return row


def rows() -> dict[str, list[Row]]:
    """Return the tables "builds" and "times"; builds every kernel, which takes a minute.

    Raises:
        RuntimeError: nothing can be built here; the message says what to do.
    """
    perceptrons = list(perceptron_builds())
    return {
        "builds": [*gram_builds(), *perceptrons, *product_builds()],
        "times": [*gram_times(), *perceptron_times(perceptrons), *product_times()],
    }


def write(tables: dict[str, list[Row]], folder: Path) -> list[Path]:
    """Return the files written: ``kernels-builds.csv`` and ``kernels-times.csv`` in ``folder``.

    Args:
        tables: of ``rows``.
        folder: made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in tables.items():
        path = folder / f"kernels-{name}.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
        written.append(path)
    return written

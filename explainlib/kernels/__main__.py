"""``python -m explainlib.kernels``: time the kernels on a GPU; ``check`` compares them, ``build`` compiles them.

``--report FOLDER`` needs no GPU: it builds every kernel for A100, H100 and B200, reads registers, spills, shared memory
and occupancy from the machine code, and writes them beside the least times by formula as two tables.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch

from explainlib.kernels import available, build, comparisons, report, self_check, timing

INTERPRETER = "TRITON_INTERPRET"  # read by Triton once, when it is imported


def check_in_interpreter() -> int:
    """Run ``check`` in a fresh process with Triton's interpreter on; return its exit status."""
    command = [sys.executable, "-m", "explainlib.kernels", "check"]
    return subprocess.run(command, env={**os.environ, INTERPRETER: "1"}, check=False).returncode


def check() -> int:
    """Compare kernel and reference on ragged shapes, on the GPU or in the interpreter; return 1 if one differs."""
    here = available()
    if here["triton"] is None:
        print(here["missing"], file=sys.stderr)
        return 1
    if here["missing"]:
        return check_in_interpreter()
    device = "cpu" if here["interpreter"] else "cuda"
    print(f"the kernel against its reference, {'interpreted on the CPU' if device == 'cpu' else here['device']}:")
    others = (comparisons.group_comparisons, comparisons.moment_comparisons, comparisons.perceptron_comparisons)
    found = []
    for compare in (self_check.comparisons, *others):
        new = compare(device)
        print(*new, sep="\n", flush=True)
        found += new
    failed = sum(not comparison.passed for comparison in found)
    print(f"{len(found) - failed} of {len(found)} agree")
    return int(failed > 0)


def build_all() -> int:
    """Compile the kernel for GPUs that need not be here; print the sizes of the code."""
    try:
        for sm in build.TARGETS:
            for name, options in build.KINDS.items():
                code = build.build(sm, **options)
                print(
                    f"sm_{sm} {name:<23} ptx {len(code['ptx']):>7} bytes, cubin {len(code['cubin']):>7} bytes",
                    flush=True,
                )
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def print_timings() -> int:
    """Print the timing table of this machine's GPU; without one say so, and compare a few cases instead."""
    here = available()
    if here["device"] is None or here["interpreter"]:
        print("No GPU to time on: " + (here["missing"] or "Triton's interpreter is on, its times mean nothing."))
        return check()
    if here["missing"]:
        print(here["missing"], file=sys.stderr)
        return 1
    print(f"{here['device']}, sm_{here['sm']}, torch {torch.__version__}, Triton {here['triton']}")
    print(timing.table())
    return check()


def write_report(folder: Path) -> int:
    """Write the report's tables into a folder and print their names; return 1 if nothing can be built or one spills."""
    try:
        tables = report.rows()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(*report.write(tables, folder), sep="\n")
    spilling = [row for row in tables["builds"] if row["spilled_bytes"]]
    print(f"{len(tables['builds'])} builds, {len(spilling)} of them spill; all times are predicted, none is measured")
    print(*spilling, sep="\n", end="\n" if spilling else "")
    return int(bool(spilling))


def main(words: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m explainlib.kernels", description=__doc__)
    commands = {"time": print_timings, "check": check, "build": build_all}
    parser.add_argument("command", nargs="?", default="time", choices=commands)
    where = {"nargs": "?", "type": Path, "const": Path("data/results"), "metavar": "FOLDER"}
    parser.add_argument("--report", help="write what the builds take; into data/results if no folder is given", **where)
    given = parser.parse_args(words)
    return commands[given.command]() if given.report is None else write_report(given.report)


if __name__ == "__main__":
    raise SystemExit(main())

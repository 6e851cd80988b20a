"""``python -m benchmarks.gpu``: what a GPU makes of the kernels and of the library's heavy runs, in at most 8 minutes.

Each step runs in a process of its own, with a time limit; a step that fails or takes too long is recorded and the next
one begins. Prints as it goes, and writes one JSON file with the device's name and all versions after every step.

``--dry`` runs every step's code in this process on the CPU, with tiny sizes and plain PyTorch in the kernels' place;
its times say nothing. Without a GPU this is what runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import explainlib as xl
from benchmarks.gpu_steps import FULL, STEPS, TINY, Record

MOST = 480.0  # seconds of all steps
LIMITS = {"correctness": 100, "times": 80, "sweep": 80, "gauss_newton": 90, "ekfac": 60, "panel": 60}  # seconds


def run_here(name: str, device: str, sizes: Record, route: str) -> Record:
    """Return a step's record, or the error that ended it."""
    started = time.perf_counter()
    try:
        record = {"status": "done", **STEPS[name](device, sizes, route)}
    except Exception as error:  # recorded: the other steps do not depend on this one
        record = {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
    return record | {"seconds": time.perf_counter() - started}


def run_apart(name: str, limit: float, command: list[str] | None = None) -> Record:
    """Return the record of a step that runs in a process of its own, which ends with the limit.

    Args:
        name: of the step.
        limit: seconds.
        command: the process; None is this module's ``--step``, and the file's name is added.
    """
    command = command or [sys.executable, "-m", "benchmarks.gpu", "--step", name, "--out"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.json"
        try:
            status = subprocess.run([*command, path], timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            return {"status": "timed out", "limit": limit, "seconds": time.perf_counter() - started}
        if path.exists():
            return json.loads(path.read_text())
    return {"status": "failed", "error": f"the process ended with {status}", "seconds": time.perf_counter() - started}


def about(device: str) -> Record:
    """Return the device's name and the versions."""
    here = xl.kernels.available()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "sm": here["sm"],
        "triton": here["triton"], "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": platform.python_version(), "explainlib": xl.__version__, "dry": device == "cpu",
    }  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Run all steps, or one; return 1 if a GPU's step failed or a kernel is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--out", type=Path, default=Path("results/gpu.json"))
    parser.add_argument("--step", choices=STEPS, help="one step, on the GPU")
    given = parser.parse_args(words)
    if given.step is not None:
        write(given.out, run_here(given.step, "cuda", FULL, "triton"))
        return 0
    gpu = torch.cuda.is_available() and not given.dry
    if not gpu and not given.dry:
        print("There is no CUDA GPU here: every step runs on the CPU with tiny sizes, and its times say nothing.")
    whole, started = {"about": about("cuda" if gpu else "cpu"), "steps": {}}, time.perf_counter()
    for name, limit in LIMITS.items():
        left = MOST - (time.perf_counter() - started)
        print(f"--- {name}", flush=True)
        record = run_apart(name, min(limit, left)) if gpu else run_here(name, "cpu", TINY, "torch")
        print(f"{name}: {record['status']} after {record['seconds']:.1f} s {record.get('error', '')}", flush=True)
        whole["steps"][name] = record
        write(given.out, whole)
    print(given.out)
    return int(any(step["status"] != "done" or step.get("failed") for step in whole["steps"].values()))


def write(path: Path, record: Record) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1))
    part.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())

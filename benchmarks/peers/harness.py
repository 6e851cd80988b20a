"""Seconds in one process, the sides interleaved; memory in a process for each side; both with one thread.

Denormals are flushed on both sides. Memory is what the operating system counts: the largest resident size during one
call, minus the resident size before it, after a rehearsal call on the small problem has imported what the library
imports late. The whole process's peak stands beside it.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import json
import os
import pydoc
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.peers.race import Action, Problem, Race
from explainlib import metrics

ROOT = Path(__file__).parents[2]
LIMIT = 3600.0  # seconds of one child process
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "EXPLAINLIB_THREADS")}
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


class ChildError(RuntimeError):
    """A child process that did not return a record."""


def prepare_process() -> None:
    """One thread, denormals flushed, no warnings: of this process, for good."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore")


def run_race(race: Race, *, quick: bool) -> dict[str, object]:
    """Return the record of a race: a process for the seconds and the numbers, one for the memory of each side."""
    present = [side for side in race.sides if not side.absent]
    skipped = {side.name: side.absent for side in race.sides if side.absent}
    with tempfile.TemporaryDirectory() as folder:
        names = [side.name for side in present]
        record = _child(race, "seconds", folder, quick, names)
        for name in names:
            if "failed" in record["sides"][name]:
                continue
            try:
                record["sides"][name]["memory"] = _child(race, "memory", folder, quick, [name])
            except ChildError as error:  # the times are measured, and stay
                record["sides"][name]["memory_failed"] = str(error)[-400:]
    return record | {"skipped": skipped, "sizes": race.sizes(quick=quick), "runs": runs_of(race, quick=quick)}


def runs_of(race: Race, *, quick: bool) -> int:
    """Return the interleaved runs of each side."""
    return 2 if quick else race.runs


def _child(race: Race, what: str, folder: str, quick: bool, sides: list[str]) -> dict[str, object]:
    out = Path(folder) / "record.json"
    out.unlink(missing_ok=True)
    words = {"race": race.name, "what": what, "folder": folder, "quick": quick, "sides": sides, "out": str(out)}
    command = [sys.executable, "-m", "benchmarks.peers", "--child", json.dumps(words)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | THREADS | QUIET | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, timeout=LIMIT, capture_output=True, text=True)
    if done.returncode or not out.exists():
        told = (done.stderr or done.stdout)[-3000:]
        raise ChildError(f"{race.name}, {what} of {', '.join(sides)}: exit {done.returncode}\n{told}")
    return json.loads(out.read_text())


OWN = ("torch.", "explainlib.", "benchmarks.peers.")  # whose classes a problem in a file may hold


def child(race: Race, words: dict[str, object]) -> None:
    """Do what ``_child`` asks for, in this process, and write the record."""
    prepare_process()
    work = {"seconds": _seconds, "memory": _memory}[words["what"]]
    record = work(race, Path(words["folder"]), words["quick"], words["sides"])
    Path(words["out"]).write_text(json.dumps(record))


def _problem(race: Race, folder: Path, quick: bool) -> Problem:
    """Return the problem, made once and read from the folder afterwards: other processes must not pay for training."""
    path = folder / ("quick.pt" if quick else "full.pt")
    if not path.exists():
        torch.save(race.problem(**race.sizes(quick=quick)), path)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    foreign = [name for name in names if not name.startswith(OWN)]
    if foreign:
        raise ValueError(f"a problem is made of {', '.join(foreign)}; make it of torch's and this project's classes.")
    with torch.serialization.safe_globals([pydoc.locate(name) for name in names]):
        return torch.load(path, weights_only=True)


def _seconds(race: Race, folder: Path, quick: bool, sides: list[str]) -> dict[str, object]:
    """Return the times of interleaved runs, and how the numbers agree."""
    problem = _problem(race, folder, quick)
    actions, answers, record = {}, {}, {name: {} for name in sides}
    for name in sides:
        try:
            actions[name] = race.side(name).build(copy.deepcopy(problem))  # some libraries leave hooks in the model
            answers[name] = actions[name]()
        except Exception as error:  # one library's failure ends its own side only
            actions.pop(name, None)
            told = "".join(traceback.format_exception(error)[-4:])
            record[name]["failed"] = f"{type(error).__name__}: {error}"[:400]
            print(f"{race.name}, {name} failed:\n{told}", file=sys.stderr)
    load = [os.getloadavg()[0]]
    walls, processor = interleaved(actions, runs_of(race, quick=quick))
    load.append(os.getloadavg()[0])
    for name in actions:
        record[name] |= {
            "seconds": statistics.median(walls[name]),
            "processor_seconds": statistics.median(processor[name]),
            "all_seconds": walls[name],
            "all_processor_seconds": processor[name],
        }
    for side in race.sides:
        opponent = answers.get(race.opponent(side))
        if side.name in actions and side.name != race.opponent(side) and opponent is not None:
            record[side.name]["agreement"] = agreement(answers[side.name], opponent)
    if race.reference is not None:
        exact = race.reference(problem)
        for name in actions:
            record[name]["reference"] = agreement(answers[name], exact)
    if "outputs" in problem:
        for name in actions:
            record[name]["truth"] = datamodeling(answers[name], problem)
    return {"sides": record, "load": load, "told": problem.get("told", "")}


def datamodeling(scores: Tensor, problem: Problem) -> dict[str, float]:
    """Return the linear datamodeling score of a table [t, n] and its interval, on the problem's halves."""
    found = metrics.linear_datamodeling_score(scores.detach(), problem["subsets"], problem["outputs"])
    return {"value": float(found), "low": found.low, "high": found.high}


def interleaved(actions: dict[str, Action], runs: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the wall seconds and the processor's seconds of runs A B C A B C ..., each side having run once before."""
    walls, processor = ({name: [] for name in actions} for _ in range(2))
    for _ in range(runs):
        for name, action in actions.items():
            gc.collect()
            began, used = time.perf_counter(), time.process_time()
            action()
            processor[name].append(time.process_time() - used)
            walls[name].append(time.perf_counter() - began)
    return walls, processor


def agreement(own: Tensor | None, other: Tensor | None) -> dict[str, float] | None:
    """Return Pearson over all entries, and the largest difference over the other's largest entry."""
    if own is None or other is None:
        return None
    a, b = own.detach().double().flatten(), other.detach().double().flatten()
    if a.shape != b.shape:
        raise ValueError(f"tables of {tuple(own.shape)} and {tuple(other.shape)} cannot be compared.")
    a_, b_ = a - a.mean(), b - b.mean()
    pearson = float((a_ @ b_) / (a_.norm() * b_.norm()).clamp(min=1e-300))
    return {"pearson": pearson, "relative": float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))}


def _memory(race: Race, folder: Path, quick: bool, sides: list[str]) -> dict[str, float]:
    """Return what one call of one side takes, in bytes: above what was there before, and the whole process."""
    (name,) = sides
    with contextlib.suppress(Exception):  # some fail on so small a problem; by then they have imported what they need
        race.side(name).build(_problem(race, folder, True))()
    action = race.side(name).build(_problem(race, folder, quick))
    return measured_memory(action)


def measured_memory(action: Callable[[], object]) -> dict[str, float]:
    """Return {"above": peak minus the resident size before, "peak": of the whole process} of one call, in bytes."""
    gc.collect()
    _trim()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
    answer = action()
    peak = _status("VmHWM")
    del answer
    return {"above": float(max(0, peak - before)), "peak": float(peak)}


def _trim() -> None:
    """Give freed memory back, so that the call cannot fill it unseen."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _status(key: str) -> int:
    """Return an entry of the process's status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)

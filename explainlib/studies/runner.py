"""One way to run a study: its independent jobs in one process or several, each result on disk, then the tables.

A study is a module with

    config(scale, data)             its settings
    jobs(settings, folder)          functions without arguments by name; none waits for another
    tables(settings, made, seconds) the tables by name, from the frames that the jobs made and the seconds they took
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pandas
import torch

from explainlib.progress import tqdm
from explainlib.studies.place import computing_on
from explainlib.studies.record import PartialResults

Jobs = Mapping[str, Callable[[], pandas.DataFrame]]

_work: tuple[Jobs, PartialResults] | None = None  # of a worker process
_place = torch.device("cpu")  # likewise


def compute(
    study: ModuleType,
    settings: object,
    folder: Path,
    *,
    processes: int = 1,
    device: torch.device | None = None,
) -> tuple[dict[str, pandas.DataFrame], dict[str, float]]:
    """Run what is not on disk yet and return (the tables by name, the seconds of each job).

    Only whole files are written, so an interrupted run goes on where it was.

    Args:
        study: a module as above.
        settings: its ``Config``.
        folder: of the jobs' results.
        processes: at least 1; several take one thread each, and hold one job each.
        device: that the jobs compute on; None is the CPU. Partial results of another device are refused.
    """
    device = device or torch.device("cpu")
    results = PartialResults(folder, asked(settings, device))
    with computing_on(device):
        jobs = study.jobs(settings, folder)
        if processes > 1:
            missing = [name for name in jobs if not results.has(name)]
            _compute_missing((study.__name__, settings, folder, str(device)), missing, processes)
        made = {name: results.table(name, job) for name, job in jobs.items()}
    seconds = results.seconds()
    return study.tables(settings, made, seconds), seconds


def asked(settings: object, device: torch.device) -> dict[str, object]:
    """Return what partial results belong to: the settings, and the device where it is not the CPU."""
    return asdict(settings) | ({} if device.type == "cpu" else {"device": device.type})


def _compute_missing(work: tuple[str, object, Path, str], missing: list[str], processes: int) -> None:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its thread pool
    with ProcessPoolExecutor(processes, context, _start, work) as pool:
        try:
            waiting = [pool.submit(_make, name) for name in missing]
            for done in tqdm(as_completed(waiting), total=len(waiting), desc="jobs", leave=False):
                done.result()
        except BaseException:  # also an interrupt: what has not begun is not begun
            pool.shutdown(cancel_futures=True)
            raise


def _start(study: str, settings: object, folder: Path, device: str) -> None:
    global _work, _place
    torch.set_num_threads(1)
    _place = torch.device(device)
    _work = import_module(study).jobs(settings, folder), PartialResults(folder, asked(settings, _place))


def _make(name: str) -> None:
    jobs, results = _work
    with computing_on(_place):
        results.table(name, jobs[name])

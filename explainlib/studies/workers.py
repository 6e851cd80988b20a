"""The pieces of a study made by several processes at once, one thread each; the study then finds them on disk."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pandas
import torch
from tqdm.auto import tqdm

from explainlib.studies.record import PartialResults

Jobs = Mapping[str, Callable[[], pandas.DataFrame]]  # by the name of the piece

_work: tuple[Jobs, PartialResults] | None = None  # of a worker process


def compute_parts(study: str, settings: object, folder: Path, processes: int) -> None:
    """Compute every piece that is not on disk yet; whole files only, so an interrupted run goes on where it was.

    Args:
        study: the module, which has ``jobs(settings)``: independent pieces by name.
        settings: its ``Config``.
        folder: of the pieces.
        processes: at least 1; each holds one piece at a time.
    """
    jobs = import_module(study).jobs(settings)
    pieces = PartialResults(folder, asdict(settings))
    missing = [name for name in jobs if not pieces.has(name)]
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its thread pool
    with ProcessPoolExecutor(processes, context, _start, (study, settings, folder)) as pool:
        try:
            waiting = [pool.submit(_make, name) for name in missing]
            for done in tqdm(as_completed(waiting), total=len(waiting), desc="pieces", leave=False):
                done.result()
        except BaseException:  # also an interrupt: what has not begun is not begun
            pool.shutdown(cancel_futures=True)
            raise


def _start(study: str, settings: object, folder: Path) -> None:
    global _work
    torch.set_num_threads(1)
    _work = import_module(study).jobs(settings), PartialResults(folder, asdict(settings))


def _make(name: str) -> None:
    jobs, pieces = _work
    pieces.table(name, jobs[name])

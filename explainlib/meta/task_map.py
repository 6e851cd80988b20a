"""One map over blocks of tasks: in this process, in several (joblib), or on a cluster (dask.distributed).

    results in the order of the blocks, whoever computed them

Workers run one thread each. A worker that dies loses its block only: finished blocks are kept, the rest is asked for
again, three times in a row without progress at most.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from explainlib import compute
from explainlib.checks import require_count, warn_caller

if TYPE_CHECKING:
    from distributed import Client

Block = TypeVar("Block")
Result = TypeVar("Result")
Processes = "int | str | Client"

ATTEMPTS = 3  # without a finished block in between
TIMEOUT = 10  # seconds to reach a scheduler


class WorkerWarning(UserWarning):
    """A worker died; its block is computed again."""


def map_blocks(
    function: Callable[[Block], Result], blocks: Sequence[Block], processes: int | str | Client = 1
) -> Iterator[Result]:
    """Return the results of ``function`` for each block, in order, a wave of blocks in memory at a time.

    Args:
        function: of one block; it and the blocks are sent to the workers by pickle.
        blocks: arguments, each for one call.
        processes: how many on this machine; or the address of a dask scheduler, "tcp://host:8786"; or a
            ``dask.distributed.Client``.

    Raises:
        ConnectionError: no scheduler at that address.
        RuntimeError: workers died again and again.
    """
    if isinstance(processes, int):
        require_count("processes", processes)
    if processes == 1:
        yield from map(function, blocks)
        return
    run, width, close = _pool(processes)
    try:
        for start in range(0, len(blocks), width):
            yield from _wave(run, function, blocks[start : start + width])
    finally:
        close()


def width_of(processes: int | str | Client) -> int:
    """Return how many processes of this machine work."""
    return processes if isinstance(processes, int) else 1


Run = Callable[[Callable, Sequence[tuple[int, object]]], Iterator[tuple[int, object]]]  # of (place, block or result)


def _wave(run: Run, function: Callable[[Block], Result], blocks: Sequence[Block]) -> list[Result]:
    """Return the results of blocks that are computed at once; after a death, only the missing are asked for again."""
    found: dict[int, Result] = {}
    failures = 0
    while len(found) < len(blocks):
        before = len(found)
        try:
            for place, result in run(function, [(k, block) for k, block in enumerate(blocks) if k not in found]):
                found[place] = result
        except _deaths() as error:
            failures = failures + 1 if len(found) == before else 1
            if failures >= ATTEMPTS:
                raise RuntimeError(
                    f"workers died {failures} times in a row ({error}); they may lack memory: use fewer processes, or "
                    "a smaller block."
                ) from error
            warn_caller(f"a worker died ({type(error).__name__}); its tasks are computed again.", WorkerWarning)
    return [found[k] for k in range(len(blocks))]


def _deaths() -> tuple[type[Exception], ...]:
    from concurrent.futures.process import BrokenProcessPool

    from joblib.externals.loky.process_executor import TerminatedWorkerError

    return BrokenProcessPool, TerminatedWorkerError


def _pool(processes: int | str | Client) -> tuple[Run, int, Callable[[], None]]:
    """Return (how blocks are computed, how many at once, what ends it)."""
    if isinstance(processes, int):
        return _joblib(processes), processes, _end_workers
    client, close = _client(processes)
    width = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    return _dask(client), width, close


def _joblib(processes: int) -> Run:
    import joblib  # not with the package, which imports faster without it

    def run(function: Callable, places: Sequence[tuple[int, object]]) -> Iterator[tuple[int, object]]:
        parallel = joblib.Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
            yield from parallel(joblib.delayed(_one)(function, place, block) for place, block in places)

    return run


def _end_workers() -> None:
    """End joblib's workers, which would keep their memory for minutes."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown()


def _dask(client: Client) -> Run:
    from distributed import as_completed

    def run(function: Callable, places: Sequence[tuple[int, object]]) -> Iterator[tuple[int, object]]:
        futures = [client.submit(_one, function, place, block, pure=False) for place, block in places]
        for future in as_completed(futures):  # a dead worker's block is given to another by dask itself
            yield future.result()

    return run


def _client(processes: str | Client) -> tuple[Client, Callable[[], None]]:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            f"processes={processes!r} needs dask.distributed; pip install 'explainlib[cluster]', or pass a number."
        ) from None
    if isinstance(processes, str):
        try:
            client = Client(processes, timeout=TIMEOUT)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"no dask scheduler answers at processes={processes!r} ({error}); start one with `dask scheduler`, or "
                "pass a number of processes on this machine."
            ) from error
        return client, client.close
    if not isinstance(processes, Client):
        raise TypeError(
            f"processes is a {type(processes).__name__}; pass a number, the address of a dask scheduler, or a Client."
        )
    if processes.status != "running":
        raise ConnectionError(f"processes is a dask Client that is {processes.status}; pass one that is connected.")
    return processes, lambda: None


def _one(function: Callable[[Block], Result], place: int, block: Block) -> tuple[int, Result]:
    torch.set_num_threads(1)
    with compute.settings():
        return place, function(block)

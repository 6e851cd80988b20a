"""Task influence of convolutional learners at the paper's size: seconds of a task, memory, and what compression costs.

``python -m benchmarks cnn`` times a task. ``python -m benchmarks.cnn_tasks run --tasks 1024 --store DIR`` trains a
learner on Omniglot, fills the buffer in two processes, scores 128 tests, and prints minutes, peak memory and, beside
the controls, how well training tasks find themselves; stopped, it goes on where it was. ``python -m
benchmarks.cnn_tasks compression`` compares compressed with uncompressed rows.
"""

from __future__ import annotations

import argparse
import threading
import time
import warnings
from pathlib import Path

import psutil
import torch

import explainlib as xl
from benchmarks.timing import Row, seconds
from explainlib.datasets import Tasks, class_pool, sample_tasks
from explainlib.influence import TaskInfluence
from explainlib.meta import Maml
from explainlib.meta.gauss_newton import leading_rows
from explainlib.meta.gauss_newton.buffer import BLOCK, Buffer, _step
from explainlib.meta.gauss_newton.rows import TaskRows, task_rows

KEPT, COMPRESS, TASKS, HOURS = 1024, 48, 1024, 15
SIZES = {  # channels, side, directions kept of a task, and the bar in seconds
    "Omniglot, 28 x 28, 48 directions": (1, 28, 48, 4.0),
    "84 x 84 x 3, 48 directions": (3, 84, 48, 40.0),
    "84 x 84 x 3, 32 directions": (3, 84, 32, 40.0),
}


def learner_of(channels: int, size: int, filters: int = 64) -> Maml:
    """Return the paper's network under MAML."""
    return Maml(xl.models.cnn4(channels, size, 5, filters=filters, dtype=torch.float32), inner_lr=0.1)


def random_tasks(count: int, channels: int, size: int) -> Tasks:
    """Return tasks of 5 ways with 5 + 5 random pictures each."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(5).repeat_interleave(5).expand(count, -1)
    x, z = (torch.randn(count, 25, channels, size, size, generator=g) for _ in range(2))
    return Tasks(x, y, z, y)


def rows() -> list[Row]:
    """Return the seconds of one task's rows, and of a step of the buffer, with what they make of 1,024 tasks."""
    torch.set_num_threads(1)
    made, one = [], {}
    for name, (channels, size, compress, most) in SIZES.items():
        learner, tasks = learner_of(channels, size), random_tasks(1, channels, size)
        task_rows(learner, learner.w0, random_tasks(1, channels, size), 4)  # once, for torch's own start
        took = one[name] = seconds(lambda: task_rows(learner, learner.w0, tasks, compress))  # noqa: B023
        made.append(Row(f"rows of a task, {name}, {learner.q:,} parameters", took, None, f"{most:g} s", took <= most))
    q = learner_of(1, 28).q
    g = torch.Generator().manual_seed(0)
    buffer = Buffer(leading_rows(torch.randn(KEPT, q, generator=g), KEPT), KEPT, KEPT // COMPRESS, 1.0)
    workspace = torch.empty(KEPT + BLOCK * COMPRESS, q)
    buffer = buffer.moved_to(workspace)
    new = TaskRows(workspace[KEPT:].normal_(generator=g), 0.0)
    step = seconds(lambda: _step(buffer, new, KEPT, BLOCK, workspace)) / BLOCK
    made.append(Row(f"a task's share of a buffer step, k = {KEPT:,}", step, None, "1.1 s", step <= 1.1))
    for name, took in one.items():
        whole = TASKS * (took / 2 + step)
        other = HOURS * 3600.0 if channels_of(name) == 3 else None
        what = f"{TASKS:,} tasks in two processes, {name}, extrapolated (beside the paper's 15 GPU hours at 84 x 84)"
        made.append(Row(what, whole, other, "3600 s" if other is None else "-", other is not None or whole <= 3600))
    return made


def channels_of(name: str) -> int:
    """Return the channels of a size."""
    return SIZES[name][0]


class PeakMemory:
    """The largest sum of the proportional memory (PSS) of this process and its children, sampled twice a second."""

    def __enter__(self) -> PeakMemory:
        """Begin to sample."""
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


def omniglot(count: int, seed: int = 0) -> tuple[Tasks, Tasks]:
    """Return (training tasks, tests of classes that were kept back)."""
    pool = class_pool("omniglot")
    back = set(pool.names[4::5])
    parts = pool.where(lambda n, p: n not in back), pool.where(lambda n, p: n in back)
    return sample_tasks(parts[0], count, seed=seed), sample_tasks(parts[1], 128, seed=seed + 2)


def trained(learner: Maml, tasks: Tasks, batches: int, store: Path | None) -> torch.Tensor:
    """Return the learner's parameters after training."""
    return xl.meta.train(learner, tasks, batches=batches, store=None if store is None else store / "trained").w


def run(options: argparse.Namespace) -> None:
    """Train, fill the buffer, score, and print what it took."""
    learner, (tasks, tests) = learner_of(1, 28, options.filters), omniglot(options.tasks)
    started = time.perf_counter()
    w = trained(learner, tasks, options.batches, options.store)
    print(f"training: {options.batches} batches, {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    with PeakMemory() as memory:
        started = time.perf_counter()
        found = influence(learner, w, tasks, options, options.compress, options.store and options.store / "influence")
        print(f"{found!r}: rank {found.rank}, captured {found.captured:.3f}", flush=True)
        print(f"influence: {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
        started = time.perf_counter()
        for name, chosen in (("unseen", tests), ("training", tasks[:128])):
            table = found.performance(chosen)
            first = int((xl.metrics.self_rank(table) == 0).sum()) if name == "training" else "-"
            print(f"scores of {len(chosen)} {name} tests: first {first}", flush=True)
        print(f"scores: {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    print(f"peak memory of all processes: {memory.peak / 1e9:.2f} GB", flush=True)
    print(own_ranks(found, tasks), flush=True)


def own_ranks(found: TaskInfluence, tasks: Tasks, tests: int = 128) -> str:
    """Return how well training tasks, as tests, find themselves: with fewer directions, and with the controls."""
    gradients = found.gradients
    some = gradients[:tests]
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(gradients.shape[1], found.rank, generator=g))[0]
    unit = torch.nn.functional.normalize(gradients, dim=1)
    tables = {f"buffer, {found.rank} directions": found.performance(tasks[:tests])}
    tables |= {f"its {keep} leading ones": found.pruned(keep).performance(tasks[:tests]) for keep in (512, 256, 64)}
    tables |= {"identity": -some @ gradients.T, "cosine": -unit[:tests] @ unit.T}
    tables[f"random projector of rank {found.rank}"] = -(some @ basis) @ (gradients @ basis).T
    ranks = {name: xl.metrics.self_rank(table).double() for name, table in tables.items()}
    return "\n".join(
        f"{name}: own task first {int((rank == 0).sum())} of {tests}, mean own rank {float(rank.mean()):.2g}"
        for name, rank in ranks.items()
    )


def influence(
    learner: Maml, w: torch.Tensor, tasks: Tasks, options: argparse.Namespace, compress: int | None, store: Path | None
) -> TaskInfluence:
    """Return the buffered influence, without the warning that training has not ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        how = {"curvature": "gauss_newton", "buffer": options.buffer, "compress": compress, "store": store}
        return TaskInfluence(learner, w, tasks, processes=options.processes, **how)


def compression(options: argparse.Namespace) -> None:
    """Print the off-diagonal Pearson of scores with compressed and with all rows, at equal buffer."""
    learner, (tasks, _) = learner_of(1, 28, options.filters), omniglot(options.tasks)
    w = trained(learner, tasks, options.batches, options.store)
    apart = ~torch.eye(len(tasks), dtype=torch.bool)
    tables = {}
    for compress in (None, 48, 32, 16):
        started = time.perf_counter()
        store = options.store and options.store / f"compress-{compress}"
        found = influence(learner, w, tasks, options, compress, store)
        tables[compress] = found.performance(tasks)[apart].double()
        pearson = float(torch.corrcoef(torch.stack([tables[None], tables[compress]]))[0, 1])
        took = (time.perf_counter() - started) / 60
        told = f"Pearson {pearson:.4f}, rank {found.rank}, captured {found.captured:.4f}, {took:.1f} minutes"
        print(f"compress={compress}: {told}", flush=True)


def main() -> None:
    """Read the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cnn_tasks")
    parser.add_argument("what", choices=("run", "compression"))
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--buffer", type=int, default=KEPT)
    parser.add_argument("--compress", type=int, default=COMPRESS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    {"run": run, "compression": compression}[options.what](options)


if __name__ == "__main__":
    main()

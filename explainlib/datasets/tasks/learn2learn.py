"""learn2learn in and out: its tasks become ``Tasks``, a class pool becomes its data set, and importing it is safe.

learn2learn imports gym and torchvision at once, for parts that nothing here needs. Where those cannot be imported, an
empty module stands in for the part; where they can, the part is the real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from explainlib.checks import require_count, require_tensor
from explainlib.datasets.bounds import format_list, truncate
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.tasks.sampling import sample_tasks
from explainlib.datasets.tasks.tasks import Tasks

REPLACEABLE = (
    "learn2learn.gym",
    "learn2learn.vision.transforms",
    "learn2learn.vision.datasets",
    "learn2learn.vision.benchmarks",
)
INSTALL_LEARN2LEARN = 'pip install --no-deps --config-settings="--build-option=build_ext" learn2learn==0.2.0'


def import_learn2learn() -> ModuleType:
    """Return the module learn2learn, imported with stand-ins for those of its parts that cannot be imported.

    Using a stand-in raises an AttributeError that says why the part is missing. Modules that are imported already,
    real or replaced by the user, are not changed.

    Raises:
        ImportError: learn2learn is not installed, or fails for another reason than gym and torchvision.
    """
    if "learn2learn" not in sys.modules and importlib.util.find_spec("learn2learn") is None:
        raise ImportError(
            f"learn2learn is not installed; run: {INSTALL_LEARN2LEARN} "
            "(it is compiled, and needs gcc and the headers of Python)."
        )
    finder = _StandInFinder()
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("learn2learn")
    except Exception as error:
        raise ImportError(
            f"learn2learn cannot be imported ({error}); install it again: {INSTALL_LEARN2LEARN}."
        ) from error
    finally:
        sys.meta_path.remove(finder)


class _StandInFinder(MetaPathFinder):
    """Finds the replaceable parts as usual, and has them loaded leniently."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a replaceable part, None for anything else."""
        spec = PathFinder.find_spec(name, path) if name in REPLACEABLE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LenientLoader(spec.loader)
        return spec


class _LenientLoader(Loader):
    """Loads a module; one that fails is left empty instead."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the usual loader makes."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module; if it fails, empty it and leave the reason in its place."""
        before = set(sys.modules)
        try:
            self.loader.exec_module(module)
        except Exception as error:  # any error of gym or torchvision: torchvision beside another torch, RuntimeError
            for name in [name for name in sys.modules if name.startswith(module.__name__ + ".") and name not in before]:
                del sys.modules[name]
            for name in [name for name in vars(module) if not name.startswith("__")]:
                delattr(module, name)
            reason = f"{type(error).__name__}: {error}"

            def missing(name: str) -> Any:
                raise AttributeError(f"{module.__name__}.{name} is not there: the import failed with {reason}.")

            module.__getattr__ = missing


class _Drawings(Dataset):
    """A class pool as a torch data set of (drawing, class)."""

    def __init__(self, pool: ClassPool) -> None:
        self.x, self.y = pool.x, pool.y.tolist()

    def __len__(self) -> int:
        """Return the number of drawings."""
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        """Return one drawing and its class."""
        return self.x[i], self.y[i]


def to_learn2learn(
    pool: ClassPool,
    *,
    ways: int | None = None,
    shots: int | None = None,
    queries: int = 5,
    n_tasks: int | None = None,
) -> Any:
    """Return the pool as a learn2learn MetaDataset or, given ways and shots, as a Taskset over it.

    Args:
        pool: its drawings are shared, not copied.
        ways: classes of a task; None, with shots, for the MetaDataset alone.
        shots: support drawings of each class; a task holds shots + queries, which ``from_learn2learn`` parts again.
        queries: query drawings of each class.
        n_tasks: learn2learn draws that many tasks once and keeps them; None draws anew each time.

    Raises:
        ImportError: learn2learn is not installed.
        ValueError: ways without shots or the other way round, or a pool too small for such tasks.
    """
    if (ways is None) != (shots is None):
        raise ValueError(f"ways={ways}, shots={shots}: pass both for a Taskset, or neither for a MetaDataset.")
    data = import_learn2learn().data
    members: dict[int, list[int]] = {c: [] for c in range(len(pool))}
    for i, c in enumerate(pool.y.tolist()):
        members[c].append(i)
    dataset = data.MetaDataset(_Drawings(pool), labels_to_indices=members)
    if ways is None or shots is None:
        return dataset
    sample_tasks(pool, 1, ways=ways, shots=shots, queries=queries)  # says what a pool that is too small lacks
    steps = data.transforms
    transforms = [
        steps.FusedNWaysKShots(dataset, n=ways, k=shots + queries),
        steps.LoadData(dataset),
        steps.RemapLabels(dataset),
        steps.ConsecutiveLabels(dataset),
    ]
    number = -1 if n_tasks is None else require_count("n_tasks", n_tasks)
    return data.Taskset(dataset, task_transforms=transforms, num_tasks=number)


def from_learn2learn(
    task_dataset: Any, n_tasks: int, *, shots: int, pool: ClassPool | None = None, seed: int = 0
) -> Tasks:
    """Return ``n_tasks`` tasks of a learn2learn Taskset, parted class by class into support and query.

    The first ``shots`` drawings of each class are the support, as in learn2learn's ``partition_task``. Labels are
    numbered 0 to ways - 1 in their order, which keeps those that learn2learn has remapped.

    Args:
        task_dataset: its samples are (x [ways*(shots + queries), ...], y).
        n_tasks: its first ones, where it keeps a fixed number of tasks; else newly drawn.
        shots: support drawings of each class; the rest are queries.
        pool: what ``to_learn2learn`` was given; the tasks then know the names of their classes. The drawings' places
            in the learn2learn data set, which are those in the pool, are kept in any case.
        seed: of what learn2learn draws during this call; Python's, numpy's and torch's generators are put back.

    Raises:
        ImportError: learn2learn is not installed.
        TypeError: not a Taskset (or TaskDataset, its older name), or samples that are not two tensors.
        ValueError: too few tasks, classes of unequal size or without queries, a drawing that stands twice in a task,
            tasks of different ways, or drawings that are not the pool's.
    """
    require_count("shots", shots)
    if not isinstance(task_dataset, import_learn2learn().data.Taskset):
        raise TypeError(f"task_dataset is a {type(task_dataset).__name__}; pass a learn2learn.data.Taskset.")
    if task_dataset.num_tasks != -1 and require_count("n_tasks", n_tasks) > task_dataset.num_tasks:
        raise ValueError(f"n_tasks={n_tasks}, and the Taskset keeps {task_dataset.num_tasks}; ask for fewer.")
    parts = []
    with _seed_generators(require_count("seed", seed, least=0)):
        for k in range(require_count("n_tasks", n_tasks)):
            x, y, places = _sample(task_dataset, k)
            parts.append(_split_support_query(x, y, places, shots, k, pool))
    sizes = {(part.ways, part.query_y.shape[1]) for part in parts}
    if len(sizes) > 1:
        raise ValueError(
            f"the tasks have different (ways, queries) {sorted(sizes)}; one Tasks holds tasks of one size."
        )
    return Tasks.concat([Tasks(**{**vars(part), "group": torch.tensor([k])}) for k, part in enumerate(parts)])


@contextmanager
def _seed_generators(seed: int) -> Iterator[None]:
    """Seed the generators that learn2learn and its data sets may use, and put them back."""
    state, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(legacy)


def _sample(task_dataset: Any, k: int) -> tuple[Tensor, Tensor, Int[Tensor, " d"]]:
    """Return the drawings of task k, their labels, and their places in the data set."""
    if not task_dataset.task_transforms:
        raise ValueError("the Taskset has no task_transforms, so it draws nothing; give it NWays, KShots, LoadData.")
    try:
        if task_dataset.num_tasks == -1:
            description = task_dataset.sample_task_description()
            sample = task_dataset.get_task(description)
        else:
            sample = task_dataset[k]
            description = task_dataset.sampled_descriptions[k]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"learn2learn could not draw task {k} ({truncate(str(error))}); every drawing needs the same shape, the "
            "data set as many classes as NWays asks for, and each class as many drawings as KShots."
        ) from error
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise TypeError(f"task {k} is a {type(sample).__name__}, expected (x, y); end task_transforms with LoadData.")
    x, y = require_tensor("x", sample[0]), require_tensor("y", sample[1])
    places = torch.tensor([drawing.index for drawing in description])
    if y.ndim != 1 or x.ndim < 2 or len(x) != len(y) or len(y) != len(places):
        raise ValueError(
            f"task {k} has x {list(x.shape)} and y {list(y.shape)} for {len(places)} drawings; "
            "expected [d, ...] and [d]."
        )
    return x, y.to(x.device), places.to(x.device)


def _split_support_query(
    x: Tensor, y: Tensor, places: Int[Tensor, " d"], shots: int, k: int, pool: ClassPool | None
) -> Tasks:
    """Return one task, class by class: the first drawings as support, the others as query."""
    values, labels, counts = y.unique(return_inverse=True, return_counts=True)
    if counts.unique().numel() > 1 or int(counts[0]) <= shots:
        raise ValueError(
            f"task {k} has {format_list(counts.tolist())} drawings of its classes {format_list(values.tolist())}; "
            f"each needs the same number, more than shots={shots}: use KShots(k=shots + queries)."
        )
    if places.unique().numel() != places.numel():
        raise ValueError(
            f"task {k} holds a drawing twice, so support and query overlap; use KShots without replacement."
        )
    rows = labels.argsort(stable=True).unflatten(0, (len(values), -1))
    support, query = rows[:, :shots].flatten(), rows[:, shots:].flatten()
    index = places.to(rows.device)
    return Tasks(
        x[support][None],
        labels[support][None],
        x[query][None],
        labels[query][None],
        classes=None if pool is None else [_names(pool, x, index, rows, k)],
        support_index=index[support][None],
        query_index=index[query][None],
    )


def _names(pool: ClassPool, x: Tensor, places: Tensor, rows: Tensor, k: int) -> tuple[str, ...]:
    """Return the names of a task's classes, after comparing its drawings with the pool's."""
    there = places.to(pool.x.device)
    if int(there.max()) >= len(pool.x) or not torch.equal(pool.x[there].to(x), x):
        raise ValueError(
            f"the drawings of task {k} are not those of the pool; pass the pool that learn2learn was given."
        )
    return tuple(pool.names[c] for c in pool.y[there[rows[:, 0].to(there.device)]].tolist())

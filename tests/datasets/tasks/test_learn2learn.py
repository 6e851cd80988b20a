"""learn2learn: imported safely, and its tasks are ours, drawing by drawing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch
from torch.utils.data import Dataset

from explainlib.datasets import ClassPool, class_pool, fresh_queries, from_learn2learn, to_learn2learn
from explainlib.datasets.tasks.learn2learn import import_learn2learn

pytestmark = pytest.mark.skipif(importlib.util.find_spec("learn2learn") is None, reason="learn2learn is not installed")


@pytest.fixture
def pool():
    """Eight classes of six drawings, each drawing unlike every other."""
    x = torch.rand(48, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    names = [f"{'ab'[c % 2]}/{c}" for c in range(8)]
    return ClassPool(x, torch.arange(48) % 8, names, [name[0] for name in names])


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_import_gives_what_the_papers_use():
    l2l = import_learn2learn()
    assert l2l.algorithms.MAML and l2l.data.MetaDataset and l2l.vision.models.CNN4 and l2l.nn.PrototypicalClassifier
    assert import_learn2learn() is l2l is sys.modules["learn2learn"]


def test_parts_that_fail_say_why_and_the_real_ones_are_used_otherwise():
    """gym is made unimportable; ``optim``, put on the list for this test, can be imported and has to be the real one."""
    code = """
import sys
sys.modules["gym"] = None
mine = type(sys)("learn2learn.vision.benchmarks"); sys.modules[mine.__name__] = mine
finders = list(sys.meta_path)
from explainlib.datasets.tasks import learn2learn as bridge
bridge.REPLACEABLE = (*bridge.REPLACEABLE, "learn2learn.optim")
l2l = bridge.import_learn2learn()
assert l2l.optim.ParameterUpdate and "__getattr__" not in vars(l2l.optim)
assert sys.meta_path == finders and sys.modules["gym"] is None
assert sys.modules["learn2learn.vision.benchmarks"] is mine
assert not [name for name in sys.modules if name.startswith("learn2learn.gym.")]
try:
    l2l.gym.MetaEnv
except AttributeError as error:
    print(error)
"""
    result = in_a_fresh_process(code)
    assert "learn2learn.gym.MetaEnv is not there: the import failed with ModuleNotFoundError" in result.stdout, result


def test_without_learn2learn_the_message_says_how_to_install_it():
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "learn2learn" else find(name, *rest)
from explainlib.datasets.tasks.learn2learn import import_learn2learn
try:
    import_learn2learn()
except ImportError as error:
    print(error)
"""
    result = in_a_fresh_process(code)
    assert "learn2learn is not installed; run: pip install --no-deps" in result.stdout, result


def test_a_pool_becomes_a_meta_dataset(pool):
    dataset = to_learn2learn(pool)
    assert isinstance(dataset, import_learn2learn().data.MetaDataset) and len(dataset) == 48
    assert all(torch.equal(dataset[i][0], pool.x[i]) and dataset[i][1] == int(pool.y[i]) for i in range(48))
    assert {c: sorted(rows) for c, rows in dataset.labels_to_indices.items()} == {
        c: list(range(c, 48, 8)) for c in range(8)
    }


def test_the_same_tasks_come_out(pool):
    """Each task is compared with what learn2learn's own taskset and partition hand out for it."""
    taskset = to_learn2learn(pool, ways=4, shots=2, queries=3, n_tasks=6)
    tasks = from_learn2learn(taskset, 6, shots=2, pool=pool)
    partition = import_learn2learn().data.partition_task
    for k in range(6):
        (support_x, support_y), (query_x, query_y) = partition(*taskset[k], shots=2)
        assert torch.equal(tasks.support_x[k], support_x) and torch.equal(tasks.support_y[k], support_y)
        assert torch.equal(tasks.query_x[k], query_x) and torch.equal(tasks.query_y[k], query_y)
    assert torch.equal(pool.x[tasks.support_index], tasks.support_x)
    assert torch.equal(pool.x[tasks.query_index], tasks.query_x)
    for k, names in enumerate(tasks.classes):
        named = torch.tensor([pool.names.index(name) for name in names])
        assert torch.equal(pool.y[tasks.support_index[k]], named[tasks.support_y[k]])
        assert torch.equal(pool.y[tasks.query_index[k]], named[tasks.query_y[k]])
        assert not set(tasks.support_index[k].tolist()) & set(tasks.query_index[k].tolist())
    assert tasks.group.tolist() == list(range(6)) and tasks.ways == 4
    fresh = fresh_queries(pool, from_learn2learn(taskset, 6, shots=4, pool=pool))
    assert fresh.query_y.shape == (6, 4), "places and names are good enough to draw new queries"


def test_the_seed_decides(pool):
    endless = to_learn2learn(pool, ways=3, shots=1, queries=2)
    one, again, other = (from_learn2learn(endless, 4, shots=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.support_x, again.support_x) and not torch.equal(one.support_x, other.support_x)
    assert one.classes is None and len({tuple(row) for row in one.support_index.tolist()}) > 1


def test_nobody_elses_generators_move():
    """In a process of its own: the checker of signatures draws random numbers itself."""
    code = """
import random, numpy, torch
from explainlib.datasets import class_pool, from_learn2learn, to_learn2learn
taskset = to_learn2learn(class_pool("digits"), ways=3, shots=1, queries=2)
def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
before = states()
from_learn2learn(taskset, 4, shots=1)
assert states() == before
taskset.sample()
assert random.getstate() != before[0]
print("still")
"""
    result = in_a_fresh_process(code)
    assert result.stdout.strip() == "still", result


def test_labels_that_nobody_remapped_are_numbered_anew(pool):
    data = import_learn2learn().data
    dataset = to_learn2learn(pool.where(lambda name, parent: name != "a/0"))
    steps = [
        data.transforms.NWays(dataset, n=3),
        data.transforms.KShots(dataset, k=4),
        data.transforms.LoadData(dataset),
    ]
    tasks = from_learn2learn(data.Taskset(dataset, steps), 5, shots=1)
    assert tasks.support_y.tolist() == [[0, 1, 2]] * 5 and tasks.query_y.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 5


def test_drawings_on_themselves_keep_their_dtype():
    pool = class_pool("digits").double()
    tasks = from_learn2learn(to_learn2learn(pool, ways=5, shots=5, queries=5), 2, shots=5, pool=pool)
    assert tasks.support_x.dtype == torch.float64 and tasks.support_x.shape == (2, 25, 1, 8, 8)


class Wrong(Dataset):
    """Six drawings of each of three classes, wrong in one way."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 18

    def __getitem__(self, i):
        x = torch.full((2, 2), float(i))
        return {"shapes": (torch.zeros(1 + i % 3, 2), i % 3), "three": (x, i % 3, i), "whole": (x.long(), i % 3),
                "nan": (x * float("nan"), i % 3), "number": (float(i), i % 3), "right": (x, i % 3)}[self.how]  # fmt: skip


def taskset(how="right", *, k=4, n=3, load=True, replacement=False, n_tasks=-1):
    data = import_learn2learn().data
    dataset = data.MetaDataset(Wrong(how))
    steps = [data.transforms.NWays(dataset, n=n), data.transforms.KShots(dataset, k=k, replacement=replacement)]
    steps += [data.transforms.LoadData(dataset)] * load
    return data.Taskset(dataset, steps, num_tasks=n_tasks)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: taskset("shapes"), ValueError, "every drawing needs the same shape"),
        (lambda: taskset("three"), TypeError, r"expected \(x, y\)"),
        (lambda: taskset(load=False), TypeError, "end task_transforms with LoadData"),
        (lambda: taskset("whole"), TypeError, "expected floating point"),
        (lambda: taskset("nan"), ValueError, "NaN"),
        (lambda: taskset("number"), ValueError, r"x \[12\] and y \[12\]"),
        (lambda: taskset(k=2), ValueError, "more than shots=2: use KShots"),
        (lambda: taskset(k=7), ValueError, "as many drawings as KShots"),
        (lambda: taskset(n=4), ValueError, "as many classes as NWays"),
        (lambda: taskset(k=30, replacement=True), ValueError, "holds a drawing twice"),
        (lambda: taskset(n_tasks=2), ValueError, "keeps 2; ask for fewer"),
        (lambda: import_learn2learn().data.Taskset(Wrong("right")), ValueError, "has no task_transforms"),
        (lambda: Wrong("right"), TypeError, "pass a learn2learn.data.Taskset"),
    ],
)
def test_corrupt_tasks_are_named(made, error, message):
    with pytest.raises(error, match=message):
        from_learn2learn(made(), 3, shots=2)


def test_tasks_of_other_sizes_and_other_pools_are_refused(pool):
    data = import_learn2learn().data
    dataset = to_learn2learn(pool)
    ways = iter((2, 3))

    def varying(description):
        description = data.transforms.FusedNWaysKShots(dataset, n=next(ways), k=3)(description)
        return data.transforms.LoadData(dataset)(description)

    with pytest.raises(ValueError, match=r"different \(ways, queries\) \[\(2, 4\), \(3, 6\)\]"):
        from_learn2learn(data.Taskset(dataset, varying), 2, shots=1)
    other = ClassPool(pool.x + 1, pool.y, pool.names, pool.parents)
    with pytest.raises(ValueError, match="not those of the pool"):
        from_learn2learn(to_learn2learn(pool, ways=2, shots=1, queries=1), 2, shots=1, pool=other)


def test_a_pool_too_small_is_refused_before_learn2learn_sees_it(pool):
    with pytest.raises(ValueError, match="has 8 classes, a task needs 9"):
        to_learn2learn(pool, ways=9, shots=1)
    with pytest.raises(ValueError, match="has 6 drawings, a task needs 7"):
        to_learn2learn(pool, ways=2, shots=3, queries=4)
    with pytest.raises(ValueError, match="pass both"):
        to_learn2learn(pool, ways=2)
    with pytest.raises(ValueError, match="shots=0"):
        from_learn2learn(to_learn2learn(pool, ways=2, shots=1), 1, shots=0)

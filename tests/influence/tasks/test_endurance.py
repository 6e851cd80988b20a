"""A buffered run that is killed goes on to the same bits; a worker that dies loses its block only.

``EXPLAINLIB_KILLS=20 python -m pytest tests/influence/tasks/test_endurance.py`` kills it twenty times.
"""

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from explainlib.influence import TaskInfluence
from explainlib.meta.task_map import WorkerWarning, map_blocks
from explainlib.risk import NotAtMinimumWarning
from tests.meta.few_shot import DOUBLE, random_tasks, tanh_maml

KILLS = int(os.environ.get("EXPLAINLIB_KILLS", "1"))
BLOCKS = 6


def buffered(store):
    """One run in two processes, which writes after every step."""
    sys.modules["explainlib.meta.gauss_newton.buffer"].STEPS_PER_WRITE = 1
    learner = tanh_maml(steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        options = {"curvature": "gauss_newton", "buffer": 9, "compress": 6, "processes": 2, "store": store}
        found = TaskInfluence(learner, learner.w0, random_tasks(80), **options)
    return {"meta": found.meta.contiguous(), "numbers": torch.tensor([found.captured, found.rank], dtype=DOUBLE)}


def start(store, out):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.influence.tasks.test_endurance", str(store), str(out)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with process.stdout as told:
        assert told.readline() == "ready\n"
    return process


def finished(store, out):
    process = start(store, out)
    began = time.perf_counter()
    assert process.wait(timeout=300) == 0
    return load_file(out), time.perf_counter() - began


def test_killed_runs_go_on_to_the_same_bits(tmp_path):
    whole, seconds = finished(tmp_path / "whole", tmp_path / "whole.out")
    draw, half_way = random.Random(0), 0
    for k in range(KILLS):
        store, out = tmp_path / f"store{k}", tmp_path / f"{k}.out"
        process = start(store, out)
        time.sleep(draw.uniform(0, seconds))
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.wait()
        half_way += (store / "buffer.safetensors").exists() and not (store / "influence.safetensors").exists()
        resumed, _ = finished(store, out)
        for name, tensor in whole.items():
            assert torch.equal(resumed[name], tensor), f"{name} after kill {k}"
    print(f"{KILLS} kills, {half_way} with a part of the buffer written")


def dying_once(folder, block):
    """Square a number; the worker of block 3 dies, once, in the middle."""
    (folder / f"ran-{block}-{time.monotonic_ns()}").touch()
    if block == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return block**2


def test_a_dead_worker_loses_its_block_only(tmp_path):
    with pytest.warns(WorkerWarning, match="its tasks are computed again"):
        found = list(map_blocks(partial(dying_once, tmp_path), range(BLOCKS), 2))
    assert found == [k**2 for k in range(BLOCKS)] and (tmp_path / "died").exists()
    ran = [len(list(tmp_path.glob(f"ran-{k}-*"))) for k in range(BLOCKS)]
    assert ran[3] == 2 and sum(ran) <= BLOCKS + 2, "finished blocks are kept"


def dying_always(block):
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_again_and_again_are_told():
    with pytest.raises(RuntimeError, match="(?s)died 3 times in a row.*fewer processes, or a smaller block"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WorkerWarning)
            list(map_blocks(dying_always, [1, 2], 2))


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
        yield made


def test_a_cluster_gives_the_same_though_a_worker_dies(cluster, tmp_path):
    from distributed import Client

    learner, tasks = tanh_maml(), random_tasks(24)
    options = {"curvature": "gauss_newton", "buffer": 9, "compress": 6}
    with Client(cluster) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        alone = TaskInfluence(learner, learner.w0, tasks, **options).meta
        for processes in (client, cluster.scheduler_address):
            spread = TaskInfluence(learner, learner.w0, tasks, processes=processes, **options)
            torch.testing.assert_close(spread.meta, alone, rtol=1e-8, atol=1e-10 * float(alone.abs().max()))
        found = list(map_blocks(partial(dying_once, tmp_path), range(BLOCKS), client))
    assert found == [k**2 for k in range(BLOCKS)] and (tmp_path / "died").exists()


def test_a_closed_client_is_told(cluster):
    from distributed import Client

    client = Client(cluster)
    client.close()
    with pytest.raises(ConnectionError, match="Client that is closed"):
        list(map_blocks(abs, [1], client))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("ready", flush=True)
    save_file(buffered(Path(sys.argv[1])), sys.argv[2])

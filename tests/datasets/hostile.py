"""Reads files that mean harm, each in a process of its own: what came out, in how much time and memory.

Run as a script, it imports explainlib once and forks for every job: the reader may hang (an alarm ends it), take all
memory (a limit ends it) or crash, and the next job starts as if nothing had happened. Jobs come as JSON lines on
stdin, results go out as JSON lines.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

POOLS = ("fc100", "mini_imagenet", "omniglot")
ALARM = 20  # seconds until a hanging reader is ended
ROOM = 2 << 30  # bytes of address space beyond those of the imports
OWN = (ValueError, OSError)


def run(jobs):
    """Return one result for each job, from a fresh interpreter."""
    lines = "\n".join(json.dumps(job) for job in jobs) + "\n"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], input=lines, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def read(dataset):
    """Return what a reader makes of its folder: x, y and the texts or class names."""
    from explainlib.datasets import class_pool, load

    if dataset in POOLS:
        pool = class_pool(dataset)
        return pool.x, pool.y, pool.names
    split = load(dataset)
    return split.train.x, split.train.y, split.train.raw


def outcome(dataset, path):
    """Return the error's kind and message, and whether it is the library's own that names the file."""
    try:
        x, _, _ = read(dataset)
        return {"kind": "answer", "message": "", "own": True, "sum": round(float((x * 255).double().sum()))}
    except Exception as error:
        told = str(error)
        return {"kind": type(error).__name__, "message": told[:5_000], "length": len(told),
                "own": isinstance(error, OWN) and str(path) in told}  # fmt: skip


def crafted(job):
    """Read one crafted folder; the catalogue has to survive it too."""
    from explainlib.datasets import catalogue, pool_catalogue

    os.environ["EXPLAINLIB_DATA"] = job["root"]
    result = outcome(job["dataset"], Path(job["path"]))
    row = next(row for row in [*catalogue(), *pool_catalogue()] if row.name == job["dataset"])
    return {**result, "row": max(len(row.found or ""), len(row.how))}


def fuzz(job):
    """Read many mutations of one file; return how many were answered, and those that went wrong."""
    import mutations  # beside this script, whose folder is on the path
    import numpy as np

    from explainlib.datasets.sources import omniglot

    answered, wrong = 0, []
    good = Path(job["good"]).read_bytes()
    with tempfile.TemporaryDirectory() as root:
        os.environ["EXPLAINLIB_DATA"] = root
        folder = Path(root) / job["dataset"]
        folder.mkdir()
        for other in job["beside"]:
            (folder / Path(other).name).write_bytes(Path(other).read_bytes())
        path = folder / Path(job["good"]).name
        path.write_bytes(good)
        untouched = read(job["dataset"])
        for seed in range(job["first"], job["first"] + job["count"]):
            content = mutations.mutated(good, np.random.default_rng(seed), job["how"])
            path.write_bytes(content)
            omniglot._read.cache_clear()  # it goes by the time of writing, which is coarser than this loop
            result = outcome(job["dataset"], folder)
            answered += result["kind"] == "answer"
            if not result["own"]:
                wrong.append({"seed": seed, **result})
            elif result["kind"] == "answer" and not mutations.right(
                job["oracle"], content, read(job["dataset"]), untouched
            ):
                wrong.append({"seed": seed, "kind": "another answer", "message": ""})
    return {"answered": answered, "wrong": wrong}


def forked(job):
    """Return a job's result with its seconds and megabytes, whatever happens to the process."""
    down, up = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(down)
        pages = Path("/proc/self/statm").read_text().split()
        space, before = (int(n) * resource.getpagesize() for n in pages[:2])
        signal.alarm(ALARM * (10 if job["act"] == "fuzz" else 1))
        resource.setrlimit(resource.RLIMIT_AS, (space + ROOM, space + ROOM))
        start = resource.getrusage(resource.RUSAGE_SELF)
        result = {"crafted": crafted, "fuzz": fuzz}[job["act"]](job)
        end = resource.getrusage(resource.RUSAGE_SELF)
        seconds = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
        megabytes = (end.ru_maxrss * 1024 - before) / 2**20
        os.write(up, json.dumps({**result, "seconds": seconds, "megabytes": megabytes}).encode())
        os._exit(0)
    os.close(up)
    with os.fdopen(down, "rb") as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    if not content:
        return {"kind": f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "died", "own": False,
                "message": "", "seconds": ALARM, "megabytes": 0, "wrong": [{"kind": "crash"}], "answered": 0}  # fmt: skip
    return json.loads(content)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import torch

    import explainlib.datasets  # noqa: F401

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)

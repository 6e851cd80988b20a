"""Run the tests of a copy in a fork of a process that has loaded torch and its like, but nothing of the library."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

LOADED = [
    "torch._dynamo", "matplotlib.pyplot", "pandas", "seaborn", "scipy.stats", "ipywidgets", "hypothesis", "jaxtyping",
    "beartype", "pytest",
]  # fmt: skip
SURVIVED, DIED, LATE = "survived", "died", "timed out"


class Outcome(NamedTuple):
    """What a run of tests came to; ``by`` is the first test that failed."""

    fate: str
    by: str
    seconds: float


def load() -> None:
    """Load what every run needs; without it the first run would count that time as its own."""
    os.environ.update(OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    process = _context().Process(target=os.getpid)
    process.start()
    process.join()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


def tested(tree: Path, tests: Sequence[str], *, limit: float) -> Outcome:
    """Run tests of a copy until the first failure, or for ``limit`` seconds."""
    said, started = tree / "said.tmp", time.monotonic()
    process = _context().Process(target=_pytest, args=(str(tree), str(said), list(tests)))
    process.start()
    try:
        process.join(limit)
        late = process.is_alive()
    finally:
        _end(process)
    seconds = round(time.monotonic() - started, 1)
    if late or process.exitcode == 0:
        return Outcome(LATE if late else SURVIVED, "", seconds)
    output = said.read_text(errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", output, re.M)
    return Outcome(DIED, failed[1] if failed else output[-300:], seconds)


def _end(process: BaseProcess) -> None:
    """End a run and what it started."""
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            process.kill()
        process.join()


def _pytest(tree: str, said: str, tests: list[str]) -> None:
    """Become pytest in the folder ``tree``, from which the library is imported."""
    os.setsid()
    os.chdir(tree)
    for number in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC * (number == 1) | os.O_APPEND), number)
    if any(name.split(".")[0] == "explainlib" for name in sys.modules):
        raise RuntimeError("explainlib was imported before the change; it would not be seen.")
    for name in [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "tests")]:
        del sys.modules[name]
    sys.path[:] = [tree, *(path for path in sys.path if path and not Path(path, "explainlib").exists())]

    import pytest

    code = pytest.main(["-x", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:nbval", "-o", "timeout=1200", *tests])
    module = sys.modules.get("explainlib")
    if module is not None and not Path(module.__file__).is_relative_to(tree):
        raise RuntimeError(f"explainlib came from {module.__file__}, not from {tree}; no change was seen.")
    os._exit(int(code))

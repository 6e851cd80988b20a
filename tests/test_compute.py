"""The machine is given back as it was found: threads and denormals, after success, error, interrupt and nesting."""

import os
import platform
import subprocess
import sys
import threading

import pytest
import torch

from explainlib import compute
from tests.problems import logistic_risk, normal


@pytest.fixture(autouse=True)
def restored():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def state():
    return torch.get_num_threads(), compute.flushes_denormals()


def tiny():
    return float(torch.tensor(1e-310, dtype=torch.float64) * 0.5)


@pytest.mark.parametrize("flushed", [False, True])
def test_the_probe_tells_the_state(flushed):
    torch.set_flush_denormal(flushed)
    assert compute.flushes_denormals() == flushed and (tiny() == 0) == flushed


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_both_are_put_back(flushed, threads, error):
    torch.set_flush_denormal(flushed)
    torch.set_num_threads(threads)
    before = state()
    try:
        with compute.settings(10):
            assert state() == (1, True)
            with compute.settings(10**12):  # nested: the outermost block decides
                assert state() == (1, True)
            assert state() == (1, True)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert state() == before
    with compute.settings():
        assert compute.flushes_denormals()  # and it works again


def test_entries_set_and_restore(monkeypatch):
    risk, seen = logistic_risk(12), []
    torch.set_num_threads(2)

    @compute.entry
    def probe(risk):
        seen.append(state())

    probe(risk)
    monkeypatch.setattr(compute, "SMALL_WORK", 10)
    probe(risk)
    probe(risk=risk)
    assert seen == [(1, True), (2, True), (2, True)] and state() == (2, False)


def test_an_entry_keeps_its_name_and_answer():
    @compute.entry
    def double(x):
        """Return 2 x."""
        return 2 * x

    assert double(3) == 6 and double.__name__ == "double" and double.__doc__ == "Return 2 x."


@pytest.mark.parametrize("work", ["losses", "gradient", "value", "outputs", "loss_gradients"])
def test_every_method_of_a_risk_is_an_entry(work):
    before = state()
    getattr(logistic_risk(12), work)()
    assert state() == before


def test_threads_for(monkeypatch):
    monkeypatch.delenv("EXPLAINLIB_THREADS", raising=False)
    torch.set_num_threads(2)
    assert compute.threads_for(compute.SMALL_WORK - 1) == 1 and compute.threads_for(compute.SMALL_WORK) == 2
    monkeypatch.setenv("EXPLAINLIB_THREADS", "3")
    assert compute.threads_for(0) == compute.threads_for(10**12) == 3
    with compute.settings(0):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1.5"])
def test_a_bad_variable_is_refused_and_nothing_is_left_changed(monkeypatch, value):
    monkeypatch.setenv("EXPLAINLIB_THREADS", value)
    before = state()
    with pytest.raises(ValueError, match="EXPLAINLIB_THREADS.*whole number"), compute.settings(0):
        pass
    assert state() == before
    monkeypatch.delenv("EXPLAINLIB_THREADS")
    with compute.settings(0):
        assert compute.flushes_denormals()


def test_denormals_do_not_change_an_answer_that_matters():
    risk = logistic_risk(12)
    quiet = risk.at(1e-309 * normal(risk.p))
    assert torch.allclose(quiet.value(), risk.at(0 * risk.theta).value())


def test_a_second_thread_gets_its_answer():
    """The other thread keeps its own denormal state; it must not deadlock, fail or leave ours changed."""
    risk, answers, before = logistic_risk(12), [], state()
    with compute.settings(0):
        thread = threading.Thread(target=lambda: answers.append(risk.value()))
        thread.start()
        thread.join(20)
    assert torch.allclose(answers[0], risk.value()) and state() == before


def test_the_report_is_a_sentence(monkeypatch):
    monkeypatch.setenv("EXPLAINLIB_THREADS", "1")
    assert "EXPLAINLIB_THREADS=1" in compute.thread_report() and "denormals are kept" in compute.thread_report()


FAULTS = """
import resource, torch
from explainlib import compute
with compute.settings():
    pass
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(200_000, dtype=torch.float64) for _ in range(8)]
    del held
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, compute.keep_freed_memory())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_is_used_again_unless_the_user_has_chosen():
    """Eight arrays of 1.6 MB are 3,125 pages; all of them fault again where the memory was given back.

    Without either it depends: glibc raises its thresholds where somebody has freed something larger before.
    """
    plain = {name: value for name, value in os.environ.items() if name not in compute.OWN_CHOICES}
    own = {**plain, "MALLOC_TRIM_THRESHOLD_": "131072"}
    seen = {}
    for name, environment in (("kept", plain), ("own choice", own)):
        run = subprocess.run(
            [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True
        )
        faults, kept = run.stdout.split()
        seen[name] = int(faults), kept == "True"
    assert seen["kept"][0] < 100 and seen["kept"][1]
    assert seen["own choice"][0] > 2000 and not seen["own choice"][1]


RETURNED = """
import psutil, torch
from explainlib import compute
compute.keep_freed_memory()
arrays = [torch.zeros(2**18) for _ in range(100)]  # 100 MB
small = [array[:1].clone() for array in arrays[::2]]
last = torch.zeros(2**10)  # above them in the heap
del arrays
resident = psutil.Process().memory_info().rss
returned = compute.return_freed_memory()
print(resident - psutil.Process().memory_info().rss, returned)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_is_returned_on_request():
    run = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, check=True)
    freed, returned = run.stdout.split()
    assert int(freed) > 3e7 and returned == "True"  # free() itself gave back what exceeds 64 MB

"""Kernels that are forks: loaded already, apart from each other, and gone with whoever asked for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from explainlib.serving import PAGES
from explainlib.serving.server import serve, write_pages

WARM = """
import sys
from explainlib.serving.forks import KernelForks
shared = 41
with KernelForks(sys.argv[1]) as forks:
    print("ready", flush=True)
    while True:
        forks.handle_request()
"""


@pytest.fixture
def warm(tmp_path):
    """Return a warm process and the kernels' specification that leads to it."""
    address = tmp_path / "socket"
    write_pages(tmp_path, address)
    process = subprocess.Popen([sys.executable, "-c", WARM, str(address)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process, KernelSpecManager(kernel_dirs=[str(tmp_path / "jupyter" / "kernels")])
    process.kill()
    process.communicate()


@pytest.fixture
def start(warm):
    """Return a function that starts a kernel, and returns its manager and a function that evaluates in it."""
    managers = []

    def started():
        manager = KernelManager(kernel_name="python3", kernel_spec_manager=warm[1])
        managers.append(manager)
        manager.start_kernel()
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)

        def evaluate(expression):
            reply = client.execute_interactive("", user_expressions={"x": expression}, timeout=60, silent=False)
            return reply["content"]["user_expressions"]["x"]["data"]["text/plain"]

        return manager, evaluate

    yield started
    for manager in managers:
        manager.shutdown_kernel(now=True)


def gone(pid, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.timeout(200)
def test_a_kernel_is_a_loaded_fork_and_shares_nothing_with_the_next(warm, start):
    (_, one), (_, other) = start(), start()
    assert one("__import__('os').getppid()") == other("__import__('os').getppid()") == str(warm[0].pid)
    assert one("__import__('os').getpid()") != other("__import__('os').getpid()")
    assert one("'torch' in __import__('sys').modules") == "True"
    assert one("__import__('explainlib').__dict__.setdefault('mark', 1)") == "1"
    assert other("hasattr(__import__('explainlib'), 'mark')") == "False"


@pytest.mark.timeout(200)
def test_a_kernel_ends_when_it_is_shut_down_or_when_its_asker_is_killed(warm, start):
    (manager, first), (killed, second) = start(), start()
    pids = [int(evaluate("__import__('os').getpid()")) for evaluate in (first, second)]
    manager.shutdown_kernel()
    assert gone(pids[0]) and psutil.pid_exists(pids[1])
    os.kill(killed.provisioner.pid, signal.SIGKILL)
    assert gone(pids[1])
    assert warm[0].poll() is None


def test_the_list_of_pages_needs_nothing_from_outside(tmp_path):
    environment = write_pages(tmp_path, tmp_path / "socket")
    assert environment["JUPYTER_PATH"].split(os.pathsep)[0] == str(tmp_path / "jupyter")
    assert sorted(path.stem for path in (tmp_path / "pages").iterdir()) == sorted(PAGES)
    template = tmp_path / "jupyter" / "voila" / "templates" / "explainlib"
    shown = (template / "tree.html").read_text()
    assert all(f"voila/render/{name}.ipynb" in shown for name in PAGES)
    assert "https://" not in shown + (template / "index.html.j2").read_text()


@pytest.mark.parametrize("wrong", [{"port": 0}, {"idle": -1}])
def test_a_port_or_a_time_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        serve(**wrong)

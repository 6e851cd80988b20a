"""The library on a simulated device: every public call agrees with the CPU, mixes no devices, and says where it waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.device import calls  # noqa: F401  registers the rows
from tests.device.document import loops, page
from tests.device.refusals import CASES, WAITS
from tests.device.table import CALLS, NO_DEVICE, called_names, public

DOCUMENT = "docs/devices.md"


@pytest.fixture(scope="module")
def seen(repository):
    """What one process saw that ran the whole table; the device has to be known before the first backward pass."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.device"],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.timeout(1600)
def test_the_device_refuses_what_cuda_refuses(seen):
    wrong = {
        name: seen["refusals"]["errors"][name]
        for name, (_, word) in CASES.items()
        if (seen["refusals"]["errors"][name] == "") != (word is None) or word and word not in seen["refusals"]["errors"][name]
    }  # fmt: skip
    assert not wrong
    assert (
        sum(word is not None for _, word in CASES.values()) >= 15
        and sum(word is None for _, word in CASES.values()) >= 8
    )


def test_the_device_counts_what_the_host_waits_for(seen):
    assert [name for name in WAITS if not seen["refusals"]["counted"][name]] == []
    assert seen["refusals"]["of arithmetic"] == 0


@pytest.mark.parametrize("name", CALLS)
def test_a_call_agrees_with_the_cpu_and_mixes_no_devices(seen, name):
    assert not seen["rows"][name]["faults"]


def test_every_public_name_has_a_row_or_a_reason():
    """A new public name fails here until it is in a row of tests/device/calls, or among those that need no device."""
    rows = {name for row in CALLS.values() for name in row.names}
    assert rows | set(NO_DEVICE) == set(public())
    assert not rows & set(NO_DEVICE)


@pytest.mark.parametrize("name", CALLS)
def test_a_row_calls_what_it_names(seen, name):
    """Each name is in the row's source; a class also counts where one of its members is, or its results are of it."""
    row, said, kinds = CALLS[name], called_names(CALLS[name].run), set(seen["rows"][name]["kinds"])
    for full in row.names:
        last = full.split(".")[-1]
        of_class = any(other.startswith(f"{full}.") and other.split(".")[-1] in said for other in row.names)
        assert last in said or of_class or last in kinds, f"{name} never calls {full}"


def test_the_page_is_that_of_this_run(seen, repository):
    """Write it again with ``python -m tests.device --write``."""
    assert (repository / DOCUMENT).read_text() == page(seen["rows"])
    assert len(loops(seen["rows"])) >= 10, "a page without a wait in any loop would say that nothing was counted"


def test_every_host_result_has_its_reason():
    assert all(len(row.host.split()) >= 4 for row in CALLS.values() if row.host)
    assert all(len(reason.split()) >= 3 for reason in NO_DEVICE.values())

"""Writes docs/devices.md from a run of the table."""

from __future__ import annotations

from collections import defaultdict

from tests.device.table import CALLS, NO_DEVICE

HEAD = """# Devices

Every public function follows the device of its tensors. No GPU was at hand when this was written: what is said here was
seen on a *simulated* device, whose tensors call themselves `cuda:0`, hold their numbers on the CPU, and refuse what CUDA
refuses (`tests/device/simulated.py`). A fault of the kind that shows only on a GPU shows there too: a tensor made
without `device=`, a generator of the CPU, `.numpy()`. What it cannot show is speed, and arithmetic that rounds in
another order.

`python -m tests.device --write` runs the table and writes this page; a test holds the page to a new run.

## What was run

{rows} rows call {called} public functions, classes, methods and properties, each once on the CPU and once on the
simulated device. The results agree, all of them on the device of the arguments but for those listed here, and no
operation mixed devices. Nested forward modes (`jacfwd(jacfwd(...))`) run as well. A name that is in no row and has no
reason below fails a test. Some jobs of every study run as well, and their tables agree.

{hosts}

| names | why they need no device |
|---|---|
{exempt}

## Where the host waits for the device, again and again

Each line below reads a value of the device inside a loop of the library over steps, examples, tasks or groups, so that
the loop cannot run ahead of the device. What else waits does so once a call. Most of these are checks: that an adaptive
loop has converged, that a step was accepted, that numbers are finite. Conjugate gradients and batches of LiSSA ask at
every eighth step on a device that is not the CPU.

Not listed are pictures and panels, which read what they show; studies, which loop over their calls; files; and the
checks of data and of a model, which are made once for each data set, task set or shape.

| where | what waits |
|---|---|
{waits}
"""


APART = ("figures", "panels", "storage", "gate", "datasets", "checks.py", "explanation.py")


def loops(rows: dict[str, dict]) -> set[tuple[str, str, str, str]]:
    """Return the waits inside loops: (file, function, code, kind), without the rooms of ``APART``."""
    waits = [tuple(wait[:4]) for name, row in rows.items() if CALLS[name].names for wait in row["waits"] if wait[4]]
    return {wait for wait in waits if wait[0].split("/")[1] not in APART}


def code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


def page(rows: dict[str, dict]) -> str:
    """Return the page, from what every row did."""
    reasons = defaultdict(list)
    for name, reason in NO_DEVICE.items():
        reasons[reason].append(name)
    exempt = "\n".join(
        f"| {', '.join(f'`{name}`' for name in names)} | {reason} |" for reason, names in reasons.items()
    )
    named = [row for row in CALLS.values() if row.host and row.names]
    hosts = [f"- {', '.join(f'`{name}`' for name in row.names)}: {row.host}" for row in named]
    waits = [
        f"| `{file.removeprefix('explainlib/')}` {function} | {kind}: {code(text)} |"
        for file, function, text, kind in sorted(loops(rows))
    ]
    called = sum(len(row.names) for row in CALLS.values())
    return HEAD.format(rows=len(CALLS), called=called, hosts="\n".join(hosts), exempt=exempt, waits="\n".join(waits))

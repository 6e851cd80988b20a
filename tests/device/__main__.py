"""``python -m tests.device``: run every row of the table in a process of its own, and print what was seen as JSON.

With ``--write`` it writes docs/devices.md from it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.device import calls  # noqa: F401  registers the rows
from tests.device.document import page
from tests.device.refusals import seen
from tests.device.run import outcome
from tests.device.simulated import hidden
from tests.device.table import CALLS


def row(name: str) -> dict[str, object]:
    """Return what one row did; an error is a fault like any other."""
    started = time.process_time()
    try:
        found = outcome(name)
    except Exception as error:  # any error of a row is what the test shows
        at = error.__traceback__
        while at.tb_next is not None and "explainlib" in at.tb_next.tb_frame.f_code.co_filename:
            at = at.tb_next
        where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
        return {"faults": [f"{type(error).__name__} at {where}: {error}"[:600]], "waits": [], "kinds": [], "seconds": 0}
    waits = [[*vars(wait).values(), count] for wait, count in sorted(found.record.waits.items(), key=str)]
    spent = round(time.process_time() - started, 2)
    return {"faults": list(found.faults), "waits": waits, "kinds": sorted(found.kinds), "seconds": spent}


def main(arguments: list[str]) -> None:
    hidden()  # before the first backward pass of this process
    names = [name for name in arguments if name != "--write"] or list(CALLS)
    found = {"refusals": seen(), "rows": {name: row(name) for name in names}}
    if "--write" in arguments:
        (Path(__file__).parents[2] / "docs" / "devices.md").write_text(page(found["rows"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])

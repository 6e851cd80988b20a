"""``python -m benchmarks.peers``: run the races that are not in the record yet, and write the page.

Names choose races; ``--again`` runs them although they are in the record; ``--quick`` rehearses them in seconds, into
another record; ``--page`` only writes the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.peers import harness, page, record
from benchmarks.peers.races import RACES


def main(given: list[str] | None = None) -> int:
    """Run what the command asks for; return 1 if a race failed."""
    options = _options(given)
    if options.child:
        words = json.loads(options.child)
        harness.child(RACES[words["race"]], words)
        return 0
    path = options.record or (record.REHEARSAL if options.quick else record.RECORD)
    if options.page:
        page.write(path, options.out)
        return 0
    failed = False
    for name in options.races or RACES:
        failed |= not record.run(RACES[name], path, quick=options.quick, again=options.again)
    if not options.quick or options.out:
        page.write(path, options.out)
    return int(failed)


def _options(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("races", nargs="*", metavar="RACE", help=", ".join(RACES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    unknown = set(options.races) - set(RACES)
    if unknown:
        parser.error(f"races {sorted(unknown)} are unknown; choose from {', '.join(RACES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks``: print every ratio, mark those below their bar; ``groups``, ``representers`` are large."""

from __future__ import annotations

import sys
import warnings

from benchmarks import bilevel, ensembles, gate, groups, influence, representers, tasks
from benchmarks.timing import table
from explainlib import NotAtMinimumWarning, compute


def main(chosen: list[str]) -> None:
    """Run the benchmarks under the same settings for both sides, and print their table.

    Without words all but "groups" and "representers", which take minutes and several GB.
    """
    rooms = {
        "gate": gate,
        "influence": influence,
        "ensembles": ensembles,
        "groups": groups,
        "tasks": tasks,
        "bilevel": bilevel,
        "representers": representers,
    }
    unknown = set(chosen) - set(rooms)
    if unknown:
        raise SystemExit(f"benchmarks {sorted(unknown)} are unknown; choose from {', '.join(rooms)}.")
    with warnings.catch_warnings(), compute.settings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        names = chosen or ["gate", "influence", "ensembles", "tasks", "bilevel"]
        print(table([row for name in names for row in rooms[name].rows()]))


if __name__ == "__main__":
    main(sys.argv[1:])

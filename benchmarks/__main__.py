"""``python -m benchmarks``: print every ratio, mark those below their bar; some are large and named only.

``python -m benchmarks quality`` prints what is right and what is refused instead, and fails on anything else; with
``--write`` it also writes docs/quality.md. ``python -m benchmarks mutants --seed 1`` runs tests against a sample of
small changes.
"""

from __future__ import annotations

import sys
import warnings

import torch

from benchmarks import bilevel, cnn_tasks, ensembles, gate, groups, influence, mutants, quality, representers, tasks
from benchmarks.timing import table
from explainlib import NotAtMinimumWarning, compute


def main(chosen: list[str]) -> None:
    """Run the benchmarks under the same settings for both sides, and print their table.

    Without words all but "groups", "representers" and "cnn", which take minutes and several GB.
    """
    rooms = {
        "gate": gate,
        "influence": influence,
        "ensembles": ensembles,
        "groups": groups,
        "tasks": tasks,
        "cnn": cnn_tasks,
        "bilevel": bilevel,
        "representers": representers,
    }
    if chosen[:1] == ["quality"] and set(chosen[1:]) <= {"--write"}:
        raise SystemExit(judge(write="--write" in chosen))
    if chosen[:1] == ["mutants"]:
        raise SystemExit(mutants.main(chosen[1:]))
    unknown = set(chosen) - set(rooms)
    if unknown:
        raise SystemExit(f"benchmarks {sorted(unknown)} are unknown; choose from {', '.join(rooms)}, or quality alone.")
    with warnings.catch_warnings(), compute.settings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        names = chosen or ["gate", "influence", "ensembles", "tasks", "bilevel"]
        print(table([row for name in names for row in rooms[name].rows()]))


def judge(*, write: bool) -> int:
    """Print the tables of right and refused; return 1 if a cell is neither."""
    torch.set_num_threads(1)
    double, single = quality.measured(), quality.measured(functions=quality.SINGLE, dtype=torch.float32)
    page = quality.document(double, single)
    print(page)
    if write:
        quality.PAGE.write_text(page + quality.written_by_hand(quality.PAGE.read_text()))
    bad = quality.third_states(double, single)
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    main(sys.argv[1:])

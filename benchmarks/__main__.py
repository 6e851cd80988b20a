"""``python -m benchmarks``: print every ratio; exit with 1 if one stays below its bar."""

from __future__ import annotations

import sys
import warnings

from benchmarks import ensembles, influence
from benchmarks.timing import table
from explainlib import NotAtMinimumWarning, compute


def main() -> int:
    """Run all benchmarks under the same settings for both sides, and print their table."""
    with warnings.catch_warnings(), compute.settings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        rows = [*influence.rows(), *ensembles.rows()]
    print(table(rows))
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

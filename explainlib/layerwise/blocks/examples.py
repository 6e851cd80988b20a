"""Rows of gradients and the examples they belong to: several cotangents give an example several rows, side by side."""

from __future__ import annotations


def example_slice(rows: slice, rows_per_example: int) -> slice:
    """Return the examples that a slice of rows belongs to."""
    return slice(rows.start // rows_per_example, -(-rows.stop // rows_per_example))

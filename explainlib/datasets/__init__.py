"""Data to explain: one file per source, and one function, ``load``, that finds them by name."""

from __future__ import annotations

from explainlib.datasets.examples import Examples, Split, stratified_split
from explainlib.datasets.registry import catalogue, fetch, load

__all__ = ["Examples", "Split", "catalogue", "fetch", "load", "stratified_split"]

"""Data to explain: one file per source, and functions that find them by name; few-shot tasks drawn from pools."""

from __future__ import annotations

from explainlib.datasets.class_pools import class_pool, fetch_pool, pool_catalogue
from explainlib.datasets.examples import Examples, Split, stratified_split
from explainlib.datasets.features import Standardiser, spectrum, standardiser
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.registry import catalogue, fetch, load
from explainlib.datasets.sources.text import redacted, tokenized
from explainlib.datasets.tasks import (
    Tasks,
    darkened,
    flipped_label_tasks,
    flipped_labels,
    fresh_queries,
    from_learn2learn,
    noise_tasks,
    pictured,
    rotated,
    rotation_augmentation,
    sample_tasks,
    task_features,
    to_learn2learn,
)
from explainlib.datasets.tokenizer import Tokenizer
from explainlib.datasets.visual_words import VisualWords

__all__ = [
    "ClassPool",
    "Examples",
    "Split",
    "Standardiser",
    "Tasks",
    "Tokenizer",
    "VisualWords",
    "catalogue",
    "class_pool",
    "darkened",
    "fetch",
    "fetch_pool",
    "flipped_label_tasks",
    "flipped_labels",
    "fresh_queries",
    "from_learn2learn",
    "load",
    "noise_tasks",
    "pictured",
    "pool_catalogue",
    "redacted",
    "rotated",
    "rotation_augmentation",
    "sample_tasks",
    "spectrum",
    "standardiser",
    "stratified_split",
    "task_features",
    "to_learn2learn",
    "tokenized",
]

"""Data to explain: one file per source, and functions that find them by name; few-shot tasks drawn from pools."""

from __future__ import annotations

from explainlib.datasets.class_pools import class_pool, fetch_pool, pool_catalogue
from explainlib.datasets.examples import Examples, Split, stratified_split
from explainlib.datasets.features import Standardiser, spectrum, standardiser
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.registry import catalogue, fetch, load
from explainlib.datasets.sources.text import load_tokenized, redact_text
from explainlib.datasets.streams import InputLayout, StreamedRows, streamed
from explainlib.datasets.tasks import (
    Tasks,
    darken,
    flip_labels,
    flip_task_labels,
    fresh_queries,
    from_learn2learn,
    noise_tasks,
    parent_tasks,
    rotate,
    rotation_augmentation,
    sample_tasks,
    task_features,
    to_learn2learn,
    turned_copies,
    with_images,
)
from explainlib.datasets.tokenizer import Tokenizer
from explainlib.datasets.visual_words import VisualWords

__all__ = [
    "ClassPool",
    "Examples",
    "InputLayout",
    "Split",
    "Standardiser",
    "StreamedRows",
    "Tasks",
    "Tokenizer",
    "VisualWords",
    "catalogue",
    "class_pool",
    "darken",
    "fetch",
    "fetch_pool",
    "flip_labels",
    "flip_task_labels",
    "fresh_queries",
    "from_learn2learn",
    "load",
    "load_tokenized",
    "noise_tasks",
    "parent_tasks",
    "pool_catalogue",
    "redact_text",
    "rotate",
    "rotation_augmentation",
    "sample_tasks",
    "spectrum",
    "standardiser",
    "stratified_split",
    "streamed",
    "task_features",
    "to_learn2learn",
    "turned_copies",
    "with_images",
]

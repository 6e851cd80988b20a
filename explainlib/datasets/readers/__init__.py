"""Readers of official file formats that never execute what they read."""

from explainlib.datasets.readers.archives import LARGEST_DIRECTORY, member_content, open_zip
from explainlib.datasets.readers.idx import idx_count, read_idx
from explainlib.datasets.readers.npz import PlainNpz
from explainlib.datasets.readers.plain_pickle import read_plain_pickle

__all__ = [
    "LARGEST_DIRECTORY",
    "PlainNpz",
    "idx_count",
    "member_content",
    "open_zip",
    "read_idx",
    "read_plain_pickle",
]

"""Data that are read in batches and never held whole: map-style datasets and loaders as ``Examples``."""

from explainlib.datasets.streams.layout import InputLayout
from explainlib.datasets.streams.rows import StreamedRows
from explainlib.datasets.streams.source import streamed

__all__ = ["InputLayout", "StreamedRows", "streamed"]

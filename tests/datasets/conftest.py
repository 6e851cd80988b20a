"""What the data tests share: a writer of idx files, and a place of their own for folders and cache."""

from __future__ import annotations

import gzip
import struct

import pooch
import pytest
import torch

from explainlib.datasets import files


def _idx_bytes(values):
    header = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.contiguous().numpy().tobytes()


def _write_pair(folder, part, images, labels, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        content = _idx_bytes(values)
        name = f"{part}-{kind}-ubyte" + ".gz" * packed
        (folder / name).write_bytes(gzip.compress(content) if packed else content)


@pytest.fixture(scope="session")
def idx_bytes():
    """Return the writer (uint8 tensor -> content of its idx file), made from the description, not from the reader."""
    return _idx_bytes


@pytest.fixture(scope="session")
def write_pair():
    """Return the writer of one official pair: (folder, part, images, labels, packed=True)."""
    return _write_pair


@pytest.fixture
def random_pair():
    """Return a maker of n random images with labels 0 to 9 in turn."""

    def make(n):
        images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        return images, (torch.arange(n) % 10).to(torch.uint8)

    return make


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """Return an empty folder that EXPLAINLIB_DATA names; the cache is empty too."""
    root = tmp_path / "own"
    root.mkdir()
    monkeypatch.setenv(files.VARIABLE, str(root))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache; EXPLAINLIB_DATA is not set."""
    monkeypatch.delenv(files.VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "explainlib"

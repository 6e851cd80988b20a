"""The idx reader: what a writer made from the published description comes back, and nothing damaged gets through."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explainlib.datasets.readers.idx import idx_count, read_idx

GOOD = struct.pack(">HBB3I", 0, 0x08, 3, 2, 3, 4) + bytes(range(24))
PACKED = gzip.compress(GOOD, mtime=0)


def promising(*shape, kind=0x08, values=b""):
    """Return an idx file whose header promises this shape."""
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + values


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), packed=st.booleans(), seed=st.integers(0, 3))
def test_what_is_written_comes_back(idx_bytes, shape, packed, seed):
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values"
        path.write_bytes(gzip.compress(idx_bytes(values)) if packed else idx_bytes(values))
        assert torch.equal(read_idx(path, len(shape)), values)
        assert idx_count(path, len(shape)) == shape[0]


DAMAGED = {
    "empty": (b"", "0 bytes, too few"),
    "cut in the magic number": (GOOD[:3], "3 bytes, too few"),
    "cut in the header": (GOOD[:10], "ends inside its header"),
    "cut in the values": (GOOD[:-1], "= 24 values, but it holds only 23"),
    "too long": (GOOD + b"\0", "= 24 values, but it holds more"),
    "too long by one after a whole chunk": (promising(16, 256, 256, values=bytes(2**20 + 1)), "but it holds more"),
    "pickle": (b"\x80\x04" + GOOD[2:], "begins with 80 04 08 03, expected 00 00 08 03"),
    "floats": (promising(1, 1, 1, kind=0x0D, values=bytes(4)), "begins with 00 00 0d 03"),
    "two dimensions": (promising(2, 2, values=bytes(4)), "begins with 00 00 08 02"),
    "no items": (promising(0, 3, 4), "which is empty"),
    "enormous promise": (promising(2**32 - 1, 2**32 - 1, 2**32 - 1, values=b"1"), "but it holds only 1;"),
    "packing cut": (PACKED[:-9], "gzip packing is broken"),
    "checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "gzip packing is broken"),
    "packed stream": (PACKED[:10] + b"\xff" * 20, "gzip packing is broken"),
    "packing of a cut file": (gzip.compress(GOOD[:-1]), "but it holds only 23"),
    "packing of a long file": (gzip.compress(GOOD + GOOD), "but it holds more"),
    "web page": (b"<html>not found</html>", "begins with 3c 68 74 6d"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_refused_by_name(tmp_path, damage):
    content, message = DAMAGED[damage]
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value) and "replace it by the official file" in str(caught.value)


def test_a_missing_file_says_which(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere", 1)

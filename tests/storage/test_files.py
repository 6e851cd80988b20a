"""A disk that is full, a folder that is closed, two writers at once: whole files, and sentences with the path."""

import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from explainlib.storage import FINGERPRINT, Store, write_bytes, write_new
from explainlib.storage.store import LARGEST_FINGERPRINT


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB; only root may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no right to mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=False)


def test_a_full_disk(small_disk):
    store = Store(small_disk / "s", {"a": 1})
    store.save("small", {"x": torch.ones(10)})
    with pytest.raises(
        OSError, match=rf"{store.path('large')} cannot be written, .* 160,\d+ bytes.* free space"
    ) as told:
        store.save("large", {"x": torch.ones(40_000)})
    assert told.value.errno == errno.ENOSPC
    assert sorted(p.name for p in store.folder.iterdir()) == [FINGERPRINT, "small.safetensors"], "no rest of a file"
    assert torch.equal(store.load("small")["x"], torch.ones(10))


def test_a_read_only_disk(small_disk):
    store = Store(small_disk / "s", {"a": 1})
    store.save("small", {"x": torch.ones(10)})
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    again = Store(small_disk / "s", {"a": 1})
    assert torch.equal(again.cached("small", lambda: pytest.fail("made again"))["x"], torch.ones(10))
    with pytest.raises(
        OSError, match=rf"{again.path('other')} cannot be written \(Read-only.* make its folder writable"
    ):
        again.save("other", {})
    with pytest.raises(OSError, match="cannot be written"):
        Store(small_disk / "new", {"a": 1})


def test_one_of_many_writers_is_first(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda k: write_new(f"{k}\n" * 1000, path), range(8)))
    assert wrote.count(True) == 1 and path.read_text() == f"{wrote.index(True)}\n" * 1000
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_disk_without_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    assert write_new("one", tmp_path / "a") and (tmp_path / "a").read_text() == "one"
    assert not write_new("two", tmp_path / "a") and (tmp_path / "a").read_text() == "one"


def test_a_file_on_the_way_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    for write in (lambda p: write_new("x", p), lambda p: write_bytes(b"x", p)):
        with pytest.raises(OSError, match="file"):
            write(tmp_path / "file" / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace('"store format": 2', '"store format": 3'),
            r"another version of explainlib \(format 3",
        ),
        (lambda text: text.replace('  "store format": 2,\n', ""), r"another version of explainlib \(format 1"),
        (lambda text: "[" * 100_000, "cannot be read"),
        (lambda text: "é".encode("latin-1").decode("latin-1") + text, "cannot be read"),
    ],
)
def test_other_formats_and_crafted_fingerprints(tmp_path, change, message):
    Store(tmp_path, {"a": 1, "x": 2})
    path = tmp_path / FINGERPRINT
    path.write_text(change(path.read_text()))
    for opened in (lambda: Store(tmp_path, {"a": 1, "x": 2}), lambda: Store.open(tmp_path)):
        with pytest.raises(ValueError, match=message):
            opened()


def test_a_long_fingerprint_is_not_read(tmp_path):
    with (tmp_path / FINGERPRINT).open("wb") as file:
        file.truncate(LARGEST_FINGERPRINT + 1)
    with pytest.raises(ValueError, match="more than 67,108,864 bytes"):
        Store(tmp_path, {"a": 1})


def test_a_changed_fingerprint_opens_no_files(tmp_path):
    Store(tmp_path, {"a": 1, "x": 2}).save("t", {"t": torch.ones(1)})
    path = tmp_path / FINGERPRINT
    path.write_text(path.read_text().replace('"a": 1', '"a": 5'))
    with pytest.raises(ValueError, match="damaged or was copied"):
        Store(tmp_path, {"a": 5, "x": 2}).load("t")

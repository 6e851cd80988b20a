"""Finding and fetching files: whose folder wins, and that nothing but the published file is ever used."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from explainlib.datasets import fetch, load, registry
from explainlib.datasets.files import SourceFile, data_root, download, locate

CONTENT = b"what was published"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without writing a line for each request."""

    def log_message(self, *args):
        """Write nothing."""


@pytest.fixture
def server(tmp_path):
    """Return the address of a server on this machine, and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", folder
        running.shutdown()


def test_a_download_with_the_published_hash_is_kept(cache, server):
    address, served = server
    (served / "a.gz").write_bytes(CONTENT)
    file = SourceFile("a.gz", address + "a.gz", SHA256)
    assert download("letters", file) == cache / "letters" / "a.gz"
    (served / "a.gz").unlink()
    assert download("letters", file).read_bytes() == CONTENT, "the second time nothing is downloaded"


def test_a_tampered_download_is_refused_and_leaves_nothing(cache, server):
    address, served = server
    (served / "a.gz").write_bytes(CONTENT + b"!")
    with pytest.raises(ValueError, match="is not the published file") as caught:
        download("letters", SourceFile("a.gz", address + "a.gz", SHA256))
    message = str(caught.value)
    assert SHA256 in message and hashlib.sha256(CONTENT + b"!").hexdigest() in message
    assert str(cache / "letters") in message
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_an_unreachable_file_says_where_to_put_it(cache, server):
    address, _ = server
    with pytest.raises(ConnectionError, match="could not be downloaded") as caught:
        download("letters", SourceFile("a.gz", address + "a.gz", SHA256))
    assert str(cache / "letters") in str(caught.value)


def test_a_file_without_a_verified_hash_is_not_downloaded(cache, server):
    address, served = server
    (served / "a.gz").write_bytes(CONTENT)
    with pytest.raises(ValueError, match="no verified sha256") as caught:
        download("letters", SourceFile("a.gz", address + "a.gz"))
    assert address in str(caught.value) and str(cache / "letters") in str(caught.value) and not cache.exists()


def test_a_tampered_file_in_the_cache_is_put_aside_and_never_read(cache, write_pair, random_pair):
    """The files are well-formed, so only the hash can tell that they are not the published ones."""
    write_pair(cache / "mnist", "t10k", *random_pair(100))
    with pytest.raises(ValueError, match="expected 167310007f03") as caught:
        load("mnist")
    assert "t10k-images-idx3-ubyte.gz.rejected" in str(caught.value) and "explainlib data mnist" in str(caught.value)
    assert not (cache / "mnist" / "t10k-images-idx3-ubyte.gz").exists()
    assert (cache / "mnist" / "t10k-images-idx3-ubyte.gz.rejected").exists()


def test_the_own_folder_wins_and_is_used_as_found(data_root, cache_beside, write_pair, random_pair):
    write_pair(data_root / "mnist", "t10k", *random_pair(100))
    assert len(load("mnist").train) == 90
    file = SourceFile("b", "http://127.0.0.1/")
    (cache_beside / "letters").mkdir(parents=True)
    (cache_beside / "letters" / "b").write_bytes(CONTENT)
    assert locate("letters", [file]) == {"b": cache_beside / "letters" / "b"}
    (data_root / "letters").mkdir()
    (data_root / "letters" / "b").write_bytes(CONTENT)
    assert locate("letters", [file]) == {"b": data_root / "letters" / "b"}


@pytest.fixture
def cache_beside(data_root):
    """Return the cache that stands beside the own folder."""
    return data_root.parent / "cache" / "explainlib"


def test_two_folders_are_never_mixed(data_root, cache_beside, write_pair, random_pair):
    write_pair(cache_beside / "letters", "t10k", *random_pair(10))
    write_pair(data_root / "letters", "train", *random_pair(10))
    files = [SourceFile(f"{part}-images-idx3-ubyte.gz", "") for part in ("train", "t10k")]
    assert list(locate("letters", files)) == ["train-images-idx3-ubyte.gz"]


def test_a_packed_file_is_preferred_and_an_unpacked_one_found(data_root):
    folder = data_root / "letters"
    folder.mkdir()
    (folder / "a").write_bytes(CONTENT)
    assert locate("letters", [SourceFile("a.gz", "")]) == {"a.gz": folder / "a"}
    (folder / "a.gz").write_bytes(CONTENT)
    assert locate("letters", [SourceFile("a.gz", "")]) == {"a.gz": folder / "a.gz"}


def test_a_wrong_folder_setting_is_an_error_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPLAINLIB_DATA", "relative/folder")
    for call in (data_root, lambda: load("mnist")):
        with pytest.raises(ValueError, match="'relative/folder' is a relative path; give the whole one, e.g. '/"):
            call()
    monkeypatch.setenv("EXPLAINLIB_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="gone' is not a folder; create it, or unset"):
        data_root()
    (row,) = (row for row in registry.catalogue() if row.name == "mnist")
    assert row.found is None and "is not a folder" in row.how
    assert len(load("iris").test) == 30, "embedded data need no folder"
    monkeypatch.setenv("EXPLAINLIB_DATA", "")
    assert data_root() is None


def test_fetch_takes_what_is_verified_and_names_the_rest(cache, server, monkeypatch, caplog):
    address, served = server
    (served / "a").write_bytes(CONTENT)
    files = (SourceFile("a", address + "a", SHA256), SourceFile("more", address + "more", optional=True))
    monkeypatch.setitem(registry.SOURCES, "mnist", replace(registry.SOURCES["mnist"], files=files))
    assert fetch("mnist") == {"a": cache / "mnist" / "a"}
    assert "not downloaded; put more into" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion_mnist", "no verified sha256 is known for t10k-images.* put t10k-images"),
        ("iris", "is embedded and has no files"),
        ("cifar10", "no verified sha256 is known for data_batch_1.bin and test_batch.bin"),
        ("x", "unknown; choose one of"),
    ],
)
def test_fetch_refuses_before_it_reaches_out(cache, name, message):
    with pytest.raises(ValueError, match=message):
        fetch(name)
    assert not cache.exists()


LOOKALIKES = [
    "train-images.idx3-ubyte",
    "Train-Images-idx3-ubyte.gz",
    "train-images-idx3-ubyte (1).gz",
    "train-images-idx3-ubyte.zip",
]


@pytest.mark.parametrize("name", LOOKALIKES)
def test_a_name_that_is_nearly_right_is_said_to_be_passed_over(data_root, write_pair, random_pair, name):
    """Beside a pair that is right it is a warning; where nothing else is there, it stands in the error."""
    folder = data_root / "mnist"
    write_pair(folder, "t10k", *random_pair(100))
    (folder / name).write_bytes(CONTENT)
    with pytest.warns(UserWarning, match=f"{re.escape(name)}' is not read: train-images-idx3-ubyte.gz is looked for"):
        assert len(load("mnist").train) == 90
    for path in folder.glob("t10k*"):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    with pytest.raises(
        FileNotFoundError, match=r"'t10k-images.idx3-ubyte.gz' is not read: t10k-images-idx3-ubyte.gz is"
    ):
        load("mnist")


def test_names_that_are_right_or_of_other_things_are_not_spoken_of(data_root, write_pair, random_pair, recwarn):
    write_pair(data_root / "mnist", "t10k", *random_pair(100))
    write_pair(data_root / "mnist", "t10k", *random_pair(100), packed=False)
    (data_root / "mnist" / "readme.txt").write_bytes(CONTENT)
    load("mnist")
    assert not [warning for warning in recwarn if warning.category is UserWarning]

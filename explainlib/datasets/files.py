"""Locations of a data set's files: the user's folder first, else the download cache; downloads.

``EXPLAINLIB_DATA`` names a folder with one sub-folder per data set, holding files under their official names, packed
or unpacked. They belong to the reader and are used as found. The cache belongs to this library: a file in it whose
hash is known is checked before each use.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from explainlib.checks import warn_caller
from explainlib.datasets.bounds import NAMES_SHOWN, format_value

VARIABLE = "EXPLAINLIB_DATA"
MOST_ENTRIES = 10_000  # of a folder that are looked at for names that are nearly right


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set.

    Args:
        name: the official file name, with .gz where it is published packed.
        url: where it is published.
        sha256: of the published file, if verified; None forbids the download.
        optional: the data set can be used without it.
    """

    name: str
    url: str
    sha256: str | None = None
    optional: bool = False


def data_root() -> Path | None:
    """Return the folder named by ``EXPLAINLIB_DATA``, or None if the variable is not set.

    Raises:
        ValueError: a relative path, which would mean another folder in every notebook.
        FileNotFoundError: no such folder.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return None
    root = Path(value)
    if not root.is_absolute():
        raise ValueError(f"{VARIABLE}={value!r} is a relative path; give the whole one, e.g. {str(root.absolute())!r}.")
    if not root.is_dir():
        raise FileNotFoundError(f"{VARIABLE}={value!r} is not a folder; create it, or unset the variable.")
    return root


def cache_folder(dataset: str) -> Path:
    """Return the folder that downloads of ``dataset`` go to; it need not exist."""
    from pooch import os_cache  # not with the package, which imports faster without it

    return Path(os_cache("explainlib")) / dataset


def locate(dataset: str, files: Sequence[SourceFile]) -> dict[str, Path]:
    """Return the path of every file that is there, by official name.

    All come from one folder, the first that holds any of them: ``EXPLAINLIB_DATA/<dataset>``, then the cache. Mixing
    the two could pair the images of one set with the labels of another.

    Args:
        dataset: the name of the data set, which is the name of its folder.
        files: what to look for; a name that ends in .gz is also found unpacked.

    Returns:
        The files found, in the order of ``files``; empty if there are none. Beside them a missing file's name that is
        only nearly right ("train-images.idx3-ubyte") is warned of, for that file is not read.

    Raises:
        ValueError: a relative ``EXPLAINLIB_DATA``, or a cached file that is not the published one (it is put aside).
        FileNotFoundError: ``EXPLAINLIB_DATA`` is not a folder.
    """
    root = data_root()
    if root is not None and (found := _present(root / dataset, files)):
        _warn_of_lookalikes(root / dataset, files, found)
        return found
    found = _present(cache_folder(dataset), files)
    if found:
        _warn_of_lookalikes(cache_folder(dataset), files, found)
    for file in files:
        path = found.get(file.name)
        if path is not None and file.sha256 is not None and path.name == file.name:
            _require_published(path, file.sha256)
    return found


def where_to_put(dataset: str, names: Sequence[str]) -> str:
    """Return the remedy for missing files: the folders in which they would be found, or the names that are wrong."""
    root = data_root()
    cached = cache_folder(dataset)
    own = f"{root / dataset} or {cached}" if root else f"{cached} (or <folder>/{dataset} with {VARIABLE}=<folder>)"
    folders = (root / dataset, cached) if root else (cached,)
    nearly = [said for folder in folders if (said := _lookalikes(folder, names))]
    return f"put {' and '.join(names)} into {own}" + "".join(f" ({said})" for said in nearly)


def download(dataset: str, file: SourceFile) -> Path:
    """Return the path of ``file`` in the cache, downloaded unless it is there already.

    Args:
        dataset: the name of the data set.
        file: with a known sha256.

    Raises:
        ValueError: no known sha256, or what arrived has another one (nothing is kept).
        ConnectionError: the server could not be reached or did not answer with the file.
    """
    from pooch import retrieve

    if file.sha256 is None:
        raise ValueError(
            f"{file.name} of {dataset} has no verified sha256, so it is not downloaded; get it from {file.url} "
            f"yourself and {where_to_put(dataset, [file.name])}."
        )
    folder = cache_folder(dataset)
    by_hand = where_to_put(dataset, [file.name])
    try:
        path = retrieve(file.url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=folder, progressbar=True)
    except ValueError as error:  # pooch deletes what arrived, and names both hashes
        raise ValueError(f"{file.url} is not the published file: {error} Try again later, or {by_hand}.") from error
    except OSError as error:
        raise ConnectionError(f"{file.url} could not be downloaded ({error}); try again, or {by_hand}.") from error
    return Path(path)


def _present(folder: Path, files: Sequence[SourceFile]) -> dict[str, Path]:
    """Return those of ``files`` that lie in ``folder``, packed before unpacked."""
    found = {}
    for file in files:
        for name in (file.name, file.name.removesuffix(".gz")):
            if (folder / name).is_file():
                found[file.name] = folder / name
                break
    return found


def _warn_of_lookalikes(folder: Path, files: Sequence[SourceFile], found: Mapping[str, Path]) -> None:
    """Warn of files that are not read because their names are only nearly those of missing ones."""
    if said := _lookalikes(folder, [file.name for file in files if file.name not in found]):
        warn_caller(f"in {folder}, {said}.", UserWarning)


def _lookalikes(folder: Path, names: Sequence[str]) -> str:
    """Return what to do about files in a folder whose names are nearly ``names``; empty without any."""
    if not folder.is_dir():
        return ""
    official = {name.removesuffix(".gz") for name in names} | set(names)
    wanted = {_letters(name): name for name in reversed(names)}
    nearly = [
        f"{format_value(path.name)} is not read: {wanted[_letters(path.name)]} is looked for, rename or unpack it"
        for path in sorted(islice(folder.iterdir(), MOST_ENTRIES))
        if path.name not in official and _letters(path.name) in wanted and path.is_file()
    ]
    return "; ".join(nearly[:NAMES_SHOWN])


def _letters(name: str) -> str:
    """Return the letters and digits of a name, without packing, "(1)" of a second download, and ".txt"."""
    plain = re.sub(r"( ?\(\d+\)|\.(gz|zip|bz2|xz|txt))", "", name.lower())
    return "".join(letter for letter in plain if letter.isalnum())


def _require_published(path: Path, sha256: str) -> None:
    """Pass a cached file with the published hash; rename any other, so that nothing reads it."""
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        aside = path.rename(path.with_name(path.name + ".rejected"))
        raise ValueError(
            f"{path} has sha256 {got}, expected {sha256}; it was put aside as {aside.name}. "
            f"Download it again with python -m explainlib data {path.parent.name}."
        )

"""One registered source: what it is and whose, what of it is on disk, and its files fetched."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from explainlib.datasets.files import SourceFile, download, where_to_put

Data = TypeVar("Data")


@dataclass(frozen=True)
class Source(Generic[Data]):
    """One registered data set, or one pool of classes.

    Args:
        name: what ``load`` or ``class_pool`` calls it.
        origin: where it comes from.
        licence: the terms of use.
        read: split or its seed -> data.
        files: what has to be on disk; none for embedded data.
        describe: says what was found on disk, None for nothing; absent for embedded data.
        description: one sentence about what is in it.
        citation: how to cite it; empty where the origin says so, and for data made here.
    """

    name: str
    origin: str
    licence: str
    read: Callable[..., Data]
    files: tuple[SourceFile, ...] = ()
    describe: Callable[[], str | None] | None = None
    description: str = ""
    citation: str = ""

    @property
    def kind(self) -> str:
        """Return "embedded", or "files" where something has to be on disk."""
        return "files" if self.files else "embedded"

    def entry(self) -> Entry:
        """Return the catalogue's row; a damaged file or folder setting becomes its remedy instead of an error."""
        found, how = "embedded", ""
        if self.describe is not None:
            try:
                found = self.describe()
            except (ValueError, OSError) as error:
                found, how = None, str(error)
            if found is None and not how:
                how = self._remedy()
        return Entry(self.name, self.origin, self.licence, self.kind, found, how)

    def _remedy(self) -> str:
        """Return what to do about files that are not there."""
        needed = [file for file in self.files if not file.optional]
        by_hand = where_to_put(self.name, [file.name for file in needed])
        if all(file.sha256 for file in needed):
            return f"python -m explainlib data {self.name} downloads it; or {by_hand}"
        return by_hand

    def fetch(self, call: str) -> dict[str, Path]:
        """Return the paths of the files in the download cache, downloaded where they were missing.

        Only files with a verified sha256 are downloaded; optional ones without are passed over with a warning.

        Args:
            call: what reads embedded data, for the message.

        Raises:
            ValueError: an embedded source, a needed file without a verified hash (the message says what to put where),
                or a download that is not the published file.
            ConnectionError: a file could not be downloaded.
        """
        name = self.name
        if not self.files:
            raise ValueError(f"{name} is embedded and has no files to download; call {call}({name!r}).")
        unverified = [file for file in self.files if file.sha256 is None]
        needed = [file.name for file in unverified if not file.optional]
        if needed:
            raise ValueError(
                f"no verified sha256 is known for {' and '.join(needed)} of {name}, so nothing is downloaded; "
                f"get the files from {self.origin} yourself and {where_to_put(name, needed)}."
            )
        if unverified:
            by_hand = where_to_put(name, [file.name for file in unverified])
            logging.getLogger("explainlib").warning(
                "%s: files without a verified sha256 are not downloaded; %s.", name, by_hand
            )
        return {file.name: download(name, file) for file in self.files if file.sha256 is not None}


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue.

    Args:
        name: what ``load`` calls it.
        origin: where it comes from.
        licence: the terms of use.
        kind: "embedded" or "files".
        found: available files, as a sentence; None if ``load`` would fail.
        how: what to do about that; empty if nothing needs doing.
    """

    name: str
    origin: str
    licence: str
    kind: str
    found: str | None
    how: str

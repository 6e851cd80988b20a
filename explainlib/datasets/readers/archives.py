"""Packed files, opened with bounds: a gzip stream piece by piece, a zip whose directory and members are measured first.

A directory is read whole by Python's zipfile, and a member may claim any size, share its bytes with a thousand others,
or use a packing that expands without limit; each of these is looked at before anything is unpacked.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from explainlib.datasets.bounds import format_value, truncate, unreadable_error

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
DIRECTORY = 1 << 16  # bytes of a zip's directory that are always admitted
END = struct.Struct("<4s6xH10x")  # signature, number of members; the rest of the 22 bytes before the comment
LARGEST_DIRECTORY = 5 << 20  # the largest official one has about 2.5 million
BROKEN_ZIP = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError,
    OverflowError, IndexError, KeyError, MemoryError,
)  # fmt: skip


def is_gzip(path: Path) -> bool:
    """Return whether a file begins as a gzip stream."""
    with open(path, "rb") as file:
        return file.read(2) == GZIP


def decompress(path: Path) -> Iterator[bytes]:
    """Yield the content of a gzip file in pieces of at most a million bytes; its checksum is compared at the end.

    Raises:
        ValueError: damaged packing, or anything behind the first packed part.
    """
    stream = zlib.decompressobj(wbits=31)
    with open(path, "rb") as file:
        while not stream.eof:
            packed = stream.unconsumed_tail or file.read(CHUNK)
            try:
                piece = stream.decompress(packed, CHUNK)
            except zlib.error as error:
                raise unreadable_error(path, f"its gzip packing is broken ({error})") from error
            if piece:
                yield piece
            elif not packed and not stream.eof:
                raise unreadable_error(path, "its gzip packing is broken (it ends too early)")
        if (stream.unused_data + file.read(CHUNK)).strip(b"\0"):
            raise unreadable_error(path, "its gzip packing is broken (something stands behind its end)")


class _BoundedReads(io.FileIO):
    """A file of which no more than a given number of bytes is read at once: zipfile reads directories whole."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.most, self.size = most, path.stat().st_size

    def read(self, count: int | None = -1) -> bytes:
        """Return that many bytes, or those there are."""
        left = max(0, self.size - self.tell())
        count = left if count is None or count < 0 else count
        if min(count, left) > self.most:
            raise zipfile.BadZipFile(f"its directory claims {count:,} bytes, expected at most {self.most:,}")
        return super().read(min(count, left))


@contextmanager
def open_zip(path: Path, *, largest_directory: int = DIRECTORY) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose directory is small and whose members do not share their bytes.

    Args:
        path: the file.
        largest_directory: bytes; a zip may always have 65,536, and never more than half of its own size beyond them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole zip, too large a directory, or members that together have more packed bytes than the
            file.
    """
    size = path.stat().st_size
    most = min(max(DIRECTORY, largest_directory), DIRECTORY + size // 2)
    with _BoundedReads(path, most) as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except BROKEN_ZIP as error:
            raise unreadable_error(path, f"it is not a whole zip ({truncate(str(error))})") from None
        with archive:
            _require_whole(archive, path, size)
            yield archive


def _require_whole(archive: zipfile.ZipFile, path: Path, size: int) -> None:
    """Pass a zip that has as many members as it says, with bytes of their own and whole names."""
    members = archive.infolist()
    packed = sum(member.compress_size for member in members)
    if packed > size:
        raise unreadable_error(path, f"its members claim {packed:,} packed bytes, and the whole file has {size:,}")
    cut = next((member.orig_filename for member in members if "\0" in member.orig_filename), None)
    if cut is not None:  # zipfile takes such a name for the part before
        raise unreadable_error(path, f"its member {format_value(cut)} has a zero in its name")
    with open(path, "rb") as file:
        file.seek(max(0, size - END.size - len(archive.comment)))
        signature, count = END.unpack(file.read(END.size))
    # zipfile reads as many members as the directory has room for; 65,535 stands for a number elsewhere
    if signature != b"PK\5\6" or count not in (len(members) % 2**16, 2**16 - 1):
        found = f"its end promises {count:,} members, and {len(members):,} are found"
        raise unreadable_error(path, f"it is not a whole zip ({found})")


def member_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, count: int) -> bytes:
    """Return the first ``count`` bytes of a member, or all if it has fewer.

    Raises:
        ValueError: as ``member_content``.
    """
    return bytes(_read(archive, member, path, min(count, member.file_size)))


def member_content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytearray:
    """Return the whole content of a member, its checksum compared; the caller has judged ``member.file_size``.

    Raises:
        ValueError: encrypted, packed otherwise than by zip's own method, damaged, or shorter than it claims.
    """
    return _read(archive, member, path, member.file_size)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, count: int) -> bytearray:
    """Return ``count`` bytes of a member; they are compared with its checksum where they are all."""
    name = format_value(member.filename)
    if member.flag_bits & 1:
        raise unreadable_error(path, f"its member {name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise unreadable_error(path, f"its member {name} has packing {member.compress_type}, expected 0 or 8 (deflate)")
    content, done = bytearray(count), 0
    view = memoryview(content)
    try:
        with archive.open(member) as stream:
            while done < count and (got := stream.readinto(view[done : done + (1 << 16)])):
                done += got
    except BROKEN_ZIP as error:
        raise unreadable_error(path, f"its member {name} is damaged ({truncate(str(error))})") from None
    if done < count:
        raise unreadable_error(path, f"its member {name} is damaged (it ends after {done:,} of {count:,} bytes)")
    return content

"""Files written whole or not at all, and sentences for a disk that is full or cannot be written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def write_text(text: str, path: Path) -> Path:
    """Write a text file whole or not at all, and return its path; errors as in ``write_bytes``."""
    return write_bytes(text.encode(), path)


def write_bytes(data: bytes, path: Path) -> Path:
    """Write a file whole or not at all: into a neighbour first, which then takes its name.

    Raises:
        OSError: a full disk or a folder that cannot be written; the message names the path and what to do.
    """
    _write_then_take_name(data, path, os.replace)
    return path


def write_new(text: str, path: Path) -> bool:
    """Write a text file whole unless one of that name is there, and return whether it was written.

    Of two processes that write at once exactly one succeeds (where the file system has hard links).
    """
    try:
        _write_then_take_name(text.encode(), path, os.link)
    except FileExistsError:
        if not path.exists():  # then a folder on the way is a file
            raise
        return False
    except OSError as error:
        if path.exists():
            return False
        if error.errno not in NO_LINKS:
            raise
        _write_then_take_name(text.encode(), path, os.replace)
    return True


def _write_then_take_name(data: bytes, path: Path, take_name: Callable[[str, Path], None]) -> None:
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # a temporary file is private; the one that takes its place should not be
        take_name(name, path)
    except OSError as error:
        raise _with_remedy(error, path, len(data)) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def _with_remedy(error: OSError, path: Path, size: int) -> OSError:
    """Return an error of the same kind whose sentence names the path and a remedy."""
    if error.errno in FULL:
        said = (
            f"{path} cannot be written, its disk or quota is full and {size:,} bytes are needed; free space there, or "
            "name a folder on another disk. Files that are there already are whole, and the same call goes on from them"
        )
    elif error.errno in CLOSED:
        said = f"{path} cannot be written ({os.strerror(error.errno)}); make its folder writable, or name another one"
    else:
        return error
    return OSError(error.errno, said)

"""Atomic file writes, with errors that name path and remedy."""

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
    """Write a text file atomically and return its path; errors as in ``write_bytes``."""
    return write_bytes(text.encode(), path)


def write_bytes(data: bytes, path: Path) -> Path:
    """Write a file atomically: to a temporary file in the same folder, which is then renamed.

    Raises:
        OSError: a full disk or a folder that cannot be written; the message names the path and what to do.
    """
    _write_then_rename(data, path, os.replace)
    return path


def write_new(text: str, path: Path) -> bool:
    """Write a text file atomically if none of that name exists; return whether it was written.

    Of two concurrent processes exactly one succeeds (on file systems with hard links).
    """
    try:
        _write_then_rename(text.encode(), path, os.link)
    except FileExistsError:
        if not path.exists():  # then a parent folder is a file
            raise
        return False
    except OSError as error:
        if path.exists():
            return False
        if error.errno not in NO_LINKS:
            raise
        _write_then_rename(text.encode(), path, os.replace)
    return True


def write_by(write: Callable[[Path], None], path: Path, size: int) -> Path:
    """Write a file atomically by a function that writes to a path; errors as in ``write_bytes``.

    Args:
        write: writes the whole file to the path it is given.
        path: where the file goes.
        size: bytes needed, for the message.
    """
    _place(write, path, os.replace, size)
    return path


def _write_then_rename(data: bytes, path: Path, take_name: Callable[[str, Path], None]) -> None:
    _place(lambda name: name.write_bytes(data), path, take_name, len(data))


def _place(write: Callable[[Path], None], path: Path, take_name: Callable[[str, Path], None], size: int) -> None:
    """Write a temporary file in the same folder, bring it to the disk, and let it take its name."""
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(name))
        with open(name, "rb+") as file:  # ``write`` may have put another file in its place
            os.fsync(file.fileno())  # otherwise a crash could leave an empty file under the new name
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # temporary files are private
        take_name(name, path)
    except OSError as error:
        raise _with_remedy(error, path, size) from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def _with_remedy(error: OSError, path: Path, size: int) -> OSError:
    """Return an error of the same kind with a message that names path and remedy."""
    if error.errno in FULL:
        said = (
            f"{path} cannot be written, its disk or quota is full and {size:,} bytes are needed; free space there, or "
            "name a folder on another disk. Files written before are whole, and the same call resumes from them"
        )
    elif error.errno in CLOSED:
        said = f"{path} cannot be written ({os.strerror(error.errno)}); make its folder writable, or name another one"
    else:
        return error
    return OSError(error.errno, said)

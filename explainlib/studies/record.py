"""What every study leaves on disk: tables written whole or not at all, each with how it came about."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas
import torch

from explainlib.storage import write_bytes, write_new, write_text

SEAL = "# checksum and seconds of this job:"  # begins its first line
AGAIN = "delete it, and it is computed again"


def write_table(frame: pandas.DataFrame, path: Path) -> Path:
    """Write a table as CSV with seven significant digits, whole or not at all, and return its path.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_text(as_csv(frame), path)


def as_csv(frame: pandas.DataFrame) -> str:
    """Return a table as CSV with seven significant digits."""
    return frame.to_csv(index=False, float_format="%.7g")


def write_provenance(
    path: Path,
    *,
    command: str,
    settings: Mapping[str, object],
    seconds: Mapping[str, float],
    tables: Sequence[Path] = (),
    device: torch.device | None = None,
) -> Path:
    """Write how a study came about: command, settings, versions, device, seconds, and the checksums of its tables.

    Args:
        path: of the record.
        command: that makes it again.
        settings: of the run.
        seconds: of each job.
        tables: that were written.
        device: that the study computed on; None is the CPU, whether or not there is a GPU.
    """
    on_gpu = device is not None and device.type == "cuda"
    where = f"{torch.cuda.get_device_name(device)} ({device})" if on_gpu else f"CPU, {os.cpu_count()} cores"
    record = {
        "command": command,
        "settings": dict(settings),
        "versions": {
            "explainlib": version("explainlib"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "device": where,
        "seconds": round(sum(seconds.values()), 1),
        "jobs": dict(seconds),
        "tables": {table.name: checksum(table.read_bytes()) for table in tables},
    }
    return write_text(json.dumps(record, indent=2, default=str) + "\n", path)


def checksum(data: bytes, *parts: str) -> str:
    """Return the sha256 of a file's bytes and of what else they are bound to; line ends of other systems count as ours.

    Args:
        data: of the file.
        parts: texts such as its name.
    """
    return hashlib.sha256(json.dumps(parts).encode() + data.replace(b"\r\n", b"\n")).hexdigest()


def read_record(path: Path, remedy: str) -> dict[str, object]:
    """Return the dictionary in a JSON file.

    Args:
        path: of the file.
        remedy: what to do where it cannot be read, for the message.

    Raises:
        ValueError: a damaged file.
    """
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"it is a {type(found).__name__}, not a dictionary")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged and cannot be read ({error}); {remedy}.") from error
    return found


def parse_table(data: bytes, path: Path, remedy: str) -> pandas.DataFrame:
    """Return the table in the bytes of a CSV file.

    Args:
        data: of the file.
        path: for the message.
        remedy: likewise.

    Raises:
        ValueError: bytes that are no table.
    """
    try:
        return pandas.read_csv(io.BytesIO(data))
    except ValueError as error:  # pandas' own errors and those of the encoding are ValueErrors
        raise ValueError(f"{path} is damaged and cannot be read ({error}); {remedy}.") from error


def job_minutes(paths: Sequence[Path]) -> list[str]:
    """Return one line for each job of a finished study with its minutes, from the record among its files."""
    records = [json.loads(path.read_text()) for path in paths if path.suffix == ".json"]
    return [f"{job}: {seconds / 60:.1f} minutes" for record in records for job, seconds in record["jobs"].items()]


class PartialResults:
    """What the jobs of a study made, kept on disk while it runs, so that an interrupted run goes on where it was.

    The first line of a file is its seal: how long the job took, and a checksum of its numbers, its name and the
    settings.

    Args:
        folder: where the files lie; made if need be.
        settings: what the run was asked; a folder with other settings, or of another version, is refused.

    Raises:
        ValueError: the folder belongs to another run, or its settings cannot be read.
        OSError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        text = json.dumps({"explainlib": version("explainlib"), **settings}, default=str, indent=2)
        self._asked = json.loads(text)
        marker = folder / "settings.json"
        if not marker.exists():
            write_new(text + "\n", marker)  # False where another process was faster; then its own are compared
        found = read_record(marker, f"delete {folder}, or pass another --out")
        other = sorted(key for key in {*found, *self._asked} if found.get(key) != self._asked.get(key))
        if other:
            raise ValueError(
                f"{folder} holds the partial results of another run ({other[0]} was {found.get(other[0])!r}, now "
                f"{self._asked.get(other[0])!r}); delete the folder, or pass another --out."
            )

    def has(self, name: str) -> bool:
        """Return whether the result of that name is on disk."""
        return self._path(name).exists()

    def table(self, name: str, make: Callable[[], pandas.DataFrame]) -> pandas.DataFrame:
        """Return the result of that name; it is computed only if it is not on disk yet.

        A fresh one is read back from its file, so that a resumed run ends with the very same tables.

        Raises:
            ValueError: a file that is damaged, or of another run or name.
        """
        path = self._path(name)
        if not self.has(name):
            started = time.perf_counter()
            data = as_csv(make()).encode()
            seconds = f"{time.perf_counter() - started:.1f}"
            write_bytes(f"{SEAL} {self._seal(name, seconds, data)} {seconds}\n".encode() + data, path)
        return parse_table(self._read(path)[1], path, AGAIN)

    def _read(self, path: Path) -> tuple[float, bytes]:
        """Return (seconds, the table's bytes) of a file whose seal is whole."""
        head, _, data = path.read_bytes().partition(b"\n")
        words = head.decode(errors="replace").rsplit(" ", 2)
        if len(words) != 3 or words[0] != SEAL:
            raise ValueError(f"{path} is damaged (it does not begin with its seal); {AGAIN}.")
        if words[1] != self._seal(path.stem, words[2], data):
            raise ValueError(f"{path} is damaged, or of another run or name (its checksum differs); {AGAIN}.")
        return float(words[2]), data

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def _seal(self, name: str, seconds: str, data: bytes) -> str:
        return checksum(data, name, seconds, json.dumps(self._asked, sort_keys=True))

    def seconds(self) -> dict[str, float]:
        """Return how long each job took, in the order they were run, earlier runs included."""
        paths = sorted(self.folder.glob("[!.]*.csv"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return {path.stem: self._read(path)[0] for path in paths}

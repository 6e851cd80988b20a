"""What every study leaves on disk: tables written whole or not at all, each with how it came about."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import pandas
import torch

from explainlib.storage import write_text


def write_table(frame: pandas.DataFrame, path: Path) -> Path:
    """Write a table as CSV with seven significant digits, whole or not at all, and return its path.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_text(frame.to_csv(index=False, float_format="%.7g"), path)


def write_provenance(path: Path, *, command: str, settings: Mapping[str, object], seconds: Mapping[str, float]) -> Path:
    """Write how a study's tables came about: command, settings, versions, device, seconds of each piece and in all."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    record = {
        "command": command,
        "settings": dict(settings),
        "versions": {
            "explainlib": version("explainlib"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "device": device,
        "seconds": round(sum(seconds.values()), 1),
        "pieces": dict(seconds),
    }
    return write_text(json.dumps(record, indent=2, default=str) + "\n", path)


def piece_minutes(paths: Sequence[Path]) -> list[str]:
    """Return one line for each piece of a finished study with its minutes, from the record among its files."""
    records = [json.loads(path.read_text()) for path in paths if path.suffix == ".json"]
    return [f"{piece}: {taken / 60:.1f} minutes" for record in records for piece, taken in record["pieces"].items()]


class Pieces:
    """The parts of a study's tables, kept on disk while it runs, so that an interrupted run goes on where it was.

    Args:
        folder: where the pieces lie; made if need be, deleted by ``finish``.
        settings: what the run was asked; a folder with other settings, or of another version, is refused.

    Raises:
        ValueError: the folder belongs to another run.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        asked = json.loads(json.dumps({"explainlib": version("explainlib"), **settings}, default=str))
        marker = folder / "settings.json"
        if marker.exists():
            found = json.loads(marker.read_text())
            other = sorted(key for key in {*found, *asked} if found.get(key) != asked.get(key))
            if other:
                raise ValueError(
                    f"{folder} holds the pieces of another run ({other[0]} was {found.get(other[0])!r}, now "
                    f"{asked.get(other[0])!r}); delete the folder, or pass another --out."
                )
        else:
            write_text(json.dumps(asked, indent=2) + "\n", marker)

    def has(self, name: str) -> bool:
        """Return whether the piece of that name is on disk."""
        return (self.folder / f"{name}.csv").exists()

    def table(self, name: str, make: Callable[[], pandas.DataFrame]) -> pandas.DataFrame:
        """Return the piece of that name; it is computed only if it is not on disk yet.

        A fresh piece is read back from its file, so that a resumed run ends with the very same tables.
        """
        path = self.folder / f"{name}.csv"
        if not self.has(name):
            started = time.perf_counter()
            made = make()
            write_text(f"{time.perf_counter() - started:.1f}\n", self.folder / f"{name}.seconds")
            write_table(made, path)
        return pandas.read_csv(io.StringIO(path.read_text()))

    def seconds(self) -> dict[str, float]:
        """Return how long each piece took, in the order they were made, earlier runs included."""
        clocks = sorted(self.folder.glob("*.seconds"), key=lambda clock: (clock.stat().st_mtime_ns, clock.name))
        return {clock.stem: float(clock.read_text()) for clock in clocks if self.has(clock.stem)}

    def finish(self) -> None:
        """Delete the folder: the tables are complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

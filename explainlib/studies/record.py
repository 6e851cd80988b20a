"""What every study leaves on disk: tables written whole or not at all, each with how it came about."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pandas
import torch


def write_table(frame: pandas.DataFrame, path: Path) -> Path:
    """Write a table as CSV with seven significant digits, whole or not at all, and return its path.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_text(frame.to_csv(index=False, float_format="%.7g"), path)


def write_text(text: str, path: Path) -> Path:
    """Write a text file whole or not at all, and return its path."""
    return write_bytes(text.encode(), path)


def write_bytes(data: bytes, path: Path) -> Path:
    """Write a file whole or not at all: into a neighbour first, which then takes its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # a temporary file is private; the one that takes its place should not be
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def write_provenance(path: Path, *, command: str, settings: Mapping[str, object], seconds: float) -> Path:
    """Write how a study's tables came about: command, settings, versions, device, wall time."""
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
        "seconds": round(seconds, 1),
    }
    return write_text(json.dumps(record, indent=2, default=str) + "\n", path)

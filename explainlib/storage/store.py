"""Stores: folders of named tensors from which only the same computation resumes.

A ``Store`` has one fingerprint of the inputs of its tensors. Opened again with the same fingerprint, stored tensors are
not computed again; another fingerprint is an error. Tensors are in safetensors files, which hold numbers only: reading
one never runs code. The checksum of each file covers its numbers, its name and the fingerprint, so a damaged file or
one from another store is detected.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from explainlib.storage.files import write_by, write_new
from explainlib.storage.fingerprints import CODE, PROBE, agree
from explainlib.storage.tensors import digest

Tensors = dict[str, Tensor]
FINGERPRINT = "fingerprint.json"
SUFFIX = ".safetensors"
FORMAT = ("store format", 2)  # 1, without the entry, had no digests of code and no checksums bound to the store
LARGEST_FINGERPRINT = 2**26  # bytes of a fingerprint, at most


class Store:
    """A folder of named tensors from which a long computation resumes.

    Args:
        folder: a new or empty folder, or one with the same fingerprint.
        fingerprint: as returned by ``fingerprint``; written first.

    Attributes:
        folder: its path.
        fingerprint: as saved in the folder.

    Raises:
        ValueError: a folder of another computation (the message lists the differences), one that holds other files, or
            one whose fingerprint cannot be read or was written by another version of stores.
        TypeError: a fingerprint that JSON cannot hold.
        OSError: a folder that cannot be written.
    """

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, object]) -> None:
        self.folder = Path(folder)
        try:
            text = json.dumps(dict([FORMAT, *fingerprint.items()]), indent=2, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the fingerprint cannot be written as JSON ({error}); use numbers, text and lists."
            ) from None
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"store={str(self.folder)!r} is a file; name a folder.")
        path = self.folder / FINGERPRINT
        if not path.is_file():
            self._require_empty(path)
            write_new(text + "\n", path)  # False if another process wrote first; then that one is compared
        self._take(_read(path), json.loads(text))

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Return the store in a folder, with any fingerprint.

        Raises:
            ValueError: a folder without a fingerprint, or one that cannot be read.
        """
        self = object.__new__(cls)
        self.folder = Path(folder)
        path = self.folder / FINGERPRINT
        if not path.is_file():
            raise ValueError(f"store={str(folder)!r} holds no {FINGERPRINT}; pass a folder that a computation filled.")
        found = _read(path)
        self._take(found, found)
        return self

    def _require_empty(self, path: Path) -> None:
        filled = self.folder.is_dir() and any(
            not entry.name.startswith(".") and entry.name != FINGERPRINT for entry in self.folder.iterdir()
        )
        if filled and not path.is_file():
            raise ValueError(
                f"store={str(self.folder)!r} holds files but no {FINGERPRINT}; name a new or an empty folder."
            )

    def _take(self, found: dict[str, object], wanted: dict[str, object]) -> None:
        said = "; ".join(differences(found, wanted))
        if said:
            raise ValueError(
                f"store={str(self.folder)!r} belongs to another computation: {said}. "
                "Name another folder, or delete this one to compute anew."
            )
        self.fingerprint = found
        self._mark = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    def path(self, name: str) -> Path:
        """Return the file of a name.

        Raises:
            ValueError: a name with a path in it, or an empty one.
        """
        if not name or name.startswith(".") or Path(name).name != name:
            raise ValueError(f"name={name!r} has to be a plain file name, without folders and not hidden.")
        return self.folder / (name + SUFFIX)

    def __contains__(self, name: str) -> bool:
        """Whether tensors of that name are stored."""
        return self.path(name).is_file()

    def names(self) -> list[str]:
        """Return the stored names in order."""
        return sorted(path.stem for path in self.folder.glob(f"[!.]*{SUFFIX}"))

    def save(self, name: str, tensors: Tensors) -> None:
        """Write named tensors under a name, atomically.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        seal = {"computation": self._mark, "name": name, "seal": self._seal(name, plain)}

        def write(path: Path) -> None:  # from the tensors' own memory: no copy of large ones
            try:
                safetensors.torch.save_file(plain, path, metadata=seal)
            except safetensors.SafetensorError as error:
                code = re.search(r"os error (\d+)", str(error))
                raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code else error) from error

        write_by(write, self.path(name), sum(tensor.nbytes for tensor in plain.values()))

    def load(self, name: str, device: torch.device | str = "cpu") -> Tensors:
        """Return the tensors of a name.

        Raises:
            FileNotFoundError: nothing of that name is stored.
            ValueError: a damaged file, or one from another store or of another name.
        """
        path = self.path(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; stored are {self.names()}.")
        again = "delete it, and it is computed again"
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                told = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); {again}.") from error
        if told.get("computation") == self._mark and told.get("name") == name:
            if told.get("seal") != self._seal(name, tensors):
                raise ValueError(f"{path} is damaged (its checksum differs); {again}.")
        elif "seal" in told:
            raise ValueError(f"{path} is damaged or was copied: its seal is of another computation or name; {again}.")
        else:
            raise ValueError(f"{path} is damaged or foreign (it has no seal); {again}.")
        # copied: the mapped file may change, and products round by where a tensor starts in memory
        return {key: tensor.to(device, copy=True) for key, tensor in tensors.items()}

    def _seal(self, name: str, tensors: Tensors) -> str:
        """Return the checksum of a file; the format itself does not detect flipped bits."""
        keys = sorted(tensors)
        parts = [self._mark, name, keys, digest(*(tensors[key] for key in keys))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def cached(self, name: str, make: Callable[[], Tensors], device: torch.device | str = "cpu") -> Tensors:
        """Return the tensors of a name; if missing, compute and store them.

        Args:
            name: of the tensors.
            make: computes them; called only if they are missing.
            device: of the result.
        """
        if name in self:
            return self.load(name, device)
        tensors = {key: tensor.contiguous() for key, tensor in make().items()}  # as ``load`` gives them
        self.save(name, tensors)
        return tensors


def differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[str]:
    """Return the differences of two fingerprints, one entry each: key, got, expected.

    Args:
        found: the one in the folder.
        wanted: the one of the new computation.
    """
    for key in {**found, **wanted}:
        there, asked = found.get(key), wanted.get(key)
        if there == asked or (key.endswith(PROBE) and agree(there, asked)):
            continue
        if key.endswith(CODE) and there and asked:
            yield f"{key}: the code, or a value that it uses, is another"
        elif isinstance(there, dict) and isinstance(asked, dict):
            yield from (f"{key}, {inner}" for inner in differences(there, asked))
        else:
            yield f"{key}: got {_short(wanted, key)}, expected {_short(found, key)}"


def _read(path: Path) -> dict[str, object]:
    """Return the fingerprint in a file."""
    remedy = "delete the folder or name another one"
    try:
        if path.stat().st_size > LARGEST_FINGERPRINT:
            raise ValueError(f"it has more than {LARGEST_FINGERPRINT:,} bytes")
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"it is a {type(found).__name__}, not a dictionary")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {remedy}.") from error
    key, number = FORMAT
    if found.get(key) != number:
        raise ValueError(
            f"store={str(path.parent)!r} was written by another version of explainlib (format {found.get(key, 1)}, "
            f"this one reads {number}), which may have computed otherwise; {remedy}."
        )
    return found


def _short(values: Mapping[str, object], key: str) -> str:
    text = str(values[key]) if key in values else "nothing"
    return text if len(text) <= 40 else f"{text[:37]}..."

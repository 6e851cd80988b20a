"""What long work leaves on disk: files written whole or not at all, and folders that a computation resumes from.

A ``Store`` is a folder of named tensors with one fingerprint, which says what they were computed from. Opened again
with the same fingerprint, what is there is not computed again; with another one it is refused. Tensors lie in
safetensors files, which hold numbers only: reading one never runs code.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
FINGERPRINT = "fingerprint.json"
SUFFIX = ".safetensors"


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
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # a temporary file is private; the one that takes its place should not be
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def digest(*tensors: Tensor) -> str:
    """Return the sha256 of tensors: their dtypes, shapes and bytes, whatever device they are on."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def fingerprint(sources: Mapping[str, Tensor | nn.Module], options: Mapping[str, object]) -> dict[str, object]:
    """Return what a computation starts from, short enough to keep beside its results.

    Args:
        sources: tensors, each shown as its sha256; and modules, shown as that of their parameters and buffers together
            with their printed form. The code of a module's ``forward`` is not seen.
        options: everything else that changes the result; numbers, text, None, and lists of these.

    Returns:
        A dictionary that JSON keeps as it is.
    """
    shown: dict[str, object] = {}
    for name, source in sources.items():
        if isinstance(source, nn.Module):
            shown[f"{name} (layers)"] = str(source)
            source_tensors = (*source.parameters(), *source.buffers())
        else:
            source_tensors = (source,)
        shown[name] = f"sha256 {digest(*source_tensors)}"
    return {**shown, **options}


class Store:
    """A folder that a long computation fills with named tensors and resumes from.

    Args:
        folder: a new or empty folder, or one that was filled under the same fingerprint.
        fingerprint: what the tensors are computed from, as ``fingerprint`` returns it; written before anything else.

    Raises:
        ValueError: a folder of another computation (the message says what differs), one that holds other files, or one
            whose fingerprint cannot be read.
        TypeError: a fingerprint that JSON cannot hold.
    """

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, object]) -> None:
        self.folder = Path(folder)
        try:
            text = json.dumps(dict(fingerprint), indent=2, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"the fingerprint cannot be written as JSON ({error}); use numbers, text and lists."
            ) from None
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"store={str(self.folder)!r} is a file; name a folder.")
        path = self.folder / FINGERPRINT
        if path.is_file():
            self._require_same(path, json.loads(text))
        elif self.folder.is_dir() and any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
            raise ValueError(
                f"store={str(self.folder)!r} holds files but no {FINGERPRINT}; name a new or an empty folder."
            )
        else:
            write_text(text + "\n", path)

    def _require_same(self, path: Path, wanted: dict[str, object]) -> None:
        try:
            found = json.loads(path.read_text())
            if not isinstance(found, dict):
                raise ValueError(f"it is a {type(found).__name__}, not a dictionary")
        except ValueError as error:
            raise ValueError(f"{path} cannot be read ({error}); delete the folder or name another one.") from error
        differing = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        if differing:
            said = "; ".join(f"{key}: got {_short(wanted, key)}, expected {_short(found, key)}" for key in differing)
            raise ValueError(
                f"store={str(self.folder)!r} belongs to another computation: {said}. "
                "Name another folder, or delete this one to compute anew."
            )

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
        """Write named tensors under a name, whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        seal = {"sha256": _seal(plain)}  # the format itself would read flipped bits as other numbers
        write_bytes(safetensors.torch.save(plain, metadata=seal), self.path(name))

    def load(self, name: str, device: torch.device | str = "cpu") -> Tensors:
        """Return the tensors of a name.

        Raises:
            FileNotFoundError: nothing of that name is stored.
            ValueError: a damaged file.
        """
        path = self.path(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; stored are {self.names()}.")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                seal = (file.metadata() or {}).get("sha256")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); delete it, and it is computed again.") from error
        if seal != _seal(tensors):
            raise ValueError(f"{path} is damaged (its checksum differs); delete it, and it is computed again.")
        return {key: tensor.to(device) for key, tensor in tensors.items()}

    def remembered(self, name: str, make: Callable[[], Tensors], device: torch.device | str = "cpu") -> Tensors:
        """Return the tensors of a name, made and stored now if they are not there yet.

        Args:
            name: of the tensors.
            make: computes them; called only where nothing is stored.
            device: where they are wanted.
        """
        if name in self:
            return self.load(name, device)
        tensors = make()
        self.save(name, tensors)
        return tensors


def _seal(tensors: Tensors) -> str:
    keys = sorted(tensors)
    return hashlib.sha256("\n".join([*keys, digest(*(tensors[key] for key in keys))]).encode()).hexdigest()


def _short(values: Mapping[str, object], key: str) -> str:
    text = str(values[key]) if key in values else "nothing"
    return text if len(text) <= 40 else f"{text[:37]}..."

"""Tensors and arrays as bytes, for checksums: dtype, shape and every bit, independent of the device."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def digest(*tensors: Tensor) -> str:
    """Return the sha256 of tensors: their dtypes, shapes and bytes, independent of the device."""
    whole = hashlib.sha256()
    for tensor in tensors:
        for part in tensor_bytes(tensor):
            whole.update(part)
    return whole.hexdigest()


def tensor_bytes(tensor: Tensor) -> tuple[bytes, memoryview]:
    """Return (dtype and shape, the bytes) of a tensor; a sparse one is made dense first."""
    plain = tensor.detach()
    plain = (plain if plain.layout is torch.strided else plain.to_dense()).resolve_conj().resolve_neg()
    plain = plain.cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{tensor.dtype} {list(tensor.shape)}\n".encode(), plain.numpy().data


def array_bytes(array: np.ndarray) -> tuple[bytes, bytes]:
    """Return (dtype and shape, the bytes) of an array of plain items."""
    return f"{array.dtype.str} {list(array.shape)}\n".encode(), np.ascontiguousarray(array).tobytes()

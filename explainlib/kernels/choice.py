"""Whether an operation runs as a Triton kernel or in plain PyTorch, and what is missing for the kernel."""

from __future__ import annotations

import re
from types import TracebackType

import numpy
import torch
from torch import Tensor
from torch._functorch import eager_transforms

from explainlib.checks import require_choice
from explainlib.kernels import gram_triton

CHOICES = ("auto", "triton", "torch")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_choice = "auto"


def available() -> dict[str, object]:
    """Return what fused kernels would run on here, and what is missing.

    Returns:
        "triton": its version, None if it is not installed; "device": the GPU's name, None without one; "sm": its
        compute capability times ten (90 is an H100); "interpreter": whether Triton interprets kernels on the CPU;
        "choice": what ``use`` was told last; "missing": why kernels cannot run, with the remedy, or "".

    Example:
        >>> sorted(available())
        ['choice', 'device', 'interpreter', 'missing', 'sm', 'triton']
    """
    cuda = torch.cuda.is_available()
    major, minor = torch.cuda.get_device_capability() if cuda else (0, 0)
    return {
        "triton": getattr(gram_triton.triton, "__version__", None),
        "device": torch.cuda.get_device_name() if cuda else None,
        "sm": 10 * major + minor if cuda else None,
        "interpreter": gram_triton.interpreted(),
        "choice": _choice,
        "missing": missing(),
    }


def missing() -> str:
    """Return why the kernels cannot run here, with the remedy; an empty string if they can."""
    if gram_triton.triton is None:
        return "Triton is not installed: pip install 'explainlib[cuda]'."
    interpreted = gram_triton.interpreted()
    unfit = unfit_versions(interpreted=interpreted)
    if unfit or interpreted:
        return unfit
    if not torch.cuda.is_available():
        return (
            "there is no CUDA GPU: run on one with a CUDA build of torch, or set TRITON_INTERPRET=1 before Python "
            "starts to run kernels on the CPU, slowly and for checking only."
        )
    major, minor = torch.cuda.get_device_capability()
    if 10 * major + minor < gram_triton.MIN_CAPABILITY:
        return f"the GPU is of capability {major}.{minor}, the kernels need {gram_triton.MIN_CAPABILITY / 10} or later."
    return ""


def unfit_versions(*, interpreted: bool) -> str:
    """Return why this version of Triton cannot run the kernels, with the remedy; an empty string if it can.

    Args:
        interpreted: by Triton's interpreter, on the CPU.
    """
    version = gram_triton.triton.__version__
    if release(version) < gram_triton.MIN_TRITON:
        oldest = ".".join(map(str, gram_triton.MIN_TRITON))
        return (
            f"Triton {version} multiplies no float64 and the kernels need {oldest} or later: a CUDA build of torch 2.9 "
            "or later brings it; until then plain PyTorch runs instead."
        )
    if interpreted and release(version) < (3, 7) and release(numpy.__version__) >= (2, 4):
        return (
            f"the interpreter of Triton {version} fails beside numpy {numpy.__version__}: pip install 'numpy<2.4', or "
            "unset TRITON_INTERPRET."
        )
    return ""


def release(version: str) -> tuple[int, ...]:
    """Return major and minor of a version such as "3.7.1+git"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


class Choice:
    """A choice in effect; as a context manager it restores the previous one at the block's end."""

    def __init__(self, previous: str) -> None:
        self.previous = previous

    def __enter__(self) -> Choice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _choice
        _choice = self.previous


def use(choice: str) -> Choice:
    """Choose for the whole process how operations with a fused kernel run, from now on or for a ``with`` block.

    Args:
        choice: "auto": the kernel for tensors on a GPU where it saves memory traffic, else plain PyTorch; "triton":
            the kernel, or an error; "torch": plain PyTorch.

    Returns:
        A context manager; without a ``with`` block the choice stays.

    Raises:
        ValueError: another word.
        RuntimeError: "triton" where kernels cannot run; the message says what is missing.

    Example:
        >>> with use("torch"):
        ...     available()["choice"]
        'torch'
        >>> available()["choice"]
        'auto'
    """
    global _choice
    require_choice("choice", choice, CHOICES)
    if choice == "triton" and missing():
        raise RuntimeError(f"use('triton') is not possible: {missing()} Or use('auto').")
    previous, _choice = _choice, choice
    return Choice(previous)


def runs_on_triton(x: Tensor, positions: int) -> bool:
    """Return whether an operation on tensors like ``x`` runs as a kernel.

    Args:
        x: one of the arguments, all of one device and dtype.
        positions: numbers that the plain route writes for one of the result (of a Gram, products of positions a pair
            of examples). With one, plain matrix products write nothing that is larger than the result, and "auto"
            leaves them to the vendor's library.

    Raises:
        ValueError: "triton" was chosen and ``x`` is not on a GPU, nor Triton in its interpreter.
    """
    if _choice == "torch":
        return False
    if _choice == "triton":
        if not x.is_cuda and not gram_triton.interpreted():
            raise ValueError(
                f"use('triton') is in force and the tensors are on {x.device}; "
                "move them with .to('cuda'), or use('auto')."
            )
        return True
    return x.is_cuda and positions > 1 and not missing()


def nested_forward_mode() -> bool:
    """Return whether the call is inside two forward modes of ``torch.func``; then plain PyTorch has to run.

    There torch's custom functions lose the tangents of what they saved for their jvp, and second derivatives come out
    wrong without a word (github.com/pytorch/pytorch/issues/197867). Every other order of derivatives is right.
    """
    return eager_transforms.JVP_NESTING > 1

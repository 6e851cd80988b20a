"""Registers, spills and shared memory of a build, read from its machine code, and the occupancy they allow."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from explainlib.kernels import gram_triton

REGISTERS, MOST_WARPS, MOST_PROGRAMS = 65536, 64, 32  # of a multiprocessor of sm_80, sm_90 and sm_100
SHARED = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}  # bytes of a multiprocessor
RESERVED = 1024  # bytes of shared memory that the system takes for each program
GRANULE = 256  # registers, in which a warp receives them


class Resources(NamedTuple):
    """What one program of a build takes.

    Attributes:
        registers: of a thread.
        spills: bytes of a thread's stack in memory: registers that did not fit.
        shared: bytes.
        warps: of 32 threads.
        instructions: of the machine code, in all.
    """

    registers: int
    spills: int
    shared: int
    warps: int
    instructions: int


def resources(code: dict[str, str | bytes | int]) -> Resources:
    """Return what a build takes, as ``cuobjdump`` reads it from the machine code.

    Args:
        code: of ``build.build``.

    Raises:
        RuntimeError: cuobjdump is not where Triton keeps it, or said nothing that can be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code["cubin"])
        usage, listing = (_cuobjdump(option, path) for option in ("-res-usage", "-sass"))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    instructions = len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", listing, re.MULTILINE))
    if found is None or not instructions:
        raise RuntimeError(f"cuobjdump said nothing of registers: {usage[-200:]!r}; install the pinned Triton.")
    return Resources(int(found[1]), int(found[2]), int(code["shared"]), int(code["warps"]), instructions)


def _cuobjdump(option: str, path: Path) -> str:
    tool = Path(gram_triton.triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        raise RuntimeError(f"there is no {tool}; install the pinned Triton, which brings it.")
    run = subprocess.run([tool, option, path], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"cuobjdump failed: {run.stderr.strip()[-200:]}; install the pinned Triton.")
    return run.stdout


def occupancy(taken: Resources, sm: int) -> float:
    """Return the share of a multiprocessor's 64 warps that can be there at once, by the scarcest resource.

    Args:
        taken: by one program.
        sm: compute capability times ten: 80, 90 or 100.

    Source: NVIDIA, CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".

    Example: 255 registers are received as 256; 8 warps of them fill a multiprocessor.

        >>> occupancy(Resources(255, 0, 16384, 8, 1000), 80)
        0.125
    """
    of_warp = -(-32 * taken.registers // GRANULE) * GRANULE
    programs = min(
        REGISTERS // of_warp // taken.warps,
        MOST_WARPS // taken.warps,
        MOST_PROGRAMS,
        SHARED[sm] // (taken.shared + RESERVED),
    )
    return programs * taken.warps / MOST_WARPS

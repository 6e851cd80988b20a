"""The Triton kernel itself: interpreted against its reference, built for GPUs that are not here, run on one that is.

Triton reads once, when it is imported, whether it interprets; so each way has a process of its own. Those processes
are also free of the tests' import hook, whose wrappers a kernel cannot have around it.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from explainlib.kernels import build, choice


def needs_triton(*, interpreted):
    """Skip a test where Triton is missing or does not fit, with the reason."""
    reason = "Triton is not installed (it has builds for Linux only): pip install 'explainlib[cuda]'"
    if importlib.util.find_spec("triton") is not None:
        reason = choice.unfit_versions(interpreted=interpreted)
    return pytest.mark.skipif(bool(reason), reason=reason)


def fresh(code, folder, **variables):
    """What a program prints as JSON, in a process with these environment variables and a cache of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRITON_")}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=500,
        env={**kept, "TRITON_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


SELF_CHECK = """
import json
from explainlib.kernels import available, build, self_check
found = [[c.name, c.error, c.tolerance, c.passed] for c in self_check.comparisons({device!r})]
try:
    refusal = None if {device!r} == "cuda" else len(build.build(80))
except RuntimeError as error:
    refusal = str(error)
print(json.dumps([available(), found, refusal]))
"""


@needs_triton(interpreted=True)
def test_interpreted_kernel_equals_the_reference(tmp_path):
    here, found, refusal = fresh(SELF_CHECK.format(device="cpu"), tmp_path, TRITON_INTERPRET="1")
    assert here["interpreter"] and here["missing"] == "" and len(found) == 5 * (4 + 3 * 2) + 7
    assert [one for one in found if not one[3]] == []
    kinds = ("float64", "float32", "float16", "bfloat16", "grad", "jvp", "vmap")
    assert all(any(name.startswith(kind) for name, *_ in found) for kind in kinds)
    assert "unset TRITON_INTERPRET" in refusal


BUILDS = """
import json
from explainlib.kernels import build
print(json.dumps([
    [sm, name, code["ptx"].count(f".target sm_{sm}"), code["cubin"][:4].hex(), code["ptx"].count("mma"), code["ptx"].count("atom.")]
    for sm in build.TARGETS for name, options in build.KINDS.items()
    if sm == 90 or name in ("float32", "bfloat16", "float64")
    for code in [build.build(sm, **options)]
]))
"""


@needs_triton(interpreted=False)
def test_builds_for_gpus_that_are_not_here(tmp_path):
    found = fresh(BUILDS, tmp_path, TRITON_DEFAULT_FP_FUSION="1")
    assert {sm for sm, *_ in found} == set(build.TARGETS) and len(found) == 3 + 5 + 3
    for sm, name, target, start, products, atomics in found:
        assert target == 1 and start == "7f454c46", f"sm_{sm} {name} is no machine code"  # an ELF file
        assert atomics == 0, f"sm_{sm} {name} adds atomically: its result would change from run to run"
        tensor_cores = name in ("float32 tf32", "float16", "bfloat16") or (name == "float64" and sm < 100)
        assert (products > 0) == tensor_cores, f"sm_{sm} {name}"


@needs_triton(interpreted=False)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_kernel_on_the_gpu(tmp_path):
    here, found, _ = fresh(SELF_CHECK.format(device="cuda"), tmp_path)
    assert here["missing"] == "" and [one for one in found if not one[3]] == []

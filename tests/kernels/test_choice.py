"""What runs where: the choice, its errors, and the command line on a machine without a GPU."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from explainlib.kernels import __main__ as command
from explainlib.kernels import available, build, choice, gram_triton, layer_gram, reference, runs_on_triton, timing, use
from explainlib.kernels.gram import require_factors
from tests.kernels.factors import factors

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


class OnGpu:
    """As much of a tensor as the choice looks at."""

    is_cuda, device = True, torch.device("cuda")


def test_available_says_what_is_here():
    here = available()
    assert list(here) == ["triton", "device", "sm", "interpreter", "choice", "missing"]
    assert (here["device"] is None) == (here["sm"] is None) and here["choice"] == "auto" and not here["interpreter"]


def test_a_choice_lasts_or_ends_with_its_block():
    with use("torch"):
        assert available()["choice"] == "torch"
        with pytest.raises(ZeroDivisionError), use("auto"):
            1 / 0  # noqa: B018
        assert available()["choice"] == "torch"
    assert available()["choice"] == "auto"
    for_good = use("torch")
    assert available()["choice"] == "torch"
    for_good.__exit__(None, None, None)
    assert available()["choice"] == "auto"
    with pytest.raises(ValueError, match="choice='cuda' is unknown; choose one of 'auto'"):
        use("cuda")


@without_gpu
def test_triton_without_a_gpu_says_what_to_do():
    with pytest.raises(RuntimeError, match="not possible: .*use\\('auto'\\)"):
        use("triton")
    assert available()["choice"] == "auto", "a refused choice must not stay"


def test_each_gap_has_its_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(gram_triton, "triton", SimpleNamespace(__version__="3.5.1"))
    monkeypatch.setattr(gram_triton, "interpreted", lambda: False)
    assert "capability 7.5, the kernels need 8.0" in choice.missing()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert choice.missing() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "TRITON_INTERPRET=1" in choice.missing()
    monkeypatch.setattr(gram_triton, "triton", None)
    assert "explainlib[cuda]" in choice.missing()


def test_a_triton_that_is_too_old_is_refused(monkeypatch):
    """What torch 2.6 to 2.8 bring has no float64 products; plain PyTorch runs instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(gram_triton, "interpreted", lambda: False)
    for version, fits in (("3.2.0", False), ("3.4.0", False), ("3.5.0", True), ("3.10.0+git1", True)):
        monkeypatch.setattr(gram_triton, "triton", SimpleNamespace(__version__=version))
        assert (choice.missing() == "") == fits, version
        assert inspect.unwrap(runs_on_triton)(OnGpu(), 4) == fits
        if not fits:
            with pytest.raises(RuntimeError, match=f"Triton {version} .* need 3.5 or later"):
                use("triton")
            with pytest.raises(RuntimeError, match="need 3.5 or later"):
                build.build(90)


def test_an_interpreter_beside_a_numpy_it_does_not_know(monkeypatch):
    monkeypatch.setattr(gram_triton, "interpreted", lambda: True)
    for version, beside, fits in (("3.6.0", "2.4.1", False), ("3.6.0", "2.3.5", True), ("3.7.1", "2.10.0", True)):
        monkeypatch.setattr(gram_triton, "triton", SimpleNamespace(__version__=version))
        monkeypatch.setattr(choice.numpy, "__version__", beside)
        assert (choice.missing() == "") == fits and (fits or "numpy<2.4" in choice.missing())


def test_who_runs_what(monkeypatch):
    cpu, chosen = torch.ones(1, 1, 1), inspect.unwrap(runs_on_triton)
    monkeypatch.setattr(choice, "missing", lambda: "")
    monkeypatch.setattr(gram_triton, "interpreted", lambda: False)
    assert chosen(OnGpu(), 4) and not chosen(OnGpu(), 1) and not chosen(cpu, 4)
    with use("triton"):
        assert chosen(OnGpu(), 1)
        with pytest.raises(ValueError, match="the tensors are on cpu; move them"):
            chosen(cpu, 4)
    with use("torch"):
        assert not chosen(OnGpu(), 4)
    monkeypatch.setattr(choice, "missing", lambda: "no")
    assert not chosen(OnGpu(), 4)


A, G, B, H = factors(3, 2, 4, 5, 2, 3)
WRONG = {
    "positions": ((A, G[:, :3], B, H), ValueError, r"g_i has shape \[3, 3, 3\], expected \[3, 4, any\]"),
    "examples": ((A, G, B, H[:1]), ValueError, r"g_j has shape \[1, 5, 3\], expected \[2, 5, 3\]"),
    "inner width": ((A, G, B[..., :1], H), ValueError, r"a_j has shape .* expected \[any, any, 2\]"),
    "outer width": ((A, G, B, H[..., :2]), ValueError, r"g_j has shape"),
    "two dimensions": ((A[0], G, B, H), ValueError, r"a_i has shape \[4, 2\], expected \[any, any, any\]"),
    "no examples": ((A[:0], G[:0], B, H), ValueError, "nothing to multiply; pass at least one"),
    "no width": ((A[..., :0], G, B[..., :0], H), ValueError, "nothing to multiply"),
    "two dtypes": ((A, G.float(), B, H), TypeError, r"g_i has dtype torch.float32, a_i torch.float64; convert"),
    "two devices": ((A, G, B.to("meta"), H), ValueError, "a_j is on meta, a_i on cpu"),
    "whole numbers": ((A.long(), G, B, H), TypeError, "a_i has dtype torch.int64, expected one of float16"),
    "complex": ((A, G, B, H + 0j), TypeError, "g_j has dtype torch.complex128"),
    "a list": ((A.tolist(), G, B, H), TypeError, "a_i is a list, not a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bad_factors(name):
    given, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        inspect.unwrap(require_factors)(*given)  # a person does not have the import hook, which would answer first


def test_bad_precision():
    with pytest.raises(ValueError, match="precision='fast' is unknown; choose one of 'ieee', 'tf32'"):
        layer_gram(A, G, B, H, precision="fast")


@pytest.mark.parametrize(("n", "P"), [(1000, 49), (100, 49), (64, 1), (1, 676), (3, 7), (1, 1)])
def test_tiles_waste_little(n, P):
    examples, positions = gram_triton.split_of(n, P, 64)
    padded = -(-n // examples) * examples * -(-P // positions) * positions
    assert examples * positions == 64
    assert all(padded <= -(-n * P // 64) * 64 * waste for waste in (1.5 if n * P > 64 else 64,))


def test_the_bench_itself():
    """Its table on the CPU, the reference in the kernel's place."""
    layer = timing.Layer("tiny", 3, 2, 4, 2)
    text = timing.table("cpu", [layer], kernel=lambda *x, precision: reference.layer_gram(*x))
    lines = text.splitlines()
    assert len(lines) == 2 + len(timing.KINDS) and all(line.startswith("tiny") for line in lines[2:])
    assert "TB/s" in lines[0] and float(lines[2].split()[-1]) < 1e-6


@without_gpu
def test_the_command_line_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(command, "in_interpreter", lambda: 0)
    status = command.main([])
    said = capsys.readouterr()
    assert "No GPU to time on" in said.out
    assert status == (0 if available()["triton"] else 1)
    with pytest.raises(SystemExit):
        command.main(["fly"])

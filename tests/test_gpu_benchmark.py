"""The benchmark for a GPU: every step's code runs on the CPU, and a step that fails or hangs ends nothing else."""

import json
import sys

import pytest

from benchmarks import gpu, gpu_steps


def test_a_dry_run_goes_through_every_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    path = tmp_path / "folder" / "gpu.json"
    assert gpu.main(["--out", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("There is no CUDA GPU here: ") and said.count("There is no") == 1
    record = json.loads(path.read_text())
    assert list(record["steps"]) == list(gpu_steps.STEPS) == list(gpu.LIMITS)
    assert [step["status"] for step in record["steps"].values()] == ["done"] * 6
    assert record["about"]["dry"] and record["about"]["torch"] and not record["steps"]["correctness"]["failed"]
    names = [each["name"] for each in record["steps"]["correctness"]["comparisons"]]
    for kernel in ("float32", "group_hessians", "linear_moments", "trained_perceptrons"):
        assert any(name.startswith(kernel) for name in names)
    assert {row["kernel"] for row in record["steps"]["times"]["times"]} == {
        "layer_gram",
        "group_hessians",
        "linear_moments",
    }
    assert record["steps"]["ekfac"]["finite"] and record["steps"]["gauss_newton"]["finite"]


def test_a_step_that_fails_is_recorded_and_the_next_one_runs(tmp_path, monkeypatch):
    def broken(device, sizes, route):
        raise ArithmeticError("no such number")

    monkeypatch.setattr(gpu, "STEPS", {name: lambda *given: {} for name in gpu.LIMITS} | {"times": broken})
    assert gpu.main(["--dry", "--out", str(tmp_path / "gpu.json")]) == 1
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert steps["times"]["status"] == "failed" and "ArithmeticError: no such number" in steps["times"]["error"]
    assert steps["panel"]["status"] == "done"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys, time; time.sleep(60)", "timed out"),
        ("import os; os._exit(3)", "failed"),
        ("import sys, json; open(sys.argv[1], 'w').write(json.dumps({'status': 'done'}))", "done"),
    ],
)
def test_a_step_in_its_own_process(code, status):
    record = gpu.run_apart("times", 1.0 if status == "timed out" else 30.0, [sys.executable, "-c", code])
    assert record["status"] == status


def test_all_steps_fit_into_eight_minutes():
    assert sum(gpu.LIMITS.values()) <= gpu.MOST == 480
    widths = gpu_steps.FULL["widths"]
    assert round(sum((a + 1) * b for a, b in zip(widths, widths[1:], strict=False)) / 1e6, 1) == 1.2

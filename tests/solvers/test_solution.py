"""What a solution says of itself: the status of each row, the sentence with its numbers, and the remedies."""

import pytest
import torch

from explainlib.solvers import Solution, SolverError, SolverWarning
from explainlib.solvers.remedies import FLOAT64, ORDER, Remedies, precise, risk_remedies
from explainlib.solvers.solution import (
    direct_solution,
    direct_tolerance,
    overall_status,
    row_statuses,
    steps_between_checks,
)

D = torch.float64
NAN, INF = float("nan"), float("inf")
ALL = Remedies(shift="shift", definite="definite", pruned="pruned", longer="longer", scale="scale=...", direct="direct")


def column(*numbers):
    return torch.tensor(numbers, dtype=D)


def test_each_row_has_its_own_status():
    value = torch.ones(7, 2, dtype=D)
    value[0, 1], value[1, 0] = NAN, INF
    residual = column(0.0, 0.0, NAN, 0.0, 0.1, 0.1 + 1e-9, INF)
    failed = torch.tensor([True, False, False, True, False, False, False])
    found = row_statuses(value, residual, 0.1, otherwise="max_steps", failed=failed)
    assert found == ("nonfinite",) * 3 + ("not_positive_definite", "converged", "max_steps", "nonfinite")
    named = row_statuses(value[3:5], residual[3:5], 0.1, otherwise="max_steps", failed=failed[3:5], why="inaccurate")
    assert named == ("inaccurate", "converged")
    by_row = row_statuses(value[4:6], residual[4:6], column(0.0, 0.2), otherwise="diverged")
    assert by_row == ("diverged", "converged"), "a tolerance of each row"


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ((), "converged"),
        (("converged", "converged"), "converged"),
        (("converged", "max_steps", "diverged"), "max_steps"),
        (("max_steps", "nonfinite", "converged"), "nonfinite"),
    ],
)
def test_the_whole_solve_is_as_good_as_its_first_bad_row_and_nonfinite_comes_first(rows, status):
    assert overall_status(rows) == status


def test_a_solver_with_one_status_gives_it_to_every_row():
    made = Solution(torch.zeros(3, 2, dtype=D), "max_steps", 4, column(0.1, 0.3, 0.2))
    assert made.row_status == ("max_steps",) * 3 and not made.converged
    rows = ("converged", "max_steps", "converged")
    assert Solution(made.value, "max_steps", 4, made.residual, rows=rows).row_status == rows
    assert Solution(made.value, "converged", 4, made.residual).converged


def test_the_sentence_tells_the_status_the_remedy_and_the_numbers():
    remedies = Remedies(longer="take more steps")
    made = Solution(torch.zeros(2, 2, dtype=D), "max_steps", 4, column(0.1, 0.3), "scale 2", remedies=remedies)
    assert made.sentence.startswith("max_steps: stopped before reaching its tolerance; ")
    assert made.sentence.endswith("; take more steps (largest relative residual 3.0e-01 after 4 steps; scale 2).")
    with pytest.raises(SolverError) as caught:
        made.require_converged()
    assert str(caught.value) == made.sentence and caught.value.solution is made
    with pytest.warns(SolverWarning, match="take more steps") as said:
        assert made.require_converged("warn") is made
    assert len(said) == 1
    good = Solution(made.value, "converged", 4, made.residual, remedies=remedies)
    assert good.sentence == "converged: solved to its tolerance (largest relative residual 3.0e-01 after 4 steps)."
    assert good.require_converged() is good


def test_a_direct_solve_may_leave_what_its_dtype_rounds():
    assert [direct_tolerance(dtype) for dtype in (D, torch.float32, torch.float16)] == [1e-5, 1e-3, 1e-3]
    like, value = torch.zeros(1), torch.ones(3, 2, dtype=D)
    made = direct_solution(value, column(1e-5, 1.1e-5, 0.0), "rank 2", like, failed=torch.tensor([False, False, True]))
    assert made.rows == ("converged", "inaccurate", "inaccurate") and made.status == "inaccurate"
    assert made.steps == 0 and made.detail == "rank 2" and made.value.dtype == made.residual.dtype == torch.float32
    assert direct_solution(value, column(0.0, 0.0, 1e-6), "", value).converged


def test_the_processor_is_asked_after_each_step_and_a_device_after_eight():
    assert steps_between_checks(torch.zeros(1)) == 1
    assert steps_between_checks(torch.zeros(1, device="meta")) == 8


@pytest.mark.parametrize("status", ORDER)
def test_remedies_come_in_the_order_of_the_status(status):
    said = {"precision": FLOAT64, "scale": "scale=..."} | {name: name for name in ("shift", "definite", "pruned")}
    want = [said.get(name, name) for name in ORDER[status]]
    assert ALL.for_status(status, torch.float32) == ", or ".join(want)
    assert FLOAT64 not in ALL.for_status(status, D)
    assert Remedies().for_status(status, D) == ""
    assert Remedies(precision="double").for_status(status, D) == ("double" if "precision" in ORDER[status] else "")


def test_a_status_without_remedies_names_none():
    assert ALL.for_status("converged", torch.float32) == ""
    assert precise(D) == "" and precise(torch.float32) == FLOAT64


def test_a_known_eigenvalue_gives_the_number_to_pass():
    """A tenth above an eigenvalue that the scale is too small for, a tenth below one that is negative."""
    assert ALL.for_status("diverged", D, 5.0) == "scale=5.5, or direct"
    assert ALL.for_status("diverged", D, -0.5) == "shift, by 0.55 or more, or direct"
    assert ALL.for_status("diverged", D, 0.0) == "shift, by -0 or more, or direct"
    assert Remedies(direct="direct").for_status("diverged", D, -0.5) == "direct"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"offers": ("damping",)}, "not_positive_definite", "pass a larger damping or a Risk with a larger l2"),
        ({"offers": ()}, "not_positive_definite", "pass a Risk with a larger l2"),
        ({"offers": (), "has_ridge": False}, "not_positive_definite", ""),
        ({"offers": ("damping",), "curvature": "empirical_fisher"}, "rank_deficient", "pass a larger damping"),
        ({"offers": ("keep",), "has_ridge": False}, "rank_deficient", "pass keep=1e-9 for the pseudo-inverse"),
        ({"offers": ("keep",), "has_ridge": False, "curvature": "ekfac"}, "rank_deficient", ""),
        ({"offers": ("keep",), "has_ridge": False, "solver": "dense"}, "not_positive_definite",
         "pass keep='positive'"),
        ({"offers": ("keep",), "has_ridge": False}, "not_positive_definite",
         "pass keep='positive' with solver='dense'"),
        ({"offers": ("curvature",), "has_ridge": False}, "not_positive_definite", "pass curvature='gauss_newton'"),
        ({"offers": ("curvature",), "has_ridge": False, "curvature": "gauss_newton"}, "not_positive_definite", ""),
        ({"offers": ("solver",), "has_ridge": False}, "max_steps",
         "pass solver=xl.solvers.CG(max_steps=...), or pass solver='dense'"),
        ({"offers": ("solver",), "has_ridge": False, "solver": "low_rank"}, "inaccurate",
         "pass solver='cg', which forms no difference"),
        ({"offers": ("solver",), "has_ridge": False, "solver": "dense"}, "inaccurate", ""),
        ({"offers": ("solver",), "has_ridge": False, "curvature": "identity"}, "max_steps", ""),
        ({"offers": (), "has_ridge": False}, "max_steps", ""),
    ],
)  # fmt: skip
def test_a_function_names_what_its_caller_can_change(options, status, said):
    made = risk_remedies(D, **{"curvature": "hessian", "solver": "cg", **options})
    assert made.for_status(status, D) == said
    single = risk_remedies(torch.float32, **{"curvature": "hessian", "solver": "cg", **options})
    assert (FLOAT64 in single.for_status(status, torch.float32)) == ("precision" in ORDER[status])

"""What a message advises exists, and helps: the call fails, the call as advised goes through.

And no message names an option that neither the function called nor anything else named in it has.
"""

import inspect
import json
import os
import re
import subprocess
import sys

import pytest
import torch

import explainlib as xl
from explainlib.meta.bilevel.problem import Proximal
from explainlib.solvers.remedies import ORDER, Remedies, risk_remedies
from explainlib.solvers.solution import STATUSES
from tests.remedy_cases import CASES, TASKS, bilevel, with_slopes

ROOMS = ("curvature", "influence", "meta", "metrics", "models", "representers", "retraining", "solvers", "training")
OPTIONS = re.compile(r"\b([a-z_][a-z0-9_]*)=(?!=)")
WORDS = re.compile(r"\b(damping|l2|strength|inner_lr|features)\b|\b(?:more|larger) (max_steps|tolerance)\b")


def public():
    """Everything a message may name, by its last name."""
    found = {"Risk": xl.Risk, "explain": xl.explain, "check_model": xl.check_model}
    for room in ROOMS:
        module = getattr(xl, room)
        found |= {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {name: thing for name, thing in found.items() if callable(thing) and not _is_error(thing)}


def _is_error(thing) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


PUBLIC = public()


def options(thing) -> set[str]:
    """The arguments of a function, or of a class and its methods."""
    names = set(inspect.signature(thing).parameters)
    if inspect.isclass(thing):
        for _, method in inspect.getmembers(thing, inspect.isfunction):
            names |= set(inspect.signature(method).parameters)
    return names


def allowed(called, message: str) -> set[str]:
    """What a message about a call may name: its own options, and those of what it names itself."""
    names, owner = options(called), called.__qualname__.partition(".")[0]
    names |= options(PUBLIC[owner]) if owner in PUBLIC else set()  # a method's object was made with options
    for word in re.findall(r"[A-Za-z_]+", message):
        names |= options(PUBLIC[word]) if word in PUBLIC else set()
    return names


@pytest.fixture(scope="module")
def seen(repository):
    """What a person without the tests' import hook sees, from one fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.remedy_cases"],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_the_remedy_is_there_and_helps(seen, name):
    called, _, _, words = CASES[name]
    message, afterwards = seen[name]
    assert message, "the call did not fail"
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} missing in: {message}"
    assert afterwards == "", f"after doing what was said: {afterwards}"
    assert message.endswith(".") and len(message) < 620 and "\n" not in message


@pytest.mark.parametrize("name", CASES)
def test_no_option_is_named_that_is_not_there(seen, name):
    message = seen[name][0]
    remedy = message.split(" (largest relative residual")[0]
    advice = remedy.partition("; ")[2]
    known = allowed(CASES[name][0], remedy)
    named = set(OPTIONS.findall(remedy)) | {word for found in WORDS.findall(advice) for word in found if word}
    assert named <= known, f"{sorted(named - known)} named in: {message}"


def test_the_check_itself_sees_an_option_that_is_not_there():
    known = allowed(xl.influence.series_trust, "pass curvature='gauss_newton' to the Risk with a larger l2")
    assert "l2" in known and "damping" in known and "curvature" not in known and "keep" not in known


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in ("converged", "nonfinite")])
@pytest.mark.parametrize(
    "offers", [(), ("damping",), ("solver", "damping"), ("curvature", "solver", "damping", "keep")]
)
@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher", "ekfac"])
@pytest.mark.parametrize("solver", ["dense", "cg", "lissa", "neumann", "low_rank", "arnoldi"])
def test_every_failure_has_a_remedy_among_what_is_offered(status, offers, curvature, solver):
    remedies = risk_remedies(torch.float64, offers=offers, curvature=curvature, solver=solver)
    said = remedies.for_status(status, torch.float64)
    for option in ("damping", "keep", "solver=", "curvature="):
        assert option.rstrip("=") in offers or option not in said
    assert ("l2" in said) <= (curvature != "empirical_fisher")
    assert said or not offers


def test_every_status_has_an_order_of_remedies_that_exist():
    assert set(ORDER) == set(STATUSES) - {"converged"}
    assert {name for names in ORDER.values() for name in names} == set(Remedies.__dataclass_fields__)


def test_a_known_eigenvalue_says_how_much():
    remedies = Remedies(shift="pass a larger damping", scale="pass scale=...", direct="pass solver='dense'")
    assert remedies.for_status("diverged", torch.float64, 4.0) == "pass scale=4.4, or pass solver='dense'"
    assert remedies.for_status("diverged", torch.float64, -0.5).startswith("pass a larger damping, by 0.55 or more")
    assert "scale=..." in remedies.for_status("diverged", torch.float64)


def test_float64_is_not_advised_where_it_is_used():
    assert "float64" in Remedies().for_status("inaccurate", torch.float32)
    assert "float64" not in Remedies().for_status("inaccurate", torch.float64)


def test_inner_ekfac_covers_the_chosen_parameters_alone():
    """Chosen by name or by what is frozen: the same inner problem, so the same influence."""
    names = ["0.weight", "0.bias", "3.weight", "3.bias"]
    frozen = with_slopes()
    frozen[1].requires_grad_(False)
    by_name, by_flag = bilevel(10.0, model=with_slopes(), parameters=names), bilevel(10.0, model=frozen)
    assert isinstance(by_name.problem, Proximal) and by_name.q == by_flag.q < sum(
        p.numel() for p in frozen.parameters()
    )
    make = lambda learner: xl.influence.BilevelInfluence(learner, learner.lam0, TASKS, inner_hessian="ekfac").tasks()  # noqa: E731
    with pytest.warns(xl.NotAtMinimumWarning):
        assert torch.equal(make(by_name), make(by_flag))

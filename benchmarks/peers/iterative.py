"""Inverses of the Hessian by products alone: Arnoldi, conjugate gradients, LiSSA."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import explainlib as xl
from benchmarks.peers import problems
from benchmarks.peers.race import OWN, Action, Bar, Problem, Race, Side
from explainlib.curvature.hessian import hessian_operator
from explainlib.solvers.series import lissa

RANK, TOLERANCE = 50, 1e-4


def own(solver: object) -> object:
    """Return the builder of explainlib's call with one solver, an incomplete result being returned."""

    def build(problem: Problem) -> Action:
        options = {"damping": problem["damping"], "solver": solver, "on_failure": "warn"}
        return lambda: xl.influence.loss_influence(problems.risk_of(problem), problem["test"], **options)

    return build


def exact(problem: Problem) -> Tensor:
    """Return the scores by conjugate gradients in float64 to 1e-10."""
    parts = {part: problem[part].double() for part in ("train", "test")}
    doubled = problem | parts | {"model": xl.Risk(problem["model"], problem["train"]).model.double()}
    return own(xl.solvers.CG(tolerance=1e-10))(doubled)()


def dominant(problem: Problem) -> Tensor:
    """Return the scores on the span of the 50 dominant eigenvectors, from many more Arnoldi steps, in float64."""
    parts = {part: problem[part].double() for part in ("train", "test")}
    doubled = problem | parts | {"model": xl.Risk(problem["model"], problem["train"]).model.double()}
    p = sum(q.numel() for q in problem["model"].parameters())
    return own(xl.solvers.Arnoldi(k=RANK, steps=min(p, 8 * RANK)))(doubled)()


def pydvl(make: object) -> object:
    """Return the builder of pyDVL's call, one batch for the whole training set."""

    def build(problem: Problem) -> Action:
        train, test = problem["train"], problem["test"]
        loader = DataLoader(problems.sets(problem)[0], batch_size=len(train))

        def run() -> Tensor:
            fitted = make(problem).fit(loader)
            return -fitted.influences(test.x, test.y, train.x, train.y).detach()

        return run

    return build


def pydvl_arnoldi(problem: Problem) -> object:
    """Return pyDVL's model; the span's own inverse, as everybody's here, not the one that adds the rest."""
    from pydvl.influence.torch import ArnoldiInfluence

    return ArnoldiInfluence(problem["model"], cross_entropy, regularization=problem["damping"], rank=RANK)


def pydvl_cg(*, together: bool) -> object:
    """Return the maker of pyDVL's model; its tolerances are those of the residual's length as they are coded."""

    def make(problem: Problem) -> object:
        from pydvl.influence.torch import CgInfluence

        tolerances = {"rtol": problem["tolerance"] ** 0.5, "atol": (problem["tolerance"] * problem["size"]) ** 0.5}
        options = {"solve_simultaneously": together, "maxiter": 2000} | tolerances
        return CgInfluence(problem["model"], cross_entropy, regularization=problem["damping"], **options)

    return make


def pydvl_lissa(problem: Problem) -> object:
    """Return pyDVL's model with the scale and the number of steps set by hand, so that it does not look for them."""
    from pydvl.influence.torch import LissaInfluence

    options = {"scale": problem["scale"], "maxiter": problem["steps"], "rtol": 0.0}
    return LissaInfluence(problem["model"], cross_entropy, regularization=problem["damping"], **options)


def captum_arnoldi(problem: Problem) -> Action:
    """Return captum's call; its Hessian is that of the sum, so damping and scores are multiplied by n."""
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    model, test = problem["model"], problem["test"]
    train = problems.sets(problem)[0]
    n = len(train)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach().clone()

    def load(net: nn.Module, checkpoint: str) -> float:
        nn.utils.vector_to_parameters(theta.clone(), net.parameters())
        return 1.0

    def run() -> Tensor:
        made = ArnoldiInfluenceFunction(
            model, train, "", load, loss_fn=nn.CrossEntropyLoss(reduction="sum"), batch_size=min(n, 250),
            sample_wise_grads_per_batch=True, projection_dim=RANK, hessian_reg=problem["damping"] * n,
            hessian_dataset=DataLoader(train, batch_size=n),
        )  # fmt: skip
        return -n * made.influence((test.x, test.y)).detach()

    return run


def with_steps(**sizes: object) -> Problem:
    """Return a perceptron with what the peers' iterations are told by hand, found once beforehand."""
    problem = problems.perceptron(**sizes)
    risk = problems.risk_of(problem)
    top = float(xl.curvature.top_eigenvalues(risk, 1)) + problem["damping"]
    rows = risk.loss_gradients(problem["test"])
    options = {"scale": 1.1 * top, "damping": problem["damping"], "tolerance": TOLERANCE}
    found = lissa(hessian_operator(risk), rows, **options)
    size = float(rows.norm(dim=1).min())
    return problem | {"scale": 1.1 * top, "steps": found.steps, "tolerance": TOLERANCE, "size": size}


PERCEPTRON = {"n": 1000, "tests": 5, "hidden": [128, 64], "epochs": 100, "activation": "tanh"}
SMALL = {"n": 40, "tests": 2, "hidden": [4], "epochs": 2, "activation": "tanh", "damping": 0.5}

ARNOLDI = Race(
    name="arnoldi",
    title="Arnoldi, rank 50, perceptron of 52,650 parameters, float32",
    problem=problems.perceptron,
    sides=(
        Side(OWN, '`loss_influence(risk, test, solver="arnoldi", damping=...)`', own(xl.solvers.Arnoldi(k=RANK))),
        Side("pyDVL", "`ArnoldiInfluence(rank=50)`, one batch", pydvl(pydvl_arnoldi), Bar(1.9, 1.5)),
        Side(
            "captum",
            "`ArnoldiInfluenceFunction(projection_dim=50)`, the Hessian in one batch, gradients in batches of 250",
            captum_arnoldi,
            Bar(5.0, 1.5),
        ),
    ),
    reference=dominant,
    full=PERCEPTRON | {"tests": 50, "hidden": [64, 32], "damping": 1e-3},
    quick=SMALL,
    runs=2,
    facts="pyDVL keeps the eigenvalues largest in absolute value, the others the largest. The reference is explainlib "
    "with eight steps an eigenvalue, in float64.",
)
CG = Race(
    name="cg",
    title="Conjugate gradients, 5 tests, perceptron of 109,386 parameters, float32",
    problem=with_steps,
    sides=(
        Side(OWN, "`loss_influence(risk, test, solver=CG(tolerance=1e-4))`", own(xl.solvers.CG(tolerance=TOLERANCE))),
        Side(
            "pyDVL",
            "`CgInfluence(solve_simultaneously=True)`, one batch",
            pydvl(pydvl_cg(together=True)),
            Bar(1.5),
            mode="together",
        ),
        Side("pyDVL", "`CgInfluence()`, one batch", pydvl(pydvl_cg(together=False)), Bar(1.5), mode="one by one"),
    ),
    reference=exact,
    full=PERCEPTRON | {"damping": 1e-3},
    quick=SMALL,
    runs=3,
    facts="Both stop at a residual of 1e-4 of the right-hand side: pyDVL compares its length with the square of the "
    "tolerance it is given times a length, so it is given the root. The reference is float64 to 1e-10.",
)
LISSA = Race(
    name="lissa",
    title="LiSSA on all examples, 5 tests, perceptron of 109,386 parameters, float32",
    problem=with_steps,
    sides=(
        Side(
            OWN,
            "`loss_influence(risk, test, solver=Lissa(tolerance=1e-4))`: finds its scale and its steps",
            own(xl.solvers.Lissa(tolerance=TOLERANCE)),
        ),
        Side(
            "pyDVL",
            "`LissaInfluence(scale=..., maxiter=...)`, one batch, both set by hand to what 1e-4 needs",
            pydvl(pydvl_lissa),
            Bar(1.0),
        ),
    ),
    reference=exact,
    full=PERCEPTRON | {"damping": 1e-2},
    quick=SMALL,
    runs=3,
    facts="pyDVL is told scale and steps, found beforehand outside the clock. The reference is float64 to 1e-10.",
)

"""Influence on disk: the solves for the tests, then the scores of some training examples at a time; of tokens too.

What is there is not computed again, so an interrupted call goes on where it was, and a later one with the same inputs
reads its numbers. The inputs are told apart by digests of model, data, loss, options and tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature.ekfac import Ekfac
from explainlib.datasets import Examples
from explainlib.influence.products import training_products
from explainlib.losses import Loss
from explainlib.memory import slices
from explainlib.progress import tqdm
from explainlib.risk import Risk, risk_fingerprint
from explainlib.solvers.inverse import FittedInverse
from explainlib.storage import Store

ROWS = 1024  # training examples of one file


def influence_store(
    folder: str | Path, risk: Risk, test: Examples, measured: Loss, options: Mapping[str, object]
) -> Store:
    """Return the store of one call of ``loss_influence`` or ``token_influence``.

    Args:
        folder: new, or of the same call.
        risk: the problem.
        test: the tests.
        measured: their measure.
        options: curvature, solver, damping and keep, and what else tells two calls apart; an ``Ekfac`` enters by its
            eigenvalues, a fitted inverse by its own options.

    Raises:
        ValueError: a folder of another computation; the message says what differs.
        UnidentifiedError: a loss, measure or model that cannot be identified.
    """
    sources: dict[str, object] = {"theta": risk.theta, "weights": risk.weights_or_ones()}
    sources |= {"test.x": test.x, "test.y": test.y, "measure": measured}
    said = {key: value if isinstance(value, int | float | None) else str(value) for key, value in options.items()}
    fitted = options["curvature"]
    if isinstance(fitted, Ekfac):
        sources["curvature"] = fitted.eigenvalues
        said["curvature"] = f"Ekfac, labels {fitted.labels}"
    if isinstance(fitted, FittedInverse):
        said["curvature"] = f"{fitted.curvature}, {fitted.solver!r}, damping {fitted.damping!r}, keep {fitted.keep!r}"
    return Store(folder, risk_fingerprint(risk, risk.theta, sources, {**said, "measure": measured.name, "rows": ROWS}))


def stored_products(
    store: Store,
    risk: Risk,
    solve: Callable[[], Float[Tensor, "t p"]],
    *,
    memory: int | float | None,
    products: Callable[..., Float[Tensor, "t n *T"]] | None = None,
) -> Float[Tensor, "t n *T"]:
    """Return v_t . grad l_j, or other products with the training set, read from the store as far as they are there.

    Args:
        store: see ``influence_store``.
        risk: the problem.
        solve: returns v; called only if it is not there.
        memory: see ``training_products``.
        products: of v with the training examples of a risk; None takes ``training_products``.
    """
    device, products = risk.theta.device, products or training_products
    solved = store.cached("solved", lambda: {"solved": solve()}, device)["solved"]
    parts = []
    for k, part in enumerate(tqdm(slices(risk.n, ROWS), desc="scores", delay=2.0, leave=False)):

        def scores(part: slice = part) -> dict[str, Tensor]:
            some = risk.subset(torch.arange(part.start, part.stop))
            return {"scores": products(some, solved, memory=memory)}

        parts.append(store.cached(f"scores-{k:05d}", scores, device)["scores"])
    return torch.cat(parts, dim=1)

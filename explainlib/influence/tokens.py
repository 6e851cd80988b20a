r"""Influence by tokens: of training examples on the loss of each test token, or of each training token on a test loss.

    l_i = sum_s l_is over the tokens s with a target

    tokens="test"    d l_ts / d eps_j = -grad l_ts^T H^+ grad l_j      eps_j multiplies l_j
    tokens="train"   d l_t / d eps_js = -grad l_t^T H^+ grad l_js      eps_js multiplies l_js

The first solves for the gradients of the test tokens, some positions at a time. The second needs no gradient of a
token: grad l_js . v = dl_js/df . (J_j v), so one derivative of the outputs along v gives all tokens of an example.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.func import jvp

from explainlib import compute
from explainlib.checks import require_choice
from explainlib.datasets import Examples
from explainlib.derivatives import vmap
from explainlib.gate import FORWARD
from explainlib.influence.measures import measure_gradients
from explainlib.influence.products import training_gradients, training_products
from explainlib.influence.single import NEED_A_MINIMUM
from explainlib.influence.stored import influence_store, stored_products
from explainlib.layerwise import gradients, per_example
from explainlib.losses import IGNORED, TOKEN_CROSS_ENTROPY
from explainlib.memory import alternatives, memory_limit, slices
from explainlib.progress import tqdm
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.configured import Solver
from explainlib.solvers.dense import Keep
from explainlib.solvers.inverse import Curvature, curvature_name, inverse_curvature
from explainlib.storage import Store

TOKENS = ("test", "train")
COPIES = 6  # of the gradients of some tokens: themselves, the solves and their work
PASS_BYTES = 4  # bytes that a pass needs per byte that it records
PASS = 128  # most examples in one forward pass


@alternatives("pass solver='cg' or curvature='ekfac' (no p x p matrix), fewer tests, or a Risk(..., parameters='last')")
@compute.entry
def token_influence(
    risk: Risk,
    test: Examples,
    *,
    tokens: str = "test",
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    keep: Keep = None,
    strict: bool = False,
    on_failure: str = "raise",
    memory: int | float | None = None,
    store: str | Path | None = None,
) -> Float[Tensor, "t a b"]:
    r"""Return the influence on each test token's loss, or that of each training token; summed, ``loss_influence``.

    A token without a target (-100) has no loss, so the influence on it and its own are exactly 0.

    Args:
        risk: with ``loss="token_cross_entropy"``, otherwise as in ``parameter_influence``, like the other options.
        test: t examples with targets [t, T].
        tokens: "test": of training examples on each test token; "train": of each training token on the test losses.
        curvature: see ``parameter_influence``.
        solver: see ``parameter_influence``.
        damping: see ``parameter_influence``.
        keep: see ``parameter_influence``.
        strict: see ``parameter_influence``.
        on_failure: see ``parameter_influence``.
        memory: bytes to work with beside the result ("train": and beside the t test gradients); None is a quarter of
            what is free. Test tokens are solved for, and training tokens differentiated, as many at a time as fit.
        store: a folder for the scores of a test example at a time ("test"), or for the solves and for the scores of
            some training examples at a time; an interrupted call goes on where it was, another one is refused.

    Returns:
        "test": [t, T, n], d l_ts / d eps_j; its sum over s is ``loss_influence``. "train": [t, n, T], d l_t / d
        eps_js, eps_js a weight of the loss of one token of example j; its sum over s is ``loss_influence`` too. In
        units of loss per unit of weight, positive is harmful: more of it raises the loss. Multiply by -1/n for the
        change on removal of the example, or of the one target.

    Raises:
        SolverError: singular curvature, or a solve that did not converge.
        ValueError, TypeError: another loss, an unknown option, or a test set that does not fit the risk.

    Cost: "test" t T solves and a product of each with the n training gradients; "train" t solves and t forward
    derivatives of n examples.

    Source: Koh & Liang 2017, eq. (2), for each term of the loss. Grosse et al. 2023, section 3.3, divide a training
    gradient by positions in the layers instead, where a token also acts on the losses of later ones.
    """
    require_choice("tokens", tokens, TOKENS)
    if risk.loss is not TOKEN_CROSS_ENTROPY:
        raise ValueError(
            f"token_influence is about a loss that is a sum over tokens, and this risk has {risk.loss.name}; pass a "
            "Risk(..., loss='token_cross_entropy'), or use loss_influence."
        )
    risk.require_examples(test, "test")
    if tokens == "train":
        risk.require_derivatives(FORWARD, of_loss=())
    if curvature_name(curvature) in NEED_A_MINIMUM:
        require_minimum(risk, strict=strict, user="influence")
    options = {"curvature": curvature, "solver": solver, "damping": damping, "keep": keep}
    inverse = cache(lambda: inverse_curvature(risk, **options))  # not fitted where a store has what it is for
    solve = lambda rows: inverse()(rows).require_converged(on_failure).value  # noqa: E731
    kept = None if store is None else influence_store(store, risk, test, risk.loss, {**options, "tokens": tokens})
    if tokens == "test":
        table = lambda some: _on_test_tokens(risk, some, solve, memory=memory)  # noqa: E731
        return -table(test) if kept is None else -_stored_by_test(kept, test, table)

    def solved() -> Float[Tensor, "t p"]:
        return solve(per_example(measure_gradients(risk.parameters, risk.theta, test, risk.loss, memory=memory)))

    if kept is None:
        return -training_token_products(risk, solved(), memory=memory)
    return -stored_products(kept, risk, solved, memory=memory, products=training_token_products)


def _stored_by_test(store: Store, test: Examples, table: Callable[[Examples], Tensor]) -> Float[Tensor, "t T n"]:
    """Return the table of all tests, read from the store as far as it is there, a file for each test."""
    parts = [
        store.cached(f"test-{k:05d}", lambda k=k: {"scores": table(test[k : k + 1])}, test.y.device)["scores"]
        for k in tqdm(range(len(test)), desc="tests", delay=2.0, leave=False)
    ]
    return torch.cat(parts)


def _on_test_tokens(
    risk: Risk, test: Examples, solve: Callable[[Tensor], Tensor], *, memory: int | float | None
) -> Float[Tensor, "t T n"]:
    """Return grad l_ts^T H^+ grad l_j, some test tokens at a time."""
    limit = memory_limit(memory, risk.theta.device)
    first = measure_gradients(risk.parameters, risk.theta, test[:1], risk.loss, memory=memory)
    numbers = COPIES * risk.p + 2 * risk.n_outputs
    there = test.y != IGNORED
    parts = _token_slices(
        there, int(limit // 2 // (numbers * risk.theta.element_size() + PASS_BYTES * first.row_bytes))
    )
    out = risk.theta.new_zeros(*test.y.shape, risk.n)
    for examples, positions in tqdm(parts, desc="test tokens", delay=2.0, leave=False):
        solved = solve(_token_gradients(risk, test[examples], positions, memory=limit // 2))
        i, k = there[examples][:, positions].nonzero(as_tuple=True)
        out[examples.start + i, positions[k]] = training_products(risk, solved, memory=limit // 2)
    return out


def _token_slices(there: Bool[Tensor, "t T"], rows: int) -> list[tuple[slice, Int[Tensor, " k"]]]:
    """Return some examples with positions at which one of them has a target, at most ``rows`` (or 1) together."""
    most = int(there.any(0).sum())
    found = []
    for examples in slices(len(there), rows // most):
        positions = there[examples].any(0).nonzero()[:, 0]
        found += [(examples, some) for some in positions.split(max(1, rows))]
    return found


def _token_gradients(
    risk: Risk, examples: Examples, positions: Int[Tensor, " k"], *, memory: int
) -> Float[Tensor, "r p"]:
    """Return grad l_ts of the tokens at these positions that have a target, example by example."""
    slope = risk.loss.gradient(risk.outputs(examples), examples.y).unflatten(1, (examples.y.shape[1], -1))
    each = torch.arange(len(positions), device=slope.device)
    cotangents = slope.new_zeros(len(slope), len(positions), *slope.shape[1:])
    cotangents[:, each, positions] = slope[:, positions]  # of token s: dl_s/df, zero at all others
    source = gradients(risk.parameters, risk.theta, examples.x, cotangents.flatten(2), memory=memory)
    return per_example(source, rows=(examples.y[:, positions] != IGNORED).flatten().nonzero()[:, 0])


def training_token_products(
    risk: Risk, vectors: Float[Tensor, "k p"], *, memory: int | float | None = None
) -> Float[Tensor, "k n T"]:
    """Return v . grad l_js for each vector and each token of the training set; 0 where it has no target.

    Args:
        risk: of tokens, with its theta; weights and ridge play no part.
        vectors: in the order of the chosen parameters.
        memory: bytes to work with beside vectors and result; None is a quarter of what is free.
    """
    limit, tokens = memory_limit(memory, risk.theta.device), risk.train.y.shape[1]
    recorded = training_gradients(risk, memory=memory).row_bytes
    pair = PASS_BYTES * (recorded + risk.n_outputs * risk.theta.element_size())  # of a vector with an example
    out = vectors.new_empty(len(vectors), risk.n, tokens)
    parts = slices(risk.n, int(min(PASS, limit // pair)))
    for part in tqdm(parts, desc="training tokens", delay=2.0, leave=False):
        x = risk.train.x[part]
        outputs = lambda theta, x=x: risk.parameters.outputs(theta, x)  # noqa: E731
        slope = risk.loss.gradient(outputs(risk.theta), risk.train.y[part])
        along = vmap(lambda v, f=outputs: jvp(f, (risk.theta,), (v,))[1])  # J v
        for some in slices(len(vectors), int(limit // (pair * len(x)))):
            out[some, part] = (along(vectors[some]) * slope).unflatten(-1, (tokens, -1)).sum(-1)
    return out

"""The first run of a model: does it answer twice the same, and does the reading agree with the gradients formed?"""

from __future__ import annotations

import weakref

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import warn_caller
from explainlib.gate import GRADIENT, admit, require_derivatives
from explainlib.layerwise.fallback import formed_rows
from explainlib.layerwise.pieces import pieces_of
from explainlib.layerwise.plan import FallbackWarning, Plan, first_plan
from explainlib.layerwise.recording import Call, recorded
from explainlib.params import Parameters

_plans: weakref.WeakKeyDictionary[Parameters, Plan] = weakref.WeakKeyDictionary()


def plan_of(parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor) -> Plan:
    """Return how the parameters of a model are read; made and tried out once a ``Parameters``, and said once.

    Args:
        parameters: the chosen parameters of a model.
        theta: where it is tried.
        x: examples to try it on; two or three are used.

    Raises:
        ValueError: a forward that reads randomness, or examples that depend on each other.
    """
    admit(parameters, x, name="x")
    require_derivatives(parameters, x, (GRADIENT,))
    if parameters not in _plans:
        plan = tried(first_plan(parameters), parameters, theta, x)
        if plan.fallback:
            layers = sorted({_owner(parameters, name) for name in plan.fallback})
            warn_caller(
                f"the layer-wise engine cannot read {', '.join(plan.fallback)} (in {', '.join(layers)}); "
                "these gradients are formed one example at a time: exact, but slower and larger.",
                FallbackWarning,
            )
        _plans[parameters] = plan
    return _plans[parameters]


def _owner(parameters: Parameters, name: str) -> str:
    return type(parameters.module.get_submodule(name.rpartition(".")[0])).__name__


def tried(plan: Plan, parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor) -> Plan:
    """Return the plan without what turned out to be unreadable.

    Args:
        plan: how parameters are to be read.
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: inputs.

    Raises:
        ValueError: a forward that reads randomness, or examples that depend on each other.
    """
    few, more = (x[torch.arange(size, device=x.device) % len(x)] for size in (2, 3))
    rows = _random_cotangents(parameters, theta, more)
    calls = recorded(parameters, theta, few, rows[:2], plan.layers)
    calls_ = recorded(parameters, theta, more, rows, plan.layers)
    batched = _batched_layers(calls, calls_)
    plan = plan.without({p.name for p in plan.read if not all(id(layer) in batched for layer, _ in p.sites)})
    wrong = set()
    for place in plan.read:
        (piece,) = pieces_of(Plan((place,), ()), calls_, several=1)
        got = theta.new_zeros(len(more), theta.numel())
        piece.write(got)
        want = formed_rows(parameters, theta, more, rows, [place.name], batched=False)
        if (got[:, place.place] - want).abs().max() > 1e4 * torch.finfo(want.dtype).eps * want.abs().max():
            wrong.add(place.name)
    return plan.without(wrong)


def _random_cotangents(parameters: Parameters, theta: Tensor, x: Tensor) -> Tensor:
    """Return [e, 1, C] numbers that no example answers with a gradient of zero by itself, the same at every run."""
    with torch.no_grad():
        outputs = parameters.outputs(theta, x)
    shape, numbers = (len(x), 1, outputs.shape[1]), torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=numbers, dtype=torch.float64).to(outputs)


def _batched_layers(calls: list[Call], calls_: list[Call]) -> set[int]:
    """Return the layers whose every use has the examples in the first dimension, 2 in one run and 3 in the other."""
    if [id(call.layer) for call in calls] != [id(call.layer) for call in calls_]:
        return set()
    called = {id(call.layer) for call in calls}
    fits = lambda call, size: len(call.input) == size and len(call.gradient) == size  # noqa: E731
    return called - {id(a.layer) for a, b in zip(calls, calls_, strict=True) if not (fits(a, 2) and fits(b, 3))}

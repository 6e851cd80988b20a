"""The self-check of a model's plan: recorded gradients against materialised ones, on a few examples."""

from __future__ import annotations

import weakref
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.checks import warn_caller
from explainlib.gate import GRADIENT, admit, require_derivatives
from explainlib.layerwise.blocks import gradient_blocks
from explainlib.layerwise.recording import (
    FallbackWarning,
    LayerCall,
    Plan,
    flat_slices,
    forward_pass,
    initial_plan,
    layer_calls,
    per_example_gradients,
)
from explainlib.params import Parameters

_plans: weakref.WeakKeyDictionary[Parameters, Plan] = weakref.WeakKeyDictionary()
_warned: weakref.WeakSet[Parameters] = weakref.WeakSet()
_failures: weakref.WeakKeyDictionary[nn.Module, dict[tuple, set[str]]] = weakref.WeakKeyDictionary()


def checked_plan(parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor, *, warn: bool = True) -> Plan:
    """Return how the gradients of a model are recorded; checked once a model and structure, warned of each time.

    Args:
        parameters: the chosen parameters of a model.
        theta: where it is checked.
        x: examples to check it on; two or three are used.
        warn: of parameters that are not recorded, once a ``Parameters``.

    Raises:
        ValueError: a forward that reads randomness, or examples that depend on each other.
    """
    admit(parameters, x, name="x")
    require_derivatives(parameters, x, (GRADIENT,))
    if parameters not in _plans:
        plan = initial_plan(parameters)
        plan = replace(plan, repeated=repeated_embeddings(plan, parameters, theta, x))
        _plans[parameters] = plan.without(_known_failures(plan, parameters, theta, x))
    plan = _plans[parameters]
    if warn and plan.fallback and parameters not in _warned:
        _warned.add(parameters)
        layers = sorted({_owner(parameters, name) for name in plan.fallback})
        warn_caller(
            f"the layer-wise engine cannot record {', '.join(plan.fallback)} (in {', '.join(layers)}); "
            "these gradients are computed one example at a time: exact, but slower and larger.",
            FallbackWarning,
        )
    return plan


def _known_failures(plan: Plan, parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor) -> set[str]:
    """Return the parameters that fail the check, from an earlier one of the same model if there was one."""
    model = parameters.source()
    known = {} if model is None else _failures.setdefault(model, {})
    key = (parameters.names, theta.dtype, theta.device, x.shape[1:], x.dtype, parameters.batch_statistics)
    key += (parameters.structure, tuple((p.name, p.kind, len(p.sites)) for p in plan.recorded))
    if key not in known:
        known[key] = failing_parameters(plan, parameters, theta, x)
    return known[key]


def _owner(parameters: Parameters, name: str) -> str:
    return type(parameters.module.get_submodule(name.rpartition(".")[0])).__name__


def failing_parameters(plan: Plan, parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor) -> set[str]:
    """Return the parameters whose recorded gradients are not those of ``torch.func``, from one pass each way.

    Args:
        plan: how gradients are to be recorded.
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: inputs.

    Raises:
        ValueError: a forward that reads randomness, or examples that depend on each other.
    """
    if not plan.recorded:
        return set()
    two, three = (x[torch.arange(size, device=x.device) % len(x)] for size in (2, 3))
    cotangents = _random_cotangents(parameters, theta, three)
    calls = layer_calls(parameters, theta, two, cotangents[:2], plan.layers, repeated=plan.repeated)
    calls_ = layer_calls(parameters, theta, three, cotangents, plan.layers, repeated=plan.repeated)
    batched = _batched_layers(calls, calls_)
    wrong = {p.name for p in plan.recorded if not all(id(layer) in batched for layer, _ in p.sites)}
    recorded = plan.without(wrong).recorded
    if not recorded:
        return wrong
    names = list(dict.fromkeys(p.name for p in recorded))
    rows = per_example_gradients(parameters, theta, three, cotangents, names, batched=False)
    spans = [flat_slices(parameters)[name] for name in names]
    want = theta.new_zeros(len(three), theta.numel())
    for span, part in zip(spans, rows.split([span.stop - span.start for span in spans], dim=1), strict=True):
        want[:, span] = part
    eps = torch.finfo(want.dtype).eps
    rounding = 1e2 * eps * want.abs().max()  # of a gradient that is zero in exact arithmetic: a key's bias
    for parameter in recorded:
        exact = want[:, parameter.span]
        (block,) = gradient_blocks(Plan((parameter,), ()), calls_, rows_per_example=1)
        got = theta.new_zeros(len(three), theta.numel())
        block.materialise_into(got)
        error = (got[:, parameter.span] - exact).abs().max()
        if not error <= 1e4 * eps * exact.abs().max() + rounding:  # NaN fails
            wrong.add(parameter.name)
    return wrong


def repeated_embeddings(
    plan: Plan, parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor
) -> tuple[nn.Embedding, ...]:
    """Return the embeddings that look up the same tokens whatever the examples, if the model takes them repeated.

    Args:
        plan: how gradients are to be recorded.
        parameters: the chosen parameters of a model.
        theta: where the gradients are taken.
        x: inputs.
    """
    tables = [layer for layer in plan.layers if isinstance(layer, nn.Embedding)]
    if not tables:
        return ()
    few = [x[torch.arange(size, device=x.device) % len(x)] for size in (2, 3)]
    plain = [forward_pass(parameters, theta, some, tables) for some in few]
    looked_up = [{id(table): [i for layer, i, _ in one.calls if layer is table] for table in tables} for one in plain]
    alike = tuple(table for table in tables if _are_alike(*(each[id(table)] for each in looked_up)))
    if not alike:
        return ()
    try:
        made = [forward_pass(parameters, theta, some, tables, repeated=alike).outputs for some in few]
    except Exception:  # any error of a user's forward, which expects a table without examples
        return ()
    same = all(a.shape == b.outputs.shape and torch.allclose(a, b.outputs) for a, b in zip(made, plain, strict=True))
    return alike if same else ()


def _are_alike(tokens: list[Tensor], tokens_: list[Tensor]) -> bool:
    """Return whether both runs look up the same, without a dimension of examples or with one of length 1."""
    one = all(each.ndim == 1 or (each.ndim == 2 and len(each) == 1) for each in tokens)
    pairs = list(zip(tokens, tokens_, strict=False))
    return one and len(tokens) == len(tokens_) > 0 and all(torch.equal(a, b) for a, b in pairs)


def _random_cotangents(parameters: Parameters, theta: Tensor, x: Tensor) -> Tensor:
    """Return [e, 1, C] normal numbers, the same at every run, so that no gradient is zero by its cotangent."""
    with torch.no_grad():
        outputs = parameters.outputs(theta, x)
    shape, generator = (len(x), 1, outputs.shape[1]), torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(outputs)


def _batched_layers(calls: list[LayerCall], calls_: list[LayerCall]) -> set[int]:
    """Return the layers whose every call has the examples in the first dimension, 2 in one run and 3 in the other."""
    if [id(call.layer) for call in calls] != [id(call.layer) for call in calls_]:
        return set()
    called = {id(call.layer) for call in calls}
    fits = lambda call, size: len(call.input) == size and len(call.gradient) == size  # noqa: E731
    return called - {id(a.layer) for a, b in zip(calls, calls_, strict=True) if not (fits(a, 2) and fits(b, 3))}

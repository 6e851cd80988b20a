"""Entry points of the gate: a forward is checked once for each shape of examples, a derivative once for each route.

Results are cached by model (weakly) and structure, so that later calls with the same model skip the checks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from explainlib.checks import require_finite, warn_caller
from explainlib.gate.blame import failing_layer
from explainlib.gate.forward import Forward, ForwardMonitor, called, evenly_spaced, monitored_forward
from explainlib.gate.generators import known_generators, preserve_generators, restore_generator, state_of
from explainlib.gate.report import Finding
from explainlib.gate.rounding import rounds_below_precision
from explainlib.gate.routes import Comparison, Derivatives, UnsupportedError
from explainlib.losses import Loss, require_targets
from explainlib.params import Parameters

EXAMPLES = 3  # on which derivatives are compared
BATCHED_EXAMPLES = 32  # on which losses are compared batched and singly
DTYPE_DIFFERENCE = 1e-2  # relative difference of float32 and float64 outputs above rounding
WORDS = {
    "gradient": "gradient", "forward": "forward-mode derivative", "hessian": "second derivative (reverse over reverse)",
    "forward_hessian": "second derivative (forward over reverse)", "third": "third derivative",
}  # fmt: skip


class ModelWarning(UserWarning):
    """A property of a model that affects the reading of its explanations."""


class ConstantWarning(ModelWarning):
    """Part of a forward or a loss is constant in every derivative."""


@dataclass
class CheckedModel:
    """The results for one model and one shape: its forward, and the compared routes."""

    forward: Forward
    routes: dict[str, Comparison] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    warned: bool = False
    told: bool = False


_by_model: weakref.WeakKeyDictionary[nn.Module, dict[tuple, CheckedModel]] = weakref.WeakKeyDictionary()
_by_parameters: weakref.WeakKeyDictionary[Parameters, dict[tuple, CheckedModel]] = weakref.WeakKeyDictionary()
_losses: weakref.WeakKeyDictionary[object, dict[tuple, Finding | None]] = weakref.WeakKeyDictionary()


def admit(parameters: Parameters, x: Tensor, *, independent: bool = True, name: str = "train.x") -> int:
    """Return the number of outputs an example, after checking the model's forward on these examples once.

    Args:
        parameters: of the model.
        x: examples; where they are not independent, one batch.
        independent: whether examples are independent of each other.
        name: the caller's name of x.

    Raises:
        TypeError, ValueError: the first error among the findings.
    """
    checked = examine(parameters, x, independent=independent, name=name)
    for finding in checked.forward.findings:
        if finding.error:
            raise finding.kind(finding.text)
        if not checked.told:
            warn_caller(finding.text, ModelWarning)
    checked.told = True
    return checked.forward.outputs


def admit_objective(parameters: Parameters, x: Tensor, y: Tensor, loss: Loss) -> int:
    """Return the number of outputs an example of a model and a loss that fit x and y.

    Args:
        parameters: of the model.
        x: training examples.
        y: their targets.
        loss: on the outputs.

    Raises:
        TypeError, ValueError: as in ``admit``; outputs that are not finite, targets or a loss of another shape.
    """
    outputs = admit(parameters, x)
    with torch.no_grad():
        first = parameters.outputs(parameters.theta, x[:2])
    require_finite("the model's outputs", first, remedy="look for overflow in its forward, or scale the examples")
    require_targets(loss, "train.y", y, outputs)
    loss.value(first, y[:2])  # checks its shape
    return outputs


def examine(parameters: Parameters, x: Tensor, *, independent: bool = True, name: str = "train.x") -> CheckedModel:
    """Return the cached results for the model on such examples; findings are not raised."""
    key = (parameters.names, parameters.theta.dtype, x.shape[1:], x.dtype, parameters.batch_statistics, independent)
    own = _by_parameters.setdefault(parameters, {})
    if key not in own:
        model = parameters.source()
        known = {} if model is None else _by_model.setdefault(model, {})
        whole = (key, parameters.structure)
        if whole not in known:
            known[whole] = CheckedModel(monitored_forward(parameters, x, independent=independent, name=name))
        own[key] = known[whole]
        parameters.writes_input, parameters.sets = own[key].forward.writes_input, own[key].forward.sets
    return own[key]


def require_derivatives(parameters: Parameters, x: Tensor, routes: Sequence[str], *, independent: bool = True) -> None:
    """Return nothing, once each route agrees with finite differences; compared once per model and shape.

    Args:
        parameters: of the model.
        x: examples; up to three are used, or the whole batch where they are not independent.
        routes: of ``ROUTES``, those that the caller will use.
        independent: as in ``admit``.

    Raises:
        ValueError: a derivative that is wrong or missing, with the layer that causes it.
    """
    checked = examine(parameters, x, independent=independent)
    for route in routes:
        if route not in checked.routes and route not in checked.findings:
            _compare(checked, parameters, x, route, independent)
        if route in checked.findings:
            raise checked.findings[route].kind(checked.findings[route].text)
    if any(one.frozen for one in checked.routes.values()) and not checked.warned:
        checked.warned = True
        warn_caller(
            "part of the model's forward is computed under no_grad or detached: it counts as a constant in every "
            "derivative, so influence holds it where it is; retraining would move it.",
            ConstantWarning,
        )


def _compare(checked: CheckedModel, parameters: Parameters, x: Tensor, route: str, independent: bool) -> None:
    chosen = few_examples(x) if independent else x
    compared, failed = None, None
    for double in (True, False):  # a forward that needs float32 is compared in float32
        at = parameters.double() if double else parameters
        seen = chosen.double() if double and chosen.is_floating_point() else chosen
        try:
            rounded = rounds_below_precision(at, seen)
            if double and _differs_in_float64(parameters, chosen, at, seen):
                continue  # the float64 forward differs from that in the caller's dtype
            derivatives = Derivatives(_summed_outputs(at, seen), at.theta, at.sizes, rounded=rounded)
        except (UnsupportedError, RuntimeError) as error:
            failed = failed or error
            continue
        try:
            compared = derivatives.compare(route)
        except UnsupportedError as error:
            checked.findings[route] = _missing_finding(at, seen, route, str(error))
            return
        break
    if compared is None:
        checked.findings[route] = _missing_finding(parameters, chosen, route, str(failed))
    elif compared.agrees:
        checked.routes[route] = compared
    else:
        checked.findings[route] = _wrong_finding(at, seen, route, compared.error)


def _differs_in_float64(parameters: Parameters, x: Tensor, double: Parameters, x_double: Tensor) -> bool:
    """Return whether the model's float64 outputs differ beyond rounding."""
    with torch.no_grad():
        own, other = parameters.outputs(parameters.theta, x), double.outputs(double.theta, x_double)
    away = (own.double() - other.double()).abs().max() / (1e-30 + other.double().abs().max())
    return parameters.theta.dtype != torch.float64 and bool(away > DTYPE_DIFFERENCE)


def _summed_outputs(parameters: Parameters, x: Tensor):
    """Return F(theta) = sum over examples and outputs of c f, c random and fixed."""
    numbers = torch.Generator().manual_seed(2)
    weights: list[Tensor] = []

    def function(theta: Tensor, constants) -> Tensor:
        outputs = parameters.outputs(theta, x, constants=constants)
        if not weights:
            weights.append(torch.randn(outputs.shape, generator=numbers, dtype=torch.float64).to(outputs.dtype))
        return (outputs * weights[0].to(outputs.device)).sum()

    return function


def _wrong_finding(parameters: Parameters, x: Tensor, route: str, error: float) -> Finding:
    name = failing_layer(parameters, x, route)
    return Finding(
        f"the {WORDS[route]} of {called(name, parameters)} is wrong: it differs from differences of its forward by "
        f"{error:.1%}. Look at a backward of its own (autograd.Function), a scaled gradient (scale_grad_by_freq), or "
        "values written in place; use torch's own operations there, or learn only what comes after "
        "it, as with Risk(..., parameters=[...]).",
        layer=name,
    )


def _missing_finding(parameters: Parameters, x: Tensor, route: str, message: str) -> Finding:
    name = failing_layer(parameters, x, route)
    if "setup_context" in message or "saved tensor hooks" in message:
        why = (
            "it goes through an autograd.Function without setup_context, or through activation checkpointing "
            "(torch.utils.checkpoint): give the function a setup_context, or turn checkpointing off"
        )
    else:
        why = f"torch says: {message[:200]}; write that layer in operations torch can differentiate"
    return Finding(f"torch has no {WORDS[route]} of {called(name, parameters)}: {why}.", layer=name)


def require_loss_derivatives(
    loss: Loss, outputs: Callable[[], Tensor], y: Tensor, routes: Sequence[str], *, n_outputs: int
) -> None:
    """Return nothing, once a callable loss agrees with finite differences by each route and is separable by example.

    Args:
        loss: the two named losses are not checked.
        outputs: returns the outputs of ``few_examples(y)``; called only if the loss was not compared before.
        y: targets; a few are used.
        routes: as in ``require_derivatives``.
        n_outputs: outputs of an example.

    Raises:
        ValueError: a loss that is random, mixes examples, or whose derivative is wrong or missing.
    """
    if type(loss) is not Loss:
        return
    known = _losses.setdefault(loss.function, {}) if _weakly_referenceable(loss.function) else {}
    for route in ("value", *routes):
        key = (route, n_outputs, y.dtype, y.shape[1:])
        if key not in known:
            known[key] = _loss_finding(loss, outputs().detach(), y, route)
        finding = known[key]
        if finding is not None and finding.error:
            raise finding.kind(finding.text)
        if finding is not None and ("warned", *key[1:]) not in known:
            known["warned", *key[1:]] = None
            warn_caller(finding.text, ConstantWarning)


def few_examples(examples: Tensor) -> Tensor:
    """Return the examples, or their targets, on which derivatives are compared."""
    return examples[evenly_spaced(len(examples), EXAMPLES)[:EXAMPLES].to(examples.device)]


def _weakly_referenceable(function: object) -> bool:
    try:
        weakref.ref(function)
        hash(function)
    except TypeError:
        return False
    return True


def _loss_finding(loss: Loss, outputs: Tensor, y: Tensor, route: str) -> Finding | None:
    if route == "value":
        return _loss_values(loss, outputs, y[evenly_spaced(len(y), BATCHED_EXAMPLES)[:BATCHED_EXAMPLES].to(y.device)])
    y = few_examples(y)
    weights = torch.linspace(0.7, 1.3, len(outputs), dtype=torch.float64)
    for dtype in (torch.float64, outputs.dtype):
        at, target = outputs.to(dtype), y.to(dtype) if y.is_floating_point() else y

        def function(v: Tensor, constants, target=target, dtype=dtype) -> Tensor:
            return (loss.value(v.view(outputs.shape), target, constants=constants) * weights.to(v)).sum()

        try:
            derivatives = Derivatives(function, at.reshape(-1), (at.numel(),))
        except UnsupportedError:
            continue
        try:
            compared = derivatives.compare(route)
        except UnsupportedError as error:
            return Finding(
                f"torch has no {WORDS[route]} of the loss {loss.name!r}: {str(error)[:200]}; write it in operations "
                "torch can differentiate."
            )
        if not compared.agrees:
            return Finding(
                f"the {WORDS[route]} of the loss {loss.name!r} is wrong: it differs from differences by "
                f"{compared.error:.1%}; write it in torch's own operations, without numpy or .item()."
            )
        if compared.frozen:
            return Finding(
                f"part of the loss {loss.name!r} is computed under no_grad or detached: it counts as a constant in "
                "every derivative, so influence holds it where it is; retraining would move it.",
                error=False,
            )
        return None
    return None


def _loss_values(loss: Loss, outputs: Tensor, y: Tensor) -> Finding | None:
    """Compare the losses of many targets batched, repeated, and singly; the few outputs are cycled."""
    outputs = outputs[torch.arange(len(y), device=outputs.device) % len(outputs)]
    held = [(one, state_of(one)) for one in known_generators(loss.function)]
    with preserve_generators() as others, ForwardMonitor(nn.Module()) as watcher:
        together, again = (loss.value(outputs, y) for _ in range(2))
    read = [restore_generator(*one) for one in held]
    same = torch.equal(torch.nan_to_num(together), torch.nan_to_num(again))
    if watcher.drawn or others() or any(read) or not same:
        return Finding(f"the loss {loss.name!r} gives two values for the same outputs; remove what is random in it.")
    alone = torch.cat([loss.value(outputs[i : i + 1], y[i : i + 1]) for i in range(len(outputs))])
    rounding = 1e3 * torch.finfo(outputs.dtype).eps * (1 + together.abs().nan_to_num().max())
    if ((alone - together).abs().nan_to_num() > rounding).any():
        return Finding(
            f"the loss {loss.name!r} of one example depends on the other examples of its batch; return one "
            "value an example, "
            "without means or counts over the batch."
        )
    return None

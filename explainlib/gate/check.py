"""``check_model``: all findings of the gate on a model, as a report instead of an error."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from explainlib import compute
from explainlib.checks import require_choice, require_same_kind, require_tensor
from explainlib.gate.entry import ConstantWarning, examine, few_examples, require_derivatives, require_loss_derivatives
from explainlib.gate.report import Finding, ModelReport
from explainlib.gate.routes import FORWARD, FORWARD_HESSIAN, GRADIENT, HESSIAN, THIRD
from explainlib.losses import Loss, LossFunction, require_loss, require_targets
from explainlib.params import Parameters, require_finite_parameters

ORDERS = {0: (), 1: (GRADIENT, FORWARD), 2: (GRADIENT, FORWARD, HESSIAN, FORWARD_HESSIAN)}
ORDERS[3] = (*ORDERS[2], THIRD)


@compute.entry
def check_model(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    loss: str | LossFunction | Loss = "cross_entropy",
    order: int = 2,
) -> ModelReport:
    """Return the report of everything that would make a result of this model wrong; without findings it passes.

    Checked on copies of the model: randomness, state written by the forward, dependence between examples, and
    derivatives against finite differences. Neither the model nor x is changed.

    Args:
        model: any ``nn.Module`` from x [n, ...] to outputs [n, C].
        x: n >= 1 examples; a few are used.
        y: their targets; with them the loss is checked too.
        loss: as in ``Risk``.
        order: the highest derivative to compare with differences, 0 to 3: 1 for TracIn and kernels, 2 for influence,
            3 for TLXML, bilevel learning and ``third_derivative=True``.

    Returns:
        The report. A forward-mode derivative that torch lacks is a note, because few functions need it; those raise.
        ``.ok``, ``.findings``, ``.routes`` (relative difference between each derivative and differences);
        ``.require()`` raises the first error.

    Example: a linear model passes.

        >>> import torch
        >>> check_model(nn.Linear(2, 3).double(), torch.eye(2).double()).ok
        True
    """
    require_choice("order", order, tuple(ORDERS))
    kind, findings, outputs, routes = type(model).__name__, [], None, {}
    criterion = require_loss(loss)
    try:
        require_tensor("x", x)
        parameters = Parameters(model)
        require_finite_parameters(parameters.theta)
        require_same_kind("x", x, "model", parameters.theta)
        checked = examine(parameters, x, name="x")
    except (TypeError, ValueError) as error:
        return ModelReport((Finding(str(error), kind=type(error)),), kind)
    outputs, findings = checked.forward.outputs, list(checked.forward.findings)
    findings += _notes(model, parameters, checked.forward)
    if not any(finding.error for finding in findings):
        findings += _derivative_findings(parameters, x, y, criterion, ORDERS[order], outputs)
        routes = {route: checked.routes[route].error for route in ORDERS[order] if route in checked.routes}
    findings.sort(key=lambda finding: not finding.error)
    return ModelReport(tuple(findings), kind, outputs, routes)


def _derivative_findings(
    parameters: Parameters, x: Tensor, y: Tensor | None, criterion: Loss, routes: tuple[str, ...], outputs: int
) -> list[Finding]:
    """Compare route by route; warnings about constants become notes."""
    found: list[Finding] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for route in routes:
            try:
                require_derivatives(parameters, x, (route,))
            except (TypeError, ValueError) as error:
                missing = str(error).startswith("torch has no") and route in (FORWARD, FORWARD_HESSIAN)
                found.append(Finding(str(error), error=not missing, kind=type(error)))
                if route == GRADIENT:
                    break  # higher derivatives of a wrong one carry no information
        if y is not None:
            try:
                require_targets(criterion, "y", y, outputs)
                answered = lambda: parameters.outputs(parameters.theta, few_examples(x)).detach()  # noqa: E731
                require_loss_derivatives(criterion, answered, y, routes, n_outputs=outputs)
            except (TypeError, ValueError) as error:
                found.append(Finding(str(error), kind=type(error)))
    return found + [Finding(str(one.message), error=False) for one in said if one.category is ConstantWarning]


def _notes(model: nn.Module, parameters: Parameters, forward) -> list[Finding]:
    notes = []
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    if frozen:
        some = ", ".join(map(repr, frozen[:3])) + (" ..." if len(frozen) > 3 else "")
        notes.append(Finding(f"{len(frozen)} parameters are frozen ({some}) and do not change.", error=False))
    if forward.writes_input:
        notes.append(Finding("the forward writes into its input; it is given copies.", error=False))
    sets = [a for a in forward.sets if not type(model.get_submodule(a.layer)).__module__.startswith("torch.")]
    if sets:
        names = ", ".join(repr(f"{a.layer}.{a.name}".lstrip(".")) for a in sets[:3])
        notes.append(
            Finding(f"the forward sets {names}, which are put back after each call: it has no memory.", error=False)
        )
    return notes

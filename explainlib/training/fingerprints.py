"""What a computation on a risk starts from: the model, the loss and the data, and values that both give."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.risk import Risk
from explainlib.storage import fingerprint, probe_entry

EXAMPLES = 4  # that the probes look at
TOLD = ("loss", "l2", "parameters", "theta", "train", "weights", "n_outputs", "head")  # by other entries


def risk_fingerprint(
    risk: Risk, theta: Float[Tensor, " p"], sources: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, object]:
    """Return the fingerprint of a computation on a risk; its own weights and theta are not in it.

    Args:
        risk: its model, data, loss, ridge and choice of parameters enter.
        theta: where the model is probed; a start of the computation.
        sources: tensors and other values that enter too.
        options: numbers and text that enter too.

    Raises:
        UnidentifiedError: a loss or model that no store can tell from another; the message names what it uses.
    """
    x, y = risk.train.x[:EXAMPLES], risk.train.y[:EXAMPLES]
    probes = probe_entry("model", lambda: risk.parameters.outputs(theta, x.clone()))
    probes |= probe_entry("loss", lambda: _losses(risk, y))
    held = {k: v for k, v in vars(risk).items() if not k.startswith("_") and k not in TOLD}
    kind = type(risk) if type(risk) is Risk else [type(risk), held]
    data = {"train.x": risk.train.x, "train.y": risk.train.y}
    own = {"loss": risk.loss.name, "l2": risk.l2, "parameters": list(risk.parameters.names)}
    computed = {"model": risk.parameters.module, "loss": risk.loss, "objective": kind}
    return fingerprint({**computed, **data, **sources}, {**own, **options, **probes})


def _losses(risk: Risk, y: Tensor) -> Float[Tensor, " k"]:
    """Return the losses of made-up outputs, small and large ones."""
    k = torch.arange(len(y) * risk.n_outputs, device=y.device, dtype=risk.theta.dtype).view(len(y), -1)
    small, large = 0.5 * torch.cos(1 + k), 4 * torch.cos(2 + 3 * k)
    with torch.no_grad():
        return torch.cat([risk.loss.value(outputs, y) for outputs in (small, large)])

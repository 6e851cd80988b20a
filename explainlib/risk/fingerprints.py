"""Fingerprints of computations on a risk: of the model, the loss, the data, and probes of model and loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.risk.risk import Risk
from explainlib.storage import fingerprint, probe_entry

EXAMPLES = 4  # of the probes
COVERED = (
    "loss",
    "l2",
    "parameters",
    "theta",
    "train",
    "weights",
    "n_outputs",
    "head",
)  # attributes that other entries cover


def risk_fingerprint(
    risk: Risk, theta: Float[Tensor, " p"], sources: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, object]:
    """Return the fingerprint of a computation on a risk; the risk's own weights and theta are not included.

    Args:
        risk: its model, data, loss, ridge and choice of parameters enter.
        theta: parameters of the probe; the start of the computation.
        sources: tensors and other values that enter too.
        options: numbers and text that enter too.

    Raises:
        UnidentifiedError: a loss or model that cannot be identified; the message names what it uses.
    """
    x, y = risk.train.x[:EXAMPLES], risk.train.y[:EXAMPLES]
    probes = probe_entry("model", lambda: risk.parameters.outputs(theta, x.clone()))
    probes |= probe_entry("loss", lambda: _losses(risk, y))
    attributes = {k: v for k, v in vars(risk).items() if not k.startswith("_") and k not in COVERED}
    kind = type(risk) if type(risk) is Risk else [type(risk), attributes]
    data = {"train.x": risk.train.x, "train.y": risk.train.y}
    own = {"loss": risk.loss.name, "l2": risk.l2, "parameters": list(risk.parameters.names)}
    computed = {"model": risk.parameters.module, "loss": risk.loss, "objective": kind}
    return fingerprint({**computed, **data, **sources}, {**own, **options, **probes})


def _losses(risk: Risk, y: Tensor) -> Float[Tensor, " k"]:
    """Return the losses of synthetic outputs, small and large ones."""
    k = torch.arange(len(y) * risk.n_outputs, device=y.device, dtype=risk.theta.dtype).view(len(y), -1)
    small, large = 0.5 * torch.cos(1 + k), 4 * torch.cos(2 + 3 * k)
    with torch.no_grad():
        return torch.cat([risk.loss.value(outputs, y) for outputs in (small, large)])

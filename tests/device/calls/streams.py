"""Rows: data that are read in parts, adapted models, groups and measures on them."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

import explainlib as xl
from tests.device.calls.problems import D, risk, test
from tests.device.table import call
from tests.language import gpt_risk, sentences

GROUPS = [[0, 3, 5], [1, 2, 4, 7]]


@call("datasets.streamed", "datasets.StreamedRows", "datasets.StreamedRows.materialised", "datasets.StreamedRows.split", "datasets.StreamedRows.to")  # fmt: skip
def streamed_rows(device):
    held = risk("cpu", "network")
    train = xl.datasets.streamed(TensorDataset(held.train.x, held.train.y), device=device)
    assert isinstance(train.x, xl.datasets.StreamedRows)
    other = xl.Risk(held.model.to(device), train, l2=0.1)
    found = other.value(), other.gradient(), xl.influence.loss_influence(other, test(device), curvature="ekfac")
    return found, train.x.materialised(), list(train.x.split(7)), train.x.to(torch.float32)[:3]


@call("datasets.InputLayout", "datasets.InputLayout.of", "datasets.InputLayout.pack", "datasets.InputLayout.unpack", "models.adapted")  # fmt: skip
def packed_inputs(device):
    inputs = {"input": torch.ones(4, 3, dtype=D, device=device), "scale": torch.arange(4, device=device)[:, None]}
    layout = xl.datasets.InputLayout.of(inputs)
    rows = layout.pack(inputs)

    class Scaled(nn.Module):
        def forward(self, input, scale):
            return {"logits": input * scale}

    model = xl.models.adapted(Scaled(), inputs=layout, outputs="logits")
    assert xl.datasets.InputLayout is type(layout)
    return rows, layout.unpack(rows), model(rows)


@call("influence.removal_loss_change", "influence.Removal.measure_change", "retraining.Retrained.measure_change")
def measured_groups(device):
    r = risk(device, "network")
    how = {"curvature": "gauss_newton", "weighting": "plain", "damping": 0.1}
    direct = xl.influence.removal_loss_change(r, GROUPS, test(device), measure="margin", **how)
    effect = xl.influence.removal_effect(r, GROUPS, **how)
    changes = [effect.measure_change(test(device), measure="margin", evaluate=each) for each in (True, False)]
    trained = xl.retraining.leave_out(r, GROUPS, method="scratch", epochs=3, seeds=(0, 1))
    return direct, changes, trained.measure_change(test(device), measure="output", output=1)


@call("training.fit_without", "curvature.Ekfac.covered")
def trained_without(device):
    r = risk(device, "network")
    trained = xl.training.fit_without(r.model, r.train, GROUPS, epochs=2, batch_size=6, lr=0.1)
    return trained, xl.curvature.Ekfac(r).covered(trained)


@call("influence.token_influence")
def by_tokens(device):
    held = gpt_risk(6)
    r, t = xl.Risk(held.model.to(device), held.train.to(device), loss=held.loss, l2=0.1), sentences(2, seed=5)
    t, options = t.to(device), {"curvature": "ekfac", "damping": 0.1}
    return [xl.influence.token_influence(r, t, tokens=side, **options) for side in ("test", "train")]

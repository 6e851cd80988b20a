"""Rows: products of per-example gradients, and the operations that have a kernel, on their plain route."""

from __future__ import annotations

import torch

from explainlib import kernels, layerwise
from explainlib.params import Parameters
from tests.device.calls.problems import D, normal, risk
from tests.device.table import call
from tests.layerwise.nets import Attends, Places, Text, seeded, tokens


@call("layerwise.Capture", "layerwise.Capture.row_bytes", "layerwise.Capture.working_bytes", "layerwise.Capture.tile", "layerwise.Capture.cached", "layerwise.Capture.first_example", "layerwise.capture", "layerwise.combination", "layerwise.gram", "layerwise.norms", "layerwise.per_example", "layerwise.product")  # fmt: skip
def captured(device):
    found = []
    for kind in ("network", "convolution"):
        r = risk(device, kind)
        made = layerwise.capture(r.parameters, r.theta, r.train.x, normal(r.n, 3).to(device))
        found += [layerwise.gram(made, made), layerwise.norms(made), layerwise.per_example(made, [0, 2])]
        found += [
            layerwise.combination(made, normal(2, r.n).to(device)),
            layerwise.product(made, normal(2, r.p).to(device)),
        ]
        found += [layerwise.per_example(part) for part in (made.tile(0, 2), made.cached(10**6), made.first_example())]
        found += [made.row_bytes, made.working_bytes]
    return found


@call("layerwise.GradientSource", "layerwise.GradientSource.cotangent", "layerwise.GradientSource.first_example", "layerwise.GradientSource.row_bytes", "layerwise.GradientSource.working_bytes", "layerwise.GradientSource.tile", "layerwise.GradientSource.cached", "layerwise.gradients")  # fmt: skip
def sources(device):
    r = risk(device, "network")
    made = layerwise.gradients(r.parameters, r.theta, r.train.x, normal(12, 2, 3).to(device))
    parts = made.cotangent(1), made.first_example(), made.tile(0, 4), made.cached(10**6)
    found = [layerwise.per_example(part) for part in parts], made.row_bytes, made.working_bytes
    nets = [seeded(make).to(device) for make in (lambda: Attends("padding"), Places, lambda: Text(tied=True))]
    nets[2].read.weight = nets[2].embedding.weight  # moved to tensors of another class, they are no longer one
    for parameters in map(Parameters, nets):
        cotangents = normal(7, parameters.run(tokens(1).to(device)).shape[1]).to(device)
        each = layerwise.gradients(parameters, parameters.theta, tokens().to(device), cotangents)
        vectors, weights = normal(2, each.theta.numel()).to(device), normal(2, 7).to(device)
        sums = layerwise.product(each, vectors), layerwise.combination(each, weights)
        found = found, layerwise.gram(each, each), layerwise.norms(each), sums
    return found, layerwise.gram(made, made, memory=4000), layerwise.norms(made)


@call("layerwise.position_gram", "kernels.layer_gram", "kernels.runs_on_triton")
def grams(device):
    a, g, b, h = (x.to(device) for x in (normal(3, 4, 2), normal(3, 4, 5), normal(2, 6, 2), normal(2, 6, 5)))
    return layerwise.position_gram(a, g, b, h), kernels.layer_gram(a, g, b, h), kernels.runs_on_triton(a, 24)


@call("kernels.group_hessians", "kernels.linear_moments", "kernels.unfolded_moments")
def fused_operations(device):
    p, x, w = normal(9, 3).softmax(1).to(device), normal(9, 4).to(device), normal(9).square().to(device)
    members, offsets = torch.tensor([3, 1, 8, 0]).to(device), torch.tensor([0, 2, 2, 4]).to(device)
    layer = (
        (normal(2, 4).to(device), normal(2, 4).square().to(device)),
        (normal(2).to(device), normal(2).square().to(device)),
    )
    kernel = normal(2, 1, 3, 3).to(device), normal(2, 1, 3, 3).square().to(device)
    picture = normal(2, 1, 5, 5).to(device)
    moments = kernels.linear_moments(x, x.square(), *layer), kernels.linear_moments(x, None, layer[0], None)
    unfolded = kernels.unfolded_moments(picture, picture.square(), kernel, None, padding=1)
    return kernels.group_hessians(p, x, w, members, offsets), moments, unfolded


@call("kernels.trained_perceptrons")
def perceptrons(device):
    x, y, starts = normal(8, 3).to(device), torch.arange(8).to(device) % 3, normal(2, 31).to(device)
    weights = torch.ones(2, 8, dtype=D, device=device)
    options = {"widths": (3, 4, 3), "epochs": 3, "lr": 0.1}
    batched = kernels.trained_perceptrons(
        x, y, weights, starts, batches=torch.tensor([[0, 3], [1, 2]]).to(device), **options
    )
    return batched, kernels.trained_perceptrons(x, y, weights, starts, plateau=(0.5, 1, 0.0, 0.0), **options)

"""Small few-shot problems that every test of meta-learning shares."""

import torch
from torch import nn

from explainlib.datasets import Tasks
from explainlib.meta import Maml, ProtoNet
from explainlib.models import fc_bn, mlp

DOUBLE = torch.float64


def random_tasks(m=6, *, features=3, ways=3, shots=3, queries=4, seed=0, spread=1.0):
    """Tasks whose classes sit around random centres: learnable, never separable when ``spread`` is large."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(m, ways, 1, features, generator=g, dtype=DOUBLE)

    def part(each):
        x = centres + spread * torch.randn(m, ways, each, features, generator=g, dtype=DOUBLE)
        return x.flatten(1, 2), torch.arange(ways).repeat_interleave(each).expand(m, -1)

    return Tasks(*part(shots), *part(queries))


def tanh_maml(steps=1, inner_lr=0.3, features=3, ways=3, hidden=4):
    return Maml(mlp([features, hidden, ways], "tanh", dtype=DOUBLE), inner_lr=inner_lr, steps=steps)


def smooth_protonet(features=3):
    return ProtoNet(mlp([features, 4, 2], "tanh", seed=1, dtype=DOUBLE))


def linear_protonet(features=3):
    torch.manual_seed(0)
    return ProtoNet(nn.Sequential(nn.Linear(features, 2, dtype=DOUBLE)))


def bn_maml(features=3, ways=3, hidden=4):
    return Maml(fc_bn(features, ways, hidden=hidden, activation=nn.Tanh, dtype=DOUBLE), inner_lr=0.2)

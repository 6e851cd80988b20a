"""Rows: learners, meta-training, bilevel learners."""

from __future__ import annotations

import torch

import explainlib as xl
from explainlib import meta
from explainlib.gate import GRADIENT, HESSIAN
from explainlib.meta.learner import Episode
from tests.device.calls.problems import D, bilevel, maml, normal, tasks
from tests.device.table import call

TRAIN = {"batches": 3, "batch_size": 2, "lr": 0.01}


def protonet(device):
    return meta.ProtoNet(xl.models.mlp([3, 3, 2], "tanh", dtype=D, device=device))


def batch_norm(device):
    return meta.Maml(xl.models.fc_bn(3, 3, hidden=3, activation=torch.nn.Tanh, dtype=D, device=device), inner_lr=0.2)


@call("meta.Maml", "meta.ProtoNet", "meta.Learner", "meta.Learner.q", "meta.Learner.losses", "meta.Learner.gradients", "meta.Learner.adapted", "meta.Learner.outputs", "meta.Learner.accuracy", "meta.Learner.model_at", "meta.Learner.require_w", "meta.Learner.require_tasks", "meta.Learner.require_derivatives", "meta.Learner.require_ways", "meta.ProtoNet.require_ways", "meta.Learner.one_by_one", "meta.Learner.chunk")  # fmt: skip
def batches_of_tasks(device):
    found = []
    first = meta.Maml(xl.models.mlp([3, 2, 3], "tanh", dtype=D, device=device), inner_lr=0.3, first_order=True)
    for learner in (maml(device), maml(device, steps=2), first, protonet(device), batch_norm(device)):
        assert isinstance(learner, meta.Learner)
        w, t = learner.w0, tasks(device)
        found += [learner.losses(w, t), learner.gradients(w, t), learner.adapted(w, t), learner.outputs(w, t)]
        found += [learner.accuracy(w, t), learner.model_at(w), learner.q, learner.require_w(w)]
        learner.require_tasks(t), learner.require_derivatives(t, GRADIENT, HESSIAN), learner.require_ways(3, 3)
        found += [learner.one_by_one(t), learner.chunk(t)]
    return found


@call("meta.Learner.adapted_one", "meta.Learner.outputs_one", "meta.Learner.loss_one", "meta.Learner.gradient_one", "meta.Learner.map_tasks", "meta.Learner.options", "meta.Learner.remember_augmentation", "meta.Learner.augmentation_of", "meta.Maml.adapted_one", "meta.Maml.support_loss", "meta.Maml.outputs_one", "meta.Maml.gradient_one", "meta.Maml.options", "meta.ProtoNet.adapted_one", "meta.ProtoNet.outputs_one", "meta.ProtoNet.options")  # fmt: skip
def single_tasks(device):
    found = []
    for learner in (maml(device), protonet(device)):
        w, t = learner.w0, tasks(device)
        one = Episode(*(part[0] for part in t.arrays()))
        theta = learner.adapted_one(w, one)
        found += [
            theta,
            learner.outputs_one(theta, one, 3),
            learner.loss_one(w, one, 3),
            learner.gradient_one(w, one, 3),
        ]
        found += [learner.map_tasks(learner.loss_one, w, t), str(learner.options())]
        learner.remember_augmentation(w, t, xl.datasets.rotation_augmentation)
        found.append(learner.augmentation_of(w, t))
    return found, maml(device).support_loss(maml(device).w0, one)


@call("meta.train", "meta.minimise", "meta.Trained", "meta.leave_tasks_out", "meta.MetaRetrained", "meta.MetaRetrained.loss_change")  # fmt: skip
def meta_training(device):
    learner, t = maml(device), tasks(device)
    trained = meta.train(learner, t, **TRAIN), meta.train(batch_norm(device), t, weight_decay=0.01, **TRAIN)
    left = meta.leave_tasks_out(learner, t, [[0], [1, 2]], **TRAIN)
    small = meta.minimise(protonet(device), t[:2], l2=0.5, tolerance=1e-6)
    return trained, left.w, left.whole, left.loss_change(tasks(device, 2, seed=5)), small


@call("meta.meta_hessian", "meta.gauss_newton_rows", "meta.gauss_newton_buffer")
def meta_curvature(device):
    t, found = tasks(device), []
    for learner in (maml(device), maml(device, steps=2), protonet(device), batch_norm(device)):
        found += [meta.meta_hessian(learner, learner.w0, t, l2=0.1)]
        rows = meta.gauss_newton_rows(learner, learner.w0, t)
        buffer = meta.gauss_newton_buffer(learner, learner.w0, t, size=3, block=2)
        small = meta.gauss_newton_buffer(learner, learner.w0, t, size=3, block=2, compress=2)
        found += [rows.T @ rows, buffer.T @ buffer, small.T @ small]
    two_layer = meta.Maml(xl.models.fc_bn(3, 3, hidden=3, dtype=D, device=device), inner_lr=0.2)
    by_structure = meta.meta_hessian(two_layer, two_layer.w0, t, route="two_layer")
    return found, by_structure, meta.meta_hessian(two_layer, two_layer.w0, t, route="general")


@call("meta.Bilevel", "meta.Bilevel.inner_solution", "meta.Bilevel.outer_losses", "meta.Bilevel.total_gradients", "meta.Bilevel.partial_gradients", "meta.Bilevel.inner_jacobian", "meta.Bilevel.total_hessian", "meta.Bilevel.hessian_operator", "meta.Bilevel.inner_states", "meta.Bilevel.adapted", "meta.Bilevel.outputs", "meta.Bilevel.losses", "meta.Bilevel.accuracy", "meta.Bilevel.options", "meta.Bilevel.require_w", "meta.Bilevel.require_tasks", "meta.Bilevel.require_derivatives", "meta.Bilevel.has_closed_form")  # fmt: skip
def bilevel_learners(device):
    found = []
    for kind, options in (("softmax", {}), ("head", {}), ("network", {"inner_solver": "cg"})):
        learner, lam, t = bilevel(device, kind, **options)
        t = t[:2]
        found += [learner.inner_solution(lam, t), learner.total_gradients(lam, t), learner.has_closed_form]
        found += [learner.hessian_operator(lam, t)(normal(1, learner.q).to(device)), str(learner.options())]
        if options:
            continue  # all the rest is made of these, and an iterative solve takes long here
        found += [learner.outer_losses(lam, t), learner.partial_gradients(lam, t), learner.total_hessian(lam, t)]
        found += [learner.adapted(lam, t), learner.outputs(lam, t), learner.losses(lam, t), learner.accuracy(lam, t)]
        states = [state.theta for _, state in learner.inner_states(learner.require_w(lam), learner.require_tasks(t))]
        learner.require_derivatives(t, GRADIENT, HESSIAN)
        found += [states, learner.inner_jacobian(lam, t)]
    return found


@call("meta.solve", "meta.implicit_maml", "meta.adaptation_gap")
def solved_problems(device):
    found = []
    for kind in ("softmax", "head"):
        learner, _, t = bilevel(device, kind)
        found += [meta.solve(learner, t[:2]), meta.solve(learner, t[:2], method="lbfgs", tolerance=1e-3).w]
    learner, t = maml(device), tasks(device)
    implicit = meta.implicit_maml(learner, t, weight_decay=0.5)
    return found, implicit.strength, meta.adaptation_gap(learner, implicit, learner.w0, t)


@call("meta.TaskWeights", "meta.TaskWeights.of", "meta.TaskWeights.checked", "meta.TaskWeights.without_tasks", "meta.TaskWeights.without_example", "meta.TaskWeights.batch")  # fmt: skip
def task_weights(device):
    t = tasks(device)
    ones = meta.TaskWeights.of(t, weights=torch.ones(4, dtype=D).to(device))
    edited = ones.without_tasks([1]), ones.without_example(0, 1, "training"), meta.TaskWeights.checked(t, ones)
    learner, lam, few = bilevel(device)
    weights = meta.TaskWeights.of(few).without_tasks([0])
    return ones, edited, ones.batch(t, slice(0, 2)), learner.total_gradients(lam, few, weights=weights)

"""Bad inputs, each with the error a person must see. Run as a program, it prints what they do see, as JSON.

The tests' import hook checks every signature and would answer first; a person does not have it. So ``test_errors``
runs this file in a fresh interpreter, without the hook.
"""

# ruff: noqa: E501 - one case a line reads as a table
from __future__ import annotations

import json
import time
import warnings

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import explainlib as xl
from explainlib.datasets import Examples

D = torch.float64


def data(n=12, d=3, C=3):
    return Examples(torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=D), torch.arange(n) % C)


def model(d=3, C=3):
    return xl.models.logistic(d, C, dtype=D)


def net(*layers):
    return nn.Sequential(*layers).to(D)


class Pair(nn.Module):
    """Returns two things."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3).double()

    def forward(self, x):
        return self.a(x), x


class Noisy(Pair):
    def forward(self, x):
        return self.a(x) + torch.randn(len(x), 3, dtype=D)


class Centred(Pair):
    """One example's output depends on the others."""

    def forward(self, x):
        return self.a(x) - self.a(x).mean(0)


def frozen():
    m = model()
    m.linear.bias.requires_grad_(False)
    return m


def broken():
    m = model()
    m.linear.weight.data[0, 0] = float("nan")
    return m


RISK = xl.training.minimise(xl.Risk(model(), data(), l2=0.1))
TEST = data(4)
E = Examples
x, y = data().x, data().y
influence, removal, leave = xl.influence.loss_influence, xl.influence.removal_effect, xl.retraining.leave_out
minimise, fit = xl.training.minimise, xl.training.fit


def tasks(m=4, d=3, ways=3):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(ways).repeat_interleave(2).expand(m, -1)
    return xl.datasets.Tasks(
        torch.randn(m, 2 * ways, d, generator=g, dtype=D), y, torch.randn(m, 2 * ways, d, generator=g, dtype=D), y
    )


MAML = xl.meta.Maml(model(), inner_lr=0.1)
FIRST = xl.meta.Maml(model(), inner_lr=0.1, first_order=True)
BILEVEL = xl.meta.Bilevel(model(), strength=1.0, l2=0.1)
POOL = xl.datasets.ClassPool(x, y, ["p/a", "p/b", "p/c"], ["p"] * 3)


def l2l():
    """Another library's learner, by its name alone: the library need not be there."""
    kind = type("MAML", (nn.Module,), {"__module__": "learn2learn.algorithms.maml"})
    learner = kind()
    learner.module, learner.lr = model(), 0.1
    return learner


task_influence, pool, sample = xl.influence.TaskInfluence, xl.datasets.ClassPool, xl.datasets.sample_tasks

# name: (what the person does, the error's name, what its message must hold)
CASES = {
    # data
    "tuple for train": (lambda: xl.Risk(model(), (x, y)), "TypeError", ["train is a tuple", "Examples(x, y)"]),
    "lengths": (lambda: E(x, y[:5]), "ValueError", ["12", "5"]),
    "NaN": (lambda: E(x * float("nan"), y), "ValueError", ["NaN", "36"]),
    "numpy": (lambda: E(x.numpy(), y), "TypeError", ["ndarray", "as_tensor"]),
    "float32 data": (lambda: xl.Risk(model(), data().to(torch.float32)), "TypeError", ["float32", "float64", ".to("]),
    "four features": (lambda: xl.Risk(model(), data(d=4)), "ValueError", ["cannot read train.x", "4", "shaped"]),
    "labels too large": (lambda: xl.Risk(model(), E(x, y + 2)), "ValueError", ["2 to 4", "3 outputs", "0 to 2"]),
    "negative labels": (lambda: E(x, y - 1), "ValueError", ["-1"]),
    "float labels": (lambda: xl.Risk(model(), E(x, x[:, :1])), "TypeError", ["float64", "int64", "for regression pass loss='squared_error'"]),
    "float class numbers": (lambda: xl.Risk(model(), E(x, y.double()[:, None])), "TypeError", ["float64", "pass train.y.long().flatten()"]),
    "one-hot labels": (lambda: xl.Risk(model(), E(x, torch.eye(3, dtype=D)[y])), "TypeError", ["[12, 3]", "train.y.argmax(1)"]),
    "test targets for labels": (lambda: influence(RISK, E(x, x[:, :1])), "TypeError", ["test.y", "each example's class"]),
    "labels for squares": (lambda: xl.Risk(model(), data(), loss="squared_error"), "TypeError", ["int64", "floating", "one_hot(train.y, 3)"]),
    "two targets of three": (lambda: xl.Risk(model(), E(x, x[:, :2]), loss="squared_error"), "ValueError", ["[12, 2]", "[12, 3]"]),
    # models
    "not a model": (lambda: xl.Risk(lambda x: x, data()), "TypeError", ["function", "nn.Module"]),
    "no parameters": (lambda: xl.Risk(nn.Flatten(), data()), "ValueError", ["no parameters"]),
    "dropout": (lambda: xl.Risk(net(nn.Linear(3, 3), nn.Dropout(0.5)), data()), "ValueError", ["dropout", "'1'", "eval()"]),
    "BatchNorm": (lambda: xl.Risk(net(nn.Linear(3, 3), nn.BatchNorm1d(3)), data()), "ValueError", ["BatchNorm", "eval()"]),
    "BatchNorm without statistics": (lambda: xl.Risk(net(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval(), data()), "ValueError", ["BatchNorm", "track_running_stats"]),
    "frozen": (lambda: xl.Risk(frozen(), data(), parameters=["linear.bias"]), "ValueError", ["linear.bias", "requires_grad_()", "parameters="]),
    "all frozen": (lambda: xl.Risk(model().requires_grad_(False), data()), "ValueError", ["no parameter", "requires_grad_()"]),
    "NaN in the model": (lambda: xl.Risk(broken(), data()), "ValueError", ["parameters", "1 NaN"]),
    "random outputs": (lambda: xl.Risk(Noisy(), data()), "ValueError", ["draws random numbers", "model.eval()"]),
    "examples that see each other": (lambda: xl.Risk(Centred(), data()), "ValueError", ["depends on the other examples"]),
    "two outputs": (lambda: xl.Risk(Pair(), data()), "TypeError", ["tuple", "[n, C]"]),
    "flat output": (lambda: xl.Risk(net(nn.Linear(3, 1), nn.Flatten(0)), data()), "ValueError", ["outputs have shape", "[n, C]"]),
    "unknown parameter": (lambda: xl.Risk(model(), data(), parameters=["linear.wait"]), "ValueError", ["linear.wait", "linear.weight"]),
    "no parameter": (lambda: xl.Risk(model(), data(), parameters=[]), "ValueError", ["empty", "linear.weight"]),
    "unknown choice": (lambda: xl.Risk(model(), data(), parameters="first"), "ValueError", ["'first'", "'all', 'last'"]),
    # options of a risk
    "loss": (lambda: xl.Risk(model(), data(), loss="hinge"), "ValueError", ["'hinge'", "'cross_entropy'"]),
    "averaging loss": (lambda: xl.Risk(model(), data(), loss=cross_entropy), "ValueError", ["one per example", "reduction='none'"]),
    "negative ridge": (lambda: xl.Risk(model(), data(), l2=-1), "ValueError", ["l2=-1", "zero or more"]),
    "NaN ridge": (lambda: xl.Risk(model(), data(), l2=float("nan")), "ValueError", ["l2=nan"]),
    "theta of another length": (lambda: RISK.at(torch.zeros(5, dtype=D)), "ValueError", ["theta", "[5]", "[12]"]),
    "theta a list": (lambda: RISK.at([0.0] * 12), "TypeError", ["theta is a list", "as_tensor"]),
    "theta in float32": (lambda: RISK.at(torch.zeros(12)), "TypeError", ["float32", ".to("]),
    "theta NaN": (lambda: RISK.at(torch.full((12,), float("nan"), dtype=D)), "ValueError", ["theta", "12 NaN"]),
    "weights of another length": (lambda: RISK.reweighted(torch.ones(5)), "ValueError", ["weights", "[5]", "[12]"]),
    "weights all zero": (lambda: RISK.reweighted(torch.zeros(12)), "ValueError", ["all zero"]),
    "device": (lambda: RISK.at(torch.zeros(12, dtype=D, device="meta")), "ValueError", ["meta", "cpu", ".to("]),
    # tests
    "test of another shape": (lambda: influence(RISK, data(4, d=5)), "ValueError", ["test.x", "[4, 5]", "[any, 3]"]),
    "test in float32": (lambda: influence(RISK, TEST.to(torch.float32)), "TypeError", ["test.x", "float32"]),
    "test labels": (lambda: influence(RISK, data(8, C=4)), "ValueError", ["test.y", "0 to 3", "3 outputs"]),
    "test a tensor": (lambda: influence(RISK, x), "TypeError", ["test is a Tensor", "Examples"]),
    # influence and solvers
    "curvature": (lambda: influence(RISK, TEST, curvature="fisher"), "ValueError", ["'fisher'", "'gauss_newton'"]),
    "ekfac by products": (lambda: influence(RISK, TEST, curvature="ekfac", solver="cg"), "ValueError", ["solver=CG", "gauss_newton"]),
    "ekfac pruned": (lambda: influence(RISK, TEST, curvature="ekfac", keep=3), "ValueError", ["keep=3", "damping"]),
    "measure": (lambda: influence(RISK, TEST, measure="logit"), "ValueError", ["measure='logit'", "'margin'"]),
    "an output of the loss": (lambda: influence(RISK, TEST, output=1), "ValueError", ["output=1", "measure='output'"]),
    "a measure that is a mean": (lambda: influence(RISK, TEST, measure=lambda f, y: f.mean()), "ValueError", ["expected [", "one per example"]),
    "solver": (lambda: influence(RISK, TEST, solver="lu"), "ValueError", ["'lu'", "'dense'"]),
    "arnoldi above a threshold": (lambda: influence(RISK, TEST, solver="arnoldi", keep=1e-9), "ValueError", ["keep=1e-09", "count"]),
    "trak with too many features": (lambda: xl.influence.trak(RISK, TEST), "ValueError", ["features=512", "at most 12"]),
    "trak projection": (lambda: xl.influence.trak(RISK, TEST, features=5, projection="sparse"), "ValueError", ["'sparse'", "'gaussian'"]),
    "solver of another kind": (lambda: influence(RISK, TEST, solver=torch.linalg.solve), "TypeError", ["solver is a", "'dense'"]),
    "negative damping": (lambda: influence(RISK, TEST, damping=-1e-3), "ValueError", ["damping=-0.001", "zero or more"]),
    "NaN damping": (lambda: influence(RISK, TEST, damping=float("nan")), "ValueError", ["damping=nan"]),
    "keep 1.0": (lambda: influence(RISK, TEST, keep=1.0), "ValueError", ["keep=1.0", "1e-9"]),
    "keep 0": (lambda: influence(RISK, TEST, keep=0), "ValueError", ["keep=0"]),
    "keep with cg": (lambda: influence(RISK, TEST, keep=3, solver="cg"), "ValueError", ["keep=3", "'dense'"]),
    "singular": (lambda: influence(xl.Risk(model(), data()), TEST), "SolverError", ["singular", "a larger damping or a Risk with a larger l2", "keep=1e-9"]),
    "on_failure": (lambda: influence(RISK, TEST, on_failure="shrug"), "ValueError", ["on_failure='shrug'", "'warn'"]),
    "index outside": (lambda: xl.influence.parameter_influence(RISK, [57]), "ValueError", ["index 57", "outside the 12 training examples"]),
    "index negative": (lambda: xl.influence.parameter_influence(RISK, [-1]), "ValueError", ["index -1", "0 to 11"]),
    "index twice": (lambda: xl.influence.parameter_influence(RISK, [3, 3]), "ValueError", ["index 3", "twice"]),
    "no index": (lambda: xl.influence.parameter_influence(RISK, []), "ValueError", ["empty", "12"]),
    "a mask": (lambda: xl.influence.parameter_influence(RISK, y == 0), "TypeError", ["mask", "nonzero()"]),
    "float index": (lambda: xl.influence.parameter_influence(RISK, torch.tensor([1.0])), "TypeError", ["float32", ".long()"]),
    # groups
    "no groups": (lambda: removal(RISK, []), "ValueError", ["groups is empty"]),
    "empty group": (lambda: removal(RISK, [[0], []]), "ValueError", ["groups[1] is empty"]),
    "everything": (lambda: removal(RISK, [list(range(12))]), "ValueError", ["groups[0] is all 12", "leave at least one"]),
    "flat list": (lambda: removal(RISK, [0, 1]), "TypeError", ["single numbers", "[[i] for i in indices]"]),
    "flat tensor": (lambda: removal(RISK, torch.tensor([0, 1])), "TypeError", ["one row", "[indices]"]),
    "outside in a group": (lambda: removal(RISK, [[0], [12]]), "ValueError", ["index 12 in groups[1]", "12 training examples"]),
    "order 3": (lambda: removal(RISK, [[0]], order=3), "ValueError", ["order=3", "'newton'"]),
    "order '1'": (lambda: removal(RISK, [[0]], order="1"), "ValueError", ["order='1'", "1, 2"]),
    "order 1.0": (lambda: removal(RISK, [[0]], order=1.0), "ValueError", ["order='1.0'"]),
    "weighting": (lambda: removal(RISK, [[0]], weighting="keep"), "ValueError", ["'keep'", "'preserve', 'plain'"]),
    "third derivative at first order": (lambda: removal(RISK, [[0]], third_derivative=True), "ValueError", ["order=2", "order=1"]),
    "leave nobody out": (lambda: leave(RISK, [[]]), "ValueError", ["groups[0] is empty"]),
    "leave everybody out": (lambda: leave(RISK, [list(range(12))]), "ValueError", ["leave at least one"]),
    "scratch without epochs": (lambda: leave(RISK, [[0]], method="scratch"), "ValueError", ["method='scratch'", "needs epochs", "pass epochs"]),
    "group of nobody": (lambda: xl.influence.influential_group(RISK, TEST, 0), "ValueError", ["0"]),
    "group of everybody": (lambda: xl.influence.influential_group(RISK, TEST, 12), "ValueError", ["12"]),
    "unknown selection": (lambda: xl.influence.influential_group(RISK, TEST, 3, method="best"), "ValueError", ["'best'", "'greedy'"]),
    "reweighted selection": (lambda: xl.influence.influential_group(RISK.reweighted(torch.arange(1.0, 13.0)), TEST, 3), "ValueError", ["weight"]),
    "trust in a Newton step": (lambda: xl.influence.series_trust(removal(RISK, [[0]], order="newton")), "ValueError", ["Newton step", "order=1 or 2"]),
    # training
    "tolerance": (lambda: minimise(RISK, tolerance=0.0), "ValueError", ["tolerance=0.0", "above zero"]),
    "weights a list": (lambda: minimise(RISK, weights=[1.0] * 12), "TypeError", ["weights is a list", "as_tensor"]),
    "weights of another width": (lambda: minimise(RISK, weights=torch.ones(2, 5)), "ValueError", ["[2, 5]", "[any, 12]"]),
    "weights of a cube": (lambda: minimise(RISK, weights=torch.ones(2, 5, 12)), "ValueError", ["[2, 5, 12]"]),
    "fit a tuple": (lambda: fit(model(), (x, y), epochs=1), "TypeError", ["train is a tuple", "Examples"]),
    "fit other dtypes": (lambda: fit(model(), data().to(torch.float32), epochs=1), "TypeError", ["float32"]),
    "fit labels": (lambda: fit(model(), E(x, y + 1), epochs=1), "ValueError", ["1 to 3", "3 outputs"]),
    "fit targets that would broadcast": (lambda: fit(model(), E(x, x[:, :1]), epochs=1, loss="squared_error"), "ValueError", ["[12, 1]", "[12, 3]"]),
    "fit features": (lambda: fit(model(), data(d=4), epochs=1), "ValueError", ["cannot read train.x"]),
    "a variance below zero": (lambda: xl.models.bayesian_mlp([3, 4, 3]).moments(torch.zeros(2, 3), -torch.ones(2, 3)), "ValueError", ["zero or more"]),
    "a risk of a Bayesian net": (lambda: xl.Risk(xl.models.bayesian_mlp([3, 4, 3]), data()), "TypeError", ["their means alone", "xl.training.ElboRisk"]),
    "an ELBO of a plain net": (lambda: xl.training.ElboRisk(xl.models.mlp([3, 4, 3]), data()), "TypeError", ["without variances", "bayesian(model)"]),
    "a layer without moments": (lambda: xl.models.bayesian(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))), "TypeError", ["no rule for moments"]),
    "lenet of small pictures": (lambda: xl.models.lenet(1, 10, side=8), "ValueError", ["side=8"]),
    "fit without anybody": (lambda: fit(model(), data(), epochs=1, without=list(range(12))), "ValueError", ["all 12 training examples"]),
    "fit without a stranger": (lambda: fit(model(), data(), epochs=1, without=[12]), "ValueError", ["12"]),
    "fit no epochs": (lambda: fit(model(), data(), epochs=0), "ValueError", ["epochs=0", "at least 1"]),
    "a rate too many": (lambda: xl.training.Trajectory(model(), torch.zeros(2, 12), torch.ones(3)), "ValueError", ["2 checkpoints", "one rate per checkpoint"]),
    "eigenvalues": (lambda: xl.curvature.top_eigenvalues(RISK, 13), "ValueError", ["k=13", "12"]),
    "a panel on a model": (lambda: xl.panels.Removal(model(), TEST), "TypeError", ["a Sequential", "xl.Risk"]),
    "a group panel on a model": (lambda: xl.panels.GroupRemoval(model(), TEST), "TypeError", ["a Sequential", "xl.Risk"]),
    # few-shot tasks and learners
    "more ways than classes": (lambda: sample(POOL, 2, ways=4), "ValueError", ["3 classes", "4", "fewer ways"]),
    "more shots than drawings": (lambda: sample(POOL, 2, ways=3, shots=3, queries=2), "ValueError", ["4 drawings", "5"]),
    "no tasks": (lambda: sample(POOL, 0, ways=2, shots=1, queries=1), "ValueError", ["n_tasks=0"]),
    "a class twice": (lambda: pool(x, y, ["a", "a", "b"], ["p"] * 3), "ValueError", ["2 of them distinct"]),
    "an empty class": (lambda: pool(x, y, ["a", "b", "c", "d"], ["p"] * 4), "ValueError", ["needs a drawing"]),
    "a query without support": (lambda: xl.datasets.Tasks(x[None, :2], y[None, :2], x[None], y[None]), "ValueError", ["query_y asks about class 2", "support shows 0 to 1"]),
    "no such pool": (lambda: xl.datasets.class_pool("omniglott"), "ValueError", ["omniglott", "omniglot"]),
    "a list of tasks": (lambda: MAML.losses(MAML.w0, [tasks()]), "TypeError", ["list", "sample_tasks"]),
    "features of another width": (lambda: MAML.losses(MAML.w0, tasks(d=4)), "ValueError", ["cannot read", "support"]),
    "more ways than outputs": (lambda: MAML.losses(MAML.w0, tasks(ways=4)), "ValueError", ["3 outputs", "4 ways"]),
    "float32 tasks": (lambda: MAML.losses(MAML.w0, tasks().to(torch.float32)), "TypeError", ["float32"]),
    "another learner's parameters": (lambda: MAML.losses(MAML.w0[1:], tasks()), "ValueError", ["[11]", "[12]"]),
    "inner rate": (lambda: xl.meta.Maml(model(), inner_lr=-0.1), "ValueError", ["inner_lr=-0.1"]),
    "runaway inner step": (lambda: xl.meta.Maml(model(), inner_lr=1e308, steps=3).losses(MAML.w0, tasks()), "ValueError", ["inner step diverged", "lower inner_lr"]),
    "a learner of no model": (lambda: xl.meta.ProtoNet(lambda x: x), "TypeError", ["function", "nn.Module"]),
    "first order explained": (lambda: task_influence(FIRST, FIRST.w0, tasks()), "ValueError", ["first-order", "first_order=False"]),
    "strict and not at a minimum": (lambda: task_influence(MAML, MAML.w0, tasks(), strict=True), "ValueError", ["not at a minimum", "strict=False"]),
    "a task that is not there": (lambda: task_influence(MAML, MAML.w0, tasks()).performance(tasks(), groups=[[4]]), "ValueError", ["index 4", "4 training tasks"]),
    "learn2learn's learner": (lambda: task_influence(l2l(), MAML.w0, tasks()), "TypeError", ["learn2learn MAML", "xl.meta.Maml(learner.module, inner_lr=learner.lr)"]),
    "learn2learn's learner trained": (lambda: xl.meta.train(l2l(), tasks(), batches=1), "TypeError", ["learn2learn MAML", "learner.module"]),
    "learn2learn's learner without tasks": (lambda: xl.meta.leave_tasks_out(l2l(), tasks(), [[0]], batches=1), "TypeError", ["learn2learn MAML", "learner.module"]),
    "learn2learn's learner minimised": (lambda: xl.meta.minimise(l2l(), tasks()), "TypeError", ["learn2learn MAML", "learner.module"]),
    "learn2learn's learner differentiated": (lambda: xl.meta.meta_hessian(l2l(), MAML.w0, tasks()), "TypeError", ["learn2learn MAML", "learner.module"]),
    "learn2learn's learner by rows": (lambda: xl.meta.gauss_newton_buffer(l2l(), MAML.w0, tasks(), size=3), "TypeError", ["learn2learn MAML", "learner.module"]),
    "learn2learn's learner compared": (lambda: xl.influence.cosine_scores(l2l(), MAML.w0, tasks(), tasks()), "TypeError", ["learn2learn MAML", "learner.module"]),
    "learn2learn's learner for two levels": (lambda: xl.meta.solve(l2l(), tasks()), "TypeError", ["MAML", "xl.meta.Bilevel(bilevel.module"]),
    "a network for a learner": (lambda: xl.meta.train(model(), tasks(), batches=1), "TypeError", ["xl.meta.Maml(model, inner_lr=...)"]),
    "two levels for tasks": (lambda: task_influence(BILEVEL, BILEVEL.lam0, tasks()), "TypeError", ["a Bilevel", "xl.influence.BilevelInfluence"]),
    "tasks for two levels": (lambda: xl.influence.BilevelInfluence(MAML, MAML.w0, tasks()), "TypeError", ["a Maml", "xl.influence.TaskInfluence"]),
    "all tasks of two levels": (lambda: xl.influence.BilevelInfluence(BILEVEL, BILEVEL.lam0, tasks()).without_tasks([0, 1, 2, 3]), "ValueError", ["indices is all 4", "leave at least one"]),
    "flat groups of tasks": (lambda: task_influence(MAML, MAML.w0, tasks()).performance(tasks(), groups=[0, 1]), "TypeError", ["single numbers", "[indices]"]),
    "a list mask": (lambda: xl.influence.parameter_influence(RISK, [True] * 12), "TypeError", ["mask", "torch.as_tensor(indices).nonzero()"]),
    "no batches": (lambda: xl.meta.train(MAML, tasks(), batches=0), "ValueError", ["batches=0"]),
    "leave all tasks out": (lambda: xl.meta.leave_tasks_out(MAML, tasks(), [[0, 1, 2, 3]], batches=1), "ValueError", ["all 4", "at least one"]),
    # representers
    "kernel kind": (lambda: xl.representers.kernel(model(), x, x, kind="rbf"), "ValueError", ["'rbf'", "'ntk'"]),
    "kernel output": (lambda: xl.representers.kernel(model(), x, x, output=3), "ValueError", ["output=3", "0 to 2"]),
    "importance of another set": (lambda: xl.representers.representer_scores(torch.ones(4, 2), torch.ones(3, 5), output=0), "ValueError", ["[4, 2]", "[3, 5]", "same n"]),
    "kernel of another model": (lambda: xl.representers.representer_scores(torch.ones(4, 2), torch.ones(3, 4, 3), output=0), "ValueError", ["3 outputs", "one model for both"]),
    "kernel between other outputs": (lambda: xl.representers.representer_scores(torch.ones(4, 2), torch.ones(3, 4, 2, 3), output=0), "ValueError", ["outputs", "one model for both"]),
    "two labels for one output": (lambda: xl.Risk(net(nn.Linear(3, 1)), data(C=2)), "ValueError", ["one output", "loss='binary_cross_entropy'"]),
    "binary of three": (lambda: xl.Risk(model(), data(C=2), loss="binary_cross_entropy"), "ValueError", ["the model has 3", "loss='cross_entropy'"]),
    "axioms of a part": (lambda: xl.representers.axioms.table(x[:4], x, x[:, 0]), "ValueError", ["training against training"]),
    "tracking with Adam": (lambda: fit(model(), data(), epochs=1, record=True), "ValueError", ["plain gradient descent", "optimizer='sgd'"]),
    "nothing tracked": (lambda: xl.representers.tracking_importance(fit(model(), data(), epochs=1)), "ValueError", ["record=True"]),
    "factors of no square": (lambda: xl.representers.representer_factors(torch.ones(3, 4)), "ValueError", ["scores_train", "[3, 4]", "training against training"]),
    "factors of other tests": (lambda: xl.representers.representer_factors(torch.eye(3), torch.ones(2, 4)), "ValueError", ["scores_test", "[2, 4]", "[any, 3]"]),
    "factors of no product": (lambda: xl.representers.representer_factors(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "AxiomError", ["irreducibility is violated", "axioms.table"]),
    "tracin without checkpoints": (lambda: xl.influence.tracin(fit(model(), data(), epochs=1), data(), data()), "ValueError", ["checkpoints=..."]),
    # texts and kernels
    "one text": (lambda: xl.datasets.Tokenizer.fit("text"), "TypeError", ["pass [text]"]),
    "a number among texts": (lambda: xl.datasets.Tokenizer.fit(["a", 3]), "TypeError", ["texts[1] is a int"]),
    "a text without a word": (lambda: xl.datasets.Tokenizer.fit(["a"])(["", "a"]), "ValueError", ["1 of the 2 texts have no word"]),
    "one width": (lambda: xl.models.text_cnn(9, 2, widths=3), "TypeError", ["widths"]),
    "an unknown kernel choice": (lambda: xl.kernels.use("cuda"), "ValueError", ["'cuda'", "'torch'"]),
    "factors of two dtypes": (lambda: xl.kernels.layer_gram(torch.ones(2, 1, 3), torch.ones(2, 1, 3).double(), torch.ones(2, 1, 3), torch.ones(2, 1, 3).double()), "TypeError", ["convert one"]),
    "a task panel on a model": (lambda: xl.panels.TaskRemoval(model(), tasks(), tasks(), batches=1), "TypeError", ["a Sequential", "TaskInfluence"]),
    "an adaptation panel on a model": (lambda: xl.panels.Adaptation(model(), MAML.w0, tasks()), "TypeError", ["Maml"]),
    # deletion and detection
    "scores that are all equal": (lambda: xl.metrics.deletion_groups(torch.ones(2, 50)), "ValueError", ["equal"]),
    "suspects of one kind": (lambda: xl.metrics.mislabel_auc(torch.arange(4.0), torch.ones(4, dtype=torch.bool)), "ValueError", []),
    "no such room": (lambda: xl.influnce, "AttributeError", ["influnce"]),
}  # fmt: skip


def outcome(act) -> dict:
    """Return what a person sees: the error, its message, how long it took, and whether the shared risk still stands."""
    theta, start = RISK.theta.clone(), time.perf_counter()
    threads, flushed = torch.get_num_threads(), xl.compute.flushes_denormals()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
            seen = {"error": "nothing", "bases": [], "message": ""}
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            seen = {"error": kinds[0], "bases": kinds, "message": str(error)}
    same = torch.equal(theta, RISK.theta) and (threads, flushed) == (
        torch.get_num_threads(),
        xl.compute.flushes_denormals(),
    )
    return {**seen, "seconds": time.perf_counter() - start, "unchanged": same}


if __name__ == "__main__":
    print(json.dumps({name: outcome(act) for name, (act, _, _) in CASES.items()}))

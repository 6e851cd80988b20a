"""Every function with ``store=``, each as a small computation whose arguments can be changed one at a time.

``python -m tests.storage.cases kill FOLDER`` kills each of them at several moments and lets it go on;
``python -m tests.storage.cases run FOLDER NAME VERSION`` fills one store, as one of two processes at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from explainlib import Risk
from explainlib.curvature import Ekfac
from explainlib.datasets import Examples, Tasks
from explainlib.influence import TaskInfluence, loss_influence, token_influence
from explainlib.meta import Maml, leave_tasks_out, meta_hessian, train
from explainlib.metrics.deletion import retrained_changes
from explainlib.retraining import leave_out
from explainlib.solvers import Arnoldi, inverse_curvature
from explainlib.training import fit_ensemble, fit_risks, fresh_starts, minimise

DOUBLE = torch.float64
Call = Callable[..., Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def net(slope: float, features: int = 3, outputs: int = 2) -> nn.Module:
    """One class name and one printed form, whatever its forward computes."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(features, 3, dtype=DOUBLE)
            self.last = nn.Linear(3, outputs, dtype=DOUBLE)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(slope * self.first(x)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def loss_of(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return scale * nn.functional.cross_entropy(outputs, y, reduction="none")

    return loss


def rotation_by(angle: float) -> Callable[[Tasks, int], Tasks]:
    def turned(tasks: Tasks, number: int) -> Tasks:
        shift = angle * number
        return Tasks(tasks.support_x + shift, tasks.support_y, tasks.query_x + shift, tasks.query_y)

    return turned


def learner_of(loss: float, slope: float, inner_lr: float) -> Maml:
    class Scaled(Maml):
        def loss_one(self, w: Tensor, task: object, ways: int) -> Tensor:
            answers = self.outputs_one(self.adapted_one(w, task), task, ways)
            return nn.functional.cross_entropy(loss * answers, task.query_y)

    return Scaled(net(slope, outputs=2), inner_lr=inner_lr)


def risk_of(loss: float, forward: float, data: int, options: float) -> Risk:
    return Risk(net(forward), Examples(noise(12, 3, seed=data), torch.arange(12) % 2), loss=loss_of(loss), l2=options)


def tasks_of(data: int) -> Tasks:
    y = torch.arange(4).expand(5, -1) % 2
    return Tasks(noise(5, 4, 3, seed=data), y, noise(5, 4, 3, seed=data + 1), y)


RISK = {"loss": 1.0, "forward": 1.0, "data": 0, "options": 0.1}
LEARNER = {"loss": 1.0, "forward": 1.0, "data": 0, "options": 0.1}
CHANGED = {"loss": 1.5, "forward": 1.4, "data": 7, "options": 0.2, "seed": 3, "batches": 3, "augment": 0.5}
MOMENTS = [("link", 1, True), ("fsync", 2, False), ("replace", 1, False), ("replace", 2, True)]  # of writing a file
GROUPS = [[0], [1, 2], [3], [4, 5]]


def _on_risk(compute: Call, **more: object) -> tuple[Call, dict[str, object]]:
    def call(store: Path | None, **given: object) -> Tensor:
        own = {name: given.pop(name) for name in RISK}
        return compute(risk_of(**own), store, **given)

    return call, {**RISK, **more}


def _on_learner(compute: Call, **more: object) -> tuple[Call, dict[str, object]]:
    def call(store: Path | None, **given: object) -> Tensor:
        learner = learner_of(given.pop("loss"), given.pop("forward"), given.pop("options"))
        return compute(learner, tasks_of(given.pop("data")), store, **given)

    return call, {**LEARNER, **more}


def _on_tokens(tokens: str) -> tuple[Call, dict[str, object]]:
    def call(store: Path | None, forward: float, data: int, options: float) -> Tensor:
        y = torch.arange(48).view(12, 4) % 2
        model, train = nn.Sequential(net(forward), nn.Flatten()), Examples(noise(12, 4, 3, seed=data), y)
        risk = Risk(model, train, loss="token_cross_entropy", l2=options)
        test = Examples(noise(2, 4, 3, seed=9), y[:2])
        how = {"curvature": "gauss_newton", "solver": "cg", "damping": 0.1}
        return token_influence(risk, test, tokens=tokens, store=store, **how)

    return call, {name: given for name, given in RISK.items() if name != "loss"}


def _minimise(risk: Risk, store: Path | None) -> Tensor:
    weights = 0.5 + noise(5, 12, seed=4).abs()
    return minimise(risk, weights=weights, tolerance=1e-8, on_failure="warn", store=store).theta


def _ensemble(risk: Risk, store: Path | None, seed: int) -> Tensor:
    made = fit_ensemble(
        risk.model, risk.train, epochs=4, seeds=[seed, 1, 2], loss=risk.loss, l2=risk.l2, store=store, lr=0.05
    )
    return made.theta


def _risks(risk: Risk, store: Path | None, seed: int) -> Tensor:
    return fit_risks(risk, starts=fresh_starts(risk, [seed, 1, 2]), epochs=4, lr=0.05, store=store).theta


def _retrained(risk: Risk, store: Path | None, **options: object) -> Tensor:
    seeds = {"seeds": [options.pop("seed")]} if "seed" in options else {}
    return leave_out(risk, GROUPS, on_failure="warn", store=store, **options, **seeds).theta


def _deleted(risk: Risk, store: Path | None, seed: int) -> Tensor:
    test = Examples(noise(2, 3, seed=9), torch.tensor([0, 1]))
    return retrained_changes(risk, test, [[[0], [1, 2]]] * 2, epochs=4, lr=0.05, seed=seed, store=store)


def _scores(risk: Risk, store: Path | None) -> Tensor:
    test = Examples(noise(2, 3, seed=9), torch.tensor([0, 1]))
    return loss_influence(risk, test, curvature="gauss_newton", solver="cg", damping=0.1, store=store)


def _ekfac(risk: Risk, store: Path | None) -> Tensor:
    return Ekfac(risk, store=store).inverse_product(noise(2, risk.p, seed=9), damping=0.1)


def _solved(risk: Risk, store: Path | None) -> Tensor:
    options = {"curvature": "gauss_newton", "solver": Arnoldi(k=4), "damping": 0.1}
    return inverse_curvature(risk, **options, store=store)(noise(2, risk.p, seed=9)).value


def _trained(learner: Maml, tasks: Tasks, store: Path | None, batches: int, seed: int, augment: float) -> Tensor:
    options = {"batches": batches, "batch_size": 3, "lr": 0.05, "seed": seed, "augment": rotation_by(augment)}
    return train(learner, tasks, store=store, **options).w


def _hessian(learner: Maml, tasks: Tasks, store: Path | None) -> Tensor:
    return meta_hessian(learner, learner.w0, tasks, store=store)


def _left_out(learner: Maml, tasks: Tasks, store: Path | None, batches: int, seed: int) -> Tensor:
    options = {"batches": batches, "batch_size": 3, "lr": 0.05, "seed": seed}
    return leave_tasks_out(learner, tasks, [[0], [1, 2]], store=store, **options).w


def _influence(learner: Maml, tasks: Tasks, store: Path | None) -> Tensor:
    return TaskInfluence(learner, learner.w0, tasks, l2=0.1, damping=1.0, store=store).meta


CASES: dict[str, tuple[Call, dict[str, object]]] = {
    "training.minimise": _on_risk(_minimise),
    "training.fit_ensemble": _on_risk(_ensemble, seed=0),
    "training.fit_risks": _on_risk(_risks, seed=0),
    'retraining.leave_out, method="newton"': _on_risk(lambda risk, store: _retrained(risk, store, tolerance=1e-8)),
    'retraining.leave_out, method="finetune"': _on_risk(
        lambda risk, store: _retrained(risk, store, method="finetune", epochs=4, lr=0.05)
    ),
    'retraining.leave_out, method="scratch"': _on_risk(
        lambda risk, store, seed: _retrained(risk, store, method="scratch", epochs=4, lr=0.05, seed=seed), seed=0
    ),
    "metrics.retrained_changes": _on_risk(_deleted, seed=0),
    "influence.loss_influence": _on_risk(_scores),
    'influence.token_influence, tokens="test"': _on_tokens("test"),
    'influence.token_influence, tokens="train"': _on_tokens("train"),
    "curvature.Ekfac": _on_risk(_ekfac),
    "solvers.inverse_curvature": _on_risk(_solved),
    "meta.train": _on_learner(_trained, batches=6, seed=0, augment=0.1),
    "meta.meta_hessian": _on_learner(_hessian),
    "meta.leave_tasks_out": _on_learner(_left_out, batches=6, seed=0),
    "influence.TaskInfluence": _on_learner(_influence),
}


def computed(name: str, store: Path | None, **changed: object) -> Tensor:
    """Return the result of one function, some of its arguments changed."""
    call, given = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(store, **{**given, **changed})


def many_files() -> None:
    """Let every store be written in several steps."""
    sys.modules["explainlib.training.minimise"].PROBLEMS_PER_FILE = 2
    sys.modules["explainlib.training.ensembles"].CACHED = 1
    sys.modules["explainlib.meta.hessian"].TASKS_PER_WRITE = 2
    sys.modules["explainlib.meta.train"].SAVE_EVERY = 2
    sys.modules["explainlib.influence.stored"].ROWS = 3
    sys.modules["explainlib.curvature.ekfac"].PASS = 3
    sys.modules["explainlib.curvature.ekfac"].KEPT_EVERY = -1.0
    sys.modules["explainlib.solvers.arnoldi"].EVERY = 2


def _in_a_child(work: Callable[[], object]) -> int:
    """Return how a forked process ended; nothing in this one has computed yet, so that forking is safe."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _killed_at(moment: str, count: int, *, after: bool) -> None:
    """Kill this process before or after the count-th time that it calls a function of ``os``."""
    left, real = [count], getattr(os, moment)

    def last(*arguments: object) -> object:
        left[0] -= 1
        if not left[0] and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        done = real(*arguments)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(os, moment, last)


def _killed(moment: str, count: int, after: bool, name: str, store: Path) -> None:
    _killed_at(moment, count, after=after)
    computed(name, store)


def _written(path: Path, name: str, store: Path | None) -> None:
    save_file({"result": computed(name, store).contiguous()}, path)


def kill_all(folder: Path) -> None:
    """Write for every function the result of one whole run, and of runs that were killed and went on."""
    many_files()
    import_module("torch._dynamo")  # or every child would, for itself
    for k, name in enumerate(CASES):
        (folder / str(k)).mkdir()
        place = folder / str(k) / "whole"
        assert _in_a_child(partial(_written, place, name, place.with_suffix(".store"))) == 0
        for moment, count, after in MOMENTS:
            place = folder / str(k) / f"{moment}{count}"
            store = place.with_suffix(".store")
            ended = _in_a_child(partial(_killed, moment, count, after, name, store))
            place.with_suffix(".ended").write_text(str(ended))
            assert _in_a_child(partial(_written, place, name, store)) == 0


def run_one(folder: Path, number: int, version: str) -> None:
    """Run one function into a store that another process fills too, and write its result or its refusal."""
    name = list(CASES)[number]
    changed = {} if version == "same" else {"options": CHANGED["options"]}
    try:
        result = computed(name, folder / f"{number}-store", **changed)
        save_file({"result": result.contiguous()}, folder / f"{number}-{version}-{os.getpid()}")
    except ValueError as error:
        (folder / f"{number}-{version}-{os.getpid()}.refused").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "kill":
        kill_all(Path(sys.argv[2]))
    else:
        many_files()
        for number in range(len(CASES)):
            run_one(Path(sys.argv[2]), number, sys.argv[3])

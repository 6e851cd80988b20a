"""The parts of the TLXML study on a small network with its exact Hessian: one function a table."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from functools import partial

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks, darken, sample_tasks
from explainlib.influence import TaskInfluence
from explainlib.influence.tasks import cosine_scores, random_projector_scores, spectrum_of_rows
from explainlib.meta import gauss_newton_buffer, leave_tasks_out
from explainlib.metrics import fidelity, self_rank
from explainlib.solvers.dense import Keep
from explainlib.studies.few_shot import FewShot, influence_without_warning
from explainlib.studies.tlxml.settings import Config


def keeps(settings: Config) -> dict[str, Keep]:
    """Return the prunings of the study by the name they have in tables."""
    return {"unpruned": 1e-9, "positive": "positive", **{str(k): k for k in settings.counts}}


def learners(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """Return accuracy, distance from a minimum, negative eigenvalues and cost of both learners."""
    rows = []
    for name, learner in (("maml", problem.maml), ("protonet", problem.protonet)):
        started = time.perf_counter()
        trained = problem.trained(learner)
        middle = time.perf_counter()
        exact = problem.exact if name == "maml" else _protonet_influence(problem)
        exact.performance(problem.train_tasks)
        done = time.perf_counter()
        accuracy = {
            part: float(learner.accuracy(trained.w, tasks).mean())
            for part, tasks in (("train", problem.train_tasks), ("unseen", problem.unseen))
        }
        single = float(learner.gradients(trained.w, problem.train_tasks).norm(dim=1).mean())
        rows.append(
            {"learner": name, "parameters": learner.q, "tasks": settings.tasks, "accuracy_train": accuracy["train"]}
            | {"accuracy_unseen": accuracy["unseen"], "gradient": trained.gradient_norm, "gradient_of_a_task": single}
            | {"negative": exact.negative.plain, "negative_certain": exact.negative.certain}
            | {"seconds_training": middle - started, "seconds_influence": done - middle}
        )
    return pandas.DataFrame(rows)


def _protonet_influence(problem: FewShot) -> TaskInfluence:
    trained = problem.trained(problem.protonet)
    store = problem.folder / f"exact-protonet-{problem.tasks}-{problem.seed}"
    return influence_without_warning(problem.protonet, trained.w, problem.train_tasks, store=store)


def pruning(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """Self-ranks at each pruning and for each control, on the tasks themselves, with new queries, and on others."""
    rows = []
    tests = {"self": problem.train_tasks, "queries": problem.with_fresh_queries, "unseen": problem.unseen}
    for learner, exact in (("maml", problem.exact), ("protonet", _protonet_influence(problem))):
        own = exact.learner
        methods = {name: exact.pruned(keep).performance for name, keep in keeps(settings).items()}
        plain = influence_without_warning(own, exact.w, problem.train_tasks, curvature="identity")
        rank = min(512, own.q)
        methods["identity"] = plain.performance
        methods["random projector"] = partial(_projected, own, exact.w, problem, rank)
        methods["cosine"] = partial(cosine_scores, own, exact.w, problem.train_tasks)
        for name, scored in methods.items():
            row = {"learner": learner, "method": name, "tests": settings.tasks}
            for kind, tasks in tests.items():
                ranks = self_rank(scored(tasks)).double()
                row |= {f"{kind}_first": int((ranks == 0).sum()), f"{kind}_mean_rank": float(ranks.mean())}
            rows.append(row)
    return pandas.DataFrame(rows)


def _projected(learner, w: Tensor, problem: FewShot, rank: int, tests: Tasks) -> Float[Tensor, "T M"]:  # noqa: ANN001
    return random_projector_scores(learner, w, problem.train_tasks, tests, rank=rank, seed=problem.seed)


def spectrum_rows(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """Return the eigenvalues of the meta-Hessian, in descending order."""
    values = problem.exact.eigenvalues
    return pandas.DataFrame({"index": range(1, len(values) + 1), "eigenvalue": values.tolist()})


def degradation(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """Correlation of own rank and own score with the darkness, over tests whose rank moves at all."""
    levels = torch.linspace(0, 1, settings.levels, dtype=torch.float64)
    methods: dict[str, TaskInfluence] = {name: problem.exact.pruned(keep) for name, keep in keeps(settings).items()}
    methods["identity"] = problem.identity
    rows = []
    for sweep in ("alpha", "ratio"):
        amounts = levels if sweep == "alpha" else levels / 2
        degraded = [_darkened(problem, sweep, float(amount)) for amount in amounts]
        for name, influence in methods.items():
            tables = [influence.performance(tasks) for tasks in degraded]
            rows.append({"sweep": sweep, "method": name, **_follows(amounts, tables)})
        tables = [cosine_scores(problem.maml, problem.w, problem.train_tasks, tasks) for tasks in degraded]
        rows.append({"sweep": sweep, "method": "cosine", **_follows(amounts, tables)})
    return pandas.DataFrame(rows)


def _darkened(problem: FewShot, sweep: str, amount: float) -> Tasks:
    """Darken to alpha at a share of one half, or a share altogether (uniform darkening would be invisible)."""
    alpha, ratio = (amount, 0.5) if sweep == "alpha" else (1.0, amount)
    return problem.as_features(darken(problem.images, alpha=alpha, ratio=ratio, seed=problem.seed))


def _follows(amounts: Float[Tensor, " a"], tables: Sequence[Float[Tensor, "T M"]]) -> dict[str, float]:
    ranks = torch.stack([self_rank(table) for table in tables]).double()  # [a, T]
    scores = -torch.stack([table.diagonal() for table in tables])  # the paper's sign: high is similar
    moved = ranks.std(0) > 0
    amounts = amounts.to(scores)
    of_rank, of_score = _correlations(amounts, ranks[:, moved]), _correlations(amounts, scores)
    return {
        "rank_correlation": float(of_rank.mean()) if moved.any() else float("nan"),
        "rank_spread": float(of_rank.std()) if moved.sum() > 1 else float("nan"),
        "score_correlation": float(of_score.mean()),
        "score_spread": float(of_score.std()),
        "never_left": int((ranks == 0).all(0).sum()),
        "constant": int((~moved).sum()),
    }


def _correlations(x: Float[Tensor, " a"], y: Float[Tensor, "a T"]) -> Float[Tensor, " T"]:
    x, y = x - x.mean(), y - y.mean(0)
    return (x @ y) / (x.norm() * y.norm(dim=0)).clamp(min=1e-300)


def gauss_newton(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """Mean per-test correlation of exact and Gauss-Newton scores, for every pair of ranks, on two kinds of tests.

    Tests that repeat a training task agree more, because both methods find it; unseen tests say what else agrees.
    """
    counts = [k for k in settings.counts if 64 <= k <= 1000]
    own = problem.maml.gradients(problem.w, problem.train_tasks)
    kinds = {"self": (problem.train_tasks, own)}
    kinds["unseen"] = (problem.unseen, problem.maml.gradients(problem.w, problem.unseen))
    exact = {(kind, k): problem.exact.pruned(k).performance(kinds[kind][0]) for kind in kinds for k in counts}
    rows = []
    for size in counts:
        started = time.perf_counter()
        most = min(size, problem.tasks * problem.train_tasks.query_y.shape[1] * (problem.train_tasks.ways - 1))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="size=.* rows were asked for")  # fewer tasks have that rank
            buffer = gauss_newton_buffer(problem.maml, problem.w, problem.train_tasks, size=most)
        seconds = time.perf_counter() - started
        spectrum = spectrum_of_rows(buffer / problem.tasks**0.5)
        inside = spectrum.coordinates(own)
        scores = {
            kind: -spectrum.products(tests, spectrum.coordinates(tests), own, inside, 1e-9)
            for kind, (_, tests) in kinds.items()
        }
        first = int((self_rank(scores["self"]) == 0).sum())
        for k in counts:
            row: dict[str, float] = {"tasks": problem.tasks, "buffer": size, "kept": k, "rank": len(buffer)}
            for kind, found in scores.items():
                each = _correlations_by_row(exact[kind, k], found)
                row |= {f"{kind}_correlation": float(each.mean()), f"{kind}_spread": float(each.std())}
            rows.append(row | {"self_first": first, "seconds": seconds})
    return pandas.DataFrame(rows)


def _correlations_by_row(a: Float[Tensor, "t m"], b: Float[Tensor, "t m"]) -> Float[Tensor, " t"]:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)


def scripts(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """Tasks within scripts; each script removed from training, predicted and meta-trained again from the same start."""
    pool = problem.parts[0]
    scripts = sorted(p for p in set(pool.parents) if sum(parent == p for parent in pool.parents) >= 8)
    own = [pool.where(lambda name, parent, s=s: parent == s) for s in scripts]
    tasks = Tasks.concat([sample_tasks(part, settings.script_tasks, seed=problem.seed + 3) for part in own])
    tests = Tasks.concat([sample_tasks(part, 4, seed=problem.seed + 4) for part in own])
    m = settings.script_tasks
    groups = [list(range(g * m, (g + 1) * m)) for g in range(len(scripts))]
    options = {"batches": settings.script_batches, "lr": settings.lr, "seed": problem.seed}
    truth = leave_tasks_out(problem.maml, tasks, groups, store=problem.folder / "scripts", **options)
    change = truth.loss_change(tests)
    exact = influence_without_warning(problem.maml, truth.whole, tasks, store=problem.folder / "scripts-exact")
    rows = []
    for name, keep in keeps(settings).items():
        rows.append(_agreement(name, -exact.pruned(keep).performance(tests, groups=groups) / len(tasks), change))
    identity = influence_without_warning(problem.maml, truth.whole, tasks, curvature="identity")
    rows.append(_agreement("identity", -identity.performance(tests, groups=groups) / len(tasks), change))
    return pandas.DataFrame(rows).assign(scripts=len(scripts), tasks=len(tasks), tests=len(tests))


def _agreement(name: str, predicted: Float[Tensor, "T g"], true: Float[Tensor, "T g"]) -> dict[str, object]:
    """Return correlation and slope over all pairs, and of the change of a script's own tests alone."""
    found = fidelity(predicted, true)
    each = true.shape[0] // true.shape[1]
    own = torch.arange(true.shape[1]).repeat_interleave(each)
    at = torch.arange(len(own)), own
    mine = torch.corrcoef(torch.stack([predicted[at], true[at]]))[0, 1]
    row: dict[str, object] = {"method": name, "own_pearson": float(mine)}
    for measure, estimate in (("pearson", found.pearson), ("spearman", found.spearman), ("slope", found.slope)):
        row |= {measure: float(estimate), f"{measure}_low": estimate.low, f"{measure}_high": estimate.high}
    return row | {"own_true": float(true[at].mean()), "own_predicted": float(predicted[at].mean())}


def examples(problem: FewShot, settings: Config) -> pandas.DataFrame:
    """The three most and the three least helpful training tasks of four unseen ones, with their classes."""
    keep = 512 if 512 in settings.counts else settings.counts[0]
    scores = problem.exact.pruned(keep).performance(problem.unseen)
    rows = []
    for test in range(min(4, settings.tasks)):
        order = scores[test].argsort()
        for place in (0, 1, 2, -3, -2, -1):
            j = int(order[place])
            names = {"test_classes": problem.unseen.classes[test], "train_classes": problem.train_tasks.classes[j]}
            row = {"test": test, "place": place if place >= 0 else len(order) + place, "train": j}
            rows.append(row | {"influence": float(scores[test, j])} | {k: "; ".join(v) for k, v in names.items()})
    return pandas.DataFrame(rows)

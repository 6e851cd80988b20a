"""Representers: which importance, which kernel and which method finds the examples whose removal raises an output.

Parts, each with a table of its own:

    methods      AUC-DEL- of each method in each experiment, intervals clustered by seed (Tsai et al. 2023, Table 1)
    pairs        paired differences of methods on the same networks and tests
    curves       the deletion curves behind the areas
    axioms       which method violates which axiom, by how much (Definitions 1 to 6, Theorem 7)
    networks     accuracy, loss and seconds of each trained network
    plan         methods x seeds x tests x shares, the retrainings and seconds planned from one network, and those taken
    claims       what the paper says beside what was seen

The explained output is the logit of the test's label. Every truth is a network of the same start, trained on the same
batches without the removed examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Examples, Split
from explainlib.metrics import DELETION_SHARES, deletion_groups, paired_difference
from explainlib.metrics.seeds import clustered_mean, curve_intervals
from explainlib.params import Parameters
from explainlib.representers import axioms
from explainlib.studies.representers.claims import representers_claims
from explainlib.studies.representers.methods import (
    CHECKPOINTS,
    EXPERIMENTS,
    LAST_LAYER_INFLUENCE,
    METHODS,
    NTK,
    PAIRS,
    SUMMED,
    TEXTS,
    ExplainedNetwork,
    Recipe,
    class_pair,
)

SHORT = ("surrogate, NTK final", "target, NTK final" + SUMMED, NTK + SUMMED, NTK, "random", "TracInCP")


@dataclass(frozen=True)
class Part:
    """Some networks of one recipe with their tests.

    Attributes:
        name: "main" is what the claims are judged by.
        recipe: how a network is trained.
        seeds: networks; each draws its start, its batches and its tests anew.
        tests: of each network.
        short: only the methods of ``SHORT``.
    """

    name: str
    recipe: Recipe
    seeds: int
    tests: int
    short: bool = False


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: "digits" (embedded), "mnist", "cifar10", "ag_news" or "toxicity"; two classes of it.
        n: training examples, half of each class.
        parts: the networks; the first is the main one.
        damping: of the Gauss-Newton matrix in influence.
        l2: of the surrogate and of the read-out behind representer points.
        axiom_seeds: main networks on which the axioms are measured.
    """

    data: str
    n: int
    parts: tuple[Part, ...]
    damping: float = 1e-2
    l2: float = 1e-2
    axiom_seeds: int = 1


RECIPES = {  # to a training loss of about .01 (cifar10: .3), where the importances come apart
    "digits": Recipe("cnn2", 30, 20, 0.3),
    "mnist": Recipe("cnn2", 40, 100, 0.7),
    "cifar10": Recipe("cnn2", 40, 100, 0.3),
    "ag_news": Recipe("text_cnn", 12, 30, 0.3),
    "toxicity": Recipe("text_cnn", 15, 20, 0.1),
}
STOPS = {"early": 6, "halfway": 12}  # epochs of mnist's recipe, to a loss of about .16 and .07
WIDE = Recipe("cnn3", 6, 50, 1.0)
CPU_SIZES = {  # n, seeds, tests: each at most two hours on two cores
    "digits": (260, 20, 2),
    "mnist": (1000, 20, 10),
    "cifar10": (1000, 10, 5),
    "ag_news": (600, 10, 5),
    "toxicity": (360, 10, 5),
}


def config(scale: str, data: str | None) -> Config:
    """Return the settings: "quick" is a minute, "cpu" at most two hours on two cores, "paper" the printed sizes.

    Raises:
        ValueError: other data.
    """
    data = data or "digits"
    if data not in PAIRS:
        raise ValueError(f"the representers study runs on {', '.join(PAIRS)}; got data={data!r}.")
    recipe = RECIPES[data]
    if scale == "quick":
        return Config(data, 160 if data == "digits" else 200, (Part("main", recipe, 2, 2 if data == "digits" else 1),))
    if scale == "cpu":
        n, seeds, tests = CPU_SIZES[data]
        stops = [Part(name, replace(recipe, epochs=e), seeds, tests, short=True) for name, e in STOPS.items()]
        more = (*stops, Part("wide", WIDE, 10, 5, short=True)) if data == "mnist" else ()
        return Config(data, n, (Part("main", recipe, seeds, tests), *more), axiom_seeds=min(seeds, 3))
    network = "text_cnn" if data in TEXTS else "cnn3"
    paper = Part("main", Recipe(network, recipe.epochs, recipe.batch_size, recipe.lr), 200 if data in TEXTS else 50, 10)
    return Config(data, 12_000, (paper,), axiom_seeds=3)


def methods_for(data: str) -> tuple[str, ...]:
    """Return the methods run on ``data``; texts add the influence kernel of the last layer, all the paper affords."""
    return (*METHODS, LAST_LAYER_INFLUENCE) if data in TEXTS else tuple(METHODS)


@dataclass(frozen=True)
class Network:
    """One trained network with its drawn tests; nothing is computed before it is asked for."""

    settings: Config
    recipe: Recipe
    split: Split
    seed: int

    @cached_property
    def trained(self) -> ExplainedNetwork:
        """Train it and keep what the methods need."""
        trajectory = self.recipe.fit(self.split.train, self.seed, checkpoints=CHECKPOINTS, record=True)
        return ExplainedNetwork(trajectory, self.split.train, self.settings.damping, self.settings.l2, self.seed)

    def tests(self, count: int) -> Examples:
        """Return ``count`` test examples, drawn by the seed."""
        order = torch.randperm(len(self.split.test), generator=torch.Generator().manual_seed(self.seed))
        return self.split.test[order[:count]]

    def summary_row(self) -> pandas.DataFrame:
        """Return accuracy, loss and the seconds of one training."""
        risk, test = self.trained.risk, self.split.test.double()
        started = time.perf_counter()  # after a first training, which also loads what torch loads late
        self.recipe.fit(self.split.train, self.seed)
        seconds = time.perf_counter() - started
        accuracy = float((risk.outputs(test).argmax(1) == test.y).double().mean())
        row = {"network": self.recipe.network, "parameters": risk.p, "seed": self.seed, "n": risk.n}
        row |= {"accuracy": accuracy, "training_loss": float(risk.value()), "seconds": seconds}
        return pandas.DataFrame([row])

    def deletion_changes(self, position: int, test: Examples, methods: Sequence[str]) -> pandas.DataFrame:
        """Return one row a method and share: the change of the test's own logit after training without the group."""
        output, groups, taken = int(test.y), {}, {}
        for method in methods:
            started = time.perf_counter()
            groups[method] = deletion_groups(self.trained.scores(method, test, output))[0]
            taken[method] = time.perf_counter() - started
        truth = self._changes([group for own in groups.values() for group in own], test)
        rows = []
        for method, own in groups.items():
            for share, group in zip(DELETION_SHARES, own, strict=True):
                row = {"seed": self.seed, "test": position, "method": method, "share": share}
                row |= {"change": truth[_key(group)], "seconds": taken[method]}
                rows.append(row | {"different": len(truth) - 1})
        return pandas.DataFrame(rows)

    def _changes(self, groups: Sequence[Tensor], test: Examples) -> dict[tuple[int, ...], float]:
        """Return the change of the test's own logit by group, each group retrained once."""
        different = {_key(group): group for group in groups}
        different.setdefault((), self.split.train.y.new_empty(0))
        retrained = self.recipe.fit_without(self.split.train, self.seed, list(different.values()))
        parameters, label = Parameters(self.recipe.start(self.split.train, self.seed), "all"), int(test.y)
        with torch.no_grad():
            logits = [float(parameters.outputs(theta, test.x)[0, label]) for theta in retrained]
        before = logits[list(different).index(())]
        return {key: logit - before for key, logit in zip(different, logits, strict=True)}

    def violations(self, methods: Sequence[str], tests: Examples) -> pandas.DataFrame:
        """Return the axiom tables of all methods for output 1, on the training set and the tests."""
        start = self.recipe.start(self.split.train, self.seed).double()
        with torch.no_grad():
            before = start(tests.double().x)[:, 1]
        after = self.trained.risk.outputs(tests.double())[:, 1]
        frames = []
        for method in methods:
            own, other = (self.trained.scores(method, x, 1) for x in (self.split.train, tests))
            frame = axioms.table(own, other, after, outputs_before=before)
            frames.append(frame.assign(method=method, seed=self.seed))
        return pandas.concat(frames, ignore_index=True)


def _key(group: Tensor) -> tuple[int, ...]:
    """Return the same for two groups of the same examples."""
    return tuple(sorted(group.tolist()))


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return what the tables are made of by name, the study's part first."""
    split, methods = class_pair(settings.data, settings.n), methods_for(settings.data)

    @lru_cache(maxsize=1)  # a network is trained once for all of its jobs, and forgotten when the next one comes
    def network(recipe: Recipe, seed: int) -> Network:
        return Network(settings, recipe, split, seed)

    def deletion_changes(part: Part, seed: int, at: int) -> pandas.DataFrame:
        one = network(part.recipe, seed)
        return one.deletion_changes(at, one.tests(part.tests)[at], SHORT if part.short else methods)

    def violations(seed: int) -> pandas.DataFrame:
        one = network(settings.parts[0].recipe, seed)
        return one.violations(methods, one.tests(5))

    found: dict[str, Callable[[], pandas.DataFrame]] = {}
    for part in settings.parts:
        for seed in range(part.seeds):
            found[f"{part.name}-network-{seed}"] = lambda p=part, s=seed: network(p.recipe, s).summary_row()
            for at in range(part.tests):
                found[f"{part.name}-{seed}-{at}"] = lambda p=part, s=seed, t=at: deletion_changes(p, s, t)
    return found | {f"axioms-{seed}": (lambda s=seed: violations(s)) for seed in range(settings.axiom_seeds)}


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from what the jobs made."""
    kinds: dict[str, list[pandas.DataFrame]] = {"networks": [], "changes": [], "axioms": []}
    for name, table in made.items():
        part = name.split("-")[0]
        kind = "axioms" if part == "axioms" else "networks" if "-network-" in name else "changes"
        kinds[kind].append(table if kind == "axioms" else table.assign(part=part))
    networks, changes, axioms_found = (pandas.concat(kinds[kind], ignore_index=True) for kind in kinds)
    found = {"methods": _areas(changes), "pairs": _pairs(changes), "curves": _curves(changes)}
    means = axioms_found.groupby(["method", "axiom", "measure"], sort=False, as_index=False)["violation"].mean()
    found["axioms"] = means.assign(seeds=settings.axiom_seeds)
    found["networks"] = networks
    found["plan"] = _plan(networks, changes, seconds)
    return {**found, "claims": representers_claims(found, settings.data)}


def _cube(changes: pandas.DataFrame, part: str, method: str) -> Float[Tensor, "s t k"]:
    rows = changes[(changes["part"] == part) & (changes["method"] == method)]
    shape = [rows[column].nunique() for column in ("seed", "test", "share")]
    values = rows.sort_values(["seed", "test", "share"])["change"].to_numpy(copy=True)
    return torch.as_tensor(values, dtype=torch.float64).view(shape)


def _present(changes: pandas.DataFrame) -> list[tuple[str, str]]:
    return list(changes[["part", "method"]].drop_duplicates().itertuples(index=False, name=None))


def _areas(changes: pandas.DataFrame) -> pandas.DataFrame:
    rows = []
    for part, method in _present(changes):
        cube = _cube(changes, part, method)
        area = clustered_mean(cube.mean(2))
        seconds = changes[(changes["part"] == part) & (changes["method"] == method)]["seconds"].median()
        where = ", ".join(name for name, members in EXPERIMENTS.items() if method in members)
        row = {"part": part, "experiments": where, "method": method, "seeds": cube.shape[0], "tests": cube.shape[1]}
        rows.append(row | {"auc": float(area), "auc_low": area.low, "auc_high": area.high, "seconds_a_test": seconds})
    return pandas.DataFrame(rows)


def _pairs(changes: pandas.DataFrame) -> pandas.DataFrame:
    rows = []
    present = _present(changes)
    for i, (part, a) in enumerate(present):
        for other, b in present[i + 1 :]:
            if other == part:
                gap = paired_difference(_cube(changes, part, a).mean(2), _cube(changes, part, b).mean(2))
                rows.append({"part": part, "a": a, "b": b, "a_minus_b": float(gap), "low": gap.low, "high": gap.high})
    return pandas.DataFrame(rows)


def _curves(changes: pandas.DataFrame) -> pandas.DataFrame:
    rows = []
    for part, method in _present(changes):
        for share, at in zip(DELETION_SHARES, curve_intervals(_cube(changes, part, method)), strict=True):
            row = {"part": part, "method": method, "share": share}
            rows.append(row | {"change": float(at), "low": at.low, "high": at.high})
    return pandas.DataFrame(rows)


def _plan(networks: pandas.DataFrame, changes: pandas.DataFrame, taken: Mapping[str, float]) -> pandas.DataFrame:
    """Return what each part costs: retrainings if no two groups were the same, times the seconds of one training."""
    rows = []
    for part, group in changes.groupby("part", sort=False):
        counts = {name: int(group[name].nunique()) for name in ("seed", "test", "method")}
        shares = int((group["share"] > 0).sum() / (counts["seed"] * counts["test"] * counts["method"]))
        planned = counts["seed"] * counts["test"] * counts["method"] * shares
        one = float(networks[networks["part"] == part]["seconds"].median())
        different = int(group.groupby(["seed", "test"])["different"].max().sum())
        spent = sum(seconds for name, seconds in taken.items() if name.startswith(f"{part}-"))
        row = {"part": part, "methods": counts["method"], "seeds": counts["seed"], "tests": counts["test"]}
        row |= {"shares": shares, "retrainings": planned, "different": different, "seconds_each": one}
        rows.append(row | {"planned_minutes": planned * one / 60, "taken_minutes": spent / 60})
    return pandas.DataFrame(rows)

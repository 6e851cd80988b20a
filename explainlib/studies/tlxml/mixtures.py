"""Normal and noise tasks in training: which kind do the scores put first, for learners that fit and that generalise.

A network is a learner trained on ``normal`` tasks of characters and ``noise`` tasks of random pixels, all of them in
``copies`` turned by random angles or none, with or without weight decay. Its scores are judged on

    unseen      tasks of classes that were kept back (TLXML, section 5.2, Tables 2, 4 to 10)
    training    training tasks themselves, of both kinds (B.4, Tables 11 to 16, and Figure 8)

by: the Gauss-Newton buffer, a quarter of its directions, the buffer with the ridge where there is weight decay, and the
controls, which are gradient products (identity), cosines, a random projector of the buffer's rank, and cosines of the
learner before training. Scores of copies are summed over their origin (eq. 9). A test is in proper order if normal
tasks are on average more helpful than noise tasks; ``tenth_1`` to ``tenth_10`` say where the noise tasks are, from the
most to the least helpful tenth of the ranking, each 0.1 if there is nothing to see.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from explainlib.datasets import Tasks, class_pool, noise_tasks, sample_tasks, turned_copies
from explainlib.influence import TaskInfluence
from explainlib.meta import Learner, Maml, ProtoNet, Trained, train
from explainlib.metrics import proper_order, self_rank
from explainlib.metrics.ties import average_ranks
from explainlib.models import cnn4
from explainlib.studies.few_shot import influence_without_warning, kept_back
from explainlib.studies.place import placed

WAYS = 5


@dataclass(frozen=True)
class Mixture:
    """What one learner is trained on.

    Attributes:
        learner: "maml" or "protonet".
        normal: tasks of characters.
        noise: tasks of random pixels.
        copies: of each task, each turned by a random angle; 1 is the tasks as they are.
        weight_decay: of training.
    """

    learner: str = "maml"
    normal: int = 224
    noise: int = 32
    copies: int = 1
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Training:
    """What all networks of a run share.

    Attributes:
        filters: of each of the four convolutions.
        batches: meta-batches of 32 tasks.
        inner_lr: MAML's.
        lr: Adam's.
        buffer: rows of the Gauss-Newton buffer, or all rows if there are fewer.
        compress: directions kept of each task.
        tests: of each kind.
    """

    filters: int = 8
    batches: int = 300
    inner_lr: float = 0.1
    lr: float = 3e-3
    buffer: int = 256
    compress: int = 16
    tests: int = 64


@dataclass(frozen=True)
class Network:
    """One mixture and one seed: tasks, trained learner and influence, each computed when asked for.

    Attributes:
        data: a class pool's name.
        mixture: what it is trained on.
        training: how.
        seed: of tasks, first weights and meta-batches.
        folder: keeps what takes long.
    """

    data: str
    mixture: Mixture
    training: Training
    seed: int
    folder: Path

    @cached_property
    def _pools(self):  # noqa: ANN202 - two class pools
        pool = placed(class_pool(self.data))
        back = kept_back(pool.names)
        return pool.where(lambda name, parent: name not in back), pool.where(lambda name, parent: name in back)

    @cached_property
    def tasks(self) -> Tasks:
        """The training tasks as they are, the normal ones first."""
        normal = sample_tasks(self._pools[0], self.mixture.normal, seed=self.seed)
        return Tasks.concat([normal, noise_tasks(normal, self.mixture.noise, seed=self.seed)])

    @cached_property
    def copies(self) -> Tasks:
        """What the learner is trained on: the tasks, or their turned copies."""
        copies = self.mixture.copies
        return self.tasks if copies == 1 else turned_copies(self.tasks, copies, seed=self.seed)

    @cached_property
    def unseen(self) -> Tasks:
        """Normal tasks of classes that were kept back."""
        return sample_tasks(self._pools[1], self.training.tests, seed=self.seed + 2)

    @cached_property
    def repeated(self) -> Int[Tensor, " t"]:
        """Which training tasks are tests themselves; normal and noise in their proportion."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(len(self.tasks), generator=generator)[: self.training.tests].sort().values

    @cached_property
    def learner(self) -> Learner:
        """A CNN under MAML, or its backbone as a Prototypical Network."""
        pictures, how = self._pools[0].x, self.training
        options = {"filters": how.filters, "seed": self.seed, "dtype": pictures.dtype}
        if self.mixture.learner == "maml":
            return Maml(placed(cnn4(*pictures.shape[1:3], WAYS, **options)), inner_lr=how.inner_lr)
        return ProtoNet(placed(cnn4(*pictures.shape[1:3], None, **options)))

    @cached_property
    def trained(self) -> Trained:
        """The learner's parameters after training."""
        how = {"batches": self.training.batches, "lr": self.training.lr, "weight_decay": self.mixture.weight_decay}
        return train(self.learner, self.copies, seed=self.seed, store=self._store("trained"), **how)

    @cached_property
    def influence(self) -> TaskInfluence:
        """The influence of all copies by the Gauss-Newton buffer."""
        rows = len(self.copies) * self.training.compress
        buffer = min(self.training.buffer, rows, self.learner.q)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="buffer=.* rows were asked for")  # the table tells the rank
            return influence_without_warning(
                self.learner,
                self.trained.w,
                self.copies,
                curvature="gauss_newton",
                buffer=buffer,
                compress=self.training.compress,
                store=self._store("influence"),
            )

    def _store(self, kind: str) -> Path:
        name = "-".join(str(value) for value in asdict(self.mixture).values())
        return self.folder / f"{kind}-{name}-{self.seed}"

    def scores(self, tests: Tasks) -> dict[str, Float[Tensor, "T M"]]:
        """Return the scores of every method, of an origin with all its copies, by the method's name."""
        found, w = self.influence, self.trained.w
        trains, gradients = found.gradients, self.learner.gradients(w, tests)
        spectrum = found.spectrum
        inside, outside = spectrum.coordinates(trains), spectrum.coordinates(gradients)
        members = (self.copies.group[:, None] == self.tasks.group).to(trains)

        def by(curvature, keep: float | int) -> Tensor:  # noqa: ANN001 - a spectrum
            return -curvature.products(gradients, outside, trains, inside, keep) @ members

        tables = {"buffer": by(spectrum, 1e-9), "quarter": by(spectrum, max(1, found.rank // 4))}
        if self.mixture.weight_decay:
            ridge = self.mixture.weight_decay
            tables["with the ridge"] = by(replace(spectrum, values=spectrum.values + ridge, rest=ridge), 1e-9)
        generator = torch.Generator().manual_seed(self.seed)
        basis = torch.linalg.qr(torch.randn(len(w), found.rank, generator=generator))[0].to(w)
        tables["identity"] = -gradients @ trains.T @ members
        tables["cosine"] = _cosines(gradients, members.T @ trains)
        before = self.learner.gradients(self.learner.w0, self.copies)
        tables["cosine, untrained"] = _cosines(self.learner.gradients(self.learner.w0, tests), members.T @ before)
        tables["random projector"] = -(gradients @ basis) @ (trains @ basis).T @ members
        return tables


def _cosines(tests: Float[Tensor, "T q"], trains: Float[Tensor, "M q"]) -> Float[Tensor, "T M"]:
    return -normalize(tests, dim=1) @ normalize(trains, dim=1).T


def noise_tenths(scores: Float[Tensor, "T M"], noise: Bool[Tensor, " M"]) -> Float[Tensor, " 10"]:
    """Return the share of the noise tasks in each tenth of the ranking, the most helpful first; mean over tests.

    Args:
        scores: influence [test, training task], negative is helpful; equal scores share their places.
        noise: which tasks are noise.
    """
    places = (average_ranks(scores)[:, noise] - 0.5) / scores.shape[1]  # the middle of a task's place, within 0 to 1
    tenths = (places * 10).long().clamp(max=9)
    return torch.stack([(tenths == k).double().mean() for k in range(10)])


def order_of(network: Network) -> pandas.DataFrame:
    """Return a row for each method and kind of test: proper order, its p, self-ranks, with the network's accuracies."""
    started = time.perf_counter()
    w, learner, normal = network.trained.w, network.learner, network.mixture.normal
    middle = time.perf_counter()
    found = network.influence
    done = time.perf_counter()
    parts = {"normal": network.tasks[:normal], "noise": network.tasks[normal:], "unseen": network.unseen}
    shared = asdict(network.mixture) | {"tasks": len(network.tasks), "parameters": learner.q}
    shared |= {f"accuracy_{name}": float(learner.accuracy(w, tasks).mean()) for name, tasks in parts.items()}
    shared |= {"gradient": found.gradient_norm, "rank": found.rank, "captured": found.captured}
    shared |= {"seconds_training": middle - started, "seconds_influence": done - middle}
    regular = torch.arange(len(network.tasks)) < normal
    rows = []
    for kind, tests, own in (
        ("unseen", network.unseen, None),
        ("training", network.tasks[network.repeated], network.repeated),
    ):
        for method, table in network.scores(tests).items():
            row = {"kind": kind, "method": method, "tests": len(tests)}
            for by in ("mean", "median"):
                order = proper_order(table, regular, by=by)
                row |= {f"{by}_count": order.count, f"{by}_p": order.p_value, f"{by}_distance": order.distance}
            row |= {f"tenth_{k + 1}": float(share) for k, share in enumerate(noise_tenths(table, ~regular))}
            if own is not None:
                ranks = self_rank(table, own)
                row |= {"self_first": int((ranks == 0).sum()), "self_mean_rank": float(ranks.mean())}
            rows.append(shared | row)
    return pandas.DataFrame(rows)

"""Group influence: how far first order, second order and a Newton step carry, and which groups matter most.

Parts, each with a table of its own; a seed draws the data, the model and the groups anew, and is a cluster:

    synthetic   softmax regression on two Gaussian classes, random and coherent groups (Basu et al. 2020, Figure 1)
    images      softmax regression on digits or MNIST, random and coherent groups (Figure 2), by ridge, damping of the
                prediction, weighting of the prediction, and truth
    network     a sigmoid network with two hidden layers on the same images (section 7.3.2)
    selection   the most influential group of four blobs (Figure 3)
    cost        seconds and Hessian products of the orders, by conjugate gradients and dense
    claims      what the paper says beside what was seen
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas

from explainlib.studies.group.claims import group_claims
from explainlib.studies.group.cost import cost
from explainlib.studies.group.parts import KINDS, SWEPT, curves, linear_case, network, selection
from explainlib.studies.group.problems import blobs_split, drawn_images, softmax_regression, synthetic_split

DATA = ("digits", "mnist", "fashion_mnist")
CLASSES = 10
NETWORK_POOL = {"quick": 4, "cpu": 4, "paper": 1}


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: "digits", "mnist" or "fashion_mnist" for the images.
        seeds: draws of the images, each with its softmax regressions.
        limit: training images, stratified; None takes half of those that are there, so that draws differ.
        pool: side of the squares of pixels that are averaged into one, where images have 28 x 28.
        ridges: of the softmax regressions on images; the first is that of the synthetic models and the blobs too, and
            alone has every method and the spectral radius.
        dampings: of the predictions on images; the first is 0.
        both: fractions at which the truth with plain weights is retrained beside the paper's.
        draws: of the synthetic data and of the blobs; 0 leaves these parts out.
        synthetic: training points of the synthetic softmax regression.
        blobs: training points for the selection.
        fractions: of the training set that is removed.
        groups: random groups of each size; of coherent ones as many on the synthetic data, and at most one for each
            class that it starts with on images.
        tests: test examples, the worst misread ones first.
        networks: seeds of the network; 0 leaves the part out.
        network: training images of the network, all if there are fewer.
        network_pool: as ``pool``, for the network.
        network_fractions: removed from the network's images.
        network_groups: groups of each kind and size of the network.
    """

    data: str = "digits"
    seeds: int = 2
    limit: int | None = None
    pool: int = 4
    ridges: tuple[float, ...] = (1e-2, 1e-3)
    dampings: tuple[float, ...] = (0.0, 1e-2)
    both: tuple[float, ...] = (0.6,)
    draws: int = 2
    synthetic: int = 2000
    blobs: int = 1000
    fractions: tuple[float, ...] = (0.05, 0.2, 0.6)
    groups: int = 10
    tests: int = 10
    networks: int = 1
    network: int = 150
    network_pool: int = 4
    network_fractions: tuple[float, ...] = (0.1,)
    network_groups: int = 4


FRACTIONS = (0.016, 0.1, 0.3, 0.45, 0.6)  # from the paper's 1.6% to its 60%
PAPER_FRACTIONS = (0.016, 0.05, 0.1, 0.2, 0.3, 0.36, 0.45, 0.6)
RIDGES = (1e-2, 1e-3, 1e-4)


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" is a minute or two, "paper" days.

    "cpu" takes about 16 minutes of one core for MNIST and 4 for digits.

    At "cpu" MNIST is averaged to 14 x 14 pixels, and to 7 x 7 for the network, as large as digits: 2,000 images have
    then as many parameters as examples, where the paper's 60,000 of 28 x 28 have one parameter for eight. The synthetic
    models and the blobs are the same whatever the images, and only MNIST's run has them. The blobs are 5,000.

    "paper" has the printed 10,000 synthetic points, 20,000 blobs, 5 features, sizes from 1.6% to 60%, and images of
    28 x 28. Not printed, so ours: the seeds, the ridges, the number of groups and of tests, half of the images, and
    5,000 images for the network (of digits, which are fewer, all).

    Raises:
        ValueError: data that are not images with labels.
    """
    data = data or "digits"
    if data not in DATA:
        raise ValueError(f"the group study runs on digits, mnist, fashion_mnist; got data={data!r}.")
    small = data == "digits"
    if scale == "quick":
        return Config(data, limit=300 if small else 500)
    both, kinds = (0.1, 0.6), {"network_fractions": (0.05, 0.5), "network_groups": 8}
    if scale == "cpu":
        return Config(
            data, 5, None if small else 2000, 2, RIDGES, (0.0, 1e-2), both, 0 if small else 8, 10_000, 5000,
            FRACTIONS, 12, 20, 5, 500, NETWORK_POOL[scale], **kinds,
        )  # fmt: skip
    return Config(
        data, 8, None, 1, RIDGES, (0.0, 1e-2), PAPER_FRACTIONS, 8, 10_000, 20_000,
        PAPER_FRACTIONS, 40, 20, 8, 5000, NETWORK_POOL[scale], (0.05, 0.2, 0.5), 16,
    )  # fmt: skip


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return the parts of the tables by name, table first: one for each seed, and of images for each ridge."""
    found: dict[str, Callable[[], pandas.DataFrame]] = {}
    for seed in range(settings.draws):
        found[f"synthetic-{seed}"] = partial(_synthetic, settings, seed)
        found[f"selection-{seed}"] = partial(_selection, settings, seed)
    for seed in range(settings.seeds):
        for ridge in settings.ridges:
            found[f"images-{seed}-{ridge:g}"] = partial(_images, settings, seed, ridge)
    for seed in range(settings.networks):
        found[f"network-{seed}"] = partial(_network, settings, seed)
    return found | {"cost-0": partial(_cost, settings)}


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from the parts that the jobs made."""
    parts: dict[str, list[pandas.DataFrame]] = {}
    for name, part in made.items():
        table, seed = name.split("-")[:2]
        parts.setdefault(table, []).append(part if table == "cost" else part.assign(seed=int(seed)))
    whole = {name: pandas.concat(frames, ignore_index=True) for name, frames in parts.items()}
    return {**whole, "claims": group_claims(whole, settings.data)}


def _synthetic(settings: Config, seed: int) -> pandas.DataFrame:
    counts = dict.fromkeys(KINDS, settings.groups)
    split = synthetic_split(settings.synthetic, seed)
    case = linear_case(split, settings.ridges[0], seed, counts, settings.tests)
    return curves(replace(case, both=settings.both), settings.fractions)


def _images(settings: Config, seed: int, ridge: float) -> pandas.DataFrame:
    split = drawn_images(settings.data, settings.limit, seed, settings.pool)
    counts = {"random": settings.groups, "coherent": min(settings.groups, CLASSES)}
    case = replace(
        linear_case(split, ridge, seed, counts, settings.tests), dampings=settings.dampings, both=settings.both
    )
    if ridge != settings.ridges[0]:
        case = replace(case, methods=SWEPT, diagnosed=False)
    return curves(case, settings.fractions)


def _network(settings: Config, seed: int) -> pandas.DataFrame:
    split = drawn_images(settings.data, settings.network, seed, settings.network_pool)
    counts = dict.fromkeys(KINDS, settings.network_groups)
    return network(split, seed, fractions=settings.network_fractions, counts=counts, tests=settings.tests)


def _selection(settings: Config, seed: int) -> pandas.DataFrame:
    return selection(blobs_split(settings.blobs, seed), settings.ridges[0])


def _cost(settings: Config) -> pandas.DataFrame:
    """Return the costs on the first draw of the images, at the largest and the smallest ridge."""
    split = drawn_images(settings.data, settings.limit, 0, settings.pool)
    frames = [
        cost(softmax_regression(split, ridge), f"images, ridge {ridge:g}")
        for ridge in (settings.ridges[0], settings.ridges[-1])
    ]
    if settings.draws:
        points = softmax_regression(synthetic_split(settings.synthetic, 0), settings.ridges[0])
        frames.append(cost(points, f"synthetic, ridge {settings.ridges[0]:g}"))
    return pandas.concat(frames, ignore_index=True)

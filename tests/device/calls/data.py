"""Rows: examples, pools, tasks and what is made of them."""

from __future__ import annotations

import torch

from explainlib import datasets
from tests.device.calls.problems import D, normal, tasks
from tests.device.table import call
from tests.problems import classes


def pool(device):
    """Return six classes of two parents, four pictures each."""
    names = [f"{parent}/{letter}" for parent in ("a", "b") for letter in "xyz"]
    x = torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=D)
    return datasets.ClassPool(x, torch.arange(6).repeat_interleave(4), names, [n[0] for n in names]).to(device)


@call("datasets.Examples", "datasets.Examples.to", "datasets.Examples.double", "datasets.Examples.outside_inference_mode", "datasets.Split", "datasets.Split.to", "datasets.Split.double", "datasets.stratified_split", "datasets.flip_labels")  # fmt: skip
def examples(device):
    e = classes(12).to(device)
    rows = torch.tensor([2, 0]).to(device)
    parts = e[[0, 2]], e[rows], e[e.y == 1], e[1:4], e[-1], e[::-1]
    split = datasets.stratified_split(e, 4, 0)
    flipped = datasets.flip_labels(e, 0.25, seed=0)
    made = datasets.Split(e, split.test).to(torch.float32).double(), split.to(device)
    return (
        parts,
        split,
        flipped,
        made,
        datasets.Examples(e.x, e.y).double().outside_inference_mode(),
        repr(e[:3]).removesuffix(", on cuda:0"),
    )


@call("datasets.ClassPool", "datasets.ClassPool.pictures", "datasets.ClassPool.map", "datasets.ClassPool.where", "datasets.ClassPool.of_parents", "datasets.ClassPool.to", "datasets.ClassPool.double")  # fmt: skip
def pools(device):
    p = pool(device)
    flat = p.map(lambda x: x.flatten(1))
    parts = flat, flat.pictures, p.where(lambda name, parent: parent == "a"), p.of_parents(["b"], most=2)
    return parts, p.to(torch.float32).double()


@call("datasets.sample_tasks", "datasets.parent_tasks", "datasets.fresh_queries", "datasets.with_images", "datasets.task_features", "datasets.Tasks", "datasets.Tasks.ways", "datasets.Tasks.regression", "datasets.Tasks.arrays", "datasets.Tasks.concat", "datasets.Tasks.side_by_side", "datasets.Tasks.to", "datasets.Tasks.double")  # fmt: skip
def sampled(device):
    p = pool(device)
    t = datasets.sample_tasks(p.map(lambda x: x.flatten(1)), 4, ways=2, shots=1, queries=1)
    many = datasets.Tasks.concat([t, t[[0, 2]]]), datasets.Tasks.side_by_side([t, t])
    parents = datasets.parent_tasks(p, ["a", "b"], 3, shots=1, queries=1)
    more = (
        datasets.fresh_queries(p.map(lambda x: x.flatten(1)), t),
        datasets.with_images(p, t),
        t[1:],
        t[torch.tensor([1]).to(device)],
    )
    features = datasets.task_features(t, lambda x: 2 * x), t.to(torch.float32).double(), t.to(device).arrays()
    return t, many, parents, more, features, t.ways, t.regression


@call("datasets.darken", "datasets.flip_task_labels", "datasets.noise_tasks", "datasets.rotate", "datasets.rotation_augmentation", "datasets.turned_copies")  # fmt: skip
def corrupted(device):
    t = datasets.sample_tasks(pool(device), 3, ways=2, shots=1, queries=2)
    flipped = datasets.flip_task_labels(t, tasks_fraction=0.5, labels_fraction=0.5, seed=0, part="query")
    parts = [datasets.flip_task_labels(tasks(device), tasks_fraction=0.5, labels_fraction=0.3, seed=1, part="query")]
    turned = datasets.rotate(t), datasets.rotation_augmentation(t, 0), datasets.turned_copies(t, 2, seed=0)
    return (
        datasets.darken(t, alpha=0.5),
        datasets.darken(t, alpha=0.5, ratio=0.5),
        flipped,
        parts,
        datasets.noise_tasks(t, 2, seed=0),
        turned,
    )


@call("datasets.spectrum", "datasets.standardiser", "datasets.Standardiser")
def features(device):
    pictures = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0), dtype=D).to(device)
    waves = datasets.spectrum(pictures, size=4)
    fitted = datasets.standardiser(waves)
    return waves, datasets.spectrum(pictures, size=4, half=True), fitted, fitted(waves), normal(2, 2).to(device)


@call("datasets.VisualWords", "datasets.VisualWords.fit")
def visual_words(device):
    pictures = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=D).to(device)
    words = datasets.VisualWords.fit(pictures, words=3, seed=0)
    return words, words(pictures)


@call("datasets.to_learn2learn", "datasets.from_learn2learn")
def learn2learn(device):
    p = pool(device)
    found = datasets.from_learn2learn(datasets.to_learn2learn(p, ways=2, shots=1, queries=2), 2, shots=1, pool=p)
    return found.support_x.shape, found.support_x.dtype == D, found.support_x, found.query_y

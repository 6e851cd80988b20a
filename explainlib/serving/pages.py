"""The pages: each panel on the problem of its notebook, with two sentences on what to do.

The problems are solved once a process (a fork has them solved). Notebooks of pages are written when they are served;
none is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import nbformat
import torch

from explainlib import datasets, meta, models, panels, training
from explainlib.checks import require_choice
from explainlib.influence import TaskInfluence
from explainlib.panels.interactive import InteractivePanel
from explainlib.risk import Risk


class Page(NamedTuple):
    """A panel as a page of its own.

    Attributes:
        title: in the words of a student.
        words: what to do, and what to look at.
        lecture: the notebook it belongs to, without its ending.
        make: makes the panel.
    """

    title: str
    words: str
    lecture: str
    make: Callable[[], InteractivePanel]


@functools.cache
def _digits() -> tuple[Risk, datasets.Examples]:
    split = datasets.load("digits").double()
    return training.minimise(Risk(models.logistic(64, 10), split.train, l2=1e-2)), split.test


def _removal() -> InteractivePanel:
    return panels.Removal(*_digits())


def _group_removal() -> InteractivePanel:
    risk, test = _digits()
    return panels.GroupRemoval(risk, test[(test.y == 7).nonzero()[:5, 0]])


@functools.cache
def _fours_and_nines() -> tuple[training.TrainingRun, datasets.Examples, datasets.Examples]:
    pairs = [part[(part.y == 4) | (part.y == 9)] for part in datasets.load("digits")]
    clean, test = (datasets.Examples(p.x.double(), (p.y == 9).long(), ("4", "9")) for p in pairs)
    train, _ = datasets.flip_labels(clean, 0.1, seed=0)
    run = training.fit(models.mlp([64, 16, 2]), train, record=True, checkpoints=3, epochs=200, lr=0.1, optimizer="sgd")
    return run, train, test


def _representer() -> InteractivePanel:
    return panels.Representer(*_fours_and_nines())


@functools.cache
def _adapted() -> tuple[meta.Maml, torch.Tensor, datasets.Tasks]:
    letters, new_letters = (datasets.class_pool("glyphs", split=part).double() for part in ("train", "test"))
    scale = datasets.standardiser(datasets.spectrum(letters.x))
    waves, new_waves = (p.map(lambda x: datasets.spectrum(x, standardise=scale)) for p in (letters, new_letters))
    tasks = datasets.sample_tasks(waves, 256, shots=2, seed=0)
    learner = meta.Maml(models.mlp([36, 8, 5], "tanh"), inner_lr=0.3)
    trained = meta.train(learner, tasks, batches=500, lr=0.01)
    return learner, trained.w, datasets.sample_tasks(new_waves, 128, shots=2, seed=1)


def _adaptation() -> InteractivePanel:
    return panels.Adaptation(*_adapted())


@functools.cache
def _letters() -> tuple[TaskInfluence, datasets.Tasks, datasets.Tasks, datasets.ClassPool, torch.Tensor]:
    pool = datasets.class_pool("glyphs", split="train").double()
    scale = datasets.standardiser(datasets.spectrum(pool.x))
    features = pool.map(lambda x: datasets.spectrum(x, standardise=scale))
    tasks = datasets.sample_tasks(features, 64, seed=0)
    again, new = datasets.fresh_queries(features, tasks, seed=3), datasets.sample_tasks(features, 64, seed=1)
    learner = meta.Maml(models.fc_bn(36), inner_lr=0.1)
    trained = meta.train(learner, tasks, batches=300)
    influence = TaskInfluence(learner, trained.w, tasks, curvature="hessian")
    return influence, tasks, datasets.Tasks.concat([again[:24], new[:24]]), features, trained.w


def _task_removal() -> InteractivePanel:
    influence, tasks, tests, pool, start = _letters()
    return panels.TaskRemoval(influence.pruned(512), tasks, tests, pool=pool, batches=50, start=start, seed=1)


@functools.cache
def _scripts() -> tuple[meta.Bilevel, datasets.Tasks, datasets.Tasks]:
    scripts = ("Greek", "Arabic", "Georgian")
    letters = datasets.class_pool("glyphs").double().of_parents(scripts, most=6)
    seen, unseen = (datasets.parent_tasks(letters, scripts, m, half=h, seed=m) for h, m in enumerate((60, 100)))
    scale = datasets.standardiser(datasets.spectrum(letters.x, size=5))
    tasks, new_tasks = (
        datasets.task_features(part, lambda x: datasets.spectrum(x, size=5, standardise=scale))
        for part in (seen, unseen)
    )
    return meta.Bilevel(models.logistic(25, 3), inner="proximal", strength=10.0, l2=10.0), tasks, new_tasks


def _harmful() -> InteractivePanel:
    return panels.Harmful(*_scripts())


PAGES = {
    "removal": Page(
        "Remove training digits",
        "Choose a test digit and which training digits leave, then drag how many: the prediction follows. Retrain adds "
        "the truth to the table and a mark to the plot; on the dashed line both are equal.",
        "01_influence_functions",
        _removal,
    ),
    "group_removal": Page(
        "Remove a group",
        "Choose a test seven and a kind of group, and drag its size. Three predictions by size; the box says how far "
        "to trust them, and Retrain adds the truth as a cross.",
        "02_group_influence",
        _group_removal,
    ),
    "fragility": Page(
        "Small networks on Iris",
        "Choose how a network was trained and how large it is, and see what influence predicted against two truths. "
        "Retrain trains this network again, and without each of the examples.",
        "03_fragility",
        panels.Fragility,
    ),
    "representer": Page(
        "Fours and nines",
        "Choose a test digit, an importance and a kernel: bars show both factors of each contribution. Drag how many "
        "training digits are deleted; Retrain adds the truth.",
        "04_generalized_representers",
        _representer,
    ),
    "adaptation": Page(
        "Steps of MAML",
        "Choose a new task and drag the number of steps and their length: the tangent predicts the query loss. Adapt "
        "takes the steps and adds the truth.",
        "05_meta_learning_primer",
        _adaptation,
    ),
    "task_removal": Page(
        "Remove training tasks",
        "Choose a test task and drag how many eigenvalues are kept: the ranks of the training tasks settle. Then "
        "remove tasks, a script, or numbers you type; Retrain adds the truth.",
        "06_tlxml",
        _task_removal,
    ),
    "distributions": Page(
        "Noise among the tasks",
        "Choose what a learner was trained on and whose scores are asked: where do its noise tasks stand? Train here "
        "trains a small learner of that kind and adds it as crosses.",
        "07_tlxml_distributions",
        panels.Distributions,
    ),
    "harmful": Page(
        "Find harmful tasks",
        "Flip labels, choose a ranking, and drag how many tasks are inspected. Retrain solves again without the "
        "suspects.",
        "08_bilevel_influence",
        _harmful,
    ),
    "scoreboard": Page(
        "What held, claim by claim",
        "Choose a paper and a verdict, and read one claim in full: its quantity, interval and controls. Judge again "
        "takes all claims from the tables anew.",
        "09_which_explanation_when",
        panels.Scoreboard,
    ),
}


def open_panel(name: str) -> InteractivePanel:
    """Return a panel on the problem of its notebook; torch's default dtype becomes float64, as in the notebooks.

    Args:
        name: of a page.

    Raises:
        ValueError: no page.
    """
    require_choice("name", name, tuple(PAGES))
    torch.set_default_dtype(torch.float64)
    return PAGES[name].make()


def page_notebook(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a page: its words, and one cell that shows the panel.

    Args:
        name: of a page.

    Raises:
        ValueError: no page.
    """
    page = PAGES[require_choice("name", name, tuple(PAGES))]
    code = f'from explainlib.serving import open_panel\n\nopen_panel("{name}")'
    cells = [
        nbformat.v4.new_markdown_cell(f"# {page.title}\n\n{page.words}", id="cell-00"),
        nbformat.v4.new_code_cell(code, id="cell-01"),
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "title": page.title})

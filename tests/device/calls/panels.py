"""Rows: panels and figures; what they say is the same, wherever the tensors are."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from unittest import mock

import pandas
import torch

import explainlib as xl
from explainlib import figures, influence, panels, studies
from explainlib.figures import png
from explainlib.studies.fragility import read_truths
from tests.device.calls.data import pool
from tests.device.calls.problems import D, maml, risk, tasks, test, trajectory
from tests.device.table import call
from tests.panels.test_harmful import some_tasks


@call("panels.Removal", "panels.Removal.set", "panels.Removal.draw", "panels.Removal.verify", "panels.Removal.text", "panels.Removal.group", "panels.GroupRemoval", "panels.GroupRemoval.set", "panels.GroupRemoval.draw", "panels.GroupRemoval.verify", "panels.GroupRemoval.text", "panels.GroupRemoval.group")  # fmt: skip
def removal_panels(device):
    single, many = panels.Removal(risk(device), test(device)), panels.GroupRemoval(risk(device), test(device))
    found = [single.set(test=1, k=2), single.draw(), single.verify(), single.text, single.group()]
    found += [many.set(test=1, k=3), many.draw(), many.verify(), many.text, many.group()]
    for kind in (panels.Removal, panels.GroupRemoval):
        margin = kind(risk(device), test(device), measure="margin")
        found += [margin.set(test=1, k=2), margin.verify(), margin.group()]
    return found, single.set(remove=torch.tensor([0, 1]).to(device)), many.set(group=torch.tensor([0, 1]).to(device))


@call("panels.TaskRemoval", "panels.TaskRemoval.set", "panels.TaskRemoval.draw", "panels.TaskRemoval.verify", "panels.TaskRemoval.text", "panels.TaskRemoval.group", "panels.TaskRemoval.predicted", "panels.Adaptation", "panels.Adaptation.set", "panels.Adaptation.draw", "panels.Adaptation.verify", "panels.Adaptation.text", "panels.Adaptation.picture")  # fmt: skip
def task_panels(device):
    flat = pool(device).map(lambda x: x.flatten(1))
    seen, new = (xl.datasets.sample_tasks(flat, m, ways=2, shots=1, queries=2, seed=m) for m in (4, 2))
    learner = xl.meta.Maml(xl.models.fc_bn(36, 2, hidden=2, dtype=D, device=device), inner_lr=0.1)
    made = influence.TaskInfluence(learner, learner.w0, seen, damping=0.5)
    removal = panels.TaskRemoval(made, seen, new, batches=2, batch_size=2, pool=flat)
    found = [
        removal.set(test=1, k=2),
        removal.draw(),
        removal.verify(),
        removal.text,
        removal.group(),
        removal.predicted(),
    ]
    other = panels.Adaptation(maml(device), maml(device).w0, tasks(device))
    assert other.picture
    return found, other.set(task=1, steps=2), other.draw(), other.verify(), other.text


@call("panels.Harmful", "panels.Harmful.set", "panels.Harmful.draw", "panels.Harmful.verify", "panels.Harmful.text", "panels.Harmful.suspects", "panels.Harmful.scores")  # fmt: skip
def harmful_panel(device):
    learner = xl.meta.Bilevel(xl.models.logistic(4, 2, dtype=D, device=device), strength=10.0, l2=2.0)
    panel = panels.Harmful(learner, some_tasks(6, 0).to(device), some_tasks(4, 1).to(device))
    return panel.set(inspected=2), panel.draw(), panel.verify(), panel.text, panel.suspects(), panel.scores()


@call("panels.Representer", "panels.Representer.set", "panels.Representer.draw", "panels.Representer.verify", "panels.Representer.text", "panels.Representer.deleted", "panels.Representer.predicted")  # fmt: skip
def representer_panel(device):
    path, r = trajectory(device, checkpoints=3), risk(device, "network")
    panel = panels.Representer(path, r.train, test(device), weight_decay=0.01)
    said = [panel.set(kernel=kernel) for kernel in ("last_layer", "ntk_init", "influence")]
    return (
        said,
        panel.set(test=1, delete=2),
        panel.draw(),
        panel.verify(),
        panel.text,
        panel.deleted(),
        panel.predicted(),
    )


@call("figures.as_image", "figures.class_name", "figures.draw_example", "figures.thumbnails", "figures.task_grid", "figures.ranked_tasks", host="a picture is drawn by the host")  # fmt: skip
def pictures(device):
    p = pool(device)
    examples = xl.datasets.Examples(p.x, p.y)
    seen = xl.datasets.sample_tasks(p, 4, ways=2, shots=1, queries=2)
    drawn = figures.Picture(2, 2)
    figures.draw_example(drawn.add_subplot(), examples, 0)
    made = [drawn, figures.thumbnails(examples, torch.tensor([0, 5]).to(device)), figures.task_grid(seen, 1)]
    made.append(figures.ranked_tasks(torch.arange(4.0, dtype=D).to(device), seen, k=1))
    return [png(each) for each in made], figures.as_image(p.x[0]), figures.class_name(examples, 3)


@call("figures.influence_bars", "figures.predicted_versus_true", "figures.probabilities", "figures.eigenvalue_spectrum")
def charts(device):
    values = torch.linspace(-1, 2, 8, dtype=D).to(device)
    made = [figures.influence_bars(values, k=2), figures.eigenvalue_spectrum(values, keeps=[2])]
    made += [figures.predicted_versus_true(values[None], values[None] + 0.1)]
    made += [figures.probabilities({"now": values.softmax(0)[:3]}, true_class=1)]
    return [png(each.figure) for each in made]


@call(
    "panels.Fragility",
    "panels.Fragility.set",
    "panels.Fragility.draw",
    "panels.Fragility.verify",
    "panels.Fragility.text",
)
def fragility_panel(device):
    kept = read_truths()
    panel = panels.Fragility(replace(kept, training=replace(kept.training, epochs=3, finetune=2)), device=device)
    return panel.set(seed=kept.seeds[1]), panel.draw(), panel.verify(), panel.text


@call("studies.run", "studies.names", host="tables are written as files")
def influence_study(device):
    assert "influence" in studies.names()
    small = replace(studies.influence.config("quick", "iris"), left_out=3, tests=2, ridges=(0.1,))
    with (
        tempfile.TemporaryDirectory() as out,
        mock.patch.object(studies.influence, "config", lambda scale, data: small),
    ):
        paths = studies.run("influence", data="iris", out=out, device=device)
        record = json.loads(paths[-1].read_text())
        where = "CPU" if device == "cpu" else "simulated GPU"
        return [pandas.read_csv(path) for path in paths if path.suffix == ".csv"], record["device"].startswith(where)

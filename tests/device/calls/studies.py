"""Some jobs of every study at toy size: what they compute on a GPU agrees with the CPU, mixing no devices."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas
import torch

from explainlib.studies import bilevel, fragility, group, removal, representers, tlxml
from explainlib.studies.place import computing_on
from tests.device.table import CALLS, Call
from tests.studies.bilevel.test_study import TOY as BILEVEL
from tests.studies.fragility.test_design import TOY as DESIGN
from tests.studies.removal.test_study import TOY as REMOVAL
from tests.studies.representers.test_study import TOY as REPRESENTERS
from tests.studies.tlxml.test_study import TOY as TLXML

SHORT = fragility.config("quick", "iris")
FRAGILITY = replace(
    SHORT, depths=(1,), widths=(5,), repeats=2, bayesian=(1, 20), pairs=1, curve=(3, 2, 60), ladder=(40, 5, 3, 1),
    training=replace(SHORT.training, epochs=60, swa=5, finetune=5, removed=10),
)  # fmt: skip
GROUP = replace(
    group.config("quick", "digits"), seeds=1, limit=80, draws=1, synthetic=60, blobs=50, fractions=(0.1,), groups=3,
    both=(0.1,), tests=2, networks=0, ridges=(1e-2,),
)  # fmt: skip
# The smallest jobs that reach every file of a study.
JOBS: dict[str, tuple[ModuleType, object, tuple[str, ...]]] = {
    "fragility": (
        fragility,
        FRAGILITY,
        ("iris-1-5-plain", "pictures", "curves-digits", "ladder-0"),
    ),
    "fragility_design": (fragility.design, DESIGN, ("averages-0-0", "bayes-0-gaussian-1", "images-0-0", "groups-0")),
    "group": (group, GROUP, ("synthetic-0", "cost-0")),
    "representers": (representers, REPRESENTERS, ("wide-network-0", "wide-0-0")),
    "tlxml": (tlxml, TLXML, ("gaussnewton-0-4", "order-0-0")),
    "removal": (
        removal,
        replace(REMOVAL, learnings=(replace(REMOVAL.learnings[1], rest_steps=1, sizes=(1,), batches=1),)),
        ("removal-0-cnn",),
    ),
    "bilevel": (bilevel, replace(BILEVEL, tasks=6), ("fractions-proximal-0", "extremes-proximal-0")),
}


def tables_of(study: ModuleType, settings: object, names: tuple[str, ...]) -> Callable[[str], object]:
    """Return a row: the tables of some jobs on a device, without their seconds."""

    def run(device: str) -> list[pandas.DataFrame]:
        with tempfile.TemporaryDirectory() as folder, computing_on(torch.device(device)):
            jobs = study.jobs(settings, Path(folder))
            made = [jobs[name]() for name in names]
        return [table.drop(columns=[name for name in table if "second" in str(name)]) for table in made]

    return run


for _name, (_study, _settings, _jobs) in JOBS.items():
    CALLS[f"study {_name}"] = Call(tables_of(_study, _settings, _jobs), (), "tables are numbers on the host")

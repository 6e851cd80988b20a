"""Every function with ``store=`` under every change: the right result or a refusal, never another computation's."""

import errno
import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import explainlib
from explainlib.influence import TaskInfluence
from explainlib.storage import UnidentifiedError
from tests.storage.cases import CASES, CHANGED, computed, learner_of, many_files, noise, tasks_of

DOCUMENT = Path(explainlib.__file__).parents[1] / "docs" / "stores.md"
CHANGES = [(name, change) for name, (_, given) in CASES.items() for change in given]
NAMES = {k: name for k, name in enumerate(CASES)}


@pytest.fixture(scope="module", autouse=True)
def several_files():
    places = [("training.minimise", "PROBLEMS_PER_FILE"), ("training.ensembles", "CACHED")]
    places += [("meta.hessian", "TASKS_PER_WRITE"), ("meta.train", "SAVE_EVERY"), ("influence.stored", "ROWS")]
    places += [("curvature.ekfac", "PASS"), ("curvature.ekfac", "KEPT_EVERY"), ("solvers.arnoldi", "EVERY")]
    before = {(room, name): getattr(sys.modules[f"explainlib.{room}"], name) for room, name in places}
    many_files()
    yield
    for (room, name), value in before.items():
        setattr(sys.modules[f"explainlib.{room}"], name, value)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A finished store of every function, with its result; tests work on copies."""
    root = tmp_path_factory.mktemp("stores")
    results = {name: computed(name, root / str(k)) for k, name in NAMES.items()}
    return {name: (root / str(k), results[name]) for k, name in NAMES.items()}


@pytest.fixture
def copy(filled, tmp_path):
    def copied(name):
        folder, result = filled[name]
        return shutil.copytree(folder, tmp_path / "store"), result

    return copied


def same(one, other):
    """Up to the rounding that the place of a tensor in memory decides."""
    return torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_store_gives_the_result_of_the_computation(copy, name):
    folder, result = copy(name)
    assert len(list(folder.glob("*.safetensors"))) >= 1
    assert same(result, computed(name, None)) and same(result, computed(name, folder))


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_another_computation_is_refused_or_right(copy, name, change):
    folder, result = copy(name)
    changed = {change: CHANGED[change]}
    truth = computed(name, None, **changed)
    assert truth.shape == result.shape and not torch.allclose(truth, result, rtol=1e-3), "the change changes something"
    with pytest.raises(ValueError, match=r"another computation: |has done 6 batches"):
        computed(name, folder, **changed)
    assert same(computed(name, folder), result), "the store is as it was"


def test_more_batches_go_on_from_fewer(copy):
    folder, _ = copy("meta.train")
    assert same(computed("meta.train", folder, batches=8), computed("meta.train", None, batches=8))


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_or_shortened_file_is_refused(copy, name):
    folder, result = copy(name)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        places = [0, len(data) // 3, len(data) - 2]
        flipped = [data[:k] + bytes([data[k] ^ 4]) + data[k + 1 :] for k in places]
        for bad in (*flipped, data[:-1], b""):
            path.write_bytes(bad)
            try:
                found = computed(name, folder)
            except ValueError as error:
                assert str(path) in str(error) or str(folder) in str(error)
            else:  # a file that is no longer needed, or whitespace
                assert same(found, result)
        path.write_bytes(data)


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_another_store_is_refused(copy, tmp_path, name):
    folder, result = copy(name)
    computed(name, tmp_path / "other", options=CHANGED["options"])
    firsts = {"influence.TaskInfluence": "gradients", "meta.meta_hessian": "curvature"}
    first = (firsts | {"solvers.inverse_curvature": "eigenpairs"}).get(name)
    ours = folder / f"{first}.safetensors" if first else min(folder.glob("*.safetensors"))
    shutil.copy(tmp_path / "other" / ours.name, ours)
    with pytest.raises(ValueError, match="damaged or was copied"):
        computed(name, folder)


@pytest.mark.parametrize("name", ["training.minimise", "training.fit_risks", "metrics.retrained_changes"])
def test_a_file_under_another_name_is_refused(copy, name):
    folder, _ = copy(name)
    shutil.copy(folder / "batch-00001.safetensors", folder / "batch-00000.safetensors")
    with pytest.raises(ValueError, match="seal is of another computation or name"):
        computed(name, folder)


def fails(number):
    def write(*_, **__):
        raise OSError(number, os.strerror(number))

    return write


@pytest.mark.parametrize("name", CASES)
def test_a_finished_store_opens_where_nothing_can_be_written(copy, monkeypatch, name):
    folder, result = copy(name)
    monkeypatch.setattr("tempfile.mkstemp", fails(errno.EROFS))
    assert same(computed(name, folder), result)
    if name == "influence.TaskInfluence":
        opened = TaskInfluence.stored(learner_of(1.0, 1.0, 0.1), folder)
        assert same(opened.meta, result)


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_or_a_closed_folder_is_told_with_its_path(tmp_path, monkeypatch, name):
    folder = tmp_path / "store"
    result = computed(name, None)
    calls, real = [], os.fsync

    def full(handle):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"{folder}/\w+.*disk or quota is full .* free space") as told:
        computed(name, folder)
    assert told.value.errno == errno.ENOSPC and [p.name for p in folder.iterdir()] == ["fingerprint.json"]
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.mkstemp", fails(errno.EROFS))
    with pytest.raises(OSError, match=rf"{folder}/\w+.*cannot be written .*Read-only.* make its folder writable"):
        computed(name, folder)
    monkeypatch.undo()
    assert same(computed(name, folder), result), "it goes on where it was"


def start(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.cases", *map(str, words)],
        cwd=Path(__file__).parents[2],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 0, told[-3000:]


def test_killed_runs_go_on_to_the_same_bits(tmp_path):
    finish(start("kill", tmp_path))
    killed = 0
    for k, name in NAMES.items():
        whole = load_file(tmp_path / str(k) / "whole")["result"]
        for ended in (tmp_path / str(k)).glob("*.ended"):
            killed += int(ended.read_text()) == 9
            got = load_file(ended.with_suffix(""))["result"]
            assert torch.equal(got, whole), f"{name} after {ended.stem}"
    assert killed >= 40, "nearly every run came to its moment"


def test_two_processes_at_once(tmp_path):
    """Two that compute the same share the store; of two that compute different things one is refused."""
    (tmp_path / "same").mkdir()
    (tmp_path / "mixed").mkdir()
    four = [("same", "same"), ("same", "same"), ("mixed", "same"), ("mixed", "other")]
    for process in [start("run", tmp_path / folder, version) for folder, version in four]:
        finish(process)
    for k, name in NAMES.items():
        truths = {"same": computed(name, None), "other": computed(name, None, options=CHANGED["options"])}
        shared = [path for path in (tmp_path / "same").glob(f"{k}-same-*")]
        assert len(shared) == 2 and all(same(load_file(path)["result"], truths["same"]) for path in shared)
        both = [path for path in (tmp_path / "mixed").glob(f"{k}-*-*")]
        right = [path for path in both if path.suffix != ".refused"]
        assert len(both) == 2 and len(right) == 1
        assert same(load_file(right[0])["result"], truths[right[0].name.split("-")[1]])
        (refused,) = set(both) - set(right)
        assert "another computation: " in refused.read_text()


def test_what_cannot_be_told_apart_is_refused_before_work(tmp_path):
    drawing = torch.Generator().manual_seed(0)
    risk = explainlib.Risk(
        torch.nn.Linear(3, 2, dtype=torch.float64),
        explainlib.datasets.Examples(noise(6, 3), torch.arange(6) % 2),
        loss=lambda f, y: f.square().sum(1) * (1 + 0 * torch.rand(1, generator=drawing).item()),
    )
    with pytest.raises(UnidentifiedError, match="loss > .*drawing is a Generator, which draws .*leave store out"):
        explainlib.training.minimise(risk, weights=torch.ones(1, 6, dtype=torch.float64), store=tmp_path / "a")
    learner, tasks = learner_of(1.0, 1.0, 0.1), tasks_of(0)
    with pytest.raises(UnidentifiedError, match="augment gives other values when it is called again"):
        explainlib.meta.train(learner, tasks, batches=1, augment=shaken, store=tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def shaken(tasks, number):
    x = tasks.support_x
    return explainlib.datasets.Tasks(x + torch.rand_like(x), tasks.support_y, tasks.query_x, tasks.query_y)


def test_a_stored_influence_wants_its_own_learner(copy):
    folder, _ = copy("influence.TaskInfluence")
    for other in ((1.5, 1.0, 0.1), (1.0, 1.4, 0.1), (1.0, 1.0, 0.2)):
        with pytest.raises(ValueError, match="another learner .*build the learner as it was trained"):
            TaskInfluence.stored(learner_of(*other), folder)


def with_a_store():
    """The public functions that take ``store``, found by looking."""
    found = set()
    for room in ("training", "retraining", "metrics", "meta", "influence", "curvature", "solvers"):
        module = import_module(f"explainlib.{room}")
        for name, value in vars(module).items():
            if (
                not name.startswith("_")
                and callable(value)
                and getattr(value, "__module__", "").startswith("explainlib")
            ):
                try:
                    parameters = inspect.signature(value).parameters
                except (TypeError, ValueError):
                    continue
                if "store" in parameters and (room == "retraining") == (value.__module__ == "explainlib.retraining"):
                    found.add(f"{room}.{name}")
    return found


def test_no_function_with_a_store_is_forgotten():
    assert with_a_store() == {name.split(",")[0] for name in CASES}


def test_the_document_has_the_table():
    """One row for each function; a cell says that the change is refused, or has nothing to change."""
    columns = ["loss", "forward", "augment", "batches", "data", "options", "seed"]
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    rows = {
        re.sub("`", "", cells[1].strip()): [c.strip() for c in cells[2:]] for cells in (x.split("|") for x in lines)
    }
    for name, (_, given) in CASES.items():
        for column, cell in zip(columns, rows[name], strict=False):
            fewer = name == "meta.train" and column == "batches"
            assert cell == ("more go on, fewer refused" if fewer else "refused" if column in given else "-"), (
                name,
                column,
            )

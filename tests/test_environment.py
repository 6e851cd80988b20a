"""One set of versions: ranges, pins, conda file, Makefile and README say the same."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jaxtyping
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import explainlib
from explainlib import doctor

TRITON_OF = {
    "2.6.0": "3.2.0",
    "2.9.1": "3.5.1",
    "2.13.0": "3.7.1",
}  # what torch's CUDA builds for Linux ask for, exactly


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(repository):
    lines = (repository / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def conda(repository):
    return yaml.safe_load((repository / "environment.yml").read_text())


@pytest.fixture(scope="module")
def makefile(repository):
    return (repository / "Makefile").read_text()


def direct(project, *extras):
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(text) for texts in lists for text in texts]


def test_pins_are_exact_sorted_and_single(pins):
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in pins), "a pin is name==version"
    assert pins == sorted(pins, key=str.lower)
    names = [canonicalize_name(line.split("==")[0]) for line in pins]
    assert len(names) == len(set(names))
    assert "learn2learn" not in names and "explainlib" not in names


def test_pins_satisfy_the_ranges(project, pins):
    versions = {canonicalize_name(name): version for name, version in (line.split("==") for line in pins)}
    for requirement in direct(project, "test", "lab", "site"):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_conda_file_equals_the_pins(project, pins, conda):
    wanted = {canonicalize_name(requirement.name) for requirement in direct(project, "test", "lab")}
    expected = {line for line in pins if canonicalize_name(line.split("==")[0]) in wanted}
    own, pip = conda["dependencies"][:-1], conda["dependencies"][-1]["pip"]
    assert set(pip) == expected and len(pip) == len(expected)
    assert own == ["python=3.11", "pip"]
    assert (conda["name"], conda["channels"]) == ("explainlib", ["conda-forge"])


def test_binder_has_the_pins_of_what_notebooks_need(repository, project, pins):
    """Binder reads its own folder: the conda file without the tests' tools, PyTorch's CPU wheels, then two installs."""
    binder = yaml.safe_load((repository / "binder" / "environment.yml").read_text())
    index, *lines = binder["dependencies"][-1]["pip"]
    wanted = {canonicalize_name(requirement.name) for requirement in direct(project, "lab")}
    assert set(lines) == {line for line in pins if canonicalize_name(line.split("==")[0]) in wanted}
    assert index == "--extra-index-url https://download.pytorch.org/whl/cpu" and len(lines) == len(set(lines))
    after = repository / "binder" / "postBuild"
    text = after.read_text()
    assert os.access(after, os.X_OK), "binder/postBuild has lost its executable bit"
    assert text.startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in text and "--no-deps -e ." in text
    subprocess.run(["bash", "-n", str(after)], check=True, timeout=30)


def test_triton_is_the_one_that_torch_asks_for(project, pins):
    """With another one, pip installs neither: "conflicting dependencies"."""
    versions = dict(line.split("==") for line in pins)
    assert versions["triton"] == TRITON_OF[versions["torch"]]
    (torch_range,) = (one for one in direct(project) if one.name == "torch")
    for extra in ("cuda", "test"):
        (triton,) = (one for one in direct({**project, "dependencies": []}, extra) if one.name == "triton")
        for ours, theirs in TRITON_OF.items():
            assert torch_range.specifier.contains(ours) and triton.specifier.contains(theirs), (
                f"{extra} with torch {ours}"
            )


def test_every_place_names_the_same_pythons(repository, project, makefile):
    tested = [f"{major}.{minor}" for major, minor in doctor.TESTED]
    assert re.search(r"^PYTHON_VERSIONS := (.*)$", makefile, re.MULTILINE).group(1).split() == tested
    named = [text.rsplit(" ", 1)[1] for text in project["classifiers"] if "Python :: 3." in text]
    assert named == tested and project["requires-python"] == f">={tested[0]}"
    assert f"Python {', '.join(tested[:-1])} or {tested[-1]}" in (repository / "README.md").read_text()
    lint = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["ruff"]
    assert lint["target-version"] == "py" + tested[0].replace(".", "")


@pytest.mark.skipif(not os.environ.get("CI"), reason="outside continuous integration learn2learn may be missing")
def test_continuous_integration_has_learn2learn():
    """A build that fails only skips tests, so something has to notice."""
    assert importlib.util.find_spec("learn2learn") is not None, "see .venv/learn2learn.log"


def stand_in_python(folder, version):
    """A program that answers like a Python of that version."""
    path = folder / f"python{version}"
    path.write_text(f"#!/bin/sh\ncase $2 in *version_info*) echo {version};; esac\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("versions", "asked", "taken"),
    [
        (["3.10", "3.12", "3.13"], None, "3.12"),
        (["3.13", "3.14"], None, "3.13"),
        (["3.10", "3.14"], None, None),
        (["3.12", "3.13"], "3.13", "3.13"),
        (["3.14"], "3.14", "3.14"),
    ],
)
def test_make_takes_the_first_python_that_was_tested(repository, tmp_path, versions, asked, taken):
    """The PATH holds stand-ins, which make no environment; so make stops after it has chosen."""
    for version in versions:
        stand_in_python(tmp_path, version)
    for tool in ("sed", "id", "rm"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    command = [shutil.which("make"), "env", f"VENV={tmp_path}/venv"]
    command += [f"PYTHON={tmp_path}/python{asked}"] if asked else []
    run = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=30, env={"PATH": str(tmp_path)}
    )
    assert run.returncode != 0
    chosen = re.findall(r"^Making \S+ with (\S+)$", run.stdout, re.MULTILINE)
    assert chosen == ([f"{tmp_path}/python{taken}"] if taken else []), run.stderr
    assert ("No usable Python among 3.11 3.12 3.13" in run.stderr) == (taken is None)
    assert ("Python 3.14 is untested" in run.stderr) == (taken == "3.14")


@pytest.fixture
def linked(repository, tmp_path):
    """A folder with the Makefile whose .venv is a link to a stand-in for another checkout's environment.

    Its python writes its arguments into ``calls`` and does nothing else.
    """
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / "clone").mkdir(exist_ok=True)
        shutil.copyfile(repository / name, tmp_path / "clone" / name)
    tools = tmp_path / "theirs" / "bin"
    tools.mkdir(parents=True)
    (tools / "python").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (tools / "python").chmod(0o755)
    (tmp_path / "clone" / ".venv").symlink_to(tmp_path / "theirs")
    return tmp_path


def make(folder, *arguments):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "CI"}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, env=plain)


@pytest.mark.parametrize("stamp", [None, 0])
@pytest.mark.parametrize("target", ["env", "doctor"])
def test_make_installs_nothing_behind_a_link(linked, target, stamp):
    """Whether the other environment has no stamp or an old one: it keeps it, and pip is never called."""
    if stamp is not None:
        (linked / "theirs" / ".installed").touch()
        os.utime(linked / "theirs" / ".installed", (stamp, stamp))
    run = make(linked / "clone", target)
    assert run.returncode != 0 and not (linked / "calls").exists()
    told = f".venv is a link to {linked}/theirs and nothing was installed; to make an own one: rm .venv && make env"
    assert run.stderr.splitlines()[0] == told
    assert (linked / "theirs" / ".installed").exists() == (stamp is not None)


def test_make_uses_a_linked_environment_that_is_up_to_date(linked):
    (linked / "theirs" / ".installed").touch()
    assert make(linked / "clone", "env").returncode == 0 and not (linked / "calls").exists()
    assert make(linked / "clone", "doctor").returncode == 0
    assert (linked / "calls").read_text() == "-m explainlib doctor\n"
    site = make(linked / "clone", "site")
    assert site.returncode != 0 and "nothing was installed" in site.stderr, "the site's tools would go there too"
    assert (linked / "calls").read_text() == "-m explainlib doctor\n"


def test_make_installs_into_an_environment_of_its_own(linked):
    (linked / "clone" / ".venv").unlink()
    (linked / "theirs").rename(linked / "clone" / ".venv")
    assert make(linked / "clone", "env").returncode == 0
    assert "-e .[test,lab]" in (linked / "calls").read_text() and (linked / "clone" / ".venv" / ".installed").exists()


def test_what_is_generated_is_neither_linted_nor_collected(repository, tmp_path):
    """Without git, ruff and pytest know only what pyproject.toml says."""
    (tmp_path / "pyproject.toml").write_text((repository / "pyproject.toml").read_text())
    for folder in ("build", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_it.py").write_text("import os\n\n\ndef test_it():\n    pass\n")
    lint = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."]
    found = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True, timeout=60).stdout
    assert "tests/test_it.py" in found and "build" not in found
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "."]
    found = subprocess.run(collect, cwd=tmp_path, capture_output=True, text=True, timeout=120).stdout
    assert "tests/test_it.py" in found and "build" not in found


def test_learn2learn_has_one_pin_and_stands_outside_the_requirements(repository, makefile, project):
    pattern = r"learn2learn==[\d.]+\d"
    assert re.search(rf"^LEARN2LEARN := ({pattern})$", makefile, re.MULTILINE)
    others = ("environment.yml", "binder/postBuild", "README.md")
    text = makefile + "".join((repository / name).read_text() for name in others)
    assert len(set(re.findall(pattern, text))) == 1
    option = '--no-deps --config-settings="--build-option=build_ext"'
    assert option in makefile and option in (repository / "environment.yml").read_text()
    assert "learn2learn" not in [requirement.name for requirement in direct(project, "test", "lab", "cuda")]


def test_torch_is_asked_for_exactly_and_first(makefile):
    steps = [line for line in makefile.splitlines() if "pip install" in line]
    assert "$(TORCH)" in steps[0] and '-e ".[test,lab]"' in steps[1] and "$(LEARN2LEARN)" in steps[2]
    told = makefile[makefile.index(steps[2]) :].split("\n\t@touch")[0]
    assert '|| echo "$(WITHOUT_LEARN2LEARN)"' in told, "a learn2learn that does not build is told, and no error"
    assert all("-c constraints.txt" in step for step in steps[:2])


def test_readme_names_only_targets_that_exist(repository, makefile):
    readme = repository / "README.md"
    assert readme.is_file(), "README.md is missing; the package cannot be built without it"
    text = readme.read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    claimed = set(re.findall(r"(?:`|^\s*)make ([a-z-]+)\b", text, re.MULTILINE))
    assert {"lab", "test"} <= claimed, "README has to name `make lab` and `make test`"
    assert claimed <= targets, f"README names targets that do not exist: {claimed - targets}"


def test_help_lists_every_public_target(repository, makefile):
    declared = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "CI"}
    shown = subprocess.run(["make"], cwd=repository, capture_output=True, text=True, timeout=30, env=plain).stdout
    assert set(re.findall(r"^ *make ([\w-]+) +\S", shown, re.MULTILINE)) == declared


def test_continuous_integration_is_executable_and_strict(repository):
    path = repository / ".ci" / "run"
    text = path.read_text()
    assert os.access(path, os.X_OK), ".ci/run has lost its executable bit"
    assert text.startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in text
    assert "export CI=true" in text and "make test" in text
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)


def test_licence_is_mit(repository, project):
    text = (repository / "LICENSE").read_text()
    assert text.startswith("MIT License") and "explainlib contributors" in text and project["license"] == "MIT"


def test_version_is_the_package_s_own(project):
    assert explainlib.__version__ == project["version"]


def test_signatures_are_checked_while_tests_run(hooked_in_time):
    assert hooked_in_time, "explainlib was imported before the hook of tests/conftest.py"
    with pytest.raises(jaxtyping.TypeCheckError):
        explainlib.checks.require_finite("x", "not a tensor")
    with pytest.raises(jaxtyping.TypeCheckError):
        explainlib.checks.require_table("table", torch.zeros(3))


def test_lab_leaves_lists_the_keys_of_every_command(repository):
    """JupyterLab's keys for a selected cell match any focused element; docs/lab binds each anew, lists left out."""
    focused, found = ".jp-Notebook.jp-mod-commandMode:not(.jp-mod-readWrite) :focus", []
    for path in sorted((Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas").rglob("*.json")):
        bound = json.loads(path.read_text()).get("jupyter.lab.shortcuts", [])
        found += [shortcut for shortcut in bound if shortcut["selector"] == focused]
    settings = json.loads((repository / "docs" / "lab" / "overrides.json").read_text())
    ours = settings["@jupyterlab/shortcuts-extension:shortcuts"]["shortcuts"]
    want = [{**each, "disabled": True} for each in found]
    want += [{**each, "selector": f"{focused}:not(select)"} for each in found]
    assert found and ours == want

"""One set of versions: ranges, pins, conda file, Makefile and README say the same."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import jaxtyping
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import explainlib


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
    for requirement in direct(project, "test", "lab"):
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


def test_learn2learn_has_one_pin_and_stands_outside_the_requirements(repository, makefile, project):
    pattern = r"learn2learn==[\d.]+\d"
    assert re.search(rf"^LEARN2LEARN := ({pattern})$", makefile, re.MULTILINE)
    text = makefile + (repository / "environment.yml").read_text()
    assert len(set(re.findall(pattern, text))) == 1
    option = '--no-deps --config-settings="--build-option=build_ext"'
    assert option in makefile and option in (repository / "environment.yml").read_text()
    assert "learn2learn" not in [requirement.name for requirement in direct(project, "test", "lab", "cuda")]


def test_torch_is_asked_for_exactly_and_first(makefile):
    steps = [line for line in makefile.splitlines() if "pip install" in line]
    assert "$(TORCH)" in steps[0] and '-e ".[test,lab]"' in steps[1] and "$(LEARN2LEARN)" in steps[2]
    assert all("-c constraints.txt" in step for step in steps[:2])


def test_readme_names_only_targets_that_exist(repository, makefile):
    readme = repository / "README.md"
    assert readme.is_file(), "README.md is missing; the package cannot be built without it"
    text = readme.read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    claimed = set(re.findall(r"(?:`|^\s*)make ([a-z]+)\b", text, re.MULTILINE))
    assert {"lab", "test"} <= claimed, "README has to name `make lab` and `make test`"
    assert claimed <= targets, f"README names targets that do not exist: {claimed - targets}"


def test_help_lists_every_public_target(repository, makefile):
    declared = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
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

"""A table of bad inputs: each gets one error with got, expected and remedy, at once, and leaves everything unchanged."""

import json
import os
import subprocess
import sys

import pytest

from tests.error_cases import CASES


@pytest.fixture(scope="module")
def seen(repository):
    """What a person without the tests' import hook sees, from one fresh interpreter."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.error_cases"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_bad_input(seen, name):
    _, error, words = CASES[name]
    got = seen[name]
    assert got["error"] == error, got["message"]
    missing = [word for word in words if word not in got["message"]]
    assert not missing, f"{missing} missing in: {got['message']}"
    assert got["message"][-1] in ".)" or got["error"] == "AttributeError"
    assert len(got["message"]) < 500 and "\n" not in got["message"]
    assert got["unchanged"] and got["seconds"] < 60.0

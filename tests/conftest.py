"""What all tests share: shapes in signatures are checked while they run, figures need no screen, one thread a process.

The import hook makes beartype check every jaxtyping signature of explainlib, on the calls that ``sampled_checks``
chooses. It has to be installed before explainlib is imported, and it lives only here: notebooks and users import the
package without it.
"""

from __future__ import annotations

import importlib.util
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import matplotlib
import pytest
import torch._dynamo  # noqa: F401  torch loads it in the first forward, where the gate watches every call of it: a minute
from jaxtyping import install_import_hook

from tests import sampled_checks

# Imported before the hook, explainlib would run unchecked; `already` lets test_environment say so.
already = "explainlib" in sys.modules
sampled_checks.install()
install_import_hook("explainlib", "beartype.beartype")
matplotlib.use("Agg")

hypothesis.settings.register_profile("explainlib", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("explainlib")


def pytest_collection_modifyitems(items):
    """Skip the cells of notebooks that use learn2learn, where it did not build."""
    if importlib.util.find_spec("learn2learn") is None:
        for item in items:
            if item.path.suffix == ".ipynb" and "import_learn2learn" in item.path.read_text():
                item.add_marker(pytest.mark.skip(reason="learn2learn is not installed"))


@pytest.fixture(autouse=True)
def checks_begin_again():
    """The first calls of every test are checked."""
    sampled_checks.new_test()


@pytest.fixture(scope="session")
def repository(pytestconfig):
    """Return the folder of pyproject.toml."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def hooked_in_time():
    """Return whether the import hook came before the first import of explainlib."""
    return not already

"""What somebody has who installed the package: the wheel's files, the source distribution's, and the kept tables."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from explainlib.studies.kept import FINISHED, kept_tables

STEMS = sorted(path.stem for path in FINISHED.glob("*.json"))
MADE = (
    ".git",
    ".venv",
    ".venv-peers",
    ".hypothesis",
    ".ipynb_checkpoints",
    ".virtual_documents",
    ".coverage",
)  # not of the project
LEFT = (*MADE, "__pycache__", "build", "dist", "*.egg-info", ".*_cache", "*.tmp")


@pytest.fixture(scope="module")
def source(repository, tmp_path_factory):
    """A copy of the project: setuptools writes beside what it reads."""
    pytest.importorskip("setuptools", "77", reason="setuptools is not installed")
    folder = tmp_path_factory.mktemp("source") / "explainlib"
    return Path(shutil.copytree(repository, folder, ignore=shutil.ignore_patterns(*LEFT)))


def build(source, kind):
    folder = source.parent / kind
    folder.mkdir()
    code = f"import setuptools.build_meta as b; print(b.build_{kind}({str(folder)!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return folder / run.stdout.split()[-1]


def test_a_wheel_holds_the_package_and_the_kept_tables(source):
    wheel = build(source, "wheel")
    shutil.unpack_archive(wheel, source.parent / "site", "zip")
    site = source.parent / "site"
    wanted = {path.relative_to(source) for path in (source / "explainlib").rglob("*.py")}
    tables = [path for path in (source / "data" / "results").iterdir() if path.suffix in (".csv", ".json")]
    wanted |= {Path("explainlib", "studies", "results", path.name) for path in tables}
    there = {path.relative_to(site) for path in site.rglob("*") if path.is_file() and "dist-info" not in str(path)}
    assert tables and there == wanted | {Path("explainlib/py.typed")}
    assert wheel.stat().st_size < 2_000_000
    code = (
        "import explainlib as xl; from explainlib.studies.kept import kept_tables; print(xl.__file__);"
        "print(xl.panels.Fragility().text.splitlines()[0]); print(sorted(kept_tables('bilevel-glyphs-cpu'))[0])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=site, capture_output=True, text=True, timeout=300)
    assert run.stdout.split("\n")[0] == str(site / "explainlib" / "__init__.py"), run.stderr
    assert "removed one by one" in run.stdout and run.stdout.split()[-1] == "claims"


def test_a_source_distribution_holds_the_whole_project(source):
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    files = {path.as_posix() for path in files if not path.parts[0].endswith(("build", ".egg-info"))}  # by the wheel
    files -= {".gitignore", ".pre-commit-config.yaml"}
    with tarfile.open(build(source, "sdist")) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    assert files <= there, sorted(files - there)[:5]
    assert {"tests/conftest.py", "tests/nbval_sanitize.cfg", "Makefile", ".ci/run", "docs/stores.md"} <= files


@pytest.mark.parametrize("stem", STEMS)
def test_kept_tables_are_read_as_their_run_wrote_them(stem):
    tables = kept_tables(stem)
    assert {"claims", "questions"} & set(tables) and all(len(table) for table in tables.values())


def test_a_run_that_is_not_kept_names_those_that_are():
    with pytest.raises(FileNotFoundError) as caught:
        kept_tables("group-iris-quick")
    said = str(caught.value)
    assert len(STEMS) > 5 and all(stem in said for stem in STEMS)
    assert "study group --scale quick --data iris --out results` and pass folder='results'" in said
    assert str(FINISHED) not in said, "nobody should write into an installed package"

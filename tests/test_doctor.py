"""The doctor sees gaps and names remedies; the command line answers mistakes with one line and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from explainlib import __main__ as command_line
from explainlib import datasets, doctor


def run(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "explainlib", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )


def test_report_names_everything_it_looks_at():
    text = doctor.report()
    for subject in (
        "python:",
        "torch:",
        "learn2learn:",
        "device:",
        "threads:",
        "browser:",
        "data iris:",
        "data mnist:",
    ):
        assert f"] {subject}" in text
    assert doctor.__doc__ and text.splitlines()[-1].startswith(("Nothing is missing.", "1 gap; ")) or " gaps; " in text


def test_learn2learn_is_not_imported():
    code = "import sys, explainlib.doctor as d; d.report(); sys.exit('learn2learn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_pins_come_from_the_files(tmp_path):
    (tmp_path / "constraints.txt").write_text("# x==1\nTorch==2.0.0\nnumpy==1.5 # why\n")
    (tmp_path / "Makefile").write_text("LEARN2LEARN := learn2learn==0.1\n")
    assert doctor.pins(tmp_path) == {"torch": "2.0.0", "numpy": "1.5", "learn2learn": "0.1"}
    assert doctor.pins(tmp_path / "nowhere") == {}
    assert set(doctor.PACKAGES) <= set(doctor.pins())


def test_a_package_is_right_wrong_or_missing(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.0.0+cpu")
    assert doctor.package_finding("torch", "2.0.0").ok
    assert doctor.package_finding("torch", None).ok
    wrong = doctor.package_finding("torch", "2.1.0")
    assert not wrong.ok and "2.1.0" in wrong.text and "make env" in wrong.remedy
    monkeypatch.undo()
    missing = doctor.package_finding("no-such-package", "1")
    assert (missing.text, missing.ok) == ("not installed", False)


def test_outside_the_repository_the_remedy_is_pip(monkeypatch, tmp_path):
    """Somebody who installed a wheel has no Makefile."""
    required = [
        "numpy>=2.0",
        'nbformat>=5; extra == "test"',
        'nbformat>=5; extra == "lab"',
        "voila>=0.5 ; extra == 'lab'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    advised = {
        name: doctor.install_command(name, tmp_path) for name in ("numpy", "voila", "nbformat", "x", "learn2learn")
    }
    assert advised["numpy"] == "pip install numpy" and advised["x"] == "pip install x"
    assert (
        advised["voila"] == "pip install 'explainlib[lab]'" and advised["nbformat"] == "pip install 'explainlib[test]'"
    )
    assert advised["learn2learn"].startswith("pip install --no-deps")
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        assert not doctor.in_repository(tmp_path)
        (tmp_path / name).touch()
    assert doctor.in_repository(tmp_path) and doctor.install_command("voila", tmp_path) == "make env"


def test_the_last_line_says_which_gaps_stop_nobody(monkeypatch):
    ok, data, package = (
        doctor.Finding("python", "3.11"),
        doctor.Finding("data x", "not found", "put it there"),
        doctor.Finding("torch", "not installed", "make env"),
    )
    for found, said in (
        ([ok], "Nothing is missing."),
        ([ok, data], "1 gap; each names what to do. All are data that no notebook needs."),
        ([package, data, data], "3 gaps; each names what to do. 2 of them are data that no notebook needs."),
        ([package, ok], "1 gap; each names what to do."),
    ):
        monkeypatch.setattr(doctor, "findings", lambda device, found=found: found)
        assert doctor.report().splitlines()[-1] == said


def test_every_data_set_has_one_line():
    subjects = [finding.subject for finding in doctor.data_findings()]
    assert len(subjects) == len(set(subjects)) >= 12


def test_no_finding_of_an_installed_package_names_make(monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "HOME", tmp_path)
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(datasets, "catalogue", lambda: [])
    text = doctor.report()
    assert "not installed" in text and "make" not in text and "browser" not in text and "notebook 05" in text


@pytest.mark.parametrize(("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)])
def test_an_untested_python_is_a_gap(monkeypatch, version, ok):
    monkeypatch.setattr(doctor.sys, "version_info", (*version, 0))
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    assert doctor.python_finding().ok == ok


def test_a_gap_shows_its_remedy_below():
    assert str(doctor.Finding("a", "b")) == "[ok ] a: b"
    assert str(doctor.Finding("a", "b", "do c")) == "[gap] a: b\n      -> do c"


def test_without_a_browser_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.browser_path() is None and "apt-get install" in doctor.browser_finding().remedy
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)
    assert doctor.browser_path() == str(tmp_path / "chromium") and doctor.browser_finding().ok


def test_reports_hide_where_this_machine_keeps_things(monkeypatch):
    monkeypatch.setenv("EXPLAINLIB_DATA", "/somewhere/data")
    home = str(Path.home())
    assert doctor.shorten(f"in /somewhere/data/mnist or {home}/x") == "in $EXPLAINLIB_DATA/mnist or ~/x"
    assert doctor.shorten(f"{home}less /x{home}/y") == f"{home}less /x{home}/y"


def test_missing_data_are_a_gap(monkeypatch):
    entry = SimpleNamespace(name="mnist", found=None, how="fetch it")
    monkeypatch.setattr(datasets, "catalogue", lambda: [entry])
    monkeypatch.setattr(datasets, "pool_catalogue", lambda: [SimpleNamespace(name="mnist", found="embedded", how="")])
    assert doctor.data_findings() == [doctor.Finding("data mnist", "not found", "fetch it")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("data", "nope"), "choose one of iris"),
        (("study", "nope"), "choose one of influence"),
        (("notebooks", "--check", "nowhere"), "nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_unknown_commands_are_refused():
    assert run("paint").returncode == 2
    assert run("study", "influence", "--scale", "huge").returncode == 2


def test_data_lists_and_describes(capsys):
    assert command_line.main(["data"]) == 0
    assert "digits" in capsys.readouterr().out
    assert command_line.main(["data", "iris"]) == 0
    text = capsys.readouterr().out
    assert "train [120, 4], test [30, 4]" in text and "licence: CC BY 4.0" in text


def test_data_says_what_to_put_where_for_a_relative_folder():
    done = run("data", EXPLAINLIB_DATA="relative/folder")
    assert done.returncode == 0 and "mnist" in done.stdout and "relative path" in done.stdout


def test_doctor_runs_as_a_command():
    done = run("doctor")
    assert done.returncode == 0, done.stderr
    assert "[ok ] threads: torch uses" in done.stdout


def test_study_passes_on_what_was_asked(monkeypatch, capsys):
    asked = []

    def fake(name, **options):
        asked.append((name, options))
        return [Path("table.csv")]

    import explainlib

    monkeypatch.setattr(explainlib, "studies", SimpleNamespace(names=lambda: ("one", "two"), run=fake), raising=False)
    monkeypatch.setattr("explainlib.figures.studies.draw", lambda name, tables: Path(f"{name}.png"))
    words = ["study", "two", "--scale", "cpu", "--data", "mnist", "--out", "there", "--jobs", "2"]
    assert command_line.main(words) == 0
    options = {"scale": "cpu", "data": "mnist", "out": Path("there"), "jobs": 2, "device": "auto"}
    assert command_line.main(["study", "one"]) == 0
    plain = {"scale": "quick", "data": None, "out": Path("results"), "jobs": 1, "device": "auto"}
    assert asked == [("two", options), ("one", plain)]
    assert capsys.readouterr().out.split() == ["table.csv", "two.png", "table.csv", "one.png"]


def test_study_all_judges_and_runs_nothing(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("explainlib.studies.run", None)
    monkeypatch.setattr(
        "explainlib.studies.scoreboard.write_scoreboard", lambda folder: asked.append(folder) or [Path("board.csv")]
    )
    assert command_line.main(["study", "all"]) == 0 and command_line.main(["study", "all", "--out", "there"]) == 0
    assert asked == [None, Path("there")] and capsys.readouterr().out.split() == ["board.csv"] * 2
    for words in (["--scale", "cpu"], ["--data", "mnist"], ["--jobs", "2"]):
        assert command_line.main(["study", "all", *words]) == 2
        assert f"runs nothing, it judges tables that are there; leave {words[0]} out" in capsys.readouterr().err


def test_interrupting_is_no_traceback(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "report", interrupted)
    assert command_line.main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err

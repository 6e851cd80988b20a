"""The races against other libraries: the harness on sides that are here, its record, and the page made from it."""

import importlib.util
import json
import re

import pytest
import torch

from benchmarks.peers import harness, page, record
from benchmarks.peers.__main__ import main
from benchmarks.peers.race import MODULES, OWN, Bar, Race, Side
from benchmarks.peers.races import RACES

PEERS = {"captum", "kronfluence", "pyDVL", "dattri", "traker"}


def made_up(*, first=lambda problem: lambda: torch.ones(2, 3), second=lambda problem: lambda: torch.eye(2, 3), **other):
    sides = (Side(OWN, "ones", first), Side("PyTorch", "an identity", second, Bar(2.0, 1.0)))
    return Race("made-up", "Made up", lambda n: {"n": n}, sides, {"n": 5}, {"n": 2}, runs=3, **other)


def of_a_side(seconds, above, **other):
    sizes = {"seconds": seconds, "processor_seconds": seconds, "memory": {"above": above, "peak": 2 * above}}
    return sizes | {"agreement": {"pearson": 0.5, "relative": 0.25}} | other


@pytest.fixture
def rehearsal(tmp_path):
    """A rehearsal of two races, one of which has no library to beat where none is installed."""
    path = tmp_path / "peers.json"
    assert main(["kernel", "softmax", "--quick", "--record", str(path)]) == 0
    return path


def test_a_rehearsal_measures_seconds_memory_and_agreement_and_is_kept(rehearsal, capsys):
    races = json.loads(rehearsal.read_text())["races"]
    own, plain = (races["kernel"]["sides"][name] for name in (OWN, "PyTorch"))
    for side in (own, plain):
        assert 0 < side["seconds"] < 60 and len(side["all_seconds"]) == races["kernel"]["runs"] == 2
        assert 50e6 < side["memory"]["peak"] < 5e9 and 0 <= side["memory"]["above"] < side["memory"]["peak"]
    assert plain["agreement"]["pearson"] > 0.999 and plain["agreement"]["relative"] < 1e-4
    about = races["kernel"]["about"]
    assert about["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in about["versions"]["torch"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about["date"]) and about["processor"] and len(races["kernel"]["load"]) == 2
    for library in ("pyDVL", "dattri"):
        absent = importlib.util.find_spec(MODULES[library]) is None
        assert (library in races["softmax"]["skipped"]) == absent == (library not in races["softmax"]["sides"])
        if absent:
            assert "make bench-peers" in races["softmax"]["skipped"][library]
    capsys.readouterr()
    before = rehearsal.read_text()
    assert main(["kernel", "--quick", "--record", str(rehearsal)]) == 0
    assert "in peers.json already" in capsys.readouterr().out and rehearsal.read_text() == before


def test_sides_take_turns_and_a_failure_ends_its_own_side_only():
    calls = []

    def build(name):
        return lambda problem: lambda: calls.append(name)

    walls, processor = harness.interleaved({name: build(name)({}) for name in "AB"}, 3)
    assert calls == list("ABABAB") and len(walls["A"]) == len(processor["B"]) == 3

    def fails(problem):
        raise ArithmeticError("no such number")

    found = harness._seconds(made_up(second=fails), FakeFolder(), True, [OWN, "PyTorch"])["sides"]
    assert found["PyTorch"] == {"failed": "ArithmeticError: no such number"} and found[OWN]["seconds"] > 0


class FakeFolder:
    """A folder that keeps its problem in memory."""

    def __truediv__(self, name):
        return self

    def exists(self):
        return True

    def __fspath__(self):
        raise AssertionError("not read")


@pytest.fixture(autouse=True)
def problem_in_memory(monkeypatch):
    read = harness._problem
    monkeypatch.setattr(
        harness,
        "_problem",
        lambda race, folder, quick: {} if isinstance(folder, FakeFolder) else read(race, folder, quick),
    )


def test_numbers_are_compared():
    table = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert harness.agreement(table, table) == {"pearson": pytest.approx(1), "relative": 0.0}
    assert harness.agreement(-2 * table, table) == {"pearson": pytest.approx(-1), "relative": pytest.approx(3.0)}
    assert harness.agreement(None, table) is None
    with pytest.raises(ValueError, match="cannot be compared"):
        harness.agreement(table, table[0])
    found = harness._seconds(made_up(reference=lambda problem: torch.ones(2, 3)), FakeFolder(), True, [OWN, "PyTorch"])
    assert found["sides"][OWN]["reference"]["relative"] == 0 and found["sides"]["PyTorch"]["reference"]["relative"] == 1


@pytest.mark.parametrize("megabytes", [64, 256])
def test_memory_is_what_a_call_takes(megabytes):
    held = torch.ones(2**22)  # 16 MB that were there before
    found = harness.measured_memory(lambda: torch.ones(megabytes * 2**18))
    assert megabytes * 2**20 * 0.95 < found["above"] < (megabytes + 40) * 2**20
    assert found["peak"] > found["above"] + held.nbytes


def test_what_is_kept_is_run_again_when_its_sizes_runs_or_sides_change(tmp_path):
    race = made_up()
    kept = {"sizes": {"n": 5}, "runs": 3, "sides": {OWN: {"seconds": 1.0}, "PyTorch": {"seconds": 1.0}}}
    assert record.is_same(kept, race, quick=False)
    assert not record.is_same(kept, race, quick=True)
    assert not record.is_same(kept | {"sizes": {"n": 6}}, race, quick=False)
    assert not record.is_same(kept | {"runs": 2}, race, quick=False)
    failed = {OWN: {"seconds": 1.0}, "PyTorch": {"failed": "no"}}
    assert not record.is_same(kept | {"sides": failed}, race, quick=False)
    assert not record.is_same(kept | {"sides": {OWN: {"seconds": 1.0}}}, race, quick=False)


def test_the_page_says_who_wins(monkeypatch):
    race = made_up(facts="All is made up.")
    monkeypatch.setattr(page, "RACES", {"made-up": race})
    about = {"date": "2026-11-30", "processor": "a processor", "cores": 2, "versions": {"torch": "2.13"}}
    sides = {OWN: of_a_side(2.0, 3e6), "PyTorch": of_a_side(1.0, 1e6)}
    kept = {"made-up": {"sides": sides, "about": about, "load": [0.1, 3.0], "sizes": {"n": 5}, "runs": 3}}
    kept["made-up"] |= {"skipped": {}, "told": "7 parameters"}
    text = "a <!--peers overview--><!--/--> b <!--peers losses--><!--/--> c <!--peers machine--><!--/--> d "
    made = page.document(text + "<!--peers race made-up--><!--/-->", kept)
    assert "| PyTorch | 0.50 | 2 | 3.00 | at most 1 | no |" in made
    assert "explainlib takes 2.00 times its seconds and takes 3.00 times its memory." in made
    assert "shared with other work: between 0.1 and 3.0" in made and "7 parameters; n 5; medians of 3 runs" in made
    assert "| PyTorch | 1 | 1 | 1 | 2 | 0.5000 | 2.5e-01 |" in made and "All is made up." in made
    sides[OWN] = of_a_side(0.25, 1e6)
    made = page.document(text, kept)
    assert "| PyTorch | 4.00 | 2 | 1.00 | at most 1 | yes |" in made and "- None of these." in made
    assert page.document(made, kept) == made
    assert page.document(text, {}).count(page.MISSING) == 2


def test_the_page_has_every_race_and_is_that_of_the_record(repository):
    text = page.PAGE.read_text()
    for name, race in RACES.items():
        assert f"<!--peers race {name}-->" in text and f"## {race.title}\n" in text
    assert page.document(text, record.read(record.RECORD)["races"]) == text


def test_races_name_their_sides_and_bars(repository):
    for name, race in RACES.items():
        assert name == race.name and race.sides[0].library == OWN and set(race.full) == set(race.quick)
        names = [side.name for side in race.sides]
        assert len(set(names)) == len(names) and set(race.against) <= set(names)
        assert all(race.side(opponent).library == OWN for opponent in race.against.values())
        assert all(side.bar is None for side in race.sides if side.library == OWN)
        if name != "lds":
            assert all(side.bar is not None for side in race.sides if side.library != OWN)
    assert {side.library for race in RACES.values() for side in race.sides} == PEERS | {OWN, "PyTorch"}
    pins = (repository / "benchmarks" / "peers" / "requirements.txt").read_text().splitlines()
    lines = [line for line in pins if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert {line.split("==")[0] for line in lines} >= PEERS
    for line in (repository / "constraints.txt").read_text().splitlines():
        assert line.split("==")[0] not in {pin.split("==")[0] for pin in lines}


def test_an_unknown_race_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["no-such-race"])
    assert "choose from softmax, ekfac" in capsys.readouterr().err

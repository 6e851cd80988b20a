"""docs/teach: sections are the notebooks' own, minutes add up, numbers are found in a notebook or study, links lead on."""

from __future__ import annotations

import ast
import inspect
import re
from operator import attrgetter
from pathlib import Path

import nbformat
import pytest

import explainlib.panels.adaptation

ROOT = Path(__file__).parents[1]
TEACH = ROOT / "docs" / "teach"
PAGES = sorted(TEACH.glob("[0-9][0-9].md"))
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PARTS = ("What a student can say afterwards", "Before", "Minutes", "Predict: what students write, and why",
         "The panel", "Discussion", "Marking")  # fmt: skip
SESSION = 90  # minutes
AT_HOME = ("00", "10")  # notebooks that are no session in the route of eight
TABLE = re.compile(
    r"^\| (?P<section>[^|]+) \| (?P<eight>[-\d]+) \| (?P<three>[-\d]+) \| (?P<one>[-\d]+) \| [^|]+ \|$", re.M
)
TOGETHER = re.compile(r"^\| \*\*together\*\* \| ([-\d]+) \| ([-\d]+) \| ([-\d]+) \| \|$", re.M)
ROUTE = re.compile(
    r"^\| (?P<session>\d+|home) \| \[(?P<page>\d\d)\]\(\d\d\.md\) \| (?P<plan>[^|]+) \| (?P<sum>\d+) \|$", re.M
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*)?\.?\d+(?![\d.]*\w)")
ids = {"ids": lambda path: path.name}


def source(path: Path) -> list[str]:
    """The texts of a notebook's cells."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def shown(path: Path) -> list[str]:
    """All that a reader of the notebook sees: texts, code, and outputs in words."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs]
    return [cell.source for cell in cells] + texts


def headings(path: Path) -> list[str]:
    lines = [line for text in source(path) for line in text.splitlines()]
    return [re.sub(r"^#+\s+", "", line) for line in lines if re.match(r"#+\s+\S", line)]


def minutes(cell: str) -> int:
    return 0 if cell == "-" else int(cell)


def plan(page: Path) -> list[tuple[str, int, int, int]]:
    """Sections of a page with their minutes in the routes of eight, three and one."""
    found = TABLE.finditer(page.read_text())
    return [(row["section"], *(minutes(row[route]) for route in ("eight", "three", "one"))) for row in found]


def part(text: str, name: str) -> str:
    """One part of a page: from its heading to the next."""
    return re.split(r"^## ", text, flags=re.M)[[*re.findall(r"^## (.*)$", text, re.M)].index(name) + 1]


def numbers(text: str) -> set[str]:
    """The numbers of a text without signs, commas, and zeros that say nothing: .50, 0.5 and 1,500 as 0.5 and 1500."""
    return {f"{float(number.replace(',', '').lstrip('+-')):g}" for number in NUMBER.findall(text)}


def test_every_notebook_has_a_page():
    assert [page.stem for page in PAGES] == sorted(NOTEBOOKS)


@pytest.mark.parametrize("page", PAGES, **ids)
def test_sections_are_the_headings_of_the_notebook(page):
    sections = [row[0] for row in plan(page)]
    assert sections == headings(NOTEBOOKS[page.stem]), "write the notebook's own headings, all of them, in their order"


@pytest.mark.parametrize("page", PAGES, **ids)
def test_a_page_has_its_parts(page):
    text = page.read_text()
    assert tuple(re.findall(r"^## (.*)$", text, re.M)) == PARTS
    assert f"../../notebooks/{NOTEBOOKS[page.stem].name}" in text and "../exercises.md" in text
    assert 3 <= len(re.findall(r"^\d\. \*", part(text, "Discussion"), re.M)) <= 6
    assert part(text, "Discussion").count("good answer") == len(re.findall(r"^\d\. \*", part(text, "Discussion"), re.M))
    assert "| they write | why they think so | what they see |" in part(text, "Predict: what students write, and why")
    panel = part(text, "The panel")
    if "There is none" in panel:  # then it says what takes its place
        assert "panels." not in "".join(shown(NOTEBOOKS[page.stem])), "the notebook has a panel"
        return
    (name,) = re.findall(r"^`panels\.([\w.]+)`", panel, re.M)
    known = inspect.signature(attrgetter(name)(explainlib.panels).set).parameters
    calls = [ast.parse(call).body[0].value for call in re.findall(r"`(panel\.set\([^`]*\))`", panel)]
    assert len(calls) >= 2 and all(keyword.arg in known for call in calls for keyword in call.keywords)


@pytest.mark.parametrize("page", PAGES, **ids)
def test_minutes_add_up(page):
    (together,) = TOGETHER.findall(page.read_text())
    sums = [sum(row[route] for row in plan(page)) for route in (1, 2, 3)]
    assert [minutes(cell) for cell in together] == sums
    assert sums[0] == SESSION or page.stem in AT_HOME, "in the route of eight a notebook is a session"


def test_the_routes_are_those_of_the_pages():
    pages = {page.stem: plan(page) for page in PAGES}
    for name, route in (("one session", 3), ("three sessions", 2), ("eight sessions", 1)):
        text = part((TEACH / "README.md").read_text(), f"Route of {name} (90 minutes{' each' if route < 3 else ''})")
        rows = [found.groupdict() for found in ROUTE.finditer(text)]
        totals: dict[str, int] = {}
        for row in rows:
            (title, *rest), said = pages[row["page"]], row["plan"]
            steps = [("(opening)", *title[1:]), *rest]
            wanted = "; ".join(f"{step[0]} {step[route]}" for step in steps if step[route])
            assert said == wanted, f"route of {name}, {row['page']}: write {wanted}"
            assert int(row["sum"]) == sum(step[route] for step in steps)
            totals[row["session"]] = totals.get(row["session"], 0) + int(row["sum"])
        used = [page for page, steps in pages.items() if sum(step[route] for step in steps)]
        assert [row["page"] for row in rows] == used
        assert {total for session, total in totals.items() if session != "home"} == {SESSION}
        assert len(set(totals) - {"home"}) == {3: 1, 2: 3, 1: 8}[route]


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_number_is_in_the_notebook_or_a_document(page):
    """Minutes are a plan and numbered lists count themselves; everything else was measured somewhere."""
    text = page.read_text()
    text = text.replace(part(text, "Minutes"), "")
    text = re.sub(r"^\d\. ", "", re.sub(r"\[[^\]]*\]\([^)]*\)|\b0\d\b|^# .*$", "", text, flags=re.M), flags=re.M)
    known = "\n".join(shown(NOTEBOOKS[page.stem]))
    studies = {name for name in LINK.findall(page.read_text()) if re.fullmatch(r"\.\./\w+_study\.md", name)}
    known += "\n".join((TEACH / name).read_text() for name in sorted(studies))
    unknown = numbers(text) - numbers(known)
    assert not unknown, f"{sorted(unknown)} are in no output, text or study: where were they measured?"


def test_a_number_that_was_never_measured_is_seen():
    assert numbers("slope 1.039, .50 of 1,500 and -0.140; 97%") == {"1.039", "0.5", "1500", "0.14", "97"}
    assert numbers("theta1, 2nd, x3") == set(), "names are no numbers"


@pytest.mark.parametrize("page", [*sorted(TEACH.glob("*.md")), ROOT / "README.md"], **ids)
def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} leads to {target}"
        if anchor:
            found = [re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
                     for line in re.findall(r"^#+\s+(.*)$", path.read_text(), re.M)]  # fmt: skip
            assert anchor in found, f"{page.name}: {path.name} has no heading #{anchor}"


def test_what_the_pages_tell_to_type_exists(repository):
    makefile = (repository / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for page in TEACH.glob("*.md"):
        text = page.read_text()
        claimed = set(re.findall(r"(?:`|^\s*)make ([a-z-]+)\b", text, re.M))
        assert claimed <= targets, f"{page.name}: {claimed - targets}"
        for command in re.findall(r"python -m explainlib ([a-z]+)", text):
            assert f'add_parser("{command}"' in (repository / "explainlib" / "__main__.py").read_text()


def test_the_pages_are_named_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert "docs/teach/README.md" in text and "docs/teach/signs.md" in text
    start = (TEACH / "README.md").read_text()
    assert all(f"]({path.name})" in start for path in TEACH.iterdir() if path.name != "README.md")


def test_run_times_are_those_that_the_notebooks_state():
    rows = re.findall(
        r"^\| \[(\d\d)\]\(\d\d\.md\) \| `(\w+)` \| [^|]+ \| ([^|]+) \|$", (TEACH / "README.md").read_text(), re.M
    )
    assert [row[0] for row in rows] == sorted(NOTEBOOKS)
    for number, name, said in rows:
        assert NOTEBOOKS[number].stem == name and said in source(NOTEBOOKS[number])[0]

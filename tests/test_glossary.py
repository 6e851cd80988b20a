"""docs/glossary.md names every public name and option value of the library, and nothing that does not exist."""

import ast
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest

import explainlib

HOUSE = Path(explainlib.__file__).parent
GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
ROOMS = [
    "checks", "compute", "curvature", "datasets", "figures", "gate", "influence", "kernels", "layerwise", "meta",
    "metrics", "models", "panels", "representers", "retraining", "solvers", "studies", "training",
]  # fmt: skip
INTERNAL = {
    "panels",
    "serving",
    "studies",
    "figures",
    "layerwise",
    "course",
    "checks",
}  # their choices are not options of a call
PAPERS = ("Basu", "Epifano", "Tsai", "TLXML", "Ren")
UNCHECKED = {  # values that no require_choice lists
    ("keep", "positive"), ("output", "cross"), ("output", "each"), ("parameters", "all"), ("parameters", "last"), ("remove", "harmful"),
    ("remove", "helpful"),
}  # fmt: skip


def sections(text: str) -> dict[str, list[list[str]]]:
    """Return the table rows below each heading, a list of cells each."""
    found, title = {}, None
    for line in text.splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ").strip("`")
            found[title] = []
        elif line.startswith("| ") and not line.startswith("|---"):
            found[title].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return {title: rows[1:] for title, rows in found.items() if rows}


SECTIONS = sections(GLOSSARY.read_text())
NAMES = {
    title: [row[0].strip("`") for row in rows]
    for title, rows in SECTIONS.items()
    if title == "xl" or title.startswith("xl.")
}


def room(title: str) -> object:
    return importlib.import_module("explainlib" + title.removeprefix("xl"))


def public_names(module: object) -> list[str]:
    """Return a room's ``__all__``, or what a room of one file defines."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    ]
    return list(getattr(module, "__all__", own))


def listed(value: object, name: str) -> str | None:
    """Return the section in which a name means this object, else None."""
    for title, names in NAMES.items():
        if name in names and getattr(room(title), name, None) is value:
            return title
    return None


def own_members(cls: type) -> set[str]:
    """Return the public methods, properties and fields that a class itself defines."""
    found = {name for name in vars(cls).get("__annotations__", {}) if not name.startswith("_")}
    for name, value in vars(cls).items():
        value = getattr(value, "__func__", getattr(value, "fget", value))
        if not name.startswith("_") and inspect.isfunction(value):
            found.add(name)
    return found


@functools.cache
def assigned(cls: type) -> set[str]:
    """Return the attributes that the methods of a class and of its bases assign on self."""
    found = set()
    for base in cls.__mro__:
        if base.__module__.startswith("explainlib"):
            for node in ast.walk(ast.parse(inspect.cleandoc("\n" + inspect.getsource(base)))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    found.add(node.attr)
            found |= set(vars(base).get("__annotations__", {}))
    return found


def choices() -> set[tuple[str, str]]:
    """Return (option, value) of every ``require_choice`` on text, outside panels, studies and figures."""
    found = set()
    for path in HOUSE.rglob("*.py"):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        if parts[1] in INTERNAL:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and ast.unparse(node.func) == "require_choice"
            if called and isinstance(node.args[0], ast.Constant):
                module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
                values = eval(ast.unparse(node.args[2]), dict(vars(module)))
                found |= {(node.args[0].value, value) for value in values if isinstance(value, str)}
    return found


def listed_choices() -> set[tuple[str, str]]:
    rows = SECTIONS["Values of options"]
    return {(row[0].strip("`"), value) for row in rows for value in re.findall(r'"([^"]+)"', row[1])}


def test_every_public_name_is_in_the_glossary():
    modules = [explainlib, *(importlib.import_module(f"explainlib.{name}") for name in ROOMS)]
    pairs = [(module.__name__, name, getattr(module, name)) for module in modules for name in public_names(module)]
    missing = [f"{place}.{name}" for place, name, value in pairs if listed(value, name) is None]
    assert not missing, missing


def test_the_rooms_are_all_that_the_package_shows():
    shown = {name for name in explainlib.__all__ if inspect.ismodule(getattr(explainlib, name))}
    assert shown == set(ROOMS)


def test_every_member_of_a_public_class_is_in_the_glossary():
    missing = []
    for title, names in NAMES.items():
        for name in names:
            value = None if "." in name else getattr(room(title), name)
            if inspect.isclass(value) and value.__module__.startswith("explainlib"):
                missing += [f"{name}.{each}" for each in own_members(value) if f"{name}.{each}" not in names]
    assert not missing, missing


def test_every_entry_exists():
    unknown = []
    for title, names in NAMES.items():
        for name in names:
            first, *rest = name.split(".")
            value = getattr(room(title), first, None)
            fine = value is not None and len(rest) <= 1
            if fine and rest:
                fine = hasattr(value, rest[0]) or (inspect.isclass(value) and rest[0] in assigned(value))
            if not fine:
                unknown.append(f"{title}: {name}")
    assert not unknown, unknown


def test_every_value_of_an_option_is_in_the_glossary_and_no_other():
    assert choices() - listed_choices() == set()
    assert listed_choices() - choices() == UNCHECKED


def test_the_values_without_a_check_of_their_own_are_in_the_source():
    text = "\n".join(path.read_text() for path in HOUSE.rglob("*.py"))
    assert all(f'"{value}"' in text for _, value in UNCHECKED)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_entry_is_one_whole_line(title):
    keys = [tuple(row[:2]) if title == "Values of options" else row[0] for row in SECTIONS[title]]
    assert len(set(keys)) == len(keys), f"{title} has an entry twice"
    for row in SECTIONS[title]:
        assert len(row) == 4 and all(row), row
        assert row[3] == "-" or any(paper in row[3] for paper in (*PAPERS, "et al.")), row


def test_every_paper_has_its_place():
    text = GLOSSARY.read_text()
    for paper in PAPERS:
        assert len(re.findall(rf"\b{paper}\b[^|;]*\d", text)) >= 10, paper


def test_the_readme_links_the_glossary():
    assert "docs/glossary.md" in (GLOSSARY.parents[1] / "README.md").read_text()

"""What a reader may rely on: docstrings with their sections, sources, annotations, short files, no loose ends."""

import ast
import re
from pathlib import Path

import pytest

import explainlib

HOUSE = Path(explainlib.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
MATHEMATICS = (
    "risk",
    "curvature",
    "solvers",
    "influence",
    "retraining",
    "training",
    "losses",
    "layerwise",
    "representers",
    "meta",
)
SOURCED = {
    "curvature/hessian.py": ["hessian"], "curvature/gauss_newton.py": ["gauss_newton"],
    "curvature/empirical_fisher.py": ["empirical_fisher"], "solvers/series/lissa.py": ["lissa"],
    "solvers/low_rank.py": ["LowRank"], "influence/single.py": ["parameter_influence", "loss_influence"],
    "influence/groups/effect.py": ["removal_effect"], "influence/groups/trust.py": ["series_trust"],
    "influence/groups/quadratic.py": ["second_order_influence", "GroupQuadratic"],
    "influence/groups/selection.py": ["influential_group", "printed_weights"], "training/fit.py": ["fit"],
}  # fmt: skip
ids = {"ids": lambda p: str(p.relative_to(HOUSE)) if isinstance(p, Path) else str(p)}


def public(path: Path):
    """Yield (name, node) of the public functions, classes and methods of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def functions(path: Path):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def arguments(node: ast.FunctionDef) -> list[ast.arg]:
    a = node.args
    return [
        x for x in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg] if x and x.arg not in ("self", "cls")
    ]


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, **ids)
def test_every_module_and_public_name_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} opens without a docstring"
    for name, node in public(path):
        text = ast.get_docstring(node)
        assert text, f"{path.name}: {name} has no docstring"
        first = text.splitlines()[0]
        assert first[-1] in ".:" and len(first) <= 118, f"{path.name}: {name} starts with {first!r}"


@pytest.mark.parametrize("path", FILES, **ids)
def test_public_signatures_are_annotated(path):
    for name, node in public(path):
        if isinstance(node, ast.FunctionDef):
            bare = [a.arg for a in arguments(node) if a.annotation is None]
            assert not bare and node.returns is not None, f"{path.name}: {name} leaves {bare or 'its return'} open"


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) in MATHEMATICS], **ids)
def test_mathematics_describes_its_arguments(path):
    """Three arguments or more: an Args section that names every one of them, in backquotes or not."""
    for name, node in public(path):
        if not isinstance(node, ast.FunctionDef) or len(arguments(node)) < 3:
            continue
        text = ast.get_docstring(node)
        if "." in name and "Args:" not in text:  # a method of few words; its class carries the section
            assert len(text) < 400, f"{name} is long enough to deserve Args"
            continue
        assert "Args:" in text, f"{path.name}: {name} has {len(arguments(node))} arguments and no Args section"
        assert "Return" in text, f"{path.name}: {name} does not say what it returns"
        for argument in arguments(node):
            assert re.search(rf"\b{argument.arg}\b", text), f"{path.name}: {name} does not describe {argument.arg}"


@pytest.mark.parametrize(("file", "names"), SOURCED.items())
def test_formulas_name_their_paper(file, names):
    texts = dict(public(HOUSE / file))
    for name in names:
        text = ast.get_docstring(texts[name])
        assert re.search(r"Source: [A-Z].*\d{4}", text), f"{name} has no Source"


def test_the_equations_of_the_papers_are_numbered():
    for file in ("influence/single.py", "influence/groups/effect.py"):
        assert re.search(r"eqs? ?\.?s? \(\d+\)|eq\. \(\d+\)", (HOUSE / file).read_text())
    assert re.search(r"# eq\. \(15\)", (HOUSE / "influence/groups/effect.py").read_text())


@pytest.mark.parametrize("path", FILES, **ids)
def test_raises_sections_name_errors_that_exist(path):
    for name, node in public(path):
        text = ast.get_docstring(node) or ""
        section = re.search(r"^Raises:\n((?:    .*\n?)+)", text, re.M)
        for line in section.group(1).splitlines() if section else ():
            kind = re.match(r"    ([A-Z][A-Za-z, ]+):", line)
            if kind:
                for error in kind.group(1).split(","):
                    assert re.search(r"(Error|Yet|Warning|Interrupt)$", error.strip()), (
                        f"{path.name}: {name} raises {error}?"
                    )


@pytest.mark.parametrize("path", FILES, **ids)
def test_files_and_functions_stay_short(path):
    assert len(path.read_text().splitlines()) < 320
    for node in functions(path):
        body = node.end_lineno - node.lineno
        doc = node.body[0]
        if ast.get_docstring(node):
            body -= doc.end_lineno - doc.lineno + 1
        assert body < 56, f"{path.name}: {node.name} is {body} lines without its docstring"


@pytest.mark.parametrize("path", FILES, **ids)
def test_no_loose_ends(path):
    text = path.read_text()
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "NotImplemented" + "Error"):
        assert word not in text, f"{path.name} holds {word}"
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno} catches everything"
            assert not all(isinstance(s, ast.Pass) for s in node.body), f"{path.name}:{node.lineno} swallows an error"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "eval", "exec"), f"{path.name}:{node.lineno} {called}"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)


@pytest.mark.parametrize("path", FILES, **ids)
def test_the_project_speaks_of_itself_alone(path):
    text = path.read_text()
    assert not re.search(r"[\"' ]/(home|root|tmp|mnt|w[a-z]+)\b|\bissue #?\d", text), (
        "somebody's own path, or a ticket's number"
    )


def test_public_names_exist():
    for name in explainlib.__all__:
        if name not in ("panels", "studies"):  # opened elsewhere: widgets and long computations
            assert getattr(explainlib, name) is not None
    for room in ("curvature", "solvers", "training", "influence", "models", "datasets"):
        module = getattr(explainlib, room)
        assert all(hasattr(module, name) for name in module.__all__), room
        assert list(module.__all__) == sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)), (
            room
        )

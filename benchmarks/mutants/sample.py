"""Which places of a source file can be changed, and how; a seeded sample of them.

Five kinds: ``sign`` (+ and - exchanged, a minus dropped), ``comparison`` (another bound, or the opposite), ``constant``
(n + 1, n - 1, True and False exchanged), ``operator`` (* / // % ** @ & |, and, or, not, ~) and ``return`` (-value of a
number or tensor, not value of a bool, None otherwise). Left out: docstrings and other text, messages (what is raised,
warned or printed), annotations and type unions, decorators, ``__all__``.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("sign", "comparison", "constant", "operator", "return")
SIGNS = {ast.Add: ast.Sub, ast.Sub: ast.Add}
OPERATORS = {
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
SPOKEN = {"warn", "warn_caller", "print", "debug", "info", "warning", "error"}
NUMBERS = ("float", "int", "Tensor", "Float[", "Int[")


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes [start, end) of a file become ``after``."""

    path: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line} {self.kind}: {self.before} -> {self.after}"

    def applied(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def sample(root: Path, paths: Sequence[Path], *, seed: int, number: int) -> list[Mutant]:
    """Return ``number`` different mutants: each kind as often as another, within it every place equally likely."""
    places: dict[str, list[list[Mutant]]] = {kind: [] for kind in KINDS}
    for path in paths:
        for place in candidates(path.read_bytes(), str(path.relative_to(root))):
            places[place[0].kind].append(place)
    generator = random.Random(seed)
    drawn = {kind: generator.sample(places[kind], -(-number // len(KINDS))) for kind in KINDS}
    turns = [generator.choice(drawn[kind][i]) for i in range(-(-number // len(KINDS))) for kind in KINDS]
    return turns[:number]


def candidates(source: bytes, path: str) -> Iterator[list[Mutant]]:
    """Yield the mutants of each place of a file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, function in _eligible(ast.parse(source), None):
        for kind, others in _changes(node, function):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            before = " ".join(source[start:end].decode().split())
            texts = [ast.unparse(ast.fix_missing_locations(other)) for other in others]
            if isinstance(node, ast.expr):
                texts = [f"({text})" for text in texts]
            yield [Mutant(path, node.lineno, kind, start, end, before, text) for text in texts]


def _eligible(node: ast.AST, function: ast.FunctionDef | None) -> Iterator[tuple[ast.AST, ast.FunctionDef | None]]:
    """Yield the nodes that decide what is computed, each with the function around it."""
    if _is_text(node):
        return
    if isinstance(node, ast.FunctionDef):
        function = node
    yield node, function
    skipped = {"annotation", "returns", "decorator_list"}
    for field, value in ast.iter_fields(node):
        if field not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _eligible(child, function)


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", "")) in SPOKEN
    if isinstance(node, ast.Assign):
        return any(getattr(target, "id", "") == "__all__" for target in node.targets)
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and _is_type(node.left)


def _is_type(node: ast.AST) -> bool:
    name = getattr(node, "id", getattr(node, "attr", ""))
    if isinstance(node, ast.BinOp):
        return _is_type(node.left)
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    builtin = name in {"int", "float", "str", "bool", "dict", "list", "tuple"}
    return builtin or (name[:1].isupper() and not name.isupper())


def _changes(node: ast.AST, function: ast.FunctionDef | None) -> Iterator[tuple[str, list[ast.AST]]]:
    """Yield (kind, what the node may become) for each place of a node itself."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        if not any(
            isinstance(part, ast.List | ast.Tuple | ast.ListComp) or _holds_text(part)
            for part in ast.iter_child_nodes(node)
        ):
            for kind, table in (("sign", SIGNS), ("operator", OPERATORS)):
                if type(node.op) in table:
                    yield kind, [_with(node, op=table[type(node.op)]())]
    elif isinstance(node, ast.UnaryOp):
        kind = "sign" if isinstance(node.op, ast.USub) else "operator"
        yield kind, [node.operand]
    elif isinstance(node, ast.BoolOp):
        yield "operator", [_with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())]
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield (
                "comparison",
                [_with(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]]) for other in COMPARISONS[type(op)]],
            )
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", [ast.Constant(not node.value)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "constant", [ast.Constant(node.value + 1), ast.Constant(node.value - 1)]
    elif isinstance(node, ast.Return) and node.value is not None and function is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "return", [ast.Return(_other_value(node.value, function))]


def _other_value(value: ast.expr, function: ast.FunctionDef) -> ast.expr:
    annotation = "" if function.returns is None else ast.unparse(function.returns)
    if annotation == "bool":
        return ast.UnaryOp(ast.Not(), value)
    if annotation.startswith(NUMBERS):
        return ast.UnaryOp(ast.USub(), value)
    return ast.Constant(None)


def _holds_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other

"""The digest of a callable: of its code, its contents, and what it refers to.

Two functions of one name differ if their code, constants, defaults, closures or the globals they use differ; the same
function defined again in another process has the same digest. Installed code is identified by name, version and source
file.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from explainlib.storage import kinds, references
from explainlib.storage.libraries import from_library, is_library, library_name, reachable, release, unwrap
from explainlib.storage.tensors import array_bytes, tensor_bytes


class UnidentifiedError(TypeError):
    """A callable that uses something without a digest, so that no store can identify it."""


class Identity:
    """Digests of values by what they compute; one object per fingerprint, with a cache.

    Attributes:
        libraries: the installed packages used, with their versions.
    """

    def __init__(self) -> None:
        self.libraries: dict[str, str] = {}
        self._done: dict[int, bytes] = {}
        self._in_progress: dict[int, int] = {}  # objects in progress, with their depth, to detect cycles
        self._references: list[object] = []  # keeps objects alive, so that ids in ``_done`` are not reused
        self._spaces: dict[tuple[int, frozenset[str]], _Namespace] = {}
        self._trail: list[str] = []
        self._tree: set[int] = set()  # modules whose registered tensors have entries of their own

    def of(self, name: str, value: object) -> str:
        """Return the sha256 of a value.

        Args:
            name: the argument's name, for the message.
            value: a function, class, object with plain contents, tensor, module, number, text, or these in containers.

        Raises:
            UnidentifiedError: something in it has no digest (a random generator, a lock, a file).
        """
        try:
            with self._inside(name):
                return self._digest(value).hex()
        except RecursionError:
            raise UnidentifiedError(f"{name} is nested too deeply to be told from another; {REMEDY}.") from None

    def of_structure(self, name: str, module: nn.Module) -> str:
        """Return the sha256 of a module tree: classes, code, hooks, attributes; not the registered tensors' values.

        Args:
            name: the argument's name, for the message.
            module: the root.
        """
        self._tree = {id(part) for part in module.modules()}
        first: dict[int, str] = {}
        tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        tied = [(place, first.setdefault(id(tensor), place)) for place, tensor in tensors]
        try:
            return self.of(name, [module, tied])
        finally:
            self._tree = set()

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        self._trail.append(name)
        yield
        self._trail.pop()

    def _combine(self, kind: str, parts: Iterable[tuple[str, object]]) -> bytes:
        """Return the digest of a kind and of named parts in their order."""
        whole = hashlib.sha256(kind.encode())
        for name, value in parts:
            with self._inside(name):
                whole.update(f"\n{len(name)} {name} ".encode() + self._digest(value))
        return whole.digest()

    def _plain(self, kind: str, *texts: str | bytes | memoryview) -> bytes:
        whole = hashlib.sha256(kind.encode())
        for text in texts:
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            whole.update(f"\n{len(data)} ".encode() + data)
        return whole.digest()

    def _digest(self, value: object) -> bytes:
        value = unwrap(value)
        kind = type(value)
        if kind in kinds.ATOMS:
            return self._plain(kind.__name__, value.hex() if kind is float else repr(value))
        number = id(value)
        if number in self._in_progress:
            return self._plain("cycle", str(len(self._in_progress) - self._in_progress[number]))
        if number not in self._done:
            self._in_progress[number] = len(self._in_progress)
            self._references.append(value)
            try:
                self._done[number] = self._container(value)
            finally:
                del self._in_progress[number]
        return self._done[number]

    def _container(self, value: object) -> bytes:
        kind = type(value)
        if kind in (list, tuple, torch.Size):
            return self._combine(kind.__name__, ((str(k), part) for k, part in enumerate(value)))
        if kind is dict or kind is types.MappingProxyType:
            return self._combine(
                "dict", (pair for k, v in value.items() for pair in (("key", k), (references.format_key(k), v)))
            )
        if kind in (set, frozenset):
            return self._plain(kind.__name__, *sorted(self._digest(part) for part in value))
        if kind is slice:
            return self._combine("slice", zip("abc", (value.start, value.stop, value.step), strict=True))
        for those, describe in KINDS:
            if isinstance(value, those):
                return describe(self, value)
        return self._instance(value)

    def _by_name(self, value: object) -> bytes:
        return self._plain("named", type(value).__name__, re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)))

    def _tensor(self, value: Tensor) -> bytes:
        own = "" if type(value) in (Tensor, nn.Parameter, nn.Buffer) else self._digest(type(value)).hex()
        try:
            told = tensor_bytes(value)
        except (RuntimeError, TypeError):  # without values: on "meta", or from inside a transform
            raise self._refusal(value) from None
        return self._plain("tensor", own, *told)

    def _array(self, value: np.ndarray | np.generic) -> bytes:
        if value.dtype.hasobject:
            return self._combine("array", [("shape", value.shape), ("values", value.tolist())])
        return self._plain("array", *array_bytes(np.asarray(value)))

    def _enum(self, value: enum.Enum) -> bytes:
        return self._combine("enum", [("class", type(value).__qualname__), ("value", value.value)])

    def _partial(self, value: functools.partial) -> bytes:
        parts = {"function": value.func, "arguments": value.args, "keywords": value.keywords, "held": vars(value)}
        return self._combine("partial", parts.items())

    def _method(self, value: types.MethodType) -> bytes:
        return self._combine("method", [("function", value.__func__), ("object", value.__self__)])

    def _wrapper(self, value: staticmethod | classmethod | functools._lru_cache_wrapper) -> bytes:
        return self._combine(type(value).__name__, [("function", value.__wrapped__)])

    def _property(self, value: property) -> bytes:
        return self._combine("property", [("get", value.fget), ("set", value.fset), ("delete", value.fdel)])

    def _built_in(self, value: types.BuiltinFunctionType) -> bytes:
        owner = getattr(value, "__self__", None)
        installed = isinstance(owner, type) and from_library(owner)
        if owner is None or installed or isinstance(owner, types.ModuleType):
            place = getattr(value, "__objclass__", None) or owner
            return self._plain("built in", getattr(place, "__name__", ""), value.__name__)
        return self._combine("bound", [("name", value.__name__), ("object", owner)])

    def _descriptor(self, value: types.MemberDescriptorType) -> bytes:
        return self._plain("descriptor", value.__name__)

    def _code(self, code: types.CodeType) -> bytes:
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        parts = {"shape": shape, "names": names, "code": code.co_code, "exceptions": code.co_exceptiontable}
        return self._combine("code", [*parts.items(), ("constants", code.co_consts)])

    def _function(self, value: types.FunctionType) -> bytes:
        known = from_library(value)
        if known and reachable(value):
            return self._library(value.__module__, value.__qualname__)
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        parts = {"code": value.__code__, "defaults": value.__defaults__, "keywords": value.__kwdefaults__}
        parts |= {"attributes": vars(value), "closure": {name: references.cell_content(cell) for name, cell in cells}}
        if known:  # a lambda or an inner function of an installed module
            return self._combine(self._library(value.__module__, value.__qualname__).hex(), parts.items())
        self.libraries["python"] = release("sys")  # bytecode depends on the Python version
        return self._combine("function", [*parts.items(), *self._globals(value)])

    def _globals(self, function: types.FunctionType) -> Iterator[tuple[str, object]]:
        names, attributes, imported = references.referenced_names(function.__code__)
        own, built_in = function.__globals__, vars(sys.modules["builtins"])
        for name in sorted(names):
            value = own.get(name, built_in.get(name, references.Missing))
            yield name, self._space(value, attributes) if isinstance(value, types.ModuleType) else value
        for name in sorted(imported & sys.modules.keys()):
            yield f"import {name}", self._space(sys.modules[name], attributes)

    def _space(self, module: types.ModuleType, names: frozenset[str]) -> _Namespace:
        return self._spaces.setdefault((id(module), names), _Namespace(module, names))

    def _namespace(self, value: _Namespace) -> bytes:
        """Return the part of a module that a function uses: its name, and the attributes that are not installed."""
        known = is_library(value.module.__name__)
        name = value.module.__name__ if known else ""
        if known:
            self._package_version(name)
        return self._combine(f"module {name}", self._foreign(*value, set()))

    def _foreign(self, module: types.ModuleType, names: frozenset[str], looked: set[int]) -> list[tuple[str, object]]:
        """Return a module's attributes of these names; of an installed module, loaded or not, those added to it."""
        known, found = is_library(module.__name__), []
        if id(module) in looked:
            return found
        looked.add(id(module))
        for name in sorted(names & vars(module).keys()):
            inner = unwrap(vars(module)[name])
            if not isinstance(inner, types.ModuleType):
                if not known or (isinstance(inner, types.FunctionType) and not from_library(inner)):
                    found.append((name, inner))
            elif not (known and is_library(inner.__name__)):
                found.append((name, self._space(inner, names)))
            elif more := self._foreign(inner, names, looked):
                found.append((name, more))
        return found

    def _from_import(self, value: types.ModuleType) -> bytes:
        return self._namespace(self._space(value, frozenset()))

    def _class(self, value: type) -> bytes:
        if value.__module__ == "builtins":
            return self._plain("class", value.__name__)
        if not (from_library(value) and reachable(value)):
            own = [(k, v) for k, v in sorted(vars(value).items()) if k not in kinds.BOOKKEEPING]
            bases = {"name": value.__name__, "kind": type(value), "bases": value.__bases__}
            return self._combine("class", [*bases.items(), *own])
        changed = [(k, v) for k, v in sorted(vars(value).items()) if references.is_foreign(v)]
        return self._combine(
            self._library(value.__module__, value.__qualname__).hex(),
            [*changed, ("bases", tuple(base for base in value.__bases__ if base.__module__ != "builtins"))],
        )

    def _library(self, module: str, name: str) -> bytes:
        return self._plain("library", *library_name(module, name), self._package_version(module))

    def _package_version(self, module: str) -> str:
        """Return the version of a module's package, and record it."""
        top = module.partition(".")[0]
        return self.libraries.setdefault("python" if top in sys.stdlib_module_names else top, release(top))

    def _module(self, module: nn.Module) -> bytes:
        if isinstance(module, torch.jit.ScriptModule):
            raise self._refusal(module)
        told = id(module) in self._tree
        skipped = {*references.cached_properties(type(module)), *kinds.of_module(module)}
        own = references.without(skipped, vars(module))
        hooks = {name: list(vars(module).get(name, {}).values()) for name in kinds.HOOKS}
        tensors = [*module._parameters.items(), *module._buffers.items()]
        shown = {k: v if v is None or not told else (str(v.dtype), tuple(v.shape)) for k, v in tensors}
        parts = {"class": type(module), "training": module.training, "attributes": own, "hooks": hooks}
        return self._combine("module", {**parts, "tensors": shown, "parts": dict(module._modules)}.items())

    def _instance(self, value: object) -> bytes:
        if isinstance(value, kinds.GENERATORS):
            raise self._refusal(value, "draws from a random generator that it keeps")
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            made = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception:  # any error of an object without plain contents
            raise self._refusal(value) from None
        if isinstance(made, str):
            return self._combine("global", [("class", type(value)), ("name", made)])
        derived = references.cached_properties(type(value))
        state = references.without(derived, made[2] if len(made) > 2 else None)
        contents = [list(part) for part in made[3:5] if part is not None]
        parts = {"class": type(value), "made by": made[0], "arguments": made[1], "state": state, "contents": contents}
        held = references.without(derived, getattr(value, "__dict__", {}))
        return self._combine("object", {**parts, "held": held}.items())

    def _refusal(self, value: object, why: str = "cannot be told from another") -> UnidentifiedError:
        place, kind = " > ".join(self._trail), type(value).__name__
        return UnidentifiedError(f"{place} is a {kind}, which {why}, so no store can answer for it; {REMEDY}.")


class _Namespace(typing.NamedTuple):
    module: types.ModuleType
    names: frozenset[str]


REMEDY = "leave store out, or use plain values (numbers, tensors, functions) instead"
KINDS = (
    (kinds.NAMED, Identity._by_name),
    (Tensor, Identity._tensor),
    ((np.ndarray, np.generic), Identity._array),
    (nn.Module, Identity._module),
    (enum.Enum, Identity._enum),
    (kinds.OPERATORS, Identity._by_name),
    (type, Identity._class),
    (types.FunctionType, Identity._function),
    (types.CodeType, Identity._code),
    (functools.partial, Identity._partial),
    (types.MethodType, Identity._method),
    ((staticmethod, classmethod, functools._lru_cache_wrapper), Identity._wrapper),
    (property, Identity._property),
    (kinds.BUILT_IN, Identity._built_in),
    (kinds.DESCRIPTORS, Identity._descriptor),
    (_Namespace, Identity._namespace),
    (types.ModuleType, Identity._from_import),
)

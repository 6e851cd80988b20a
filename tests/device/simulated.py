"""A device that is not there: tensors that say ``cuda:0``, hold their numbers on the CPU, and refuse what CUDA refuses.

torch lends out-of-tree devices a dispatch key of their own (``PrivateUse1``) with device guards, so that autograd and
every transform of ``torch.func`` run on such tensors as on any other, nested forward modes too. A function mode calls
the device ``cuda:0`` wherever Python looks, and takes that name wherever Python gives it. What goes wrong only on a GPU
goes wrong here: a tensor made without ``device=``, a generator of the CPU, ``.numpy()``. Each time the host would wait
for the device is counted, with the line of the library that asked.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
import torch.utils.backend_registration
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import explainlib
from explainlib import kernels

SHOWN = torch.device("cuda:0")
HOUSE = Path(explainlib.__file__).parent
aten = torch.ops.aten
CPU_INDICES = {aten.index.Tensor: 1, aten.index_put.default: 1, aten.index_put_.default: 1, aten._index_put_impl_.default: 1}  # fmt: skip
TRANSFERS = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
SCALARS = {  # not elementwise, and yet they take a number of the CPU
    aten.fill.Tensor, aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.is_same_size.default,
    aten._has_same_storage_numel.default,
}  # fmt: skip
WAITS = {  # the host needs a value, or a size that depends on values
    "_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "equal", "allclose", "bincount", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq",
}  # fmt: skip


@dataclass(frozen=True)
class Wait:
    """One place where the host waits for the device: what it does there, and the loop that repeats it."""

    file: str
    function: str
    code: str
    kind: str
    loop: str


@dataclass
class Record:
    """What one run on the simulated device did."""

    waits: Counter[Wait] = field(default_factory=Counter)
    total: int = 0  # also those that no line of the library asked for

    def note(self, kind: str) -> None:
        """Count a wait at the innermost line of the library."""
        self.total += 1
        frame, found, loop = sys._getframe(1), None, ""
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(str(HOUSE)):
                if found is None:
                    found = path, frame.f_code.co_name, frame.f_lineno
                loop = loop or loop_around(path, frame.f_lineno)
            frame = frame.f_back
        if found is not None:
            path, function, line = found
            name = str(Path(path).relative_to(HOUSE.parent))
            self.waits[Wait(name, function, source(path)[line - 1].strip(), kind, loop)] += 1


@functools.cache
def source(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


@functools.cache
def loops(path: str) -> list[tuple[range, str]]:
    """Return the lines that each loop of a file repeats, with the loop's first line; the innermost loop is the last."""
    found = []
    for node in ast.walk(ast.parse("\n".join(source(path)))):
        if isinstance(node, ast.For | ast.While):
            start = node.lineno if isinstance(node, ast.While) else node.body[0].lineno
            found.append((range(start, node.body[-1].end_lineno + 1), source(path)[node.lineno - 1].strip()))
    return found


@functools.cache
def loop_around(path: str, line: int) -> str:
    """Return the first line of the innermost loop that repeats a line of a file, or nothing."""
    return next((text for lines, text in reversed(loops(path)) if line in lines), "")


class DeviceTensor(Tensor):
    """A tensor of the simulated device; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, *, requires_grad: bool = False):
        if held._is_zerotensor():  # it has no memory, and its dispatch key lies above Python's
            held = torch.zeros(held.shape, dtype=held.dtype)
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=hidden(), requires_grad=requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"DeviceTensor({self.held!r})"

    def __reduce_ex__(self, protocol: int):
        return (DeviceTensor, (self.held,))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


@functools.cache
def hidden() -> torch.device:
    """Return torch's own name of the device, which is registered here, once a process.

    It has to be before the process's first backward pass, which counts the devices: so the table has a process of its
    own (``tests/device/__main__.py``).
    """
    backends = torch.utils.backend_registration

    class Module(backends._DummyBackendModule):
        """Random numbers of the device come from the CPU's generator, whose state torch keeps anyway."""

        def get_rng_state(self, device: object = None) -> Tensor:
            return torch.get_rng_state()

        def set_rng_state(self, state: Tensor, device: object = None) -> None:
            torch.set_rng_state(state)

    backends._setup_privateuseone_for_python_backend("simulated", Module())
    return torch.device("simulated:0")


def is_shown(device: object) -> bool:
    return isinstance(device, str | torch.device) and str(device).split(":")[0] == "cuda"


def translated(value: object) -> object:
    """Return torch's own name of the simulated device for a device, anything else as it is."""
    return hidden() if isinstance(value, torch.device) and is_shown(value) else value


def run(func, args, kwargs):
    """Return what an operation makes of tensors of which some are on the simulated device."""
    target = kwargs.get("device")
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    refuse_mixes(func, args, tensors)
    refuse_generators(kwargs, target, tensors)
    count_waits(func, args, kwargs, target)
    elsewhere = target is not None and torch.device(target).type != hidden().type  # torch asks "meta" for shapes
    plain = {**kwargs, "device": torch.device("cpu")} if target is not None and not elsewhere else kwargs
    out = func(*tree_map(unwrapped, args), **tree_map(unwrapped, plain))
    if elsewhere:
        return out
    return with_aliases(func, args, kwargs, tree_map(wrapped, out))


def unwrapped(value: object) -> object:
    return value.held if isinstance(value, DeviceTensor) else value


def wrapped(value: object) -> object:
    return DeviceTensor(value) if isinstance(value, Tensor) and not isinstance(value, DeviceTensor) else value


def refuse_mixes(func, args, tensors: list[Tensor]) -> None:
    """Raise as CUDA does where tensors of both devices meet."""
    others = [each for each in tensors if not isinstance(each, DeviceTensor)]
    if not others or func in TRANSFERS:
        return
    if func in CPU_INDICES and isinstance(args[0], DeviceTensor):  # CUDA moves indices, and a value that is a number
        indices = {id(each) for each in args[CPU_INDICES[func]] if each is not None}
        others = [each for each in others if id(each) not in indices and each.ndim]
    elif torch.Tag.pointwise in func.tags or func.namespace == "prims" or func in SCALARS:
        others = [each for each in others if each.ndim]
    if others:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})"
        )


def refuse_generators(kwargs, target, tensors: list[Tensor]) -> None:
    """Raise as CUDA does for a generator of the CPU."""
    on_device = bool(tensors) if target is None else torch.device(target).type == hidden().type
    if on_device and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def count_waits(func, args, kwargs, target) -> None:
    """Count the operation if the host waits for it."""
    name = func._schema.name.split("::")[1]
    if name in WAITS:
        note({"_local_scalar_dense": "item"}.get(name, name.removeprefix("_")))
    elif name == "_to_copy" and isinstance(args[0], DeviceTensor) and str(target) == "cpu":
        note("to the host")
    elif name == "copy_" and isinstance(args[1], DeviceTensor) and not isinstance(args[0], DeviceTensor):
        note("to the host")
    elif func in CPU_INDICES and any(each is not None and each.dtype is torch.bool for each in args[1]):
        note("mask")
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        note("repeat_interleave")


def with_aliases(func, args, kwargs, out):
    """Return the arguments that an operation wrote into, where its schema says that it returns them."""
    returns = func._schema.returns
    if not any(each.alias_info is not None and each.alias_info.is_write for each in returns):
        return out
    names = [each.name for each in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}

    def written(spec, made):
        if spec.alias_info is None or not spec.alias_info.is_write:
            return made
        for each in func._schema.arguments:
            if each.alias_info is not None and each.alias_info.before_set & spec.alias_info.before_set:
                if torch.Tag.inplace_view in func.tags:  # what the tensor itself knows of its shape follows
                    with torch._C._DisableTorchDispatch():
                        func(*args, **kwargs)
                if isinstance(given[each.name], DeviceTensor):
                    assert given[each.name].shape == given[each.name].held.shape, f"{func} changed a shape"
                return given[each.name]
        raise AssertionError(f"{func} writes into nothing it was given")

    if len(returns) == 1:
        return written(returns[0], out)
    return tuple(written(spec, made) for spec, made in zip(returns, out, strict=True))


class Factories(TorchDispatchMode):
    """Operations that name the simulated device and have no tensor on it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, target = kwargs or {}, (kwargs or {}).get("device")
        if target is not None and torch.device(target).type == hidden().type:
            return run(func, args, kwargs)
        return func(*args, **kwargs)


class Names(TorchFunctionMode):
    """The device's name in Python is cuda:0, in questions and in answers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {key: hidden() if key == "device" and is_shown(value) else translated(value) for key, value in (kwargs or {}).items()}  # fmt: skip
        special = SPECIAL.get(func)
        if special is not None:
            return special(func, args, kwargs)
        if func is Tensor.to and len(args) > 1 and is_shown(args[1]):
            args = (args[0], hidden(), *args[2:])
        return func(*tuple(translated(each) for each in args), **kwargs)


def on_device(tensor: object) -> bool:
    return isinstance(tensor, Tensor) and torch._C.TensorBase.device.__get__(tensor).type == hidden().type


def _device(func, args, kwargs):
    found = func(*args, **kwargs)
    return SHOWN if found.type == hidden().type else found


def _numpy(func, args, kwargs):
    if on_device(args[0]):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
        )
    return func(*args, **kwargs)


def _tolist(func, args, kwargs):
    if on_device(args[0]):
        note("tolist")
        return args[0].detach().held.tolist()
    return func(*args, **kwargs)


def _made(func, args, kwargs):
    """``torch.tensor`` and its like convert before they dispatch: made on the CPU, then moved."""
    target = kwargs.pop("device", None)
    args = tree_map(_read, args) if not isinstance(args[0], Tensor) else args
    if isinstance(args[0], Tensor) and func is not torch.tensor:
        return args[0].to(**{key: value for key, value in {**kwargs, "device": target}.items() if value is not None})
    out = func(*args, **kwargs)
    return out if target is None else out.to(target)


def _new_tensor(func, args, kwargs):
    kwargs = {"dtype": args[0].dtype, "device": _device(Tensor.device.__get__, args[:1], {}), **kwargs}
    return _made(torch.tensor, args[1:], {**kwargs, "device": translated(torch.device(kwargs["device"]))})


def _indexed(func, args, kwargs):
    """torch makes index tensors of lists before it dispatches: made here."""
    at = tuple(map(_index, args[1])) if isinstance(args[1], tuple) else _index(args[1])
    return func(args[0], at, *args[2:], **kwargs)


def _index(value: object) -> object:
    return torch.tensor(value, dtype=None if value else torch.long) if isinstance(value, list | range) else value


def _format(func, args, kwargs):
    return format(args[0].item(), *args[1:]) if on_device(args[0]) and not args[0].ndim else func(*args, **kwargs)


def _read(value: object) -> object:
    return value.item() if isinstance(value, DeviceTensor) and not value.ndim else value


def _data_set(func, args, kwargs):
    func(*args, **kwargs)
    if isinstance(args[0], DeviceTensor):
        args[0].held = args[1].held


def _of_held(func, args, kwargs):
    return func(*tree_map(unwrapped, args), **kwargs)


SPECIAL = {
    Tensor.device.__get__: _device,
    Tensor.is_cuda.__get__: lambda func, args, kwargs: on_device(args[0]),
    Tensor.cuda: lambda func, args, kwargs: args[0].to(hidden()),
    Tensor.numpy: _numpy,
    Tensor.__array__: _numpy,
    Tensor.tolist: _tolist,
    Tensor.data.__set__: _data_set,
    Tensor.__getitem__: _indexed,
    Tensor.__setitem__: _indexed,
    Tensor.new_tensor: _new_tensor,
    Tensor.__format__: _format,
    Tensor.data_ptr: _of_held,
    Tensor.untyped_storage: _of_held,
    torch.tensor: _made,
    torch.as_tensor: _made,
    torch.asarray: _made,
}
_record: Record | None = None


def note(kind: str) -> None:
    if _record is not None:
        _record.note(kind)


@contextmanager
def simulated() -> Iterator[Record]:
    """Yield what is recorded while the device is there; ``torch.cuda`` says so, and kernels are left aside."""
    global _record
    hidden()
    before, _record = _record, Record()
    there = {
        "is_available": lambda: True, "device_count": lambda: 1, "mem_get_info": lambda device=None: (2**31, 2**31),
        "get_device_name": lambda device=None: "simulated GPU",
    }  # fmt: skip
    try:
        with mock.patch.multiple(torch.cuda, **there), kernels.use("torch"), Names(), Factories():
            yield _record
    finally:
        _record = before


def to_device(value: object) -> object:
    """Return tensors, modules, examples, tasks or a pytree of them on the simulated device."""
    return tree_map(lambda each: each.to("cuda:0") if hasattr(each, "to") else each, value)

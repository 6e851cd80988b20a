"""Kinds of values in code by how they are identified, and attributes that no computation depends on."""

from __future__ import annotations

import random
import types

import numpy as np
import torch
from torch import nn

ATOMS = (bool, int, float, complex, str, bytes, bytearray, type(None), type(Ellipsis), type(NotImplemented), range)
NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, types.GenericAlias, types.UnionType)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
BUILT_IN = (
    *(types.BuiltinFunctionType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
    *(types.WrapperDescriptorType, types.MethodWrapperType),
)
DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator, np.ufunc)
BOOKKEEPING = {
    *("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__qualname__", "__firstlineno__"),
    *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__"),
    *("_backward_cls", "_autograd_function_id"),  # counters of torch
    *("__dataclass_params__", "__dataclass_fields__", "__match_args__", "__annotate_func__", "__annotations_cache__"),
}
OF_MODULES = frozenset(vars(nn.Module())) | {"_compiled_call_impl", "_forward_hooks", "_forward_pre_hooks"}
OF_RECURRENT = {"_flat_weights", "_flat_weight_refs"}  # their parameters again
HOOKS = (
    *("_forward_pre_hooks", "_forward_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs"),
    *("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks"),
)


def of_module(module: nn.Module) -> frozenset[str]:
    """Return the attributes of a module that have entries of their own."""
    return OF_MODULES | OF_RECURRENT if isinstance(module, nn.RNNBase) else OF_MODULES

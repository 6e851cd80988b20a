"""Checks of one forward: randomness, state that it writes, dependence between examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from explainlib.gate.generators import module_generators, preserve_generators, restore_generator, state_of
from explainlib.gate.report import Finding
from explainlib.modules import Attribute, AttributeState
from explainlib.params import Parameters, require_outputs

LARGER_BATCH = 13  # factor of a larger batch
EXAMPLES = 5  # run batched and singly
DETERMINISTIC = {
    "dropout_p": 0.0,
    "dropout": 0.0,
    "p": 0.0,
    "train": False,
    "training": False,
}  # arguments without random numbers


@dataclass(frozen=True)
class Forward:
    """The observations on one forward.

    Attributes:
        outputs: outputs of an example; None if it could not be run.
        findings: errors and notes.
        writes_input: whether it writes into its input.
        sets: attributes of layers that it sets.
    """

    outputs: int | None
    findings: tuple[Finding, ...]
    writes_input: bool = False
    sets: tuple[Attribute, ...] = ()


class ForwardMonitor(TorchDispatchMode):
    """Records operations of a forward that draw random numbers, or read a parameter outside the model.

    Each is recorded with its layer.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.drawn, self.foreign, self.halved, self._inside = module, [], [], [], []

    @contextmanager
    def layers(self) -> Iterator[None]:
        """Track the running layer."""

        def enter(name: str) -> Callable:
            return lambda *_: self._inside.append(name)

        def leave(*_: object) -> None:
            self._inside.pop()

        hooks = []
        for name, layer in self.module.named_modules():
            hooks += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation; torch tags those that use its generator."""
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs or {}):
            self.drawn.append((self._inside[-1] if self._inside else "", str(func.overloadpacket)))
        for read in args:  # parameters of the private copy require no gradient
            if isinstance(read, nn.Parameter) and read.requires_grad:
                self.foreign.append((self._inside[-1] if self._inside else "", list(read.shape)))
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dtype in (torch.float16, torch.bfloat16):
            self.halved.append((self._inside[-1] if self._inside else "", out.dtype))
        return out


def _draws(func, args: tuple, kwargs: dict) -> bool:
    """Return whether a tagged operation draws: not with dropout 0 or outside training."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    given = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()} | given
    return not any(name in given and given[name] == off for name, off in DETERMINISTIC.items())


def monitored_forward(parameters: Parameters, x: Tensor, *, independent: bool = True, name: str = "train.x") -> Forward:
    """Return the observations on the private copy's forward; its state and all generators are restored.

    Args:
        parameters: of the model; buffers of the private copy that a forward writes are restored.
        x: examples, of which up to five are run.
        independent: whether examples have to be independent (not where a batch is a task).
        name: the caller's name of x, for messages.

    Raises:
        TypeError, ValueError: a model that cannot read x, or whose outputs are not one row an example.
    """
    module = parameters.module
    few = x[evenly_spaced(len(x), EXAMPLES)].clone() if independent else x.clone()
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    stored = {key: value.detach().clone() for key, value in module.named_parameters()}
    state, watcher, given = AttributeState(module), ForwardMonitor(module), few.clone()
    before = [layer.training for layer in module.modules()]
    held = [(name, one, state_of(one)) for name, one in module_generators(module)]
    with preserve_generators() as others:
        try:
            with watcher.layers(), watcher:
                outputs = require_outputs(parameters.run, given, name)
        except (ValueError, TypeError):
            _restore_tensors(module, buffers, stored)
            state.restore()
            raise
        sets = state.changed()
        state.restore()
        written = _restore_tensors(module, buffers, stored)
        if not written:  # with gradients on, as for derivatives; recurrent layers cache parameters
            _with_gradients(parameters, few, outputs)
            sets += state.changed()
            state.restore()
    sets = tuple(dict.fromkeys(sets))
    writes_input = given._version > 0 or not _equal(given, few)
    parameters.writes_input, parameters.sets = writes_input, sets
    owned = [name for name, one, was in held if restore_generator(one, was)]
    findings = list(_random_findings(parameters, watcher, others(), owned))
    findings += [_half_precision_finding(parameters, *watcher.halved[0])] if watcher.halved else []
    findings += [_foreign_parameter_finding(parameters, *watcher.foreign[0])] if watcher.foreign else []
    findings += [_written_finding(parameters, key) for key in written]
    if [layer.training for layer in module.modules()] != before:
        findings.append(Finding("the forward changes its own training mode; let it leave self.training alone."))
    findings += [_max_norm_finding(table.rpartition(".")[0]) for table in parameters.bounds]
    if not any(finding.error for finding in findings):
        findings += _repeat_findings(parameters, few, outputs, independent)
    return Forward(outputs.shape[1], tuple(findings), writes_input, sets)


def evenly_spaced(n: int, most: int) -> Tensor:
    """Return up to ``most`` positions from first to last of n; for one example its position twice."""
    return torch.linspace(0, n - 1, max(2, min(n, most))).round().long()


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def _restore_tensors(module: nn.Module, buffers: dict[str, Tensor], stored: dict[str, Tensor]) -> list[str]:
    """Return the names of buffers and parameters that were written, after restoring them."""
    written = []
    now = {**dict(module.named_buffers()), **dict(module.named_parameters())}
    for key, value in {**buffers, **stored}.items():
        if key in now and now[key].shape == value.shape and not _equal(now[key], value):
            written.append(key)
            now[key].data.copy_(value)
    return written


def called(name: str, parameters: Parameters) -> str:
    """Return a layer's name and class for a message."""
    kind = type(parameters.module.get_submodule(name)).__name__
    return f"layer {name!r} ({kind})" if name else f"the model's own forward ({kind})"


def _in_training(parameters: Parameters, name: str) -> bool:
    return parameters.module.get_submodule(name).training


def _random_findings(
    parameters: Parameters, watcher: ForwardMonitor, others: list[str], owned: list[str]
) -> Iterator[Finding]:
    if watcher.drawn:
        name, operation = watcher.drawn[0]
        layer = called(name, parameters)
        if _in_training(parameters, name):
            text = (
                f"{layer} is in training mode and draws random numbers ({operation}), such as for dropout, so outputs "
                "are random; call model.eval() first."
            )
        else:
            text = (
                f"{layer} draws random numbers ({operation}) in evaluation mode, so outputs are random; draw only "
                "while self.training (functional dropout: pass training=self.training)."
            )
        yield Finding(text, layer=name)
    for name in owned[: not watcher.drawn]:
        yield Finding(
            f"{called(name, parameters)} reads a random generator of its own, so outputs are random; draw only while "
            "self.training.",
            layer=name,
        )
    for generator in others:
        yield Finding(
            f"the forward reads the generator of {generator}, so outputs are random; draw only while self.training."
        )


def _foreign_parameter_finding(parameters: Parameters, name: str, shape: list[int]) -> Finding:
    return Finding(
        f"{called(name, parameters)} reads a trainable parameter of shape {shape} that is not one of the model's own, "
        "or reads its own through a function that holds the original (a lambda, a global name), which no copy can "
        "follow; reach layers through self in a method, or freeze what was not trained (requires_grad_(False)).",
        layer=name,
    )


def _written_finding(parameters: Parameters, key: str) -> Finding:
    owner = key.rpartition(".")[0]
    remedy = "call model.eval() first" if _in_training(parameters, owner) else "write only while self.training"
    return Finding(
        f"{called(owner, parameters)} writes into {key!r} when it runs, so that each call would change the next; "
        f"{remedy}.",
        layer=owner,
    )


def _half_precision_finding(parameters: Parameters, layer: str, dtype: torch.dtype) -> Finding:
    return Finding(
        f"{called(layer, parameters)} computes in {dtype}, in which derivatives have two or three digits; leave out "
        "torch.autocast and casts to half precision where a model is explained.",
        layer=layer,
    )


def _max_norm_finding(name: str) -> Finding:
    return Finding(
        f"layer {name!r} bounds its rows by max_norm: they are shortened once, and explained as of a model without the "
        "bound; retraining with the bound may differ.",
        error=False,
        layer=name,
    )


def _repeat_findings(parameters: Parameters, few: Tensor, outputs: Tensor, independent: bool) -> list[Finding]:
    """Run again, in reverse order and singly; compare."""
    run = lambda part: require_outputs(parameters.run, part.clone(), "x")  # noqa: E731
    if not torch.equal(torch.nan_to_num(run(few)), torch.nan_to_num(outputs)):
        return [Finding("the model gives two outputs for the same input; remove what is random in its forward.")]
    if _differs(_with_gradients(parameters, few, outputs), outputs):
        return [
            Finding(
                "the model gives other outputs where gradients are on (torch.is_grad_enabled(), requires_grad), so its "
                "derivatives are not those of its outputs; let it compute the same in both."
            )
        ]
    if parameters.module.training and _differs(_in_evaluation_mode(parameters, few), outputs):
        return [Finding("the model is in training mode, in which its outputs are others; call model.eval() first.")]
    if not independent:
        return []
    alone = torch.cat([run(few[i : i + 1]) for i in range(len(few))])
    many = run(few.repeat(LARGER_BATCH, *[1] * (few.ndim - 1)))[-len(few) :]  # the forward may branch on the batch size
    if _differs(alone, outputs) or _differs(run(few.flip(0)).flip(0), outputs) or _differs(many, outputs):
        return [_dependence(parameters)]
    return []


def _with_gradients(parameters: Parameters, few: Tensor, outputs: Tensor) -> Tensor:
    """Return the outputs with gradients on; a failure is reported with the derivatives."""
    own = {name: parameters.module.get_parameter(name).detach().clone().requires_grad_() for name in parameters.names}
    try:
        with torch.enable_grad():
            return parameters.call(own, few.clone()).detach()
    except RuntimeError:
        return outputs


def _differs(a: Tensor, b: Tensor) -> bool:
    rounding = 1e3 * torch.finfo(b.dtype).eps * (1 + b.abs().max())
    return not bool(((a - b).abs() <= rounding).all() | (a.isnan() & b.isnan()).any())


def _in_evaluation_mode(parameters: Parameters, x: Tensor) -> Tensor:
    """Return the outputs in evaluation mode; each layer's mode is restored."""
    modes = [(layer, layer.training) for layer in parameters.module.modules()]
    parameters.module.eval()
    try:
        return require_outputs(parameters.run, x.clone(), "x")
    finally:
        for layer, training in modes:
            layer.training = training


def _dependence(parameters: Parameters) -> Finding:
    """Return the finding for dependent examples, naming a BatchNorm if there is one."""
    for name, layer in parameters.module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or not layer.track_running_stats):
            return Finding(
                f"BatchNorm layer {name!r} uses batch statistics, so one example changes another's output; "
                "call model.eval() (and keep track_running_stats=True).",
                layer=name,
            )
    remedy = "call model.eval() first" if parameters.module.training else "make each output depend on its own example"
    why = "an example's output depends on the other examples of its batch; each has to be independent"
    return Finding(f"{why}: {remedy}.")

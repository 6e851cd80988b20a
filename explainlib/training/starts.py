"""The first parameters of an ensemble's networks: given, or drawn anew as PyTorch's layers draw them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count
from explainlib.risk import Risk


def starts_or_fresh(risk: Risk, starts: Tensor | None, seeds: Sequence[int] | None) -> Float[Tensor, "m p"]:
    """Return the starts as they are, or ``fresh_starts`` of the seeds.

    Args:
        risk: gives the networks' shape.
        starts: [m, p]. Either this or ``seeds``.
        seeds: m numbers.

    Raises:
        ValueError: neither or both, or bad seeds.
    """
    if (starts is None) == (seeds is None):
        raise ValueError(f"{'neither' if seeds is None else 'both'} of starts and seeds given; pass exactly one.")
    return fresh_starts(risk, seeds) if starts is None else starts


def fresh_starts(risk: Risk, seeds: Sequence[int]) -> Float[Tensor, "s p"]:
    """Return new initial parameters for each seed, drawn by PyTorch's layers; the caller's generators are not advanced.

    In a copy of the model every module calls its ``reset_parameters``, in the model's order, in float32 on the CPU: a
    seed gives the same network at every precision, the one that ``xl.models`` builds from that seed.

    Args:
        risk: gives the architecture and the chosen parameters.
        seeds: s whole numbers of at least 0.

    Raises:
        ValueError: no seeds, a negative or repeated one, or a chosen parameter of a module without reset_parameters.
    """
    if isinstance(seeds, int) or not len(seeds):
        raise ValueError(f"seeds={seeds!r} has to be a list of at least one seed; pass [0] for one network.")
    for k, seed in enumerate(seeds):
        require_count(f"seeds[{k}]", seed, least=0)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)} repeats a seed, so two networks would be the same; name each once.")
    module = copy.deepcopy(risk.parameters.module).to(device="cpu", dtype=torch.float32)
    resettable = [part for part in module.modules() if callable(getattr(part, "reset_parameters", None))]
    drawn = {id(parameter) for part in resettable for parameter in part.parameters(recurse=False)}
    missing = [name for name in risk.parameters.names if id(module.get_parameter(name)) not in drawn]
    if missing:
        raise ValueError(
            f"parameter {missing[0]!r} belongs to a module without reset_parameters, so it cannot start afresh; "
            "give the module that method, or pass starts."
        )
    rows = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the caller's GPUs too
            for part in resettable:
                part.reset_parameters()
        rows.append(torch.cat([module.get_parameter(name).detach().flatten() for name in risk.parameters.names]))
    return torch.stack(rows).to(risk.theta)

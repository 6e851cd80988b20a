"""What the simulated device refuses, as CUDA does, and what it allows; each with the word of its message."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.func import hessian, jacfwd, jvp, vmap

from tests.device.simulated import simulated

D = torch.float64
MIXED, NUMPY, GENERATOR = "same device", "to numpy", "for generator"


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# x [3, 4] is on the device, c [4] on the CPU; the word of the refusal, or None where CUDA allows it
CASES: dict[str, tuple[Callable, str | None]] = {
    "sum of both": (lambda x, c: x + c, MIXED),
    "number of the CPU": (lambda x, c: x + c.sum(), None),
    "number of the device": (lambda x, c: c + x.sum(), MIXED),
    "product of matrices": (lambda x, c: x @ c, MIXED),
    "stacked": (lambda x, c: torch.stack([x.sum(), c.sum()]), MIXED),
    "where": (lambda x, c: torch.where(x > 0, x, c), MIXED),
    "in place": (lambda x, c: x.clone().add_(c), MIXED),
    "loss with labels of the CPU": (lambda x, c: torch.nn.functional.cross_entropy(x, c.long()[:3]), MIXED),
    "linear layer of the CPU": (lambda x, c: torch.nn.Linear(4, 2, dtype=D)(x), MIXED),
    "inside vmap": (lambda x, c: vmap(lambda row: row + torch.zeros(4, dtype=D))(x), MIXED),
    "inside vmap, with its device": (lambda x, c: vmap(lambda row: row + torch.zeros(4, dtype=D, device=row.device))(x), None),
    "inside a derivative": (lambda x, c: torch.func.grad(lambda z: (z * c).sum())(x), MIXED),
    "inside nested forward modes": (lambda x, c: jacfwd(jacfwd(lambda z: (z**3 * c).sum()))(x), MIXED),
    "index of the CPU": (lambda x, c: x[torch.tensor([0, 1])], None),
    "index of the device on the CPU": (lambda x, c: c[x.long().abs()[0] * 0], MIXED),
    "index_select by the CPU": (lambda x, c: x.index_select(0, torch.tensor([0])), MIXED),
    "index_add by the CPU": (lambda x, c: x.clone().index_add_(0, torch.tensor([0]), x[:1]), MIXED),
    "gather by the CPU": (lambda x, c: x.gather(1, torch.zeros(3, 1, dtype=torch.long)), MIXED),
    "row of the CPU written by slice": (lambda x, c: x.clone()[0].copy_(c), None),
    "row of the CPU written by index": (lambda x, c: x.clone().index_put_((torch.tensor([0]),), c), MIXED),
    "numpy()": (lambda x, c: x.numpy(), NUMPY),
    "np.asarray": (lambda x, c: np.asarray(x), NUMPY),
    "cpu().numpy()": (lambda x, c: x.cpu().numpy(), None),
    "randn of a CPU generator": (lambda x, c: torch.randn(3, generator=draws(), device=x.device), GENERATOR),
    "normal_ of a CPU generator": (lambda x, c: x.clone().normal_(generator=draws()), GENERATOR),
    "randperm of a CPU generator": (lambda x, c: torch.randperm(3, generator=draws(), device=x.device), GENERATOR),
    "multinomial of a CPU generator": (lambda x, c: torch.multinomial(x.abs(), 1, generator=draws()), GENERATOR),
    "drawn on the CPU, then moved": (lambda x, c: torch.randn(3, generator=draws()).to(x) + x[:, 0], None),
    "second derivatives": (lambda x, c: hessian(lambda z: z.pow(3).sum())(x), None),
    "forward over forward": (lambda x, c: jvp(lambda v: jvp(torch.sin, (v,), (x,))[1], (x,), (x,))[1], None),
}  # fmt: skip
WAITS = {  # what the host waits for
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "int": lambda x: int(x.argmax()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "eigh": lambda x: torch.linalg.eigh(x @ x.T),
    "cholesky": lambda x: torch.linalg.cholesky(x @ x.T + 10 * torch.eye(3, dtype=D, device=x.device)),
    "tensor of numbers": lambda x: torch.tensor([x.sum(), x.max()]),
}


def seen() -> dict[str, object]:
    """Return the error of each case ("" if none, else its message), and what each wait counts."""
    errors, counted = {}, {}
    with simulated() as record:
        x = torch.randn(3, 4, generator=draws(), dtype=D).to("cuda:0")
        for name, (act, _) in CASES.items():
            try:
                made = act(x, torch.ones(4, dtype=D))
                errors[name] = (
                    "" if not isinstance(made, torch.Tensor) or str(made.device) == "cuda:0" else str(made.device)
                )
            except (RuntimeError, TypeError) as error:
                errors[name] = str(error)
        for name, act in WAITS.items():
            before = record.total
            act(x)
            counted[name] = record.total - before
        before = record.total
        (x @ x.T + 1).softmax(1).argmax(1)
    return {"errors": errors, "counted": counted, "of arithmetic": record.total - before}

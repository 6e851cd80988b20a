"""Tasks as HTML: rows of drawings with their classes, ranked lists of them, and the table of a removal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from explainlib.datasets import ClassPool, Tasks
from explainlib.figures.palette import HARMFUL, HELPFUL
from explainlib.figures.tasks import class_names, strip, task_images
from explainlib.panels.html import ROW, picture_html

CELL = "padding:2px 14px 2px 0;white-space:nowrap"
DRAWING = 26  # pixels


class TaskPages:
    """What the tasks of one set look like as HTML; each is drawn once.

    Args:
        tasks: what to show.
        pool: where the drawings are, for tasks whose x are features of them.

    Raises:
        ValueError: tasks that do not come from the pool.
    """

    def __init__(self, tasks: Tasks, pool: ClassPool | None) -> None:
        self.tasks, self.pool = tasks, pool
        self.shown = task_images(tasks, 0, pool) is not None
        self._samples: dict[int, str] = {}

    def whole(self, index: int) -> str:
        """Return a task as a table: a row for each class with all its drawings, support first."""
        names = class_names(self.tasks, index)
        images = task_images(self.tasks, index, self.pool) if self.shown else None
        labels = self.tasks.support_y[index].tolist(), self.tasks.query_y[index].tolist()
        body = ""
        for c, name in enumerate(names):
            row = f"<tr><th style='{ROW};font-weight:normal'>{escape(name)}</th>"
            for part, word in enumerate(("support", "query") if images else ()):
                own = [x for x, y in zip(images[part], labels[part], strict=True) if y == c]
                row += f"<td style='padding:1px 10px 1px 0'>{_strip_html(own, f'{word} drawings of {name}')}</td>"
            body += f"{row}</tr>"
        head = "<th></th>" + "".join(f"<th style='text-align:left'>{w}</th>" for w in ("support", "query") if images)
        return f"<table style='border-collapse:collapse;font-size:12px'><tr>{head}</tr>{body}</table>"

    def sample(self, index: int) -> str:
        """Return one drawing of each class of a task, side by side, or nothing where there are no drawings."""
        if not self.shown:
            return ""
        if index not in self._samples:
            labels = self.tasks.support_y[index].tolist()
            images = task_images(self.tasks, index, self.pool)[0]
            first = [images[labels.index(c)] for c in range(self.tasks.ways)]
            said = f"training task {index}: {', '.join(class_names(self.tasks, index))}"
            self._samples[index] = _strip_html(first, said)
        return self._samples[index]


def ranked_list(
    side: str,
    chosen: Sequence[int],
    scores: Float[Tensor, " M"],
    pages: TaskPages,
    scripts: Sequence[tuple[str, ...]],
    own: Sequence[str],
) -> str:
    """Return training tasks as a list: number, score, drawings and scripts; classes shared with the test are bold.

    Args:
        side: "helpful" or "harmful".
        chosen: the tasks, in their order.
        scores: I_perf of every training task.
        pages: the training tasks' pictures.
        scripts: of each training task, one a class.
        own: the classes of the test task.
    """
    look = HELPFUL if side == "helpful" else HARMFUL
    body = ""
    for i in chosen:
        names = class_names(pages.tasks, i)
        words = [scripts[i][c] if scripts[i] else name for c, name in enumerate(names)]
        said = ", ".join(
            f"<b>{escape(name)}</b>" if name in own else escape(word) for word, name in zip(words, names, strict=True)
        )
        sign = "helps" if scores[i] < 0 else "harms"
        body += (
            f"<div style='border-left:5px solid {look.colour};padding:1px 6px;margin:5px 0'>"
            f"<div style='font-size:12px;line-height:1.3'><b>#{i}</b> {float(scores[i]):+.4f} ({sign})</div>"
            f"{pages.sample(i)}<div style='font-size:12px;line-height:1.2;color:#333'>{said}</div></div>"
        )
    return f"<div style='height:304px;overflow-y:auto'><b style='font-size:12px'>most {side}</b>{body}</div>"


def change_table(rows: Sequence[tuple[str, float, float, float | None]]) -> str:
    """Return a table of changes: (what, the loss now, predicted change, retrained change or None)."""
    head = "".join(f"<th style='text-align:left;{CELL}'>{w}</th>" for w in ("", "loss now", "predicted", "retrained"))
    body = "".join(
        f"<tr><th style='{ROW}'>{escape(what)}</th><td style='{CELL}'>{now:.4f}</td><td style='{CELL}'>"
        f"<b>{predicted:+.4f}</b></td><td style='{CELL}'>{'?' if true is None else f'<b>{true:+.4f}</b>'}</td></tr>"
        for what, now, predicted, true in rows
    )
    return f"<table style='border-collapse:collapse;font-size:13px'><tr>{head}</tr>{body}</table>"


def _strip_html(images: Sequence[Tensor], alt: str) -> str:
    picture = strip(images)
    low, high = min(0.0, float(picture.min())), max(1.0, float(picture.max()))
    scaled = (picture - low) / (high - low)
    pixels = (255 * (scaled if picture.ndim == 3 else 1 - scaled)).round().to(torch.uint8)
    file = BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format="PNG")
    return picture_html(file.getvalue(), alt, width=DRAWING * len(images))

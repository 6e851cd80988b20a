"""One example as a small block of HTML: its image or its words, with a caption; safe to put into any page."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from explainlib.figures.examples import as_image, class_name

if TYPE_CHECKING:
    from explainlib.datasets import Examples

BLOCK = "display:inline-block;margin:2px 6px;text-align:center;font-size:12px;vertical-align:top;line-height:1.25"


def example_html(examples: Examples, index: int, *, captions: tuple[str, ...] = (), size: int = 48) -> str:
    """Return one example as an inline block.

    Args:
        examples: what to show from.
        index: position in ``examples``, checked by the caller.
        captions: lines below it, escaped here.
        size: of an image, in pixels.
    """
    image, raw = as_image(examples.x[index]), getattr(examples, "raw", None)
    name = f"#{index}: {class_name(examples, index)}"
    if image is not None and raw is None:
        shown = (
            f'<img alt="{escape(name)}" src="data:image/png;base64,{_thumbnail(image)}" width="{size}" '
            f'height="{size}" style="image-rendering:pixelated;border:1px solid #bbb">'
        )
    else:
        words = raw[index][:80] if raw is not None else ", ".join(f"{v:.3g}" for v in examples.x[index].flatten()[:6])
        shown = f"<i>{html_literal(words)}</i>"
    caption = "<br>".join(html_literal(part) for part in captions if part)
    return f'<span style="{BLOCK}">{shown}<br>{caption}</span>'


def html_literal(text: str) -> str:
    """Return ``text`` escaped, each dollar sign in a span of its own, so that no notebook typesets a formula.

    Example:
        >>> html_literal("<$5>")
        '&lt;<span>$</span>5&gt;'
    """
    return escape(text).replace("$", "<span>$</span>")


def _thumbnail(image: Float[Tensor, "h w *colour"]) -> str:
    """Return an image as base64 PNG at its own size, ink on white where it is grey."""
    low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
    scaled = (image - low) / (high - low)
    pixels = (255 * (scaled if image.ndim == 3 else 1 - scaled)).round().to(torch.uint8)
    file = BytesIO()
    Image.fromarray(pixels.numpy()).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()

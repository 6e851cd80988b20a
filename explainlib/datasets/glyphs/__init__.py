"""The embedded pool of handwritten-looking glyphs: letters, their outlines, and the writers that deform them."""

from explainlib.datasets.glyphs.pool import glyphs

__all__ = ["glyphs"]

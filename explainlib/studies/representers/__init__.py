"""The study of representers (Tsai et al.)."""

__all__ = []

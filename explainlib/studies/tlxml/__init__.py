"""The study of task influence in meta-learning (TLXML)."""

__all__ = []

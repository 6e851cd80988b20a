"""The study of influence of single examples."""

__all__ = []

"""The course: the notebooks, their anatomy, and how they are run and saved."""

__all__ = []

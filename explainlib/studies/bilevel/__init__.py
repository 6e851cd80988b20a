"""The study of bilevel influence (Ren et al.)."""

__all__ = []

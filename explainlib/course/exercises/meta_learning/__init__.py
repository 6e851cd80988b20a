"""The exercises of notebooks 05 to 08, on meta-learning."""

from explainlib.course.exercises.meta_learning import bilevel, distributions, primer, tlxml

__all__ = ["bilevel", "distributions", "primer", "tlxml"]

"""The words of a verdict on a paper's claim."""

HELD, NOT_HELD, UNDECIDED = "held", "not held", "undecided"

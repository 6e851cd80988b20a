"""Mutation testing of the mathematics: a seeded sample of small changes, each run against the tests of its room.

No library was found that does it: mutmut changes functions only and takes no sample, cosmic-ray changes the working
tree and runs one command for all, mutatest knows no numbers and no returns.
"""

from benchmarks.mutants.rooms import ROOMS, mirror
from benchmarks.mutants.run import main
from benchmarks.mutants.sample import KINDS, Mutant, candidates, sample

__all__ = ["KINDS", "ROOMS", "Mutant", "candidates", "main", "mirror", "sample"]

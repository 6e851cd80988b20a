"""All races, in the order of the page."""

from __future__ import annotations

from benchmarks.peers import checkpoints, exact, iterative, kronecker, projected, tangents, truth
from benchmarks.peers.race import Race

RACES: dict[str, Race] = {
    race.name: race
    for race in (
        exact.SOFTMAX,
        kronecker.EKFAC,
        checkpoints.TRACIN,
        iterative.ARNOLDI,
        iterative.CG,
        iterative.LISSA,
        projected.TRAK,
        tangents.KERNEL,
        tangents.NTK,
        truth.LDS,
    )
}

"""``make bench-peers``: explainlib raced against other libraries of data attribution, on the same problems.

``python -m benchmarks.peers`` runs the races that are not in its record yet, and writes ``docs/peers.md`` from it.
"""

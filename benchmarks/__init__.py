"""Benchmarks: ratios against plain loops and peers, measured in one process."""

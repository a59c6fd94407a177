"""Benchmarks: ratios against a reference in the same run, never wall-clock assertions."""

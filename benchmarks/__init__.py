"""Reproducible measurements: each is a ratio against something real, taken in the same run.

``python -m benchmarks`` runs all of them and prints a table; none is part of the tests, since a shared
machine's speed is no property of the code.
"""

"""Measures this machine: `python -m tools.bench`."""

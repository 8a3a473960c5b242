"""Configs are values: each file has a ``config()`` that returns a frozen dataclass, and a docstring with what it
costs."""

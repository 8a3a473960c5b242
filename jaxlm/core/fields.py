"""Fields that a config gained after runs had been written down without them."""

import dataclasses
from types import MappingProxyType

ADDED = MappingProxyType({"added": True})
"""Metadata of a dataclass field that older records lack: its default must mean what was done before it was there."""


def is_added(field: dataclasses.Field) -> bool:
    """Whether a record may lack the field."""
    return bool(field.metadata.get("added"))

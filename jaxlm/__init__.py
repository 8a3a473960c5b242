"""jaxlm: language models from text to text, in JAX."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.run.handle import load as load

try:
    __version__ = metadata.version("jaxlm")
except metadata.PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0+checkout"

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """``jaxlm.load`` brings in JAX only when it is used, so that ``jaxlm --help`` stays quick."""
    if name == "load":
        from jaxlm.run.handle import load

        return load
    raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")

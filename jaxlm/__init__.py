"""jaxlm: language models from text to text, in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm import scaling as scaling
    from jaxlm.run.handle import load as load

    __version__: str

__all__ = ["__version__", "load", "scaling"]


def __getattr__(name: str) -> Any:
    """``jaxlm.load`` brings in JAX only when it is used, and the version is looked up only when asked for, so that
    small commands start quickly."""
    if name == "load":
        from jaxlm.run.handle import load

        return load
    if name == "scaling":
        import importlib

        return importlib.import_module("jaxlm.scaling")
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("jaxlm")
        except metadata.PackageNotFoundError:  # run from a checkout that was never installed
            return "0.0.0+checkout"
    raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")

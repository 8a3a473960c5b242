"""Floor 1: laws over numbers alone: what a small run says of a large one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.scaling.chinchilla import fit_chinchilla as fit_chinchilla
    from jaxlm.scaling.isoflop import fit_isoflop as fit_isoflop
    from jaxlm.scaling.kaplan import fit_kaplan as fit_kaplan

__all__ = ["fit_chinchilla", "fit_isoflop", "fit_kaplan"]


def __getattr__(name: str) -> Any:
    """The fits bring in JAX only when they are used: the other laws here need NumPy alone."""
    if name == "fit_chinchilla":
        from jaxlm.scaling.chinchilla import fit_chinchilla

        return fit_chinchilla
    if name == "fit_isoflop":
        from jaxlm.scaling.isoflop import fit_isoflop

        return fit_isoflop
    if name == "fit_kaplan":
        from jaxlm.scaling.kaplan import fit_kaplan

        return fit_kaplan
    raise AttributeError(f"module 'jaxlm.scaling' has no attribute {name!r}")

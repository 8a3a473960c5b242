"""What the machine offers: caches on disk, devices, memory."""

import os
from pathlib import Path

import jax

from jaxlm.run.heap import keep_freed, share_one_heap


def cache_root() -> Path:
    """Where built data sets, tokenizers and compiled programs are kept: $JAXLM_CACHE_DIR, or ~/.cache/jaxlm."""
    return Path(os.environ.get("JAXLM_CACHE_DIR") or Path.home() / ".cache" / "jaxlm")


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a restarted run does not compile again. A cache set by the user
    stays."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)  # a study compiles the same many times


def accelerator_memory_bytes() -> int | None:
    """Bytes that a program may use of one accelerator, as it reports them; None on a CPU, or where it does not say."""
    stats = jax.local_devices()[0].memory_stats()
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def device_memory_bytes() -> int | None:
    """Bytes that one device may hold: what the accelerator reports; on a CPU the machine's free memory."""
    if (limit := accelerator_memory_bytes()) is not None:
        return limit
    if jax.default_backend() != "cpu":
        return None
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return free // jax.local_device_count()


def keep_freed_memory() -> bool:
    """Lets a CPU run keep the memory that it frees; True where that was done (glibc, CPU backend).

    XLA:CPU allocates a step's temporaries anew each step. glibc maps large blocks from the kernel and gives them back,
    so every step would fault in zeroed pages: a quarter of a small model's step (experiments/LOG.md). The price: memory
    freed stays with the process until it ends.
    """
    share_one_heap()  # before the backend starts its threads, where it has not yet
    return jax.default_backend() == "cpu" and keep_freed()

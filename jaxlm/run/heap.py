"""How this process allocates: glibc's malloc, told what suits a training loop. Imports nothing heavy."""

import ctypes

# Numbers of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def share_one_heap() -> bool:
    """Lets all threads that begin from now on allocate from one heap; True where that was done (glibc).

    For ``keep_freed``, and before JAX starts its threads: a step's temporaries are allocated by one of those,
    whose heap of its own glibc gives back whenever it is empty, whatever is asked of it.
    """
    return _mallopt({_M_ARENA_MAX: 1})


def keep_freed() -> bool:
    """Keeps freed memory with the process; True where that was done (glibc)."""
    return _mallopt({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**26})


def _mallopt(settings: dict[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    results = [mallopt(name, value) for name, value in settings.items()]  # all of them, whatever the first says
    return all(result == 1 for result in results)

"""Which seeds a key can be made of."""


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed outside of 0 .. 2^32 - 1, before the work that it is for."""
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"seed={seed} must lie in 0..{(1 << 32) - 1}")

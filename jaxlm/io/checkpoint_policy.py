"""Which checkpoints are saved and which stay: temporary ones, of which the newest stay, and permanent ones."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep."""

    save_every: int | None = 500
    """Steps between saves; None = by the clock or at the end only. The last step is always saved."""
    save_minutes: float | None = None
    """Minutes between temporary saves, at whatever step the run is at. None = by steps only."""
    keep_last: int = 3
    """How many of the newest temporary steps (all that are not permanent) stay."""
    keep_every: int | None = None
    """Steps that are multiples of this are permanent: they stay for good. None = none."""

    def __post_init__(self):
        for name in ("save_every", "keep_last", "keep_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"checkpoint.{name}={value} must be at least 1")
        if self.save_minutes is not None and not self.save_minutes > 0:
            raise ValueError(f"checkpoint.save_minutes={self.save_minutes} must be more than 0")
        if self.keep_every is not None and (self.save_every is None or self.keep_every % self.save_every):
            raise ValueError(
                f"checkpoint.keep_every={self.keep_every} is not a multiple of save_every={self.save_every}, "
                "so those steps would not be saved"
            )


def out_of_policy(steps: list[int], keep_last: int, keep_every: int | None) -> list[int]:
    """The steps that may go: neither a multiple of ``keep_every`` nor among the newest ``keep_last`` of the others."""
    temporary = [step for step in sorted(steps) if keep_every is None or step % keep_every]
    return temporary[:-keep_last]

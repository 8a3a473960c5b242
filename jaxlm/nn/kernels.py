"""Whose kernels a model runs on: XLA's, or ours; in Triton on NVIDIA GPUs, in C++ on CPUs."""

from collections.abc import Callable
from typing import Literal, get_args

from jaxlm.core.errors import UserError
from jaxlm.nn.linear import is_unsharded

Kernels = Literal["auto", "xla", "triton", "triton_interpret"]
"""``triton_interpret`` is ours in Pallas's interpreter: slow, on any platform, to check them without a GPU."""


def choose_kernels(kernels: Kernels, platform: str) -> Kernels:
    """``auto`` -> what is fastest on ``platform`` ("cpu", "gpu", "tpu"). Raises UserError where ours cannot run."""
    is_gpu = platform in ("gpu", "cuda")
    if kernels == "auto":
        return "triton" if is_gpu else "xla"
    if kernels == "triton" and not is_gpu:
        raise UserError(f"model.kernels=triton needs an NVIDIA GPU, this is {platform}: use auto or xla")
    return kernels


def uses_triton(kernels: Kernels) -> bool:
    """Whether ours serve here: they work on one device's arrays, so on a mesh XLA's do."""
    return kernels in ("triton", "triton_interpret") and is_unsharded()


CpuKernel = Literal["recurrent", "attention"]
CPU_KERNELS: tuple[CpuKernel, ...] = get_args(CpuKernel)
"""Our custom calls for CPUs: the loop over time of recurrent layers, attention of whole rows."""

KernelMissing = Callable[[CpuKernel], str | None]
"""None where it is ready, else why it is not. ``jaxlm.run.cpu_kernels.kernel_missing`` builds and registers them; it is
asked only where the kernel would serve."""


def no_kernel(name: CpuKernel) -> str:
    """Nobody looked: what runs on XLA alone."""
    return f"no kernel for {name} layers was asked for"

"""GPUs by name, as `plan.topology` has TPU slices: what one has, and how XLA wants it described. Numbers alone."""

import dataclasses
import difflib

from jaxlm.core.errors import UserError
from jaxlm.plan.topology import GIB, Chip, Topology


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    chip: Chip
    """``hbm_bytes``: what JAX lets a program use of it by default, three quarters. ``link_bandwidth``: half of NVLink's
    one way, since `Chip.ici_bandwidth` counts both ways round a ring. ``dcn_bandwidth``: its share of the host's
    network, one adapter each."""
    capability: tuple[int, int]
    cores: int
    """Streaming multiprocessors."""
    shared_memory: int
    """Bytes of a multiprocessor."""
    cache: int
    """Bytes, of level 2."""
    clock_ghz: float
    memory: int
    """Bytes, all of it."""
    product: str

    def describe(self) -> str:
        """XLA's GpuTargetConfigProto, as text."""
        major, minor = self.capability
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_memory}
  shared_memory_per_block_optin: {self.shared_memory - 1024}
  threads_per_core_limit: 2048
  core_count: {self.cores}
  fpus_per_core: {128 if major >= 9 else 64}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {int(self.chip.hbm_bandwidth)}
  l2_cache_size: {self.cache}
  clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {self.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 }}
device_description_str: "{self.product}"
"""


def _chip(name: str, memory: float, flops: float, hbm: float, nvlink: float, network: float) -> Chip:
    return Chip(name, int(0.75 * memory), flops, hbm, nvlink / 2, network, 1, (8,))


GPUS: dict[str, Gpu] = {
    "a100": Gpu(
        _chip("a100", 80 * GIB, 312e12, 2.04e12, 300e9, 25e9),
        (8, 0), 108, 167936, 41943040, 1.41, 85097971712, "NVIDIA A100-SXM4-80GB",
    ),
    "h100": Gpu(
        _chip("h100", 79.1 * GIB, 989e12, 3.35e12, 450e9, 50e9),
        (9, 0), 132, 233472, 52428800, 1.98, 84929347584, "NVIDIA H100 80GB HBM3",
    ),
    "h200": Gpu(
        _chip("h200", 139.8 * GIB, 989e12, 4.8e12, 450e9, 50e9),
        (9, 0), 132, 233472, 62914560, 1.98, 150121545728, "NVIDIA H200",
    ),
}  # fmt: skip
"""Sources: NVIDIA's data sheets; the rest is what the devices say of themselves (XLA's own descriptions of them)."""


def parse_gpus(name: str, *, per_host: int, hosts: int) -> tuple[Gpu, Topology]:
    """``h100``, 8, 2 -> two hosts of eight. Raises UserError, near names offered, where there is no such GPU."""
    clean = name.strip().lower()
    if clean not in GPUS:
        near = difflib.get_close_matches(clean, GPUS, n=1, cutoff=0.4)
        meant = f": did you mean {near[0]}?" if near else ""
        raise UserError(f"there is no GPU {name!r} here{meant} (there are {', '.join(GPUS)})")
    if not 1 <= per_host <= 8:
        raise UserError(f"--gpus {per_host} is outside 1 to 8, the GPUs of a host: give --hosts for more")
    if hosts < 1:
        raise UserError(f"--hosts {hosts} must be at least 1")
    return GPUS[clean], Topology(GPUS[clean].chip, (per_host,), hosts)

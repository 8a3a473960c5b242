"""libtpu where there is no TPU: it is installed as a compiler, and must not look for a machine to run on."""

import importlib.util
import os
from pathlib import Path

LIBTPU_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",  # else it asks a cloud's metadata server, which is not there
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5p-8",  # of this machine; the topology says what is compiled for
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run, so several may compile side by side
}
"""What libtpu wants to know on a machine without TPUs."""
_PCI = Path("/sys/bus/pci/devices")
_MAKER = "0x1ae0"


def has_libtpu() -> bool:
    """Whether the compiler for TPUs is installed."""
    return importlib.util.find_spec("libtpu") is not None


def has_tpu(pci: Path = _PCI) -> bool:
    """Whether a device of the TPUs' maker is on this machine's bus, as jax itself looks for one."""
    return any(_read(path) == _MAKER for path in pci.glob("*/vendor"))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def describe_no_tpu() -> None:
    """Tells libtpu of a machine without TPUs, which variables that are set already keep."""
    for name, value in LIBTPU_ALONE.items():
        os.environ.setdefault(name, value)


def quiet_without_tpu() -> None:
    """Where libtpu is installed and there is no TPU, jax asks it for one all the same: half a second and five lines of
    complaint on stderr before the run goes on without. Told what it asks for, it finds nothing at once and in
    silence. To be called before jax is asked for a device."""
    if has_libtpu() and not has_tpu():
        describe_no_tpu()

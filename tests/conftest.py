"""The ground every test stands on: eight CPU devices, strict dtype promotion, warnings as errors, real data if there.

The settings must be in the environment before jax is imported, and are inherited by the commands that tests start.
"""

import inspect
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.quick import FLAGS

if "jax" in sys.modules:
    raise RuntimeError(
        "jax was imported before tests/conftest.py could set up its devices: remove that plugin or import"
    )

REPO = Path(__file__).resolve().parent.parent

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {FLAGS} {os.environ.get('XLA_FLAGS', '')}".strip()
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it to what it starts in the background; commands under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest

SHARED_DATA = REPO.parent / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    import jax

    if jax.device_count() != 8:
        raise pytest.UsageError(
            f"tests need 8 CPU devices and found {jax.device_count()}: is XLA_FLAGS set by a plugin?"
        )


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Built data sets, tokenizers and compiled programs of this session (and xdist worker), for commands it starts too;
    kernels of the whole session.

    Never the user's own: a test must not pass on what an older version of the code left there.
    """
    root, session = tmp_path_factory.mktemp("caches"), tmp_path_factory.getbasetemp()
    kernels = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "kernels"
    kernels.mkdir(exist_ok=True)  # a C++ compiler takes ten seconds over them: once for all workers
    (root / "kernels").symlink_to(kernels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLM_CACHE_DIR", str(root))
        yield root


_MOST_RESIDENT = 2 << 30
"""Bytes of memory at which a worker gives its compiled programs back."""


def _resident() -> int:
    """Bytes of memory that this process has now; where that is not told, more than it may have."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _MOST_RESIDENT + 1


@pytest.fixture(scope="module", autouse=True)
def _programs() -> Iterator[None]:
    """Compiled programs are kept for the next file, which needs many of them, until they come to gigabytes."""
    yield
    import jax

    if _resident() > _MOST_RESIDENT:
        jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _fast_fits() -> Iterator[None]:
    """Fits of scaling laws run for seconds: their search alone is worth the making of fast code."""
    import jax

    from jaxlm.scaling import minimise

    with pytest.MonkeyPatch.context() as patch:
        options = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
        search = jax.jit(inspect.unwrap(minimise._tick), static_argnums=0, compiler_options=options)
        patch.setattr(minimise, "_tick", search)
        yield


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The published data that lies beside a developer's checkout; a clone with nothing beside it skips."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not beside this checkout: the published data that this test reads is not here")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    """A NumPy generator with a fixed seed."""
    return np.random.default_rng(0)

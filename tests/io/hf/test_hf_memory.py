"""A conversion holds a few blocks, whatever the size of the checkpoint."""

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.hf.configs import find_family, read_config
from jaxlm.io.hf.pieces import BLOCK_BYTES, write_out
from jaxlm.io.hf.safetensors import Planned, write_tensors
from jaxlm.models.families import make_model
from jaxlm.plan.params import param_shapes
from tests.io.hf.directories import CONFIGS, write_ascii_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon from /proc"),
]
HF = CONFIGS["llama"] | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 12, "head_dim": 128}


def peak_anonymous_bytes(*argv):
    """The most memory that a command held that is no mapped file."""
    process = subprocess.Popen([sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        peak = max(peak, 1024 * int(found[1]) if found else 0)
        time.sleep(0.005)
    assert process.returncode == 0
    return peak


def test_memory_of_a_conversion(tmp_path):
    family, config = find_family(HF), read_config(find_family(HF), HF)
    shapes = {path: leaf.shape for path, leaf in flatten_with_paths(param_shapes(make_model(config))).items()}
    dtype = np.dtype(ml_dtypes.bfloat16)
    plan = [Planned(piece.tensor, piece.shape, dtype) for piece in write_out(family, config, shapes)]
    total = sum(tensor.num_bytes for tensor in plan)
    pool = np.random.default_rng(0).standard_normal(1 << 20).astype(dtype)
    source = tmp_path / "hf"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(HF))
    write_ascii_tokenizer(source)
    write_tensors(source, plan, lambda t: iter([np.resize(pool, math.prod(t.shape))]), max_file_bytes=200_000_000)
    imports = "import jax, jaxlm.io.hf.importing, jaxlm.io.hf.exporting; jax.devices()"
    idle = peak_anonymous_bytes("-c", imports)
    most = 8 * BLOCK_BYTES
    assert total > 1.4 * most  # or nothing is shown
    for argv in (("import", source, tmp_path / "run"), ("export", tmp_path / "run", tmp_path / "back")):
        assert peak_anonymous_bytes("-m", "tools.hf", *map(str, argv)) - idle < most

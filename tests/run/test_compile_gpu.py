"""``python -m tools.compile_gpu``: refusals, and a real compilation where the plugin is installed."""

import importlib.util
import json
from pathlib import Path

import pytest

from jaxlm.core.errors import UserError
from jaxlm.plan.gpus import GPUS, parse_gpus
from jaxlm.plan.topology import GIB
from jaxlm.run import compile_gpu

HAS_PLUGIN = any(importlib.util.find_spec(name) for name in compile_gpu.PLUGINS)
SMALL = """
from jaxlm.data.batches import DataConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config():
    model = DecoderConfig(vocab_size=1000, num_layers=2, model_dim=256, compute_dtype="bfloat16", attention="xla")
    return PretrainConfig(model=model, data=DataConfig(seq_len=256), mesh=MeshConfig(fsdp=8), global_batch_size=16)
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return str(path)


def test_gpus_are_described():
    gpu, topology = parse_gpus("H100", per_host=8, hosts=4)
    assert topology.num_chips == 32
    assert topology.name == "h100:8"
    assert "core_count: 132" in gpu.describe()
    for gpu in GPUS.values():
        assert 0.7 * gpu.memory < gpu.chip.hbm_bytes < gpu.memory
        assert gpu.chip.hbm_bytes % 1 == 0
        assert gpu.chip.hbm_bytes > 50 * GIB


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no --gpu given"),
        (["--gpu", "h10"], "there is no GPU 'h10' here: did you mean h100?"),
        (["--gpu", "h100", "--gpus", "16"], "--gpus 16 is outside 1 to 8, the GPUs of a host: give --hosts for more"),
        (["--gpu", "h100", "--hosts", "0"], "--hosts 0 must be at least 1"),
        (["--gpu", "h100", "--mesh.model", "3"], "needs a multiple of 24 devices and there are 8"),
        (["--gpu", "h100", "--batch-tokens", "1000"], "--batch-tokens 1000 is not a multiple of"),
    ],
)
def test_what_cannot_be_is_refused(args, said, small):
    with pytest.raises(UserError) as raised:
        compile_gpu.main([small, *args])
    assert said in str(raised.value)


@pytest.mark.skipif(HAS_PLUGIN, reason="the plugin for CUDA is installed")
def test_without_the_plugin_the_mend_is_named(small):
    with pytest.raises(UserError, match="pip install jax-cuda13-plugin"):
        compile_gpu.main([small, "--gpu", "h100"])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PLUGIN, reason="the plugin for CUDA is not installed: pip install jax-cuda13-plugin")
def test_a_step_compiles_for_gpus_that_are_not_there(small, capsys):
    assert compile_gpu.main([small, "--gpu", "h100"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["chips"] == 8
    assert figures["fits"]
    assert figures["collectives"]["all-gather"]["bytes"] > 0
    memory = figures["bytes_per_device"]
    assert memory["params"] + memory["optimizer_state"] < memory["peak"]

"""``python -m tools.compile_tpu``: refusals before compiling, and real compilations for slices that are not there."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.topology import GIB
from jaxlm.run.compile_tpu import main, with_batch_tokens
from jaxlm.run.config import PretrainConfig
from jaxlm.run.libtpu import has_libtpu

NEEDS_LIBTPU = pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed: pip install 'jaxlm[tpu]'")
SENT = {
    "fsdp 2 x model 2": {
        "all-reduce": (52, 20597310),
        "all-gather": (86, 7682752),
        "collective-permute": (24, 3145728),
        "all-to-all": (23, 2031616),
        "reduce-scatter": (9, 884736),
    },
    "fsdp 8": {"all-reduce": (11, 9971654), "all-gather": (56, 10282496)},
}
"""Kind -> (runs, bytes that leave a device) of the small step on v5p, as `tests/sharding/test_collectives.py` holds it
for CPUs: what the TPU's compiler makes of it, in bf16. Where a change is meant, these lines change with it."""
SMALL = """
from jaxlm.data.batches import DataConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.mesh import MeshConfig


def config():
    model = DecoderConfig(
        vocab_size=1000, vocab_multiple=8, max_seq_len=256, num_layers=3, model_dim=256, num_heads=4, num_kv_heads=1,
        compute_dtype="bfloat16", remat_policy="full",
    )
    return PretrainConfig(
        model=model,
        data=DataConfig(seq_len=256),
        mesh=MeshConfig(fsdp=2, model=2),
        global_batch_size=16,
        loss_chunk=128,
    )
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return str(path)


def run(repo: Path, *args: str, seconds: int = 600) -> tuple[int, str, str]:
    """The command in a process of its own, as a user starts it, at the compiler's quickest level."""
    env = os.environ | {"JAX_OPTIMIZATION_LEVEL": "O0"}
    env.pop("XLA_FLAGS", None)
    command = [sys.executable, "-m", "tools.compile_tpu", *args]
    done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no --topology given"),
        (["--topology", "v5p:8x8x15"], "there is no topology 'v5p:8x8x15': did you mean v5p:8x8x16"),
        (["--topology", "v5p:2x2x2", "--mesh.model", "3"], "needs a multiple of 6 devices and there are 8"),
        (["--topology", "v5p:2x2x2", "--slices", "0"], "--slices 0 must be at least 1"),
        (["--topology", "v5p:2x2x2", "--batch-tokens", "1000"], "--batch-tokens 1000 is not a multiple of"),
        (["--topology", "v5p:2x2x2", "--model.vocab-size", "None"], "give --model.vocab-size"),
        (["--topology", "v5p:2x2x2", "--hlo", "none/step.txt"], "none is no directory"),
    ],
)
def test_what_cannot_be_is_refused_before_libtpu_is_asked(args, said, small):
    with pytest.raises(UserError) as raised:
        main([small, *args])
    assert said in str(raised.value)


def test_without_libtpu_the_mend_is_named(monkeypatch, small):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxlm\[tpu\]'"):
        main([small, "--topology", "v5p:2x2x1", "--mesh.fsdp", "1"])


def test_batch_tokens_are_whole_rows():
    config = PretrainConfig(model=DecoderConfig(), data=DataConfig(seq_len=128), grad_accum_steps=2)
    assert with_batch_tokens(config, 1024).global_batch_size == 8
    assert with_batch_tokens(config, None) is config
    with pytest.raises(UserError, match="round it"):
        with_batch_tokens(dataclasses.replace(config), 128)


@NEEDS_LIBTPU
def test_a_step_compiles_for_a_slice_that_is_not_there(repo, small):
    code, out, err = run(repo, small, "--topology", "v5p:2x2x1")
    assert code == 0, err
    figures = json.loads(out.splitlines()[-1])
    assert figures["mesh"] == {"data": 1, "stage": 1, "fsdp": 2, "expert": 1, "context": 1, "model": 2}
    assert figures["attention"] == "splash"
    memory = figures["bytes_per_device"]
    # AdamW in f32: two moments a parameter, and a few counters; the compiler pads arrays to its tiles.
    assert 2 * memory["params"] <= memory["optimizer_state"] < 2 * memory["params"] + 1024
    known = memory["params"] + memory["optimizer_state"] + memory["batch"]
    assert known <= memory["arguments"] <= 1.1 * known
    assert memory["aliased"] >= memory["params"] + memory["optimizer_state"]
    assert figures["fits"]
    assert sent(figures) == SENT["fsdp 2 x model 2"]
    assert figures["roofline"]["step_seconds"] > 0
    assert "fits" in err


def sent(figures: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {kind: (row["runs"], row["bytes"]) for kind, row in figures["collectives"].items()}


@NEEDS_LIBTPU
def test_nothing_more_is_sent_than_is_held(repo, small):
    code, out, err = run(repo, small, "--topology", "v5p:2x2x2", "--mesh.fsdp", "8", "--mesh.model", "1")
    assert code == 0, err
    assert sent(json.loads(out.splitlines()[-1])) == SENT["fsdp 8"]


@pytest.mark.slow
@NEEDS_LIBTPU
def test_slices_lie_along_data(repo, small):
    code, _, err = run(repo, small, "--topology", "v4:2x2x1", "--slices", "2", "--mesh.data", "1", "--mesh.fsdp", "4")
    assert code == 2
    assert "mesh.data=1 is not a multiple of the 2 slices" in err.splitlines()[-1]
    code, out, err = run(repo, small, "--topology", "v4:2x2x1", "--slices", "2", "--mesh.data", "2")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["collectives"]["all-reduce"]["dcn_bytes"] > 0


@NEEDS_LIBTPU
def test_what_does_not_fit_ends_with_a_table_and_advice(repo, small):
    big = ("--model.model-dim", "16384", "--model.num-layers", "64", "--batch-tokens", "4194304")
    code, out, err = run(repo, small, "--topology", "v5e:2x2", *big)
    assert code == 1, err
    figures = json.loads(out.splitlines()[-1])
    assert not figures["fits"]
    assert figures["used_bytes"] > figures["hbm_bytes"]
    sizes = [buffer["num_bytes"] for buffer in figures["buffers"]]
    assert sizes == sorted(sizes, reverse=True)
    assert figures["advice"]


@NEEDS_LIBTPU
# Two of them over 20 seconds, and in `make test` all the same: that the large runs fit is what is promised.
@pytest.mark.parametrize(
    ("args", "capacity"),
    [
        pytest.param(["gpt3_175b", "--topology", "v5p:8x8x16"], 95.74, id="gpt3"),
        pytest.param(["llama3_8b", "--topology", "v5e:16x16"], 15.75, id="llama3"),
        pytest.param(
            ["palm_540b", "--topology", "v4:12x16x16", "--slices", "2"], 30.75, marks=pytest.mark.slow, id="palm"
        ),
        pytest.param(["llama3_8b_long", "--topology", "v5p:4x4x8"], 95.74, marks=pytest.mark.slow, id="context"),
        pytest.param(["mixtral_8x7b", "--topology", "v5p:4x8x8"], 95.74, marks=pytest.mark.slow, id="mixtral"),
    ],
)
def test_the_large_runs_fit(args, capacity, repo):
    """At their real global batches, with AdamW's state in f32."""
    code, out, err = run(repo, *args, seconds=1200)
    assert code == 0, err
    figures = json.loads(out.splitlines()[-1])
    assert figures["optimizer"] == "adamw"
    assert figures["batch_tokens"] >= 3_000_000
    assert figures["bytes_per_device"]["peak"] < capacity * GIB
    assert figures["peak_host_bytes"] < 6 * GIB

"""Against transformers itself, where an interpreter has it: this one, or the one that JAXLM_REFERENCE_PYTHON names."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.generate.decode import generate_tokens, left_pad
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.io.hf.exporting import export_hf
from jaxlm.io.hf.importing import import_hf
from jaxlm.models.families import make_model
from tests.io.hf.directories import CONFIGS, write_ascii_tokenizer
from tests.io.hf.tuned_runs import TASKS, tuned_run

pytestmark = pytest.mark.slow
QUIET: dict[str, Any] = {"say": lambda _: None, "tick": lambda *_: None}


@pytest.fixture(scope="module")
def reference():
    """``reference(*argv)`` runs tests/io/hf/reference.py."""
    python = os.environ.get("JAXLM_REFERENCE_PYTHON", sys.executable)
    probe = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip("no transformers and torch here: name an interpreter that has them in JAXLM_REFERENCE_PYTHON")

    def run(*argv):
        command = [python, str(Path(__file__).with_name("reference.py")), *map(str, argv)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


@pytest.mark.parametrize("name", CONFIGS)
def test_same_logits_and_text(reference, tmp_path, name):
    """f32, ragged rows: logits within 1e-4, greedy decoding token for token; the export gives the very same logits."""
    reference("make", name, tmp_path / "hf")
    write_ascii_tokenizer(tmp_path / "hf")
    reference("run", tmp_path / "hf", tmp_path / "one.npz")
    import_hf(tmp_path / "hf", tmp_path / "run", **QUIET)
    export_hf(tmp_path / "run", tmp_path / "back", **QUIET)
    reference("run", tmp_path / "back", tmp_path / "two.npz")
    one, two = np.load(tmp_path / "one.npz"), np.load(tmp_path / "two.npz")
    np.testing.assert_array_equal(one["logits"], two["logits"])

    loaded: Any = jaxlm.load(tmp_path / "run")
    model = make_model(loaded.config)
    tokens, mask, positions = (jnp.asarray(one[key], jnp.int32) for key in ("tokens", "mask", "positions"))
    apply = jax.jit(lambda params: model.apply_fn(params, tokens, positions=positions, segment_ids=mask))
    seen = one["mask"] > 0
    assert np.abs(np.asarray(apply(loaded.params)) - one["logits"])[seen].max() <= 1e-4
    if name != "bert":
        rows = [row[counted].tolist() for row, counted in zip(one["tokens"], seen, strict=True)]
        made = generate_tokens(
            model,
            loaded.params,
            *map(jnp.asarray, left_pad(rows, 0)),
            max_new_tokens=20,
            sampling=SamplingConfig(temperature=0.0),
            key=jax.random.key(0),
        )
        np.testing.assert_array_equal(made.tokens_bn, one["greedy"])


@pytest.mark.parametrize("kind", TASKS)
def test_same_outputs_of_a_task(reference, tmp_path, kind):
    """A fine-tuned encoder: f32, pairs of ragged rows padded on the right; labels by their names."""
    task, params = tuned_run(tmp_path / "run", TASKS[kind])
    export_hf(tmp_path / "run", tmp_path / "hf", **QUIET)
    rng = np.random.default_rng(0)
    at, lengths = np.arange(20)[None], np.array([20, 13, 5, 2])[:, None]
    rows = {
        "tokens": rng.integers(3, 131, (4, 20)),
        "segment_ids": (at < lengths) * 1,
        "token_types": ((at >= lengths // 2) & (at < lengths)) * 1,
    }
    np.savez(tmp_path / "rows.npz", **rows)
    reference("task", tmp_path / "hf", tmp_path / "rows.npz", tmp_path / "out.npz")
    theirs = np.load(tmp_path / "out.npz")
    ours = np.asarray(task.outputs(params, {name: jnp.asarray(array, jnp.int32) for name, array in rows.items()}))
    seen = rows["segment_ids"] > 0 if kind == "tag" else np.full(4, True)
    assert np.abs(ours.reshape(theirs["logits"].shape) - theirs["logits"])[seen].max() <= 1e-5
    assert tuple(theirs["labels"]) == (TASKS[kind].labels or ("LABEL_0",))

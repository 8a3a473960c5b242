"""Runs of adapters: merged, to PEFT and back, all the same model."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.models.lora import LoraConfig, init_adapters, merge
from jaxlm.run.cli import run_main
from jaxlm.text.chat.templates import CHATML
from tools.hf import main as hf_main
from tools.lora import main

LORA = LoraConfig(rank=3, alpha=5.0, targets=("/(attn|mlp)/.*kernel$",))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_run):
    """(a base, a run of adapters beside it, their merged parameters)."""
    base, tuned = (tmp_path_factory.mktemp("runs") / name for name in ("base", "tuned"))
    _, params = make_run(base)
    rng = np.random.default_rng(0)
    fresh = init_adapters(params, LORA, jax.random.key(0))
    adapters = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32), fresh)
    tuned.mkdir()
    record = json.loads((base / "config.json").read_text())
    record["config"] |= {"tune": "lora", "lora": config_to_dict(LORA), "base": str(base), "base_step": 7}
    (tuned / "config.json").write_text(json.dumps(record))
    (tuned / "chat_template.jinja").write_text(CHATML)
    shutil.copytree(base / "tokenizer", tuned / "tokenizer")
    with Checkpointer(tuned / "checkpoints") as checkpointer:
        state = {"params": adapters, "ema_params": None, "opt_state": {}, "step": jnp.asarray(9)}
        checkpointer.save(9, state, {})
        checkpointer.wait()
    return base, tuned, merge(params, adapters, LORA)


def command(capsys, *argv, main=main):
    """(exit code, the figures if it printed any, stderr)"""
    code = run_main(main, [*map(str, argv)])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out else {}, err


@pytest.mark.slow
def test_merged_exported_and_imported_are_one_model(runs, tmp_path, capsys):
    base, tuned, whole = runs
    jax.tree.map(np.testing.assert_array_equal, jaxlm.load(tuned).params, whole)
    code, figures, err = command(capsys, "merge", tuned, tmp_path / "merged")
    assert code == 0, err
    assert figures["step"] == 9
    lm = jaxlm.load(tmp_path / "merged")
    jax.tree.map(np.testing.assert_array_equal, lm.params, whole)
    assert len(lm.answer(["to be"], max_new_tokens=4, temperature=0)) == 1  # the template came along
    code, _, err = command(capsys, "export", tmp_path / "merged", tmp_path / "hf", main=hf_main)
    assert code == 0, err

    code, _, err = command(capsys, "export", tuned, tmp_path / "peft", "--base-name", "some/base")
    assert code == 0, err
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"
    code, figures, err = command(capsys, "import", tmp_path / "peft", tmp_path / "again", "--base", base)
    assert code == 0, err
    assert figures["rank"] == 3
    again = jaxlm.load(tmp_path / "again").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), again, whole)


def test_what_is_refused(runs, tmp_path, capsys):
    base, tuned, _ = runs
    for argv, words in (
        (("merge", base, tmp_path / "new"), "holds no adapters but a whole model"),
        (("merge", tuned, base), "is there already"),
        (("export", tmp_path, tmp_path / "new"), "is not a run directory"),
        (("import", tmp_path, tmp_path / "new", "--base", base), "adapter_config.json cannot be read"),
    ):
        code, _, err = command(capsys, *argv)
        assert code == 2
        assert words in err
    code, _, err = command(capsys, "export", tuned, tmp_path / "hf", main=hf_main)
    assert code == 2
    assert "holds adapters alone: merge them" in err
    assert not (tmp_path / "new").exists()

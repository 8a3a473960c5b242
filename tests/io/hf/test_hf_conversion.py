"""Directories there and back, bit for bit; every tensor accounted for; nothing left behind by a refusal."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.hf import pieces
from jaxlm.io.hf.exporting import export_hf
from jaxlm.io.hf.importing import import_hf
from jaxlm.io.hf.safetensors import Planned, write_tensors
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.tokenizers import ByteTokenizer, load_tokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.families import make_model
from jaxlm.text.tokenizer import MASK
from tests.drawn import drawn_params
from tests.io.hf.directories import BFLOAT16, CONFIGS, random_tensors, write_directory


def into(source, run, **options):
    lines = []
    figures = import_hf(source, run, say=lines.append, tick=lambda *_: None, **options)
    return figures, lines


def out(run, target, **options):
    lines = []
    figures = export_hf(run, target, say=lines.append, tick=lambda *_: None, **options)
    return figures, lines


def held(directory):
    return {name: array for path in directory.glob("*.safetensors") for name, array in load_file(path).items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


@pytest.mark.parametrize(
    ("name", "block_bytes"), [*((name, 64 << 20) for name in CONFIGS), ("gpt2", 100), ("qwen3_moe", 200), ("bert", 500)]
)
def test_there_and_back_bit_for_bit(tmp_path, monkeypatch, name, block_bytes):
    """Also where tensors are cut into many blocks, some of them ragged."""
    monkeypatch.setattr(pieces, "BLOCK_BYTES", block_bytes)
    tensors = random_tensors(CONFIGS[name])
    source = write_directory(tmp_path / "hf", CONFIGS[name], tensors, max_file_bytes=20_000)
    figures, _ = into(source, tmp_path / "run")
    assert figures["tensors"] == len(tensors)
    assert figures["parameters"] == sum(array.size for array in tensors.values())
    out(tmp_path / "run", tmp_path / "back", max_file_bytes=9_000)
    assert_same(held(tmp_path / "back"), tensors)


def test_parameters_stand_where_the_model_reads_them(tmp_path):
    """A transposed, a fused, an expert's and a windowed layer's tensor, by hand."""
    made = {}
    for name in ("gpt2", "qwen3_moe", "gemma3"):
        tensors = random_tensors(CONFIGS[name])
        into(write_directory(tmp_path / name, CONFIGS[name], tensors), tmp_path / f"{name}-run")
        with Checkpointer(tmp_path / f"{name}-run" / "checkpoints", read_only=True) as checkpointer:
            made[name] = flatten_with_paths(checkpointer.restore_params()[0]), tensors
    params, tensors = made["gpt2"]
    fused = tensors["transformer.h.1.attn.c_attn.weight"]
    np.testing.assert_array_equal(params["layers/layer_0/attn/k/kernel"][1], fused[:, 16:32])
    params, tensors = made["qwen3_moe"]
    one = tensors["model.layers.2.mlp.experts.3.down_proj.weight"]
    np.testing.assert_array_equal(params["layers/layer_0/moe/down/kernel"][2, 3], one.T)
    params, tensors = made["gemma3"]
    np.testing.assert_array_equal(
        params["layers/layer_5/attn/q/kernel"][0], tensors["model.layers.5.self_attn.q_proj.weight"].T
    )
    np.testing.assert_array_equal(
        params["tail_0/mlp_norm/scale"], tensors["model.layers.6.pre_feedforward_layernorm.weight"]
    )


def test_a_run_of_every_command(tmp_path):
    source = write_directory(tmp_path / "hf", CONFIGS["llama"], random_tensors(CONFIGS["llama"]))
    into(source, tmp_path / "run")
    model: Any = jaxlm.load(tmp_path / "run")
    assert model.step == 0
    assert model.encode("ab") == [100, 101]  # no <s>: the file's own encoding puts none
    assert model.tokenizer.eos_id == 1
    (made,) = model.generate(["ab"], max_new_tokens=4, temperature=0.0)
    assert len(made.tokens) <= 4
    (score,) = model.score(["hello"])
    assert np.isfinite(score.nats)
    assert score.bits_per_byte is None  # its tokenizer has the ASCII bytes alone
    layout = jax.sharding.NamedSharding(
        jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("x")
    )
    shapes = jax.eval_shape(make_model(model.config).init, jax.random.key(0))
    where = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, jnp.bfloat16, sharding=layout if s.shape[0] % 8 == 0 else None), shapes
    )
    with Checkpointer(tmp_path / "run" / "checkpoints", read_only=True) as checkpointer:
        params, _ = checkpointer.restore_params(where)
    assert params["head"]["kernel"].sharding == layout
    np.testing.assert_array_equal(params["head"]["kernel"], model.params["head"]["kernel"].astype(jnp.bfloat16))


def test_dtypes(tmp_path):
    """Kept unless another is asked for; a mixture becomes the widest; up and down again is the same."""
    half = random_tensors(CONFIGS["qwen3"], BFLOAT16)
    source = write_directory(tmp_path / "hf", CONFIGS["qwen3"], half)
    assert into(source, tmp_path / "half")[0]["dtype"] == "bfloat16"
    out(tmp_path / "half", tmp_path / "half-hf")
    assert_same(held(tmp_path / "half-hf"), half)
    assert into(source, tmp_path / "wide", dtype="float32")[0]["dtype"] == "float32"
    out(tmp_path / "wide", tmp_path / "wide-hf", dtype="bfloat16")
    assert_same(held(tmp_path / "wide-hf"), half)
    mixed = half | {"model.norm.weight": half["model.norm.weight"].astype(np.float32)}
    assert into(write_directory(tmp_path / "m", CONFIGS["qwen3"], mixed), tmp_path / "mixed")[0]["dtype"] == "float32"


def test_older_files(tmp_path):
    """GPT-2 without its prefix and with its masks, BERT with gamma, beta and heads of other tasks, a repeated table."""
    tensors = random_tensors(CONFIGS["gpt2"])
    bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    bare |= {"h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32), "lm_head.weight": tensors["transformer.wte.weight"]}
    _, lines = into(write_directory(tmp_path / "gpt2", CONFIGS["gpt2"], bare), tmp_path / "gpt2-run")
    assert lines == ["left out: h.0.attn.bias"]
    out(tmp_path / "gpt2-run", tmp_path / "gpt2-back")
    assert_same(held(tmp_path / "gpt2-back"), tensors)
    tensors = random_tensors(CONFIGS["bert"])
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tensors.items()
    }
    old |= {"bert.pooler.dense.bias": np.ones(16, np.float32), "cls.seq_relationship.bias": np.ones(2, np.float32)}
    into(write_directory(tmp_path / "bert", CONFIGS["bert"], old), tmp_path / "bert-run")
    out(tmp_path / "bert-run", tmp_path / "bert-back")
    assert_same(held(tmp_path / "bert-back"), tensors)


def test_the_mask_of_published_bert_directories(tmp_path):
    """Their tokenizer_config.json names none: special_tokens_map.json does, or tokenizer.json has [MASK]."""
    source = write_directory(tmp_path / "hf", CONFIGS["bert"], random_tensors(CONFIGS["bert"]))
    (source / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(UserError, match="names no mask_token"):
        into(source, tmp_path / "none")
    (source / "special_tokens_map.json").write_text('{"mask_token": {"content": "[M]"}}')
    into(source, tmp_path / "by-map")
    (source / "special_tokens_map.json").unlink()
    described = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(described.replace("[M]", "[MASK]"))
    into(source, tmp_path / "by-name")
    for run in ("by-map", "by-name"):
        assert load_tokenizer(RunDir(tmp_path / run).tokenizer_path).special_tokens[MASK] == 2
    (source / "tokenizer_config.json").write_text('{"mask_token": null}')
    with pytest.raises(UserError, match="names no mask_token"):
        into(source, tmp_path / "none")


def changed(tensors, **changes):
    return {name: array for name, array in (tensors | changes).items() if array is not None}


@pytest.mark.parametrize(
    ("config", "changes", "match"),
    [
        ({}, {"model.norm.weight": None}, "lack tensor model.norm.weight"),
        ({}, {"lm_head.bias": np.zeros(3, np.float32)}, "hold tensor lm_head.bias, which is not in the model"),
        ({}, {"model.norm.weight": np.zeros(17, np.float32)}, r"norm.weight has shape \[17\], and .*hidden_size=16"),
        ({"vocab_size": 130}, {}, r"embed_tokens.weight has shape \[131, 16\], and .*vocab_size=130.* \[130, 16\]"),
        ({"num_hidden_layers": 4}, {}, "num_hidden_layers=4, and the files hold 3 layers"),
        ({"num_hidden_layers": 2}, {}, "num_hidden_layers=2, and the files hold 3 layers"),
        ({"tie_word_embeddings": True}, {}, "lm_head.weight differs from model.embed_tokens.weight"),
        ({}, {"model.norm.weight": np.zeros(16, np.int8)}, "model.norm.weight is of type I8"),
    ],
)  # fmt: skip
def test_accounted_for(tmp_path, config, changes, match):
    tensors = changed(random_tensors(CONFIGS["llama"]), **changes)
    source = write_directory(tmp_path / "hf", CONFIGS["llama"] | config, tensors)
    with pytest.raises(UserError, match=match):
        into(source, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    source = write_directory(tmp_path / "hf", CONFIGS["llama"], random_tensors(CONFIGS["llama"]))

    def fail(name, done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_hf(source, tmp_path / "run", say=print, tick=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    into(source, tmp_path / "run")
    with pytest.raises(UserError, match="is there already"):
        into(source, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        export_hf(tmp_path / "run", tmp_path / "back", say=print, tick=fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "run"]


def test_tokenizer_and_model_belong_together(tmp_path):
    hf = CONFIGS["gpt2"] | {"vocab_size": 100}
    source = write_directory(tmp_path / "hf", hf, random_tensors(hf))
    with pytest.raises(UserError, match=r"has 131 tokens and config\.json vocab_size=100"):
        into(source, tmp_path / "run")
    (source / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.json"):
        into(source, tmp_path / "run")


def trained(run, config):
    """A run directory as training leaves it: Orbax's layout, several layers in one chunk."""
    params = drawn_params(make_decoder(config))
    run = RunDir(run)
    with Checkpointer(run.checkpoints_path) as checkpointer:
        checkpointer.save(7, {"step": jnp.asarray(7), "params": params}, {})
    write_json(run.config_path, {"config": {"model": config_to_dict(config), "data": {"add_bos": True}}})
    ByteTokenizer().save(run.tokenizer_path)
    return make_decoder(config), params


@pytest.mark.parametrize(
    ("fields", "filled"),
    [
        ({"norm_scale": False, "window_pattern": (None,)}, True),
        ({"mlp": "gelu", "norm": "layernorm", "position": "learned", "qk_norm": False}, True),
        ({"qk_norm": False, "vocab_multiple": 64, "tie_embeddings": False}, False),
    ],
)
def test_a_model_trained_here(tmp_path, fields, filled):
    """Exported, gains and biases filled in, padding rows cut off, and imported again: the same logits."""
    config = DecoderConfig(
        vocab_size=282, model_dim=16, num_heads=2, mlp_dim=24, num_layers=3, max_seq_len=32, **fields
    )
    model, params = trained(tmp_path / "run", config)
    figures, lines = out(tmp_path / "run", tmp_path / "hf")
    assert figures["step"] == 7
    assert any("written as ones and zeros" in line for line in lines) == filled
    into(tmp_path / "hf", tmp_path / "again")
    again: Any = jaxlm.load(tmp_path / "again")
    tokens = np.random.default_rng(0).integers(0, 282, (2, 20))
    np.testing.assert_allclose(again.logits(tokens), model.apply_fn(params, jnp.asarray(tokens, jnp.int32)), atol=1e-5)
    here: Any = jaxlm.load(tmp_path / "run")
    assert again.encode("hé") == here.encode("hé")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["bos_token_id"] == ByteTokenizer().bos_id


def test_a_plan_that_is_not_kept_is_found(tmp_path):
    plan = [Planned("a", (3, 2), np.dtype(np.float32))]
    with pytest.raises(RuntimeError, match="a has 16 bytes, not 24"):
        write_tensors(tmp_path, plan, lambda _: iter([np.zeros((2, 2), np.float32)]), max_file_bytes=100)


def test_a_config_of_another_run(tmp_path):
    config = DecoderConfig(vocab_size=282, model_dim=16, num_heads=2, num_layers=1, max_seq_len=32)
    trained(tmp_path / "run", config)
    for other, match in (
        (dataclasses.replace(config, model_dim=32), r"holds embed/table of shape \(282, 16\), not \(282, 32\)"),
        (dataclasses.replace(config, tie_embeddings=False), "holds no head/kernel"),
    ):
        write_json(tmp_path / "run" / "config.json", {"config": {"model": config_to_dict(other)}})
        with pytest.raises(UserError, match=match):
            out(tmp_path / "run", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

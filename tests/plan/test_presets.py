# pyright: reportArgumentType=false
"""Published shapes: their counts, in closed form and as their trees, the command that shows them, and their configs."""

import dataclasses
import importlib
import json
from pathlib import Path

import jax
import pytest

from jaxlm.core.errors import UserError
from jaxlm.core.tree import count_params
from jaxlm.models.decoder import DecoderConfig, MlaConfig, MoeConfig, make_decoder
from jaxlm.models.families import make_model
from jaxlm.models.presets import ENCODERS, PRESETS, any_preset, preset
from jaxlm.plan import families
from jaxlm.plan.activations import Share, decoder_step_bytes
from jaxlm.plan.flops import attention_flops_per_token, forward_flops_per_token, train_flops_per_token
from jaxlm.plan.memory import kv_cache_bytes_per_token
from jaxlm.plan.model import plan_model
from jaxlm.plan.params import count_decoder_params, param_shapes
from jaxlm.run.config import PretrainConfig
from jaxlm.sharding.rules import check_divides, match_rules
from tools import plan

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "palm-540b": 540_354_281_472 + 119 * 18_432,  # the shape's matrices and table, and one gain a LayerNorm
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "gemma3-270m": 268_098_176,
    "gemma3-1b": 999_885_952,
    "gemma3-27b": 27_009_346_304,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
}
"""GPT-3 and PaLM by their papers' shapes; the others as transformers counts a model of the same shape."""

MLA = MlaConfig(kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
SMALL = {"vocab_size": 31, "num_layers": 2, "model_dim": 16, "num_heads": 2}
FORMS = [
    {"mla": MLA, "qk_norm": False, "bias": True, "norm": "layernorm"},
    {"mla": MlaConfig(q_lora_rank=None), "qk_norm": False, "norm_scale": False},
    {"moe": MoeConfig(shared_dim=12), "mlp": "relu2", "tie_embeddings": False},
    {"moe": MoeConfig(num_experts=3, top_k=1), "output_norms": True, "vocab_multiple": 8},
    {"bias": True, "norm": "layernorm", "position": "learned", "mlp": "swiglu", "parallel_block": True},
    {"mlp": "none", "output_norms": True},
]


@pytest.mark.parametrize(
    "config", [*(make() for make in PRESETS.values()), *(DecoderConfig(**SMALL, **f) for f in FORMS)]
)
def test_counts_in_closed_form_are_those_of_the_tree(config):
    assert count_decoder_params(config).total == count_params(param_shapes(make_decoder(config)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    assert count_decoder_params(preset(name)).total == PUBLISHED[name]


def test_a_token_meets_its_experts_alone():
    counts = count_decoder_params(preset("mixtral-8x7b"))
    assert counts.total - counts.active == 32 * 6 * 3 * 4096 * 14336
    assert counts.matmul == counts.active - 32000 * 4096


def test_flops_of_experts_latents_and_windows():
    dense, sparse = (DecoderConfig(**SMALL, moe=moe) for moe in (None, MoeConfig(num_experts=4, top_k=2)))
    expert = 3 * dense.mlp_width * 16
    more = 2 * 2 * (expert + 4 * 16)  # 2 FLOPs, 2 layers: one expert more and the router
    assert forward_flops_per_token(sparse, 32) - forward_flops_per_token(dense, 32) == more
    assert train_flops_per_token(sparse, 32) == 3 * forward_flops_per_token(sparse, 32)
    latent = DecoderConfig(**SMALL, **FORMS[0])
    assert attention_flops_per_token(latent, 31) == 2 * 2 * 2 * (12 + 6) * 16
    gemma = preset("gemma3-1b")
    assert attention_flops_per_token(gemma, 512) == 26 * 4 * 4 * 256 * 513 / 2
    local = attention_flops_per_token(gemma, 32768) / (26 * 4 * 4 * 256 * 32769 / 2)
    assert 4 / 26 < local < 5 / 26  # 4 of 26 layers are global


def test_the_cache_of_a_token():
    assert kv_cache_bytes_per_token(preset("llama3-8b")) == 32 * 2 * 8 * 128 * 2
    assert kv_cache_bytes_per_token(DecoderConfig(**SMALL, **FORMS[0])) == 2 * (16 + 4) * 2
    for form in ({}, FORMS[0]):
        config = DecoderConfig(**SMALL, **form, compute_dtype="bfloat16")
        init_cache = make_decoder(config).init_cache
        cache = jax.eval_shape(lambda: init_cache(1, 1))  # noqa: B023
        held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache.layers))
        assert held == kv_cache_bytes_per_token(config)


def test_experts_keep_room_for_all_tokens_of_their_group():
    def kept(**ways):
        config = DecoderConfig(**SMALL, moe=MoeConfig())
        return decoder_step_bytes(config, Share(1, 64, **ways)).kept

    assert kept(expert_ways=4) > 2 * kept()


def test_the_command_prints_one_line_of_json(capsys):
    assert plan.main(["model", "llama3-8b", "--seq-len", "8192"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert out.count("\n") == 1
    assert figures == {"model": "llama3-8b", **plan_model(preset("llama3-8b"), 8192)}
    assert "8,030,261,248" in err
    assert figures["adamw_bytes"] == 12 * figures["num_params"]


@pytest.mark.parametrize(("name", "count"), [("bert-base", 109_482_240), ("bert-large", 335_141_888)])
def test_encoders_by_the_command(name, count, capsys):
    """Published counts: the pooler is in them, the head that predicts symbols is not. It is trained, though."""
    assert plan.main(["model", name]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert figures["num_params"] == count
    assert f"{count:,}" in err
    assert figures["adamw_bytes"] == 12 * (count + figures["head_params"])
    assert figures["adamw_bytes"] == 12 * count_params(param_shapes(make_model(any_preset(name))))
    assert figures["train_flops_per_token"] == families.train_flops_per_token(any_preset(name), 512)
    assert "cache" not in (out + err).lower()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["model", "llama-8b"], "unknown model 'llama-8b': did you mean llama3-8b"),
        (["model", "xyz"], "there are gpt2, "),
        (["model", "bert-bas"], "unknown model 'bert-bas': did you mean bert-base"),
        (["align", "bert-base"], "unknown model 'bert-base': there are gpt2, "),
        (["model", "gpt2", "--seq-len", "2048"], "--seq-len 2048 is outside 1 to 1024"),
    ],
)
def test_wrong_names_are_one_line_and_exit_code_2(argv, words, capsys):
    assert plan.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_unknown_presets_are_refused():
    with pytest.raises(UserError, match=r"qwen3-0\.6b"):
        preset("qwen3-0.6")


@pytest.mark.parametrize("name", ["gpt2", "gpt3", "palm", "llama3", "qwen3", "qwen3_moe", "gemma3", "mixtral"])
def test_every_size_of_a_family_is_a_config_that_its_mesh_can_hold(name, repo: Path):
    module = importlib.import_module(f"configs.{name}")
    sizes = [make for key, make in vars(module).items() if callable(make) and make.__module__ == module.__name__]
    assert (repo / "configs" / f"{name}.py").is_file()
    for make in sizes:
        config = make()
        assert isinstance(config, PretrainConfig)
        ways = config.mesh.fsdp * config.mesh.expert * (config.mesh.data or 1)
        assert config.microbatch_size % ways == 0
        shapes = param_shapes(make_decoder(config.model))
        specs = match_rules(make_decoder(config.model).rules, shapes)
        axes = {"data": 1, "fsdp": config.mesh.fsdp, "expert": config.mesh.expert, "model": config.mesh.model}
        check_divides(shapes, specs, axes)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_has_a_config(name):
    config = importlib.import_module(f"configs.{name.replace('-', '_')}").config()
    published = {"vocab_size": 30522, "vocab_multiple": 1, "compute_dtype": "float32"}
    assert dataclasses.replace(config.model, **published) == any_preset(name)

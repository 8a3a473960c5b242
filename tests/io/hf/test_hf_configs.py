"""config.json and ours: there and back, and refusals by name."""

import dataclasses
import math

import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.hf.configs import _FREE, find_family, read_config, write_config
from jaxlm.models.decoder import DecoderConfig, MlaConfig, RopeConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.recurrent import RecurrentConfig
from tests.io.hf.directories import CONFIGS

BERT_FORM = EncoderConfig(vocab_size=9, num_token_types=0)


def read(hf):
    return read_config(find_family(hf), hf)


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(name):
    """What is read, written and read again is the same model, in the same family."""
    config = read(CONFIGS[name])
    family, hf = write_config(config)
    assert family is find_family(CONFIGS[name])
    assert read(hf) == dataclasses.replace(config, **({"mlp_dim": 64} if name == "gpt2" else {}))
    assert write_config(read(hf))[1] == hf


def test_layers_of_two_kinds():
    types = ["sliding_attention", "sliding_attention", "full_attention"] * 2 + ["sliding_attention"]
    config = read(CONFIGS["gemma3"] | {"layer_types": types})
    assert config.window_pattern == (8, 8, None)
    assert read(CONFIGS["gemma3"]).window_pattern == (8, 8, 8, 8, 8, None)
    assert read(CONFIGS["mixtral"] | {"sliding_window": 16}).window_pattern == (16,)
    assert read(CONFIGS["qwen3"] | {"sliding_window": 16}).window_pattern == (None,)
    switched = CONFIGS["qwen3"] | {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2}
    assert read(switched).window_pattern == (None, None, 16)


def test_old_and_new_rope_are_the_same():
    old = CONFIGS["llama31"]
    params = old["rope_scaling"] | {"rope_theta": old["rope_theta"]}
    new = {k: v for k, v in old.items() if not k.startswith("rope")} | {"rope_parameters": params}
    assert read(new) == read(old)
    assert read(old).rope == RopeConfig(theta=5e5, scaling="llama3", factor=8.0, original_max_seq_len=8192)
    assert read(CONFIGS["gemma3"]).rope == RopeConfig(theta=1e6, local_theta=1e4, scaling="linear", factor=8.0)


@pytest.mark.parametrize("name", ["llama", "llama31", "qwen3", "gemma3", "mixtral", "qwen3_moe"])
def test_older_transformers_finds_the_rope(name):
    """Version 4.x reads rope_theta, rope_scaling and rope_local_base_freq alone: the same model."""
    config = read(CONFIGS[name])
    _, hf = write_config(config)
    old = {key: value for key, value in hf.items() if key != "rope_parameters"}
    assert read(old) == read(hf) == config
    assert hf["rope_theta"] == config.rope.theta
    assert (hf["rope_scaling"] is None) == (config.rope.scaling == "none")
    if name == "gemma3":
        assert hf["rope_local_base_freq"] == 1e4
        assert hf["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


ROPES = {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("qwen3", {"rope_theta": 5e5}, "rope_theta=500000.0, and rope_parameters says otherwise"),
        ("qwen3", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling=.*'factor': 2.0"),
        ("llama31", {"rope_parameters": {"rope_theta": 5e5}}, "rope_scaling=.*llama3.*rope_parameters says otherwise"),
        ("llama31", {"rope_scaling": {"type": "linear", "factor": 2, "rope_theta": 7}}, "rope_theta=500000.0, and"),
        ("gemma3", {"rope_parameters": ROPES | {"sliding_attention": {"rope_theta": 2e4}}}, "rope_local_base_freq="),
        ("gemma3", {"rope_parameters": ROPES | {"full_attention": {"rope_theta": 1e6}}}, "rope_scaling="),
        ("gemma3", {"rope_parameters": ROPES["full_attention"]}, "rope_parameters for factor"),
        ("llama", {"rope_local_base_freq": 1e4}, "rope_local_base_freq=10000.0, which jaxlm does not know"),
    ],
)
def test_ropes_that_contradict_each_other(name, change, match):
    with pytest.raises(UserError, match=match):
        read(CONFIGS[name] | change)


def test_ropes_that_agree():
    assert read(CONFIGS["gemma3"] | {"rope_parameters": ROPES}) == read(CONFIGS["gemma3"])
    assert read(CONFIGS["qwen3"] | {"rope_theta": 1e6, "rope_scaling": None}) == read(CONFIGS["qwen3"])


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("llama", {"architectures": ["FalconForCausalLM"]}, "'FalconForCausalLM' is not supported"),
        ("gemma3", {"architectures": ["Gemma3ForConditionalGeneration"]}, "is not supported"),
        ("llama", {"hidden_act": "relu"}, "hidden_act='relu'"),
        ("llama", {"attention_bias": True}, "attention_bias=True"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config="),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "without original_max_position"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "mscale": 1.0}}, "mscale=1.0"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("llama", {"hidden_size": "16"}, "model_dim='16' is not of type int"),
        ("llama", {"num_attention_heads": 3}, "not a multiple of num_kv_heads"),
        ("llama", {"num_hidden_layers": -1}, "gives -1 layers"),
        ("llama", {"rms_norm_eps": "tiny"}, "norm_eps='tiny' is not of type float"),
        ("qwen3_moe", {"mlp_only_layers": [1]}, r"mlp_only_layers=\[1\]"),
        ("gemma3", {"layer_types": ["full_attention"]}, "1 layer_types .* for 7 layers"),
        ("gemma3", {"layer_types": ["chunked_attention"] * 7}, "chunked_attention"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping=50\.0, .* with None only"),
        ("gpt2", {"activation_function": "gelu"}, "activation_function='gelu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse"),
        ("bert", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("llama", {"surprise": 3}, "surprise=3"),
        ("llama", {"rope_scaling": 3}, "cannot be read as LlamaForCausalLM"),
        ("llama", {"rope_parameters": [1]}, "cannot be read as LlamaForCausalLM"),
        ("llama", {"vocab_size": None}, "lacks vocab_size"),
        ("gpt2", {"vocab_size": None}, "lacks vocab_size"),
        ("llama", {"head_dim": 10**12}, r"head_dim=1e\+12, which is no size"),
        ("bert", {"hidden_size": 10**40}, r"hidden_size=1e\+40, which is no size"),
        ("bert", {"vocab_size": [131]}, r"vocab_size=\[131\] is not of type int"),
        ("llama", {"rms_norm_eps": math.inf}, "norm_eps=inf is no number"),
        ("llama", {"rope_theta": math.nan}, "rope_theta=nan|theta=nan"),
        ("llama", {"rope_parameters": {"rope_type": []}}, "cannot be read as LlamaForCausalLM"),
        ("gemma3", {"rope_parameters": {"full_attention": 3}}, "cannot be read as Gemma3ForCausalLM"),
        ("mixtral", {"sliding_window": "8"}, "sliding_window='8', which is no whole number"),
        ("gemma3", {"sliding_window": 2.5}, "sliding_window=2.5, which is no whole number"),
        ("qwen3", {"sliding_window": True, "use_sliding_window": True}, "sliding_window=True, which is no whole"),
        ("llama", {"architectures": 3}, "3 is not supported"),
        ("gemma3", {"layer_types": 5}, "cannot be read as Gemma3ForCausalLM"),
        ("gemma3", {"sliding_window_pattern": 0}, "cannot be read as Gemma3ForCausalLM"),
    ],
)
def test_refused_by_name(name, change, match):
    with pytest.raises(UserError, match=match):
        read(CONFIGS[name] | change)


def test_missing_settings_are_named():
    hf = {k: v for k, v in CONFIGS["llama"].items() if k != "hidden_size"}
    with pytest.raises(UserError, match="lacks hidden_size"):
        read(hf)


def test_models_of_ours():
    """Our default decoder, without gains or biases, is a Qwen3; the bias-free GPT-2 form is a GPT-2."""
    config = DecoderConfig(vocab_size=256, norm_scale=False, dropout=0.1, vocab_multiple=64, scan_layers=False)
    assert write_config(config)[0].architecture == "Qwen3ForCausalLM"
    assert write_config(dataclasses.replace(config, qk_norm=False))[0].architecture == "LlamaForCausalLM"
    gpt = DecoderConfig(vocab_size=256, mlp="gelu", norm="layernorm", position="learned", qk_norm=False)
    assert write_config(gpt)[0].architecture == "GPT2LMHeadModel"


FREE = {
    "vocab_multiple": 64, "dropout": 0.1, "zero_init_outputs": True, "zero_init_head": True, "init_std": 0.1,
    "param_dtype": "bfloat16", "compute_dtype": "bfloat16", "scan_layers": False, "remat_policy": "full",
    "attention": "xla", "kernels": "xla", "logits_dtype": "bfloat16", "quantization": "int8",
}  # fmt: skip


@pytest.mark.parametrize("name", FREE)
def test_what_alters_no_trained_model_stands_in_no_way(name):
    """Set away from its default: the config that is written is the same."""
    assert FREE.keys() == set(_FREE)
    for config in (DecoderConfig(vocab_size=256, tie_embeddings=False), read(CONFIGS["bert"])):
        if hasattr(config, name):
            assert getattr(config, name) != FREE[name]
            assert write_config(dataclasses.replace(config, **{name: FREE[name]})) == write_config(config)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (DecoderConfig(vocab_size=9, parallel_block=True), "parallel_block: True -> False"),
        (DecoderConfig(vocab_size=9, logit_softcap=30.0), "logit_softcap: 30.0 -> None"),
        (dataclasses.replace(read(CONFIGS["gemma3"]), attn_softcap=50.0), "attn_softcap: 50.0 -> None"),
        (DecoderConfig(vocab_size=9, mla=MlaConfig(), qk_norm=False), "mla"),
        (RecurrentConfig(vocab_size=9), "computes this recurrent"),
        (BERT_FORM, "num_token_types=0: BERT's form has a table"),
    ],
)
def test_what_has_no_form_there(config, match):
    with pytest.raises(UserError, match=match):
        write_config(config)

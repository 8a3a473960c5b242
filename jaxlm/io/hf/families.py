"""The families as tables: which tensor of theirs is which parameter of ours, and what their config's names mean here.

One table serves both directions. In a tensor's name ``{i}`` is the layer and ``{e}`` the expert; a parameter on a row
with ``{i}`` is named within its layer.
"""

from typing import Any, Literal, NamedTuple

KEEP, TURN = False, True
"""Whether a matrix is transposed: a Linear there is [out, in], a kernel here [in, out]."""


class Row(NamedTuple):
    """One line of a table."""

    tensor: str
    ours: str | tuple[str, ...]
    """A parameter, or several that lie side by side in the tensor's last axis."""
    turn: bool = KEEP


class Family(NamedTuple):
    """One family of theirs."""

    architecture: str
    model_type: str
    rows: tuple[Row, ...]
    fields: dict[str, tuple[str, Any]]
    """Their name -> (our field, dotted; their default where config.json is silent, ... = it must say)."""
    fixed: dict[str, tuple[Any, ...]]
    """Their name -> the values that mean what jaxlm computes; the first is their default, and what is written."""
    ours: dict[str, Any]
    """Our field -> the value that it has in every model of the family."""
    record: Literal["decoder", "encoder"] = "decoder"
    """Our kind of model."""
    rope: Literal["none", "one", "two"] = "one"
    """Rotation: none, one for all layers, or one each for global and local layers."""
    windows: Literal["none", "one", "types"] = "none"
    """Windows: none, one for all layers, or by a list of layer types."""
    switched: bool = False
    """Whether windows count only with ``use_sliding_window``."""
    theta: float = 10000.0
    """The rotation's base where config.json is silent."""
    tied: tuple[tuple[str, str], ...] = (("lm_head.weight", "model.embed_tokens.weight"),)
    """Tensors that older files repeat: (copy, original), in files of tied models."""
    left_out: tuple[str, ...] = (r"rotary_emb\.inv_freq$",)
    """Tensors that hold nothing to be learned, or nothing of the language model."""
    prefix: str = ""
    """What some files leave off all names."""
    spellings: tuple[tuple[str, str], ...] = ()
    """Older spellings in tensors' names: (regex, present form)."""


_STACK = (
    Row("model.embed_tokens.weight", "embed/table"),
    Row("model.layers.{i}.input_layernorm.weight", "attn_norm/scale"),
    Row("model.layers.{i}.self_attn.q_proj.weight", "attn/q/kernel", TURN),
    Row("model.layers.{i}.self_attn.k_proj.weight", "attn/k/kernel", TURN),
    Row("model.layers.{i}.self_attn.v_proj.weight", "attn/v/kernel", TURN),
    Row("model.layers.{i}.self_attn.o_proj.weight", "attn/o/kernel", TURN),
    Row("model.norm.weight", "final_norm/scale"),
    Row("lm_head.weight", "head/kernel", TURN),
)
_GATED = (
    Row("model.layers.{i}.mlp.gate_proj.weight", "mlp/gate/kernel", TURN),
    Row("model.layers.{i}.mlp.up_proj.weight", "mlp/up/kernel", TURN),
    Row("model.layers.{i}.mlp.down_proj.weight", "mlp/down/kernel", TURN),
)
_MLP_NORM = (Row("model.layers.{i}.post_attention_layernorm.weight", "mlp_norm/scale"),)
_QK_NORM = (
    Row("model.layers.{i}.self_attn.q_norm.weight", "attn/q_norm/scale"),
    Row("model.layers.{i}.self_attn.k_norm.weight", "attn/k_norm/scale"),
)

_SIZES: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", ...),
    "hidden_size": ("model_dim", ...),
    "num_hidden_layers": ("num_layers", ...),
    "num_attention_heads": ("num_heads", ...),
    "num_key_value_heads": ("num_kv_heads", None),
    "head_dim": ("head_dim", None),
    "intermediate_size": ("mlp_dim", ...),
    "max_position_embeddings": ("max_seq_len", ...),
    "rms_norm_eps": ("norm_eps", 1e-6),
    "tie_word_embeddings": ("tie_embeddings", False),
}
_LLAMA_FORM: dict[str, Any] = {"mlp": "swiglu", "qk_norm": False, "bias": False}
_SILU: dict[str, tuple[Any, ...]] = {"hidden_act": ("silu", "swish")}

LLAMA = Family(
    "LlamaForCausalLM",
    "llama",
    _STACK + _MLP_NORM + _GATED,
    _SIZES,
    _SILU | {"attention_bias": (False,), "mlp_bias": (False,), "pretraining_tp": (1,)},
    _LLAMA_FORM,
)
QWEN3 = Family(
    "Qwen3ForCausalLM",
    "qwen3",
    _STACK + _MLP_NORM + _QK_NORM + _GATED,
    _SIZES | {"head_dim": ("head_dim", 128), "num_key_value_heads": ("num_kv_heads", 32)},
    _SILU | {"attention_bias": (False,)},
    _LLAMA_FORM | {"qk_norm": True},
    windows="types",
    switched=True,
)
GEMMA3 = Family(
    "Gemma3ForCausalLM",
    "gemma3_text",
    _STACK
    + _QK_NORM
    + _GATED
    + (
        Row("model.layers.{i}.post_attention_layernorm.weight", "attn_out_norm/scale"),
        Row("model.layers.{i}.pre_feedforward_layernorm.weight", "mlp_norm/scale"),
        Row("model.layers.{i}.post_feedforward_layernorm.weight", "mlp_out_norm/scale"),
    ),
    _SIZES
    | {
        "head_dim": ("head_dim", 256),
        "num_attention_heads": ("num_heads", 8),
        "num_key_value_heads": ("num_kv_heads", 4),
        "vocab_size": ("vocab_size", 262208),
        "max_position_embeddings": ("max_seq_len", 131072),
        "tie_word_embeddings": ("tie_embeddings", True),
        "query_pre_attn_scalar": ("query_pre_attn_scalar", 256),
        "final_logit_softcapping": ("logit_softcap", None),
    },
    {
        "hidden_activation": ("gelu_pytorch_tanh",),
        "attention_bias": (False,),
        "use_bidirectional_attention": (False, None),
        "attn_logit_softcapping": (None,),  # transformers reads it, and caps nothing
    },
    _LLAMA_FORM
    | {
        "mlp": "geglu",
        "qk_norm": True,
        "norm_offset": True,
        "output_norms": True,
        "embed_scale": True,
        "attn_softcap": None,
    },
    rope="two",
    windows="types",
    theta=1e6,
)
MIXTRAL = Family(
    "MixtralForCausalLM",
    "mixtral",
    _STACK
    + _MLP_NORM
    + (
        Row("model.layers.{i}.block_sparse_moe.gate.weight", "moe/router/kernel", TURN),
        Row("model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight", "moe/gate/kernel", TURN),
        Row("model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight", "moe/up/kernel", TURN),
        Row("model.layers.{i}.block_sparse_moe.experts.{e}.w2.weight", "moe/down/kernel", TURN),
    ),
    _SIZES
    | {
        "num_key_value_heads": ("num_kv_heads", 8),
        "rms_norm_eps": ("norm_eps", 1e-5),
        "num_local_experts": ("moe.num_experts", 8),
        "num_experts_per_tok": ("moe.top_k", 2),
    },
    _SILU,
    _LLAMA_FORM | {"moe.renormalize": True, "moe.shared_dim": None},
    windows="one",
    theta=1e6,
)
QWEN3_MOE = Family(
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    _STACK
    + _MLP_NORM
    + _QK_NORM
    + (
        Row("model.layers.{i}.mlp.gate.weight", "moe/router/kernel", TURN),
        Row("model.layers.{i}.mlp.experts.{e}.gate_proj.weight", "moe/gate/kernel", TURN),
        Row("model.layers.{i}.mlp.experts.{e}.up_proj.weight", "moe/up/kernel", TURN),
        Row("model.layers.{i}.mlp.experts.{e}.down_proj.weight", "moe/down/kernel", TURN),
    ),
    {name: field for name, field in _SIZES.items() if name != "intermediate_size"}
    | {
        "num_key_value_heads": ("num_kv_heads", 4),
        "moe_intermediate_size": ("mlp_dim", 768),
        "num_experts": ("moe.num_experts", 128),
        "num_experts_per_tok": ("moe.top_k", 8),
        "norm_topk_prob": ("moe.renormalize", False),
    },
    _SILU | {"attention_bias": (False,), "decoder_sparse_step": (1,), "mlp_only_layers": ([], None)},
    _LLAMA_FORM | {"qk_norm": True, "moe.shared_dim": None},
    windows="one",
    switched=True,
)
GPT2 = Family(
    "GPT2LMHeadModel",
    "gpt2",
    (
        Row("transformer.wte.weight", "embed/table"),
        Row("transformer.wpe.weight", "embed/positions"),
        Row("transformer.h.{i}.ln_1.weight", "attn_norm/scale"),
        Row("transformer.h.{i}.ln_1.bias", "attn_norm/bias"),
        Row("transformer.h.{i}.attn.c_attn.weight", ("attn/q/kernel", "attn/k/kernel", "attn/v/kernel")),
        Row("transformer.h.{i}.attn.c_attn.bias", ("attn/q/bias", "attn/k/bias", "attn/v/bias")),
        Row("transformer.h.{i}.attn.c_proj.weight", "attn/o/kernel"),
        Row("transformer.h.{i}.attn.c_proj.bias", "attn/o/bias"),
        Row("transformer.h.{i}.ln_2.weight", "mlp_norm/scale"),
        Row("transformer.h.{i}.ln_2.bias", "mlp_norm/bias"),
        Row("transformer.h.{i}.mlp.c_fc.weight", "mlp/up/kernel"),
        Row("transformer.h.{i}.mlp.c_fc.bias", "mlp/up/bias"),
        Row("transformer.h.{i}.mlp.c_proj.weight", "mlp/down/kernel"),
        Row("transformer.h.{i}.mlp.c_proj.bias", "mlp/down/bias"),
        Row("transformer.ln_f.weight", "final_norm/scale"),
        Row("transformer.ln_f.bias", "final_norm/bias"),
        Row("lm_head.weight", "head/kernel", TURN),
    ),
    {
        "vocab_size": ("vocab_size", 50257),
        "n_positions": ("max_seq_len", 1024),
        "n_embd": ("model_dim", 768),
        "n_layer": ("num_layers", 12),
        "n_head": ("num_heads", 12),
        "n_inner": ("mlp_dim", None),
        "layer_norm_epsilon": ("norm_eps", 1e-5),
        "tie_word_embeddings": ("tie_embeddings", True),
    },
    {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    {
        "mlp": "gelu",
        "norm": "layernorm",
        "bias": True,
        "qk_norm": False,
        "position": "learned",
        "num_kv_heads": None,
        "head_dim": None,
    },
    rope="none",
    tied=(("lm_head.weight", "transformer.wte.weight"),),
    left_out=(r"(^|\.)h\.\d+\.attn\.(masked_)?bias$",),
    prefix="transformer.",
)

_BERT = "bert.encoder.layer.{i}."
_BERT_BODY = (
    Row("bert.embeddings.word_embeddings.weight", "embed/table"),
    Row("bert.embeddings.position_embeddings.weight", "embed/positions"),
    Row("bert.embeddings.token_type_embeddings.weight", "embed/types"),
    Row("bert.embeddings.LayerNorm.weight", "embed_norm/scale"),
    Row("bert.embeddings.LayerNorm.bias", "embed_norm/bias"),
    Row(_BERT + "attention.self.query.weight", "attn/q/kernel", TURN),
    Row(_BERT + "attention.self.query.bias", "attn/q/bias"),
    Row(_BERT + "attention.self.key.weight", "attn/k/kernel", TURN),
    Row(_BERT + "attention.self.key.bias", "attn/k/bias"),
    Row(_BERT + "attention.self.value.weight", "attn/v/kernel", TURN),
    Row(_BERT + "attention.self.value.bias", "attn/v/bias"),
    Row(_BERT + "attention.output.dense.weight", "attn/o/kernel", TURN),
    Row(_BERT + "attention.output.dense.bias", "attn/o/bias"),
    Row(_BERT + "attention.output.LayerNorm.weight", "attn_norm/scale"),
    Row(_BERT + "attention.output.LayerNorm.bias", "attn_norm/bias"),
    Row(_BERT + "intermediate.dense.weight", "mlp/up/kernel", TURN),
    Row(_BERT + "intermediate.dense.bias", "mlp/up/bias"),
    Row(_BERT + "output.dense.weight", "mlp/down/kernel", TURN),
    Row(_BERT + "output.dense.bias", "mlp/down/bias"),
    Row(_BERT + "output.LayerNorm.weight", "mlp_norm/scale"),
    Row(_BERT + "output.LayerNorm.bias", "mlp_norm/bias"),
)
BERT = Family(
    "BertForMaskedLM",
    "bert",
    _BERT_BODY
    + (
        Row("cls.predictions.transform.dense.weight", "head/dense/kernel", TURN),
        Row("cls.predictions.transform.dense.bias", "head/dense/bias"),
        Row("cls.predictions.transform.LayerNorm.weight", "head/norm/scale"),
        Row("cls.predictions.transform.LayerNorm.bias", "head/norm/bias"),
        Row("cls.predictions.bias", "head/bias"),
    ),
    {
        "vocab_size": ("vocab_size", 30522),
        "hidden_size": ("model_dim", 768),
        "num_hidden_layers": ("num_layers", 12),
        "num_attention_heads": ("num_heads", 12),
        "intermediate_size": ("mlp_dim", 3072),
        "max_position_embeddings": ("max_seq_len", 512),
        "type_vocab_size": ("num_token_types", 2),
        "layer_norm_eps": ("norm_eps", 1e-12),
    },
    {
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "tie_word_embeddings": (True,),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    {
        "mlp": "gelu_exact",
        "norm": "layernorm",
        "post_norm": True,
        "bias": True,
        "qk_norm": False,
        "position": "learned",
        "embed_norm": True,
        "pooler": False,
    },
    record="encoder",
    rope="none",
    tied=(
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ),
    left_out=(r"^bert\.pooler\.", r"^cls\.seq_relationship\.", r"\.position_ids$"),
    spellings=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
)

_CLASSIFIER = (Row("classifier.weight", "classifier/kernel", TURN), Row("classifier.bias", "classifier/bias"))
_POOLER = (Row("bert.pooler.dense.weight", "pooler/kernel", TURN), Row("bert.pooler.dense.bias", "pooler/bias"))
BERT_CLASSIFY = BERT._replace(
    architecture="BertForSequenceClassification",
    rows=_BERT_BODY + _POOLER + _CLASSIFIER,
    ours=BERT.ours | {"pooler": True},
)
"""Fine-tuned runs are written as these two, and not read."""
BERT_TAG = BERT._replace(architecture="BertForTokenClassification", rows=_BERT_BODY + _CLASSIFIER)

FAMILIES: tuple[Family, ...] = (GPT2, LLAMA, QWEN3, GEMMA3, MIXTRAL, QWEN3_MOE, BERT)

NO_MATTER = (
    "architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache",
    "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id",
    "attention_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob", "classifier_dropout",
    "attention_probs_dropout_prob", "summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "reorder_and_upcast_attn", "output_router_logits", "router_aux_loss_coef",
    "router_jitter_noise", "task_specific_params", "n_ctx", "gradient_checkpointing", "cache_implementation",
    "_attn_implementation", "attn_implementation", "id2label", "label2id", "problem_type", "auto_map",
    "generation_config", "intermediate_size", "language", "cls_token_id",
)  # fmt: skip
"""Names in config.json that do not alter the logits where a family's own table does not name them."""

"""The shape of a decoder: one frozen record, checked at birth, its derived sizes properties."""

import dataclasses
import math
from typing import Literal, get_args

from jaxlm.core.dtypes import DType, as_dtype
from jaxlm.core.fields import ADDED
from jaxlm.models import shapes
from jaxlm.models.shapes import Position
from jaxlm.models.stack import RematPolicy
from jaxlm.nn.attention import Implementation, choose_implementation
from jaxlm.nn.kernels import KernelMissing, Kernels, choose_kernels, no_kernel
from jaxlm.nn.latent_attention import MlaConfig
from jaxlm.nn.mlp import MlpKind
from jaxlm.nn.moe import MoeConfig
from jaxlm.nn.norms import NormKind
from jaxlm.nn.quantized import Quantization
from jaxlm.nn.rope import RopeConfig


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only Transformer. The defaults are a small modern one; every field stands alone."""

    family: Literal["decoder"] = "decoder"
    vocab_size: int | None = None
    """Symbols that are predicted; None = the tokenizer's, filled in before the model is made."""
    vocab_multiple: int = 1
    """Rows of the table are padded to a multiple of this, so that an odd vocabulary divides over a mesh."""
    max_seq_len: int = 1024
    """Longest context: rows of the learned positions, and the default capacity when generating."""
    num_layers: int = 4
    """Blocks of attention and MLP."""
    model_dim: int = 128
    """Width of the stream between layers."""
    num_heads: int = 4
    """Query heads."""
    num_kv_heads: int | None = None
    """Key and value heads; None = num_heads. 1 is multi-query attention."""
    head_dim: int | None = None
    """Width of a head; None = model_dim / num_heads."""
    mlp_dim: int | None = None
    """Inner width of the MLP, with ``moe`` that of each expert; None = 4 model_dim, or 8/3 model_dim rounded up to a
    multiple of 8 for the gated kinds."""
    mlp: MlpKind = "swiglu"
    """Kind of the MLP: gated (swiglu, geglu) or not; none: attention alone."""
    moe: MoeConfig | None = None
    """Experts in place of each layer's MLP; None = one MLP for all tokens."""
    mla: MlaConfig | None = None
    """Latent attention; None = queries, keys and values each by one map."""
    norm: NormKind = "rmsnorm"
    """Kind of all norms."""
    norm_scale: bool = True
    """Learned gains in norms."""
    norm_offset: bool = False
    """Gains are kept as 1 + w, w starting at 0 (Gemma)."""
    output_norms: bool = False
    """Norms after attention and MLP too, before they are added to the stream (Gemma 3: four a layer)."""
    norm_eps: float = 1e-6
    """Added to the variance in norms."""
    bias: bool = False
    """Biases in linear maps, and in LayerNorms with gains."""
    qk_norm: bool = True
    """RMS-normalise queries and keys of each head (Dehghani et al. 2023)."""
    position: Position = "rope"
    """How positions are known: rope turns queries and keys, learned adds rows to the embeddings."""
    rope: RopeConfig = dataclasses.field(default_factory=RopeConfig)
    tie_embeddings: bool = True
    """The head is the embedding table."""
    logit_softcap: float | None = None
    """Logits become c tanh(logits / c) (Gemma 2)."""
    attn_softcap: float | None = None
    """The same on attention scores."""
    query_pre_attn_scalar: float | None = None
    """Scores are divided by its square root (Gemma); None = the width of a head."""
    window_pattern: tuple[int | None, ...] = (None,)
    """Layer i sees the pattern[i % len] newest positions; None = all."""
    dropout: float = 0.0
    """Rate on embeddings and on the output of each attention and MLP."""
    parallel_block: bool = False
    """Attention and MLP read one norm and are added together (GPT-J, PaLM)."""
    zero_init_outputs: bool = False
    """Attention and MLP output projections start at zero, so that each layer starts as the identity."""
    zero_init_head: bool = False
    """The free head starts at zero: the first loss is log v."""
    embed_scale: bool = False
    """Embeddings are multiplied by sqrt(model_dim) (Vaswani et al. 2017)."""
    init_std: float | None = 0.02
    """Deviation of the weights at the start, output projections divided by sqrt(2 num_layers) (GPT-2); None =
    1/sqrt(fan in)."""
    base_dim: int | None = None
    """muP: the model_dim at which rates were chosen; they then serve this model too (`docs/mup.md`). None = the
    standard parametrisation."""
    base_head_dim: int | None = None
    """Width of a head at the base; None = that of this model, heads growing in number."""
    param_dtype: DType = "float32"
    """Of the parameters that are kept."""
    compute_dtype: DType = "float32"
    """Of activations and matrix products."""
    quantization: Quantization = "none"
    """Products of the layers' linear maps in 8 bits while training: forward and backward (int8, fp8) or forward alone
    (int8_forward, fp8_forward). Parameters, embeddings, head, norms and attention's own products stay as they are.
    Needs the extra ``quant``."""
    scan_layers: bool = True
    """One compiled layer run num_layers times; False = written out: faster steps for small models, longer
    compilation."""
    remat_policy: RematPolicy = "none"
    """What the backward pass recomputes: nothing, all of a layer (full), or all but matrix products (dots). ``auto``:
    the least of these with which pretraining is thought to fit."""
    attention: Implementation = "auto"
    """What computes attention; auto: what suits the platform."""
    kernels: Kernels = dataclasses.field(default="auto", metadata=ADDED)
    """What norms, activations and the loss run on."""
    logits_dtype: DType = dataclasses.field(default="float32", metadata=ADDED)
    """What logits are rounded to; the loss's statistics are f32 all the same. bfloat16 halves the largest array."""

    def __post_init__(self) -> None:
        shapes.check_choices(self)
        if self.quantization not in get_args(Quantization):
            choices = ", ".join(get_args(Quantization))
            raise ValueError(f"model.quantization={self.quantization!r} is unknown: choose {choices}")
        positive = ["vocab_size", "vocab_multiple", "max_seq_len", "num_layers", "model_dim", "num_heads"]
        shapes.check_positive(self, [*positive, "num_kv_heads", "head_dim", "mlp_dim", "base_dim", "base_head_dim"])
        if self.mla is None and self.head_dim is None and self.model_dim % self.num_heads:
            raise ValueError(
                f"model.model_dim={self.model_dim} is not a multiple of num_heads={self.num_heads}: "
                "change one of them or set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}: "
                "change one of them"
            )
        if self.position == "rope" and self.rope_width % 2:
            raise ValueError(
                f"model.head_dim={self.head_width} is odd, and rope turns pairs: make it even or set position"
            )
        if not self.window_pattern:
            raise ValueError("model.window_pattern=() names no window: use (None,) for full attention")
        for window in self.window_pattern:
            if window is not None and window < 1:
                raise ValueError(f"model.window_pattern={self.window_pattern} holds {window}: windows are at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} is outside [0, 1)")
        for name in ("logit_softcap", "attn_softcap", "query_pre_attn_scalar", "init_std", "norm_eps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"model.{name}={value} must be above 0")
        if self.mlp == "none" and (self.mlp_dim is not None or self.moe is not None or self.parallel_block):
            raise ValueError(
                f"model.mlp='none' has no MLP for mlp_dim={self.mlp_dim}, moe={self.moe} or parallel_block="
                f"{self.parallel_block}: leave them as they are by default, or choose another kind"
            )
        if self.tie_embeddings and self.zero_init_head:
            raise ValueError(
                "model.zero_init_head=True would zero the embeddings with tie_embeddings=True: turn one of them off"
            )
        if self.base_head_dim is not None and (self.base_dim is None or self.mla is not None):
            raise ValueError(
                f"model.base_head_dim={self.base_head_dim} is for muP with heads of one width: set base_dim and no "
                "mla, or leave it None"
            )
        if self.norm_offset and not self.norm_scale:
            raise ValueError("model.norm_offset=True has no gains to offset with norm_scale=False: change one of them")
        if self.moe is not None and self.bias:
            raise ValueError("model.bias=True with model.moe: experts have no biases, set bias=False")
        if self.moe is not None and self.quantization != "none":
            raise ValueError(
                f"model.quantization={self.quantization!r} does not reach the experts of model.moe: set it to 'none'"
            )
        if self.mla is not None:
            for name in ("num_kv_heads", "head_dim"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"model.{name}={getattr(self, name)} means nothing with model.mla: leave it None, the widths "
                        "are those of mla"
                    )
            if self.qk_norm or self.position != "rope":
                raise ValueError(
                    f"model.qk_norm={self.qk_norm} and position={self.position!r} do not go with model.mla, which "
                    "normalises its latents and rotates: use qk_norm=False and position='rope'"
                )
            if self.rope.scaling == "yarn" and self.rope.local_theta is not None:
                raise ValueError(
                    "model.mla with rope.scaling='yarn' has one temperature in all layers: set rope.local_theta to None"
                )

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.model_dim // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def qk_width(self) -> int:
        """Width of a query or key head, as scores read it."""
        return self.head_width if self.mla is None else self.mla.qk_head_dim

    @property
    def v_width(self) -> int:
        """Width of a value head."""
        return self.head_width if self.mla is None else self.mla.v_head_dim

    @property
    def rope_width(self) -> int:
        """Width of what is rotated in a head."""
        return self.head_width if self.mla is None else self.mla.qk_rope_head_dim

    @property
    def attn_scale(self) -> float:
        """What scores are multiplied with. Under muP it falls with the width of a head, not with its square root: keys
        and queries that have learned something are no longer independent."""
        base = self.qk_width if self.base_head_dim is None else self.base_head_dim
        scalar = base if self.query_pre_attn_scalar is None else self.query_pre_attn_scalar
        return 1.0 / math.sqrt(scalar) * (base / self.qk_width)

    @property
    def width(self) -> float | None:
        """``model_dim`` over that of the base of muP; None in the standard parametrisation."""
        return None if self.base_dim is None else self.model_dim / self.base_dim

    @property
    def cache_shapes(self) -> dict[str, tuple[int, ...]]:
        """What the KV cache holds of one token in one layer: name -> shape."""
        if self.mla is not None:
            return {"latent": (self.mla.kv_lora_rank,), "k_rope": (self.mla.qk_rope_head_dim,)}
        return dict.fromkeys(("k", "v"), (self.kv_heads, self.head_width))

    @property
    def mlp_width(self) -> int:
        """Inner width of the MLP."""
        return shapes.mlp_width(self.mlp_dim, self.mlp, self.model_dim)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table and columns of the head."""
        return shapes.padded_vocab_size(self.vocab_size, self.vocab_multiple)

    @property
    def num_groups(self) -> int:
        """Whole repeats of ``window_pattern``, which are stacked and scanned."""
        return self.num_layers // len(self.window_pattern)

    @property
    def num_tail_layers(self) -> int:
        """Layers left over after the whole groups."""
        return self.num_layers % len(self.window_pattern)

    def pattern_window(self, layer: int) -> int | None:
        """The window of a layer as ``window_pattern`` says it, which also says how the layer's rope turns."""
        return self.window_pattern[layer % len(self.window_pattern)]

    def window(self, layer: int) -> int | None:
        """The window of a layer; one that reaches over the whole context is None."""
        window = self.pattern_window(layer)
        return None if window is not None and window >= self.max_seq_len else window


def resolve_kernels(config: DecoderConfig, platform: str, kernel_missing: KernelMissing = no_kernel) -> DecoderConfig:
    """``attention='auto'`` and ``kernels='auto'`` -> what suits ``platform`` ("cpu", "gpu", "tpu"); called once, by
    ``run/``.

    Raises UserError where the config asks for what the platform cannot do.
    """
    implementation = choose_implementation(
        config.attention,
        platform,
        dtype=as_dtype(config.compute_dtype),
        head_dim=config.qk_width,
        softcap=config.attn_softcap,
        kernel_missing=kernel_missing,
    )
    return dataclasses.replace(config, attention=implementation, kernels=choose_kernels(config.kernels, platform))

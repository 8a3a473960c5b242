"""The shape of a decoder: one frozen record, checked at birth, its derived sizes properties."""

import dataclasses
import math
from typing import Literal, get_args

from jaxlm.core.dtypes import DType, as_dtype
from jaxlm.nn.attention import IMPLEMENTATIONS, Implementation, choose_implementation
from jaxlm.nn.mlp import GATED, MlpKind
from jaxlm.nn.norms import NormKind
from jaxlm.nn.rope import RopeConfig

Position = Literal["rope", "learned", "none"]
RematPolicy = Literal["none", "full", "dots"]

_CHOICES = {
    "mlp": get_args(MlpKind),
    "norm": get_args(NormKind),
    "position": get_args(Position),
    "remat_policy": get_args(RematPolicy),
    "attention": IMPLEMENTATIONS,
    "param_dtype": get_args(DType),
    "compute_dtype": get_args(DType),
}


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
    model_dim: int = 128
    num_heads: int = 4
    num_kv_heads: int | None = None
    """Key and value heads; None = num_heads. 1 is multi-query attention."""
    head_dim: int | None = None
    """Width of a head; None = model_dim / num_heads."""
    mlp_dim: int | None = None
    """Inner width of the MLP; None = 4 model_dim, or 8/3 model_dim rounded up to a multiple of 8 for the gated
    kinds."""
    mlp: MlpKind = "swiglu"
    norm: NormKind = "rmsnorm"
    norm_scale: bool = True
    """Learned gains in norms."""
    norm_eps: float = 1e-6
    bias: bool = False
    """Biases in linear maps, and in LayerNorms with gains."""
    qk_norm: bool = True
    """RMS-normalise queries and keys of each head (Dehghani et al. 2023)."""
    position: Position = "rope"
    rope: RopeConfig = dataclasses.field(default_factory=RopeConfig)
    tie_embeddings: bool = True
    """The head is the embedding table."""
    logit_softcap: float | None = None
    """Logits become c tanh(logits / c) (Gemma 2)."""
    attn_softcap: float | None = None
    """The same on attention scores."""
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
    param_dtype: DType = "float32"
    compute_dtype: DType = "float32"
    scan_layers: bool = True
    """One compiled layer run num_layers times; False = written out: faster steps for small models, longer
    compilation."""
    remat_policy: RematPolicy = "none"
    """What the backward pass recomputes: nothing, all of a layer (full), or all but matrix products (dots)."""
    attention: Implementation = "auto"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"model.{name}={getattr(self, name)!r} is unknown: choose {', '.join(choices)}")
        positive = ["vocab_size", "vocab_multiple", "max_seq_len", "num_layers", "model_dim", "num_heads"]
        for name in [*positive, "num_kv_heads", "head_dim", "mlp_dim"]:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"model.{name}={value} must be at least 1")
        if self.head_dim is None and self.model_dim % self.num_heads:
            raise ValueError(
                f"model.model_dim={self.model_dim} is not a multiple of num_heads={self.num_heads}: "
                "change one of them or set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}: "
                "change one of them"
            )
        if self.position == "rope" and self.head_width % 2:
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
        for name in ("logit_softcap", "attn_softcap", "init_std", "norm_eps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"model.{name}={value} must be above 0")
        if self.tie_embeddings and self.zero_init_head:
            raise ValueError(
                "model.zero_init_head=True would zero the embeddings with tie_embeddings=True: turn one of them off"
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
    def mlp_width(self) -> int:
        """Inner width of the MLP."""
        if self.mlp_dim is not None:
            return self.mlp_dim
        return 8 * math.ceil(self.model_dim / 3) if self.mlp in GATED else 4 * self.model_dim

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table and columns of the head."""
        if self.vocab_size is None:
            raise ValueError("model.vocab_size=None is not resolved: set it to the tokenizer's vocab_size")
        return self.vocab_multiple * math.ceil(self.vocab_size / self.vocab_multiple)

    @property
    def num_groups(self) -> int:
        """Whole repeats of ``window_pattern``, which are stacked and scanned."""
        return self.num_layers // len(self.window_pattern)

    @property
    def num_tail_layers(self) -> int:
        """Layers left over after the whole groups."""
        return self.num_layers % len(self.window_pattern)

    def window(self, layer: int) -> int | None:
        """The window of a layer; one that reaches over the whole context is None."""
        window = self.window_pattern[layer % len(self.window_pattern)]
        return None if window is not None and window >= self.max_seq_len else window


def resolve_attention(config: DecoderConfig, platform: str) -> DecoderConfig:
    """``attention='auto'`` -> what suits ``platform`` ("cpu", "gpu", "tpu"); called once, by ``run/``.

    Raises UserError where the config asks for what the platform cannot do.
    """
    implementation = choose_implementation(
        config.attention,
        platform,
        dtype=as_dtype(config.compute_dtype),
        head_dim=config.head_width,
        softcap=config.attn_softcap,
    )
    return dataclasses.replace(config, attention=implementation)

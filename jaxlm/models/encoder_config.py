"""The shape of an encoder: one frozen record, checked at birth, its derived sizes properties."""

import dataclasses
from typing import Literal

from jaxlm.core.dtypes import DType, as_dtype
from jaxlm.models import shapes
from jaxlm.models.shapes import Position
from jaxlm.models.stack import RematPolicy
from jaxlm.nn.attention import Implementation, choose_implementation
from jaxlm.nn.kernels import KernelMissing, no_kernel
from jaxlm.nn.mlp import MlpKind
from jaxlm.nn.norms import NormKind
from jaxlm.nn.rope import RopeConfig


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A bidirectional Transformer. The defaults are a small modern one (norms before, rope, gated MLP, no biases);
    `BERT_BASE` and `BERT_LARGE` are those of Devlin et al. (2019)."""

    family: Literal["encoder"] = "encoder"
    vocab_size: int | None = None
    """Symbols that are predicted; None = the tokenizer's, filled in before the model is made."""
    vocab_multiple: int = 1
    """Rows of the table are padded to a multiple of this, so that an odd vocabulary divides over a mesh."""
    max_seq_len: int = 512
    """Longest text: rows of the learned positions."""
    num_layers: int = 4
    model_dim: int = 128
    num_heads: int = 4
    mlp_dim: int | None = None
    """Inner width of the MLP; None = 4 model_dim, or 8/3 model_dim rounded up to a multiple of 8 for the gated
    kinds."""
    mlp: MlpKind = "swiglu"
    norm: NormKind = "rmsnorm"
    norm_eps: float = 1e-6
    post_norm: bool = False
    """Norms after each sum, as in BERT: norm(x + f(x)). False = before each part: x + f(norm(x)), one at the end."""
    bias: bool = False
    """Biases in linear maps, in LayerNorms, and on the predicted symbols."""
    qk_norm: bool = True
    """RMS-normalise queries and keys of each head (Dehghani et al. 2023)."""
    position: Position = "rope"
    rope: RopeConfig = dataclasses.field(default_factory=RopeConfig)
    num_token_types: int = 2
    """Rows of the table that tells the first text of a pair from the second; 0 = none."""
    embed_norm: bool = True
    """A norm on the sum of the embeddings."""
    pooler: bool = False
    """A dense layer and tanh on the first token, for tasks on whole texts. Masked text does not train it."""
    dropout: float = 0.0
    """Rate on embeddings and on the output of each attention and MLP."""
    init_std: float = 0.02
    """Deviation of the weights at the start; with norms before, output projections are divided by sqrt(2
    num_layers)."""
    param_dtype: DType = "float32"
    compute_dtype: DType = "float32"
    scan_layers: bool = True
    """One compiled layer run num_layers times; False = written out: faster steps for small models, longer
    compilation."""
    remat_policy: RematPolicy = "none"
    """What the backward pass recomputes: nothing, all of a layer (full), or all but matrix products (dots)."""
    attention: Implementation = "auto"

    def __post_init__(self) -> None:
        shapes.check_choices(self)
        if self.mlp == "none":
            raise ValueError(
                "model.mlp='none' is for decoders, whose layers may be attention alone: choose another kind"
            )
        sizes = ("vocab_size", "vocab_multiple", "max_seq_len", "num_layers", "model_dim", "num_heads", "mlp_dim")
        shapes.check_positive(self, sizes)
        if self.num_token_types < 0:
            raise ValueError(f"model.num_token_types={self.num_token_types} is negative: give 0 for none, 2 for pairs")
        if self.model_dim % self.num_heads:
            raise ValueError(
                f"model.model_dim={self.model_dim} is not a multiple of num_heads={self.num_heads}: change one of them"
            )
        if self.position == "rope" and self.head_width % 2:
            raise ValueError(
                f"model.model_dim / num_heads = {self.head_width} is odd, and rope turns pairs: make it even or set "
                "position"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout={self.dropout} is outside [0, 1)")
        for name in ("init_std", "norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"model.{name}={getattr(self, name)} must be above 0")

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.model_dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Key and value heads: as many as query heads."""
        return self.num_heads

    @property
    def mlp_width(self) -> int:
        """Inner width of the MLP."""
        return shapes.mlp_width(self.mlp_dim, self.mlp, self.model_dim)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table."""
        return shapes.padded_vocab_size(self.vocab_size, self.vocab_multiple)


BERT_BASE = EncoderConfig(
    vocab_size=30522,
    max_seq_len=512,
    num_layers=12,
    model_dim=768,
    num_heads=12,
    mlp_dim=3072,
    mlp="gelu_exact",
    norm="layernorm",
    norm_eps=1e-12,
    post_norm=True,
    bias=True,
    qk_norm=False,
    position="learned",
    pooler=True,
    dropout=0.1,
)
"""109,482,240 parameters with the pooler and without the head of the masked objective."""

BERT_LARGE = dataclasses.replace(BERT_BASE, num_layers=24, model_dim=1024, num_heads=16, mlp_dim=4096)
"""335,141,888 parameters, counted the same way."""


def resolve_encoder_attention(
    config: EncoderConfig, platform: str, kernel_missing: KernelMissing = no_kernel
) -> EncoderConfig:
    """``attention='auto'`` -> what suits ``platform``. Raises UserError for what the platform cannot do."""
    dtype = as_dtype(config.compute_dtype)
    chosen = choose_implementation(
        config.attention,
        platform,
        dtype=dtype,
        head_dim=config.head_width,
        softcap=None,
        kernel_missing=kernel_missing,
    )
    return dataclasses.replace(config, attention=chosen)

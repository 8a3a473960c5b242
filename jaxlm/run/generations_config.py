"""The config of `jaxlm generations`: one corpus, one tokenizer, and a model of each generation."""

import dataclasses
from dataclasses import field

from jaxlm.core.seeds import check_seed
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.masking import MaskingConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import ModelConfig
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.nn.recurrent import CELLS, CellName
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig


@dataclasses.dataclass(frozen=True)
class TrainedConfig:
    """How one kind of model is trained: what `PretrainConfig` says beside corpus, tokenizer and samples."""

    model: ModelConfig = field(default_factory=DecoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    num_steps: int = 1000
    global_batch_size: int = 16

    @property
    def num_tokens(self) -> int:
        """Token slots in the whole run."""
        return self.num_steps * self.global_batch_size * self.data.seq_len


@dataclasses.dataclass(frozen=True)
class GenerationsConfig:
    """N-gram, RNN, LSTM, GRU and decoder on one corpus with one tokenizer; an encoder beside them."""

    name: str = "generations"
    """A title for the report."""
    seed: int = 0
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Must spell any text (unigram, bpe, byte): bits per byte are what all are compared by."""
    ngram: NgramConfig = field(default_factory=lambda: NgramConfig(order=5))
    recurrent: TrainedConfig = field(
        default_factory=lambda: TrainedConfig(model=RecurrentConfig(), data=DataConfig(seq_len=64, packing="stream"))
    )
    """Of the RNN, the LSTM and the GRU; the cell is replaced."""
    decoder: TrainedConfig = field(default_factory=TrainedConfig)
    decoder_run: str | None = None
    """Run directory of a finished decoder that stands in the table; none is trained, and `decoder` is not read. Its
    corpus, tokenizer and data set must be those of this config."""
    encoder: TrainedConfig | None = None
    """Its pseudo-log-likelihood has a column of its own; None = no encoder."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Of the encoder."""
    max_encoder_documents: int = 24
    """Validation documents of which the encoder scores the first piece, as long as its context: each token costs a
    forward pass."""
    cells: tuple[CellName, ...] = CELLS
    sample: SampleConfig = field(default_factory=SampleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 50
    max_scored_documents: int | None = None
    """Validation documents that are scored, from the first; None = all."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not isinstance(self.recurrent.model, RecurrentConfig):
            raise ValueError("recurrent.model is no RecurrentConfig: give one, its cell is replaced by each of cells")
        if not isinstance(self.decoder.model, DecoderConfig):
            raise ValueError("decoder.model is no DecoderConfig: give one")
        if self.encoder is not None and not isinstance(self.encoder.model, EncoderConfig):
            raise ValueError("encoder.model is no EncoderConfig: give one, or encoder=None for no encoder")
        if self.tokenizer.kind in ("char", "word"):
            raise ValueError(
                f"tokenizer.kind={self.tokenizer.kind!r} cannot spell every text, so it has no bits per byte: "
                "use bpe, unigram or byte"
            )
        if self.ngram.smoothing == "backoff":
            raise ValueError("ngram.smoothing='backoff' gives scores that are no likelihoods: use kneser-ney")
        if self.ngram.smoothing == "ml":
            raise ValueError(
                "ngram.smoothing='ml' gives unseen n-grams no probability, an infinite loss: use kneser-ney"
            )
        if self.ngram.smoothing == "imported":
            raise ValueError("ngram.smoothing='imported' is no way to fit a model: use kneser-ney")
        for name in ("max_scored_documents", "max_encoder_documents"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        self.pretraining()  # what a run would refuse is refused here

    def pretraining(self) -> dict[str, PretrainConfig]:
        """Name -> the config of each trained model's run. Raises ValueError where one would be refused."""
        assert isinstance(self.recurrent.model, RecurrentConfig)
        kinds: dict[str, TrainedConfig] = {
            cell: dataclasses.replace(self.recurrent, model=dataclasses.replace(self.recurrent.model, cell=cell))
            for cell in self.cells
        }
        kinds["decoder"] = self.decoder
        if self.encoder is not None:
            kinds["encoder"] = self.encoder
        return {name: self._pretraining(name, kind) for name, kind in kinds.items()}

    def _pretraining(self, name: str, kind: TrainedConfig) -> PretrainConfig:
        try:
            return self._as_run(name, kind)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _as_run(self, name: str, kind: TrainedConfig) -> PretrainConfig:
        return PretrainConfig(
            name=f"{self.name}: {name}",
            seed=self.seed,
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            data=kind.data,
            model=kind.model,
            optimizer=kind.optimizer,
            masking=self.masking if name == "encoder" else MaskingConfig(),
            num_steps=kind.num_steps,
            global_batch_size=kind.global_batch_size,
            sample=dataclasses.replace(self.sample, prompts=()),  # all are sampled together, at the end
            checkpoint=self.checkpoint,
            log_every=self.log_every,
            eval_batch_size=kind.global_batch_size,
        )

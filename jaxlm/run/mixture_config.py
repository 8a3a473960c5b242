"""The config of ``jaxlm mixture``: domains of text, and small runs that each learn from another mixture of them."""

import dataclasses
import re
from dataclasses import field

from jaxlm.core.seeds import check_seed
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.run.config import PretrainConfig
from jaxlm.run.generations_config import TrainedConfig
from jaxlm.run.proxy_config import proxy_config
from jaxlm.scaling.mixing import design_mixtures
from jaxlm.text.tokenizer import TokenizerConfig

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
AGAIN, BEST = "again", "predicted"
"""Runs beside the candidates: the first of them with other seeds, and what the law calls best in each round."""


@dataclasses.dataclass(frozen=True)
class DomainConfig:
    """One kind of text, with a part held out."""

    name: str
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    origins: str = ""
    """A regular expression: documents whose whole origin matches; "" = all."""
    hold_out_pieces: bool = False
    """Hold out pieces of the training documents, by their hash: for a domain of a few long documents."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} of a domain is no plain word: use letters, digits, - and _")
        try:
            re.compile(self.origins)
        except re.error as error:
            raise ValueError(
                f"origins={self.origins!r} of domain {self.name} is no regular expression: {error}"
            ) from None


@dataclasses.dataclass(frozen=True)
class CandidateConfig:
    """A mixture to be tried."""

    name: str
    shares: tuple[float, ...]
    """Of the training tokens, one for each domain; they sum to 1."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.startswith((AGAIN, BEST, "tokenizer")):
            raise ValueError(f"name={self.name!r} is no name for a candidate: use letters, digits, - and _")
        if any(share < 0 for share in self.shares) or abs(sum(self.shares) - 1) > 1e-3:
            raise ValueError(f"shares={self.shares} of candidate {self.name} are not 0 or more with sum 1")


@dataclasses.dataclass(frozen=True)
class MixtureStudyConfig:
    """Proxy runs, one for each candidate mixture of two or more domains, and the mixture that they predict is best."""

    name: str = "mixture"
    """A title for the report."""
    seed: int = 0
    domains: tuple[DomainConfig, ...] = tuple(
        DomainConfig(part, CorpusConfig(stdlib_part=part)) for part in ("docstrings", "sources")
    )
    """Two or more kinds of text."""
    weights: tuple[float, ...] = ()
    """How much the loss on each domain counts in the mean that is minimised; () = all alike."""
    candidates: tuple[CandidateConfig, ...] = ()
    """() = ``num_candidates`` drawn: all alike, mostly one domain each, the rest anywhere."""
    num_candidates: int = 8
    repeats: int = 2
    """Runs of the first candidate with other seeds: their standard deviation is the noise."""
    rounds: int = 2
    """How often the law is fitted and its best mixture run; each run counts in the next fit."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Trained once, on as much of each domain, and used by all runs."""
    proxy: TrainedConfig = field(default_factory=TrainedConfig)
    """The small runs; their steps say how many tokens a mixture has."""
    piece_characters: int = 1000
    """Documents are cut into pieces of about so many characters, so that shares come out as they were asked for."""
    held_out_bytes: int = 60_000
    """Of each domain, that every run is scored on: the pieces of the lowest hashes."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 50

    def __post_init__(self) -> None:
        check_seed(self.seed)
        names = [domain.name for domain in self.domains]
        if len(names) < 2:
            raise ValueError(f"{len(names)} domains: a mixture needs two or more")
        if len(set(names)) < len(names):
            raise ValueError(f"two domains of one name: {', '.join(names)}")
        if self.weights and (len(self.weights) != len(names) or min(self.weights) < 0 or not sum(self.weights)):
            raise ValueError(f"weights={self.weights} are not one of 0 or more for each of {', '.join(names)}")
        for name in ("repeats", "rounds", "piece_characters", "held_out_bytes", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.tokenizer.kind in ("char", "word"):
            raise ValueError(f"tokenizer.kind={self.tokenizer.kind!r} has no bits per byte: use bpe, unigram or byte")
        if self.proxy.model.family not in ("decoder", "recurrent"):
            raise ValueError(
                f"proxy.model is of family {self.proxy.model.family!r}: use a decoder or a recurrent model"
            )
        for one in self.candidates:
            if len(one.shares) != len(names):
                raise ValueError(f"candidate {one.name} has {len(one.shares)} shares for {len(names)} domains")
        tried = [one.name for one in self.mixtures()]
        if len(set(tried)) < len(tried):
            raise ValueError(f"two candidates of one name: {', '.join(tried)}")
        if len(tried) < len(names) + 1:
            raise ValueError(f"{len(tried)} candidates are too few for a law of {len(names)} domains: use more")
        self.pretraining("uniform", self.seed, (), ())  # what a run would refuse is refused here

    def mixtures(self) -> tuple[CandidateConfig, ...]:
        """The candidates, drawn where none are given."""
        if self.candidates:
            return self.candidates
        names = [domain.name for domain in self.domains]
        drawn = design_mixtures(len(names), self.num_candidates, seed=self.seed)
        titles = ["uniform", *(f"mostly-{name}" for name in names)]
        titles += [f"drawn-{i}" for i in range(1, len(drawn) - len(titles) + 1)]
        return tuple(
            CandidateConfig(title, tuple(shares)) for title, shares in zip(titles, drawn.tolist(), strict=True)
        )

    def pretraining(self, name: str, seed: int, train: tuple[str, ...], validation: tuple[str, ...]) -> PretrainConfig:
        """The config of one run over these JSONL files."""
        return proxy_config(self, name, seed, train, validation)

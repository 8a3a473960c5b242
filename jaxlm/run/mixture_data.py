"""The text of a mixture study: each domain cut into pieces, some of them held out."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from jaxlm.core.errors import UserError
from jaxlm.data.corpus import Document
from jaxlm.io.corpora.corpus import open_corpus
from jaxlm.run.devices import cache_root
from jaxlm.run.mixture_config import DomainConfig, MixtureStudyConfig
from jaxlm.text.chunks import chunk_text
from jaxlm.text.dedup import unit_hash


class Domain(NamedTuple):
    """Pieces of one domain's text."""

    name: str
    train: list[str]
    held_out: list[str]

    @property
    def held_out_bytes(self) -> int:
        """UTF-8."""
        return sum(len(text.encode()) for text in self.held_out)


def read_domains(config: MixtureStudyConfig) -> list[Domain]:
    """Every domain, in the order of the config; no piece held out in one stands in the training text of any.

    Raises UserError where one has nothing to train on or nothing to hold out.
    """
    found = [_read_domain(domain, config) for domain in config.domains]
    held = {text for domain in found for text in domain.held_out}
    domains = [domain._replace(train=[text for text in domain.train if text not in held]) for domain in found]
    for domain in domains:
        for part, pieces in (("to train on", domain.train), ("to hold out", domain.held_out)):
            if not pieces:
                raise UserError(
                    f"domain {domain.name!r} has no text {part}: check its corpus, origins and validation_fraction"
                )
    return domains


def _read_domain(domain: DomainConfig, config: MixtureStudyConfig) -> Domain:
    corpus = open_corpus(domain.corpus, data_dir=cache_root())
    wanted = re.compile(domain.origins or ".*", re.DOTALL)

    def pieces(documents: Iterable[Document]) -> list[str]:
        texts = (document.text for document in documents if wanted.fullmatch(document.origin))
        return [piece for text in texts for piece in chunk_text(text, config.piece_characters) if piece.strip()]

    train = pieces(corpus.train())
    if domain.hold_out_pieces:
        bar = domain.corpus.validation_fraction
        held_out = [piece for piece in train if unit_hash(piece) < bar]
        train = [piece for piece in train if unit_hash(piece) >= bar]
    else:
        held_out = pieces(corpus.validation())
    chosen, size = [], 0
    for piece in sorted(set(held_out), key=unit_hash):
        if size >= config.held_out_bytes:
            break
        chosen.append(piece)
        size += len(piece.encode())
    return Domain(domain.name, train, chosen)


def tokenizer_sample(domains: list[Domain], max_bytes: int) -> list[str]:
    """As many bytes of each domain, at most ``max_bytes`` together: the pieces of the lowest hashes."""
    sizes = [sum(len(text.encode()) for text in domain.train) for domain in domains]
    share = min(min(sizes), max_bytes // len(domains))
    sample: list[str] = []
    for domain in domains:
        size = 0
        for text in sorted(domain.train, key=unit_hash):
            if size >= share:
                break
            sample.append(text)
            size += len(text.encode())
    return sample

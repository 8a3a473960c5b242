"""The config of a corpus build."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from jaxlm.core.seeds import check_seed
from jaxlm.data.deduplication import DecontaminationConfig, DeduplicationConfig, RepeatsConfig
from jaxlm.data.mixture import MixtureConfig
from jaxlm.data.source import SourceConfig, check_sources
from jaxlm.run.corpus.executors import ExecutorConfig
from jaxlm.text.rules.presets import LIGHT
from jaxlm.text.steps import Edit, Recipe, Rule
from jaxlm.text.tokenizer import TokenizerConfig

STEPS_OF_ITS_OWN = ("read", "copies", "repeated_lines", "contaminated")
MAY_CHANGE = ("title", "executor")
"""Fields that alter no document."""


@dataclasses.dataclass(frozen=True)
class CorpusBuildConfig:
    """A corpus from its sources: cleaned, without copies and evaluation items, mixed, written as a TFDS dataset."""

    title: str = "A corpus"
    seed: int = 0
    """Of what the mixture takes of a source that it does not take whole."""
    sources: Annotated[tuple[SourceConfig, ...], tyro.conf.Fixed] = ()
    """In the order of priority where they say no other: of two copies the first source's stays."""
    recipe: Annotated[tuple[Any, ...], tyro.conf.Fixed] = LIGHT
    """Cleaning steps of the sources that have none of their own."""
    bad_words: tuple[str, ...] = ()
    """Files of words and phrases, one a line (``#`` begins a remark): a document with one of them is removed, whatever
    its source. A recipe with a ``BadWords`` of its own is left alone."""
    deduplication: DeduplicationConfig = dataclasses.field(default_factory=DeduplicationConfig)
    repeats: RepeatsConfig | None = dataclasses.field(default_factory=RepeatsConfig)
    """Lines that stand in many documents; None = they stay."""
    evaluation: Annotated[tuple[SourceConfig, ...], tyro.conf.Fixed] = ()
    """Evaluation sets, one item a document: what of them stands in the corpus is removed."""
    decontamination: DecontaminationConfig = dataclasses.field(default_factory=DecontaminationConfig)
    """What counts as holding an evaluation item."""
    late_recipe: Annotated[tuple[Any, ...], tyro.conf.Fixed] = ()
    """Rules on what is left when copies are gone: scores by a model (``Scored``), a least length."""
    mixture: MixtureConfig = dataclasses.field(default_factory=MixtureConfig)
    validation_fraction: float = 0.01
    """Share of the documents, by the hash of their text, held out in a split of their own, taken once each."""
    tokenizer: TokenizerConfig | None = dataclasses.field(default_factory=lambda: TokenizerConfig(vocab_size=8192))
    """What tokens are counted with, trained on a sample; None = none are counted, and the mixture goes by bytes."""
    tokenizer_dir: str | None = None
    """A tokenizer that is there already, in place of a trained one."""
    num_shards: int = 4
    """Parts that are worked on side by side. Another number is another order, and may keep another of two copies."""
    executor: ExecutorConfig = dataclasses.field(default_factory=ExecutorConfig)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_sources(self.sources) if self.sources else None
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction} is outside 0 .. 1 (1 excluded)")
        if self.num_shards < 1:
            raise ValueError(f"num_shards={self.num_shards} is below 1")
        if self.tokenizer is None and self.tokenizer_dir is None and self.mixture.num_tokens is not None:
            raise ValueError("mixture.num_tokens needs a tokenizer to count with: leave tokenizer as it is")
        recipes = [("late_recipe", self.late_recipe), ("recipe", self.recipe)]
        recipes += [(f"recipe of source {s.name!r}", s.recipe) for s in self.sources if s.recipe is not None]
        for where, recipe in recipes:
            for step in recipe:
                if not isinstance(step, Edit | Rule):
                    raise ValueError(f"{where}: {step!r} is no cleaning step (an edit or a rule of jaxlm.text)")
            names = [step.name for step in recipe]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{where} has two steps {twice!r}: their accounts could not be told apart")
            late = () if where == "late_recipe" else (step.name for step in self.late_recipe)
            again = next((name for name in late if name in names), None)
            if again is not None:
                raise ValueError(f"{where} and late_recipe both have {again!r}: their accounts could not be told apart")
            taken = next((name for name in names if name in STEPS_OF_ITS_OWN), None)
            if taken is not None:
                raise ValueError(f"{where} has a step {taken!r}, the name of one of the build's own: rename it")
        check_sources(self.evaluation) if self.evaluation else None
        self._check_names()

    def _check_names(self) -> None:
        """Sources that other parts of the config name, and names that become those of files."""
        sources = [source.name for source in self.sources]
        if self.repeats is not None and sources:
            _check_known(self.repeats.exempt, sources, "repeats.exempt")
        for stage in self.mixture.stages:
            where = f"mixture: stage {stage.name!r}"
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", stage.name):
                raise ValueError(f"{where} gives a split its name: use letters, digits and '_'")
            own = dict(stage.weights)
            if sources:
                _check_known(tuple(own), sources, where)
                if all(own.get(name, 1.0) == 0 for name in sources):
                    raise ValueError(f"{where} gives every source weight 0: leave one in")

    def recipe_of(self, source: SourceConfig) -> Recipe:
        """The source's own recipe, or the corpus's."""
        return self.recipe if source.recipe is None else source.recipe


def _check_known(names: Sequence[str], sources: Sequence[str], where: str) -> None:
    for name in names:
        if name not in sources:
            raise ValueError(f"{where} names {name!r}, which is no source (there are {', '.join(sources)})")

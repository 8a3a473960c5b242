"""A ladder for tests: four runs of some tens of steps over text that is made here."""

from pathlib import Path

CONFIG = '''
"""Tiny."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.run.ladder_config import LadderConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return LadderConfig(
        run=PretrainConfig(
            corpus=CorpusConfig(source="text", paths=("TEXT",), document="line"),
            tokenizer=TokenizerConfig(kind="byte"),
            data=DataConfig(seq_len=16, packing="concat", num_epochs=1),
            model=DecoderConfig(
                max_seq_len=16, num_layers=1, model_dim=16, head_dim=8, num_heads=2, init_std=None, scan_layers=False
            ),
            optimizer=OptimizerConfig(schedule="linear"),
            sample=SampleConfig(prompts=()),
        ),
        budgets=(4e8, 1.2e9),
        widths=(8, 16),
        min_layers=1,
        tokens_per_param=(0.5, 30.0),
        batch_rows=(8, 16),
    )
'''


def write_ladder(folder: Path) -> Path:
    """The config file, and its text beside it."""
    text = folder / "text.txt"
    text.write_text("\n".join(f"{i} and {i + 1} are neighbours of {i + 2}" for i in range(4000)) + "\n")
    path = folder / "tiny.py"
    path.write_text(CONFIG.replace("TEXT", str(text)))
    return path

"""Preference tuning of a small model that was taught to answer: a minute or two on two cores.

python -m experiments.dpo dpo_small --base runs/sft_small --data.train PAIRS.jsonl [--pairs.loss kto]
"""

from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import AnswersConfig, RecordsConfig
from jaxlm.run.align.dpo_config import DpoConfig
from jaxlm.train.preference_objectives import PairConfig


def config() -> DpoConfig:
    return DpoConfig(
        name="Preferences of a small model",
        data=RecordsConfig(seq_len=256),
        pairs=PairConfig(loss="dpo", beta=0.1),
        optimizer=OptimizerConfig(peak_lr=1e-4, schedule="linear", warmup_steps=10, b2=0.99, weight_decay=0.0),
        num_epochs=2,
        global_batch_size=8,
        sample=AnswersConfig(num_prompts=4, max_new_tokens=64),
    )

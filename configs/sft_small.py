"""Supervised fine-tuning of a small model, such as the quickstart's: minutes on two cores.

    python -m experiments.sft sft_small --base runs/quickstart --data.train FILE.jsonl

With adapters in place of all parameters: ``--tune lora --optimizer.peak-lr 1e-2``.
"""

from jaxlm.models.lora import LoraConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import AnswersConfig, RecordsConfig
from jaxlm.run.align.sft_config import SftConfig


def config() -> SftConfig:
    return SftConfig(
        name="Instruction tuning of a small model",
        data=RecordsConfig(seq_len=256),
        lora=LoraConfig(rank=8, alpha=16.0, targets=(r"/(attn|mlp)/.*kernel$",)),
        optimizer=OptimizerConfig(peak_lr=1e-3, schedule="linear", warmup_steps=10, b2=0.99, weight_decay=0.01),
        num_epochs=4,
        global_batch_size=8,
        eval_every=50,
        sample=AnswersConfig(num_prompts=4, max_new_tokens=64),
    )

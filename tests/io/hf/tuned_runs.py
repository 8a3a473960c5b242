"""Run directories as fine-tuning leaves them, with random parameters."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.run_dir import RunDir, write_json
from jaxlm.io.tokenizers.hf import read_hf_tokenizer
from jaxlm.models.encoder_config import BERT_BASE
from jaxlm.models.families import make_model
from jaxlm.models.heads import make_task_model
from jaxlm.run.finetune_config import FinetuneConfig, TaskConfig
from jaxlm.run.finetune_data import head_config
from tests.io.hf.directories import VOCAB, write_ascii_tokenizer

BERT = dataclasses.replace(
    BERT_BASE, vocab_size=VOCAB, max_seq_len=32, num_layers=2, model_dim=16, num_heads=4, mlp_dim=20, dropout=0.0
)
TASKS = {
    "classify": TaskConfig("classify", labels=("bad", "fair", "good"), text_b="other"),
    "regress": TaskConfig("regress"),
    "tag": TaskConfig("tag", labels=("A", "B", "C")),
}


def tuned_run(path, task, model=BERT):
    """A run directory as fine-tuning leaves it. Returns the task model and its parameters."""
    run = RunDir(path)
    tuned = make_task_model(make_model(model), head_config(model, task))
    params = tuned.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape, p.dtype), params)
    with Checkpointer(run.checkpoints_path) as checkpointer:
        state = {"params": params, "ema_params": None, "opt_state": {}, "step": jnp.asarray(3)}
        checkpointer.save(3, state, {})
    write_json(run.config_path, {"config": config_to_dict(FinetuneConfig(model=model, task=task, num_steps=3))})
    write_ascii_tokenizer(path)
    read_hf_tokenizer(path, {}, VOCAB, lambda _: None).save(run.tokenizer_path)
    return tuned, params

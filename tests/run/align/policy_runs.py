"""A small base that answers, for tests of reinforcement learning: trained by the real step, saved as a run is."""

import dataclasses
import json
import random

import jax
import numpy as np

from jaxlm.core.keys import Purpose, fold_key, purpose_key
from jaxlm.data.batches import DataConfig, make_batch, train_plan
from jaxlm.data.conversations import lay_out
from jaxlm.io.chat_templates import find_template
from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer
from jaxlm.io.run_dir import RunDir
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.run.align.base import keep_template
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Conversation, Message
from jaxlm.text.tokenizer import TokenizerConfig
from jaxlm.train.objectives import causal_objective
from jaxlm.train.state import create_state
from jaxlm.train.step import make_train_step

LETTERS = "abcd"


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """What a run directory says of the base."""

    model: DecoderConfig
    seed: int = 0


def task(rng, size=4):
    """(prompt, right answer): the letters turned round."""
    word = "".join(rng.choice(LETTERS) for _ in range(size))
    return word, word[::-1]


def write_prompts(path, count, seed):
    """A file of prompts, each with the right answer as a field of its own."""
    rng = random.Random(seed)
    lines = [json.dumps({"prompt": word, "answer": answer}) for word, answer in (task(rng) for _ in range(count))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_rankings(path, count, seed):
    """A file of pairs: the letters turned round before the letters in some other order."""
    rng = random.Random(seed)
    lines = []
    while len(lines) < count:
        word, answer = task(rng)
        other = "".join(rng.sample(answer, len(answer)))
        if other != answer:
            lines.append(json.dumps({"prompt": word, "chosen": answer, "rejected": other}))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_base(directory, *, num_steps=150, right=0.5, seed=0, **model):
    """A run directory whose model answers in ChatML, with the letters turned round in a share ``right`` of the
    conversations that it learnt from, and as they stand in the others."""
    rng = random.Random(seed)
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte"), [])
    form = ChatFormat(find_template("chatml"), tokenizer)
    said = []
    for _ in range(600):
        word, answer = task(rng)
        answer = answer if rng.random() < right else word
        said.append(form.encode(Conversation((Message("user", word), Message("assistant", answer)))))
    source = lay_out(said, seq_len=63).source
    fields = {"num_layers": 2, "model_dim": 64, "num_heads": 4, "max_seq_len": 64, "scan_layers": False} | model
    config = DecoderConfig(vocab_size=tokenizer.vocab_size, **fields)
    model_fns, tx = make_decoder(config), make_optimizer(OptimizerConfig(peak_lr=3e-3), max(num_steps, 1))
    plan = train_plan(source, DataConfig(seq_len=63), global_batch_size=16, seed=seed)
    state = jax.jit(lambda key: create_state(model_fns.init(key), tx))(fold_key(seed, Purpose.INIT))
    schedule = OptimizerConfig(peak_lr=3e-3).schedule_fn(max(num_steps, 1))
    step = jax.jit(make_train_step(causal_objective(model_fns), tx, schedule=schedule))
    metrics = {"loss": np.nan}
    for i in range(num_steps):
        batch = make_batch(source, plan, plan.row_ids(i), pad_id=tokenizer.pad_id)
        state, metrics = step(state, None, batch, purpose_key(seed, Purpose.DROPOUT))
    run = RunDir(directory)
    run.path.mkdir(parents=True)
    run.write_config(BaseConfig(config))
    tokenizer.save(run.tokenizer_path)
    keep_template(run, form.template)
    with Checkpointer(run.checkpoints_path, CheckpointConfig()) as checkpointer:
        checkpointer.save(int(state.step), state, {"data": {"cursor": 0, "skipped": []}, "incidents": [], "spikes": {}})
    return float(metrics["loss"])


def right_answer(prompts, answers, records):
    """1 for the letters turned round, else the share of places that are right, halved."""
    del prompts
    out = []
    for answer, record in zip(answers, records, strict=True):
        want = record["answer"]
        same = sum(a == b for a, b in zip(answer, want, strict=False))
        out.append(1.0 if answer == want else 0.5 * same / max(len(want), len(answer)))
    return out


def exactly_right(prompts, answers, records):
    """1 for the letters turned round, else 0."""
    return [float(answer == record["answer"]) for answer, record in zip(answers, records, strict=True)]

"""A run directory made by hand: tiny, untrained, and whole."""

import functools
import json
from typing import Literal

import jax
import jax.numpy as jnp
import pytest

from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.text.tokenizer import TokenizerConfig
from tests.drawn import drawn_params

TEXT = "to be, or not to be: that is the question\n"


@functools.cache
def _model(vocab_size, max_seq_len, **changes):
    sizes = {"max_seq_len": max_seq_len, "num_layers": 2, "model_dim": 16, "num_heads": 2}
    model = make_decoder(DecoderConfig(vocab_size=vocab_size, init_std=0.4, **sizes, **changes))
    return model, drawn_params(model)


def _make_run(
    path, *, kind: Literal["byte", "char"] = "byte", ema=False, data=None, seq_len=32, max_seq_len=48, **changes
):
    """Writes a byte (or char) decoder with checkpoints 3 and 7 to ``path``; returns its model and parameters.
    ``changes``: of its config."""
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind), [TEXT])
    model, params = _model(tokenizer.vocab_size, max_seq_len, **changes)
    data = {"seq_len": seq_len, "add_bos": True, "add_eos": True, "packing": "best_fit"} | (data or {})
    record = {"config": {"model": config_to_dict(model.config), "data": data}, "versions": {}, "git_commit": None}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(record))
    tokenizer.save(path / "tokenizer")
    with Checkpointer(path / "checkpoints") as checkpointer:
        for step in (3, 7):
            averaged = jax.tree.map(lambda p: p * 0.5, params) if ema else None
            state = {"params": params, "ema_params": averaged, "opt_state": {"m": params}, "step": jnp.asarray(step)}
            checkpointer.save(step, state, {})
        checkpointer.wait()
    return model, params


@pytest.fixture(scope="session")
def make_run():
    return _make_run

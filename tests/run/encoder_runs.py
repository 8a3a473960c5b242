"""Encoder runs made by hand: tiny, untrained, and whole."""

import functools
import json

import jax
import jax.numpy as jnp

from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.encoder import make_encoder
from jaxlm.models.encoder_config import EncoderConfig


@functools.cache
def encoder_model():
    """The model of `make_encoder_run` and its parameters."""
    config = EncoderConfig(vocab_size=281, max_seq_len=48, num_layers=1, model_dim=16, num_heads=2, init_std=0.4)
    model = make_encoder(config)
    return model, jax.jit(model.init)(jax.random.key(0))


def make_encoder_run(path):
    """Writes a byte encoder with checkpoint 5 to ``path``, as pretraining would; returns its model and parameters."""
    model, params = encoder_model()
    data = {"seq_len": 32, "add_bos": True, "add_eos": True, "packing": "best_fit"}
    record = {"config": {"model": config_to_dict(model.config), "data": data}, "versions": {}, "git_commit": None}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(record))
    ByteTokenizer().save(path / "tokenizer")
    with Checkpointer(path / "checkpoints") as checkpointer:
        checkpointer.save(5, {"params": params, "ema_params": None, "opt_state": {}, "step": jnp.asarray(5)}, {})
        checkpointer.wait()
    return model, params

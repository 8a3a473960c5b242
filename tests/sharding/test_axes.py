"""Every axis of the mesh alone and in pairs, on eight simulated devices: the loss and gradients of one device.

A row of ``TABLE`` is a mesh and the case that it is tried with; a new axis adds rows, a new form of model a case.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxlm.models.decoder import DecoderConfig, MlaConfig, MoeConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import make_model
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.sharding.pipeline import PipelineConfig
from tests.drawn import drawn_params
from tests.sharding.comparing import assert_same_on, loss_and_grads

VOCAB, ROWS, SEQ_LEN = 37, 8, 16
SMALL = DecoderConfig(
    vocab_size=VOCAB,  # odd, so that the table is padded
    vocab_multiple=8,
    max_seq_len=SEQ_LEN,
    num_layers=2,
    model_dim=32,
    num_heads=8,
    num_kv_heads=2,  # fewer than most axes
    mlp_dim=48,
    init_std=None,
)
LATENT = MlaConfig(kv_lora_rank=16, q_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
ENCODER = EncoderConfig(
    vocab_size=VOCAB, vocab_multiple=8, max_seq_len=SEQ_LEN, num_layers=2, model_dim=32, num_heads=8, mlp_dim=48
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its rows and what the loss does with them."""

    model: DecoderConfig | EncoderConfig
    packed: bool = True
    loss_chunk: int | None = None


CASES = {
    "packed": Case(SMALL),
    "whole": Case(dataclasses.replace(SMALL, position="learned", norm="layernorm", bias=True), packed=False),
    "windows": Case(
        dataclasses.replace(SMALL, window_pattern=(5, None), attn_softcap=2.0, tie_embeddings=False), loss_chunk=6
    ),
    "experts": Case(dataclasses.replace(SMALL, moe=MoeConfig(num_experts=8, top_k=2))),
    "shared expert": Case(
        dataclasses.replace(
            SMALL,
            moe=MoeConfig(num_experts=4, top_k=2, renormalize=False, shared_dim=16),
            mlp="gelu",
            scan_layers=False,
        ),
        packed=False,
    ),
    "latent": Case(dataclasses.replace(SMALL, mla=LATENT, qk_norm=False, num_kv_heads=None, remat_policy="full")),
    "encoder": Case(ENCODER),
    "encoder, rows apart": Case(dataclasses.replace(ENCODER, attention="xla")),
    "deep": Case(dataclasses.replace(SMALL, num_layers=4), loss_chunk=6),
    "deep, whole": Case(dataclasses.replace(SMALL, num_layers=8), packed=False),
    # The balance of a router is a statistic of each microbatch: tests/sharding/test_pipeline.py.
    "deep experts": Case(dataclasses.replace(SMALL, moe=MoeConfig(num_experts=8, top_k=2, balance_coef=0.0))),
}

SPLIT, ROUNDS = {"sequence_parallel": True}, {"pipeline": PipelineConfig(rounds=2)}
RING, EXCHANGE = {"context_attention": "ring"}, {"context_attention": "all_to_all"}
TABLE = [
    ({"data": 8}, "whole"),
    ({"fsdp": 8}, "packed"),
    ({"expert": 8}, "experts"),
    ({"context": 8, **RING}, "packed"),
    ({"context": 8, **EXCHANGE}, "windows"),
    ({"model": 8}, "packed"),
    ({"model": 8, **SPLIT}, "whole"),
    ({"data": 2, "fsdp": 4}, "windows"),
    ({"data": 2, "expert": 4}, "shared expert"),
    ({"data": 2, "context": 4, **EXCHANGE}, "whole"),
    ({"data": 2, "model": 4, **SPLIT}, "packed"),
    ({"fsdp": 2, "expert": 4}, "experts"),
    ({"fsdp": 2, "context": 4, **RING}, "windows"),
    ({"fsdp": 2, "model": 4}, "windows"),
    ({"expert": 2, "context": 4, **RING}, "experts"),
    ({"expert": 4, "model": 2, **SPLIT}, "experts"),
    ({"context": 4, "model": 2, **RING, **SPLIT}, "windows"),
    ({"context": 2, "model": 4, **EXCHANGE}, "packed"),
    ({"fsdp": 2, "expert": 2, "model": 2}, "latent"),
    ({"data": 2, "context": 2, "model": 2, **RING}, "latent"),
    ({"context": 2, "model": 4, **RING, **SPLIT}, "encoder"),
    ({"context": 2, "fsdp": 2, "model": 2, **EXCHANGE}, "encoder, rows apart"),
    ({"stage": 8}, "deep, whole"),
    ({"stage": 4, "data": 2}, "deep"),
    ({"stage": 2, "fsdp": 4, **ROUNDS}, "deep"),
    ({"stage": 2, "expert": 4}, "deep experts"),
    ({"stage": 2, "context": 4, **RING}, "deep"),
    ({"stage": 2, "model": 4, **SPLIT}, "deep"),
    ({"stage": 2, "context": 2, "model": 2, **EXCHANGE, **ROUNDS}, "deep"),
]


def name_of(row):
    mesh, case = row
    parts = ["rounds" if axis == "pipeline" else f"{axis}{value}" for axis, value in mesh.items()]
    return "-".join([*parts, case])


def rows_of(table):
    """Each axis alone, and every second row of those of several: the others are slow tests."""
    kept = [row for row in table if 8 in row[0].values()]
    kept += [row for row in table if row not in kept][::2]
    return [pytest.param(*row, id=name_of(row), marks=() if row in kept else (pytest.mark.slow,)) for row in table]


def batch(packed):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, (ROWS, SEQ_LEN + 1)).astype(np.int32)
    mask = rng.integers(0, 2, (ROWS, SEQ_LEN)).astype(np.float32)
    out = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_mask": mask}
    if packed:  # two texts in a row and padding behind them
        out["segment_ids"] = np.repeat(np.array([[1] * 6 + [2] * 7 + [0] * 3], np.int32), ROWS, 0)
        out["positions"] = np.repeat(np.array([[*range(6), *range(7), 0, 0, 0]], np.int32), ROWS, 0)
        mask *= out["segment_ids"] > 0
    return out


@functools.cache
def on_one_device(name):
    """Parameters, loss and gradients of a case."""
    case = CASES[name]
    model = make_model(case.model)
    params = drawn_params(model)
    return params, *loss_and_grads(model, params, batch(case.packed))


@pytest.mark.parametrize(("mesh", "name"), rows_of(TABLE))
def test_a_mesh_gives_the_loss_and_gradients_of_one_device(mesh, name):
    case, config = CASES[name], MeshConfig(**mesh)
    model = make_model(case.model, config.activations)
    rows = batch(case.packed)
    assert_same_on(make_mesh(config, jax.devices()), model, rows, *on_one_device(name), loss_chunk=case.loss_chunk)

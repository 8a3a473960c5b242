"""What small train steps send between eight devices, by kind, count and bytes, is what ``collectives.json`` says.

A rule or a constraint that goes wrong rarely fails: XLA gathers a table, or sums it whole, and the run is only slower.
Here it fails. Where a change is meant, write the table anew and read what moved in its diff:

    REWRITE_COLLECTIVES=1 python -m pytest tests/sharding/test_collectives.py

A new axis is a row in ``CASES``.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxlm.core.keys import Purpose, purpose_key
from jaxlm.data.batches import planned_batch_keys
from jaxlm.models.decoder import DecoderConfig, MoeConfig, make_decoder
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.plan.hlo import Collective, find_collectives
from jaxlm.run.setup import abstract_batch, lay_out_state, lower_train_step
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.sharding.pipeline import PipelineConfig
from jaxlm.train.objectives import causal_objective
from jaxlm.train.step import make_train_step
from tests.quick import quick_ones
from tests.sharding.comparing import QUICK

TABLE = Path(__file__).with_name("collectives.json")
SEQ_LEN, ROWS = 32, 16
DENSE = DecoderConfig(
    vocab_size=1016,  # the table is by far the largest parameter: gathered whole, it stands out
    vocab_multiple=64,
    max_seq_len=SEQ_LEN,
    num_layers=3,
    model_dim=64,
    num_heads=8,
    num_kv_heads=2,  # fewer than the model axis of 8
    mlp_dim=96,
    remat_policy="full",
)
EVEN = dataclasses.replace(DENSE, num_kv_heads=None)
UNTIED = dataclasses.replace(DENSE, tie_embeddings=False)
DEEP = dataclasses.replace(DENSE, num_layers=8, remat_policy="none")
ROUNDS = PipelineConfig(rounds=2)
EXPERTS = dataclasses.replace(DENSE, moe=MoeConfig(num_experts=8, top_k=2))
CASES: dict[str, tuple[DecoderConfig, MeshConfig, int]] = {
    "data 8": (DENSE, MeshConfig(data=8), 1),
    "fsdp 8": (DENSE, MeshConfig(fsdp=8), 1),
    "fsdp 8, two microbatches": (DENSE, MeshConfig(fsdp=8), 2),
    "model 8": (DENSE, MeshConfig(model=8), 1),
    "fsdp 4 x model 2": (DENSE, MeshConfig(fsdp=4, model=2), 1),
    "data 2 x fsdp 2 x model 2, free head": (UNTIED, MeshConfig(data=2, fsdp=2, model=2), 1),
    "expert 8": (EXPERTS, MeshConfig(expert=8), 1),
    "fsdp 2 x expert 4": (EXPERTS, MeshConfig(fsdp=2, expert=4), 1),
    "context 8, all to all": (DENSE, MeshConfig(context=8), 1),
    "fsdp 2 x context 4, ring": (DENSE, MeshConfig(fsdp=2, context=4, context_attention="ring"), 1),
    "fsdp 2 x model 4, sequence-parallel": (EVEN, MeshConfig(fsdp=2, model=4, sequence_parallel=True), 1),
    "stage 2 x fsdp 2 x model 2": (DEEP, MeshConfig(stage=2, fsdp=2, model=2), 1),
    "stage 2 x fsdp 2 x model 2, two rounds": (DEEP, MeshConfig(stage=2, fsdp=2, model=2, pipeline=ROUNDS), 1),
}
"""Name -> (model, mesh of 8 devices, microbatches)."""


def collectives_of(config: DecoderConfig, axes: MeshConfig, grad_accum_steps: int, **replaced: Any) -> list[Collective]:
    """Of the train step, compiled for eight CPU devices; ``replaced``: parts of the model."""
    mesh = make_mesh(axes, jax.devices())
    model = make_decoder(config, axes.activations)._replace(**replaced)
    optimizer = OptimizerConfig(warmup_steps=1)
    tx = make_optimizer(optimizer, 10)
    layout = lay_out_state(model, tx, mesh, seed=0, ema=False)
    step = make_train_step(
        causal_objective(model, loss_chunk=SEQ_LEN // 2),
        tx,
        schedule=optimizer.schedule_fn(10),
        grad_accum_steps=grad_accum_steps,
    )
    key = jax.eval_shape(lambda: purpose_key(0, Purpose.DROPOUT))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, PartitionSpec()))
    batch = abstract_batch(planned_batch_keys("best_fit"), ROWS, SEQ_LEN, mesh)
    lowered = lower_train_step(step, layout, batch, mesh, key=key)
    text = lowered.compile(compiler_options=QUICK).as_text()
    return find_collectives(text or "", num_devices=mesh.size)


def rows_of(collectives: list[Collective]) -> dict[str, int]:
    """``"all-gather of 4096 bytes over 8"`` -> runs in a step."""
    rows: dict[str, int] = {}
    for c in collectives:
        name = f"{c.kind} of {c.num_bytes} bytes over {c.group}"
        rows[name] = rows.get(name, 0) + c.times
    return dict(sorted(rows.items()))


def differences(found: list[Collective], expected: dict[str, int]) -> list[str]:
    """A line for each kind of collective that is not as often there as it should be."""
    rows = rows_of(found)
    lines = []
    for name in sorted(rows.keys() | expected.keys()):
        if rows.get(name, 0) != expected.get(name, 0):
            where = next((c.where for c in found if name.startswith(f"{c.kind} of {c.num_bytes} ")), "")
            lines.append(f"{name}: {rows.get(name, 0)} runs, {expected.get(name, 0)} in the table {where}".strip())
    return lines


QUICK_CASES = (
    "fsdp 8, two microbatches",
    "data 2 x fsdp 2 x model 2, free head",
    "fsdp 2 x expert 4",
    "fsdp 2 x context 4, ring",
    "fsdp 2 x model 4, sequence-parallel",
    "stage 2 x fsdp 2 x model 2, two rounds",
)


@pytest.mark.parametrize("name", quick_ones(CASES, *QUICK_CASES))
def test_a_step_sends_what_the_table_says(name):
    found = collectives_of(*CASES[name])
    if os.environ.get("REWRITE_COLLECTIVES"):
        table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        kept = {case: table[case] for case in CASES if case in table} | {name: rows_of(found)}
        TABLE.write_text(json.dumps({case: kept[case] for case in CASES if case in kept}, indent=1) + "\n")
    expected = json.loads(TABLE.read_text())[name]
    assert not differences(found, expected), "\n" + "\n".join(differences(found, expected))


def test_the_table_has_no_other_rows():
    assert list(json.loads(TABLE.read_text())) == list(CASES)


WHOLE_TABLE = f"all-gather of {4 * DENSE.padded_vocab_size * DENSE.model_dim} bytes"


def test_a_wrong_rule_does_not_pass():
    """The table split the other way round is gathered whole."""
    name = "fsdp 4 x model 2"
    rules = ((r"^embed/table$", PartitionSpec("fsdp", "model")), *make_decoder(DENSE).rules)
    lines = differences(collectives_of(*CASES[name], rules=rules), json.loads(TABLE.read_text())[name])
    assert any(line.startswith(WHOLE_TABLE) for line in lines)


def test_a_wrong_constraint_does_not_pass(monkeypatch):
    name = "fsdp 4 x model 2"
    monkeypatch.setattr("jaxlm.models.vocabulary.TABLE_SPEC", PartitionSpec(None, None))
    lines = differences(collectives_of(*CASES[name]), json.loads(TABLE.read_text())[name])
    assert any(line.startswith("all-gather") and ", 0 in the table" in line for line in lines), lines

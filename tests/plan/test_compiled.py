"""What is read from the compiler's refusals, the advice, and the bound on a step's time."""

import dataclasses
from typing import Any

import pytest

from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.compiled import advise, mesh_notes, parse_out_of_memory, recompute_flops, roofline
from jaxlm.plan.hlo import Collective
from jaxlm.plan.topology import GIB, parse_topology
from jaxlm.sharding.pipeline import Schedule

EARLY = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (33.58G) exceeds "
    "available HBM (15.75G)."
)
RANKED = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.61G of 15.75G hbm. Exceeded hbm capacity by 1.86G.

Total hbm usage >= 18.12G:

Largest program allocations in hbm:

  1. Size: 1.50G
     Operator: op_name="jit(train_step)/while/body/add" source_file="x.py"
     Shape: bf16[32,2,8192,4096]{3,2,1,0:T(8,128)(2,1)}
     Unpadded size: 1.50G
     XLA label: fusion.1
     Allocation type: HLO temp
     ==========================

  2. Size: 4.00G
     Operator: op_name="jit(train_step)/jvp()/dot_general"
     Shape: f32[2,8192,32064]{2,1,0:T(8,128)}
     Allocation type: HLO temp
     ==========================
"""  # noqa: E501
MODEL = DecoderConfig(
    vocab_size=128256,
    max_seq_len=8192,
    num_layers=32,
    model_dim=4096,
    num_heads=32,
    num_kv_heads=8,
    remat_policy="full",
)


def test_the_early_refusal_has_a_number_and_no_buffers():
    found = parse_out_of_memory(EARLY)
    assert found is not None
    assert (found.used, found.capacity, found.buffers) == (int(33.58 * GIB), int(15.75 * GIB), ())
    assert found.what == "early sum"


def test_the_late_refusal_ranks_buffers():
    found = parse_out_of_memory(RANKED)
    assert found is not None
    assert (found.used, found.what) == (int(17.61 * GIB), "all")
    assert [buffer.num_bytes for buffer in found.buffers] == [4 * GIB, int(1.5 * GIB)]
    assert found.buffers[0].shape.startswith("f32[2,8192,32064]")
    assert found.buffers[0].operator == "jit(train_step)/jvp()/dot_general"
    advice = advise(found.buffers, MODEL, seq_len=8192, loss_chunk=None)
    assert "logits: set --loss-chunk 512" in advice[0]
    assert "raise grad_accum_steps" in advice[1]


def test_other_errors_are_not_taken_for_it():
    assert parse_out_of_memory("INVALID_ARGUMENT: Mosaic failed") is None


def test_notes_name_heads_that_do_not_divide():
    assert mesh_notes(MODEL, {"model": 8}) == []
    assert "model.num_kv_heads=8" in mesh_notes(MODEL, {"model": 16})[0]
    assert "model.num_heads=32" in mesh_notes(MODEL, {"model": 12})[0]


def test_the_bound_is_the_slowest_of_the_rates():
    topology = parse_topology("v5p:2x2x2")
    gather = Collective("all-gather", int(360e9), 1, 2, False, "a", "")
    figures: Any = roofline(
        topology, [gather], flops_per_chip=459e12, recompute_flops_per_chip=0.5 * 459e12, state_bytes=int(2.77e12)
    )
    assert figures["compute_seconds"] == 1.5
    assert figures["ici_seconds"] == 1.0
    assert figures["state_hbm_seconds"] == 2.0
    assert (figures["step_seconds"], figures["bound_by"]) == (2.0, "hbm")
    assert figures["mfu_at_bound"] == 0.5
    assert recompute_flops(MODEL, 3.0) == 1.0


def test_a_pipeline_does_its_stages_again_and_waits_in_the_bubble():
    """(1 + 1/3) / (1 - (s - 1) / (v m + s - 1)) of what the products take, and both are said."""
    plain = dataclasses.replace(MODEL, remat_policy="none")
    schedule = Schedule(stages=8, rounds=1, microbatches=32)
    assert recompute_flops(plain, 3.0, schedule) == 1.0
    assert recompute_flops(MODEL, 3.0, schedule) == 2.0
    figures: Any = roofline(
        parse_topology("v5p:2x2x2"),
        [],
        flops_per_chip=459e12,
        recompute_flops_per_chip=recompute_flops(plain, 459e12, schedule),
        state_bytes=0,
        schedule=schedule,
    )
    assert figures["step_seconds"] == pytest.approx(4 / 3 * 39 / 32)
    said = " ".join(figures["assumptions"])
    assert "done again in the backward pass" in said
    assert "the bubble" in said

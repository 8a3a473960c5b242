"""The mesh that a plan recommends, and why not another."""

import collections
import dataclasses
import math

import pytest

from jaxlm.core.errors import UserError
from jaxlm.models.decoder import DecoderConfig, MoeConfig
from jaxlm.plan.search import HEADROOM, Workload, evaluate, meshes, search
from jaxlm.plan.topology import parse_topology
from jaxlm.plan.traffic import estimate_collectives
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.sharding.mesh import MeshConfig
from jaxlm.sharding.pipeline import PipelineConfig

MODEL = DecoderConfig(
    vocab_size=32000,
    num_layers=32,
    model_dim=4096,
    num_heads=32,
    num_kv_heads=8,
    mlp_dim=14336,
    compute_dtype="bfloat16",
    attention="splash",
)
STATE = 12 * 7_000_000_000
SIZES = {"data": 1, "stage": 1, "fsdp": 1, "expert": 1, "context": 1, "model": 1}


def state_bytes(sizes):
    """Of a model of 7 B parameters that divides as one would wish."""
    if sizes["model"] == 16:
        raise UserError("dimension 1 of 'layers/attn/k/kernel', 8, does not divide over mesh.model=16")
    ways = sizes["fsdp"] * sizes["model"] * sizes["expert"]
    return STATE // 3 // ways, STATE // ways


WORK = Workload(MODEL, 4096, 256, state_bytes)


def test_every_mesh_is_tried_once():
    found = [tuple(sizes.values()) for sizes in meshes(8, ("data", "fsdp", "model"), {"expert": 2})]
    assert len(found) == len(set(found)) == 6
    assert all(math.prod(sizes) == 8 for sizes in found)
    assert list(meshes(8, ("data", "fsdp"), {"expert": 3})) == []


def test_what_is_recommended_fits_and_nothing_that_fits_is_faster():
    topology = parse_topology("v5p:2x4x4")
    best, refused = search(WORK, topology)
    assert best is not None
    assert best.memory.total <= HEADROOM * topology.chip.hbm_bytes
    assert best.axis_sizes["fsdp"] > 1
    reasons = {tuple(r.axis_sizes.values()): r.reason for r in refused}
    assert len(reasons) == len(refused)
    copies = next(r for r in refused if r.axis_sizes["data"] == 32)
    assert "does not fit" in copies.reason or copies.plan is not None
    for refusal in refused:
        if refusal.plan is not None and "does not fit" not in refusal.reason:
            assert refusal.plan.time["sum_seconds"] >= best.time["sum_seconds"]
    assert any("does not divide: dimension 1" in r.reason for r in refused)
    assert any("does not divide: 1 experts" in r.reason for r in refused)


def test_where_nothing_fits_the_nearest_comes_first():
    best, refused = search(WORK, parse_topology("v5e:2x2"))
    assert best is None
    totals = [r.plan.memory.total for r in refused if r.plan is not None]
    assert totals == sorted(totals)
    assert "does not fit" in refused[0].reason
    assert "GiB at least" in refused[0].reason


def test_an_axis_may_be_fixed():
    best, refused = search(WORK, parse_topology("v5p:2x4x4"), fixed={"model": 2})
    assert best is not None
    assert {best.axis_sizes["model"], *(r.axis_sizes["model"] for r in refused)} == {2}


@pytest.mark.parametrize(
    ("axes", "kinds"),
    [
        ({"fsdp": 8}, {"all-gather", "reduce-scatter", "all-reduce"}),
        ({"data": 8}, {"all-reduce"}),
        ({"model": 8}, {"all-reduce"}),
        ({}, set()),
    ],
)
def test_what_is_sent_follows_from_the_axes(axes, kinds):
    found = estimate_collectives(
        MODEL, rows=2, seq_len=4096, axis_sizes=SIZES | axes, grad_accum_steps=1, loss_chunk=512
    )
    assert {c.kind for c in found} == kinds
    twice = estimate_collectives(
        MODEL, rows=1, seq_len=4096, axis_sizes=SIZES | axes, grad_accum_steps=2, loss_chunk=512
    )
    sent, sent_twice = (sum(c.wire_bytes for c in cs) for cs in (found, twice))
    if "model" in axes:
        assert sent_twice == sent  # of activations, which the microbatches share
    elif axes:
        assert sent_twice == 2 * sent  # of weights and gradients, each time


def test_experts_send_their_tokens():
    model = DecoderConfig(**{**vars(MODEL), "moe": MoeConfig()})
    found = estimate_collectives(
        model, rows=2, seq_len=4096, axis_sizes=SIZES | {"expert": 8}, grad_accum_steps=1, loss_chunk=512
    )
    tokens = [c for c in found if "tokens" in c.name]
    assert tokens[0].num_bytes == 8 * 2 * 4096 * 4096 * 2


def sent(model=MODEL, *, mesh: MeshConfig, loss_chunk: int | None = 4096) -> dict[str, int]:
    """Kind -> arrays of the size of the stream of 2 rows of 4,096 positions, in one step."""
    found = estimate_collectives(
        model,
        rows=2,
        seq_len=4096,
        axis_sizes=mesh.axis_sizes(8),
        grad_accum_steps=1,
        loss_chunk=loss_chunk,
        layout=mesh.activations,
    )
    stream, totals = 2 * 4096 * 4096 * 2, collections.Counter()
    for c in found:
        totals[c.kind] += c.times * c.num_bytes
    return {kind: num_bytes // stream for kind, num_bytes in totals.items()}


def test_a_split_stream_is_gathered_and_scattered():
    """As libtpu compiles Llama 3 8B with 8 layers on v5p:2x2x2: six gathers and five scatters a layer (fsdp aside)."""
    model = dataclasses.replace(MODEL, remat_policy="full")
    assert sent(model, mesh=MeshConfig(model=8)) == {"all-reduce": 5 * 32 + 2}
    split = sent(model, mesh=MeshConfig(model=8, sequence_parallel=True))
    assert split == {"all-gather": 6 * 32, "reduce-scatter": 5 * 32, "all-reduce": 2}
    parallel = dataclasses.replace(model, parallel_block=True)
    split = sent(parallel, mesh=MeshConfig(model=8, sequence_parallel=True))
    assert split == {"all-gather": 3 * 32, "reduce-scatter": 2 * 32, "all-reduce": 2}


def test_a_split_stream_takes_less_memory_and_whole_shares():
    topology, sizes = parse_topology("v5p:2x2x2"), SIZES | {"model": 8}
    work = WORK._replace(layout=ActivationLayout(sequence_parallel=True))
    way = {"grad_accum_steps": 32, "remat_policy": "full", "loss_chunk": 512, "state": state_bytes(sizes)}
    whole, split = (evaluate(w, topology, sizes, **way).memory for w in (WORK, work))
    inputs = 32 * 8 * 4096 * 4096 * 2  # of each layer, of the 8 rows of a microbatch
    assert whole.total - split.total == pytest.approx(inputs * 7 / 8, rel=1e-6)
    _, refused = search(work._replace(seq_len=4100), topology, fixed={"model": 8})
    assert [r.reason for r in refused] == ["does not divide: 4100 positions over context * model = 8"]


def test_attention_that_crosses_devices_is_counted():
    """Heads for positions: queries and what comes out, 8 key heads and as many values, forward and back. In a ring:
    keys, values, and on the way back their gradients, in f32."""
    mesh = MeshConfig(context=4, model=2)
    exchanged, ring = (
        estimate_collectives(
            dataclasses.replace(MODEL, remat_policy="none"),
            rows=2,
            seq_len=4096,
            axis_sizes=mesh.axis_sizes(8),
            grad_accum_steps=1,
            loss_chunk=None,
            layout=ActivationLayout(context_attention=how),
        )
        for how in ("auto", "ring")
    )
    head = 2 * 1024 * 128 * 2
    (swap,) = (c for c in exchanged if c.kind == "all-to-all")
    assert (swap.num_bytes, swap.times, swap.group) == (2 * (16 + 4) * head, 2 * 32, 4)
    turns = [(c.num_bytes, c.times) for c in ring if c.kind == "collective-permute"]
    assert turns == [(2 * 4 * head, 2 * 3 * 32), (2 * 4 * head * 2, 4 * 32)]


@pytest.mark.parametrize(("data", "inside"), [(2, 1), (4, 2), (16, 8)])
def test_between_slices_goes_what_is_left_of_the_sum_inside(data, inside):
    found = estimate_collectives(
        MODEL,
        rows=1,
        seq_len=4096,
        axis_sizes=SIZES | {"data": data},
        grad_accum_steps=1,
        loss_chunk=None,
        slices=2,
    )
    between = sum(c.wire_bytes for c in found if c.crosses_slices)
    whole = sum(c.num_bytes * c.times for c in found if c.crosses_slices) * inside
    assert between == pytest.approx(whole / inside)  # of two slices each sends its part once
    within = {c.group for c in found if not c.crosses_slices}
    assert within == ({inside} if inside > 1 else set())


def test_stages_are_counted():
    """Of a pipeline each device holds its own layers, does the forward pass twice, and waits in the bubble."""
    topology = parse_topology("v5p:2x4x4")
    plain, piped = (search(WORK, topology, fixed={"stage": n, "model": 1, "expert": 1, "data": 1})[0] for n in (1, 4))
    assert plain is not None
    assert piped is not None
    assert piped.schedule is not None
    assert "full" not in (plain.remat_policy, piped.remat_policy)
    least = plain.time["compute_seconds"]
    assert piped.time["compute_seconds"] == pytest.approx(least * 4 / 3 / (1 - piped.schedule.bubble))
    terms = {term.name: term.num_bytes for term in piped.memory.terms}
    assert 4 * 32 * 4096**2 < terms["a stage's layers"] < 4 * 7e9 / 4


def test_microbatches_that_were_asked_for_divide_the_rows_of_what_is_planned():
    layout = ActivationLayout(pipeline=PipelineConfig(num_microbatches=12))
    work = WORK._replace(layout=layout, global_batch_size=192)
    best, refused = search(work, parse_topology("v5p:2x4x4"), fixed={"stage": 4})
    plans = [best, *(refusal.plan for refusal in refused)]
    assert best is not None
    assert {plan.schedule.microbatches for plan in plans if plan is not None and plan.schedule is not None} == {12}

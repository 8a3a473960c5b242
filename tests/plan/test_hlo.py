"""Collectives read from pieces of HLO as the TPU compiler writes them, and from a program compiled here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.plan.hlo import _groups, find_collectives, shape_bytes, summarise

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: bf16[1024,128]) -> bf16[256,128] {
  %input = bf16[1024,128]{1,0} parameter(0)
  %all-reduce.1 = bf16[1024,128]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=1, replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  ROOT %slice = bf16[256,128]{1,0} dynamic-slice(%all-reduce.1, %offset), dynamic_slice_sizes={256,128}
}

%cond (p: (s32[], bf16[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%body (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %all-gather.1 = bf16[4,32,1024]{2,1,0:T(8,128)(2,1)} all-gather(%b), channel_id=4, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={2}, metadata={op_name="jit(step)/layer"}
  %kernel = f32[8]{0} custom-call(%b), frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="x"}
  %fusion.1 = bf16[256,128]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
  %start = (bf16[8,16]{1,0}, bf16[32,16]{1,0}) all-gather-start(%c), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}
  %done = bf16[32,16]{1,0} all-gather-done(%start)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %while.1 = (s32[], bf16[8]) while(%t), condition=%cond, body=%body
  %send.1 = (f32[100]{0}, u32[], token[]) send(%x, %token), channel_id=9, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %permute = f32[10]{0} collective-permute(%x), channel_id=10, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
}
"""  # noqa: E501


def test_kinds_bytes_and_loops():
    found = {c.name: c for c in find_collectives(PROGRAM, num_devices=8)}
    gather = found["all-gather.1"]
    assert (gather.kind, gather.num_bytes, gather.times, gather.group) == ("all-gather", 4 * 32 * 1024 * 2, 5, 4)
    assert gather.wire_bytes == gather.num_bytes * 5 * 3 / 4
    assert gather.where == "jit(step)/layer"
    scatter = found["all-reduce.1"]  # an all-reduce whose result is cut at once
    assert (scatter.kind, scatter.num_bytes, scatter.times) == ("reduce-scatter", 1024 * 128 * 2, 5)
    assert (found["start"].num_bytes, found["start"].group) == (32 * 16 * 2, 4)
    assert found["permute"].wire_bytes == 40


def test_what_goes_between_slices_is_told_apart():
    found = {c.name: c for c in find_collectives(PROGRAM, num_devices=8, slices=2)}
    assert found["send.1"].crosses_slices
    assert found["send.1"].wire_bytes == 400
    assert found["all-gather.1"].crosses_slices  # devices 0, 2, 4, 6
    assert found["permute"].crosses_slices is False
    rows = summarise(list(found.values()))
    assert rows["all-reduce"] == {"places": 1, "runs": 1, "bytes": 400, "dcn_bytes": 400}


def test_a_fused_collective_counts_once_and_a_recomputed_one_again():
    def line(name: str, where: str) -> str:
        op = f"  %{name} = f32[8]{{0}} all-gather(%x), channel_id=1, replica_groups=[1,8]<=[8], dimensions={{0}}"
        return f'{op}, metadata={{op_name="{where}"}}'

    fused = ["%fused (x: f32[1]) -> f32[8] {", line("a.2", "forward"), line("a.3", "rematted"), "}"]
    entry = [
        "ENTRY %main (x: f32[1]) -> f32[8] {",
        line("a.1", "forward"),
        "  %f = f32[8] fusion(%x), calls=%fused",
        "}",
    ]
    found = find_collectives("\n".join(fused + entry), num_devices=8)
    assert sorted(c.where for c in found) == ["forward", "rematted"]


def test_all_that_one_shard_map_sends_counts():
    """It has one channel; a line of the model that sends two arrays of one shape stands twice in one computation."""
    mesh = Mesh(np.asarray(jax.devices()).reshape(8), ("x",))

    def local(x, y):
        return [jax.lax.ppermute(z, "x", [(i, (i + 1) % 8) for i in range(8)]) for z in (x, y)]

    step = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P("x"), out_specs=P("x")))
    x = jax.ShapeDtypeStruct((64, 4), jnp.float32)
    rows = summarise(find_collectives(step.lower(x, x).compile().as_text() or "", num_devices=8))
    assert rows == {"collective-permute": {"places": 2, "runs": 2, "bytes": 2 * 8 * 4 * 4, "dcn_bytes": 0}}


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=2] {'b','c'}, x", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}, x", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}, x", [[0, 2], [1, 3]]),
        ("to_apply=%add", None),
    ],
)
def test_groups_in_every_spelling(text, groups):
    found = _groups(text)
    assert (None if found is None else found.tolist()) == groups


def test_bytes_of_shapes():
    assert shape_bytes("(f32[8,4]{1,0}, bf16[2], pred[3], token[])") == 128 + 4 + 3


def test_a_program_compiled_here():
    mesh = Mesh(np.asarray(jax.devices()).reshape(8), ("x",))
    rows, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
    x = jax.ShapeDtypeStruct((64, 4), jnp.float32, sharding=rows)
    step = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y + jnp.sum(x, 0), jnp.zeros(4)), out_shardings=whole)
    rows = summarise(find_collectives(step.lower(x).compile().as_text() or "", num_devices=8))
    assert set(rows) == {"all-reduce"}
    assert rows["all-reduce"]["bytes"] == rows["all-reduce"]["runs"] * 2 * 16 * 7 // 8


GPU = """ENTRY %main (x: f32[8]) -> f32[8] {
  %ag = ((bf16[256,8]{1,0}, bf16[256,4]{1,0}), (bf16[2048,8]{1,0}, bf16[2048,4]{1,0})) all-gather-start(%a, %b), replica_groups=[1,8]<=[8]
  %rs = ((bf16[2048,8]{1,0}, bf16[2048,4]{1,0}), (bf16[256,8]{1,0}, bf16[256,4]{1,0})) reduce-scatter-start(%c, %d), replica_groups=[1,8]<=[8]
  %ar = (f32[100]{0}, f32[28]{0}) all-reduce-start(%e, %f), replica_groups=[1,8]<=[8]
}
"""  # noqa: E501


def test_what_gpus_send_as_one_counts_whole():
    sizes = {c.kind: c.num_bytes for c in find_collectives(GPU, num_devices=8)}
    assert sizes == {"all-gather": 2048 * 12 * 2, "reduce-scatter": 2048 * 12 * 2, "all-reduce": 512}

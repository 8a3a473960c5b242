"""Laws of checkpoints: what is restored is what was saved, on any mesh; a killed save is no step."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.io import checkpoint_format, checkpoint_steps, checkpoints, checksums
from jaxlm.io.checkpoint_verifying import Verifier
from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer

META = {"cursor": 7, "skipped": [2, 3], "nothing": None, "config": {"name": "x"}}


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any
    carry: Any
    ema: Any


def make_state(scale: float = 1.0) -> State:
    """Every kind of leaf and node that training states hold: Muon beside AdamW, masked, empty and None nodes, bf16."""
    params = {
        "layers": {"w": scale * jnp.arange(128.0).reshape(8, 16), "b": (scale * jnp.arange(16.0)).astype(jnp.bfloat16)},
        "head": {"kernel": scale * jnp.ones((16, 8))},
    }
    labels = {"layers": {"w": "muon", "b": "adam"}, "head": {"kernel": "adam"}}
    muon = optax.chain(optax.clip_by_global_norm(1.0), optax.contrib.muon(1e-2))
    tx = optax.multi_transform({"muon": muon, "adam": optax.adamw(1e-3)}, labels)
    ema = jax.tree.map(lambda x: x * 2, params)
    return State(jnp.int32(3), params, tx.init(params), {"kl": jnp.float32(0.5), "none": None, "empty": ()}, ema)


def abstract(state: State, shape: tuple[int, int], axis: str = "x") -> State:
    mesh = jax.make_mesh(shape, ("x", "y"), axis_types=(AxisType.Auto,) * 2)

    def describe(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(axis) if leaf.ndim and leaf.shape[0] % 8 == 0 else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(describe, state)


def place(state: State, like: State) -> State:
    return jax.tree.map(lambda leaf, want: jax.device_put(leaf, want.sharding), state, like)


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_steps_of_a_way_not_taken_go_and_can_be_saved_anew(tmp_path):
    with Checkpointer(tmp_path, CheckpointConfig(save_every=2, keep_last=3, keep_every=4)) as checkpointer:
        for step in (2, 4, 6, 8):
            checkpointer.save(step, {"w": jnp.full(3, float(step))}, META)
        checkpointer.forget_after(5)  # the save under way among them, and a permanent one
        assert checkpointer.steps() == [2, 4]
        for step in (6, 8):
            assert checkpointer.save(step, {"w": jnp.full(3, -float(step))}, META)
        checkpointer.wait()
        assert checkpointer.steps() == [2, 4, 6, 8]
        found, _ = checkpointer.restore({"w": jnp.zeros(3)}, step=8)
        np.testing.assert_array_equal(np.asarray(found["w"]), -8.0)


def test_round_trip_onto_another_mesh_is_exact(tmp_path):
    state = place(make_state(), abstract(make_state(), (2, 4)))
    with Checkpointer(tmp_path / "c") as checkpointer:
        assert checkpointer.save(10, state, META)
        checkpointer.wait()
        for shape, axis in (((2, 4), "x"), ((1, 8), "y"), ((8, 1), "x")):
            want = abstract(state, shape, axis)
            restored, meta = checkpointer.restore(want)
            assert_same(state, restored)
            assert meta == META
            leaves = zip(jax.tree.leaves(restored), jax.tree.leaves(want), strict=True)
            assert all(leaf.sharding == asked.sharding for leaf, asked in leaves)


def test_donating_the_state_after_save_returns_does_not_reach_the_checkpoint(tmp_path):
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with Checkpointer(tmp_path) as checkpointer:
        for step in range(1, 6):
            state = {"w": jnp.full((512, 512), step, jnp.float32)}
            checkpointer.save(step, state, {})
            jax.block_until_ready(overwrite(state))
        checkpointer.wait()
        for step in checkpointer.steps():
            restored, _ = checkpointer.restore(_on_one_device({"w": jnp.zeros((512, 512))}), step)
            assert (np.asarray(restored["w"]) == step).all()


def _on_one_device(tree):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)


def test_keeps_the_last_and_the_permanent_steps(tmp_path):
    with Checkpointer(tmp_path, CheckpointConfig(save_every=1, keep_last=2, keep_every=4)) as checkpointer:
        for step in range(1, 11):
            checkpointer.save(step, {"w": jnp.ones(3)}, {})
        assert not checkpointer.save(10, {"w": jnp.zeros(3)}, {})
        checkpointer.wait()
        assert checkpointer.steps() == [4, 8, 9, 10]
    assert {path.name for path in tmp_path.iterdir()} - {".deleted"} == {"4", "8", "9", "10"}
    assert list((tmp_path / ".deleted").iterdir()) == []


def test_one_sub_tree_is_restored_alone_and_cast(tmp_path):
    state = make_state()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, META)
        checkpointer.wait()
    with Checkpointer(tmp_path, read_only=True) as reader:
        params, meta = reader.restore_params()
        assert_same(params, state.params)
        assert meta == META == reader.read_meta()
        want = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), state.ema)
        ema, _ = reader.restore_params(want, name="ema")
        assert_same(ema, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.ema))
        with pytest.raises(UserError, match=r"holds no 'value'.*params"):
            reader.restore_params(name="value")


def test_sub_tree_reads_no_other_array(tmp_path):
    state = {"params": {"w": jnp.ones(4)}, "opt_state": {"mu": jnp.ones(4), "nu": jnp.ones(4)}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
        checkpointer.wait()
        before = len(jax.live_arrays())
        params, _ = checkpointer.restore_params()
        assert len(jax.live_arrays()) == before, "no device need hold it whole"
        assert isinstance(params["w"], np.ndarray)
        assert params["w"].shape == (4,)


def test_what_does_not_fit_is_named(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(UserError, match="no checkpoint in"):
            checkpointer.restore({})
        checkpointer.save(1, {"params": {"w": jnp.ones((4, 2))}}, {})
        checkpointer.wait()
        for asked, message in (
            ({"params": {"w": jnp.ones((4, 3))}}, r"holds params/w of shape \(4, 2\), not \(4, 3\)"),
            ({"params": {"w": jnp.ones((4, 2), jnp.bfloat16)}}, "params/w in float32, not bfloat16"),
            ({"params": {"w": jnp.ones((4, 2)), "b": jnp.ones(2)}}, "has no params/b"),
            ({"params": {}}, "holds params/w, which is not asked for"),
        ):
            with pytest.raises(UserError, match=message):
                checkpointer.restore(_on_one_device(asked))
        with pytest.raises(UserError, match=r"no checkpoint for step 2 .*there are 1"):
            checkpointer.restore({}, step=2)
        with pytest.raises(TypeError):
            checkpointer.save(2, {"w": jnp.ones(1)}, {"bad": object()})


def test_newer_format_is_refused_and_older_is_migrated(tmp_path, monkeypatch):
    state = {"params": {"w": jnp.arange(8.0)}, "step": jnp.int32(4)}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {"cursor": 1})
        checkpointer.wait()
        present = checkpoint_format.FORMAT_VERSION
        monkeypatch.setattr(checkpoint_format, "FORMAT_VERSION", present + 1)
        with pytest.raises(UserError, match=f"format version {present}, too old"):
            checkpointer.restore(_on_one_device(state))
        rename = checkpoint_format.Migration(
            meta=lambda meta: {"data": meta},
            state=lambda arrays: {path.replace("/w", "/kernel"): array for path, array in arrays.items()},
        )
        monkeypatch.setitem(checkpoint_format.MIGRATIONS, present, rename)
        renamed = {"params": {"kernel": state["params"]["w"]}, "step": state["step"]}
        restored, meta = checkpointer.restore(_on_one_device(renamed))
        assert_same(restored, renamed)
        assert meta == {"data": {"cursor": 1}}
        assert_same(checkpointer.restore_params()[0], renamed["params"])
        checkpointer.save(2, renamed, {})
        checkpointer.wait()
        monkeypatch.undo()
        with pytest.raises(UserError, match=rf"format version {present + 1}, .*install a newer jaxlm"):
            checkpointer.restore(_on_one_device(renamed), step=2)


def write_version_1(directory, step: int, state: Any, meta: dict[str, Any]) -> None:
    """A step as the first version of the format wrote it: Orbax alone, no checksums."""
    record = {"format_version": 1, "jaxlm_version": "0.1.0", "step": step, "meta": meta}
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record))
    with ocp.CheckpointManager(directory, item_names=("state", "meta")) as manager:
        manager.save(step, args=args, force=True)
        manager.wait_until_finished()


def test_version_1_is_restored_and_said_to_carry_no_checksums(tmp_path):
    state = place(make_state(), abstract(make_state(), (2, 4)))
    for step in (5, 10):
        write_version_1(tmp_path, step, state, {"data": {"cursor": step}})
    said: list[str] = []
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=2), say=said.append) as checkpointer:
        assert checkpointer.steps() == [5, 10]
        found = checkpointer.resume(abstract(state, (1, 8)))
        assert found is not None
        assert_same(state, found.state)
        assert (found.step, found.meta) == (10, {"data": {"cursor": 10}, "incidents": [], "spikes": {}})
        assert_same(checkpointer.restore_params()[0], make_state().params)
        assert len(said) == 1
        assert "checkpoint 10" in said[0]
        assert "without checksums" in said[0]
        checkpointer.save(15, state, META)
        checkpointer.wait()
        assert checkpointer.steps() == [10, 15]
    # What Orbax itself cannot read is damage here too.
    (tmp_path / "10" / "state" / "_METADATA").unlink()
    (tmp_path / "15" / "meta" / "metadata").unlink()
    with Checkpointer(tmp_path, read_only=True) as reader, pytest.raises(UserError, match=r"15 .*missing.*10 .*Orbax"):
        reader.restore(abstract(state, (1, 8)))


def test_damaged_records_are_no_version_1_and_crash_nothing(tmp_path):
    for step in (5, 10, 15, 20):
        write_version_1(tmp_path, step, {"w": jnp.ones(3)}, {})
    record = tmp_path / "10" / "meta" / "metadata"
    record.write_bytes(record.read_bytes()[:-3])
    (tmp_path / "15" / "meta" / "metadata").write_bytes(b"\xff[1]")
    (tmp_path / "20" / "meta" / "metadata").write_text('{"format_version": 2}')
    (tmp_path / "20.unfinished").touch()  # what a killed process leaves beside it
    said: list[str] = []
    with Checkpointer(tmp_path, read_only=True, say=said.append) as reader:
        assert reader.steps() == [5]
    assert [line.split()[1] for line in said] == ["10", "15"]  # nobody knows what they were
    assert (tmp_path / "10").exists()
    said.clear()
    with Checkpointer(tmp_path, say=said.append) as checkpointer:
        assert checkpointer.steps() == [5]
    assert {path.name for path in tmp_path.iterdir()} == {"5", "10.damaged", "15.damaged", ".deleted"}
    assert [line.split()[1] for line in said] == ["10", "15", "20"]


def test_a_save_is_marked_until_it_is_sealed(tmp_path):
    marked = []
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"w": jnp.ones(3)}, {})
            marked.append([path.name for path in tmp_path.glob("*.unfinished")])
            checkpointer.wait()
            assert not list(tmp_path.glob("*.unfinished"))
    assert marked == [["1.unfinished"], ["2.unfinished"]]
    # Killed after the seal and before the mark went: the step counts, and the mark goes.
    (tmp_path / "2.unfinished").touch()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1, 2]
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_cannot_be_read_now_is_no_damage(tmp_path, monkeypatch):
    state = {"w": jnp.ones(3)}
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, state, {})
            checkpointer.wait()

    def locked(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    said: list[str] = []
    for where, name in ((checksums, "_compare"), (checksums, "_walk"), (checkpoints, "read_state")):
        with Checkpointer(tmp_path, say=said.append) as checkpointer, monkeypatch.context() as patched:
            patched.setattr(where, name, locked)
            with pytest.raises(UserError, match=r"cannot read .*2 now .*Permission denied.*try again"):
                checkpointer.resume(like)
            assert checkpointer.steps() == [1, 2]
    for read_only in (True, False):
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint_steps, "is_sealed", locked)
            with pytest.raises(UserError, match=r"cannot read .*Permission denied"):
                Checkpointer(tmp_path, read_only=read_only)
    assert said == []
    assert not list(tmp_path.glob("*.damaged"))


def test_an_old_step_that_cannot_be_read_now_is_not_renamed(tmp_path, monkeypatch):
    write_version_1(tmp_path, 5, {"w": jnp.ones(3)}, {})

    def broken(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(type(epath.Path(tmp_path)), "read_bytes", broken)
        with pytest.raises(UserError, match="Input/output error"):
            Checkpointer(tmp_path)
    assert (tmp_path / "5").is_dir()


def test_a_step_that_its_trainer_retires_meanwhile_is_no_damage(tmp_path, monkeypatch):
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"w": jnp.full(3, float(step))}, {"cursor": step})
            checkpointer.wait()
    look = Verifier.look

    def retired(self, step):
        if step == 2 and (tmp_path / "2").exists():  # between the listing and the look into it
            (tmp_path / "2").rename(tmp_path / "away")
        return look(self, step)

    with Checkpointer(tmp_path, read_only=True) as reader:
        monkeypatch.setattr(Verifier, "look", retired)
        assert reader.newest_intact() == 1
        (tmp_path / "away").rename(tmp_path / "3")
        assert reader.read_meta() == {"cursor": 2}


def test_killed_save_is_no_step_and_is_cleaned(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys, time
        import jax.numpy as jnp
        from jaxlm.io.checkpoints import Checkpointer
        checkpointer = Checkpointer(sys.argv[1])
        checkpointer.save(1, {"w": jnp.ones(10)}, {"cursor": 1})
        checkpointer.wait()
        checkpointer.save(2, {"w": jnp.ones((4000, 4000))}, {"cursor": 2})
        while not any("tmp" in name for name in os.listdir(sys.argv[1])):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""
    assert any("tmp" in path.name for path in tmp_path.iterdir())
    with Checkpointer(tmp_path, read_only=True) as reader:
        assert reader.steps() == [1]
    assert any("tmp" in path.name for path in tmp_path.iterdir())
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 1
        assert checkpointer.read_meta() == {"cursor": 1}
    # Cleaned in the background, until the end at the latest.
    assert not any("tmp" in path.name for path in tmp_path.iterdir())


def test_read_only_makes_nothing(tmp_path):
    with Checkpointer(tmp_path / "none", read_only=True) as reader:
        assert reader.steps() == []
        assert reader.latest_step() is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"save_every": 0},
        {"keep_last": 0},
        {"keep_every": -1},
        {"save_every": 3, "keep_every": 4},
        {"save_minutes": 0},
        {"save_minutes": -1.5},
        {"save_minutes": float("nan")},
        {"save_every": None, "save_minutes": 5.0, "keep_every": 4},
    ],
)
def test_config_refuses(kwargs):
    with pytest.raises(ValueError, match=r"checkpoint\."):
        CheckpointConfig(**kwargs)


def test_saving_by_the_clock_alone_is_allowed():
    assert CheckpointConfig(save_every=None, save_minutes=0.5).save_minutes == 0.5


def test_meta_file_is_plain_json(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": jnp.ones(1)}, META)
        checkpointer.wait()
    record = json.loads((tmp_path / "1" / "meta" / "metadata").read_text())
    assert record["format_version"] == checkpoint_format.FORMAT_VERSION
    assert record["meta"] == META
    assert os.path.isdir(tmp_path / "1" / "state")

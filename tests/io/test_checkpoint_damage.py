"""Laws of damaged checkpoints: every change to a file is found, an older intact step is used, nothing is deleted."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxlm.core.errors import UserError
from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer


def make_state(seed: int):
    """Parameters, AdamW's state and an average, sharded over a 2 by 4 mesh."""
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rng = np.random.default_rng(seed)
    params = {
        "embed": {"table": jnp.asarray(rng.normal(size=(64, 16)), jnp.float32)},
        "layers": {"kernel": jnp.asarray(rng.normal(size=(16, 32)), jnp.bfloat16), "bias": jnp.zeros(32)},
    }
    state = {
        "step": jnp.int32(seed),
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params),
        "ema_params": jax.tree.map(lambda x: x * 2, params),
    }

    def place(leaf):
        spec = PartitionSpec("data", "model") if leaf.ndim == 2 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, state)


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def is_same(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Steps 5 and 10, read only by the tests: they copy it."""
    directory = tmp_path_factory.mktemp("saved") / "c"
    with Checkpointer(directory, CheckpointConfig(keep_last=9)) as checkpointer:
        for step in (5, 10):
            checkpointer.save(step, make_state(step), {"data": {"cursor": step}, "incidents": []})
        checkpointer.wait()
    return directory


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "c"))


def files_of(step: Path) -> list[Path]:
    return sorted(path for path in step.rglob("*") if path.is_file())


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


@pytest.mark.slow
def test_flips_truncations_and_deletions_are_all_found(copy):
    """200 of 200, over all files of the newest step: arrays, metadata, index and the checksums themselves."""
    rng = np.random.default_rng(0)
    files = files_of(copy / "10")
    assert len(files) > 12
    older, like = make_state(5), abstract(make_state(5))
    found = 0
    for kind, count in (("flip", 100), ("truncation", 50), ("deletion", 50)):
        for _ in range(count):
            path = files[rng.integers(len(files))]
            whole = path.read_bytes()
            if kind == "flip":
                flip(path, int(rng.integers(8 * len(whole))))
            elif kind == "truncation":
                path.write_bytes(whole[: rng.integers(len(whole))])
            else:
                path.unlink()
            said: list[str] = []
            with Checkpointer(copy, read_only=True, say=said.append) as reader:
                listed = reader.steps()
                restored, meta = reader.restore(like)
            name = str(path.relative_to(copy / "10"))
            named = len(said) == 1 and f"{name}: " in said[0] and "step 5 is used instead" in said[0]
            unlisted = kind == "deletion" and name.startswith("checksums") and listed == [5]
            unlisted = unlisted and len(said) == 1 and "checksums are missing: passed over" in said[0]
            found += (named or unlisted) and is_same(restored, older) and meta["data"] == {"cursor": 5}
            path.write_bytes(whole)
    assert found == 200
    with Checkpointer(copy, read_only=True) as reader:
        assert reader.newest_intact() == 10
        assert is_same(reader.restore(like)[0], make_state(10))


def test_every_file_may_be_damaged_when_a_run_resumes(copy):
    """A writer sets the damaged step aside, goes on from the older one and saves the same step again."""
    like = abstract(make_state(5))
    keep = CheckpointConfig(keep_last=9)
    names = [path.relative_to(copy / "10") for path in files_of(copy / "10")]
    shutil.move(copy / "10", copy / "whole")
    for number, name in enumerate(names, start=1):
        shutil.rmtree(copy / "10", ignore_errors=True)
        shutil.copytree(copy / "whole", copy / "10")
        flip(copy / "10" / name, 9)
        with Checkpointer(copy, keep, say=lambda _: None) as checkpointer:
            found = checkpointer.resume(like)
            assert found is not None
            assert (found.step, checkpointer.steps()) == (5, [5])
            assert is_same(found.state, make_state(5))
            aside = copy / ("10.damaged" if number == 1 else f"10.damaged.{number}")
            assert (aside / name).exists()
            assert checkpointer.save(10, make_state(10), {"data": {"cursor": 10}, "incidents": []})
            checkpointer.wait()
            assert checkpointer.newest_intact() == 10
            assert is_same(checkpointer.restore(like, 10)[0], make_state(10))


def test_lost_checksums_are_no_step_and_nothing_is_deleted(copy):
    for path in (copy / "10").glob("checksums*"):
        path.unlink()
    (copy / "5" / "checksums.0-of-1.json").unlink()
    said: list[str] = []
    with Checkpointer(copy, read_only=True, say=said.append) as reader:
        assert reader.steps() == []
        assert reader.newest_intact() is None
    assert [line.split()[1] for line in said] == ["5", "10"]
    with Checkpointer(copy, say=said.append) as checkpointer:
        assert checkpointer.resume(abstract(make_state(5))) is None
    assert {path.name for path in copy.iterdir()} == {"5.damaged", "10.damaged"}
    assert len(said) == 4


def test_the_newest_step_is_kept_when_only_its_checksums_are_lost(copy):
    """It may be whole but for them: what alone is known is that no save of it was under way."""
    (copy / "10" / "checksums.0-of-1.json").unlink()
    said: list[str] = []
    with Checkpointer(copy, say=said.append) as checkpointer:
        found = checkpointer.resume(abstract(make_state(5)))
        assert found is not None
        assert found.step == 5
    assert {path.name for path in copy.iterdir()} == {"5", "10.damaged"}
    assert "renamed to 10.damaged" in said[0]


def test_a_damaged_step_asked_for_is_refused_with_the_mend(copy):
    file = next(path for path in files_of(copy / "10") if "ocdbt.process_0/d" in str(path))
    flip(file, 100)
    like = abstract(make_state(5))
    with Checkpointer(copy, read_only=True) as reader:
        for ask in (
            lambda: reader.restore(like, 10),
            lambda: reader.restore_params(step=10),
            lambda: reader.shapes(10),
        ):
            with pytest.raises(UserError) as refusal:
                ask()
            text = str(refusal.value)
            assert f"{file.relative_to(copy / '10')}: contents changed" in text
            assert f"remove {copy / '10'}, or name another step: intact are 5" in text
            assert "\n" not in text
        assert is_same(reader.restore(like, 5)[0], make_state(5))
        assert is_same(reader.restore_params()[0], make_state(5)["params"])
        assert reader.read_meta()["data"] == {"cursor": 5}


def test_a_step_refused_and_then_trained_again_is_saved_again(copy):
    flip(copy / "10" / "meta" / "metadata", 3)
    like = abstract(make_state(5))
    with Checkpointer(copy) as checkpointer:
        with pytest.raises(UserError, match="damaged"):
            checkpointer.restore(like, 10)
        checkpointer.restore(like, 5)
        assert checkpointer.save(10, make_state(11), {})
        checkpointer.wait()
        assert is_same(checkpointer.restore(like)[0], make_state(11))
    assert (copy / "10.damaged").is_dir()


def test_all_damaged_names_them_and_changes_nothing(copy):
    for step in ("5", "10"):
        flip(copy / step / "meta" / "metadata", 0)
    before = sorted(str(path) for path in copy.rglob("*"))
    for read_only in (True, False):
        with Checkpointer(copy, read_only=read_only) as checkpointer:
            for ask in (checkpointer.newest_intact, lambda c=checkpointer: c.resume(abstract(make_state(5)))):
                with pytest.raises(
                    UserError, match=r"all .* damaged: 10 \(meta/metadata: contents changed\), 5 \("
                ) as e:
                    ask()
                assert "\n" not in str(e.value)
    assert sorted(str(path) for path in copy.rglob("*")) == before


def test_a_step_is_hashed_once_in_a_process(copy, monkeypatch):
    from jaxlm.io import checkpoint_verifying

    hashed: list[str] = []

    def counted(path, **kwargs):
        hashed.append(path.name)
        return find_damage(path, **kwargs)

    find_damage = checkpoint_verifying.find_damage
    monkeypatch.setattr(checkpoint_verifying, "find_damage", counted)
    with Checkpointer(copy) as checkpointer:
        assert checkpointer.newest_intact() == 10
        checkpointer.restore(abstract(make_state(5)), 10)
        checkpointer.restore_params()
        assert hashed == ["10"]


def test_what_orbax_cannot_read_is_damage_but_a_full_device_is_not(copy, monkeypatch):
    from jaxlm.io import checkpoints

    def fails_at_10(error):
        def read(path, abstract_state):
            if path.name == "10":
                raise error
            return read_state(path, abstract_state)

        return read

    read_state, like = checkpoints.read_state, abstract(make_state(5))
    said: list[str] = []
    with Checkpointer(copy, say=said.append) as checkpointer:
        monkeypatch.setattr(checkpoints, "read_state", fails_at_10(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")))
        with pytest.raises(jax.errors.JaxRuntimeError):
            checkpointer.resume(like)
        assert checkpointer.steps() == [5, 10]
        monkeypatch.setattr(checkpoints, "read_state", fails_at_10(ValueError("NOT_FOUND: chunk\nlong story")))
        found = checkpointer.resume(like)
        assert found is not None
        assert found.step == 5
        assert checkpointer.steps() == [5]
    assert len(said) == 1
    assert "Orbax cannot read it: ValueError: NOT_FOUND: chunk)" in said[0]

"""The loader hands out the plan's batches, to each host its own rows, from any cursor, and stops cleanly."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.core.errors import UserError
from jaxlm.data.batches import BatchPlan, DataConfig, DataState, eval_plan, make_batch, train_plan
from jaxlm.data.corpus import CorpusConfig
from jaxlm.data.rows import ArraySource
from jaxlm.io.corpora import open_corpus
from jaxlm.io.loader import check_batch_size, eval_batches, local_rows, train_batches
from jaxlm.io.token_dataset import TokenSplit, build_token_dataset
from jaxlm.io.tokenizers import train_tokenizer
from jaxlm.text.tokenizer import TokenizerConfig


class Watched(ArraySource):
    """Keeps what is read, and can be told to fail."""

    def __init__(self, tokens: np.ndarray, doc_offsets: np.ndarray):
        super().__init__(tokens, doc_offsets)
        self.read_tokens: list[int] = []
        self.error: Exception | None = None

    def read(self, starts: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        if self.error is not None:
            raise self.error
        self.read_tokens += [int(lengths.sum())]
        return super().read(starts, lengths)


@pytest.fixture
def split(rng: np.random.Generator) -> Watched:
    offsets = np.concatenate([[0], np.cumsum(rng.integers(2, 60, 200))])
    return Watched(rng.integers(0, 1000, offsets[-1]), offsets)


@pytest.fixture
def plan(split: Watched) -> BatchPlan:
    return train_plan(split, DataConfig(seq_len=32), global_batch_size=16, seed=1)


def make_sharding(shape: tuple[int, int, int] = (4, 2, 1), spec: P | None = None) -> NamedSharding:
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    mesh = Mesh(devices, ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    return NamedSharding(mesh, P(("data", "fsdp")) if spec is None else spec)


@pytest.mark.parametrize("packing", ["best_fit", "concat"])
@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((4, 2, 1), P(("data", "fsdp"))),
        ((1, 1, 8), P(("data", "fsdp"))),
        ((2, 2, 2), P(("data", "fsdp"), "model")),
        ((1, 1, 1), P()),
    ],
)
def test_batches_are_those_of_the_plan_on_any_mesh(
    split: Watched, packing: str, shape: tuple[int, int, int], spec: P
) -> None:
    config = DataConfig(seq_len=32, packing="concat" if packing == "concat" else "best_fit")
    plan = train_plan(split, config, global_batch_size=16, seed=1)
    sharding = make_sharding(shape, spec)
    with train_batches(split, plan, DataState(3), sharding, pad_id=0) as batches:
        for expected_id in (3, 4, 5):
            batch_id, batch = next(batches)
            expected = make_batch(split, plan, plan.row_ids(expected_id), pad_id=0)
            assert batch_id == expected_id
            assert batch.keys() == expected.keys()
            assert all(array.sharding == sharding for array in batch.values())
            assert all(np.array_equal(batch[name], expected[name]) for name in batch)


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 1), (1, 1), (3, 8)])
def test_skipped_batches_are_left_out(split: Watched, plan: BatchPlan, threads: int, prefetch: int) -> None:
    state = DataState(10, skipped=(2, 10, 12, 13, 17))
    with train_batches(
        split, plan, state, make_sharding(), pad_id=0, read_threads=threads, prefetch=prefetch
    ) as batches:
        assert batches.state == state
        ids = [next(batches)[0] for _ in range(6)]
        assert ids == [11, 14, 15, 16, 18, 19]
        assert batches.state == DataState(20, state.skipped)
    with train_batches(split, plan, DataState(15, state.skipped), make_sharding(), pad_id=0) as batches:
        assert [next(batches)[0] for _ in range(3)] == [15, 16, 18]


def test_a_far_cursor_reads_its_own_batch_alone(split: Watched, plan: BatchPlan) -> None:
    with train_batches(split, plan, DataState(1_000_000), make_sharding(), pad_id=0, read_threads=0) as batches:
        assert split.read_tokens == []
        batch_id, batch = next(batches)
    assert batch_id == 1_000_000
    assert len(split.read_tokens) == 1
    num_segments = np.asarray(batch["segment_ids"]).max(axis=1).sum()
    assert split.read_tokens[0] == np.asarray(batch["loss_mask"]).sum() + num_segments


def test_reading_ahead_is_bounded(split: Watched, plan: BatchPlan) -> None:
    with train_batches(split, plan, DataState(), make_sharding(), pad_id=0, read_threads=2, prefetch=3) as batches:
        next(batches)
        wait_for(lambda: len(split.read_tokens) == 4)
        time.sleep(0.1)
        assert len(split.read_tokens) == 4


def test_epochs_end_with_a_filled_batch(split: Watched) -> None:
    plan = train_plan(split, DataConfig(seq_len=32, num_epochs=2), global_batch_size=16, seed=0)
    assert plan.num_batches is not None
    with train_batches(split, plan, DataState(skipped=(1,)), make_sharding(), pad_id=0) as batches:
        seen = list(batches)
    assert [batch_id for batch_id, _ in seen] == [0, *range(2, plan.num_batches)]
    for past in (plan.num_batches, plan.num_batches + 7):
        with train_batches(split, plan, DataState(past), make_sharding(), pad_id=0) as batches:
            assert list(batches) == []
    last = seen[-1][1]
    filled = np.asarray(last["loss_mask"]).sum(axis=1) > 0
    assert filled.sum() == 2 * plan.rows.num_rows - (plan.num_batches - 1) * 16


def test_evaluation_counts_each_target_once(split: Watched) -> None:
    plan = eval_plan(split, DataConfig(seq_len=32), batch_size=8)
    batches = list(eval_batches(split, plan, make_sharding(), pad_id=0))
    assert sum(int(np.asarray(batch["loss_mask"]).sum()) for batch in batches) == plan.rows.num_predictions
    again = list(eval_batches(split, plan, make_sharding(), pad_id=0))
    assert all(np.array_equal(a["tokens"], b["tokens"]) for a, b in zip(batches, again, strict=True))
    with pytest.raises(ValueError, match="does not end"):
        eval_batches(
            split, train_plan(split, DataConfig(seq_len=32), global_batch_size=8, seed=0), make_sharding(), pad_id=0
        )


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_in_a_reader_comes_out_as_itself(split: Watched, plan: BatchPlan, threads: int) -> None:
    split.error = UserError("record 7 of notes is damaged")
    with train_batches(split, plan, DataState(), make_sharding(), pad_id=0, read_threads=threads) as batches:
        with pytest.raises(UserError, match="record 7 of notes is damaged") as caught:
            next(batches)
        assert caught.value is split.error


def test_close_ends_the_threads_and_the_stream(split: Watched, plan: BatchPlan) -> None:
    before = set(threading.enumerate())
    batches = train_batches(split, plan, DataState(), make_sharding(), pad_id=0)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    batches.close()
    assert list(batches) == []
    wait_for(lambda: not set(threading.enumerate()) - before)


def test_the_interpreter_ends_with_a_reader_open() -> None:
    script = """
import sys, numpy as np, jax
from jaxlm.data.batches import DataConfig, DataState, train_plan
from jaxlm.data.rows import ArraySource
from jaxlm.io.loader import train_batches
split = ArraySource(np.arange(10_000))
plan = train_plan(split, DataConfig(seq_len=32), global_batch_size=8, seed=0)
batches = train_batches(split, plan, DataState(), jax.sharding.SingleDeviceSharding(jax.devices()[0]), pad_id=0)
print(next(batches)[0])
if sys.argv[1] == "raise":
    raise KeyboardInterrupt
"""
    for how, code in (("return", 0), ("raise", -2)):
        done = subprocess.run(
            [sys.executable, "-c", script, how], env=clean_environment(), capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "0\n", done.stderr
        assert done.returncode in (code, 130 if code else 0), done.stderr


def test_each_host_asks_for_its_own_rows() -> None:
    """Two processes of two devices each, against the whole batch."""
    script = """
import sys, numpy as np, jax
process, port = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, process)
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxlm.data.batches import DataConfig, DataState, make_batch, train_plan
from jaxlm.data.rows import ArraySource
from jaxlm.io.loader import local_rows, train_batches
class Counted(ArraySource):
    pieces = 0
    def read(self, starts, lengths):
        self.pieces += len(starts)
        return super().read(starts, lengths)
split = Counted(np.arange(5_000))
plan = train_plan(split, DataConfig(seq_len=32, packing="concat"), global_batch_size=8, seed=3)
mesh = jax.make_mesh((2, 2, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
sharding = NamedSharding(mesh, P(("data", "fsdp")))
assert local_rows(sharding, (8, 32)).tolist() == list(range(4 * process, 4 * process + 4))
with train_batches(split, plan, DataState(5), sharding, pad_id=0, read_threads=0) as batches:
    batch_id, batch = next(batches)
assert split.pieces <= 5, split.pieces  # Four rows, one of which may lie across the seam.
whole = make_batch(split, plan, plan.row_ids(5), pad_id=0)
for name, array in batch.items():
    assert array.shape == (8, 32)
    for shard in array.addressable_shards:
        assert np.array_equal(shard.data, whole[name][shard.index])
across = NamedSharding(mesh, P("fsdp", "data"))  # each row over both hosts: each reads it, and keeps its positions
with train_batches(split, plan, DataState(5), across, pad_id=0, read_threads=0) as batches:
    batch_id, batch = next(batches)
for name, array in batch.items():
    for shard in array.addressable_shards:
        assert shard.data.shape == (4, 16)
        assert np.array_equal(shard.data, whole[name][shard.index])
print("same rows", flush=True)
"""
    port = str(free_port())
    env = clean_environment()
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(i), port],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for host in hosts:
        out, err = host.communicate(timeout=120)
        assert out == "same rows\n", err


def test_rows_of_a_mesh() -> None:
    assert local_rows(make_sharding(), (16, 32)).tolist() == list(range(16))
    assert local_rows(make_sharding((1, 1, 8)), (16, 32)).tolist() == list(range(16))
    half = NamedSharding(make_sharding((2, 1, 1)).mesh, P(None, "data"))
    assert local_rows(half, (4, 32)).tolist() == [0, 1, 2, 3]


def test_a_batch_that_does_not_divide_is_named_with_its_mend() -> None:
    check_batch_size(16, make_sharding())
    check_batch_size(12, make_sharding((1, 1, 8)))
    check_batch_size(3, NamedSharding(make_sharding().mesh, P()))
    with pytest.raises(UserError) as caught:
        check_batch_size(12, make_sharding())
    assert str(caught.value) == (
        "global_batch_size=12 does not divide over 8 groups of devices (mesh data 4 x fsdp 2): take 8 or 16, "
        "or a smaller mesh"
    )
    with pytest.raises(UserError, match=r"eval_batch_size=3 does not .*: take 8, or a smaller mesh"):
        check_batch_size(3, make_sharding(), name="eval_batch_size")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> TokenSplit:
    directory = tmp_path_factory.mktemp("notes")
    text = "\n\n".join(f"Note {i}. " + "the quick brown fox " * (i % 40) for i in range(800))
    (directory / "notes.txt").write_text(text)
    corpus = open_corpus(
        CorpusConfig(source="text", paths=(str(directory / "notes.txt"),), document="paragraph"), data_dir=directory
    )
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte"), [])
    dataset = build_token_dataset(corpus, tokenizer, cache_dir=directory / "cache", add_bos=True, add_eos=True)
    return dataset.splits["train"]


@pytest.mark.parametrize("packing", ["best_fit", "concat"])
def test_a_real_token_data_set_reads_the_same(notes: TokenSplit, packing: str) -> None:
    config = DataConfig(seq_len=64, packing="concat" if packing == "concat" else "best_fit")
    held = ArraySource(notes.read(np.array([0]), np.array([notes.num_tokens]))[0], notes.doc_offsets)
    plan = train_plan(notes, config, global_batch_size=16, seed=1)
    with train_batches(notes, plan, DataState(1_000_000), make_sharding(), pad_id=0) as batches:
        for _ in range(3):
            batch_id, batch = next(batches)
            expected = make_batch(held, plan, plan.row_ids(batch_id), pad_id=0)
            assert all(np.array_equal(batch[name], expected[name]) for name in expected)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def clean_environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return env | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

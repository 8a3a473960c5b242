"""Lines that a resumed run will write again are dropped; nothing written before is lost."""

import json
import math
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from jaxlm.io.metrics import MetricsWriter, read_lines
from jaxlm.io.run_dir import RunDir


def lines_of(path):
    return [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in path.read_text().splitlines()]


def test_lines_are_there_as_they_are_written(tmp_path):
    run = RunDir(tmp_path / "run")
    with MetricsWriter(run.path, tensorboard=False) as writer:
        writer.write(10, {"train/loss": 2.5, "train/skipped": 3, "perf/mfu": None, "eval/loss": math.nan})
        (line,) = lines_of(run.metrics_path)
        assert line.pop("time") > 1e9
        assert line == {"step": 10, "train/loss": 2.5, "train/skipped": 3, "eval/loss": None}
        writer.write_samples(10, [{"prompt": "Ä", "completion": "b\nc", "temperature": 0.8}])
        assert lines_of(run.samples_path) == [{"step": 10, "prompt": "Ä", "completion": "b\nc", "temperature": 0.8}]


def test_resume_drops_the_steps_to_come(tmp_path):
    run = RunDir(tmp_path)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for step in (10, 20, 30, 40):
            writer.write(step, {"train/loss": float(step)})
            writer.write_samples(step, [{"prompt": "", "completion": str(step)}])
            writer.write(step, {"eval/loss": 1.0})
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 50, "train/lo')  # a line that a crash cut short
    with MetricsWriter(tmp_path, resume_step=20, tensorboard=False) as writer:
        writer.write(30, {"train/loss": 0.0})
    trained = [(line["step"], line["train/loss"]) for line in lines_of(run.metrics_path) if "train/loss" in line]
    assert trained == [(10, 10), (20, 20), (30, 0)]
    assert [line["step"] for line in lines_of(run.samples_path)] == [10, 20]


def test_the_last_evaluation_comes_once_where_it_comes_again(tmp_path):
    run = RunDir(tmp_path)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for step in (10, 20):
            writer.write(step, {"train/loss": float(step)})
            writer.write(step, {"eval/loss": float(step)})
            writer.write_samples(step, [{"prompt": "", "completion": str(step)}])
    with MetricsWriter(tmp_path, resume_step=20, evaluates_again=True, tensorboard=False) as writer:
        assert writer.last == {"train/loss": 20.0, "eval/loss": 10.0}
        writer.write(20, {"eval/loss": 0.0})
    judged = [(line["step"], line["eval/loss"]) for line in lines_of(run.metrics_path) if "eval/loss" in line]
    assert judged == [(10, 10.0), (20, 0.0)]
    assert [line["step"] for line in lines_of(run.samples_path)] == [10]


def test_a_full_disk_under_the_event_file_is_raised_and_nothing_hangs(tmp_path):
    writer = MetricsWriter(tmp_path / "run")
    assert writer._tensorboard is not None
    records: Any = writer._tensorboard._file._py_recordio_writer
    file = records._writer
    with open("/dev/full", "wb", buffering=0) as records._writer:
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                writer.write(1, {"train/loss": 1.0})
    records._writer = file
    writer.close()
    assert writer._metrics.closed
    assert writer._samples.closed


def test_a_cut_line_spoils_no_other(tmp_path):
    run = RunDir(tmp_path)
    run.metrics_path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a')
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(3, {"a": 3.0})
    assert [line["step"] for line in read_lines(run.metrics_path)] == [1, 3]


def test_tensorboard_gets_the_same_figures_and_is_purged(tmp_path):
    for resume in (None, 20):
        with MetricsWriter(tmp_path, resume_step=resume) as writer:
            writer.write(30, {"train/loss": 1.5})
            writer.write_samples(30, [{"prompt": "p", "completion": "c"}])
    events = [event for path in sorted((tmp_path / "tensorboard").iterdir()) for event in read_events(path)]
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value if v.HasField("simple_value")]
    assert scalars == [(30, "train/loss", 1.5)] * 2
    assert [event.step for event in events if event.session_log.status == 1] == [21]


def read_events(path):
    """TFRecord: length, its checksum, the event, its checksum."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        yield getattr(event_pb2, "Event").FromString(data[at + 12 : at + 12 + length])  # noqa: B009 (made at import)
        at += 16 + length


@pytest.mark.parametrize("was_evaluated", [True, False])
def test_samples_without_the_figures_of_their_evaluation_come_again(tmp_path, was_evaluated):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(10, {"train/loss": 1.0})
        writer.write_samples(10, [{"prompt": "a", "completion": "b"}])
        if was_evaluated:
            writer.write(10, {"eval/loss": 2.0})
    with MetricsWriter(tmp_path, resume_step=10, tensorboard=False) as writer:
        assert writer.was_evaluated == was_evaluated
        writer.go_back(10)
    run = RunDir(tmp_path)
    assert len(lines_of(run.metrics_path)) == 1 + was_evaluated
    assert len(lines_of(run.samples_path)) == was_evaluated

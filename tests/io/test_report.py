"""report.html holds what the run wrote, in itself, and nothing of it as markup."""

import base64
import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.goodput import Goodput
from jaxlm.io.metrics import MetricsWriter
from jaxlm.io.plots import Bars, Curve, draw_bars, draw_curves, running_mean, thin
from jaxlm.io.report import write_report
from jaxlm.io.run_dir import RunDir


@dataclass(frozen=True)
class Config:
    name: str = "a <b> & 'c'"
    num_steps: int = 6000


def test_incidents_and_time_are_shown(tmp_path):
    run = RunDir(tmp_path)
    run.write_config(Config())
    incidents = [
        {"step": 12, "batch_id": 11, "kind": "not_finite", "loss": None, "grad_norm": 1.0},
        {
            "step": 204,
            "kind": "spike",
            "onset": 202,
            "batch_ids": [201, 202, 203],
            "losses": [4.0, 6.5, 5.0],
            "grad_norms": [1.0, 2.0, 3.0],
            "statistics": {"loss_median": 2.25},
            "response": {"rolled_back_to": 150, "skipped_batches": [201, 202, 203]},
        },
        {"step": 204, "kind": "stopped", "diagnosis": "the rate is <too> high"},
    ]
    run.incidents_path.write_text(json.dumps(incidents))
    with Goodput(run.goodput_path) as goodput:
        goodput.write("start", 0)
        goodput.spend("step", 90.0)
        goodput.spend("compile", 30.0)
        goodput.write("spent", 200)
    page = write_report(run.path, final={"perf/goodput": 0.75, "perf/seconds/data_wait": 2.5}).read_text()
    for text in ("Incidents", "201 to 203", "6.5", "2.25", "back to step 150 without 3 batches", "the rate is &lt;too"):
        assert text in page
    for text in ("steps that count", "1 min 30 s", "75.0%", "25.0%", "2 min 00 s in 1 start"):
        assert text in page
    assert "250.0%" not in page
    run.incidents_path.write_text('[{"kind": "spike"}]')
    assert "incidents.json cannot be read here" in write_report(run.path).read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = RunDir(tmp_path_factory.mktemp("run"))
    run.write_config(Config(), device="cpu")
    with MetricsWriter(run.path, tensorboard=False) as writer:
        for step in range(10, 6001, 10):
            loss = math.nan if step == 500 else 2 + 6 * math.exp(-step / 100)
            figures = {"train/loss": loss, "train/learning_rate": 1e-3, "train/grad_norm": 1 / step}
            writer.write(step, figures | {"perf/tokens_per_second": 2e4 + step % 70, "perf/mfu": None})
            if step % 1000 == 0:
                writer.write(step, {"eval/loss": loss, "eval/bits_per_byte": 1.5})
        writer.write_samples(10, [{"prompt": "old", "completion": "old"}])
        writer.write_samples(6000, [{"prompt": "<script>", "completion": "alert(1)</pre>"}])
    run.mark_done({"eval/bits_per_byte": 1.4321, "num_params": 1804032, "step": 6000, "perf/mfu": None})
    return write_report(run.path)


class Parser(HTMLParser):
    """Collects tags, attributes and text; complains about tags that do not nest."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_report_is_one_small_file_with_its_pictures(report):
    text = report.read_text()
    assert len(text) < 300_000
    page = Parser(text)
    assert page.open == []
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)
    pictures = {str(attrs["alt"]): str(attrs["src"]) for tag, attrs in page.tags if tag == "img"}
    assert [name.split(" (")[0] for name in pictures] == [
        "loss", "bits per byte", "learning rate", "throughput", "gradient norm",
    ]  # fmt: skip
    for source in pictures.values():
        assert source.startswith("data:image/svg+xml;base64,")
        assert ElementTree.fromstring(base64.b64decode(source.partition(",")[2])).tag.endswith("svg")
    # All else that the page points to lies beside it.
    links = [str(attrs["href"]) for tag, attrs in page.tags if tag == "a"]
    assert "metrics.jsonl" in links
    assert all((report.parent / link).exists() for link in links)


def test_report_holds_figures_samples_config_and_environment(report):
    page = Parser(report.read_text())
    for part in (
        "a <b> & 'c'",
        "1.4321",
        "1,804,032",
        "<script>alert(1)</pre>",
        '"num_steps": 6000',
        "orbax-checkpoint",
    ):
        assert part in page.text
    assert "old" not in re.findall(r"\w+", page.text)
    assert "finished" in page.text


def test_report_of_a_run_that_has_just_begun(tmp_path):
    RunDir(tmp_path).write_config(Config())
    text = write_report(tmp_path).read_text()
    assert "not finished" in text
    assert Parser(text).open == []


def test_comparisons_inside_the_run_have_sections(report, tmp_path):
    assert "side by side" not in report.read_text()
    run = RunDir(tmp_path)
    run.write_config(Config())
    row = {"num_params": 5, "train_flops": None, "train_seconds": 1.0, "train_tokens": 7, "samples": []}
    likely = {"bits_per_byte": 2.5, "nats_per_token": 4.0, "pseudo_nats_per_token": None}
    masked = {"bits_per_byte": None, "nats_per_token": None, "pseudo_nats_per_token": 3.25}
    by_position = [{"first": i, "last": i, "nats": 4.0, "num_tokens": 9} for i in (1, 2)]
    rows = {
        "n-gram": row | likely | {"by_position": by_position, "milliseconds_by_length": {"16": 1.0, "32": 2.0}},
        "encoder": row | masked | {"by_position": [], "milliseconds_by_length": {}},
    }
    answer = {"num_params": None, "train_flops": 0.0, "answer_flops": None, "answer_milliseconds": None}
    small_large = {
        "rows": [{"model": "<m>", "how": "h", "accuracy": 0.25, "standard_error": 0.125} | answer],
        "task": {"about": "a & b", "labels": ["x", "y"], "num_train": 9, "num_answered": 3},
        "prompt": "</pre>kind:",
    }
    for name, value in (("generations", {"rows": rows}), ("small_large", small_large)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text(json.dumps(value))
    page = Parser(write_report(tmp_path).read_text())
    assert page.open == []
    for part in ("side by side", "3.250", "no likelihood", "against large", "<m>", "0.250 ± 0.125", "</pre>kind:"):
        assert part in page.text
    # Another version's table, and one cut short, keep no report from being written.
    (tmp_path / "generations" / "generations.json").write_text('{"rows": {"n-gram": {"num_params": 5}}}')
    (tmp_path / "small_large" / "small_large.json").write_text('{"rows": [')
    assert write_report(tmp_path).read_text().count("cannot be read here: run its command again") == 2


def test_report_needs_a_run(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        write_report(tmp_path)


def test_thinning_keeps_spikes_and_the_mean_skips_nan(rng):
    values = rng.normal(size=10_000)
    values[4321], values[777] = 100.0, np.nan
    steps, kept = thin(np.arange(10_000), values)
    assert len(steps) <= 400
    assert np.nanmax(kept) == 100.0
    assert (np.diff(steps) > 0).all()
    mean = running_mean(np.array([1.0, np.nan, 3.0, 5.0]), 3)
    np.testing.assert_allclose(mean, [1.0, 2.0, 4.0, 4.0])
    assert json.dumps(float(running_mean(np.array([np.nan] * 3), 3)[0])) == "NaN"


def test_no_curve_is_left_out():
    curves = [Curve(f"curve {i}", np.arange(3), np.full(3, i)) for i in range(14)]
    picture = draw_curves("many", curves)
    assert all(f">curve {i}<" in picture for i in range(14))
    assert picture.count("stroke-dasharray") > 8  # of the seventh on


def test_a_long_name_leaves_room_for_its_bar():
    for long in ("x" * 100 + "y" * 100, "学" * 100 + "问" * 100):
        picture = draw_bars("tasks", [long, "short"], [Bars("share", [0.2, 0.8])])
        assert f"{long[0]}…{long[-1]}" in picture
        assert long[0] * 30 not in picture
        assert "short" in picture

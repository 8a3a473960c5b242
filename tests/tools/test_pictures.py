"""The pictures of docs/ are drawn from a run's files and from the code alone."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from jaxlm.io.metrics import MetricsWriter
from tests.quick import FLAGS


def draw(*argv):
    # A process of its own: the tool asks JAX for eight devices, which must come before any use of it.
    environment = os.environ | {"XLA_FLAGS": FLAGS}
    return subprocess.run(
        [sys.executable, "-m", "tools.pictures", *map(str, argv)], capture_output=True, text=True, env=environment
    )


@pytest.mark.slow
def test_every_picture_that_a_page_shows_is_drawn(tmp_path, pytestconfig):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for step in (1, 2):
            writer.write(step, {"train/loss": 5.0 - step, "train/learning_rate": 0.1, "eval/bits_per_byte": 2.0})
    (tmp_path / "done.json").write_text(json.dumps({"eval/xz_bits_per_byte": 2.1}))
    result = draw(tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    for path in (tmp_path / "out").iterdir():
        ElementTree.parse(path)
    docs = pytestconfig.rootpath / "docs"
    shown = {line.split("(pictures/")[1].split(")")[0] for page in docs.glob("*.md") for line in
             page.read_text().splitlines() if "(pictures/" in line}  # fmt: skip
    assert drawn == shown == {path.name for path in (docs / "pictures").iterdir()}


def test_a_file_is_no_place_to_draw_into(tmp_path):
    (tmp_path / "done.json").write_text("{}")
    result = draw(tmp_path, "--out", tmp_path / "done.json")
    assert result.returncode == 2
    assert "done.json is a file, name a directory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_run_that_has_not_ended_is_refused(tmp_path):
    result = draw(tmp_path)
    assert result.returncode == 2
    assert "no finished run" in result.stderr

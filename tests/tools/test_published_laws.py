"""The comparisons with published laws, through the command: one JSON line, and what the issue of scaling asks of it."""

import json

import pytest

from jaxlm.run.cli import run_main
from tools.published_laws import main


def test_quick_comparisons_end_in_one_line_of_json(shared_data, capsys):
    names = ["hoffmann", "steplaw", "inverse_scaling"]
    assert run_main(main, [str(shared_data), "--only", *names, "--resamples", "50"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found) == names
    assert [line.partition(":")[0] for line in err.splitlines()] == names
    assert found["hoffmann"]["best"]["3 rounded"] == pytest.approx([32.2e9, 2.98e12], rel=1e-3)
    assert all(excess < 2e-3 for excess in found["steplaw"]["excess_loss_of_the_size_left_out"].values())
    trend = found["inverse_scaling"]["GPT-3"]["without bias (higher is better)"]
    assert trend["inverse"] is True
    low, high = trend["interval"]
    assert low < trend["slope"] < high < 0


def test_a_folder_that_is_not_there_is_named(tmp_path, capsys):
    assert run_main(main, [str(tmp_path)]) == 2
    assert "scaling is not there" in capsys.readouterr().err

"""What must be found on real text: planted near copies, known copies, planted evaluation items."""

import json

import pytest

from jaxlm.run.cli import run_main
from tools import duplicates


def figures(capsys, *argv):
    duplicates.main(list(argv))
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "argv",
    [
        ["known", "--data", "/no/such"],
        ["kown"],
        ["planted", "--threshold", "0"],
        ["planted", "--count", "-1"],
        ["planted", "--each", "0"],
        ["items", "--share", "2"],
    ],
)
def test_what_is_wrong_is_one_line(argv, capsys):
    assert run_main(duplicates.main, argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_planted_near_copies(shared_data, capsys):
    found = figures(capsys, "planted", "--data", str(shared_data), "--count", "4000", "--each", "150")
    assert found["by_rate"]["0.05"]["recall"] >= 0.98
    for rate in ("0.05", "0.1"):
        assert found["by_rate"][rate]["recall_above_threshold"] >= 0.98
    assert found["precision"] >= 0.98


def test_known_copies(shared_data, capsys):
    found = figures(capsys, "known", "--data", str(shared_data))
    assert found["flan_found"] == found["flan"] == 7473
    assert found["poem_repeats_found_exact"] == found["poem_repeats"] == 526


@pytest.mark.slow
def test_planted_items(shared_data, capsys):
    found = figures(capsys, "items", "--data", str(shared_data), "--count", "4000")
    recall = found["recall_by_words_changed"]
    assert set(recall["0.0"].values()) == {1.0}
    assert found["false_positive_rate"] == 0
    assert min(recall["0.05"].values()) >= 0.93

"""tools.hf as a command: its last line, and how it refuses."""

import json
import re

import pytest

from jaxlm.run.cli import run_main
from jaxlm.run.text_scores import fit_ngram_run
from jaxlm.text.tokenizer import TokenizerConfig
from tests.io.hf.directories import CONFIGS, random_tensors, write_directory
from tools.hf import main, parse_size


@pytest.fixture
def source(tmp_path):
    return write_directory(tmp_path / "hf", CONFIGS["llama"], random_tensors(CONFIGS["llama"]))


def test_last_line_is_json(source, tmp_path, capsys):
    assert run_main(main, ["import", str(source), str(tmp_path / "run"), "--dtype", "bfloat16"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["parameters"] * 4 == figures["bytes"]
    assert figures.keys() >= {"architecture", "tensors", "dtype", "seconds"}
    options = ["--max-shard-size", "5KB", "--dtype", "float32"]
    assert run_main(main, ["export", str(tmp_path / "run"), str(tmp_path / "back"), *options]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1])["files"] == len(list((tmp_path / "back").glob("*.safetensors")))
    assert "GB" in captured.err


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["import", "absent", "run"], "no directory absent"),
        (["export", "absent", "out"], "absent is not a run directory"),
        (["import", "HF", "HF"], "is there already"),
        (["export", "HF", "out"], "has no config|cannot be read"),
        (["import", "HF"], "required"),
        ([], "required"),
        (["import", "HF", "run", "--dtype", "int8"], "invalid choice"),
        (["export", "HF", "out", "--max-shard-size", "big"], "is no size"),
    ],
)
def test_refusals_are_one_line(source, tmp_path, capsys, monkeypatch, argv, match):
    monkeypatch.chdir(tmp_path)
    assert run_main(main, [argument.replace("HF", str(source)) for argument in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert re.search(match, captured.err)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("target", [".", "../empty", "new/.."])
def test_the_working_directory_is_no_target(source, tmp_path, capsys, monkeypatch, target):
    assert run_main(main, ["import", str(source), str(tmp_path / "run")]) == 0
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for argv in (["import", str(source), target], ["export", str(tmp_path / "run"), target]):
        capsys.readouterr()
        assert run_main(main, argv) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "is the working directory" in captured.err.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "hf", "run"]
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("config.json", "[]", "config.json holds no JSON object"),
        ("config.json", '{"architectures": [[]]}', "is not supported"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json holds no JSON object"),
        ("model.safetensors.index.json", '{"weight_map": []}', "has no weight_map"),
    ],
)
def test_files_of_other_shapes_are_one_line(source, tmp_path, capsys, file, content, match):
    (source / file).write_text(content)
    assert run_main(main, ["import", str(source), str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert match in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_sizes():
    assert [parse_size(text) for text in ("5GB", "500mb", "1K", "12")] == [5 * 10**9, 5 * 10**8, 1000, 12]


def test_an_n_gram_model_is_named(tmp_path, capsys):
    fit_ngram_run(["to be or not to be"] * 30, tmp_path / "ngram", tokenizer=TokenizerConfig(kind="byte"))
    capsys.readouterr()
    assert run_main(main, ["export", str(tmp_path / "ngram"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "ngram is an n-gram model: " in said
    assert said.count("\n") == 1

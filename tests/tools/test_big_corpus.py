"""``tools.big_corpus`` removes what it has written itself, and nothing else."""

import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.source import SourceConfig
from jaxlm.io.run_dir import RunDir
from jaxlm.run.cli import run_main
from jaxlm.run.corpus.cleaning import plain
from jaxlm.run.corpus.config import CorpusBuildConfig
from tools.big_corpus import check_own, main


@pytest.mark.parametrize("name", ["source/notes.txt", "source/0000.jsonl.gz", "run/notes.txt", "run", "source"])
def test_what_it_has_not_written_stays(tmp_path, capsys, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert run_main(main, [str(tmp_path), "--gib", "1e-6"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_a_run_of_another_kind_stays_and_a_build_may_go(tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    check_own(source, run)
    source.mkdir()
    (source / "0000.jsonl").write_text("{}")
    with RunDir(run) as directory:
        check_own(source, run)
        directory.write_config({"seq_len": 8})
        with pytest.raises(UserError, match="run is no corpus build"):
            check_own(source, run)
        directory.config_path.unlink()
        config = CorpusBuildConfig(sources=(SourceConfig(name="a", format="jsonl", paths=("a.jsonl",)),))
        directory.write_config(plain(config))
    check_own(source, run)


@pytest.mark.parametrize(("option", "value"), [("--gib", "nan"), ("--gib", "inf"), ("--shards", "0")])
def test_sizes_are_checked_first(tmp_path, capsys, option, value):
    assert run_main(main, [str(tmp_path / "out"), option, value]) == 2
    assert f"argument {option}: {value} must be" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

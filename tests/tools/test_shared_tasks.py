"""``tools.shared_tasks``: what it refuses."""

from jaxlm.run.cli import run_main
from tools.shared_tasks import main


def test_a_file_is_no_place_to_write_into(shared_data, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run_main(main, [str(shared_data), str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert "file is a file, name a directory" in said
    assert said.count("\n") == 1

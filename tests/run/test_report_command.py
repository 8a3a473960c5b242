"""``jaxlm report``: whose page it writes, and whose it leaves alone."""

import json

from jaxlm.run.cli import main


def test_the_page_of_a_study_is_left_alone(tmp_path, make_run, capsys):
    study = tmp_path / "study"
    study.mkdir()
    (study / "config.json").write_text(json.dumps({"config": {"name": "a study"}}))
    (study / "report.html").write_text("its own page")
    assert main(["report", str(study)]) == 2
    assert "is written by its own command" in capsys.readouterr().err
    assert (study / "report.html").read_text() == "its own page"
    make_run(tmp_path / "run")
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").is_file()

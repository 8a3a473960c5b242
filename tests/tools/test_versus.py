"""``tools.versus``: what is not there is one line."""

import sys

import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.cli import run_main
from tools.versus import attention, datatrove, minhash, nanogpt, recurrent
from tools.versus.turns import check_peer


@pytest.mark.parametrize(
    ("main", "argv", "says"),
    [
        (minhash.main, ["NOPE"], "cannot read NOPE: No such file"),
        (datatrove.main, ["--text", "NOPE"], "cannot read NOPE: No such file"),
        (attention.main, ["--peer-python", "/no/such"], "cannot start --peer-python /no/such"),
        (recurrent.main, ["--peer-python", "/no/such"], "cannot start --peer-python /no/such"),
    ],
)
def test_wrong_paths_are_one_line(main, argv, says, capsys):
    assert run_main(main, argv) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_an_interpreter_without_torch_is_said_before_anything_starts(tmp_path, capsys):
    (tmp_path / "model.py").touch()
    assert run_main(nanogpt.main, [str(tmp_path), "--peer-python", "/no/such"]) == 2
    assert "cannot start --peer-python /no/such" in capsys.readouterr().err


def test_a_peer_without_its_module_is_named():
    check_peer(sys.executable, "numpy")
    with pytest.raises(UserError, match=r"cannot import numpy, no_such_module .*No module named"):
        check_peer(sys.executable, "numpy", "no_such_module")

"""The front door: quick help, and errors that are one line and an exit code."""

import subprocess
import sys

import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.run import cli


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "jaxlm", *argv], capture_output=True, text=True)


def test_help_lists_the_commands_without_starting_jax():
    script = "import sys; from jaxlm.run.cli import main; sys.exit(main(['--help']) or 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("corpus", "pretrain", "generate", "chat", "report", "inspect", "doctor"):
        assert f"\n  {name} " in done.stdout


def test_python_m_jaxlm():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"jaxlm {jaxlm.__version__}\n")
    done = run("pretrian")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: unknown command 'pretrian'; did you mean 'pretrain'? (there are {', '.join(cli.COMMANDS)})\n"
    )
    assert run().returncode == 2


def raising(error: BaseException):
    def main(argv: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("seed=1\n  is bad"), 2, "error: seed=1 is bad\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
        (
            OSError(28, "No space left on device", "config.json"),
            2,
            "error: no space left ([Errno 28] No space left on device: 'config.json'): free space and start the same "
            "command again\n",
        ),
    ],
)
def test_how_errors_end(error, code, said, capsys):
    assert cli.run_main(raising(error), []) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_main(raising(ZeroDivisionError()), [])


def test_arguments_reach_the_command(monkeypatch):
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_module:go", "x"))
    monkeypatch.setitem(
        sys.modules, "probe_module", type("M", (), {"go": staticmethod(lambda argv: seen.append(argv) or 7)})
    )
    assert cli.main(["probe", "--a", "b"]) == 7
    assert seen == [["--a", "b"]]


def test_a_closed_pipe_is_no_error():
    script = "import sys; from jaxlm.run.cli import run_main; sys.exit(run_main(lambda _: print('x\\n' * 10**6) or 0))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"x\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_the_commands_are_there():
    for target, _ in cli.COMMANDS.values():
        module, _, function = target.partition(":")
        __import__(module)
        assert callable(getattr(sys.modules[module], function))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert "usage: " in capsys.readouterr().out or name == "scaling"  # whose commands have their own


def test_unknown_attribute_of_the_package():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        jaxlm.lode  # noqa: B018

"""Every wrong name, value and type on the command line is one line; every right one lands in the config."""

import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.config_files import RunOptions, load_config


@dataclass(frozen=True)
class Model:
    """Sizes."""

    num_layers: int = 2
    """How many layers."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    window_pattern: tuple[int | None, ...] = (None,)
    softcap: float | None = None
    tie: bool = True

    def __post_init__(self):
        if self.num_layers < 1:
            raise ValueError(f"num_layers={self.num_layers} must be at least 1")


@dataclass(frozen=True)
class Config:
    """A run of this test."""

    model: Model = field(default_factory=Model)
    paths: tuple[str, ...] = ()
    seed: int = 0
    ema_decay: float | None = None

    def __post_init__(self):
        if self.seed == self.model.num_layers:
            raise ValueError(f"seed={self.seed} equals model.num_layers: change one")


GOOD = """
    from {module} import Config, Model

    def config():
        return Config(model=Model(num_layers=4), seed=5)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory whose configs/ holds tiny.py and small.py."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "config_files_test", sys.modules[__name__])
    write("configs/tiny.py", GOOD)
    write("configs/small.py", "from tiny import config")
    return tmp_path


def write(path: str, source: str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(textwrap.dedent(source).format(module="config_files_test"))
    return target


def load(*argv: str) -> tuple[Config, RunOptions]:
    return load_config(Config, argv)


def test_name_path_and_neighbour_give_the_same_config(here):
    want = Config(model=Model(num_layers=4), seed=5)
    assert load("tiny") == (want, RunOptions(run_dir=Path("runs/tiny")))
    assert load("configs/tiny.py") == (want, RunOptions(run_dir=Path("runs/tiny")))
    assert load(str(here / "configs/small.py")) == (want, RunOptions(run_dir=Path("runs/small")))


@pytest.mark.parametrize("statement", ["from tiny import config", "from configs.tiny import config"])
def test_neighbours_are_those_of_each_config_and_as_they_are_now(here, monkeypatch, statement):
    for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    write("configs/__init__.py", "")
    write("configs/small.py", statement)
    assert load("small")[0].seed == 5
    write("configs/tiny.py", GOOD.replace("seed=5", "seed=14"))
    assert load("small")[0].seed == 14
    monkeypatch.chdir(write("elsewhere/configs/small.py", statement).parent.parent)
    write("configs/__init__.py", "")
    write("configs/tiny.py", GOOD.replace("seed=5", "seed=100"))
    assert load("small")[0].seed == 100


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        ("--seed 7", Config(model=Model(4), seed=7)),
        ("--seed=-7", Config(model=Model(4), seed=-7)),
        ("--seed -7", Config(model=Model(4), seed=-7)),
        ("--model.num-layers 3", Config(model=Model(3), seed=5)),
        ("--model.num_layers=3 --seed 9", Config(model=Model(3), seed=9)),
        ("--model.window_pattern None 128 --model.mlp swiglu", Config(Model(4, "swiglu", (None, 128)), seed=5)),
        ("--paths a b --ema_decay 0.5", Config(Model(4), ("a", "b"), 5, 0.5)),
        ("--paths", Config(Model(4), (), 5)),
        ("--ema-decay None", Config(Model(4), seed=5)),
        ("--model.softcap 30", Config(Model(4, softcap=30.0), seed=5)),
        ("--model.tie false", Config(Model(4, tie=False), seed=5)),
        ("--model.tie=False", Config(Model(4, tie=False), seed=5)),
        ("--model.no-tie", Config(Model(4, tie=False), seed=5)),
        ("--model.tie --seed 6", Config(Model(4), seed=6)),
    ],
)
def test_overrides(here, argv, want):
    assert load("tiny", *argv.split())[0] == want


@dataclass(frozen=True)
class Several:
    """Groups in a tuple."""

    models: tuple[Model, ...] = ()


def test_groups_in_a_tuple_are_known_by_their_number(here):
    write("configs/two.py", "from {module} import Model, Several\n\ndef config(): return Several((Model(), Model(5)))")
    config, _ = load_config(Several, ["two", "--models.1.mlp", "swiglu", "--models.0.no-tie"])
    assert config == Several((Model(tie=False), Model(5, "swiglu")))
    for name, words in (("--models.2.mlp", r"unknown option --models\.2\.mlp;"), ("--models.1", "group of fields")):
        with pytest.raises(UserError, match=words):
            load_config(Several, ["two", name, "gelu"])


@dataclass(frozen=True)
class Tuned:
    """A model of its own, or that of a base."""

    model: Model | None = field(default_factory=Model)
    base: str | None = None

    def __post_init__(self):
        if (self.model is None) == (self.base is None):
            raise ValueError("give one of model and base")


@dataclass(frozen=True)
class Nested:
    """A group in a group."""

    small: Tuned = field(default_factory=Tuned)


@pytest.mark.parametrize("given", [["--small.model", "None"], ["--small.model=None"]])
def test_a_group_that_may_be_none_is_left_out(here, given):
    write("configs/nested.py", "from {module} import Nested as config")
    assert load_config(Nested, ["nested", *given, "--small.base", "run"])[0] == Nested(Tuned(None, "run"))
    assert load_config(Nested, ["nested", "--small.model.num-layers", "3"])[0] == Nested(Tuned(Model(3)))
    for argv, words in (
        (given, "give one of model and base"),
        (
            [*given, "--small.base", "run", "--small.model.num-layers", "3"],
            r"unknown option --small.model.num_layers: small.model is None in this config: set model=Model\(",
        ),
        (["--small", "None"], "--small is a group of fields"),
    ):
        with pytest.raises(UserError, match=words):
            load_config(Nested, ["nested", *argv])


def test_options_beside_the_config(here):
    options = load("tiny", "--run-dir", "x/y", "--seed", "3", "--dry-run", "--profile", "--profile-steps", "3", "4")[1]
    assert options == RunOptions(Path("x/y"), dry_run=True, profile=True, profile_steps=(3, 4))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", r"no CONFIG given: jaxlm pretrain CONFIG, a name in \./configs \(.*small, .*tiny.*\)"),
        ("--seed 3", "no CONFIG given before --seed"),
        ("tinny", "unknown config 'tinny'.*did you mean 'tiny'"),
        ("a/tiny.py", "unknown config 'a/tiny.py': the file a/tiny.py does not exist"),
        ("notes.txt", r"config file notes\.txt is not a Python file"),
        ("tiny --model.num_layer 3", r"unknown option --model\.num_layer; did you mean --model\.num_layers\?"),
        ("tiny --num_layers 3", r"unknown option --num_layers; did you mean --model\.num_layers\?"),
        ("tiny --zzz 3", r"unknown option --zzz$"),
        ("tiny --model 3", "--model is a group of fields: set one of them, like --model.num_layers"),
        ("tiny --model.num_layers x", "--model.num_layers x is not of type int"),
        ("tiny --model.num_layers 1.5", "--model.num_layers 1.5 is not of type int"),
        ("tiny --model.softcap nan", "model.softcap=nan is no number"),
        ("tiny --model.softcap abc", r"--model.softcap abc is not of type float \| None"),
        ("tiny --model.num_layers", r"missing value for argument '--model\.num-layers'"),
        ("tiny --model.num_layers 0", "model: num_layers=0 must be at least 1"),
        ("tiny --seed 4", "seed=4 equals model.num_layers: change one"),
        ("tiny --model.mlp relu", "'relu'.*--model.mlp.*'gelu', 'swiglu'"),
        ("tiny --model.tie maybe", "'maybe'.*--model.tie"),
        ("tiny other", "unexpected argument 'other'"),
        ("tiny -x", "unexpected argument '-x'"),
        ("tiny --seed 1 2", "2"),
        ("tiny --profile-steps 20 10", "profile_steps=.20, 10.: the first step comes before"),
    ],
)
def test_wrong_command_lines(here, argv, message):
    Path("notes.txt").write_text("")
    with pytest.raises(UserError, match=message) as caught:
        load(*argv.split())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", r"bad\.py has no function config\(\): it must return a Config"),
        ("config = 3", r"has no function config\(\)"),
        ("def config(:", r"bad\.py line 1: invalid syntax"),
        ("import no_such_module", r"bad\.py line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def config():\n    return {{}}", r"config\(\) returned a dict, not a Config"),
        (
            "from {module} import Model\n\ndef config():\n    return Model(num_layers=0)",
            r"bad\.py line 4: ValueError: num_layers=0 must be at least 1",
        ),
        ("from {module} import Model\nconfig = lambda: Model(layers=3)", r"line 2: TypeError: .*unexpected keyword"),
        ("def config():\n    raise KeyError('a\\nb')", r"line 2: KeyError: 'a\\nb'"),
    ],
)
def test_wrong_config_files(here, source, message):
    write("bad.py", source)
    with pytest.raises(UserError, match=message) as caught:
        load("bad.py")
    assert "\n" not in str(caught.value)


def test_help_shows_fields_defaults_and_docstrings(here, capsys):
    with pytest.raises(SystemExit) as stop:
        load("tiny", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for part in ("--model.num-layers INT", "How many layers. (default: 4)", "--run-dir", "A run of this test.", "tiny"):
        assert part in text
    write("configs/fitting.py", "def config() -> Config: ...")
    write("configs/foreign.py", "def config() -> other.Kind: ...")
    Path("configs/.#tiny.py").symlink_to("nothing")
    with pytest.raises(SystemExit):
        load("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "jaxlm pretrain CONFIG --help shows that config's options" in text
    (names,) = re.findall(r"CONFIG: a name in \./configs \((.*?)\)", text)
    assert {"fitting", "small", "tiny"} <= set(names.split(", "))
    assert not {"foreign", "sft_small"} & set(names.split(", "))
    with pytest.raises(SystemExit):
        load_config(Config, ["--help"], about="Looks at its batches.")
    text = capsys.readouterr().out
    assert "Looks at its batches." in text
    assert "A run of this test." not in text


def test_bad_input_ends_with_one_line_and_code_2_before_any_device_starts(here):
    script = textwrap.dedent("""
        from jaxlm.run.cli import run_main
        from jaxlm.run.config import PretrainConfig
        from jaxlm.run.config_files import load_config

        def main(argv):
            load_config(PretrainConfig, argv)
            return 0

        for argv in (["real"], ["real", "--model.num_layers", "x"], ["real", "--num_steps", "0"], ["reel"]):
            print(run_main(main, argv))
        from jax._src import xla_bridge
        assert not xla_bridge._backends, "a device was started"
    """)
    write("configs/real.py", "from jaxlm.run.config import PretrainConfig as config")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    first, second, third = done.stderr.splitlines()
    assert first == "error: --model.num_layers x is not of type int"
    assert second == "error: num_steps=0 must be at least 1"
    assert third.startswith("error: unknown config 'reel': ./configs has ")
    assert done.stdout.split() == ["0", "2", "2", "2"]

"""From ``CONFIG [--field.sub value ...]`` to a config: a Python file with ``config()``, then typed overrides (tyro).

Everything wrong here is one line (`UserError`), said before any device starts.
"""

import contextlib
import copy
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import io
import itertools
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.io.config_json import near_names

T = TypeVar("T")
O = TypeVar("O", bound="CommandOptions")  # noqa: E741
_HELP = ("-h", "--help")
MODULE_PREFIX = "jaxlm_config_"
"""A config file is the module of this and its name."""
_neighbours: set[str] = set()
"""Modules that the last config imported from its own directory."""


@dataclasses.dataclass(frozen=True)
class CommandOptions:
    """Options of a command, beside those of its config: they change no result."""

    run_dir: Path | None = None
    """Where the run lives; an existing one is resumed. None = runs/ and the name of the config file."""


@dataclasses.dataclass(frozen=True)
class RunOptions(CommandOptions):
    """Options of a training run."""

    dry_run: bool = False
    """Show shapes, memory and mesh, and train nothing."""
    profile: bool = False
    """Write a profiler trace of the steps named by profile_steps to RUN/profile."""
    profile_steps: tuple[int, int] = (10, 15)
    """First step of the trace and the one after its last, counted from where this command starts."""

    def __post_init__(self) -> None:
        first, end = self.profile_steps
        if not 0 <= first < end:
            raise ValueError(f"profile_steps={first, end}: the first step comes before the one after the last")


def load_config(
    config_type: type[T],
    argv: Sequence[str],
    options_type: type[O] = RunOptions,
    *,
    prog: str = "jaxlm pretrain",
    about: str | None = None,
) -> tuple[T, O]:
    """The config and the options that a command line asks for; `options.run_dir` is filled in.

    Args:
      config_type: what ``config()`` must return.
      argv: ``CONFIG --field.sub value ...``: a name in ``./configs`` or a path to a Python file, then overrides of any
        field of the config or of `options_type`, dashes and underscores alike. A lone ``--flag`` sets a bool,
        ``--group None`` leaves out a group of fields that may be None.
      prog: the command, for the help text.
      about: what the command does, for the help text; None = what the config is.

    ``--help`` prints every field with its default and ends the process (SystemExit 0). Raises UserError for anything
    wrong: unknown config or field (near names offered), a file that fails, a wrong type, a value that a config refuses.
    """
    argv = list(argv)
    here = ", ".join(config_names(config_type)) or "none here"
    wants_help = any(token in _HELP for token in argv)
    if argv and not argv[0].startswith("-"):
        path = find_config(argv.pop(0))
        default = run_config_file(path, config_type)
        default, argv = _without_groups(default, argv)
        options = options_type(run_dir=Path("runs") / path.stem)
    elif wants_help:
        default, options = config_type(), options_type()
    else:
        given = f" before {argv[0]}" if argv else ""
        raise UserError(f"no CONFIG given{given}: {prog} CONFIG, a name in ./configs ({here}) or a .py file")

    # One parse of both, so that one help text shows all; name="" keeps the fields at the top level.
    both = dataclasses.make_dataclass(
        "Arguments",
        [
            ("options", Annotated[options_type, tyro.conf.arg(name="")]),
            ("config", Annotated[config_type, tyro.conf.arg(name="")]),
        ],
    )
    kinds = _option_kinds(options) | _option_kinds(default)
    clash = _option_kinds(options).keys() & _option_kinds(default).keys()
    assert not clash, f"{config_type.__name__} and {options_type.__name__} both have {clash}"
    tokens = [token for token in argv if token in _HELP] or list(_normalise(argv, kinds))

    def parse() -> Any:
        return tyro.cli(
            both,
            args=tokens,
            default=both(options, default),
            prog=f"{prog} CONFIG",
            description=f"{about or inspect.getdoc(config_type)}\n\nCONFIG: a name in ./configs ({here}) or a .py "
            f"file. {prog} CONFIG --help shows that config's options.",
            # A union's member is the one that the config file gave: no subcommand chooses another.
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        )

    parsed = parse() if wants_help else _in_one_line(parse, tokens, kinds)
    for part in (parsed.config, parsed.options):
        if (name := next(_not_numbers(part), None)) is not None:
            raise UserError(f"{name}=nan is no number: give one")
    return parsed.config, parsed.options


def _not_numbers(value: Any, name: str = "") -> Iterator[str]:
    """The fields that are NaN: no comparison with a bound refuses them."""
    if isinstance(value, float) and value != value:
        yield name
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _not_numbers(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
    elif isinstance(value, (tuple, list)):
        for number, item in enumerate(value):
            yield from _not_numbers(item, f"{name}.{number}")


def find_config(name: str) -> Path:
    """The file that CONFIG names: a path, or a name in ``./configs`` (or in the checkout's). UserError if none."""
    path = Path(name)
    candidates = [path, *(directory / f"{path.name}.py" for directory in _config_dirs() if path.name == name)]
    for candidate in candidates:
        if candidate.is_file():
            if candidate.suffix != ".py":
                raise UserError(f"config file {candidate} is not a Python file (.py)")
            return candidate
    looks_like_path = path.suffix == ".py" or len(path.parts) > 1
    known = config_names()
    where = f"the file {name} does not exist" if looks_like_path else f"./configs has {', '.join(known) or 'none'}"
    raise UserError(f"unknown config {name!r}: {where}{near_names(path.stem, known)}")


def config_names(config_type: type[Any] | None = None) -> list[str]:
    """Names that CONFIG may have without being a path; with a type, without those whose ``config()`` is annotated to
    return another. The files are read and not run."""
    files = (file for directory in _config_dirs() for file in directory.glob("*.py") if not file.stem.startswith("_"))
    fitting = None if config_type is None else (None, config_type.__name__)
    return sorted({file.stem for file in files if fitting is None or _returns(file) in fitting})


def _returns(file: Path) -> str | None:
    """The name of the type that its ``config()`` is annotated with, if it is."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:  # an editor's lock is a link to nothing
        return None
    found = re.search(r"^def config\(\) *-> *[\"']?(?:\w+\.)*(\w+)", text, re.MULTILINE)
    return found and found[1]


def run_config_file(path: Path, config_type: type[T]) -> T:
    """What ``config()`` of a Python file returns. Raises UserError, with the line, where the file or the call fails."""
    spec = importlib.util.spec_from_file_location(f"{MODULE_PREFIX}{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importable(path.parent.absolute()):
        # Dataclasses defined in the file look their module up by name.
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
            make = getattr(module, "config", None)
            if not callable(make):
                raise UserError(f"{path} has no function config(): it must return a {config_type.__name__}")
            config = make()
        except UserError:
            raise
        except SyntaxError as error:
            raise UserError(f"{path} line {error.lineno}: {error.msg}") from error
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == path.absolute()]
            at = f" line {lines[-1]}" if lines else ""
            raise UserError(f"{path}{at}: {type(error).__name__}: {_flat(str(error))}") from error
    if not isinstance(config, config_type):
        raise UserError(f"{path}: config() returned a {type(config).__name__}, not a {config_type.__name__}")
    return config


def _config_dirs() -> list[Path]:
    checkout = Path(jaxlm.__file__).parent.parent / "configs"
    return [directory for directory in dict.fromkeys((Path("configs").absolute(), checkout)) if directory.is_dir()]


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    """Lets a config import its neighbours, whether run as a module, a script or the installed command.

    They are read anew for each config: a session that loads several must take neither the file of the same name beside
    another config nor what a file was before an edit. Until then they stay, for their dataclasses look them up by name.
    """
    for name in _neighbours:
        sys.modules.pop(name, None)
        package, _, attribute = name.rpartition(".")
        # ``from configs import name`` asks the package before it asks for the module.
        if package in sys.modules and hasattr(sys.modules[package], attribute):
            delattr(sys.modules[package], attribute)
    _neighbours.clear()
    importlib.invalidate_caches()
    paths, modules = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(directory), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = paths
        new = {name: getattr(sys.modules[name], "__file__", None) for name in sys.modules.keys() - modules}
        _neighbours.update(name for name, file in new.items() if file and Path(file).absolute().parent == directory)


def _without_groups(config: T, argv: Sequence[str]) -> tuple[T, list[str]]:
    """The config without the groups that ``--group None`` takes out of it, and the other tokens."""
    rest = list(argv)
    for i in reversed(range(len(rest))):
        length = 1 if rest[i].endswith("=None") else 2 if rest[i + 1 : i + 2] == ["None"] else 0
        path = _name(rest[i]).split(".")
        if length and rest[i].startswith("--") and _may_be_none(config, path):
            config = _without(config, path)
            del rest[i : i + length]
    return config, rest


def _may_be_none(config: Any, path: Sequence[str]) -> bool:
    """Whether a path leads to a group of fields whose type has a None."""
    *outer, last = path
    for name in outer:
        config = getattr(config, name, None)
    if not (dataclasses.is_dataclass(config) and dataclasses.is_dataclass(getattr(config, last, None))):
        return False
    return types.NoneType in typing.get_args(typing.get_type_hints(type(config))[last])


def _without(config: Any, path: Sequence[str]) -> Any:
    """A copy in which a group is None. Unchecked: what takes its place is another option, and tyro builds all anew."""
    name, *inner = path
    changed = copy.copy(config)
    object.__setattr__(changed, name, _without(getattr(config, name), inner) if inner else None)
    return changed


def _option_kinds(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type hint of every field; for a group of fields its dataclass type. Groups in a tuple are known by
    their number: ``rewards.0.weight``."""
    kinds: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        is_group = dataclasses.is_dataclass(value)
        kinds[name] = type(value) if is_group else hints[field.name]
        if is_group:
            kinds |= _option_kinds(value, f"{name}.")
        for number, item in enumerate(value if isinstance(value, tuple) else ()):
            if dataclasses.is_dataclass(item):
                kinds[f"{name}.{number}"] = type(item)
                kinds |= _option_kinds(item, f"{name}.{number}.")
    return kinds


def _normalise(argv: Sequence[str], kinds: dict[str, Any]) -> Iterator[str]:
    """The tokens as tyro takes them, every option checked: ``--a.no-b`` and a lone ``--a.b`` become values."""
    for i, token in enumerate(argv):
        if not token.startswith("--"):
            follows_bool = i > 0 and kinds.get(_name(argv[i - 1])) is bool and "=" not in argv[i - 1]
            if i == 0 or (token.startswith("-") and not re.fullmatch(r"-[\d.].*|-inf", token)):
                raise UserError(f"unexpected argument {token!r}: options are --field.sub value")
            yield token.capitalize() if follows_bool and token.lower() in ("true", "false") else token
            continue
        name, equals, value = _name(token), *token.partition("=")[1:]
        parent, _, last = name.rpartition(".")
        positive = f"{parent}.{last[3:]}" if parent else last[3:]
        if name not in kinds and last.startswith("no_") and kinds.get(positive) is bool and not equals:
            yield from (f"--{positive}", "False")
            continue
        if not any(name == known or (_is_dict(kind) and name.startswith(f"{known}.")) for known, kind in kinds.items()):
            raise UserError(_absent_group(name, kinds) or f"unknown option --{name}{_near_option(name, kinds)}")
        if dataclasses.is_dataclass(kinds.get(name)):
            inside = [known for known in kinds if known.startswith(f"{name}.")]
            raise UserError(f"--{name} is a group of fields: set one of them, like --{inside[0]}")
        is_bool = kinds.get(name) is bool
        yield f"--{name}{equals}{value.capitalize() if is_bool else value}"
        if is_bool and not equals and (i + 1 == len(argv) or argv[i + 1].startswith("--")):
            yield "True"


def _name(token: str) -> str:
    return token.removeprefix("--").partition("=")[0].replace("-", "_")


def _is_dict(kind: Any) -> bool:
    return kind is dict or typing.get_origin(kind) is dict


def _absent_group(name: str, kinds: dict[str, Any]) -> str | None:
    """What to say of an option inside a group of fields that is None here; None where it is in no such group."""
    parts = name.split(".")
    for group in (".".join(parts[:length]) for length in range(1, len(parts))):
        choices = typing.get_args(kinds.get(group))
        members = [kind for kind in choices if dataclasses.is_dataclass(kind)]
        if members and types.NoneType in choices:
            makes = " or ".join(f"{group.rpartition('.')[2]}={_type_name(kind)}(...)" for kind in members)
            return f"unknown option --{name}: {group} is None in this config: set {makes} in its file"
    return None


def _near_option(name: str, kinds: dict[str, Any]) -> str:
    parent, _, last = name.rpartition(".")
    # A bare name is most often a field of some group: say which. In a known group, only its own fields are near.
    same = [f"--{known}" for known in kinds if known.rpartition(".")[2] == last]
    if same:
        return f"; did you mean {' or '.join(same[:3])}?"
    siblings = [known.rpartition(".")[2] for known in kinds if known.rpartition(".")[0] == parent]
    near = difflib.get_close_matches(last, siblings, cutoff=0.6)
    dot = f"{parent}." if parent else ""
    return f"; did you mean {' or '.join(f'--{dot}{match}' for match in near)}?" if near else near_names(name, kinds)


def _in_one_line(parse: Any, tokens: list[str], kinds: dict[str, Any]) -> Any:
    """Runs tyro with its boxes caught: what they say becomes one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse()
    except ValueError as error:  # of the outermost config: tyro makes boxes of those inside it only
        raise UserError(str(error)) from error
    except SystemExit:
        message = _unbox(said.getvalue())
    option = re.match(r"(--[\w.-]+): ", message)
    if option and _name(option[1]) in kinds:
        name = _name(option[1])
        message = f"--{name} {_given(name, tokens)} is not of type {_type_name(kinds[name])}"
    raise UserError(message)


def _given(name: str, tokens: list[str]) -> str:
    """The values that an option has on the command line."""
    at = max(i for i, token in enumerate(tokens) if token.startswith("--") and _name(token) == name)
    rest = itertools.takewhile(lambda token: not token.startswith("--"), tokens[at + 1 :])
    return " ".join([*filter(None, [tokens[at].partition("=")[2]]), *rest])


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _unbox(text: str) -> str:
    """The message in one of tyro's boxes: a title, a rule, the message over some lines, and after a rule the help."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" │|╭╮╰╯┌┐└┘") for line in text.splitlines()]
    parts = [" ".join(part) for part in _split([line for line in lines if line])]
    message = (parts[1] if len(parts) > 1 else _flat(text)).strip()
    # The config stands at the top level on the command line, so its own name means nothing to the reader.
    message = re.sub(r"^Error parsing (config(: |\.))?", "", message)
    return message[:1].lower() + message[1:] if message[:2].istitle() else message


def _split(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between horizontal rules."""
    part: list[str] = []
    for line in lines:
        if re.fullmatch(r"[-─━]{3,}", line):
            yield part
            part = []
        else:
            part.append(line)
    yield part


def _flat(text: str) -> str:
    return " ".join(text.split())

"""Config dataclasses as JSON and back, exactly: types come from the hints; no name may be unknown, or missing but those
that were added later (`core.fields`)."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from jaxlm.core.errors import UserError
from jaxlm.core.fields import is_added

T = TypeVar("T")
_ABSENT = object()


def config_to_dict(config: Any) -> Any:
    """A config as JSON values: dataclasses become dicts, tuples become lists, paths become text."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: config_to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {str(key): config_to_dict(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [config_to_dict(value) for value in config]
    if isinstance(config, Path):
        return str(config)
    if config is None or isinstance(config, bool | int | float | str):
        return config
    raise TypeError(f"a config holds {config!r}, which is not a plain value")


def config_from_dict(config_type: type[T], data: dict[str, Any], where: str = "config") -> T:
    """The config that `config_to_dict` wrote down. `where` names the source in errors.

    Raises UserError for an unknown or missing name (near names offered), a value of another type, or one that the
    dataclass itself refuses.
    """
    return _decode(config_type, data, where)


def decode_config(hint: Any, data: dict[str, Any], where: str = "config") -> Any:
    """`config_from_dict` where the type is a union of dataclasses that a literal field tells apart."""
    return _decode(hint, data, where)


def diff_configs(old: Any, new: Any) -> list[str]:
    """``['model.num_layers: 4 -> 6', ...]``, in the order of `old`; empty where the two are equal."""
    return [f"{name}: {_show(a)} -> {_show(b)}" for name, (a, b) in diff_fields(old, new).items()]


def diff_fields(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (old, new) of every leaf that differs; a name that one side lacks shows as ``<absent>``."""
    before, after = dict(_flatten(config_to_dict(old))), dict(_flatten(config_to_dict(new)))
    names = [*before, *(name for name in after if name not in before)]
    pairs = {name: (before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in names}
    return {name: (a, b) for name, (a, b) in pairs.items() if not _same(a, b)}


def with_added_fields(config: Any, record: dict[str, Any]) -> dict[str, Any]:
    """A record of an older config, with the fields that this config's dataclasses have gained since (`core.fields`)."""
    if dataclasses.is_dataclass(config):
        record = _filled(type(config), record)
        parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    else:
        parts = config if isinstance(config, dict) else {}
    return {
        name: with_added_fields(parts[name], old) if name in parts and isinstance(old, dict) else old
        for name, old in record.items()
    }


def _filled(config_type: Any, record: dict[str, Any]) -> dict[str, Any]:
    lacking = [field for field in dataclasses.fields(config_type) if is_added(field) and field.name not in record]
    return record | {field.name: config_to_dict(_default(field)) for field in lacking}


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def near_names(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """``"; did you mean 'model_dim'?"`` for the known names nearest to a wrong one, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=count, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""


def _decode(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as the type that a hint asks for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _decode(args[0], value, where)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, value, where)
    if origin in (Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is Literal:
        # True == 1 in Python, not in a config.
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise UserError(f"{where}={_show(value)} is not one of {', '.join(map(_show, args))}")
    if hint is tuple or origin is tuple:
        return _decode_tuple(args, value, where)
    if hint is dict or origin is dict:
        if isinstance(value, dict):
            return {key: _decode(args[1], item, f"{where}.{key}") if args else item for key, item in value.items()}
    elif hint is Any:
        return value
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif hint is Path:
        if isinstance(value, str):
            return Path(value)
    elif type(value) is (types.NoneType if hint is None else hint):
        return value
    raise UserError(f"{where}={_show(value)} is not of type {getattr(hint, '__name__', hint)}")


def _decode_dataclass(hint: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}={_show(value)} is not a group of fields ({hint.__name__})")
    names = [field.name for field in dataclasses.fields(hint)]
    for name in value:
        if name not in names:
            raise UserError(f"{where} has an unknown field {name!r}{near_names(name, names)}")
    value = _filled(hint, value)
    for name in names:
        if name not in value:
            raise UserError(f"{where} lacks the field {name!r}{near_names(name, value)}")
    hints = typing.get_type_hints(hint, include_extras=True)
    fields = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in names}
    try:
        return hint(**fields)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _decode_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first member that takes the value; one of exactly its type goes first (1 in ``float | int`` is an int)."""
    if isinstance(value, dict) and len(tagged := [member for member in args if _has_tag(member, value)]) == 1:
        return _decode(tagged[0], value, where)
    errors = []
    for member in sorted(args, key=lambda member: member is not type(value)):
        try:
            return _decode(member, value, where)
        except UserError as error:
            errors.append(error)
    members = [member for member in args if member is not types.NoneType]
    if len(members) == 1:
        raise errors[0]
    raise UserError(f"{where}={_show(value)} is none of {', '.join(str(getattr(m, '__name__', m)) for m in args)}")


def _has_tag(member: Any, value: dict[str, Any]) -> bool:
    """Whether a dataclass has a field of one literal value, and the dict holds it."""
    if not dataclasses.is_dataclass(member):
        return False
    hints = typing.get_type_hints(member)
    tags = {name: args[0] for name, hint in hints.items() if len(args := typing.get_args(hint)) == 1}
    return any(typing.get_origin(hints[name]) is Literal and value.get(name) == tag for name, tag in tags.items())


def _decode_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}={_show(value)} is not a list")
    if not args:
        return tuple(value)
    if args[-1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise UserError(f"{where} has {len(value)} entries, not {len(args)}")
    return tuple(_decode(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(args, value, strict=True)))


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):  # groups of fields
        for number, item in enumerate(value):
            yield from _flatten(item, f"{prefix}.{number}")
    else:
        yield prefix, value


def _same(a: Any, b: Any) -> bool:
    # 1 and 1.0 are one value of a float field, True and 1 are not; NaN equals itself here.
    return (a == b and isinstance(a, bool) == isinstance(b, bool)) or (a != a and b != b)


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "<absent>"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

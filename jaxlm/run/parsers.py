"""Parsers of command lines that have no config: one line for an error, and options that several commands share."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from jaxlm.core.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help shows the options)")


def tool_parser(prog: str, doc: str | None) -> Parser:
    """The parser of a tool: its module's docstring is the help, the first paragraph above the options."""
    summary, _, details = (doc or "").partition("\n\n")
    return Parser(
        prog=prog,
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def checked(convert: Callable[[str], Any], holds: Callable[[Any], bool], what: str) -> Callable[[str], Any]:
    """The type of an option whose value must hold something, said as ``what``."""

    def read(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not holds(value):
            raise argparse.ArgumentTypeError(f"{text} must be {what}")
        return value

    return read


positive = checked(float, lambda value: 0 < value < math.inf, "a number above 0")
not_negative = checked(float, lambda value: 0 <= value < math.inf, "a number of 0 or more")
share = checked(float, lambda value: 0 < value < 1, "a number between 0 and 1")
seed_number = checked(int, lambda value: 0 <= value < 1 << 32, f"a whole number in 0..{(1 << 32) - 1}")


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which parameters of a run are loaded."""
    parser.add_argument("--step", type=int, help="which checkpoint; default the newest")
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="the averaged or the trained parameters; default averaged, if the run kept them",
    )
    parser.add_argument(
        "--weights",
        choices=("trained", "int8", "row"),
        default="trained",
        help="int8: kernels in 8 bits; row: laid out for greedy decoding of one row on an NVIDIA GPU; default "
        "%(default)s",
    )

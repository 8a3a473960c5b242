"""Parsers of command lines that have no config: one line for an error, and options that several commands share."""

import argparse
import math
from typing import NoReturn

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


def positive(text: str) -> float:
    """The type of an option that is a number above 0."""
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 must be above 0")
    return value


def not_negative(text: str) -> float:
    """The type of an option that is a number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} must be a number of 0 or more")
    return value


def seed_number(text: str) -> int:
    """The type of ``--seed``."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError(f"{value} must lie in 0..{(1 << 32) - 1}")
    return value


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

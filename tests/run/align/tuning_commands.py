"""The real commands of tuning in this process, and the files that they read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.run.cli import main


def command_of(name: str) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """``f(capsys, *argv)``: (exit code, the figures if ``jaxlm NAME`` printed any, stderr)"""

    def command(capsys: Any, *argv: Any) -> tuple[int, dict[str, Any], str]:
        code = main([name, *map(str, argv)])
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else {}, err

    return command


def write(path: Path, lines: Any) -> Path:
    """A .jsonl file of these records."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path

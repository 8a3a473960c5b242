"""``jaxlm report RUN``: a run's report.html, written again from what its directory holds now."""

import json
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.io.report import write_report
from jaxlm.io.run_dir import RunDir
from jaxlm.run.parsers import Parser


def main(argv: list[str]) -> int:
    """Prints the report's path as JSON. Raises UserError where ``RUN`` is no run directory."""
    parser = Parser(prog="jaxlm report", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of a training, finished or not")
    path = parser.parse_args(argv).run
    run = RunDir(path)
    if run.config_path.is_file() and not (run.metrics_path.is_file() or run.checkpoints_path.is_dir()):
        raise UserError(
            f"{path} has neither metrics nor checkpoints, so it is no training's, or one that has not begun: the page "
            "of a study or a build is written by its own command"
        )
    print(json.dumps({"report": str(write_report(path))}))
    return 0

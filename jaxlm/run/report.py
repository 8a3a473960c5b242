"""``jaxlm report RUN``: a run's report.html, written again from what its directory holds now."""

import json
from pathlib import Path

from jaxlm.io.report import write_report
from jaxlm.run.parsers import Parser


def main(argv: list[str]) -> int:
    """Prints the report's path as JSON. Raises UserError where ``RUN`` is no run directory."""
    parser = Parser(prog="jaxlm report", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory, of a finished run or not")
    print(json.dumps({"report": str(write_report(parser.parse_args(argv).run))}))
    return 0

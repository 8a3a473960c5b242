"""``python -m tools.versus kenlm BIN --train FILE --held-out FILE``: our n-gram commands against KenLM's, in turns.

BIN has KenLM's lmplz, build_binary and query; the files hold a sentence a line (``<unk>`` an ordinary word: write it
otherwise for lmplz). Whole processes, from start to end: ``tools.ngram fit`` against lmplz, neither keeping an ARPA
file, ``tools.ngram score`` against query on its binary model, both over the training text again (a long one: of a short
one only the starts are measured). Prints one JSON line: times, ratios, and both perplexities of the held-out text.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxlm.run.parsers import tool_parser
from tools.versus.turns import ratio, spread

TOOLS = ("lmplz", "build_binary", "query")


def run(command: list[str], *, stdin: Path | None = None, stdout: Path | None = None) -> tuple[float, str]:
    """(seconds, what it printed) of a whole process; its output may go to a file. Ends where it fails."""
    with open(stdin or "/dev/null", "rb") as source, open(stdout or "/dev/null", "wb") as sink:
        start = time.perf_counter()
        done = subprocess.run(
            command, stdin=source, stdout=sink if stdout else subprocess.PIPE, stderr=subprocess.PIPE, check=False
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-400:]}")
    return seconds, "" if stdout else done.stdout.decode()


def main(argv: list[str]) -> int:
    """Prints the table as one JSON line."""
    parser = tool_parser("python -m tools.versus kenlm", __doc__)
    parser.add_argument("bin", type=Path, help="the folder of KenLM's programs")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="a sentence a line")
    parser.add_argument("--held-out", type=Path, required=True, metavar="FILE", help="a sentence a line")
    parser.add_argument("--order", type=int, default=5, help="default %(default)s")
    parser.add_argument("--memory", default="1G", help="lmplz -S; default %(default)s")
    parser.add_argument("--turns", type=int, default=7, help="default %(default)s")
    args = parser.parse_args(argv)
    for name in TOOLS:
        if not (args.bin / name).exists():
            parser.error(f"{args.bin} has no {name}: give the folder of KenLM's programs")
    order = str(args.order)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        arpa, binary, model = scratch / "lm.arpa", scratch / "lm.binary", scratch / "run"
        lmplz = [str(args.bin / "lmplz"), "-o", order, "-S", args.memory, "-T", name]
        query = [str(args.bin / "query"), "-v", "summary", str(binary)]
        ngram = [sys.executable, "-m", "tools.ngram"]
        fit = [*ngram, "fit", "--order", order, "--text", str(args.train), "--out", str(model)]
        score = [*ngram, "score", str(model), "--text"]

        def fit_ours() -> float:
            shutil.rmtree(model, ignore_errors=True)
            return run(fit)[0]

        run(lmplz, stdin=args.train, stdout=arpa)
        run([str(args.bin / "build_binary"), str(arpa), str(binary)])
        fit_ours()
        theirs, ours = run(query, stdin=args.held_out)[1], run([*score, str(args.held_out)])[1]
        found = re.search(r"Perplexity including OOVs:\s*([\d.]+)", theirs)
        perplexity = {
            "kenlm": float(found[1]) if found else None,
            "jaxlm": json.loads(ours.splitlines()[-1])["perplexity"],
        }
        seconds: dict[str, list[float]] = {"lmplz": [], "fit": [], "query": [], "score": []}
        for _ in range(args.turns):
            seconds["lmplz"].append(run(lmplz, stdin=args.train, stdout=Path("/dev/null"))[0])
            seconds["fit"].append(fit_ours())
            seconds["query"].append(run(query, stdin=args.train)[0])
            seconds["score"].append(run([*score, str(args.train)])[0])
    figures = {name: spread(turns) for name, turns in seconds.items()}
    figures |= {"fit_over_lmplz": 1 / ratio(seconds["fit"], seconds["lmplz"])}
    figures |= {"score_over_query": 1 / ratio(seconds["score"], seconds["query"])}
    print(json.dumps({"order": args.order, "perplexity": perplexity, **figures, "turns": args.turns}))
    return 0

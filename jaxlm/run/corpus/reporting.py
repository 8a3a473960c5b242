"""What a build did, gathered from the accounts of its tasks: the data of report.json."""

import json
import platform
from collections.abc import Sequence
from typing import Any

import jaxlm
from jaxlm.data.ledger import Ledger, StepAccount
from jaxlm.io.run_dir import git_commit, package_versions
from jaxlm.io.shards import num_rows
from jaxlm.run.corpus.cleaning import describe
from jaxlm.run.corpus.collecting import READ
from jaxlm.run.corpus.config import CorpusBuildConfig
from jaxlm.run.corpus.duplicates import COLLECT
from jaxlm.run.corpus.evaluation_index import SETS
from jaxlm.run.corpus.selecting import EVALUATION, SELECT
from jaxlm.run.corpus.workspace import TIMES, Stage, Workspace
from jaxlm.run.corpus.writing import DATASET, VALIDATION

USED = ("numpy", "pyarrow", "array-record", "sentencepiece", "ftfy", "lingua-language-detector", "opencc")


def corpus_report(
    config: CorpusBuildConfig, workspace: Workspace, stages: Sequence[Stage], bad_paths: list[str]
) -> dict[str, Any]:
    """Raises ValueError where a document is unaccounted for: that would be a bug, and no report may hide it."""
    ledger = Ledger()
    ledger.add(workspace.ledger(COLLECT, config.num_shards))
    ledger.add(workspace.ledger(SELECT, config.num_shards))
    ledger.check()
    _check_rows(workspace, config.num_shards, ledger)
    times = _times(workspace, config.num_shards)
    mixture = json.loads((workspace.task(DATASET, 0) / "mixture.json").read_bytes())
    tokens = _tokens(workspace, config.num_shards)
    sources = {}
    for source in config.sources:
        steps = ledger.sources.get(source.name, {})
        read = steps.get(READ, StepAccount())
        last = list(steps.values())[-1] if steps else StepAccount()
        sources[source.name] = {
            "licence": source.licence,
            "language": source.language,
            "documents_read": read.documents_in,
            "documents_kept": last.documents_out,
            "bytes_read": read.bytes_in,
            "bytes_kept": last.bytes_out,
            "tokens_kept": tokens.get(source.name, 0),
        }
    names = ("documents_read", "documents_kept", "bytes_read", "bytes_kept", "tokens_kept")
    bad = _bad_records(workspace, config.num_shards)
    shares = _realised_shares(mixture["realised"])
    return {
        "title": config.title,
        "total": {name: sum(source[name] for source in sources.values()) for name in names},
        "sources": sources,
        "steps": [_step(name, ledger.totals(name), times.get(name)) for name in ledger.steps()],
        "speeds": {name: size / seconds / 1e6 for name, (seconds, size) in times.items() if seconds > 1e-3},
        "mixture": mixture | {"realised_shares": shares},
        "sha256": mixture["sha256"],
        "bad_records": {"count": bad[0] + len(bad_paths), "listed": bad_paths + bad[1]},
        "evaluation": _evaluation(config, workspace),
        "processor_seconds": sum(seconds for seconds, _ in times.values()),
        "recipes": {s.name: [describe(step) for step in config.recipe_of(s)] for s in config.sources},
        "made_by": {
            "jaxlm": jaxlm.__version__,
            "git commit": git_commit(),
            "python": platform.python_version(),
            "seed": config.seed,
            "shards": config.num_shards,
            "stages": ", ".join(stage.name for stage in stages),
            **package_versions(USED),
        },
        "ledger": ledger.to_dict(),
    }


def _step(name: str, account: StepAccount, spent: list[float] | None) -> dict[str, Any]:
    speed = spent[1] / spent[0] / 1e6 if spent and spent[0] > 1e-3 else None
    return {
        "step": name,
        "documents_in": account.documents_in,
        "documents_out": account.documents_out,
        "removed": account.removed,
        "changed": account.changed,
        "changes": account.changes,
        "bytes_in": account.bytes_in,
        "bytes_out": account.bytes_out,
        "megabytes_per_second": speed,
    }


def _times(workspace: Workspace, num_shards: int) -> dict[str, list[float]]:
    """Step -> [processor seconds, bytes read], over all shards."""
    total: dict[str, list[float]] = {}
    for stage in (COLLECT, SELECT):
        for path in workspace.paths(stage, num_shards, TIMES):
            for step, (seconds, size) in json.loads(path.read_bytes()).items():
                spent = total.setdefault(step, [0.0, 0])
                spent[0] += seconds
                spent[1] += size
    return total


def _tokens(workspace: Workspace, num_shards: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in workspace.paths(SELECT, num_shards, "count.json"):
        for source, (_, _, tokens) in json.loads(path.read_bytes())["sources"].items():
            found[source] = found.get(source, 0) + tokens
    return found


def _bad_records(workspace: Workspace, num_shards: int) -> tuple[int, list[str]]:
    count, listed = 0, []
    for path in workspace.paths(COLLECT, num_shards, "bad.json"):
        for entry in json.loads(path.read_bytes()):
            count += entry["bad"]
            listed += [bad_line(one) for one in entry["bad_records"]]
    return count, listed


def bad_line(record: dict[str, Any]) -> str:
    """A bad record as a line: file, what is wrong, the byte that it begins at."""
    at = "" if record["offset"] is None else f" (byte {record['offset']})"
    return f"{record['file']}: {record['reason']}{at}"


def _evaluation(config: CorpusBuildConfig, workspace: Workspace) -> dict[str, Any]:
    """What was looked for, by set, and what could not be."""
    if not config.evaluation:
        return {}
    return json.loads((workspace.task(EVALUATION, 0) / SETS).read_bytes())


def _check_rows(workspace: Workspace, num_shards: int, ledger: Ledger) -> None:
    """The files must hold what the accounts say."""
    kept = sum(list(steps.values())[-1].documents_out for steps in ledger.sources.values() if steps)
    rows = sum(num_rows(workspace.paths(SELECT, num_shards, "documents.parquet")))
    if rows != kept:
        raise ValueError(f"the accounts say that {kept} documents are left, and there are {rows}")


def _realised_shares(realised: dict[str, dict[str, list[int]]]) -> dict[str, float]:
    """Share of the training tokens (bytes where none were counted) that each source has in the dataset."""
    found: dict[str, int] = {}
    for split, sources in realised.items():
        if split != VALIDATION:
            for source, (_, size, tokens) in sources.items():
                found[source] = found.get(source, 0) + (tokens or size)
    total = sum(found.values())
    return {source: count / total for source, count in found.items()} if total else {}

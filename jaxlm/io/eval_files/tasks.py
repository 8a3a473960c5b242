"""The tasks that can be read: published ones by name, one's own by their file."""

from collections.abc import Callable
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.evals.tasks.task import Task
from jaxlm.io.config_json import near_names
from jaxlm.io.eval_files.bbh import load_bbh
from jaxlm.io.eval_files.instructions import load_ifeval, load_instructions
from jaxlm.io.eval_files.knowledge import load_cmmlu, load_mmlu
from jaxlm.io.eval_files.language import load_blimp, load_lambada
from jaxlm.io.eval_files.own import is_own, load_own
from jaxlm.io.eval_files.records import Content
from jaxlm.io.eval_files.word_problems import load_aqua, load_gsm8k, load_multiarith, load_svamp
from jaxlm.io.eval_files.yes_no import load_coin_flip, load_strategyqa

TASKS: dict[str, Callable[[Path], Content]] = {
    "aqua": load_aqua,
    "bbh": load_bbh,
    "blimp": load_blimp,
    "cmmlu": load_cmmlu,
    "coin_flip": load_coin_flip,
    "gsm8k": load_gsm8k,
    "ifeval": load_ifeval,
    "instructions": load_instructions,
    "lambada": load_lambada,
    "mmlu": load_mmlu,
    "multiarith": load_multiarith,
    "strategyqa": load_strategyqa,
    "svamp": load_svamp,
}
"""``f(data) -> content``; ``data`` is the task's own folder or one above it. Each raises UserError for a bad file."""


def load_task(name: str, data: str | Path | None) -> Task:
    """A task by name, or of a file ``NAME.jsonl`` (`io.eval_files.own`), which needs no ``data``. Raises UserError for
    an unknown one, and for files that are missing or bad."""
    if is_own(name):
        return load_own(Path(name), taken=TASKS)
    if name not in TASKS:
        there = ", ".join(TASKS)
        raise UserError(f"unknown task {name!r}{near_names(name, TASKS)} (there are {there}; or FILE.jsonl, your own)")
    if data is None:
        raise UserError(f"task {name!r} is published: --data names the folder that holds its files")
    try:
        found = TASKS[name](Path(data))
        return Task(name, FORMS[name], tuple(found.items), tuple(found.shots), found.instructions, found.split)
    except ValueError as error:
        raise UserError(str(error)) from error

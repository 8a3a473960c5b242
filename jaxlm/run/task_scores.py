"""Tasks as a part of a run's evaluations: how abilities come while the loss falls."""

from collections.abc import Callable
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.evals.grading import report
from jaxlm.io.agree import num_processes, say
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.models.api import Model
from jaxlm.models.families import MASKED
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.config import TasksConfig
from jaxlm.run.evaluate import limited
from jaxlm.run.evaluate_items import NoNumberError, Settings, make_scorer
from jaxlm.run.interval import Figures
from jaxlm.text.tokenizer import Tokenizer


def make_task_scores(
    config: TasksConfig, model: Model, tokenizer: Tokenizer, run_config: dict[str, Any]
) -> Callable[[Params], Figures]:
    """``scores(params)``: ``eval/TASK/METRIC`` of each task's items, in one process. Items are kept by ``jaxlm
    evaluate``, which puts a finished run to all of them.

    Raises UserError, before anything has run, for tasks that are unknown, lack their files or cannot be asked.
    """
    if not config.names:
        return lambda params: {}
    if model.config.family in MASKED:
        raise UserError(f"tasks.names={', '.join(config.names)}: an encoder scores no texts, leave them out")
    if num_processes() > 1:
        raise UserError("tasks.names: tasks are scored by one process; leave them out, and use jaxlm evaluate")
    settings = Settings(num_shots=config.num_shots, limit=config.limit)
    tasks = [limited(load_task(name, config.data), config.limit) for name in config.names]
    scorers = [make_scorer(task, settings) for task in tasks]

    def scores(params: Params) -> Figures:
        lm = CausalLM(model, params, tokenizer, run_config)
        found: Figures = {}
        for task, scorer in zip(tasks, scorers, strict=True):
            try:
                records = scorer.run(lm, range(len(task.items)))
            except NoNumberError as error:  # a matter of the run, which has its own answer to it
                say(f"not scored: {error}")
                continue
            graded = [scorer.graded(place, record) for place, record in enumerate(records)]
            for name, figure in report(task, graded).items():
                if isinstance(figure, dict) and "value" in figure:
                    found[f"eval/{task.name}/{name}"] = figure["value"]
        return found

    return scores

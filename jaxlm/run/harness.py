"""Any model of ours behind lm-evaluation-harness: its tasks and metrics, our likelihoods and completions.

Needs the ``eval`` extra; nothing else of jaxlm imports this module. Context and continuation are split as the harness's
own models do (`evals.continuations.split_request`), and a text longer than the context is read in our windows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.run.language_model import LanguageModel

try:
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise UserError(f"lm-evaluation-harness is not installed ({error}): pip install 'jaxlm[eval]'") from error

DEFAULT_NEW_TOKENS = 256
"""Where a task does not say: the harness's own number."""
_KNOWN = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")


class HarnessLM(LM):
    """The model class that the harness is handed: ``simple_evaluate(model=HarnessLM(jaxlm.load(run)), ...)``."""

    def __init__(self, lm: LanguageModel, *, seed: int = 0, truncate: bool = True):
        super().__init__()
        self.lm, self.seed, self.truncate = lm, seed, truncate
        self.num_truncated = 0
        """Requests whose context lost tokens for want of room."""

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-probability, whether every token is the first choice) of each continuation behind its context."""
        found = self.lm.likelihoods([(one.args[0], one.args[1]) for one in requests], truncate=self.truncate)
        self.num_truncated += sum(one.truncated > 0 for one in found)
        return [(one.logprob, one.is_greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-probability of each whole text."""
        return [one.logprob for one in self.lm.likelihoods([("", one.args[0]) for one in requests])]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """A completion of each context up to a stop string. Raises UserError for an option that is not known here."""
        texts: dict[int, str] = {}
        options = [_options(one.args[1]) for one in requests]
        for how in {repr(one): one for one in options}.values():
            mine = [i for i, one in enumerate(options) if one == how]
            said = self.lm.generate(
                [requests[i].args[0] for i in mine], seed=self.seed, slide=self.truncate, numbers=mine, **how
            )
            self.num_truncated += sum(one.truncated > 0 for one in said)
            texts.update({i: one.text for i, one in zip(mine, said, strict=True)})
        return [texts[i] for i in range(len(requests))]

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return f"jaxlm-{self.lm.tokenizer.kind}-{self.lm.tokenizer.vocab_size}"

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Not offered: our templates make tokens, not texts."""
        raise UserError("chat templates are not applied in the harness: leave apply_chat_template out")


def run_harness(
    lm: LanguageModel,
    tasks: Sequence[str],
    *,
    include_path: str | None = None,
    num_shots: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    truncate: bool = True,
) -> dict[str, Any]:
    """The harness's own record: ``results``, ``n-samples``, ``samples`` by task, ...; and ``truncated``, how many
    requests had a context that was cut.

    Raises UserError for a task that the harness does not know.
    """
    manager = TaskManager(include_path=include_path)
    known = set(manager.all_tasks)
    if unknown := [name for name in tasks if name not in known]:
        where = f" nor in {include_path}" if include_path else ""
        raise UserError(
            f"task {unknown[0]!r} is not in the harness{where}: --include-path names a folder of task files"
        )
    model = HarnessLM(lm, seed=seed, truncate=truncate)
    found = simple_evaluate(
        model=model,
        tasks=list(tasks),
        num_fewshot=num_shots,
        limit=limit,
        task_manager=manager,
        log_samples=True,
        random_seed=seed,
        fewshot_random_seed=seed,
    )
    assert found is not None, "one process is rank 0"
    return {**found, "truncated": model.num_truncated}


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's options of a completion as ours."""
    unknown = [name for name in given if name not in _KNOWN]
    if unknown:
        raise UserError(f"the task asks to generate with {unknown[0]!r}, which is not known here ({', '.join(_KNOWN)})")
    until = given.get("until") or ()
    # Greedy unless asked otherwise, as in the harness.
    sampled = bool(given.get("do_sample", False)) and float(given.get("temperature") or 0.0) > 0
    return {
        "stop": (until,) if isinstance(until, str) else tuple(until),
        "max_new_tokens": int(given.get("max_gen_toks") or DEFAULT_NEW_TOKENS),
        "temperature": float(given["temperature"]) if sampled else 0.0,
        "top_p": given.get("top_p") if sampled else None,
        "top_k": given.get("top_k") if sampled else None,
    }
